"""The solver is checked by finite differences, by scipy, and by its own constraints."""

from math import inf

import numpy as np
import pytest
from scipy.stats import f as f_distribution

from recscale.laws import forms, intervals, solver
from recscale.laws.solver import Pull, Runs

SIZES = np.array([768, 768, 1536, 3072, 6144, 12288, 24576, 98304], dtype=float)


def runs_of(delta, form=forms.SATURATING_POWER, noise=0.02):
    scatter = noise * np.random.default_rng(0).standard_normal(len(SIZES))
    y = (5 + (2000 / SIZES) ** 0.3) * np.exp(scatter)
    return Runs.of(form, np.log(SIZES)[None], y, delta)


@pytest.mark.parametrize("form", [forms.SATURATING_POWER, forms.LOG_LINEAR])
@pytest.mark.parametrize("delta", [1e-3, 0.02, inf])
def test_gradient_is_that_of_the_objective(delta, form):
    runs = runs_of(delta, form)
    theta = np.array([4.7, 2.1, 0.35][: len(form.names)])
    gradient = solver._local(theta[None], runs, None, None).gradient
    # 1e-6 balances truncation (h^2) against rounding (1e-16 / h), and crosses no kink of the Huber.
    steps = 1e-6 * np.eye(len(theta))
    central = (solver.objective(theta + steps, runs) - solver.objective(theta - steps, runs)) / 2e-6
    assert gradient[0] == pytest.approx(central, rel=1e-5, abs=1e-9)


def test_a_weight_counts_a_run_as_often():
    runs = runs_of(1e-3)
    weights = np.array([[0, 1, 2, 1, 1, 0, 1, 2.0]])
    rows = np.repeat(np.arange(8), weights[0].astype(int))
    again = Runs.of(runs.form, runs.log_x[:, rows], np.exp(runs.target[rows]), runs.delta)
    start = runs.form.starts(runs.log_x, np.exp(runs.target))[[40]]
    one, value = solver.solve(start, runs, weights)
    other, same = solver.solve(start, again)
    assert value == pytest.approx(same, rel=1e-9)
    assert one == pytest.approx(other, rel=1e-4)


def test_a_pull_rests_on_the_profile_however_weak():
    """Springs of different strength come to rest at different E, all of them on one profile."""
    runs = runs_of(inf)
    best = solver.best(runs, runs.form.starts(runs.log_x, np.exp(runs.target)))
    kind, where = np.zeros(3, dtype=int), np.zeros((3, 1))
    pull = Pull(kind, where, np.full(3, 4.0), np.array([1e-4, 1e-2, 1e2]))
    theta, _ = solver.solve(np.tile(best.theta, (3, 1)), runs, None, pull)
    e, rise = theta[:, 0], solver.objective(theta, runs) - best.value
    assert e[0] > e[1] > e[2] == pytest.approx(4.0, abs=1e-4)
    fixed = [Runs.of(runs.form, runs.log_x, np.exp(runs.target), inf) for _ in e]
    for run, at, expected in zip(fixed, e, rise, strict=True):
        run.low[0] = run.high[0] = at
        assert solver.solve(best.theta[None], run)[1][0] - best.value == pytest.approx(expected, rel=1e-6)


def test_two_columns_that_say_the_same_have_an_endless_condition():
    runs = runs_of(1e-3)
    flat = np.array([5.0, 0.0, 1e-9])  # E and the height of the rest are one
    assert solver.condition(flat, runs) > 1e8
    best = solver.best(runs, runs.form.starts(runs.log_x, np.exp(runs.target)))
    assert solver.condition(best.theta, runs) < 1e4


@pytest.mark.parametrize("sigma", [1e-5, 5e-4, 3e-3])
def test_rise_has_the_moments_of_huber_psi(sigma):
    noise = sigma * np.random.default_rng(0).standard_normal(1_000_000)
    ratio = np.mean(np.clip(noise, -1e-3, 1e-3) ** 2) / np.mean(np.abs(noise) < 1e-3)
    quantile = f_distribution.ppf(0.9, 1, 4)
    assert intervals.rise(sigma, 1e-3, 0.9, 4) == pytest.approx(ratio * quantile / 2, rel=0.01)
