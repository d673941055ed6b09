"""Intervals of constants and of the curve: rows of [lo, hi], nan where an end is open.

First a row for each named constant, then one for the curve at each of `wheres` (ln x, [points, axes]).
By run, never by checkpoint: a bootstrap of runs, or the profile of the objective.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution
from scipy.stats import norm

from recscale.laws import solver
from recscale.laws.form import Array
from recscale.laws.solver import Runs

PROFILE_POINTS = 25
SWEEPS = (1, -1) * 12  # places in a profile from which a neighbour is tried
STIFF = 1e4  # a pull against the profile's own curvature
RESAMPLE_STARTS = 3  # the optimum, and two places about it


def profiled(theta: Array, runs: Runs, sigma: float | None, level: float, df: int, wheres: Array) -> Array:
    """Ends of the profile, of each constant and of the curve."""
    form, count = runs.form, len(runs.form.names)
    found = np.full((count, 2), np.nan)
    if sigma is None:
        return np.full((count + len(wheres), 2), np.nan)
    free, limits = runs.low < runs.high, np.stack(form.bounds(), axis=1)
    high_as, log_x = rise(sigma, runs.delta, level, df), np.zeros((count, len(form.axes)))
    found[free] = ends(theta, runs, high_as, np.flatnonzero(free), log_x[free], limits[free])
    curve = curve_ends(theta, runs, sigma, level, df, wheres)
    return np.concatenate([_constants(runs, found), curve])


def curve_ends(theta: Array, runs: Runs, sigma: float | None, level: float, df: int, wheres: Array) -> Array:
    """Ends of the profile of the curve, a row a place in `wheres`, in the unit of y."""
    if sigma is None or not len(wheres):
        return np.full((len(wheres), 2), np.nan)
    # No further than any curve through the runs could be read, e^7 beyond what was measured.
    span = 7.0 if runs.form.positive else 100.0 * max(1.0, float(np.ptp(runs.target)))
    limits = np.tile([runs.target.min() - span, runs.target.max() + span], (len(wheres), 1))
    kind = np.full(len(wheres), -1)
    return _values(runs, ends(theta, runs, rise(sigma, runs.delta, level, df), kind, wheres, limits))


def _constants(runs: Runs, found: Array) -> Array:
    logs = np.array([p.log for p in runs.form.parameters])[:, None]
    return np.asarray(np.where(logs, np.exp(np.where(logs, found, 0.0)), found))


def _values(runs: Runs, found: Array) -> Array:
    return np.exp(found) if runs.form.positive else found * runs.scale


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
    at, risen = profile(theta, runs, place, goals)
    unit = rise(sigma, runs.delta, level, df)
    return {"E": (np.exp(at) if log else at).tolist(), "rise": (np.maximum(risen, 0) / unit).tolist()}


def percentiles(runs: Runs, thetas: Array, wheres: Array, level: float) -> Array:
    """Percentiles over the refits of resamples, a row of theta each."""
    part = [50 * (1 - level), 50 * (1 + level)]
    found = np.percentile(runs.form.scaled(thetas)[0], part, axis=0).T
    low, high = runs.form.bounds()
    found[(found <= low[:, None]) | (found >= high[:, None])] = np.nan
    return np.concatenate([_constants(runs, found), curve_percentiles(runs, thetas, wheres, level)])


def curve_percentiles(runs: Runs, thetas: Array, wheres: Array, level: float) -> Array:
    """Percentiles of the curve over refits, a row a place in `wheres`, in the unit of y."""
    curves = [solver.modelled(runs.form, thetas, where[:, None], runs.scale)[0][:, 0] for where in wheres]
    part = [50 * (1 - level), 50 * (1 + level)]
    found = [np.percentile(curve, part) for curve in curves]
    return _values(runs, np.array(found).reshape(-1, 2))


def draws(count: int, resamples: int, rng: np.random.Generator) -> Array:
    """How often each of `count` runs is in each resample, [resamples, runs]: as many as there are."""
    return rng.multinomial(count, np.full(count, 1 / count), resamples).astype(np.float64)


def resample(
    theta: Array, runs: Runs, resamples: int, rng: np.random.Generator
) -> tuple[Array, NDArray[np.bool_]]:
    """theta of each bootstrap resample of the runs, and whether the resample is degenerate.

    Each starts from the optimum and from two places about it. Where runs have several rows, constants bend
    whole curves to the fit, and resamples of few curves scatter too little; they are moved outwards by
    sqrt(runs / (runs - constants)), as a standard deviation of residuals is (docs/laws.md, coverage).
    """
    weights = draws(runs.count, resamples, rng)
    typical = float(np.median(np.abs(_residual(theta, runs))))
    spread = covariance(theta, runs) * typical * min(typical, runs.delta)
    away = rng.multivariate_normal(
        np.zeros(len(theta)), spread, (RESAMPLE_STARTS - 1, resamples), method="svd"
    )
    starts = theta + np.concatenate([np.zeros((1, resamples, len(theta))), away])
    ends, values = solver.solve(
        starts.reshape(-1, len(theta)), runs, np.tile(weights, (RESAMPLE_STARTS, 1)), tolerance=1e-8
    )
    best = values.reshape(RESAMPLE_STARTS, -1).argmin(0)
    thetas = ends.reshape(RESAMPLE_STARTS, resamples, -1)[best, np.arange(resamples)]
    degenerate = _places(runs, weights) < runs.free
    degenerate |= (runs.at_bound(thetas) & ~runs.at_bound(theta)).any(1)
    if runs.weight is not None and runs.count > runs.free:
        further = np.sqrt(runs.count / (runs.count - runs.free))
        thetas = np.clip(theta + further * (thetas - theta), runs.low, runs.high)
    return thetas, degenerate


def _places(runs: Runs, weights: Array) -> NDArray[np.int64]:
    """Distinct x of each resample; of a long table, among some of its rows."""
    rows = solver.thinned(runs, 1000)
    _, place = np.unique(runs.log_x[:, rows], axis=1, return_inverse=True)
    there = np.zeros((runs.count, int(place.max()) + 1))
    there[runs.run[rows], place.ravel()] = 1.0
    return np.asarray((np.minimum(weights, 1.0) @ there > 0).sum(1))


def _residual(theta: Array, runs: Runs) -> Array:
    return np.asarray(solver.modelled(runs.form, theta[None], runs.log_x, runs.scale)[0][0] - runs.target)


# --- profiles ---


def rise(sigma: float, delta: float, level: float, df: int) -> float:
    """How far the objective may rise above its minimum inside an interval.

    Schrader and Hettmansperger (1980): 2 * rise ~ E[psi^2] / E[psi'] * F(1, df), normal noise.
    """
    z = min(delta / sigma, 20.0)  # beyond, psi is linear for all noise, and inf * 0 is no number
    slope = 2 * norm.cdf(z) - 1
    square = sigma**2 * (slope - 2 * z * norm.pdf(z)) + 2 * (z * sigma) ** 2 * norm.sf(z)
    return float(0.5 * square / slope * f_distribution.ppf(level, 1, df))


def ends(best: Array, runs: Runs, rise: float, kind: NDArray[np.int64], log_x: Array, limits: Array) -> Array:
    """Both profile ends of every quantity (see `Pull`), nan where it meets one of its limits first.

    Walks outwards from the estimate, then closes in by secants of the root of the rise, which is
    near linear; every step of every end is one row of one batch.
    """
    kinds, wheres = np.repeat(kind, 2), np.repeat(log_x, 2, axis=0)
    rows = len(kinds)
    base = float(solver.objective(best[None], runs)[0])
    theta_in = np.tile(best, (rows, 1))
    start, slope = solver.quantity(runs, theta_in, kinds, wheres)
    low, high = np.repeat(limits, 2, axis=0).T
    side = np.tile([-1.0, 1.0], rows // 2)
    width = _half_width(best, runs, rise, slope)
    inner, outer = start.copy(), np.full(rows, np.nan)
    z_in, z_out, met = np.zeros(rows), outer.copy(), np.zeros(rows, dtype=bool)
    todo = np.arange(rows)
    for turn in range(60):
        a, b, za, zb = inner[todo], outer[todo], z_in[todo], z_out[todo]
        further = (a - start[todo]) * np.clip(1.1 / np.maximum(za, 1e-9), 1.3, 20.0)
        away = start[todo] + np.where(a == start[todo], side[todo] * 0.2 * width[todo], further)
        # A secant alone creeps where the rise has a kink, so every third step halves the bracket.
        part = np.clip((1 - za) / (zb - za), 1e-3, 0.9) if turn % 3 else 0.5
        goal = np.where(np.isnan(b), np.clip(away, low[todo], high[todo]), a + part * (b - a))
        scale = np.maximum(np.abs(a - start[todo]) / np.maximum(za, 0.1), 0.1 * width[todo])
        pull = solver.Pull(kinds[todo], wheres[todo], goal, STIFF * 2 * rise / scale**2)
        theta, _ = solver.solve(theta_in[todo], runs, None, pull, 1e-9, 80)
        value = solver.objective(theta, runs)
        q, _ = solver.quantity(runs, theta, pull.kind, pull.log_x)
        z = np.sqrt(np.maximum(value - base, 0.0) / rise)
        further_out = side[todo] * (q - a) > 0
        into, out = (z <= 1) & further_out, z > 1
        inner[todo[into]], z_in[todo[into]], theta_in[todo[into]] = q[into], z[into], theta[into]
        outer[todo[out]], z_out[todo[out]] = q[out], z[out]
        # At a limit of the quantity, or where constants at their bounds keep it from going on.
        at_limit = np.abs(q - goal) > 0.5 * np.abs(goal - a)
        at_limit |= goal == np.where(side[todo] < 0, low[todo], high[todo])
        met[todo] = (z <= 0.998) & at_limit & np.isnan(b)
        gap, reach = np.abs(outer[todo] - inner[todo]), np.abs(inner[todo] - start[todo])
        close = gap < 2e-3 * reach + 1e-12
        todo = todo[~(met[todo] | (into & (z > 0.998)) | close)]
        if not todo.size:
            break
    met[todo] |= np.isnan(outer[todo])  # 60 steps out and still no rise
    return np.where(met, np.nan, inner).reshape(-1, 2)


def profile(best: Array, runs: Runs, kind: int, goals: Array) -> tuple[Array, Array]:
    """Values of one named constant near `goals`, and how far the objective rises to hold it there."""
    base, kinds = float(solver.objective(best[None], runs)[0]), np.full(len(goals), kind)
    start, wheres = np.tile(best, (len(goals), 1)), np.zeros((len(goals), len(runs.log_x)))
    q, _ = solver.quantity(runs, start, kinds, wheres)
    scale = np.maximum(np.abs(goals - q), 1e-9)
    pull = solver.Pull(kinds, wheres, goals, STIFF * max(base, 1e-12) / scale**2)
    theta, value = solver.solve(start, runs, None, pull, 1e-9, 200)
    for shift in SWEEPS:  # a goal far off along a bent valley is reached from its neighbour, not from `best`
        other, found = solver.solve(np.roll(theta, shift, axis=0), runs, None, pull, 1e-9, 200)
        theta = np.where((found < value)[:, None], other, theta)
        value = np.minimum(found, value)
    return solver.quantity(runs, theta, kinds, wheres)[0], solver.objective(theta, runs) - base


def covariance(best: Array, runs: Runs) -> Array:
    """Inverse of the objective's curvature, of a majorant softened to the middle of the runs."""
    slopes = solver.modelled(runs.form, best[None], runs.log_x, runs.scale)[1][0]
    residual = np.abs(solver.modelled(runs.form, best[None], runs.log_x, runs.scale)[0][0] - runs.target)
    bend = runs.delta / max(runs.delta, float(np.median(residual))) if runs.delta < np.inf else 1.0
    curvature = bend * (slopes if runs.weight is None else slopes * runs.weight) @ slopes.T
    return np.asarray(np.linalg.pinv(curvature, rcond=1e-12, hermitian=True))


def _half_width(best: Array, runs: Runs, rise: float, slope: Array) -> Array:
    """First guess of half an interval, from the curvature at the optimum."""
    square = np.einsum("bi,ij,bj->b", slope, covariance(best, runs), slope)
    return np.asarray(np.sqrt(np.maximum(2 * rise * square, 1e-16)))
