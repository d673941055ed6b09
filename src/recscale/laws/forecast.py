"""What a fitted law says of runs that were not made: the value at a point, the best N and D of a budget.

The law of all runs answers: once the held-out error has been reported, what was held out is fitted too.
Nothing is fitted here; what an interval needs is kept with the law. Nothing here knows of errors of the form:
`warning` says how far from the runs a place is, and beyond `FARTHEST` there is no forecast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recscale.errors import InputError
from recscale.laws import solver
from recscale.laws.fit import least_df, with_noise
from recscale.laws.form import Array
from recscale.laws.intervals import curve_ends, curve_percentiles
from recscale.laws.noise import few
from recscale.laws.result import Fit, Status
from recscale.laws.solver import Runs

PER_TARGET = 6.0  # training FLOPs of one target and parameter: 2 forward, 4 backward
STEPS = 2000  # of ln N between 1 and the whole budget
# Times beyond the runs up to which there is a forecast: LSRM (arXiv 2311.11351) held out a size 88 times
# its largest fitted one, and nobody has shown that a law of recommenders holds further.
FARTHEST = 100.0


@dataclass(frozen=True)
class Place:
    """What a law says at x: the value, and the interval of one run there (an end None where it is open)."""

    x: dict[str, float]
    value: float
    interval: list[float | None]


@dataclass(frozen=True)
class Best:
    """The N and D of least loss for a budget of C FLOPs, C = per_target * N * D.

    n, d: with `level` intervals of a bootstrap of the runs (None where it has none). exponent: of
    N in C nearby, with its interval. value: y there.
    """

    c: float
    n: float
    d: float
    n_interval: tuple[float, float] | None
    d_interval: tuple[float, float] | None
    exponent: float
    exponent_interval: tuple[float, float] | None
    value: float


def on_all(fit: Fit) -> Fit:
    """The same law fitted on all runs, held-out ones among them. Raises InputError where it is no law."""
    final = fit.final or fit
    if final.parameters is None:
        raise InputError(f"{fit.law}: no law to predict with. {final.meaning}")
    return final


def _columns(fit: Fit) -> tuple[dict[str, Array], Array]:
    points = fit.points_used
    return {a: np.array([p[a] for p in points]) for a in fit.shape.axes}, np.array([p["y"] for p in points])


def _runs(fit: Fit) -> Runs:
    columns, y = _columns(fit)
    ids = np.array([point.get("run", place) for place, point in enumerate(fit.points_used)])
    return Runs.of(fit.shape, fit.shape.logs(columns), y, fit.delta, fit.fixed, ids)


def predict(fit: Fit, x: Mapping[str, float]) -> Place:
    """What the law of all runs says at x. Raises InputError where there is none, or x is not of its axes."""
    return along(fit, {axis: [value] for axis, value in x.items()})[0]


def along(fit: Fit, x: Mapping[str, Sequence[float]]) -> list[Place]:
    """`predict` at several places."""
    law = on_all(fit)
    if set(x) != set(law.shape.axes):
        raise InputError(f"{law.law}: {law.shape.formula.split(';')[0]} needs {', '.join(law.shape.axes)}")
    every, wheres = _runs(law), law.shape.logs({axis: np.array(values) for axis, values in x.items()}).T
    kept = np.ones(len(law.points_used), dtype=bool)
    kept[law.outliers] = False
    df = every[np.flatnonzero(kept)].count - every.free
    runs = every[np.flatnonzero(kept)] if few(every) else every
    if law.draws is not None:
        ends = curve_percentiles(runs, np.array(law.draws), wheres, law.level)
    else:
        theta = law.shape.theta(law.parameters or {})[0]
        ends = curve_ends(
            theta, runs, law.sigma if df >= least_df(law.shape) else None, law.level, df, wheres
        )
    places = []
    for k in range(len(wheres)):
        at = {axis: float(values[k]) for axis, values in x.items()}
        mid, pair = float(law.predict(at)), [None if np.isnan(end) else float(end) for end in ends[k]]
        places.append(Place(at, mid, with_noise(law, mid, pair, df, 1)))
    return places


def refits(fit: Fit) -> tuple[Runs, Array]:
    """A law's runs, and its constants, a row of theta: the fit's, then of each resample, if there are any."""
    law = on_all(fit)
    theta = law.shape.theta(law.parameters or {})
    return _runs(law), theta if law.draws is None else np.concatenate([theta, np.array(law.draws)])


def best_of(fit: Fit, c: float, per_target: float = PER_TARGET, unique: float | None = None) -> Best:
    """The best N and D for c FLOPs by a law of N and D (and unique data U, if its form has it).

    Raises InputError for a law without N and D, and where the best is at an end: all on N or all on D.
    """
    form = fit.shape
    if not {"N", "D"} <= set(form.axes):
        raise InputError(f"{fit.law}: a budget needs a fitted law of N and D, as hoffmann")
    if "U" in form.axes and unique is None:
        raise InputError(f"{fit.law}: {form.name} needs the unique data, --U")
    runs, theta = refits(fit)
    at, value = least(runs, theta, c, per_target, unique)
    up, _ = least(runs, theta, 2 * c, per_target, unique)
    if not np.isfinite(at[0]):
        raise InputError(f"{fit.law}: no best N inside the budget of {c:.3g} FLOPs: it is all N or all D")
    slope = (up - at) / np.log(2)
    log_d = np.log(c / per_target) - at
    pair = [None if len(theta) == 1 else _interval(part[1:], fit.level) for part in (at, log_d, slope)]
    n_ends, d_ends = (None if ends is None else (np.exp(ends[0]), np.exp(ends[1])) for ends in pair[:2])
    return Best(
        c, float(np.exp(at[0])), float(np.exp(log_d[0])), n_ends, d_ends, float(slope[0]), pair[2], value
    )


def _interval(values: Array, level: float) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def least(
    runs: Runs, theta: Array, c: float, per_target: float, unique: float | None, growth: float = 1.0
) -> tuple[Array, float]:
    """ln N of the best value of each row of theta, nan where it is at an end; the first row's value.

    The budget: c = per_target * N^growth * D.
    """
    log_n = np.linspace(0.0, np.log(c / per_target) / growth, STEPS)
    columns = {"N": log_n, "D": np.log(c / per_target) - growth * log_n}
    if unique is not None:
        columns["U"] = np.full(STEPS, np.log(unique))
    log_x = np.stack([columns[axis] for axis in runs.form.axes])
    best, value = np.full(len(theta), np.nan), np.nan
    for row in range(len(theta)):
        curve = solver.modelled(runs.form, theta[row : row + 1], log_x, runs.scale)[0][0]
        curve = -curve if runs.form.rises else curve
        k = int(curve.argmin())
        if 0 < k < STEPS - 1:
            left, middle, right = curve[k - 1 : k + 2]
            bend = left - 2 * middle + right
            best[row] = log_n[k] + (0.5 * (left - right) / bend if bend > 0 else 0) * (log_n[1] - log_n[0])
        if row == 0:
            value = float(np.exp(curve[k]) if runs.form.positive else abs(curve[k]) * runs.scale)
    return best, value


def _furthest(fit: Fit, x: Mapping[str, float]) -> tuple[float, str, str, float]:
    """How far x is from all runs of the law: the factor, its axis, which way, and the run at that end."""
    columns, _ = _columns(fit.final or fit)
    low, high = ({a: float(end(columns[a])) for a in fit.shape.axes if a in x} for end in (np.min, np.max))
    far = {a: max(x[a] / high[a], low[a] / x[a]) for a in low}
    if not far:
        return 1.0, "", "above", 1.0
    axis = max(far, key=lambda a: far[a])
    above = x[axis] > high[axis]
    name = fit.x if axis == "x" else axis
    return far[axis], name, "above" if above else "below", high[axis] if above else low[axis]


def refusal(fit: Fit, x: Mapping[str, float]) -> str:
    """Why there is no forecast at x, and what to measure for one; empty where there is one."""
    far, name, end, last = _furthest(fit, x)
    if far <= FARTHEST:
        return ""
    needed = last * far / FARTHEST if end == "above" else last / far * FARTHEST
    return (
        f"no forecast: {name} is {far:,.0f} times {end} the runs, {FARTHEST:g} times is the most; measure a "
        f"run at {name} {needed:.3g} and fit again"
    )


def warning(fit: Fit, x: Mapping[str, float]) -> str:
    """One line on why not to trust the forecast at x, empty where there is no reason."""
    words, beyond = [], [_furthest(fit, {axis: value}) for axis, value in x.items()]
    outside = [
        f"{name} {last * far if end == 'above' else last / far:.3g} is {far:.3g} times {end} the runs"
        for far, name, end, last in beyond
        if far > 1
    ]
    if outside:
        words.append(f"extrapolates: {', '.join(outside)}; the interval is for noise, not for another form")
    law = fit.final or fit
    if law.status is not Status.CONVERGED:
        words.append(f"the fit is {law.status}: {law.meaning}")
    return "; ".join(words)


def evidence(fit: Fit) -> str:
    """Which runs the answering law is of, and how well the test went that it had before."""
    law = on_all(fit)
    runs = len({point.get("run", place) for place, point in enumerate(law.points_used)})
    if fit.final is None:
        return f"fitted on {runs} runs, none of them held out: the form was not tested"
    errors = [entry["error"] for entry in fit.held_out if entry["error"] is not None]
    return (
        f"fitted again on all {runs} runs, what had been held out among them (predicted without it: "
        f"{100 * max(errors):.2g} % off at most)"
        if errors
        else f"fitted again on all {runs} runs, what had been held out among them"
    )


def text(fit: Fit, x: Mapping[str, float]) -> str:
    """What a terminal shows of the value at x. Raises InputError where it is too far from the runs."""
    reason = refusal(fit, x)
    if reason:
        raise InputError(f"{fit.law}: {reason}")
    found = predict(fit, x)
    at = ", ".join(f"{fit.x if axis == 'x' else axis} {value:.4g}" for axis, value in x.items())
    ends = ["not bounded" if end is None else f"{end:.4g}" for end in found.interval]
    unit = f" {fit.unit}" if fit.shape.positive else ""
    lines = [
        f"{fit.law}: at {at}: {found.value:.4g}{unit} [{', '.join(ends)}] ({100 * fit.level:g} %, one run)",
        evidence(fit),
    ]
    caution = warning(fit, x)
    return "\n".join([*lines, *([f"warning: {caution}"] if caution else [])])


def best_text(fit: Fit, best: Best, unique: float | None) -> str:
    """What a terminal shows of a budget: N, D and the value there."""

    def within(ends: tuple[float, float] | None) -> str:
        return "" if ends is None else f" [{ends[0]:.3g}, {ends[1]:.3g}]"

    x = {"N": best.n, "D": best.d} | ({} if unique is None else {"U": unique})
    lines = [
        f"{fit.law}: for {best.c:.3g} FLOPs the best N is {best.n:.3g}{within(best.n_interval)}, D "
        f"{best.d:.3g}{within(best.d_interval)}: {best.d / best.n:.3g} a parameter",
        f"N grows as C^{best.exponent:.3f}{within(best.exponent_interval)}",
    ]
    return "\n".join([*lines, text(fit, x)])
