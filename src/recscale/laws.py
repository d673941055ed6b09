"""Fit a scaling law to runs and say how far it can be trusted.

The form is the saturating power law of one axis, L(x) = E + (X0/x)^alpha (LSRM, arXiv 2311.11351,
sec. IV, there with x = N). `fit_law` minimises the summed Huber loss of log residuals (Hoffmann et
al., arXiv 2203.15556, approach 3) from a grid of starts, takes every interval from the profile of
that same objective, predicts the held-out sizes, and returns a `Fit`. Runs that do not support a
law give a `Fit` whose status says so; only malformed arguments raise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from math import exp, floor, hypot, inf, isfinite, log, log10, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import f as f_distribution
from scipy.stats import norm
from scipy.stats import t as t_distribution

Array = NDArray[np.float64]

ALPHA_RANGE = (1e-3, 5.0)
# Losses are float32 at best, so smaller noise of the log loss is not believed.
NOISE_FLOOR = 1e-7
START_ALPHAS = np.geomspace(0.03, 3.0, 10)
START_SHARES = (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.995)  # of E in the lowest loss
STARTS = len(START_ALPHAS) * len(START_SHARES)
BAND_POINTS = 33
INTERVAL_METHOD = (
    "profile of the Huber objective, F-calibrated; "
    "held out: in quadrature with the noise of the measured mean, t * sigma / sqrt(runs)"
)


class Status(StrEnum):
    """What came of a fit; `MEANING` has one sentence for each."""

    CONVERGED = "converged"
    BOUND_HIT = "bound_hit"
    UNDERDETERMINED = "underdetermined"
    NOT_CONVERGED = "not_converged"
    FLAT = "flat"
    NOT_DECREASING = "not_decreasing"
    REFUSED = "refused"


MEANING = {
    Status.CONVERGED: "Several starts agree on one optimum inside the bounds: read the constants "
    "with their intervals.",
    Status.BOUND_HIT: "The best E is 0 or alpha is at its limit: the runs do not separate the "
    "constants, so trust the curve only near the fitted sizes.",
    Status.UNDERDETERMINED: "At most one distinct size more than constants: almost any runs would "
    "fit this well, so only the intervals and the held-out error count.",
    Status.NOT_CONVERGED: "No two starts agree on the optimum: do not use these constants.",
    Status.FLAT: "The loss does not fall with size by more than its noise: there is no law to fit.",
    Status.NOT_DECREASING: "The loss rises with size: there is no law to fit; look for overfitting "
    "or bad settings.",
    Status.REFUSED: "Fewer distinct usable sizes than constants: nothing was fitted.",
}


@dataclass(frozen=True)
class Form:
    """A law's shape: `predict(x, parameters)` gives the loss in nats at x, parameters by name."""

    name: str
    formula: str
    parameters: tuple[str, ...]
    predict: Callable[[ArrayLike, Mapping[str, float]], Array]


def _saturating_power(x: ArrayLike, parameters: Mapping[str, float]) -> Array:
    ratio = parameters["X0"] / np.asarray(x, dtype=np.float64)
    return np.asarray(parameters["E"] + ratio ** parameters["alpha"])


SATURATING_POWER = Form(
    "saturating_power", "L(x) = E + (X0/x)^alpha", ("E", "X0", "alpha"), _saturating_power
)
FORMS = {SATURATING_POWER.name: SATURATING_POWER}


@dataclass(frozen=True)
class Fit:
    """A fitted law with its evidence, in the plain types that its JSON has.

    law, x: the names of the law and of its axis. form: the name of its `Form`.
    delta: the Huber threshold on log residuals. level: of every interval.
    parameters: by name, E in nats, X0 in units of x; None where there is no law. Where the status
        is not `converged` they are for drawing only.
    intervals: name -> [lo, hi]; an end is None where the parameter meets its bound first.
    sigma: noise sd of the log loss of one run; None where the runs cannot show it.
    share_of_starts: share of the starting points that ended at the optimum.
    points_used: {x, y} a run. points_left_out: {x, y, reason}, y None where not finite.
    held_out: one entry a size: {x, runs, measured, predicted, interval, error, extrapolation,
        baseline_error}. `measured` is the mean of the seeds and `interval` is for such a mean: the
        curve's interval and the noise of the mean in quadrature, on the log scale. `error` is
        |predicted - measured| / measured, `extrapolation` x over the largest fitted x,
        `baseline_error` the error of predicting the loss of the largest fitted size.
    band: {x, lo, mid, hi}: the curve and, point by point, the profile interval of its value.
    """

    law: str
    form: str
    x: str
    level: float
    delta: float
    interval_method: str
    intervals: dict[str, list[float | None]]
    points_used: list[dict[str, float]]
    points_left_out: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    status: Status = Status.REFUSED
    parameters: dict[str, float] | None = None
    sigma: float | None = None
    share_of_starts: float | None = None
    band: dict[str, list[float | None]] | None = None

    @property
    def meaning(self) -> str:
        """One sentence on what a reader should think of the fit."""
        return MEANING[self.status]

    def predict(self, x: ArrayLike) -> Array:
        """Loss in nats at x. Raises ValueError where there is no law."""
        if self.parameters is None:
            raise ValueError(f"{self.law}: no law to predict with. {self.meaning}")
        return FORMS[self.form].predict(x, self.parameters)

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON types, without NaN, plus the `formula` and the `meaning`."""
        added = {"formula": FORMS[self.form].formula, "meaning": self.meaning}
        return asdict(self) | {"status": str(self.status)} | added

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Fit:
        """The `Fit` that `to_json` wrote. Raises KeyError where a field is missing."""
        own = {field.name: plain[field.name] for field in fields(cls)}
        return cls(**own | {"status": Status(own["status"])})


def fit_law(
    x: ArrayLike,
    y: ArrayLike,
    *,
    law: str,
    x_name: str,
    hold_out: int = 0,
    level: float = 0.9,
    delta: float = 1e-3,
) -> Fit:
    """Fit L(x) = E + (X0/x)^alpha to runs of size x (params, targets or FLOPs) and loss y (nats).

    One entry a run; seeds share an x. The `hold_out` largest distinct x, diverged runs counted, are
    predicted instead of fitted. Raises ValueError for arguments no set of runs could have given.

    Coverage of the 90 % intervals, measured on 300 draws a case (E 5, alpha 0.3, X0 900 and 5000,
    normal noise of ln y 0.002 and 0.005, delta 1e-3; two seeds at the smallest size), for E, X0 and
    alpha: 94-96 % with five sizes from 768 to 98304, 91-93 % with seven. For X0 900, the band is at
    92-96 % and 89-93 %, held-out runs at 8 and 64 times the largest size at 94-95 % and 89-93 %.
    That is for noise alone: no interval covers a law of another form, the held-out error does.
    """
    xs, ys = (np.atleast_1d(np.asarray(values, dtype=np.float64)) for values in (x, y))
    if xs.ndim != 1 or xs.shape != ys.shape:
        raise ValueError(f"{law}: x and y need one entry a run each, got {xs.shape} and {ys.shape}")
    if not (np.isfinite(xs) & (xs > 0)).all():
        raise ValueError(f"{law}: every {x_name} must be positive and finite")
    if hold_out < 0 or not 0 < level < 1 or not delta > 0:
        raise ValueError(f"{law}: need hold_out >= 0, 0 < level < 1, delta > 0")
    sizes = np.unique(xs)
    good = np.isfinite(ys) & (ys > 0)
    # By x alone: if a diverged largest size handed its place on, the losses would choose the test.
    held_sizes = sizes[max(0, len(sizes) - hold_out) :]
    used = good & ~np.isin(xs, held_sizes)
    fit = Fit(
        law=law,
        form=SATURATING_POWER.name,
        x=x_name,
        level=level,
        delta=delta,
        interval_method=INTERVAL_METHOD,
        intervals={name: [None, None] for name in SATURATING_POWER.parameters},
        points_used=[{"x": a, "y": b} for a, b in _pairs(xs, ys, used)],
        points_left_out=[
            {
                "x": a,
                "y": b if isfinite(b) else None,
                "reason": f"loss is {b:g}, not {'positive' if isfinite(b) else 'finite'}",
            }
            for a, b in _pairs(xs, ys, ~good)
        ],
        held_out=[_measured(size, ys[good & (xs == size)], xs[used], ys[used]) for size in held_sizes],
    )
    if len(np.unique(xs[used])) < len(SATURATING_POWER.parameters):
        return fit
    return _fitted(fit, xs[used], ys[used], sizes)


def _pairs(x: Array, y: Array, which: NDArray[np.bool_]) -> list[tuple[float, float]]:
    return list(zip(x[which].tolist(), y[which].tolist(), strict=True))


def _measured(x: float, y: Array, fitted_x: Array, fitted_y: Array) -> dict[str, Any]:
    """A held-out entry before its prediction."""
    measured = float(y.mean()) if len(y) else None
    entry: dict[str, Any] = {"x": float(x), "runs": len(y), "measured": measured}
    entry |= dict.fromkeys(("predicted", "error", "extrapolation", "baseline_error"))
    entry["interval"] = [None, None]
    if len(fitted_x):
        last = float(fitted_y[fitted_x == fitted_x.max()].mean())
        entry["extrapolation"] = float(x / fitted_x.max())
        entry["baseline_error"] = measured and abs(last - measured) / measured
    return entry


def _fitted(fit: Fit, x: Array, y: Array, sizes: Array) -> Fit:
    """`fit` with everything that takes a solver."""
    log_x = np.log(x)
    centre = float(log_x.mean())
    squares = _Runs(log_x - centre, np.log(y), inf)
    _, half_rss, _ = _best(squares)
    df = len(x) - len(SATURATING_POWER.parameters)
    sigma = _noise(squares, 2 * half_rss, df)
    fit = replace(fit, sigma=sigma)
    absent = _no_fall(squares, 2 * half_rss, sigma, df, fit.level)
    if absent:
        return replace(fit, status=absent)
    runs = replace(squares, delta=fit.delta)
    theta, _, share = _best(runs)
    e, t, alpha = (float(part) for part in theta)
    parameters = {"E": e, "X0": exp(t / alpha + centre), "alpha": alpha}
    grid = np.geomspace(x.min(), sizes[-1], BAND_POINTS)
    wheres = np.log(np.r_[grid, [h["x"] for h in fit.held_out]]) - centre
    targets = [(kind, 0.0) for kind in (PIN_E, PIN_X0, PIN_ALPHA)] + [(PIN_VALUE, w) for w in wheres]
    ends = np.full((len(targets), 2), np.nan)
    if sigma is not None:
        ends = _ends(theta, runs, _rise(sigma, fit.delta, fit.level, df), targets)
    ends[1] += centre
    ends[1:] = np.exp(ends[1:])
    known = [[None if np.isnan(end) else float(end) for end in pair] for pair in ends]
    band_ends = known[3 : 3 + BAND_POINTS]
    fit = replace(
        fit,
        status=_status(theta, share, len(np.unique(x))),
        parameters=parameters,
        intervals=dict(zip(SATURATING_POWER.parameters, known[:3], strict=True)),
        share_of_starts=share,
        band={
            "x": grid.tolist(),
            "lo": [lo for lo, _ in band_ends],
            "mid": SATURATING_POWER.predict(grid, parameters).tolist(),
            "hi": [hi for _, hi in band_ends],
        },
    )
    quantile = float(t_distribution.ppf(0.5 + fit.level / 2, df)) if sigma else 0.0
    held = zip(fit.held_out, known[3 + BAND_POINTS :], strict=True)
    return replace(fit, held_out=[_predicted(fit, entry, pair, quantile) for entry, pair in held])


def _no_fall(runs: _Runs, rss: float, sigma: float | None, df: int, level: float) -> Status | None:
    """FLAT or NOT_DECREASING where an F test finds the law no better than a constant."""
    spread = runs.log_y - runs.log_y.mean()
    slope = float((runs.u * spread).sum() / (runs.u**2).sum())
    gain = (float((spread**2).sum()) - rss) / 2
    if sigma is None:
        if slope < 0 and gain > NOISE_FLOOR**2:
            return None
    elif gain > sigma**2 * f_distribution.ppf(level, 2, df):
        return None
    left = float(((spread - slope * runs.u) ** 2).sum())
    error = max(sqrt(left / (len(spread) - 2)), NOISE_FLOOR) / sqrt((runs.u**2).sum())
    rises = slope > error * t_distribution.ppf(0.5 + level / 2, len(spread) - 2)
    return Status.NOT_DECREASING if rises else Status.FLAT


def _status(theta: Array, share: float, distinct: int) -> Status:
    if distinct <= len(SATURATING_POWER.parameters) + 1:
        return Status.UNDERDETERMINED
    if share < 2 / STARTS:
        return Status.NOT_CONVERGED
    at_bound = theta[0] == 0 or theta[2] in ALPHA_RANGE
    return Status.BOUND_HIT if at_bound else Status.CONVERGED


def _predicted(fit: Fit, entry: dict[str, Any], ends: list[float | None], quantile: float) -> dict[str, Any]:
    """A held-out entry with its prediction."""
    mid = float(fit.predict(entry["x"]))
    measured, interval = entry["measured"], entry["interval"]
    if fit.sigma:
        noise = quantile * fit.sigma / sqrt(max(1, entry["runs"]))
        interval = [
            end and mid * exp(sign * hypot(log(end / mid), noise))
            for sign, end in zip((-1, 1), ends, strict=True)
        ]
    error = measured and abs(mid - measured) / measured
    return entry | {"predicted": mid, "interval": interval, "error": error}


def summary(fit: Fit) -> str:
    """One line: the law, its intervals, the status and the held-out error.

    A constant whose interval is open prints as its name, and no number has a digit that its
    interval cannot support. Where there is no law, the line says why.
    """
    title = f"{fit.law}: "
    if fit.parameters is None:
        return f"{title}{fit.status}. {fit.meaning}"
    point, listed = {}, []
    for name, value in fit.parameters.items():
        ends = fit.intervals[name]
        place = _place(value, *ends)
        shown = ["not bounded" if end is None else _number(end, place) for end in ends]
        within = "not bounded" if ends == [None, None] else f"[{', '.join(shown)}]"
        known = fit.status is not Status.UNDERDETERMINED and None not in ends
        point[name] = _number(value, place) if known else name
        if not known:
            listed.append(f"{name} {within}")
        elif name == "alpha":
            listed.append(f"{name} {point[name]} {within}")
    law = f"L = {point['E']} + ({point['X0']}/{fit.x})^{point['alpha']}"
    line = f"{title}{law}, {', '.join(listed)} ({100 * fit.level:g} %, profile), {fit.status}"
    errors = [entry["error"] for entry in fit.held_out if entry["error"] is not None]
    if errors:
        sizes = "1 size" if len(errors) == 1 else f"{len(errors)} sizes"
        line += f"; held out {sizes}, largest error {100 * max(errors):.2g} %"
    return line


def _place(value: float, lo: float | None, hi: float | None) -> int:
    """Power of ten of the last digit that an interval supports.

    Two digits of the half-width where it begins with 1 or 2, else one, as for printed errors; never
    more than four digits of the value.
    """
    half = (value if hi is None else hi) - (value if lo is None else lo)
    half /= 2
    finest = floor(log10(value)) - 3 if value > 0 else -4
    if half <= 0:
        return finest
    place = floor(log10(half))
    return max(place - (half < 3 * 10.0**place), finest)


def _number(value: float, place: int) -> str:
    """value to 10^place, but never to nothing: at least one digit."""
    if value == 0:
        return "0"
    if place <= 0 and value >= 1e-3:
        return f"{value:.{-place}f}"
    mantissa, power = f"{value:.{max(0, floor(log10(value)) - place)}e}".split("e")
    return f"{mantissa}e{int(power)}" if int(power) else mantissa


# --- the objective and its solver, over a batch of problems at once ---

# What a problem holds fixed. X0 is the size where the curve is E + 1, VALUE its height at one size.
FREE, PIN_E, PIN_X0, PIN_ALPHA, PIN_VALUE = range(5)


@dataclass(frozen=True)
class _Runs:
    u: Array  # ln x less its mean: centring keeps the height of the curve and alpha apart
    log_y: Array
    delta: float


@dataclass(frozen=True)
class _Pins:
    kind: NDArray[np.int64]
    at: Array  # the fixed E, centred ln X0, ln alpha or ln value
    where: Array  # centred ln x of a fixed value

    def __getitem__(self, index: NDArray[Any]) -> _Pins:
        return _Pins(self.kind[index], self.at[index], self.where[index])


def _curve(theta: Array, u: Array) -> tuple[Array, Array]:
    """ln L and its slopes by theta = (E, t, alpha), L = E + exp(t - alpha u); one row a problem."""
    term = theta[:, 1:2] - theta[:, 2:3] * u
    with np.errstate(divide="ignore"):  # E = 0 is legal: ln E = -inf adds nothing
        log_l = np.logaddexp(np.log(theta[:, :1]), term)
    share = np.exp(term - log_l)
    return log_l, np.stack([np.exp(-log_l), share, -u * share], axis=-1)


def _objective(theta: Array, runs: _Runs) -> Array:
    size = np.abs(_curve(theta, runs.u)[0] - runs.log_y)
    inside = np.minimum(size, runs.delta)
    return np.asarray((inside * (size - 0.5 * inside)).sum(1))


def _gradient(theta: Array, runs: _Runs, turn: Array) -> tuple[Array, Array]:
    """Gradient in the directions `turn`, and the Hessian of the objective's quadratic majorant."""
    log_l, jac = _curve(theta, runs.u)
    residual = log_l - runs.log_y
    weight = np.minimum(1.0, runs.delta / np.maximum(np.abs(residual), 1e-300))[..., None]
    jac = jac @ turn
    gradient = (jac * weight * residual[..., None]).sum(1)
    return gradient, np.swapaxes(jac * weight, 1, 2) @ jac


def _pin(theta: Array, pins: _Pins) -> tuple[Array, Array]:
    """theta moved onto what is held fixed, and the directions in which it may still move."""
    theta, turn = theta.copy(), np.tile(np.eye(3), (len(theta), 1, 1))
    for kind, column in ((PIN_E, 0), (PIN_X0, 1), (PIN_VALUE, 1), (PIN_ALPHA, 2)):
        turn[pins.kind == kind, :, column] = 0
    m = pins.kind == PIN_E
    theta[m, 0] = pins.at[m]
    m = pins.kind == PIN_ALPHA
    theta[m, 2] = np.exp(pins.at[m])
    m = pins.kind == PIN_X0
    theta[m, 1], turn[m, 1, 2] = theta[m, 2] * pins.at[m], pins.at[m]
    m = pins.kind == PIN_VALUE
    value = np.exp(pins.at[m])
    theta[m, 0] = np.minimum(theta[m, 0], value * (1 - 1e-9))
    theta[m, 1] = np.log(value - theta[m, 0]) + theta[m, 2] * pins.where[m]
    turn[m, 1, 0], turn[m, 1, 2] = -1 / (value - theta[m, 0]), pins.where[m]
    return theta, turn


def _moved(theta: Array, step: NDArray[np.floating[Any]], pins: _Pins) -> Array:
    """theta after a step, with E of a pinned value moved along ln(value - E).

    On that scale the path that keeps the curve on the runs is straight. In E itself it bends, and
    for a value far beyond the runs the solver would stop halfway and the interval come out short.
    """
    new = theta + step
    m = pins.kind == PIN_VALUE
    gap = np.exp(pins.at[m]) - theta[m, 0]
    new[m, 0] = theta[m, 0] - gap * np.expm1(np.clip(-step[m, 0] / gap, -5.0, 5.0))
    return new


def _solve(theta: Array, pins: _Pins, runs: _Runs, tolerance: float, steps: int) -> tuple[Array, Array]:
    """Levenberg-Marquardt on every row of theta: where each ends, and its objective there.

    A row stops when a full Newton step promises less than `tolerance` of its objective.
    """
    low, high = np.array([[0.0, -300.0, ALPHA_RANGE[0]], [inf, 300.0, ALPHA_RANGE[1]]])
    theta, _ = _pin(np.clip(theta, low, high), pins)
    value, damping, todo = _objective(theta, runs), np.full(len(theta), 1e-3), np.arange(len(theta))
    for _ in range(steps):
        if not todo.size:
            break
        now, turn = _pin(theta[todo], pins[todo])
        gradient, hessian = _gradient(now, runs, turn)
        stuck = ((now <= low) & (gradient > 0)) | ((now >= high) & (gradient < 0))
        gradient = np.where(stuck, 0.0, gradient)
        hessian = np.where(stuck[:, :, None] | stuck[:, None, :], 0.0, hessian)
        diagonal = np.einsum("bii->bi", hessian)
        scale = np.where(diagonal > 0, diagonal, 1.0)[:, :, None] * np.eye(3)
        newton = np.linalg.solve(hessian + 1e-10 * scale, -gradient[..., None])[..., 0]
        step = np.linalg.solve(hessian + damping[todo, None, None] * scale, -gradient[..., None])
        new, _ = _pin(np.clip(_moved(now, step[..., 0], pins[todo]), low, high), pins[todo])
        new_value = _objective(new, runs)
        better = new_value < value[todo]
        enough = tolerance * value[todo] + 1e-24
        done = -(gradient * newton).sum(1) <= enough
        done |= better & (value[todo] - new_value <= enough) & (damping[todo] <= 1)
        theta[todo[better]], value[todo[better]] = new[better], new_value[better]
        damping[todo] = np.maximum(damping[todo] * np.where(better, 0.2, 5.0), 1e-12)
        todo = todo[~done & (damping[todo] < 1e14)]
    return theta, value


def _best(runs: _Runs) -> tuple[Array, float, float]:
    """The best theta over the grid of starts, its objective, the share of starts that reach it."""
    alpha, share = (g.ravel() for g in np.meshgrid(START_ALPHAS, START_SHARES))
    e = share * np.exp(runs.log_y.min())
    t = np.median(np.log(np.exp(runs.log_y) - e[:, None]) + alpha[:, None] * runs.u, axis=1)
    free = _Pins(np.full(len(e), FREE), np.zeros(len(e)), np.zeros(len(e)))
    theta, value = _solve(np.stack([e, t, alpha], axis=1), free, runs, 1e-12, 300)
    k = int(value.argmin())
    # On an exact curve 0.1 % of the objective is rounding: a millionth of each loss is near enough.
    near = value <= value[k] * 1.001 + 0.5e-12 * len(runs.u)
    return theta[k], float(value[k]), float(near.mean())


# --- intervals ---


def _noise(runs: _Runs, rss: float, df: int) -> float | None:
    """sd of the log loss of one run: of the residuals, never below that of seeds at one size."""
    if df < 1:
        return None
    _, group = np.unique(runs.u, return_inverse=True)
    means = np.bincount(group, runs.log_y) / np.bincount(group)
    extra = len(group) - len(means)
    pooled = ((runs.log_y - means[group]) ** 2).sum() / extra if extra else 0.0
    return max(sqrt(rss / df), sqrt(pooled), NOISE_FLOOR)


def _rise(sigma: float, delta: float, level: float, df: int) -> float:
    """How far the objective may rise above its minimum inside an interval.

    Schrader and Hettmansperger (1980): 2 * rise ~ E[psi^2] / E[psi'] * F(1, df), normal noise.
    """
    z = min(delta / sigma, 20.0)  # beyond, psi is linear for all noise, and inf * 0 is no number
    slope = 2 * norm.cdf(z) - 1
    square = sigma**2 * (slope - 2 * z * norm.pdf(z)) + 2 * (z * sigma) ** 2 * norm.sf(z)
    return float(0.5 * square / slope * f_distribution.ppf(level, 1, df))


def _ends(best: Array, runs: _Runs, rise: float, targets: Sequence[tuple[int, float]]) -> Array:
    """Both profile ends of every target (kind, where); nan where its quantity meets a limit first.

    Walks outwards from the estimate, then closes in by secants of the root of the rise, which is
    near linear; every step of every end is one row of one batch.
    """
    y, (e, t, alpha) = np.exp(runs.log_y), best
    about = {  # estimate, lower and upper limit
        PIN_E: (e, 0.0, y.max()),
        PIN_X0: (t / alpha, runs.u.min() - 60, runs.u.max() + 60),
        PIN_ALPHA: (log(alpha), log(ALPHA_RANGE[0]), log(ALPHA_RANGE[1])),
    }
    wheres = np.repeat([where for _, where in targets], 2)
    kinds = np.repeat([kind for kind, _ in targets], 2)
    heights = _curve(best[None], wheres)[0][0]
    start, low, high = np.array(
        [about.get(k, (h, log(y.min()) - 7, log(y.max()) + 7)) for k, h in zip(kinds, heights, strict=True)]
    ).T
    side = np.tile([-1.0, 1.0], len(targets))
    base = float(_objective(best[None], runs)[0])
    inner, outer = start.copy(), np.full(len(start), np.nan)
    z_in, z_out, theta_in = 0 * start, outer.copy(), np.tile(best, (len(start), 1))
    todo, met = np.arange(len(start)), np.zeros(len(start), dtype=bool)
    for turn in range(60):
        a, b, za, zb = inner[todo], outer[todo], z_in[todo], z_out[todo]
        further = (a - start[todo]) * np.clip(1.1 / np.maximum(za, 1e-9), 1.3, 100.0)
        away = start[todo] + np.where(a == start[todo], side[todo] * 1e-3, further)
        # A secant alone creeps where the rise has a kink, so every third step halves the bracket.
        part = np.clip((1 - za) / (zb - za), 1e-3, 0.9) if turn % 3 else 0.5
        between = a + part * (b - a)
        trial = np.where(np.isnan(b), np.clip(away, low[todo], high[todo]), between)
        pins = _Pins(kinds[todo], trial, wheres[todo])
        near = theta_in[todo]
        # A pinned value is approached by shifting the whole curve, which its runs resist least.
        shift = np.where(kinds[todo] == PIN_VALUE, np.exp(trial) - np.exp(a), 0.0)
        near[:, 0] = np.maximum(near[:, 0] + shift, 0.0)
        theta, value = _solve(near, pins, runs, 1e-7, 50)
        z = np.sqrt(np.maximum(value - base, 0.0) / rise)
        into, out = todo[z <= 1], todo[z > 1]
        inner[into], z_in[into], theta_in[into] = trial[z <= 1], z[z <= 1], theta[z <= 1]
        outer[out], z_out[out] = trial[z > 1], z[z > 1]
        met[todo] = (z <= 1) & (trial == np.where(side[todo] < 0, low[todo], high[todo]))
        close = np.abs(outer[todo] - inner[todo]) < 2e-3 * np.abs(inner[todo] - start[todo]) + 1e-12
        todo = todo[~(met[todo] | ((z <= 1) & (z > 0.998)) | close)]
        if not todo.size:
            break
    return np.where(met, np.nan, inner).reshape(-1, 2)
