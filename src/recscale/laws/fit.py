"""Fit a scaling law to runs and say how far it can be trusted.

`fit_law` minimises the summed Huber loss from a grid of starts (`solver`), takes intervals by run
(a bootstrap of many, else the profile of that same objective), predicts what is held out, and
returns a `Fit`. Runs that do not support a law give a `Fit` whose status says so; only malformed
arguments raise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t as t_distribution

from recscale.laws import noise, solver
from recscale.laws.form import Array, Form, Points
from recscale.laws.forms import SATURATING_POWER
from recscale.laws.intervals import percentiles, profile_of_e, profiled, resample
from recscale.laws.noise import DELTA
from recscale.laws.result import NATS, Fit, Status
from recscale.laws.solver import Optimum, Runs

BAND_POINTS = 33
MANY = 10  # distinct x, and runs, from which a bootstrap of runs is better than the profile
AGAIN = 200  # starts of the law of all runs, besides where those of the test ended
LEAST_STARTS = 25  # of one or two free constants
BELIEVED = 1e6  # times a constant to which its interval may reach; beyond, it is open
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
    delta: float | None = None,
    fixed: Mapping[str, float] | None = None,
    groups: ArrayLike | None = None,
    unit: str = NATS,
    resamples: int = 1000,
    seed: int = 0,
) -> Fit:
    """Fit a form to runs: x an array (params, targets or FLOPs), or arrays by axis; y in nats or a metric.

    One entry a run; seeds share an x. hold_out: the largest distinct x, diverged runs counted, are
    predicted instead of fitted; with several axes the largest of the first, or a number by axis.
    delta: Huber threshold on residuals, relative to y; None: from the noise (`noise.threshold`). fixed:
    constants that are given. groups: rows of one run (its checkpoints), which count as one. Raises
    ValueError for arguments no set of runs could have given.

    Where held-out runs were measured, `final` is the law of all runs, for forecasts: the test is over then.

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
    run: list[dict[str, float]] = [{} if groups is None else {"run": float(k)} for k in of]
    fit = Fit(
        law=law,
        form=form.name,
        x=x_name or ", ".join(form.axes),
        level=level,
        unit=unit,
        delta=DELTA if delta is None else delta,
        delta_given=delta is not None,
        interval_method=PROFILE,
        intervals={name: [None, None] for name in form.names},
        points_used=[points[k] | {"y": float(ys[k])} | run[k] for k in np.flatnonzero(good & ~held)],
        points_left_out=[points[k] | _left_out(float(ys[k])) for k in np.flatnonzero(~good)],
        held_out=_measured(points, ys, of, good, held),
        fixed=fixed,
    )
    found, ends = _fitted(fit, every[good & ~held], resamples, seed, None)
    if not (good & held).any():
        return found
    used = [points[k] | {"y": float(ys[k])} | run[k] for k in np.flatnonzero(good)]
    final, _ = _fitted(replace(fit, points_used=used, held_out=[]), every[good], resamples, seed, ends)
    return replace(found, final=final, draws=None)


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
    delta: float | None, form: Form, law: str,
) -> None:  # fmt: skip
    """Raise ValueError for options that no set of runs could have given."""
    for name, value in fixed.items():
        ends = {part.name: (part.low, part.high) for part in form.parameters}.get(name, (value, value))
        if not ends[0] <= value <= ends[1]:
            raise ValueError(f"{law}: {name} = {value:g} is not from {ends[0]:g} to {ends[1]:g}")
    if min(wanted.values(), default=0) < 0 or not 0 < level < 1 or (delta is not None and not delta > 0):
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
    points: Sequence[dict[str, float]], y: Array, run: NDArray[np.int64], good: NDArray[np.bool_],
    held: NDArray[np.bool_],
) -> list[dict[str, Any]]:  # fmt: skip
    """One held-out entry a distinct x, before prediction."""
    x = np.array([tuple(point.values()) for point in points])
    used = good & ~held
    largest = x[used][np.log(x[used]).sum(1).argmax()] if used.any() else None
    last = float(y[used][(x[used] == largest).all(1)].mean()) if used.any() else None
    places, of = np.unique(x[held], axis=0, return_inverse=True)
    entries = []
    for place, at in enumerate(places):
        mine = (of.ravel() == place) & good[held]
        values = y[held][mine]
        measured = float(values.mean()) if len(values) else None
        entry: dict[str, Any] = dict(zip(points[0], map(float, at), strict=True))
        entry |= {"runs": len(np.unique(run[held][mine])), "measured": measured}
        entry |= dict.fromkeys(("predicted", "error", "extrapolation", "baseline_error"))
        entry["interval"] = [None, None]
        if last is not None:
            entry["extrapolation"] = float(np.max(at / x[used].max(0)))
        if measured and last is not None:
            entry["baseline_error"] = abs(last - measured) / abs(measured)
        entries.append(entry)
    return entries


def _fitted(fit: Fit, used: _Used, resamples: int, seed: int, known: Array | None) -> tuple[Fit, Array]:
    """`fit` with everything that takes a solver, and where its starts ended.

    known: where those of the test ended, to start from with a part of the grid.
    """
    form = fit.shape
    none = np.empty((0, len(form.names)))
    if used.distinct < len(form.names) - len(fit.fixed):
        return fit, none
    runs = Runs.of(form, used.log_x, used.y, fit.delta, fit.fixed, used.groups)
    starts = _starts(runs, used)
    if known is not None:
        starts = np.concatenate([known, starts[:: max(1, len(starts) // AGAIN)]])
    found = solver.best(runs, starts)
    squares, outliers = noise.squares(found, runs)
    # Least squares from where the robust starts ended: its optimum is never far from one of them.
    _, half_rss = solver.solve(found.distinct(64), squares)
    rss, df = 2 * float(half_rss.min()), squares.count - runs.free
    sigma = noise.sd(squares, rss, df)
    if outliers.any() and noise.few(runs):  # of few runs a wrong one is no evidence, however little it weighs
        runs = runs[np.flatnonzero(~outliers)]
        found = solver.best(runs, np.concatenate([found.distinct(64), starts]))
    if not fit.delta_given and noise.threshold(sigma) > fit.delta:
        fit = replace(fit, delta=noise.threshold(sigma))
        runs = replace(runs, delta=fit.delta)
        # The starts have done their work: what they ended at is all that a wider threshold may choose among.
        found = replace(solver.best(runs, found.distinct(64)), starts=found.starts, share=found.share)
    fit = replace(fit, sigma=sigma, outliers=np.flatnonzero(outliers).tolist())
    ends = found.distinct(64)
    absent = noise.no_change(squares, rss, sigma, df, fit.level)
    if absent:
        return replace(fit, status=absent), ends
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
    return _with_intervals(fit, found, runs, used.distinct, df, resamples, seed), ends


def _starts(runs: Runs, used: _Used) -> Array:
    """Of the form; a grid about them where few constants are free, so that no valley has one start alone."""
    few = solver.thinned(runs, 1000)
    starts = np.clip(runs.form.starts(used.log_x[:, few], used.y[few]), runs.low, runs.high)
    starts = np.unique(starts, axis=0)
    free = np.flatnonzero(runs.low < runs.high)
    if len(starts) >= LEAST_STARTS or len(free) > 2:
        return starts
    low, high = starts[:, free].min(0), starts[:, free].max(0)
    wide = np.maximum(high - low, 1.0)
    axes = [np.linspace(a - 2 * w, b + 2 * w, 8) for a, b, w in zip(low, high, wide, strict=True)]
    grid = np.repeat(starts[:1], 8 ** len(free), axis=0)
    grid[:, free] = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, len(free))
    return np.unique(np.clip(np.concatenate([starts, grid]), runs.low, runs.high), axis=0)


def _with_intervals(
    fit: Fit, found: Optimum, runs: Runs, distinct: int, df: int, resamples: int, seed: int
) -> Fit:  # fmt: skip
    """`fit` with its intervals, its status, and what was held out predicted."""
    form, sigma = fit.shape, fit.sigma
    grid = _grid(fit)
    band = np.log(grid[:, None]) if len(form.axes) == 1 else np.empty((0, len(form.axes)))
    held = np.array([[entry[axis] for axis in form.axes] for entry in fit.held_out])
    wheres = np.concatenate([band, np.log(held.reshape(-1, len(form.axes)))])
    some, theta = _some(runs, found.theta), found.theta
    trusted = sigma if df >= least_df(form) else None
    if distinct >= MANY and runs.count >= MANY:
        drawn, share = resample(theta, some, resamples, np.random.default_rng(seed))
        # Of runs of one row some are fewer runs, whose resamples scatter more than those of all.
        drawn = theta + sqrt(some.count / runs.count) * (drawn - theta)
        method = BOOTSTRAP.format(f"{resamples:,}")
        ends = percentiles(some, drawn, wheres, fit.level)
        fit = replace(fit, interval_method=method, resamples=resamples, degenerate_share=float(share.mean()))
        fit = replace(fit, draws=[[float(f"{value:.8g}") for value in row] for row in drawn])
    else:
        ends = profiled(theta, some, trusted, fit.level, df, wheres)
    at = form.named(found.theta[None])[0]
    ends[: len(at)] = _bounded(form, ends[: len(at)], at)
    known: list[list[float | None]] = [[None if np.isnan(end) else float(end) for end in row] for row in ends]
    count = len(form.names)
    intervals = dict(zip(form.names, known[:count], strict=True)) | {
        name: [v, v] for name, v in fit.fixed.items()
    }
    fit = replace(
        fit, intervals=intervals, profile=profile_of_e(theta, some, trusted, fit.level, df, intervals)
    )
    fit = replace(fit, status=_status(fit, found, runs, distinct, df))
    if len(band):
        lo, hi = ([row[k] for row in known[count : count + len(grid)]] for k in (0, 1))
        fit = replace(fit, band={"x": grid.tolist(), "lo": lo, "mid": fit.predict(grid).tolist(), "hi": hi})
    pairs = zip(fit.held_out, known[count + len(band) :], strict=True)
    return replace(fit, held_out=[_predicted(fit, entry, pair, df) for entry, pair in pairs])


def _some(runs: Runs, theta: Array) -> Runs:
    """Rows enough for intervals; of a long table moved so that their optimum is theta, that of all rows."""
    some = runs[solver.thinned(runs, solver.MOST)]
    if len(some.target) == len(runs.target):
        return runs
    own = solver.solve(theta[None], some)[0]
    here, there = (solver.modelled(runs.form, at, some.log_x, runs.scale)[0][0] for at in (theta[None], own))
    return replace(some, target=some.target + here - there)


def _bounded(form: Form, ends: Array, at: Array) -> Array:
    """Intervals of constants, open where a logarithmic one ends further off than any reader would believe."""
    logs = np.array([parameter.log for parameter in form.parameters])[:, None]
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        far = np.maximum(ends / at[:, None], at[:, None] / ends) > BELIEVED
    return np.where(logs & far, np.nan, ends)


def _grid(fit: Fit) -> Array:
    """x of the band, from the smallest fitted to the largest of all runs."""
    axis = fit.shape.axes[0]
    every = [point[axis] for point in (*fit.points_used, *fit.points_left_out, *fit.held_out)]
    return np.geomspace(min(point[axis] for point in fit.points_used), max(every), BAND_POINTS)


def _status(fit: Fit, found: Optimum, runs: Runs, distinct: int, df: int) -> Status:
    if df < least_df(fit.shape):
        return Status.TOO_FEW_RUNS
    if distinct <= runs.free + 1:
        return Status.UNDERDETERMINED
    if found.share < 2 / found.starts:
        return Status.NOT_CONVERGED
    ends = [pair for name, pair in fit.intervals.items() if name not in fit.fixed]
    if fit.slack is None or fit.slack > 1 or [None, None] in ends or _far_apart(found, runs):
        return Status.NOT_IDENTIFIED
    if fit.at_bound:
        return Status.BOUND_HIT
    if any(None in pair for pair in ends):
        return Status.OPEN
    return Status.OUTLIERS if len(fit.outliers) > RARE * len(fit.points_used) else Status.CONVERGED


def _far_apart(found: Optimum, runs: Runs) -> bool:
    """Whether places that fit equally well differ by a factor 2 in a constant, or in E by a tenth of y.

    E counts by what it is to y, for whether it is 1e-6 or 1e-3 of a loss of 5 is the same.
    """
    named = runs.form.named(found.ends[: found.equal])
    y = np.median(np.exp(runs.target) if runs.form.positive else np.abs(runs.target) * runs.scale)
    for name, values in zip(runs.form.names, named.T, strict=True):
        if name == "E":
            if np.ptp(values) > 0.1 * y:
                return True
        elif np.abs(values).max() > 2 * np.abs(values).min() or (values.max() > 0 > values.min()):
            return True
    return False


def _slack(condition: float, sigma: float | None, runs: Runs) -> float | None:
    """How far two parts of the law may move against each other at one standard deviation.

    Root mean square over the runs, in the unit of the residuals: 1 is a factor e of the loss, or the
    whole median of a metric. None where the parts cannot be told apart at all.
    """
    slack = condition * (sigma or 0.0) / sqrt(runs.free * runs.count)
    return slack if condition < 1e12 else None


def _predicted(fit: Fit, entry: dict[str, Any], ends: list[float | None], df: int) -> dict[str, Any]:
    """A held-out entry with its prediction."""
    mid = float(fit.predict({axis: entry[axis] for axis in fit.shape.axes}))
    measured = entry["measured"]
    interval = with_noise(fit, mid, ends, df, entry["runs"])
    error = measured and abs(mid - measured) / abs(measured)
    return entry | {"predicted": mid, "interval": interval, "error": error}


def least_df(form: Form) -> int:
    """Runs more than constants from which intervals hold what they say (docs/laws.md, coverage)."""
    return 1 if len(form.axes) == 1 else 2


def with_noise(fit: Fit, mid: float, ends: Sequence[float | None], df: int, count: int) -> list[float | None]:
    """An interval of the curve, and the noise of a mean of `count` runs in quadrature, as residuals are."""
    if not fit.sigma or df < least_df(fit.shape):
        return [None, None]
    noise = float(t_distribution.ppf(0.5 + fit.level / 2, df)) * fit.sigma / sqrt(max(1, count))
    scale = 1.0 if fit.shape.positive else float(np.median([abs(point["y"]) for point in fit.points_used]))

    def wider(end: float | None) -> float | None:
        if end is None:
            return None
        if fit.shape.positive:
            away = np.log(end / mid)
            return float(mid * np.exp(np.copysign(np.hypot(away, noise), away)))
        return float(mid + np.copysign(np.hypot(end - mid, noise * (scale or 1.0)), end - mid))

    return [wider(end) for end in ends]
