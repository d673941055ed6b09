"""`recscale fit TABLE`: any table of runs, and one clear line for what cannot be fitted."""

import json

import numpy as np
import pandas as pd
import pytest

from conftest import REPO
from recscale.cli import main as cli
from recscale.cli.options import pairs
from recscale.errors import InputError
from recscale.laws.forms import FORMS, HOFFMANN
from recscale.laws.result import Fit
from recscale.laws.table import Asked, choose, fit_table, forms_of

TRUTH = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same runs as CSV and as Parquet, with what a table of one's own has besides."""
    n, d = (part.ravel() for part in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5)))
    scatter = 0.002 * np.random.default_rng(0).standard_normal(25)
    loss = HOFFMANN.predict({"N": n, "D": d}, TRUTH) * np.exp(scatter)
    table = pd.DataFrame({"params": n, "all_params": 1.1 * n + 1e7, "tokens": d, "loss": loss})
    table["name"] = [f"run {k}" for k in range(25)]
    table["half"] = np.arange(25) % 2
    out = tmp_path_factory.mktemp("tables")
    table.to_csv(out / "runs.csv", index=False)
    table.to_parquet(out / "runs.parquet", index=False)
    return out


def recscale(monkeypatch, capsys, *args):
    """Exit code, standard output and standard error of the command line, in this process."""
    monkeypatch.setattr("sys.argv", ["recscale", *map(str, args)])
    try:
        cli.main()
    except SystemExit as stopped:
        return stopped.code, *capsys.readouterr()
    return 0, *capsys.readouterr()


@pytest.mark.parametrize("name", ["runs.csv", "runs.parquet"])
def test_a_joint_law_of_a_table(name, folder, monkeypatch, capsys, tmp_path):
    code, out, err = recscale(
        monkeypatch, capsys, "fit", folder / name, "--law", "hoffmann", "--x", "N=params,D=tokens",
        "--y", "loss", "--hold-out", "N=1", "--resamples", 50, "--json", tmp_path / "law.json",
        "--plot", tmp_path / "law.png",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "converged" in out
    assert "exponent of N" in out
    fit = Fit.read(tmp_path / "law.json")
    assert fit.parameters["alpha"] == pytest.approx(0.35, abs=0.03)
    assert len(fit.held_out) == 5
    assert json.loads((tmp_path / "law.json").read_text())["columns"] == "params, tokens"
    assert {path.name for path in tmp_path.iterdir()} == {"law.json", "law.png", "law.pdf", "law.csv"}
    drawn = pd.read_csv(tmp_path / "law.csv")
    assert (drawn["series"] == "held_out").sum() == 5


def test_all_forms_on_both_counts_are_ranked_by_what_was_held_out(folder, monkeypatch, capsys, tmp_path):
    code, out, _ = recscale(
        monkeypatch, capsys, "fit", folder / "runs.csv", "--law", "all", "--x", "N=params,D=tokens",
        "--x", "N=all_params,D=tokens", "--y", "loss", "--hold-out", "N=1,D=1", "--resamples", 20,
        "--json", tmp_path / "laws.json",
    )  # fmt: skip
    assert code == 0
    rows = out.splitlines()[1:]
    assert len(rows) == 2 * len(forms_of("all", ["N", "D"])) == 8
    assert rows[0].split()[0] in ("hoffmann", "hoffmann_tied")
    assert "params, tokens" in rows[0]
    assert len(json.loads((tmp_path / "laws.json").read_text())) == 8


def test_choice_has_the_error_of_the_largest_small_model_beside(folder):
    path = folder / "runs.csv"
    asked = Asked({"N": "params", "D": "tokens"}, "loss", {"N": "1"}, resamples=20)
    fits = [(fit_table(path, pd.read_csv(path), form, asked), "x") for form in forms_of("all", ["N", "D"])]
    table = choose(fits).set_index("law")
    assert table.loc["hoffmann", "mean_error"] < 0.01 < table.loc["hoffmann", "baseline_error"]
    assert table.loc["hoffmann", "extrapolation"] == pytest.approx(10**0.5)
    assert (table["held_out"] + table["fitted"] <= 25).all()


def test_one_axis_by_column_share_held_out_where_and_fixed(folder, monkeypatch, capsys, tmp_path):
    code, out, _ = recscale(
        monkeypatch, capsys, "fit", folder / "runs.csv", "--law", "power_constant", "--x", "params",
        "--y", "loss", "--where", "half=1", "--hold-out", "20%", "--fix", "E=1.5", "--delta", "inf",
        "--json", tmp_path / "a.json",
    )  # fmt: skip
    assert code == 0
    assert "given" in out
    fit = Fit.read(tmp_path / "a.json")
    assert (fit.x, fit.fixed, fit.delta) == ("params", {"E": 1.5}, np.inf)
    assert len(fit.points_used) + sum(entry["runs"] for entry in fit.held_out) == 12
    assert len(fit.held_out) == 1


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"--law": "huffman"},
            r"--law huffman: is not one of saturating_power, .*, ceiling, performance, all",
        ),
        ({"--x": "params"}, r"--x: hoffmann, L\(N, D\) = .*, needs N=COLUMN,D=COLUMN"),
        ({"--x": "N=params,T=tokens"}, r"needs N=COLUMN,D=COLUMN"),
        ({"--law": "all", "--x": "N=params,T=tokens"}, r"--x: no law has the axes N, T"),
        (
            {"--x": "N=params,D=token"},
            r"runs\.csv: has no column token; it has params, all_params, tokens, loss",
        ),
        ({"--x": "N=params,"}, r"--x N=params,: is not NAME=VALUE"),
        ({"--y": "perplexity"}, r"runs\.csv: has no column perplexity"),
        ({"--y": "name"}, r"runs\.csv: row 1: name is run 0, not a number"),
        ({"--x": "N=half,D=tokens"}, r"runs\.csv: row 1: half is 0, not a positive number"),
        ({"--hold-out": "N=two"}, r"--hold-out two: is not a whole number"),
        ({"--hold-out": "T=2"}, r"--hold-out T: is not one of N, D"),
        ({"--fix": "gamma=1"}, r"--fix gamma: hoffmann has E, A, B, alpha, beta"),
        ({"--fix": "A=many"}, r"--fix A: many is not a number"),
        ({"--level": "90"}, r"need .* 0 < level < 1"),
        ({"--run": "id"}, r"has no column id"),
        ({"--where": "half=3"}, r"no row has half=3; there is 0, 1"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(options, line, folder, monkeypatch, capsys):
    given = {"--law": "hoffmann", "--x": "N=params,D=tokens", "--y": "loss"} | options
    args = [part for pair in given.items() for part in pair]
    code, _, err = recscale(monkeypatch, capsys, "fit", folder / "runs.csv", *args)
    assert code == 2
    assert err.count("\n") == 1
    with pytest.raises(AssertionError, match=line):
        raise AssertionError(err)


def test_a_table_needs_law_x_and_y_and_a_study_points_and_out(folder, monkeypatch, capsys):
    code, _, err = recscale(monkeypatch, capsys, "fit", folder / "runs.csv", "--law", "hoffmann")
    assert code == 2
    assert "--law, --x and --y, or a study with --points and --out" in err
    code, _, err = recscale(monkeypatch, capsys, "fit", REPO / "config/studies/quick.yaml", "--out", folder)
    assert code == 2
    assert "both --points FILE and --out FOLDER" in err


def test_one_figure_draws_one_law_and_without_one_the_runs(folder, monkeypatch, capsys, tmp_path):
    some = ("fit", folder / "runs.csv", "--y", "loss", "--plot", tmp_path / "a.png")
    code, _, err = recscale(monkeypatch, capsys, *some, "--law", "all", "--x", "N=params,D=tokens")
    assert (code, "--plot: draws one law" in err) == (2, True)
    assert not list(tmp_path.iterdir())
    code, out, _ = recscale(
        monkeypatch, capsys, *some, "--law", "pure_power", "--x", "params", "--where", "name=run 3"
    )
    assert (code, "refused" in out) == (1, True)
    assert list(pd.read_csv(tmp_path / "a.csv")["series"]) == ["fitted"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--hold-out", "D=1"), "--hold-out D: is not one of N"),
        (("--hold-out", "99"), "leaves none to fit"),
        (("--resamples", "1"), "--resamples: 1 is below 20"),
        (("--plot", "a.jpg"), "a.jpg does not end with .png, .pdf or .svg"),
        (("--fix", "E=1,A=2,alpha=0.3"), "there is nothing to fit"),
    ],
)
def test_options_that_make_no_sense_are_refused(folder, monkeypatch, capsys, options, message):
    some = ("fit", folder / "runs.csv", "--law", "power_constant", "--x", "N=params", "--y", "loss")
    code, _, err = recscale(monkeypatch, capsys, *some, *options)
    assert (code, message in err) == (2, True)


def test_damaged_and_missing_tables_are_one_line(monkeypatch, capsys, tmp_path):
    (tmp_path / "a.parquet").write_text("no")
    (tmp_path / "b.csv").write_text("")
    (tmp_path / "c.csv").write_text("x,y\n")
    for name, reason in (
        ("a.parquet", "is not Parquet"),
        ("b.csv", "is not CSV"),
        ("c.csv", "has no rows"),
        ("d", "no such"),
    ):
        code, _, err = recscale(
            monkeypatch, capsys, "fit", tmp_path / name, "--law", "pure_power", "--x", "x", "--y", "y"
        )
        assert (code, err.count("\n")) == (2, 1)
        assert reason in err


def test_pairs():
    assert pairs("N=params, D = tokens", "--x") == {"N": "params", "D": "tokens"}
    assert pairs("params", "--x") == {"": "params"}
    for text in ("", "N=", "N=a,b", "N=a,N=b"):
        with pytest.raises(InputError, match="NAME=VALUE"):
            pairs(text, "--x")


def test_every_form_is_offered_but_one_that_is_another_written_differently():
    offered = {
        form.name
        for axes in (["x"], ["N", "D"], ["N", "D", "U"], ["L", "d", "D", "ApEn"])
        for form in forms_of("all", axes)
    }
    assert set(FORMS) - offered == {"power_constant"}
