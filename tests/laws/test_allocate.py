"""Three ways to the best N and D: all cover a planted law, and each says when the runs do not show it."""

import json

import numpy as np
import pandas as pd
import pytest

from planted import EVEN, STEEP, best_n, exponent, isoflop, ladder
from recscale.cli import main as cli
from recscale.errors import InputError
from recscale.laws import forecast
from recscale.laws.allocate import allocate
from recscale.laws.allocation import MEANING, Found, text
from recscale.laws.forms import CEILING, HOFFMANN, HOFFMANN_TIED
from recscale.laws.intervals import draws
from recscale.laws.result import Fit

AT = [1e20, 1e22]


def by_name(found):
    return {way.way: way for way in found.ways}


def inside(value, ends):
    return ends[0] <= value <= ends[1]


@pytest.fixture(scope="module")
def isoflops():
    x, loss = isoflop(EVEN, 12, np.geomspace(1e18, 1e21, 6), 0.002)
    return allocate(x, loss, form=HOFFMANN, budgets=AT, resamples=300)


@pytest.fixture(scope="module")
def curves():
    x, loss, run = ladder(EVEN, 14, 12, 0.002)
    return allocate(x, loss, form=HOFFMANN, runs=run, budgets=AT, resamples=300)


@pytest.mark.parametrize("design", ["isoflops", "curves"])
def test_all_three_cover_the_planted_law(design, request):
    found = request.getfixturevalue(design)
    assert [way.way for way in found.ways] == ["frontier", "isoflop", "parametric"]
    for way in found.ways:
        assert way.status is Found.FOUND
        assert inside(exponent(EVEN), way.a_interval)
        assert inside(1 - exponent(EVEN), way.b_interval)
        for c, n, n_ends, d, d_ends in zip(AT, way.n, way.n_intervals, way.d, way.d_intervals, strict=True):
            assert inside(best_n(EVEN, c), n_ends)
            assert inside(c / 6 / best_n(EVEN, c), d_ends)
            assert 6 * n * d == pytest.approx(c, rel=1e-3)
    assert not any(ratio.differ for ratio in found.ratios)


def test_all_three_cover_a_law_whose_valleys_have_unlike_sides():
    x, loss = isoflop(STEEP, 12, np.geomspace(1e18, 1e21, 6), 0.002)
    found = allocate(x, loss, form=HOFFMANN, budgets=AT, resamples=300)
    for way in found.ways:
        assert inside(exponent(STEEP), way.a_interval)
        assert all(inside(best_n(STEEP, c), ends) for c, ends in zip(AT, way.n_intervals, strict=True))


def test_ratios_are_of_the_same_resamples(isoflops):
    ways = by_name(isoflops)
    assert len(isoflops.ratios) == 6
    for ratio in isoflops.ratios:
        place = AT.index(ratio.c)
        assert ratio.value == pytest.approx(ways[ratio.first].n[place] / ways[ratio.second].n[place])
        assert inside(ratio.value, ratio.interval)


def test_ways_that_disagree_beyond_luck_are_named():
    """A law that ties what is not tied is off; valleys know no law."""
    x, loss = isoflop(STEEP, 12, np.geomspace(1e18, 1e21, 6), 0.001)
    found = allocate(x, loss, form=HOFFMANN_TIED, budgets=[1e22], resamples=200)
    ratio = next(r for r in found.ratios if (r.first, r.second) == ("isoflop", "parametric"))
    assert ratio.differ
    assert ratio.value < 0.7
    assert "times that by parametric: they differ" in text(found)


def test_intervals_are_by_run_never_by_checkpoint(curves):
    """Three times the checkpoints of the same runs know no more; each row as a run of its own would."""
    x, loss, run = ladder(EVEN, 14, 36, 0.002)
    many = allocate(x, loss, form=HOFFMANN_TIED, runs=run, budgets=AT, resamples=200)
    for few, more in zip(curves.ways[:2], many.ways[:2], strict=True):
        assert 0.5 < np.ptp(more.a_interval) / np.ptp(few.a_interval) < 2
    alone = allocate(x, loss, form=HOFFMANN_TIED, budgets=AT, resamples=200)
    widths = [np.ptp(by_name(found)["parametric"].n_intervals[0]) for found in (many, alone)]
    assert widths[1] < 0.5 * widths[0]
    counts = draws(14, 50, np.random.default_rng(0))
    assert counts.shape == (50, 14)
    assert (counts.sum(1) == 14).all()


def test_a_cost_of_its_own_is_the_budget_of_the_law():
    """C = 20 N^0.8 D: the best N of the law has another exponent, beta / (alpha + 0.8 beta)."""
    n, d = (part.ravel() for part in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 1e11, 6)))
    x = {"N": n, "D": d, "C": 20 * n**0.8 * d}
    found = allocate(x, HOFFMANN.predict(x, EVEN), form=HOFFMANN, budgets=[1e19], resamples=20)
    assert found.cost["k"] == pytest.approx(20)
    assert found.cost["growth"] == pytest.approx(0.8)
    way = by_name(found)["parametric"]
    alpha, beta = EVEN["alpha"], EVEN["beta"]
    a = beta / (alpha + 0.8 * beta)
    best = (alpha * EVEN["A"] / (0.8 * beta * EVEN["B"]) * (1e19 / 20) ** beta) ** (1 / (alpha + 0.8 * beta))
    assert way.a == pytest.approx(a, abs=1e-4)
    assert way.b == pytest.approx(1 - 0.8 * a, abs=1e-4)
    assert way.n[0] == pytest.approx(best, rel=1e-3)
    assert 20 * way.n[0] ** 0.8 * way.d[0] == pytest.approx(1e19, rel=1e-6)


def test_the_law_says_what_forecast_says(isoflops):
    best = forecast.best_of(isoflops.law, 1e22)
    way = by_name(isoflops)["parametric"]
    assert way.n[1] == pytest.approx(best.n, rel=1e-9)
    assert way.n_intervals[1] == pytest.approx(best.n_interval, rel=1e-9)
    assert way.a == pytest.approx(best.exponent, abs=1e-4)


def test_d_or_c_may_be_left_out():
    x, loss = isoflop(EVEN, 7, np.geomspace(1e18, 1e20, 3), 0.002)
    by_d = allocate(x, loss, form=HOFFMANN_TIED, resamples=10)
    by_c = allocate({"N": x["N"], "C": 6 * x["N"] * x["D"]}, loss, form=HOFFMANN_TIED, resamples=10)
    for one, other in zip(by_d.ways, by_c.ways, strict=True):
        assert (one.a, one.n) == (pytest.approx(other.a), pytest.approx(other.n))
    assert by_d.budgets == pytest.approx([1e19, 1e20, 1e21])


def test_a_metric_is_highest_at_its_best():
    named = {"E": 0.2, "A": 18.0, "B": 3.0, "alpha": 0.38, "beta": 0.36}
    best = (0.38 * 18 / (0.36 * 3)) ** (1 / 0.74)
    budgets = np.geomspace(1e12, 1e15, 5)
    n = np.concatenate([best * (c / 6) ** (0.36 / 0.74) * np.geomspace(1 / 8, 8, 11) for c in budgets])
    x = {"N": n, "D": np.repeat(budgets, 11) / 6 / n}
    y = CEILING.predict(x, named) + 1e-4 * np.random.default_rng(0).standard_normal(55)
    found = allocate(x, y, form=CEILING, delta=np.inf, budgets=[1e15], resamples=200)
    for way in found.ways:
        assert inside(0.36 / 0.74, way.a_interval)
        assert inside(best * (1e15 / 6) ** (0.36 / 0.74), way.n_intervals[0])
    assert all(point["y"] > 0 for point in by_name(found)["frontier"].points)


# --- tables that show nothing ---


def refusals(found):
    return {way.way: way.reason for way in found.ways if way.status is Found.REFUSED}


def test_one_run_shows_nothing():
    x, loss, run = ladder(EVEN, 5, 20, 0.001)
    one = run == 2
    found = allocate(
        {k: v[one] for k, v in x.items()}, loss[one], form=HOFFMANN_TIED, runs=run[one], resamples=20
    )
    assert set(refusals(found)) >= {"frontier", "isoflop"}
    assert "0 sizes are lowest at a compute" in refusals(found)["frontier"]
    assert "no budget has 5 sizes" in refusals(found)["isoflop"]
    single = allocate({"N": [1e6], "D": [1e8]}, np.array([3.0]), form=HOFFMANN_TIED, resamples=20)
    assert len(refusals(single)) == 3
    assert "the law is refused: Fewer distinct" in refusals(single)["parametric"]
    assert all(way.a is None and not way.n and not way.points for way in single.ways)
    assert single.ratios == ()
    json.dumps(single.to_json(), allow_nan=False)


def test_flat_runs_show_nothing():
    x, loss = isoflop(EVEN, 9, np.geomspace(1e18, 1e21, 5), 0.0)
    found = allocate(x, np.full(len(loss), 3.0), form=HOFFMANN_TIED, resamples=20)
    assert len(refusals(found)) == 3
    assert "the law is flat" in refusals(found)["parametric"]
    assert (
        "0 of 5 budgets with 5 sizes or more have a minimum; 3 make a line (1e+18 FLOPs: "
        in refusals(found)["isoflop"]
    )


def test_sizes_on_one_side_of_the_best_are_refused():
    x, loss = isoflop(EVEN, 16, np.geomspace(1e18, 1e21, 5), 0.001)
    large = x["N"] > 1.3 * best_n(EVEN, 6 * x["N"] * x["D"])
    found = allocate({k: v[large] for k, v in x.items()}, loss[large], form=HOFFMANN, resamples=20)
    reasons = refusals(found)
    assert set(reasons) == {"frontier", "isoflop"}
    assert "0 of 5 budgets" in reasons["isoflop"]
    assert reasons["isoflop"].count("the smallest size is as low as any") == 5
    assert by_name(found)["parametric"].a == pytest.approx(exponent(EVEN), abs=0.02)


def test_diverged_rows_are_left_out_and_counted():
    x, loss = isoflop(EVEN, 9, np.geomspace(1e18, 1e21, 5), 0.002)
    whole = allocate(x, loss, form=HOFFMANN_TIED, resamples=20)
    more = {axis: np.r_[part, part[:3]] for axis, part in x.items()}
    found = allocate(more, np.r_[loss, np.nan, np.inf, -1.0], form=HOFFMANN_TIED, resamples=20)
    assert (found.runs, found.left_out) == (45, 3)
    assert "3 rows left out" in text(found)
    assert [way.a for way in found.ways] == [way.a for way in whole.ways]
    with pytest.raises(InputError, match="no row has a usable y"):
        allocate(x, np.full(45, np.nan), form=HOFFMANN_TIED)


def test_few_runs_are_doubted():
    x, loss, run = ladder(EVEN, 8, 12, 0.0005)
    found = allocate(x, loss, form=HOFFMANN_TIED, runs=run, resamples=50)
    assert by_name(found)["frontier"].status is Found.DOUBTFUL
    assert "8 runs are too few to be resampled" in by_name(found)["frontier"].reason
    assert "rows before the end of a run are no finished runs" in " ".join(found.cautions)


def test_the_winners_curse_is_told(isoflops):
    noisy_x, noisy = isoflop(EVEN, 12, np.geomspace(1e18, 1e21, 6), 0.01)
    found = allocate(noisy_x, noisy, form=HOFFMANN_TIED, budgets=[1e21], resamples=20)
    assert "luck decides which size wins" in found.cautions[0]
    assert "picked on its own noisy loss" in isoflops.cautions[0]
    assert isoflops.cautions[-1].startswith("1e+22 FLOPs is 10 times above the runs")
    assert len(found.cautions) == 1


# --- the verb ---


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    x, loss, run = ladder(EVEN, 12, 8, 0.002)
    frame = pd.DataFrame({"params": x["N"], "tokens": x["D"], "loss": loss, "name": [f"r{k}" for k in run]})
    frame["flops"] = 6 * frame["params"] * frame["tokens"]
    frame["half"] = run % 2
    frame["all"] = "one"
    out = tmp_path_factory.mktemp("runs") / "runs.parquet"
    frame.to_parquet(out)
    return out


def recscale(monkeypatch, capsys, *args):
    monkeypatch.setattr("sys.argv", ["recscale", "allocate", *map(str, args)])
    try:
        cli.main()
    except SystemExit as stopped:
        return stopped.code, *capsys.readouterr()
    return 0, *capsys.readouterr()


def test_the_verb(table, monkeypatch, capsys, tmp_path):
    code, out, err = recscale(
        monkeypatch, capsys, table, "--x", "N=params,D=tokens,C=flops", "--y", "loss", "--run", "name",
        "--law", "hoffmann_tied", "--flops", "1e20", "--resamples", 100, "--json", tmp_path / "a.json",
        "--plot", tmp_path / "a.png",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out.startswith("12 runs, 96 rows; C from ")
    assert "C = 6 N^1 D" in out
    plain = json.loads((tmp_path / "a.json").read_text())
    assert [way["way"] for way in plain["ways"]] == ["frontier", "isoflop", "parametric"]
    assert all(way["meaning"] == MEANING[Found(way["status"])] for way in plain["ways"])
    assert Fit.from_json(plain["law"]).form == "hoffmann_tied"
    drawn = pd.read_csv(tmp_path / "a.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "a.png", "a.pdf", "a.csv"}
    assert (drawn["series"] == "row").sum() == 96
    ways = {way["way"]: way for way in plain["ways"]}
    for name in ("frontier", "isoflop"):
        points = drawn[(drawn["series"] == "optimum") & (drawn["way"] == name)]
        assert points["N"].to_numpy() == pytest.approx([point["N"] for point in ways[name]["points"]])
    budgets = drawn[drawn["series"] == "budget"].set_index("way")
    for name, way in ways.items():
        assert budgets.loc[name, ["N", "lo", "hi"]].tolist() == pytest.approx(
            [way["n"][0], *way["n_intervals"][0]]
        )
    assert len(drawn[drawn["series"] == "floor"]) % 51 == 0


def test_a_figure_of_refused_ways(monkeypatch, capsys, tmp_path):
    pd.DataFrame({"N": [1e6, 2e6], "D": [1e8, 1e8], "y": [3.0, 2.9]}).to_csv(tmp_path / "t.csv", index=False)
    args = ("--x", "N=N,D=D", "--y", "y", "--resamples", 5, "--plot", tmp_path / "out" / "a.png")
    code, out, _ = recscale(monkeypatch, capsys, tmp_path / "t.csv", *args)
    assert code == 0
    assert out.count("is refused") == 3 + out.count("the law is refused")
    assert set(pd.read_csv(tmp_path / "out" / "a.csv")["series"]) == {"row"}


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"--x": "params"}, r"--x: give N=COLUMN and D=COLUMN or C=COLUMN \(FLOPs\), or all three"),
        ({"--x": "N=params"}, r"--x: give N=COLUMN and D"),
        ({"--x": "N=params,U=tokens"}, r"--x: give N=COLUMN and D"),
        ({"--x": "N=params,D=token"}, r"runs\.parquet: has no column token"),
        ({"--y": "name"}, r"row 1: name is r0, not a number"),
        ({"--law": "sigmoid"}, r"--law sigmoid: is not one of hoffmann, hoffmann_tied, kaplan, ceiling"),
        ({"--run": "id"}, r"has no column id"),
        ({"--run": "all"}, r"runs\.parquet: a run has several N"),
        ({"--level": "90"}, r"need 0 < level < 1"),
        ({"--where": "half=3"}, r"no row has half=3"),
    ],
)
def test_what_cannot_be_allocated_is_one_line(options, line, table, monkeypatch, capsys):
    given = {"--x": "N=params,D=tokens", "--y": "loss", "--run": "name"} | options
    code, _, err = recscale(monkeypatch, capsys, table, *(part for pair in given.items() for part in pair))
    assert (code, err.count("\n")) == (2, 1)
    with pytest.raises(AssertionError, match=line):
        raise AssertionError(err)
