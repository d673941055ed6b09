"""Valleys of planted laws have their minima where the formula says, or none, with the reason."""

import numpy as np
import pytest
from scipy.interpolate import Akima1DInterpolator, make_lsq_spline
from test_frontier import curves

from planted import EVEN, STEEP, best_n, exponent, isoflop, ladder
from recscale.laws.forms import HOFFMANN
from recscale.laws.frontier import Curves, line
from recscale.laws.isoflop import BEND, isoflops, minima

BUDGETS = np.geomspace(1e18, 1e21, 5)


def test_a_parabola_is_biased_where_sides_are_unlike_and_the_spline_is_not():
    x, loss = isoflop(STEEP, 25, BUDGETS, 0.0)
    parts = isoflops(curves(x, loss), 0.9)
    assert [np.exp(part.log_c) for part in parts] == pytest.approx(BUDGETS)
    for part in parts:
        true = np.log(best_n(STEEP, np.exp(part.log_c)))
        bend, slope, _ = np.polyfit(part.log_n, part.value, 2)
        assert -slope / 2 / bend - true > 0.1
        assert part.best == pytest.approx(true, abs=0.03)


def test_noise_moves_the_minimum_less_than_that_of_an_interpolating_spline():
    slopes, ours, akima = [], [], []
    for seed in range(40):
        x, loss = isoflop(EVEN, 9, BUDGETS, 0.002, seed)
        parts = isoflops(curves(x, loss), 0.9)
        log_n, log_d = minima(parts, np.ones((1, 45)))
        log_c = np.array([part.log_c for part in parts])
        slopes.append(line(log_c, log_n)[0][0])
        assert log_n + log_d + np.log(6) == pytest.approx(log_c[None], abs=1e-6)
        for part in parts:
            true = np.log(best_n(EVEN, np.exp(part.log_c)))
            ours.append(part.best - true)
            akima.append(part.grid[Akima1DInterpolator(part.log_n, part.value)(part.grid).argmin()] - true)
    assert np.mean(slopes) == pytest.approx(exponent(EVEN), abs=0.005)
    print(np.std(ours), np.std(akima))
    assert np.std(ours) < 0.5 * np.std(akima)


def test_the_spline_is_that_of_scipy():
    x, loss = isoflop(EVEN, 15, BUDGETS[:1], 0.01)
    (part,) = isoflops(curves(x, loss), 0.9)
    assert len(part.log_n) >= BEND
    order = np.argsort(part.log_n)
    at, y = part.log_n[order], part.value[order]
    knots = np.r_[[at[0]] * 4, np.median(at), [at[-1]] * 4]
    assert part.floor == pytest.approx(make_lsq_spline(at, y, knots, 3)(part.grid), abs=1e-6)
    # Twice as often is as if it were there twice.
    counts = np.ones((1, 15))
    counts[0, part.run[order][4]] = 2
    twice = make_lsq_spline(at, y, knots, 3, w=np.sqrt(counts[0, part.run[order]]))(part.grid)
    assert minima([part], counts)[0][0, 0] == part.grid[twice.argmin()]


def test_runs_near_a_budget_are_moved_to_it():
    """C off by up to a fifth, more for the larger: without C's own slope the minimum would follow."""
    x, loss = isoflop(EVEN, 11, BUDGETS, 0.0)
    rng = np.random.default_rng(0)
    d = x["D"] * np.exp(rng.uniform(-0.18, 0.18, len(loss)))
    off = HOFFMANN.predict({"N": x["N"], "D": d}, EVEN)
    parts = isoflops(curves({"N": x["N"], "D": d}, off), 0.9)
    assert len(parts) == 5
    for part in parts:
        assert part.best == pytest.approx(np.log(best_n(EVEN, np.exp(part.log_c))), abs=0.08)


@pytest.mark.parametrize(("shift", "end"), [(30.0, "smallest"), (1 / 30, "largest")])
def test_a_minimum_at_the_end_of_the_sizes_is_refused(shift, end):
    x, _ = isoflop(EVEN, 9, BUDGETS, 0.0, span=4.0)
    n = x["N"] * np.where(np.arange(45) < 9, shift, 1.0)
    c = 6 * x["N"] * x["D"]
    moved = {"N": n, "D": c / 6 / n}
    parts = isoflops(curves(moved, HOFFMANN.predict(moved, EVEN)), 0.9)
    assert parts[0].reason == f"the {end} size is as low as any, within noise: the best may be beyond it"
    assert np.isnan(parts[0].best)
    assert [part.reason for part in parts[1:]] == [""] * 4
    log_n, _ = minima(parts, np.ones((2, 45)))
    assert np.isnan(log_n[:, 0]).all()
    assert not np.isnan(log_n[:, 1:]).any()


def test_noise_alone_has_no_valley():
    found = 0
    for seed in range(20):
        x, _ = isoflop(EVEN, 9, BUDGETS, 0.0)
        loss = np.exp(1 + 0.01 * np.random.default_rng(seed).standard_normal(45))
        found += sum(not part.reason for part in isoflops(curves(x, loss), 0.9))
    assert found <= 10  # of 100, by a test at 90 %
    flat = isoflops(curves(x, np.full(45, 3.0)), 0.9)
    assert all(part.reason for part in flat)


def test_few_sizes_and_other_budgets_make_no_valley():
    x, loss = isoflop(EVEN, 4, BUDGETS, 0.0)
    assert isoflops(curves(x, loss), 0.9) == []
    one = {axis: part[:1] for axis, part in x.items()}
    assert isoflops(curves(one, loss[:1]), 0.9) == []


def test_curves_are_cut_at_budgets():
    x, loss, run = ladder(EVEN, 30, 100, 0.0)
    parts = isoflops(curves(x, loss, run), 0.9)
    assert len(parts) >= 8
    known = [part for part in parts if not part.reason]
    assert len(known) >= 6
    for part in known:
        assert part.best == pytest.approx(np.log(best_n(EVEN, np.exp(part.log_c))), abs=0.03)
        assert part.off.tolist() == [0.0] * len(part.run)


def test_a_resample_that_lost_its_small_sizes_has_no_minimum():
    x, loss = isoflop(EVEN, 9, BUDGETS[:1], 0.0)
    parts = isoflops(curves(x, loss), 0.9)
    counts = np.ones((2, 9))
    counts[1, :6] = 0  # only sizes above the best are left, and fewer than constants
    log_n, _ = minima(parts, counts)
    assert not np.isnan(log_n[0, 0])
    assert np.isnan(log_n[1, 0])


def test_a_minimum_in_a_gap_between_sizes_is_refused():
    """Two crowds of sizes whose slopes point at each other: the spline dives between them."""
    n = np.log(np.r_[1.0, 1.1, 1.2, 1.3, 8.0, 8.6, 9.2, 9.9])
    y = np.r_[2.0, 1.9, 1.8, 1.7, 1.7, 1.8, 1.9, 2.0] + 0.001 * np.random.default_rng(0).standard_normal(8)
    (part,) = isoflops(Curves(n, -n, np.zeros(8), y, np.arange(8)), 0.9)
    assert part.reason == "the minimum is in a gap between sizes, below every run"
    assert np.isnan(part.best)


def test_sizes_that_differ_by_their_item_table_are_one():
    n = np.log(np.r_[1.0, 1.01, 2.0, 2.02, 4.0, 4.01, 8.0])
    assert isoflops(Curves(n, -n, np.zeros(7), (n - 1) ** 2, np.arange(7)), 0.9) == []


def test_a_rise_within_the_noise_is_no_side_of_a_valley():
    """A loss that falls and then stays: noise alone makes a minimum somewhere on the level part."""
    n, found, interior = np.linspace(0, 4, 11), 0, 0
    for seed in range(60):
        y = np.exp(-2 * n) + 0.01 * np.random.default_rng(seed).standard_normal(11)
        (part,) = isoflops(Curves(n, -n, np.zeros(11), y, np.arange(11)), 0.9)
        found += not part.reason
        interior += 0 < part.floor.argmin() < len(part.floor) - 1
    assert interior > 20
    assert found < 8
