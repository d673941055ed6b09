"""The frontier is what a plain loop over runs finds; curves are read between their rows only."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planted import EVEN, best_n, exponent, ladder
from recscale.laws.frontier import WIDTH, Curves, frontier, line


def curves(x, loss, run=None):
    c = 6 * x["N"] * x["D"]
    run = np.arange(len(c)) if run is None else run
    return Curves(np.log(x["N"]), np.log(x["D"]), np.log(c), np.log(loss), run)


@pytest.mark.parametrize("seed", range(60))
def test_the_frontier_of_single_rows_is_that_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    c = rng.permutation(60) * 0.05
    n = 2 * c + rng.integers(-3, 4, 60)
    y = 5 - 0.3 * c + 0.05 * (n - 2 * c) ** 2 + 0.1 * rng.standard_normal(60)
    present = rng.random(60) < 0.8
    found = frontier(Curves(n, c - n, c, y, np.arange(60)), present[None])
    seen = {}
    for k in np.flatnonzero(present):
        near = n[present & (abs(c - c[k]) <= WIDTH / 2)]
        if not (y[present & (c < c[k])] <= y[k]).any():
            seen[c[k]] = (n[k], near.min(), near.max())
    inside = {at: won for at, (won, low, high) in seen.items() if low < won < high}
    x, won = np.array(list(inside)), np.array(list(inside.values()))
    best = np.poly1d(np.polyfit(x, won, 1))
    beyond = 2 * np.sqrt(((won - best(x)) ** 2).mean())
    expected = {at: won for at, (won, low, high) in seen.items() if low + beyond < best(at) < high - beyond}
    assert expected
    on = ~np.isnan(found.log_n[0])
    assert dict(zip(found.log_c[on], found.log_n[0, on], strict=True)) == pytest.approx(expected)


def test_curves_cross_where_the_law_says():
    """Without noise the envelope's winner is the size that the law finds best of those there are."""
    x, loss, run = ladder(EVEN, 14, 400, 0.0)
    found = frontier(curves(x, loss, run), np.ones((1, 14), dtype=bool))
    on = np.flatnonzero(~np.isnan(found.log_n[0]))
    steps = np.log(np.unique(x["N"]))[1] - np.log(np.unique(x["N"]))[0]
    away = found.log_n[0, on] - np.log(best_n(EVEN, np.exp(found.log_c[on])))
    assert np.abs(away).max() < 0.6 * steps
    slope, _ = line(found.log_c, found.log_n)
    assert slope[0] == pytest.approx(exponent(EVEN), abs=0.01)
    assert found.log_n[0, on] + found.log_d[0, on] + np.log(6) == pytest.approx(found.log_c[on])


def test_the_ends_of_a_ladder_do_not_flatten_the_exponent():
    """Luck that would put a winner beyond the ladder is missing: all inner winners are 0.02 too flat."""
    slopes, plain = [], []
    for seed in range(30):
        x, loss, run = ladder(EVEN, 30, 25, 0.002, seed)
        one = curves(x, loss, run)
        found = frontier(one, np.ones((1, 30), dtype=bool))
        slopes.append(line(found.log_c, found.log_n)[0][0])
        value, _ = one.at(found.log_c)
        covering, inner = ~np.isnan(value), []
        for k, c in enumerate(found.log_c):
            sizes = one.sizes[covering[:, k]]
            won = one.sizes[np.nanargmin(value[:, k])]
            if sizes.min() < won < sizes.max():
                inner.append((c, won))
        plain.append(np.polyfit(*np.transpose(inner), 1)[0])
    assert np.mean(slopes) == pytest.approx(exponent(EVEN), abs=0.006)
    assert np.mean(plain) < exponent(EVEN) - 0.01


def test_a_curve_is_read_between_its_rows_only():
    one = Curves(np.zeros(3), np.array([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 4.0]), np.array([3.0, 2.0, 1.0]),
                 np.zeros(3, dtype=int))  # fmt: skip
    value, log_d = one.at(np.array([0.9, 1.5, 3.0, 4.1]))
    assert value[0] == pytest.approx([np.nan, 2.5, 1.5, np.nan], nan_ok=True)
    assert log_d[0] == pytest.approx([np.nan, 1.5, 3.0, np.nan], nan_ok=True)


def test_the_margin_is_what_the_next_size_lacks():
    """At each budget three sizes: the middle one wins by 0.02, the others are as far off as they are."""
    n, c = np.tile([1.0, 2.0, 3.0], 4), np.repeat([10.0, 20.0, 30.0, 40.0], 3)
    found = frontier(
        Curves(n, c - n, c, 5 - 0.05 * c + 0.02 * np.abs(n - 2), np.arange(12)), np.ones((1, 12)) > 0
    )
    assert np.unique(found.log_n[~np.isnan(found.log_n)]).tolist() == [2.0]
    assert found.margin == pytest.approx(0.02)


@given(st.integers(0, 2**32 - 1), st.integers(2, 8))
def test_lines_are_those_of_polyfit(seed, points):
    rng = np.random.default_rng(seed)
    x, y = np.arange(9.0), rng.standard_normal((3, 9))
    y[1, rng.permutation(9)[points:]] = np.nan
    y[2, 1:] = np.nan
    slope, start = line(x, y)
    for row in range(2):
        known = ~np.isnan(y[row])
        assert [slope[row], start[row]] == pytest.approx(np.polyfit(x[known], y[row, known], 1), abs=1e-9)
    assert np.isnan(slope[2])
