"""What the runs say of their noise: the sd of one run, runs far off, the Huber threshold that suits it."""

from __future__ import annotations

from dataclasses import replace
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from recscale.laws import solver
from recscale.laws.result import Status
from recscale.laws.solver import Optimum, Runs

# Losses are float32 at best, so smaller noise of the log loss is not believed.
NOISE_FLOOR = 1e-7
FAR = 10.0  # robust standard deviations from the curve that make a row an outlier
SPARE = 8  # runs more than constants, from which outliers can be told by the median of all
CHANCE = 0.01  # of taking a good run of few for an outlier
DELTA = 1e-3  # least Huber threshold: that of Hoffmann et al. and Besiroglu et al.
EFFICIENT = 1.345  # Huber: threshold in sd at which normal noise costs 5 % of the precision


def squares(found: Optimum, runs: Runs) -> tuple[Runs, NDArray[np.bool_]]:
    """The runs but for outliers, for least squares, and which rows are outliers."""
    far = outliers(found, runs)
    return replace(runs[np.flatnonzero(~far)], delta=inf), far


def few(runs: Runs) -> bool:
    """Whether outliers are looked for one by one, and left out of the fit."""
    return runs.count < runs.free + SPARE


def outliers(found: Optimum, runs: Runs) -> NDArray[np.bool_]:
    """Rows far from the curve: of many, in units of the median distance; of few runs, at most one run."""
    modelled, _ = solver.modelled(runs.form, found.theta[None], runs.log_x, runs.scale)
    size = np.abs(modelled[0] - runs.target)
    if few(runs):
        return _one_run(found, runs)
    # As many runs as constants lie on a robust curve: they are no evidence of its noise.
    typical = 1.4826 * float(np.median(np.sort(size)[runs.free :]))
    return np.asarray(size > FAR * max(typical, NOISE_FLOOR))


def _one_run(found: Optimum, runs: Runs) -> NDArray[np.bool_]:
    """The run whose own free shift takes most off the sum of squares, where an F test believes it.

    A fit without a run is a fit in which that run may shift as it likes, so the test is exact for curves
    that are near linear; its chance is divided by the number of runs (Bonferroni).
    """
    df = runs.count - runs.free - 1
    none = np.zeros(len(runs.target), dtype=bool)
    if df < 1:
        return none
    squares = replace(runs, delta=inf)
    starts = found.distinct(8, 6)
    without = np.concatenate([np.ones((1, runs.count)), 1 - np.eye(runs.count)])
    _, half = solver.solve(
        np.repeat(starts, len(without), axis=0), squares, np.tile(without, (len(starts), 1))
    )
    rss = 2 * half.reshape(len(starts), len(without)).min(0)
    worst = int(rss[1:].argmin())
    left = max(float(rss[1 + worst]), df * NOISE_FLOOR**2)
    limit = f_distribution.isf(CHANCE / runs.count, 1, df)
    return np.asarray(runs.run == worst) if (float(rss[0]) - left) / (left / df) > limit else none


def sd(runs: Runs, rss: float, df: int) -> float | None:
    """sd of one run about the curve: of the residuals, never below that of seeds at one x."""
    if df < 1:
        return None
    place = np.unique(runs.log_x, axis=1, return_inverse=True)[1].ravel()
    cells, of = np.unique(np.stack([place, runs.run]), axis=1, return_inverse=True)
    value = np.bincount(of.ravel(), runs.target) / np.bincount(of.ravel())
    means = np.bincount(cells[0], value) / np.bincount(cells[0])
    extra = len(value) - len(means)
    pooled = ((value - means[cells[0]]) ** 2).sum() / extra if extra else 0.0
    return max(sqrt(rss / df), sqrt(pooled), NOISE_FLOOR)


def threshold(sigma: float | None) -> float:
    """Huber threshold for noise of this sd: that of the literature, or where it is too strict for the noise,
    the one at which normal noise costs 5 % of the precision."""
    return max(DELTA, EFFICIENT * (sigma or 0.0))


def no_change(runs: Runs, rss: float, sigma: float | None, df: int, level: float) -> Status | None:
    """FLAT or NOT_DECREASING where an F test finds the law no better than a constant."""
    count = runs.count
    spread = runs.target - runs.total(runs.target) / count
    u = runs.log_x[0] - runs.total(runs.log_x[0]) / count
    way = 1 if runs.form.rises else -1
    terms = max(1, runs.free - 1)
    gain = (float(runs.total(spread**2)) - rss) / terms
    one_way = (runs.form.positive or runs.form.rises) and len(runs.log_x) == 1
    wide = float(runs.total(u**2))
    slope = float(runs.total(u * spread)) / wide if one_way else 0.0
    if sigma is None:
        if (slope * way > 0 or not one_way) and gain > NOISE_FLOOR**2:
            return None
    elif gain > sigma**2 * f_distribution.ppf(level, terms, df):
        return None
    if not one_way or count < 3:
        return Status.FLAT
    left = float(runs.total((spread - slope * u) ** 2))
    error = max(sqrt(left / (count - 2)), NOISE_FLOOR) / sqrt(wide)
    wrong = -way * slope > error * t_distribution.ppf(0.5 + level / 2, count - 2)
    return Status.NOT_DECREASING if wrong else Status.FLAT
