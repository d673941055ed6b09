"""The best N and D for a budget as three ways find it, and its words. `laws.allocate` makes it.

`frontier`: the envelope of the training curves. `valleys`: the minimum of loss against N at each budget.
`parametric`: a joint law of N and D, minimised along the budget. (Approaches 1 to 3 of Hoffmann et al.,
arXiv 2203.15556.) All three are of the same resamples of the runs, so that their ratio has an interval
too: where it leaves 1 out, the ways disagree by more than the luck of the runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

import pandas as pd

from recscale.laws.frontier import Curves
from recscale.laws.result import Fit

Ends = list[float | None]


class Found(StrEnum):
    """What came of one way; `MEANING` has one sentence for each."""

    FOUND = "found"
    DOUBTFUL = "doubtful"
    REFUSED = "refused"


MEANING = {
    Found.FOUND: "Enough runs and places: read the exponent with its interval.",
    Found.DOUBTFUL: "There is a line, but its interval may be too narrow: see the reason.",
    Found.REFUSED: "The runs do not show a best size in this way: see the reason.",
}


@dataclass(frozen=True)
class Way:
    """One way. N_opt ~ C^a and D_opt ~ C^b; n, d: at the budgets. Intervals are of resampled runs.

    points: {C, N, D, y} of the winners, or minima, that the line goes through. left_out: {C, reason}.
    no_exponent: share of resamples that have none. Refused: every number is None, every list empty.
    """

    way: str
    status: Found
    reason: str
    a: float | None = None
    a_interval: Ends = field(default_factory=lambda: [None, None])
    b: float | None = None
    b_interval: Ends = field(default_factory=lambda: [None, None])
    n: list[float] = field(default_factory=list)
    n_intervals: list[Ends] = field(default_factory=list)
    d: list[float] = field(default_factory=list)
    d_intervals: list[Ends] = field(default_factory=list)
    points: list[dict[str, float | None]] = field(default_factory=list)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    no_exponent: float | None = None


@dataclass(frozen=True)
class Ratio:
    """N_opt of the way `first` over that of `second` at a budget. differ: the interval leaves 1 out."""

    first: str
    second: str
    c: float
    value: float
    interval: Ends
    differ: bool


@dataclass(frozen=True)
class Allocations:
    """Three ways on one table. C = k N^g D, rms of its residual in ln C: `cost` has k, growth, rms.

    budgets: C at which n and d of each way are; measured: least and largest C of the runs. cautions: what a
    reader must know besides, one sentence each. law: the joint law behind the parametric way.
    """

    ways: tuple[Way, ...]
    ratios: tuple[Ratio, ...]
    budgets: list[float]
    measured: tuple[float, float]
    cost: dict[str, float]
    runs: int
    rows: int
    left_out: int
    level: float
    resamples: int
    cautions: list[str]
    law: Fit
    curves: Curves

    def to_json(self) -> dict[str, Any]:
        """Every field but the curves as plain JSON types."""
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "curves"}
        plain |= {"law": self.law.to_json(), "ratios": [asdict(ratio) for ratio in self.ratios]}
        plain["ways"] = [asdict(way) for way in self.ways]
        for way in plain["ways"]:
            way |= {"status": str(way["status"]), "meaning": MEANING[way["status"]]}
        return plain


# --- words ---


def text(found: Allocations) -> str:
    """What a terminal shows: a column a way, the disagreement at each budget, and what to beware of."""
    left = f", {found.left_out} rows left out" if found.left_out else ""
    lines = [
        f"{found.runs} runs, {found.rows} rows{left}; C from {found.measured[0]:.3g} to "
        f"{found.measured[1]:.3g}; C = {found.cost['k']:.3g} N^{found.cost['growth']:.3g} D; "
        f"{100 * found.level:g} % intervals of {found.resamples:,} resamples of the runs",
        pd.DataFrame({way.way: _column(way, found.budgets) for way in found.ways}).to_string(),
    ]
    for ratio in found.ratios:
        times = _within(ratio.value, ratio.interval, ".2f")
        end = ": they differ" if ratio.differ else ""
        lines.append(f"at {ratio.c:.3g}: N by {ratio.first} is {times} times that by {ratio.second}{end}")
    for way in found.ways:
        if way.reason:
            lines.append(f"{way.way} is {way.status}: {way.reason}")
        lines += [f"{way.way}: {entry['C']:.3g} FLOPs left out: {entry['reason']}" for entry in way.left_out]
    return "\n".join([*lines, *(f"beware: {word}" for word in found.cautions)])


def _column(way: Way, budgets: Sequence[float]) -> dict[str, str]:
    cells = {
        "status": str(way.status),
        "N ~ C^a": _within(way.a, way.a_interval, ".3f"),
        "D ~ C^b": _within(way.b, way.b_interval, ".3f"),
    }
    for k, c in enumerate(budgets):
        for name, values, ends in (("N", way.n, way.n_intervals), ("D", way.d, way.d_intervals)):
            cells[f"{name} at {c:.3g}"] = _within(values[k], ends[k], ".2e") if values else "-"
    return cells


def _within(value: float | None, ends: Sequence[float | None], form: str) -> str:
    if value is None:
        return "-"
    low, high = ends
    inside = "not bounded" if low is None or high is None else f"{low:{form}}, {high:{form}}"
    return f"{value:{form}} [{inside}]"
