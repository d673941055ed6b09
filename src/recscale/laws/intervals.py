"""Intervals of constants and of the curve: rows of [lo, hi], nan where an end is open.

First a row for each named constant, then one for the curve at each of `wheres` (ln x, [points, axes]).
By run, never by checkpoint: a bootstrap of runs, or the profile of the objective.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from recscale.laws import solver
from recscale.laws.form import Array
from recscale.laws.solver import Runs

PROFILE_POINTS = 25
RESAMPLE_STARTS = 3  # the optimum, and two places about it


def profiled(theta: Array, runs: Runs, sigma: float | None, level: float, df: int, wheres: Array) -> Array:
    form, count = runs.form, len(runs.form.names)
    kinds = np.r_[np.arange(count), np.full(len(wheres), -1)]
    found = np.full((len(kinds), 2), np.nan)
    if sigma is None:
        return found
    log_x = np.concatenate([np.zeros((count, len(form.axes))), wheres])
    low, high = form.bounds()
    # No further than any curve through the runs could be read, e^7 beyond what was measured.
    span = 7.0 if form.positive else 100.0 * max(1.0, float(np.ptp(runs.target)))
    values = np.tile([runs.target.min() - span, runs.target.max() + span], (len(wheres), 1))
    limits = np.concatenate([np.stack([low, high], axis=1), values])
    free = np.r_[runs.low < runs.high, np.ones(len(wheres), dtype=bool)]
    rise = solver.rise(sigma, runs.delta, level, df)
    found[free] = solver.ends(theta, runs, rise, kinds[free], log_x[free], limits[free])
    return _in_units(runs, found)


def _in_units(runs: Runs, found: Array) -> Array:
    logs = np.array([p.log for p in runs.form.parameters])
    count = len(logs)
    found[:count] = np.where(
        logs[:, None], np.exp(np.where(logs[:, None], found[:count], 0.0)), found[:count]
    )
    found[count:] = np.exp(found[count:]) if runs.form.positive else found[count:] * runs.scale
    return found


def profile_of_e(
    theta: Array, runs: Runs, sigma: float | None, level: float, df: int,
    intervals: Mapping[str, list[float | None]],
) -> dict[str, list[float]] | None:  # fmt: skip
    """How the objective rises with E, out to twice its interval."""
    names = runs.form.names
    if "E" not in names or sigma is None or runs.low[names.index("E")] == runs.high[names.index("E")]:
        return None
    place = names.index("E")
    scaled = runs.form.scaled(theta[None])[0][0, place]
    low, high = runs.form.bounds()
    log = runs.form.parameters[place].log
    lo, hi = (None if end is None else float(np.log(end) if log else end) for end in intervals["E"])
    width = max(scaled - lo if lo is not None else 0.0, hi - scaled if hi is not None else 0.0, 1e-9)
    goals = np.linspace(
        max(scaled - 2 * width, low[place]), min(scaled + 2 * width, high[place]), PROFILE_POINTS
    )
    at, rise = solver.profile(theta, runs, place, goals)
    unit = solver.rise(sigma, runs.delta, level, df)
    return {"E": (np.exp(at) if log else at).tolist(), "rise": (np.maximum(rise, 0) / unit).tolist()}


def resampled(
    theta: Array, runs: Runs, groups: NDArray[np.int64], wheres: Array, resamples: int, level: float,
    rng: np.random.Generator,
) -> tuple[Array, float]:  # fmt: skip
    """Percentiles over resamples of the runs, and the share of degenerate resamples.

    Each resample starts from the optimum and from two places about it.
    """
    thetas, degenerate = resample(theta, runs, groups, resamples, rng)
    part = [50 * (1 - level), 50 * (1 + level)]
    scaled = runs.form.scaled(thetas)[0]
    curves = [solver.modelled(runs.form, thetas, where[:, None], runs.scale)[0] for where in wheres]
    found = np.percentile(np.concatenate([scaled, *curves], axis=1), part, axis=0).T
    low, high = runs.form.bounds()
    ends = found[: len(low)]
    ends[(ends <= low[:, None]) | (ends >= high[:, None])] = np.nan
    return _in_units(runs, found), float(degenerate.mean())


def draws(groups: NDArray[np.int64], resamples: int, rng: np.random.Generator) -> Array:
    """How often each group of runs is in each resample, [resamples, groups]: as many as there are."""
    number = int(groups.max()) + 1
    present = np.bincount(groups, minlength=number) > 0
    counts = np.zeros((resamples, number))
    counts[:, present] = rng.multinomial(
        int(present.sum()), np.full(present.sum(), 1 / present.sum()), resamples
    )
    return counts


def resample(
    theta: Array, runs: Runs, groups: NDArray[np.int64], resamples: int, rng: np.random.Generator
) -> tuple[Array, NDArray[np.bool_]]:
    """theta of each bootstrap resample of the groups, and whether the resample is degenerate."""
    weights = draws(groups, resamples, rng)[:, groups]
    typical = float(np.median(np.abs(_residual(theta, runs))))
    spread = solver.covariance(theta, runs) * typical * min(typical, runs.delta)
    away = rng.multivariate_normal(
        np.zeros(len(theta)), spread, (RESAMPLE_STARTS - 1, resamples), method="svd"
    )
    starts = theta + np.concatenate([np.zeros((1, resamples, len(theta))), away])
    ends, values = solver.solve(
        starts.reshape(-1, len(theta)), runs, np.tile(weights, (RESAMPLE_STARTS, 1)), tolerance=1e-8
    )
    best = values.reshape(RESAMPLE_STARTS, -1).argmin(0)
    thetas = ends.reshape(RESAMPLE_STARTS, resamples, -1)[best, np.arange(resamples)]
    _, place = np.unique(runs.log_x, axis=1, return_inverse=True)
    seen = np.zeros((resamples, int(place.max()) + 1))
    np.add.at(seen.T, place.ravel(), weights.T)
    degenerate = (seen > 0).sum(1) < runs.free
    degenerate |= (runs.at_bound(thetas) & ~runs.at_bound(theta)).any(1)
    return thetas, degenerate


def _residual(theta: Array, runs: Runs) -> Array:
    return np.asarray(solver.modelled(runs.form, theta[None], runs.log_x, runs.scale)[0][0] - runs.target)
