"""Laws of any table of runs: a CSV or Parquet file with a row a run, columns named by the user.

`fit_table` is one law. `choose` is every form that fits the same axes, judged by what was held out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd

from recscale.errors import InputError
from recscale.laws.fit import fit_law
from recscale.laws.form import Form
from recscale.laws.forms import FORMS, POWER_CONSTANT
from recscale.laws.reading import numbers
from recscale.laws.result import NATS, Fit

UNITS = (NATS, "bits", "perplexity")
LN_PERPLEXITY = f"{NATS}, ln of perplexity"
TERMS = {"N": {"A", "N_c"}, "D": {"B", "D_c"}}  # constants that one value of the axis says nothing of


@dataclass(frozen=True)
class Asked:
    """What to fit of a table. x: axis -> column; hold_out: axis -> "2" largest values, or "10%" of them.

    run: column that names the run of a row, where a run has several rows. fixed: given constants. unit: of
    y, one of UNITS; perplexity is fitted as its logarithm, the loss in nats.
    """

    x: Mapping[str, str]
    y: str
    hold_out: Mapping[str, str]
    run: str | None = None
    fixed: Mapping[str, float] | None = None
    level: float = 0.9
    delta: float | None = None
    resamples: int = 1000
    unit: str = NATS


def forms_of(law: str, axes: Sequence[str], unit: str = NATS) -> list[Form]:
    """The form of this name, or with `all` every form of these axes, of a loss where y has another unit.

    Raises InputError.
    """
    if law == "all":
        # The power with a constant is the saturating power, with A for X0: once is enough.
        fitting = [form for form in FORMS.values() if _fits(form, axes) and form is not POWER_CONSTANT]
        fitting = [form for form in fitting if form.positive or unit == NATS]
        if not fitting:
            kinds = sorted({", ".join(form.axes) for form in FORMS.values() if len(form.axes) > 1})
            raise InputError(
                f"--x: no law has the axes {', '.join(axes)}; give one axis, or {' or '.join(kinds)}"
            )
        return fitting
    if law not in FORMS:
        raise InputError(f"--law {law}: is not one of {', '.join(FORMS)}, all")
    if not _fits(FORMS[law], axes):
        form = FORMS[law]
        needs = "one column" if len(form.axes) == 1 else ",".join(f"{axis}=COLUMN" for axis in form.axes)
        raise InputError(f"--x: {law}, {form.formula.split(';')[0]}, needs {needs}")
    return [FORMS[law]]


def _fits(form: Form, axes: Sequence[str]) -> bool:
    return len(axes) == 1 if len(form.axes) == 1 else set(axes) == set(form.axes)


def fit_table(path: Path, frame: pd.DataFrame, form: Form, asked: Asked) -> Fit:
    """Fit one form to a table. Raises InputError for columns and options that it cannot be fitted to."""
    one = len(form.axes) == 1
    (name, column), *_ = asked.x.items()
    columns = {form.axes[0]: column} if one else {axis: asked.x[axis] for axis in form.axes}
    x = {axis: numbers(frame, key, path, positive=True) for axis, key in columns.items()}
    y = numbers(frame, asked.y, path, positive=False)
    if asked.unit != NATS and not form.positive:
        raise InputError(f"--unit {asked.unit}: {form.name} is no law of the logarithm of a loss")
    if asked.unit == "perplexity":
        if (y <= 1).any():
            row = frame.index[int(np.flatnonzero(y <= 1)[0])]
            raise InputError(f"{path}: row {row}: {asked.y} is no perplexity, which is above 1")
        y = np.log(y)
    if asked.run is not None and asked.run not in frame:
        raise InputError(
            f"{path}: has no column {asked.run}; it has {', '.join(map(str, frame.columns[:30]))}"
        )
    held = {}
    for axis, text in asked.hold_out.items():
        place = form.axes[0] if axis == "" or (one and axis in (name, column)) else axis
        if place not in x:
            legal = (name or column,) if one else form.axes
            raise InputError(f"--hold-out {axis}: is not one of {', '.join(legal)}")
        distinct = len(np.unique(x[place]))
        held[place] = _count(text, distinct)
        if held[place] >= distinct:
            raise InputError(
                f"--hold-out {text}: of {distinct} values of {columns[place]} leaves none to fit"
            )
    unknown = set(asked.fixed or {}) - set(form.names)
    if unknown:
        raise InputError(f"--fix {', '.join(unknown)}: {form.name} has {', '.join(form.names)}")
    kept = np.ones(len(y), dtype=bool)
    for place, number in held.items():
        values = np.unique(x[place])
        kept &= ~np.isin(x[place], values[len(values) - number :])
    for axis, own in TERMS.items() if not one else ():
        free = own & set(form.names) - set(asked.fixed or {})
        if axis in x and free and len(np.unique(x[axis][kept])) == 1:
            raise InputError(f"{path}: has one {columns[axis]} alone to fit: a law of it needs several")
    try:
        return fit_law(
            x, y, law=form.name, form=form, x_name=(name or column) if one else ", ".join(form.axes),
            hold_out=held, level=asked.level, delta=asked.delta, fixed=asked.fixed,
            groups=None if asked.run is None else frame[asked.run].astype(str).to_numpy(),
            resamples=asked.resamples, unit=LN_PERPLEXITY if asked.unit == "perplexity" else asked.unit,
        )  # fmt: skip
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _count(text: str, distinct: int) -> int:
    share = text.removesuffix("%")
    if not (share.isascii() and share.isdecimal()) or (text.endswith("%") and int(share) > 100):
        raise InputError(f"--hold-out {text}: is not a whole number, or a share such as 10%")
    return ceil(int(share) / 100 * distinct) if text.endswith("%") else int(share)


CHOICE = (
    "law", "x", "status", "constants", "fitted", "held_out", "mean_error", "largest_error", "baseline_error",
    "extrapolation", "exponents",
)  # fmt: skip


def choose(fits: Sequence[tuple[Fit, str]]) -> pd.DataFrame:
    """A row a fit (with the text of its columns), the best on what was held out first.

    mean_error: absolute relative error, mean over the held-out points; baseline_error: of predicting what
    the largest fitted point has. How well a form fits what it was fitted to decides nothing here.
    """
    rows = []
    for fit, x in fits:
        known = [entry for entry in fit.held_out if entry["error"] is not None]
        errors, base = ([entry[key] for entry in known] for key in ("error", "baseline_error"))
        exponents = {
            name: value
            for name, value in (fit.parameters or {}).items()
            if name in ("alpha", "beta", "b", "k")
        }
        rows.append(
            {
                "law": fit.form,
                "x": x,
                "status": str(fit.status),
                "constants": len(fit.shape.names) - len(fit.fixed),
                "fitted": len(fit.points_used),
                "held_out": len(known),
                "mean_error": float(np.mean(errors)) if errors else np.nan,
                "largest_error": max(errors, default=np.nan),
                "baseline_error": float(np.mean(base)) if base else np.nan,
                "extrapolation": max((entry["extrapolation"] for entry in known), default=np.nan),
                "exponents": ", ".join(f"{name} {value:.3g}" for name, value in exponents.items()),
            }
        )
    frame = pd.DataFrame(rows, columns=list(CHOICE))
    return frame.sort_values(["mean_error", "constants"], kind="stable", ignore_index=True)


def choice_text(choice: pd.DataFrame) -> str:
    """The table of `choose` for a terminal, errors in per cent."""
    shown = choice.copy()
    for column in ("mean_error", "largest_error", "baseline_error"):
        shown[column] = [f"{100 * value:.2f} %" if np.isfinite(value) else "-" for value in choice[column]]
    shown["extrapolation"] = [
        f"{value:.3g}" if np.isfinite(value) else "-" for value in choice["extrapolation"]
    ]
    return str(shown.to_string(index=False))
