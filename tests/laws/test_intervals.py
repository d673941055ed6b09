"""Intervals by run: what a bootstrap resamples, and how both kinds agree where both are right."""

import numpy as np
import pytest

from recscale.laws import fit as module
from recscale.laws import intervals, solver
from recscale.laws.fit import fit_law
from recscale.laws.forms import HOFFMANN, PURE_POWER, SATURATING_POWER
from recscale.laws.result import Status
from recscale.laws.solver import Runs

SIZES = np.geomspace(1e3, 1e6, 40)


def noisy(x, seed=0, e=5.0):
    return (e + (2000 / x) ** 0.3) * np.exp(0.003 * np.random.default_rng(seed).standard_normal(x.size))


def fit(x, y, **options):
    return fit_law(x, y, law="law", **options)


def test_many_sizes_take_the_bootstrap_and_few_the_profile():
    many, few = fit(SIZES, noisy(SIZES)), fit(SIZES[::5], noisy(SIZES[::5]))
    assert many.interval_method.startswith("bootstrap of 1,000 resamples")
    assert many.resamples == 1000
    assert few.interval_method.startswith("profile")
    assert few.degenerate_share is None


def test_bootstrap_and_profile_agree_on_many_even_runs(monkeypatch):
    boot = fit(SIZES, noisy(SIZES))
    monkeypatch.setattr(module, "MANY", 1000)
    profile = fit(SIZES, noisy(SIZES))
    assert profile.interval_method.startswith("profile")
    for name in ("E", "alpha"):
        one, other = np.ptp(boot.intervals[name]), np.ptp(profile.intervals[name])
        assert 0.6 < one / other < 1.6
    for k in (0, 16, 32):
        assert boot.band["lo"][k] < boot.band["mid"][k] < boot.band["hi"][k]


def test_the_same_seed_gives_the_same_intervals():
    one, again, other = (fit(SIZES, noisy(SIZES), resamples=200, seed=s).intervals for s in (1, 1, 2))
    assert one == again != other


def test_rows_of_one_run_are_resampled_together():
    """Checkpoints are no new runs: each run three times over gives the intervals of the runs."""
    x, y = np.repeat(SIZES, 3), np.repeat(noisy(SIZES), 3)
    alone, thrice = fit(SIZES, noisy(SIZES)), fit(x, y, groups=np.repeat(np.arange(40), 3))
    as_runs = fit(x, y)
    widths = [np.ptp(found.intervals["alpha"]) for found in (alone, thrice, as_runs)]
    assert widths[1] == pytest.approx(widths[0], rel=0.15)
    assert widths[2] < 0.75 * widths[0]


def test_few_runs_with_many_rows_take_the_profile():
    found = fit(SIZES, noisy(SIZES), groups=np.repeat(np.arange(4), 10))
    assert found.interval_method.startswith("profile")


def test_a_run_counts_once_however_many_rows_it_has():
    """The same six rows, and each of them twenty times or as often as chance has it."""
    x = np.geomspace(768, 98304, 6)
    once = fit(x, noisy(x), groups=np.arange(6))
    for often in (np.full(6, 20), np.array([1, 30, 2, 7, 1, 90])):
        run = np.repeat(np.arange(6), often)
        again = fit(x[run], noisy(x)[run], groups=run)
        assert again.status is once.status is Status.CONVERGED
        assert again.parameters == pytest.approx(once.parameters, rel=1e-6)
        assert again.sigma == pytest.approx(once.sigma, rel=1e-6)
        for name, ends in once.intervals.items():
            assert again.intervals[name] == pytest.approx(ends, rel=1e-4)


def test_as_many_runs_as_constants_bound_nothing():
    run = np.repeat(np.arange(3), 20)
    x = np.geomspace(1e3, 1e5, 60)
    found = fit(x, noisy(x), groups=run)
    assert found.status is Status.TOO_FEW_RUNS
    assert set(map(tuple, found.intervals.values())) == {(None, None)}
    assert fit(x, noisy(x)).status is Status.CONVERGED


def test_a_table_of_many_rows_is_fitted_as_on_some_of_them(monkeypatch):
    """Twelve curves of 2,000 rows: starts on some rows, the optimum on all."""
    rng = np.random.default_rng(0)
    x = np.geomspace(1e3, 1e6, 24_000)
    run = rng.permutation(np.repeat(np.arange(12), 2000))
    y = noisy(x, seed=1)
    some = fit(x, y, groups=run, resamples=40)
    runs = Runs.of(SATURATING_POWER, np.log(x)[None], y, some.delta, None, run)
    every = solver.solve(SATURATING_POWER.starts(runs.log_x[:, ::100], y[::100]), runs)
    best = SATURATING_POWER.named(every[0][[every[1].argmin()]])[0]
    assert list(some.parameters.values()) == pytest.approx(best, rel=1e-6)


def test_intervals_of_a_long_table_are_about_its_own_estimate():
    """They are of 5,000 of its rows, as wide as those of all would be."""
    rng = np.random.default_rng(0)
    x = np.exp(rng.uniform(np.log(1e3), np.log(1e6), 30_000))
    y = (2 + (1e6 / x) ** 0.3) * np.exp(0.02 * rng.standard_normal(30_000))
    found = fit(x, y, resamples=100)
    theta = SATURATING_POWER.theta(found.parameters)
    slopes = solver.modelled(SATURATING_POWER, theta, np.log(x)[None])[1][0]
    exact = 1.645 * 0.02 * np.sqrt(np.linalg.inv(slopes @ slopes.T).diagonal())
    for name, half in (("E", exact[0]), ("alpha", exact[2])):
        low, high = found.intervals[name]
        assert low < found.parameters[name] < high
        assert (high - low) / 2 == pytest.approx(half, rel=0.35)


def test_degenerate_resamples_are_counted():
    """Three distinct x of eleven rows: many resamples have fewer than three."""
    x = np.r_[np.full(9, 1e3), 1e4, 1e5]
    runs = Runs.of(SATURATING_POWER, np.log(x)[None], noisy(x), 1e-3)
    best = solver.best(runs, SATURATING_POWER.starts(runs.log_x, noisy(x)))
    _, degenerate = intervals.resample(best.theta, runs, 2000, np.random.default_rng(0))
    # A single run is missing from a resample with probability (10/11)^11.
    missing = (10 / 11) ** 11
    assert degenerate.mean() >= 2 * missing - missing**2 - 0.05


def test_a_pure_power_law_has_an_open_end_of_e():
    found = fit(SIZES, noisy(SIZES, seed=2, e=0.0))
    assert found.status is Status.BOUND_HIT
    assert found.at_bound == ["E"]
    assert found.intervals["E"][0] is None
    assert fit(SIZES, noisy(SIZES, e=0.0), form=PURE_POWER).status is Status.CONVERGED


def test_profile_of_e_is_lowest_at_the_estimate_and_one_at_its_interval():
    found = fit(SIZES[::5], noisy(SIZES[::5]))
    e, rise = np.array(found.profile["E"]), np.array(found.profile["rise"])
    assert e[rise.argmin()] == pytest.approx(found.parameters["E"], abs=0.1 * np.ptp(e))
    for end in found.intervals["E"]:
        assert np.interp(end, e, rise) == pytest.approx(1, abs=0.15)


def test_fixed_constants_stay_and_have_no_interval():
    n, d = (part.ravel() for part in np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 1e11, 4)))
    truth = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
    y = HOFFMANN.predict({"N": n, "D": d}, truth)
    found = fit({"N": n, "D": d}, y, form=HOFFMANN, fixed={"A": 480.0, "alpha": 0.35}, resamples=50)
    assert found.parameters == pytest.approx(truth, rel=1e-4)
    assert found.intervals["A"] == [480.0, 480.0]
