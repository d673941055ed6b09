"""What a fitted law says of runs that were not made: the value at a point, the best N and D of a budget.

Intervals are of the same kind as those of the fit: its runs are fitted again, with what is asked for as
if it had been held out. Nothing here knows of errors of the form; `warning` says how far from the runs it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recscale.errors import InputError
from recscale.laws import solver
from recscale.laws.fit import fit_law
from recscale.laws.form import Array
from recscale.laws.intervals import resample
from recscale.laws.result import Fit, Status
from recscale.laws.solver import Runs

PER_TARGET = 6.0  # training FLOPs of one target and parameter: 2 forward, 4 backward
STEPS = 2000  # of ln N between 1 and the whole budget


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


def _columns(fit: Fit) -> tuple[dict[str, Array], Array]:
    axes = fit.shape.axes
    points = fit.points_used
    return {a: np.array([p[a] for p in points]) for a in axes}, np.array([p["y"] for p in points])


def predict(fit: Fit, x: Mapping[str, float]) -> Fit:
    """The same fit with one more entry in `held_out`, the last: x, with the interval of one run there.

    Raises InputError where there is no law, or x is not given by the axes of the law.
    """
    return along(fit, {axis: [value] for axis, value in x.items()})


def along(fit: Fit, x: Mapping[str, Sequence[float]]) -> Fit:
    """`predict` at several places: one more entry in `held_out` for each, in their order."""
    if fit.parameters is None:
        raise InputError(f"{fit.law}: no law to predict with. {fit.meaning}")
    if set(x) != set(fit.shape.axes):
        raise InputError(f"{fit.law}: {fit.shape.formula.split(';')[0]} needs {', '.join(fit.shape.axes)}")
    columns, y = _columns(fit)
    runs = [point["run"] for point in fit.points_used if "run" in point]
    try:
        return fit_law(
            columns, y, law=fit.law, form=fit.shape, x_name=fit.x, level=fit.level, delta=fit.delta,
            fixed=fit.fixed, at=x, groups=runs or None, resamples=fit.resamples or 1000,
        )  # fmt: skip
    except ValueError as error:
        raise InputError(str(error)) from error


def refits(fit: Fit) -> tuple[Runs, Array]:
    """A law's runs, and its constants, a row of theta: the fit's, then of each resample, if there are any."""
    form = fit.shape
    columns, y = _columns(fit)
    runs = Runs.of(form, form.logs(columns), y, fit.delta, fit.fixed)
    theta = form.theta(fit.parameters or {})
    if not fit.resamples:
        return runs, theta
    ids = [point.get("run", place) for place, point in enumerate(fit.points_used)]
    groups = np.unique(ids, return_inverse=True)[1]
    others, _ = resample(theta[0], runs, groups, fit.resamples, np.random.default_rng(0))
    return runs, np.concatenate([theta, others])


def best_of(fit: Fit, c: float, per_target: float = PER_TARGET, unique: float | None = None) -> Best:
    """The best N and D for c FLOPs by a law of N and D (and unique data U, if its form has it).

    Raises InputError for a law without N and D, and where the best is at an end: all on N or all on D.
    """
    form = fit.shape
    if fit.parameters is None or not {"N", "D"} <= set(form.axes):
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


def warning(fit: Fit, x: Mapping[str, float]) -> str:
    """One line on why not to trust the forecast at x, empty where there is no reason."""
    columns, _ = _columns(fit)
    far = {a: max(x[a] / columns[a].max(), columns[a].min() / x[a]) for a in fit.shape.axes if a in x}
    axis = max(far, key=lambda a: far[a])
    words = []
    if far[axis] > 1:
        name = fit.x if axis == "x" else axis
        end = "above" if x[axis] > columns[axis].max() else "below"
        words.append(
            f"extrapolates: {name} {x[axis]:.3g} is {far[axis]:.3g} times {end} the fitted runs; "
            "the interval is for noise, not for another form"
        )
    if fit.status is not Status.CONVERGED:
        words.append(f"the fit is {fit.status}: {fit.meaning}")
    return "; ".join(words)


def text(fit: Fit, x: Mapping[str, float]) -> str:
    """What a terminal shows of the value at x."""
    entry = predict(fit, x).held_out[-1]
    at = ", ".join(f"{fit.x if axis == 'x' else axis} {value:.4g}" for axis, value in x.items())
    ends = ["not bounded" if end is None else f"{end:.4g}" for end in entry["interval"]]
    line = (
        f"{fit.law}: at {at}: {entry['predicted']:.4g} [{', '.join(ends)}] ({100 * fit.level:g} %, one run)"
    )
    caution = warning(fit, x)
    return f"{line}\nwarning: {caution}" if caution else line


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
