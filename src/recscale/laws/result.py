"""A fitted law: its constants with their intervals, what the runs say of them, and its words.

`Fit` is plain data. `laws.fit` makes it, `summary` puts it into a line, figures draw it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from itertools import product
from math import floor, inf, isfinite, log10
from pathlib import Path
from typing import Any

from recscale.errors import InputError
from recscale.files import read_json
from recscale.laws.form import Array, Form, Points
from recscale.laws.forms import FORMS


class Status(StrEnum):
    """What came of a fit; `MEANING` has one sentence for each."""

    CONVERGED = "converged"
    OUTLIERS = "outliers"
    BOUND_HIT = "bound_hit"
    NOT_IDENTIFIED = "not_identified"
    UNDERDETERMINED = "underdetermined"
    NOT_CONVERGED = "not_converged"
    FLAT = "flat"
    NOT_DECREASING = "not_decreasing"
    REFUSED = "refused"


MEANING = {
    Status.CONVERGED: "Several starts agree on one optimum inside the bounds: read the constants "
    "with their intervals.",
    Status.OUTLIERS: "More than 1 % of the runs lie ten times further from the curve than the others: "
    "find out why before using the constants, which follow the others.",
    Status.BOUND_HIT: "A constant is at its limit: the runs do not separate the constants, so trust "
    "the curve only near the fitted points.",
    Status.NOT_IDENTIFIED: "Constants may change together by more than all that was measured and the curve "
    "stays: none means anything by itself, so trust the curve only among the fitted points.",
    Status.UNDERDETERMINED: "At most one distinct point more than constants: almost any runs would "
    "fit this well, so only the intervals and the held-out error count.",
    Status.NOT_CONVERGED: "No two starts agree on the optimum: do not use these constants.",
    Status.FLAT: "The measured value does not change with x by more than its noise: there is no law to fit.",
    Status.NOT_DECREASING: "The loss rises with x, or the metric falls: there is no law of this form to fit; "
    "look for overfitting or bad settings.",
    Status.REFUSED: "Fewer distinct usable points than constants: nothing was fitted.",
}


@dataclass(frozen=True)
class Fit:
    """A fitted law with its evidence, in the plain types that its JSON has.

    law, x: the names of the law and of its axis (of several, separated by commas). form: the name of
        its `Form`. fixed: constants that were given, not fitted.
    delta: the Huber threshold on residuals; infinite (in JSON null) is least squares. level: of every
        interval.
    parameters: by name, in the units that the form's `Parameter` tells; None where there is no law.
        Where the status is not `converged` they are for drawing only.
    intervals: name -> [lo, hi]; an end is None where the parameter meets its bound first.
    sigma: noise sd of one run, of the log loss, or of a metric over its median; None where the runs
        cannot show it.
    starts, share_of_starts: how many starting points, and the share that ended at the optimum.
    condition: of the slopes at the optimum, each scaled to length 1. slack: how far, at one standard
        deviation, two parts of the law may move against each other, in the unit of the residuals (1: a
        factor e of the loss, or the median of a metric). at_bound: constants at a bound.
    resamples, degenerate_share: of the bootstrap, 0 and None where there was none; a resample is
        degenerate that has too few distinct x, or brings a constant to a bound that the fit does not.
    points_used: {x, y} a run, with several axes one key each. points_left_out: {x, y, reason}, y None
        where not finite. outliers: places in points_used of runs far from the curve.
    held_out: one entry a size: {x, runs, measured, predicted, interval, error, extrapolation,
        baseline_error}. `measured` is the mean of the seeds and `interval` is for such a mean: the
        curve's interval and the noise of the mean in quadrature. `error` is
        |predicted - measured| / |measured|, `extrapolation` the largest ratio of an axis over its
        largest fitted value, `baseline_error` the error of predicting what the largest fitted point has.
    band: {x, lo, mid, hi}: the curve and, point by point, the interval of its value; one axis only.
    profile: {E, rise}: how far the objective rises when E is held, in units of the rise at `level`.
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
    fixed: dict[str, float] = field(default_factory=dict)
    status: Status = Status.REFUSED
    parameters: dict[str, float] | None = None
    sigma: float | None = None
    starts: int = 0
    share_of_starts: float | None = None
    condition: float | None = None
    slack: float | None = None
    at_bound: list[str] = field(default_factory=list)
    outliers: list[int] = field(default_factory=list)
    resamples: int = 0
    degenerate_share: float | None = None
    band: dict[str, list[float | None]] | None = None
    profile: dict[str, list[float]] | None = None

    @property
    def meaning(self) -> str:
        """One sentence on what a reader should think of the fit."""
        return MEANING[self.status]

    @property
    def shape(self) -> Form:
        """The form itself."""
        return FORMS[self.form]

    def predict(self, x: Points) -> Array:
        """y (nats for a loss) at x, by axis where there are several. Raises ValueError without a law."""
        if self.parameters is None:
            raise ValueError(f"{self.law}: no law to predict with. {self.meaning}")
        return self.shape.predict(x, self.parameters)

    def to_json(self) -> dict[str, Any]:
        """Every field as plain JSON types, without NaN, plus the `formula` and the `meaning`."""
        added = {"formula": self.shape.formula, "source": self.shape.source, "meaning": self.meaning}
        delta = self.delta if isfinite(self.delta) else None
        return asdict(self) | {"status": str(self.status), "delta": delta} | added

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Fit:
        """The `Fit` that `to_json` wrote. Raises KeyError where a field is missing."""
        own = {field.name: plain[field.name] for field in fields(cls)}
        delta = inf if own["delta"] is None else own["delta"]
        return cls(**own | {"status": Status(own["status"]), "delta": delta})

    @classmethod
    def read(cls, path: Path) -> Fit:
        """The `Fit` of a laws/<law>.json. Raises InputError where it is missing or damaged."""
        plain = read_json(path, *(field.name for field in fields(cls)))
        for key, legal in (("form", list(FORMS)), ("status", [str(status) for status in Status])):
            if plain[key] not in legal:
                raise InputError(f"{path}: {key}: {plain[key]!r} is not one of {', '.join(legal)}")
        return cls.from_json(plain)


# --- words ---

DIGITS = 4  # a constant more than its interval supports, at most
SHOWN = 7  # held-out points that a terminal lists
EXPONENTS = ("alpha", "beta", "R_D", "R_N")  # what a reader compares: always with their intervals


def summary(fit: Fit) -> str:
    """One line: the law, its intervals, the status and the held-out error.

    A constant whose interval is open prints as its name. The formula has as many digits as it takes to give
    the fitted curve (constants that move together cannot be rounded one by one); an exponent stands again
    with its interval and no digit that this cannot support. Where there is no law, the line says why.
    """
    title = f"{fit.law}: "
    if fit.parameters is None:
        return f"{title}{fit.status}. {fit.meaning}"
    point, listed = {}, []
    places = _places(fit)
    for name, value in fit.parameters.items():
        if name in fit.fixed:
            point[name] = f"{value:g}"
            continue
        ends = fit.intervals[name]
        place = _place(value, *ends)
        within = "not bounded" if ends == [None, None] else f"[{', '.join(_ends(ends, place))}]"
        known = fit.status not in (Status.UNDERDETERMINED, Status.NOT_IDENTIFIED) and None not in ends
        point[name] = _number(value, places[name]) if known else name
        if not known:
            listed.append(f"{name} {within}")
        elif name in EXPONENTS:
            listed.append(f"{name} {_number(value, place)} {within}")
    method = fit.interval_method.split(" ")[0]
    words = [_written(fit, point), *listed]
    line = f"{title}{', '.join(words)} ({100 * fit.level:g} %, {method}), {fit.status}"
    errors = [entry["error"] for entry in fit.held_out if entry["error"] is not None]
    if errors:
        sizes = "1 size" if len(errors) == 1 else f"{len(errors)} sizes"
        line += f"; held out {sizes}, largest error {100 * max(errors):.2g} %"
    return line


def table(fit: Fit) -> str:
    """What a terminal shows of a fit: a line a constant, then what the runs say of it."""
    lines = [f"{fit.law}: {fit.shape.formula}   ({fit.shape.source})", f"{fit.status}: {fit.meaning}"]
    for parameter in fit.shape.parameters if fit.parameters else ():
        value, ends = (fit.parameters or {})[parameter.name], fit.intervals[parameter.name]
        place = _place(value, *ends)
        within = "given" if parameter.name in fit.fixed else f"[{', '.join(_ends(ends, place))}]"
        lines.append(f"  {parameter.name:<7} {_number(value, place):>10}  {within:<26} {parameter.meaning}")
    left = f", {len(fit.points_left_out)} left out" if fit.points_left_out else ""
    far = f", {len(fit.outliers)} far from the curve" if fit.outliers else ""
    lines.append(f"{len(fit.points_used)} runs{left}{far}")
    if fit.share_of_starts is not None:
        lines[-1] += f"; {100 * fit.share_of_starts:.0f} % of {fit.starts:,} starts reach the optimum"
        lines[-1] += f"; condition {fit.condition:.2g}" if fit.condition is not None else ""
        lines.append(f"{100 * fit.level:g} % intervals: {fit.interval_method}")
    if fit.degenerate_share is not None:
        lines.append(f"{100 * fit.degenerate_share:.2g} % of {fit.resamples:,} resamples degenerate")
    return "\n".join([*lines, *_held_out(fit)])


def _held_out(fit: Fit) -> list[str]:
    """A line for each of the largest held-out points, and one for all where there are more."""
    known = [entry for entry in fit.held_out if entry["error"] is not None]
    lines = []
    if len(known) > SHOWN:
        law, base = (100 * sum(e[key] for e in known) / len(known) for key in ("error", "baseline_error"))
        lines.append(
            f"held out {len(known)} points, mean error {law:.2g} % (largest fitted point: {base:.2g} %)"
        )
    for entry in known[-SHOWN:]:
        axes = fit.shape.axes
        at = ", ".join(f"{fit.x if axis == 'x' else axis} {entry[axis]:.4g}" for axis in axes)
        lines.append(
            f"held out {at}: measured {entry['measured']:.4g}, predicted {entry['predicted']:.4g}, error "
            f"{100 * entry['error']:.2g} % at {entry['extrapolation']:.3g} times the largest fitted "
            f"(largest fitted point: {100 * entry['baseline_error']:.2g} %)"
        )
    return lines


def _written(fit: Fit, point: Mapping[str, str]) -> str:
    """The formula with numbers for the constants that are known, and the axis by its name."""
    head, right = fit.shape.formula.split(";")[0].split(" = ", 1)
    known = dict(point) | ({"x": fit.x} if fit.shape.axes == ("x",) else {})
    right = re.sub(r"[A-Za-z_]\w*", lambda word: known.get(word[0], word[0]), right)
    right = right.replace("+ -", "- ").replace("- -", "+ ")
    return f"{head.split('(')[0]} = {right}"


CLOSE = 1e-3  # of the value: how far the printed formula may be from the fit


def _places(fit: Fit) -> dict[str, int]:
    """Power of ten of the last digit of each constant, so that the formula gives the curve at the runs.

    Of all ways to add digits to those that the intervals support, the one that adds fewest.
    """
    values, axes = fit.parameters or {}, fit.shape.axes
    at = {axis: [run[axis] for run in fit.points_used] for axis in axes}
    exact = fit.predict(at)

    def off(places: Mapping[str, int]) -> float:
        rounded = {name: float(_number(value, places[name])) for name, value in values.items()}
        return float((abs(fit.shape.predict(at, rounded | fit.fixed) - exact) / abs(exact)).max(initial=0.0))

    places = {name: _place(value, *fit.intervals[name]) for name, value in values.items()}
    ways = product(range(DIGITS + 1), repeat=len(places))
    for more in sorted((way for way in ways if sum(way) <= 2 * DIGITS), key=sum):
        finer = {name: place - n for (name, place), n in zip(places.items(), more, strict=True)}
        if off(finer) <= CLOSE:
            return finer
    return places


def _ends(ends: list[float | None], place: int) -> list[str]:
    return ["not bounded" if end is None else _number(end, place) for end in ends]


def _place(value: float, lo: float | None, hi: float | None) -> int:
    """Power of ten of the last digit that an interval supports.

    Two digits of the half-width where it begins with 1 or 2, else one, as for printed errors; never
    more than four digits of the value.
    """
    half = (value if hi is None else hi) - (value if lo is None else lo)
    half /= 2
    finest = floor(log10(abs(value))) - 3 if value else -4
    if half <= 0:
        return finest
    place = floor(log10(half))
    return max(place - (half < 3 * 10.0**place), finest)


def _number(value: float, place: int) -> str:
    """value to 10^place, but never to nothing: at least one digit."""
    if value == 0:
        return "0"
    if value < 0:
        return f"-{_number(-value, place)}"
    place = min(place, floor(log10(value)))
    if place <= 0 and value >= 1e-3:
        return f"{value:.{-place}f}"
    mantissa, power = f"{value:.{max(0, floor(log10(value)) - place)}e}".split("e")
    return f"{mantissa}e{int(power)}" if int(power) else mantissa
