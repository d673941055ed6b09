"""Tables that people have: each gives the law of the plain table, and says what it left out."""

import json

import numpy as np
import pandas as pd
import pytest
from test_table import folder, recscale  # noqa: F401

from recscale.errors import InputError
from recscale.laws import reading
from recscale.laws.fit import fit_law
from recscale.laws.result import Fit

LAW = ("--law", "hoffmann_tied", "--x", "N=params,D=tokens", "--y", "loss", "--resamples", "20")


@pytest.fixture(scope="module")
def runs():
    n, d = (part.ravel() for part in np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 1e11, 4)))
    loss = (1.8 + 480 / n**0.36 + 2100 / d**0.36) * np.exp(
        0.002 * np.random.default_rng(0).standard_normal(16)
    )
    return pd.DataFrame({"params": n.round(), "tokens": d.round(), "loss": loss.round(6)})


@pytest.fixture
def law(monkeypatch, capsys, tmp_path):
    """Fit a table: its constants, and what was said."""

    def fitted(path, *more):
        code, out, err = recscale(
            monkeypatch, capsys, "fit", path, *LAW, "--json", tmp_path / "l.json", *more
        )
        assert (code, err) == (0, "")
        return Fit.read(tmp_path / "l.json").parameters, out

    return fitted


@pytest.fixture
def plain(runs, law, tmp_path):
    runs.to_csv(tmp_path / "plain.csv", index=False)
    return law(tmp_path / "plain.csv")[0]


def human(value):
    return f"{value / 1e9:.9g}B" if value >= 1e9 else f"{value / 1e6:.9g}M"


WRITERS = {
    "a.tsv": lambda runs, path: runs.to_csv(path, index=False, sep="\t"),
    "tabs.csv": lambda runs, path: runs.to_csv(path, index=False, sep="\t"),
    "b.jsonl": lambda runs, path: runs.to_json(path, orient="records", lines=True, double_precision=15),
    "c.pq": lambda runs, path: runs.to_parquet(path),
    "semi.csv": lambda runs, path: runs.to_csv(path, index=False, sep=";", decimal=","),
    "units.csv": lambda runs, path: runs.assign(
        params=runs["params"].map(human), tokens=runs["tokens"].map("{:,.0f}".format)
    ).to_csv(path, index=False),
    "crashed.csv": lambda runs, path: pd.concat(
        [runs, pd.DataFrame({"params": [None], "tokens": [5.0], "loss": [None]})]
    ).to_csv(path, index=False),
    "twice.csv": lambda runs, path: pd.concat([runs, runs.head(5)]).to_csv(path, index=False),
    "bom.csv": lambda runs, path: runs.to_csv(path, index=False, encoding="utf-8-sig"),
}
SAID = {
    "units.csv": "params: 10M is read as 1e+07",
    "crashed.csv": "left out, without params: 1 row\n",
    "twice.csv": "left out, the same as another row in every column: 5 rows",
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_however_it_is_written(name, runs, law, plain, tmp_path):
    WRITERS[name](runs, tmp_path / name)
    found, said = law(tmp_path / name)
    assert found == pytest.approx(plain, rel=1e-6)
    assert SAID.get(name, "converged") in said


def test_rates_taken_for_seeds_are_told_and_the_lowest_can_be_kept(runs, law, plain, tmp_path):
    worse = runs.assign(lr=0.3, loss=runs["loss"] * 1.05)
    pd.concat([worse, runs.assign(lr=0.1)]).to_csv(tmp_path / "lr.csv", index=False)
    _, said = law(tmp_path / "lr.csv")
    assert "rows of one place differ in lr and are taken for seeds; --lowest-of lr" in said
    found, said = law(tmp_path / "lr.csv", "--lowest-of", "lr")
    assert found == pytest.approx(plain, rel=1e-6)
    assert "warning" not in said
    assert "not the lowest loss of lr at their place: 16 rows" in said


def test_a_column_that_matters_and_is_not_fitted_is_named(runs, monkeypatch, capsys, tmp_path):
    runs.to_csv(tmp_path / "r.csv", index=False)
    more = ("--law", "power_constant", "--x", "params", "--y", "loss", "--resamples", "20")
    _, out, _ = recscale(monkeypatch, capsys, "fit", tmp_path / "r.csv", *more)
    assert "warning: rows of one place differ in tokens, which the law does not know" in out


def test_columns_whose_names_have_signs(runs, plain, monkeypatch, capsys, tmp_path):
    names = {"params": "Params (M), all", "tokens": "tokens=seen", "loss": "eval/loss, c4"}
    runs.rename(columns=names).to_csv(tmp_path / "n.csv", index=False)
    quoted = ("--x", 'N="Params (M), all",D="tokens=seen"', "--y", "eval/loss, c4", "--resamples", "20")
    more = ("--law", "hoffmann_tied", *quoted, "--json", tmp_path / "n.json")
    assert recscale(monkeypatch, capsys, "fit", tmp_path / "n.csv", *more)[0] == 0
    assert Fit.read(tmp_path / "n.json").parameters == pytest.approx(plain, rel=1e-6)


def test_conditions(tmp_path):
    frame = pd.DataFrame(
        {"a": [1, 2, 3, 4], "b": ["x", "y", "x", "z"], "a,b": [1, 1, 2, 2]}, index=[1, 2, 3, 4]
    )

    def left(text):
        return list(reading.where(frame, text, tmp_path).index)

    assert left(None) == [1, 2, 3, 4]
    assert left("a=2") == left("a=2.0") == [2]
    assert left("b=x") == [1, 3]
    assert left("b=x|z,a>1") == [3, 4]
    assert left("b!=x") == [2, 4]
    assert left("a<=2") == [1, 2]
    assert left("a<2") == [1]
    assert left("a>=3") == [3, 4]
    assert left('"a,b"=2') == [3, 4]
    for text, why in (("a", "is not COLUMN=VALUE"), ("c=1", "has no column c"), ("a>9", "no row has a>9"),
                      ("a>x", "x is not a number")):  # fmt: skip
        with pytest.raises(InputError, match=why):
            left(text)


def test_a_row_is_named_by_its_place_in_the_file(runs, monkeypatch, capsys, tmp_path):
    odd = runs.assign(half=[0] * 8 + [1] * 8, tokens=runs["tokens"].astype(object))
    odd.loc[11, "tokens"] = "?"
    odd.to_csv(tmp_path / "odd.csv", index=False)
    code, _, err = recscale(monkeypatch, capsys, "fit", tmp_path / "odd.csv", *LAW, "--where", "half=1")
    assert (code, "row 12: tokens is ?, not a positive number" in err) == (2, True)


def test_one_size_alone_is_no_law_of_sizes(runs, monkeypatch, capsys, tmp_path):
    runs.assign(params=1e7).to_csv(tmp_path / "one.csv", index=False)
    code, _, err = recscale(monkeypatch, capsys, "fit", tmp_path / "one.csv", *LAW)
    assert (code, "has one params alone to fit: a law of it needs several" in err) == (2, True)


def test_nothing_fitted_is_exit_code_1_with_the_reason(monkeypatch, capsys, tmp_path):
    pd.DataFrame({"x": [1, 2, 3, 4], "y": [-4, -3, -2, -1]}).to_csv(tmp_path / "n.csv", index=False)
    more = ("--law", "saturating_power", "--x", "x", "--y", "y")
    code, out, _ = recscale(monkeypatch, capsys, "fit", tmp_path / "n.csv", *more)
    assert code == 1
    assert "4 left out (loss is -4, not positive)" in out


def test_printed_constants_give_the_curve(runs, law, tmp_path):
    noisy = runs.assign(loss=runs["loss"] * np.exp(0.03 * np.random.default_rng(1).standard_normal(16)))
    noisy.to_csv(tmp_path / "noisy.csv", index=False)
    exact, said = law(tmp_path / "noisy.csv")
    rows = [line.split() for line in said.splitlines() if line.startswith("  ")]
    printed = {name: float(value) for name, value, *_ in rows}

    def curve(p):
        return p["E"] + p["A"] / runs["params"] ** p["alpha"] + p["B"] / runs["tokens"] ** p["alpha"]

    assert set(printed) == set(exact)
    assert (abs(curve(printed) / curve(exact) - 1)).max() < 1e-3


@pytest.mark.parametrize(("kind", "made"), [("pdf", {"f.pdf", "f.csv"}), ("svg", {"f.svg", "f.csv"})])
def test_a_figure_as_pdf_or_svg_alone(runs, law, tmp_path, kind, made):
    runs.to_csv(tmp_path / "r.csv", index=False)
    law(tmp_path / "r.csv", "--plot", tmp_path / f"f.{kind}")
    assert {path.name for path in tmp_path.iterdir()} == made | {"r.csv", "l.json"}
    assert (tmp_path / f"f.{kind}").stat().st_size > 1000


def test_what_is_read_is_not_written_over(runs, monkeypatch, capsys, tmp_path):
    runs.to_csv(tmp_path / "r.csv", index=False)
    before = (tmp_path / "r.csv").read_bytes()
    for more in (("--plot", tmp_path / "r.png"), ("--json", tmp_path / "r.csv")):
        code, _, err = recscale(monkeypatch, capsys, "fit", tmp_path / "r.csv", *LAW, *more)
        assert (code, "r.csv: is the table that is read" in err) == (2, True)
    assert (tmp_path / "r.csv").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


@pytest.mark.parametrize(
    "text",
    [
        '"1000";"6,5"\n"10000";"5,75"\n"100000";"5,3"\n"1000000";"5,1"\n"10000000";"5,04"\n',
        "1000; 6,5\n10000; 5,75\n100000; 5,3\n1000000; 5,1\n10000000; 5,04\n",
        "1000;6,5\n10000;5,75\n100000;5,3\n1000000;5,1\n10000000;5,04\n1e8;-\n",
        "0,001M;6,5\n0,01M;5,75\n0,1M;5,3\n1,000M;5,1\n10M;5,04\n",
    ],
    ids=["quoted", "blanks", "text", "units"],
)
def test_a_decimal_comma_is_never_one_of_thousands(tmp_path, text):
    path = tmp_path / "runs.csv"
    path.write_text("n;loss\n" + text)
    frame, _ = reading.usable(reading.read(path)[0], ["n", "loss"], path)
    assert reading.numbers(frame, "loss", path, positive=False).tolist() == [6.5, 5.75, 5.3, 5.1, 5.04]
    assert reading.numbers(frame, "n", path, positive=True).tolist() == pytest.approx(
        [1e3, 1e4, 1e5, 1e6, 1e7]
    )


def test_a_tab_goes_before_commas_in_names(tmp_path):
    (tmp_path / "t.tsv").write_text("n\tloss, c4, all\n1\t2\n")
    assert list(reading.read(tmp_path / "t.tsv")[0].columns) == ["n", "loss, c4, all"]


def test_conditions_take_quotes_and_units(tmp_path):
    frame = pd.DataFrame({"n": ["10M", "1B"], "data": ["a,b", "c"]})
    assert len(reading.where(frame, 'data="a,b"', tmp_path)) == 1
    assert len(reading.where(frame, "n=10M|100M", tmp_path)) == 1


def metric_table(path):
    n = np.repeat(np.geomspace(1e3, 1e6, 6), 2)
    rows = {"n": n, "lr": np.tile([3e-4, 3e-3], 6), "hr": 0.02 * np.log(n) - np.tile([0, 0.05], 6)}
    pd.DataFrame(rows | {"tokens": "1B"}).to_csv(path, index=False)


def test_the_best_of_a_metric_is_its_highest(monkeypatch, capsys, tmp_path):
    metric_table(tmp_path / "hr.csv")
    told = recscale(
        monkeypatch, capsys, "fit", tmp_path / "hr.csv", "--law", "log_linear", "--x", "N=n", "--y", "hr",
        "--lowest-of", "lr", "--json", tmp_path / "l.json",
    )  # fmt: skip
    assert "left out, not the highest hr of lr at their place: 6 rows" in told[1]
    assert Fit.read(tmp_path / "l.json").parameters["a"] == pytest.approx(0, abs=1e-6)


def test_what_a_law_does_not_know_is_told_in_any_writing():
    frame = pd.DataFrame(
        {"n": [1e6, 1e7, 1e8], "train_tokens": ["1B", "10B", "10B"], "loss": [3.0, 2.0, 1.5]}
    )
    (line,) = reading.cautions(frame, ["n"], "loss", None)
    assert line == "warning: runs differ in train_tokens, which a law of n alone does not know"


@pytest.mark.parametrize("unit", ["bits", "perplexity"])
def test_a_unit_is_in_the_words_and_leaves_the_law(monkeypatch, capsys, tmp_path, unit):
    n = np.geomspace(1e3, 1e6, 8)
    nats = 2 + (2000 / n) ** 0.3
    y = {"bits": nats / np.log(2), "perplexity": np.exp(nats)}[unit]
    pd.DataFrame({"n": n, "y": y}).to_csv(tmp_path / "t.csv", index=False)
    base = ("fit", tmp_path / "t.csv", "--x", "N=n", "--y", "y", "--unit", unit)
    told = recscale(monkeypatch, capsys, *base, "--law", "saturating_power", "--json", tmp_path / "l.json")
    fit = Fit.read(tmp_path / "l.json")
    assert fit.parameters["alpha"] == pytest.approx(0.3, abs=1e-3)
    assert fit.parameters["E"] == pytest.approx(2 if unit == "perplexity" else 2 / np.log(2), rel=1e-3)
    words = {"bits": "irreducible loss, in bits", "perplexity": "in nats, ln of perplexity"}[unit]
    assert words in told[1]
    assert recscale(monkeypatch, capsys, *base, "--law", "all")[0] == 0  # forms of metrics are left out
    code, _, err = recscale(monkeypatch, capsys, *base, "--law", "log_linear")
    assert (code, "is no law of the logarithm of a loss" in err) == (2, True)
    said = recscale(monkeypatch, capsys, "forecast", tmp_path / "l.json", "--N", "1e7")[1]
    assert f" {fit.unit} [" in said


def test_a_run_without_a_name_is_left_out(monkeypatch, capsys, tmp_path):
    n = np.geomspace(1e3, 1e6, 8)
    runs = pd.DataFrame({"n": n, "y": 2 + (2000 / n) ** 0.3, "name": [*"abcdefg", None]})
    runs.to_csv(tmp_path / "t.csv", index=False)
    told = recscale(
        monkeypatch, capsys, "fit", tmp_path / "t.csv", "--law", "saturating_power", "--x", "N=n", "--y", "y",
        "--run", "name",
    )  # fmt: skip
    assert (told[0], "left out, without name: 1 row" in told[1], "\n7 runs" in told[1]) == (0, True, True)


def test_one_size_is_no_law_however_one_asks(runs, monkeypatch, capsys, tmp_path):
    runs.assign(params=1e7).to_csv(tmp_path / "one.csv", index=False)
    runs.to_csv(tmp_path / "all.csv", index=False)
    sizes = str(runs["params"].nunique() - 1)
    for name, more in (("one.csv", ("--fix", "E=1.8")), ("all.csv", ("--hold-out", f"N={sizes}"))):
        code, _, err = recscale(monkeypatch, capsys, "fit", tmp_path / name, *LAW, *more)
        assert (code, "has one params alone to fit" in err) == (2, True)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda law: law.pop("sigma"),
        lambda law: law["final"].pop("sigma"),
        lambda law: law["final"].update(recipe=1),
        lambda law: law.update(points_used=3),
        lambda law: law["final"].update(parameters={"E": 1}),
        lambda law: law["points_used"][0].pop("y"),
        lambda law: law["held_out"][0].pop("error"),
        lambda law: law.update(outliers=[99]),
        lambda law: law.update(level="0.9"),
        lambda law: law["final"].update(form="nope"),
        lambda law: law.update(final=[1]),
        lambda law: law.update(intervals={"E": [1]}),
    ],
)
def test_a_damaged_law_is_one_line(monkeypatch, capsys, tmp_path, spoil):
    n = np.geomspace(1e3, 1e6, 8)
    y = (2 + (2000 / n) ** 0.3) * np.exp(0.002 * np.random.default_rng(0).standard_normal(8))
    law = fit_law(n, y, law="l", x_name="N", hold_out=2).to_json()
    spoil(law)
    (tmp_path / "law.json").write_text(json.dumps(law))
    code, _, err = recscale(monkeypatch, capsys, "forecast", tmp_path / "law.json", "--N", "1e7")
    assert (code, err.count("\n"), "law.json: " in err) == (2, 1, True)


def test_several_laws_have_no_forecast(monkeypatch, capsys, tmp_path):
    (tmp_path / "law.json").write_text("[{}, {}]")
    code, _, err = recscale(monkeypatch, capsys, "forecast", tmp_path / "law.json", "--N", "1e7")
    assert (code, "has several laws; fit the one that is meant" in err) == (2, True)
