"""A fitted law: its constants with their intervals, and what the runs say of them.

`Fit` is plain data. `laws.fit` makes it, `laws.words` puts it into a line, figures draw it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from math import inf, isfinite
from pathlib import Path
from typing import Any

from recscale.errors import InputError
from recscale.files import read_json
from recscale.laws.form import Array, Form, Points
from recscale.laws.forms import FORMS
from recscale.laws.names import LAW_RECIPE

NATS = "nats"


class Status(StrEnum):
    """What came of a fit; `MEANING` has one sentence for each."""

    CONVERGED = "converged"
    OUTLIERS = "outliers"
    BOUND_HIT = "bound_hit"
    NOT_IDENTIFIED = "not_identified"
    UNDERDETERMINED = "underdetermined"
    TOO_FEW_RUNS = "too_few_runs"
    OPEN = "open"
    NOT_CONVERGED = "not_converged"
    FLAT = "flat"
    NOT_DECREASING = "not_decreasing"
    REFUSED = "refused"


MEANING = {
    Status.CONVERGED: "Several starts agree on one optimum inside the bounds: read the constants "
    "with their intervals.",
    Status.OUTLIERS: "Runs lie far from the curve of the others: find out why before using the constants, "
    "which follow the others.",
    Status.BOUND_HIT: "A constant is at its limit: the runs do not separate the constants, so trust "
    "the curve only near the fitted points.",
    Status.NOT_IDENTIFIED: "A flat valley: constants far apart fit equally well, or may change together by "
    "more than all that was measured. None means anything by itself; trust the curve only among the fitted "
    "points.",
    Status.UNDERDETERMINED: "At most one distinct point more than constants: almost any runs would "
    "fit this well, so only the intervals and the held-out error count.",
    Status.TOO_FEW_RUNS: "No more runs than constants, or of several axes one more: too little says how far "
    "another run would be from the curve, so no interval is given.",
    Status.OPEN: "The runs leave a constant open at one end: it has no value worth quoting, and the others "
    "go with it; trust the curve only near the fitted points.",
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
    unit: of a loss, nats or bits.
    delta: the Huber threshold on residuals; infinite (in JSON null) is least squares. delta_given: by the
        user, not chosen for the noise. level: of every interval.
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
    draws: constants of each resample as the solver moves them, a row each; None without a bootstrap.
    final: the same law of all runs, the held-out ones among them, for forecasts; None where no held-out
        run was measured, for then it is this one.
    recipe: LAW_RECIPE it was fitted by.
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
    unit: str = NATS
    delta_given: bool = False
    draws: list[list[float]] | None = None
    final: Fit | None = None
    recipe: int = LAW_RECIPE

    @property
    def meaning(self) -> str:
        """One sentence on what a reader should think of the fit."""
        if self.fixed and self.status in (Status.FLAT, Status.NOT_DECREASING):
            return "With the constants that were given the form is no better than one value for all runs."
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
        final = None if self.final is None else self.final.to_json()
        delta = self.delta if isfinite(self.delta) else None
        own = asdict(replace(self, final=None))
        return own | {"status": str(self.status), "delta": delta, "final": final} | added

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Fit:
        """The `Fit` that `to_json` wrote. Raises KeyError where a field is missing."""
        own = {field.name: plain[field.name] for field in fields(cls)}
        delta = inf if own["delta"] is None else own["delta"]
        final = None if own["final"] is None else cls.from_json(own["final"])
        return cls(**own | {"status": Status(own["status"]), "delta": delta, "final": final})

    @classmethod
    def read(cls, path: Path) -> Fit:
        """The `Fit` of a laws/<law>.json. Raises InputError where it is missing or damaged."""
        if path.exists() and path.read_bytes()[:1] == b"[":
            raise InputError(f"{path}: has several laws; fit the one that is meant with --law NAME")
        plain = read_json(path)
        if plain.get("recipe") != LAW_RECIPE:
            raise InputError(f"{path}: was fitted by another version of recscale; fit it again")
        for key, legal in (("form", list(FORMS)), ("status", [str(status) for status in Status])):
            if plain.get(key) not in legal:
                raise InputError(f"{path}: {key}: {plain.get(key)!r} is not one of {', '.join(legal)}")
        read_json(path, *(field.name for field in fields(cls)))
        if why := _damage(plain):
            raise InputError(f"{path}: is damaged: {why}; fit it again")
        return cls.from_json(plain)


def _damage(plain: Any) -> str:
    """What of a law's JSON no fit has written, of what its readers use; empty where it is whole."""
    if not isinstance(plain, dict) or not {field.name for field in fields(Fit)} <= set(plain):
        return "final is no law"
    form, points, final = FORMS.get(plain["form"]), plain["points_used"], plain["final"]
    if form is None or plain["status"] not in list(Status) or plain["recipe"] != LAW_RECIPE:
        return "final is no law of this version"
    axes, names, count = (*form.axes, "y"), set(form.names), len(form.names)

    def number(value: Any, none: bool = False) -> bool:
        return (none and value is None) or (type(value) in (int, float) and isfinite(value))

    def ends(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 2 and all(number(end, True) for end in value)

    def constants(value: Any, legal: Callable[[Any], bool], some: bool = False) -> bool:
        return (
            isinstance(value, dict)
            and (set(value) <= names if some else set(value) == names)
            and all(map(legal, value.values()))
        )

    def entries(value: Any, keys: tuple[str, ...], more: tuple[str, ...] = ()) -> bool:
        return isinstance(value, list) and all(
            isinstance(one, dict)
            and all(number(one.get(key)) for key in keys)
            and all(key in one and number(one[key], True) for key in more)
            for one in value
        )

    held = ("measured", "predicted", "error", "extrapolation", "baseline_error")
    whole = {
        "points_used": entries(points, axes),
        "held_out": entries(plain["held_out"], (*form.axes, "runs"), held)
        and all(ends(one.get("interval")) for one in plain["held_out"]),
        "parameters": plain["parameters"] is None or constants(plain["parameters"], number),
        "intervals": constants(plain["intervals"], ends),
        "fixed": constants(plain["fixed"], number, some=True),
        "outliers": isinstance(plain["outliers"], list)
        and all(type(place) is int and 0 <= place < len(points) for place in plain["outliers"]),
        "draws": plain["draws"] is None
        or (
            isinstance(plain["draws"], list)
            and all(
                isinstance(row, list) and len(row) == count and all(map(number, row))
                for row in plain["draws"]
            )
        ),
        "sigma": number(plain["sigma"], True),
        "delta": number(plain["delta"], True),
        "level": number(plain["level"]) and 0 < plain["level"] < 1,
        "unit": isinstance(plain["unit"], str),
    }
    odd = [key for key, good in whole.items() if not good]
    if odd:
        return f"{odd[0]} is not what a fit writes"
    return "" if final is None else _damage(final)
