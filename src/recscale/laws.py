"""Fit a scaling law to runs and say how far it can be trusted.

The form is the saturating power law of one axis, L(x) = E + (X0/x)^alpha (LSRM, arXiv 2311.11351,
sec. IV, there with x = N). `fit_law` minimises the summed Huber loss of log residuals (Hoffmann et
al., arXiv 2203.15556, approach 3) from a grid of starts, takes every interval from the profile of
that same objective, predicts the held-out sizes, and returns a `Fit`. Runs that do not support a
law give a `Fit` whose status says so; only malformed arguments raise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from math import exp, floor, hypot, inf, isfinite, log, log10, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from recscale import robust
from recscale.files import read_json
from recscale.robust import ALPHA_RANGE, NOISE_FLOOR, STARTS, Array, Runs

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

    @classmethod
    def read(cls, path: Path) -> Fit:
        """The `Fit` of a laws/<law>.json. Raises InputError where it is missing or damaged."""
        return cls.from_json(read_json(path, *(field.name for field in fields(cls))))


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
    squares = Runs(log_x - centre, np.log(y), inf)
    _, half_rss, _ = robust.best(squares)
    df = len(x) - len(SATURATING_POWER.parameters)
    sigma = robust.noise(squares, 2 * half_rss, df)
    fit = replace(fit, sigma=sigma)
    absent = _no_fall(squares, 2 * half_rss, sigma, df, fit.level)
    if absent:
        return replace(fit, status=absent)
    runs = replace(squares, delta=fit.delta)
    theta, _, share = robust.best(runs)
    e, t, alpha = (float(part) for part in theta)
    parameters = {"E": e, "X0": exp(t / alpha + centre), "alpha": alpha}
    grid = np.geomspace(x.min(), sizes[-1], BAND_POINTS)
    wheres = np.log(np.r_[grid, [h["x"] for h in fit.held_out]]) - centre
    targets = [(kind, 0.0) for kind in (robust.PIN_E, robust.PIN_X0, robust.PIN_ALPHA)] + [
        (robust.PIN_VALUE, w) for w in wheres
    ]
    ends = np.full((len(targets), 2), np.nan)
    if sigma is not None:
        ends = robust.ends(theta, runs, robust.rise(sigma, fit.delta, fit.level, df), targets)
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


def _no_fall(runs: Runs, rss: float, sigma: float | None, df: int, level: float) -> Status | None:
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
