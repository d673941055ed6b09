"""Fit a scaling law to runs and say how far it can be trusted.

`fit_law` minimises the summed Huber loss from a grid of starts (`solver`), takes intervals by run
(a bootstrap of many, else the profile of that same objective), predicts what is held out, and
returns a `Fit`. Runs that do not support a law give a `Fit` whose status says so; only malformed
arguments raise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from recscale.laws import solver
from recscale.laws.form import Array, Form, Points
from recscale.laws.forms import SATURATING_POWER
from recscale.laws.intervals import profile_of_e, profiled, resampled
from recscale.laws.result import Fit, Status
from recscale.laws.solver import Optimum, Runs

BAND_POINTS = 33
# Losses are float32 at best, so smaller noise of the log loss is not believed.
NOISE_FLOOR = 1e-7
MANY = 10  # distinct x from which a bootstrap of runs is better than the profile
FAR = 10.0  # robust standard deviations from the curve that make a run an outlier
SPARE = 8  # runs more than constants, from which outliers can be told
RARE = 0.01  # share of outliers that any heavy tail may have
HELD = "; held out: in quadrature with the noise of the measured mean, t * sigma / sqrt(runs)"
PROFILE = "profile of the Huber objective, F-calibrated" + HELD
BOOTSTRAP = "bootstrap of {} resamples of the runs, percentiles" + HELD


@dataclass(frozen=True)
class _Used:
    """Usable runs of a fit: log_x [axes, runs], y in its unit, which of them are held out."""

    log_x: Array
    y: Array
    groups: NDArray[np.int64]

    def __getitem__(self, rows: NDArray[Any]) -> _Used:
        return _Used(self.log_x[:, rows], self.y[rows], self.groups[rows])

    @property
    def distinct(self) -> int:
        """Distinct x; seeds of one x are one."""
        return len(np.unique(self.log_x, axis=1).T)


def fit_law(
    x: Points,
    y: ArrayLike,
    *,
    law: str,
    form: Form = SATURATING_POWER,
    x_name: str | None = None,
    hold_out: int | Mapping[str, int] = 0,
    level: float = 0.9,
    delta: float = 1e-3,
    fixed: Mapping[str, float] | None = None,
    groups: ArrayLike | None = None,
    at: Points | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Fit:
    """Fit a form to runs: x an array (params, targets or FLOPs), or arrays by axis; y in nats or a metric.

    One entry a run; seeds share an x. hold_out: the largest distinct x, diverged runs counted, are
    predicted instead of fitted; with several axes the largest of the first, or a number by axis.
    delta: Huber threshold on residuals, relative to y. fixed: constants that are given. groups: rows
    of one run (its checkpoints), resampled together. at: x to predict like what is held out, without a
    measurement. Raises ValueError for arguments no set of runs could have given.

    Intervals are by run: with 10 or more distinct x from `resamples` of the runs, else from the
    profile. They are for noise alone: no interval covers a law of another form, the held-out error
    does. Coverage as measured: docs/laws.md.
    """
    columns, ys = _columns(x, y, form, law)
    wanted = hold_out if isinstance(hold_out, Mapping) else {form.axes[0]: hold_out}
    fixed = dict(fixed or {})
    _check(columns, wanted, fixed, level, delta, form, law)
    good = np.isfinite(ys) & ((ys > 0) | (not form.positive))
    held = np.zeros(len(ys), dtype=bool)
    for axis, number in wanted.items():
        sizes = np.unique(columns[axis])
        # By x alone: if a diverged largest size handed its place on, the losses would choose the test.
        held |= np.isin(columns[axis], sizes[max(0, len(sizes) - number) :])
    of = np.arange(len(ys)) if groups is None else np.unique(groups, return_inverse=True)[1]
    every = _Used(np.log(np.stack(list(columns.values()))), ys, of)
    points = _points(columns)
    asked = [] if at is None else _points(_by_axis(at, form, law))
    run: list[dict[str, float]] = [{} if groups is None else {"run": float(k)} for k in of]
    fit = Fit(
        law=law,
        form=form.name,
        x=x_name or ", ".join(form.axes),
        level=level,
        delta=delta,
        interval_method=PROFILE,
        intervals={name: [None, None] for name in form.names},
        points_used=[points[k] | {"y": float(ys[k])} | run[k] for k in np.flatnonzero(good & ~held)],
        points_left_out=[points[k] | _left_out(float(ys[k])) for k in np.flatnonzero(~good)],
        held_out=_measured(points, ys, good, held, asked),
        fixed=fixed,
    )
    used = every[good & ~held]
    if used.distinct < len(form.names) - len(fixed):
        return fit
    return _fitted(fit, used, resamples, np.random.default_rng(seed))


def _by_axis(x: Points, form: Form, law: str) -> dict[str, Array]:
    given = x if isinstance(x, Mapping) else {form.axes[0]: x}
    if set(given) != set(form.axes):
        raise ValueError(f"{law}: {form.name} needs x by axis: {', '.join(form.axes)}")
    columns = {axis: np.atleast_1d(np.asarray(given[axis], dtype=np.float64)) for axis in form.axes}
    if not all((np.isfinite(part) & (part > 0)).all() for part in columns.values()):
        raise ValueError(f"{law}: every {', '.join(form.axes)} must be positive and finite")
    return columns


def _check(
    columns: Mapping[str, Array], wanted: Mapping[str, int], fixed: Mapping[str, float], level: float,
    delta: float, form: Form, law: str,
) -> None:  # fmt: skip
    """Raise ValueError for options that no set of runs could have given."""
    if min(wanted.values(), default=0) < 0 or not 0 < level < 1 or not delta > 0:
        raise ValueError(f"{law}: need hold_out >= 0, 0 < level < 1, delta > 0")
    if not set(fixed) <= set(form.names) or not set(wanted) <= set(columns):
        raise ValueError(f"{law}: {form.name} has {', '.join(form.names)} and {', '.join(form.axes)}")
    if set(fixed) == set(form.names):
        raise ValueError(f"{law}: all constants of {form.name} are fixed: there is nothing to fit")
    if fixed and form.turned is not None:
        raise ValueError(f"{law}: no constant of {form.name} can be fixed; use power_constant")


def _points(columns: Mapping[str, Array]) -> list[dict[str, float]]:
    return [dict(zip(columns, map(float, row), strict=True)) for row in zip(*columns.values(), strict=True)]


def _columns(x: Points, y: ArrayLike, form: Form, law: str) -> tuple[dict[str, Array], Array]:
    columns = _by_axis(x, form, law)
    ys = np.atleast_1d(np.asarray(y, dtype=np.float64))
    for part in columns.values():
        if part.ndim != 1 or part.shape != ys.shape:
            raise ValueError(f"{law}: x and y need one entry a run each, got {part.shape} and {ys.shape}")
    return columns, ys


def _left_out(y: float) -> dict[str, Any]:
    reason = f"loss is {y:g}, not {'positive' if isfinite(y) else 'finite'}"
    return {"y": y if isfinite(y) else None, "reason": reason}


def _measured(
    points: Sequence[dict[str, float]], y: Array, good: NDArray[np.bool_], held: NDArray[np.bool_],
    asked: Sequence[dict[str, float]],
) -> list[dict[str, Any]]:  # fmt: skip
    """One held-out entry a distinct x, then one for each that is only asked for; before prediction."""
    at = [tuple(point.values()) for point in points]
    fitted = np.flatnonzero(good & ~held)
    largest = max((at[k] for k in fitted), key=lambda row: float(np.log(row).sum()), default=())
    tops = np.max([at[k] for k in fitted], axis=0) if len(fitted) else None
    last = float(y[[k for k in fitted if at[k] == largest]].mean()) if len(fitted) else None
    entries = []
    every = sorted({at[k] for k in np.flatnonzero(held)})
    for x, mine in [(x, [k for k in np.flatnonzero(good) if at[k] == x]) for x in every] + [
        (tuple(point.values()), []) for point in asked
    ]:
        measured = float(y[mine].mean()) if mine else None
        entry: dict[str, Any] = dict(zip(points[0], x, strict=True))
        entry |= {"runs": len(mine), "measured": measured}
        entry |= dict.fromkeys(("predicted", "error", "extrapolation", "baseline_error"))
        entry["interval"] = [None, None]
        if tops is not None:
            entry["extrapolation"] = float(np.max(np.array(x) / tops))
        if measured and last is not None:
            entry["baseline_error"] = abs(last - measured) / abs(measured)
        entries.append(entry)
    return entries


def _fitted(fit: Fit, used: _Used, resamples: int, rng: np.random.Generator) -> Fit:
    """`fit` with everything that takes a solver."""
    form = fit.shape
    runs = Runs.of(form, used.log_x, used.y, fit.delta, fit.fixed)
    starts = np.clip(form.starts(used.log_x, used.y), runs.low, runs.high)
    found = solver.best(runs, np.unique(starts, axis=0))
    outliers = _outliers(found.theta, runs)
    squares = replace(runs, log_x=runs.log_x[:, ~outliers], target=runs.target[~outliers], delta=inf)
    # Least squares from where the robust starts ended: its optimum is never far from one of them.
    _, half_rss = solver.solve(np.unique(found.ends[:200].round(9), axis=0)[:64], squares)
    rss, df = 2 * float(half_rss.min()), len(squares.target) - runs.free
    sigma = _noise(squares, rss, df)
    fit = replace(fit, sigma=sigma, outliers=np.flatnonzero(outliers).tolist())
    absent = _no_change(squares, rss, sigma, df, fit.level)
    if absent:
        return replace(fit, status=absent)
    named = dict(zip(form.names, form.named(found.theta[None])[0].tolist(), strict=True))
    condition = solver.condition(found.theta, runs)
    at_bound = [name for name, at in zip(form.names, runs.at_bound(found.theta), strict=True) if at]
    fit = replace(
        fit,
        parameters=named | fit.fixed,
        starts=found.starts,
        share_of_starts=found.share,
        condition=condition if isfinite(condition) else None,
        slack=_slack(condition, sigma, runs),
        at_bound=at_bound,
    )
    grid = _grid(fit)
    band = np.log(grid[:, None]) if len(form.axes) == 1 else np.empty((0, len(form.axes)))
    held = np.array([[entry[axis] for axis in form.axes] for entry in fit.held_out])
    wheres = np.concatenate([band, np.log(held.reshape(-1, len(form.axes)))])
    if used.distinct >= MANY and len(np.unique(used.groups)) >= MANY:
        ends, share = resampled(found.theta, runs, used.groups, wheres, resamples, fit.level, rng)
        method = BOOTSTRAP.format(f"{resamples:,}")
        fit = replace(fit, interval_method=method, resamples=resamples, degenerate_share=share)
    else:
        ends = profiled(found.theta, runs, sigma, fit.level, df, wheres)
    known: list[list[float | None]] = [[None if np.isnan(end) else float(end) for end in row] for row in ends]
    count = len(form.names)
    intervals = dict(zip(form.names, known[:count], strict=True)) | {
        name: [v, v] for name, v in fit.fixed.items()
    }
    fit = replace(
        fit, intervals=intervals, profile=profile_of_e(found.theta, runs, sigma, fit.level, df, intervals)
    )
    fit = replace(fit, status=_status(fit, found, used.distinct, runs.free))
    if len(band):
        lo, hi = ([row[k] for row in known[count : count + len(grid)]] for k in (0, 1))
        fit = replace(fit, band={"x": grid.tolist(), "lo": lo, "mid": fit.predict(grid).tolist(), "hi": hi})
    quantile = float(t_distribution.ppf(0.5 + fit.level / 2, df)) if sigma else 0.0
    pairs = zip(fit.held_out, known[count + len(band) :], strict=True)
    return replace(fit, held_out=[_predicted(fit, entry, pair, quantile, runs) for entry, pair in pairs])


def _grid(fit: Fit) -> Array:
    """x of the band, from the smallest fitted to the largest of all runs."""
    axis = fit.shape.axes[0]
    every = [point[axis] for point in (*fit.points_used, *fit.points_left_out, *fit.held_out)]
    return np.geomspace(min(point[axis] for point in fit.points_used), max(every), BAND_POINTS)


def _outliers(theta: Array, runs: Runs) -> NDArray[np.bool_]:
    """Runs far from the robust curve, in units of the median distance of all."""
    modelled, _ = solver.modelled(runs.form, theta[None], runs.log_x, runs.scale)
    size = np.abs(modelled[0] - runs.target)
    if len(size) < runs.free + SPARE:
        return np.zeros(len(size), dtype=bool)
    # As many runs as constants lie on a robust curve: they are no evidence of its noise.
    typical = 1.4826 * float(np.median(np.sort(size)[runs.free :]))
    return np.asarray(size > FAR * max(typical, NOISE_FLOOR))


def _noise(runs: Runs, rss: float, df: int) -> float | None:
    """sd of one run about the curve: of the residuals, never below that of seeds at one x."""
    if df < 1:
        return None
    _, group = np.unique(runs.log_x, axis=1, return_inverse=True)
    group = group.ravel()
    means = np.bincount(group, runs.target) / np.bincount(group)
    extra = len(group) - len(means)
    pooled = ((runs.target - means[group]) ** 2).sum() / extra if extra else 0.0
    return max(sqrt(rss / df), sqrt(pooled), NOISE_FLOOR)


def _no_change(runs: Runs, rss: float, sigma: float | None, df: int, level: float) -> Status | None:
    """FLAT or NOT_DECREASING where an F test finds the law no better than a constant."""
    spread = runs.target - runs.target.mean()
    u, way = runs.log_x[0] - runs.log_x[0].mean(), 1 if runs.form.rises else -1
    terms = max(1, runs.free - 1)
    gain = (float((spread**2).sum()) - rss) / terms
    one_way = (runs.form.positive or runs.form.rises) and len(runs.log_x) == 1
    slope = float((u * spread).sum() / (u**2).sum()) if one_way else 0.0
    if sigma is None:
        if (slope * way > 0 or not one_way) and gain > NOISE_FLOOR**2:
            return None
    elif gain > sigma**2 * f_distribution.ppf(level, terms, df):
        return None
    if not one_way:
        return Status.FLAT
    left = float(((spread - slope * u) ** 2).sum())
    error = max(sqrt(left / (len(spread) - 2)), NOISE_FLOOR) / sqrt((u**2).sum())
    wrong = -way * slope > error * t_distribution.ppf(0.5 + level / 2, len(spread) - 2)
    return Status.NOT_DECREASING if wrong else Status.FLAT


def _status(fit: Fit, found: Optimum, distinct: int, free: int) -> Status:
    if distinct <= free + 1:
        return Status.UNDERDETERMINED
    if found.share < 2 / found.starts:
        return Status.NOT_CONVERGED
    open_ended = fit.sigma is not None and [None, None] in fit.intervals.values()
    if fit.slack is None or fit.slack > 1 or open_ended:
        return Status.NOT_IDENTIFIED
    if fit.at_bound:
        return Status.BOUND_HIT
    return Status.OUTLIERS if len(fit.outliers) > RARE * len(fit.points_used) else Status.CONVERGED


def _slack(condition: float, sigma: float | None, runs: Runs) -> float | None:
    """How far two parts of the law may move against each other at one standard deviation.

    Root mean square over the runs, in the unit of the residuals: 1 is a factor e of the loss, or the
    whole median of a metric. None where the parts cannot be told apart at all.
    """
    slack = condition * (sigma or 0.0) / sqrt(runs.free * len(runs.target))
    return slack if condition < 1e12 else None


def _predicted(
    fit: Fit, entry: dict[str, Any], ends: list[float | None], quantile: float, runs: Runs
) -> dict[str, Any]:
    """A held-out entry with its prediction."""
    axes = fit.shape.axes
    mid = float(fit.predict({axis: entry[axis] for axis in axes}))
    measured, interval = entry["measured"], entry["interval"]
    if fit.sigma:
        noise = quantile * fit.sigma / sqrt(max(1, entry["runs"]))
        interval = [_wider(mid, end, noise, runs) for end in ends]
    error = measured and abs(mid - measured) / abs(measured)
    return entry | {"predicted": mid, "interval": interval, "error": error}


def _wider(mid: float, end: float | None, noise: float, runs: Runs) -> float | None:
    """An end of the curve's interval and the noise in quadrature, on the scale of the residuals."""
    if end is None:
        return None
    if runs.form.positive:
        away = np.log(end / mid)
        return float(mid * np.exp(np.copysign(np.hypot(away, noise), away)))
    return float(mid + np.copysign(np.hypot(end - mid, noise * runs.scale), end - mid))
