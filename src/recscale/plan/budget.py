"""The best size and amount of data for a budget, by a study's own law of both.

A rung is a model that could be trained: the sizes of the study, then those of LSRM (arXiv 2311.11351,
table of sizes) above its largest. A rung's cost is that of one training, in FLOPs or in hours of a
device as `recscale plan` estimates them; a budget buys each rung its own amount of data, and the law says
which is best. Intervals are over refits of the law to resamples of its runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from recscale.errors import InputError
from recscale.laws import solver
from recscale.laws.form import Array
from recscale.laws.result import Fit
from recscale.study.run import Run, Sample
from recscale.study.shapes import Decoder
from recscale.study.study import Law, Study, select

# Layers, width, heads of LSRM's own models.
LSRM = ((2, 64, 2), (4, 128, 4), (8, 128, 4), (12, 256, 8), (24, 512, 8), (48, 1200, 24))


@dataclass(frozen=True)
class Rung:
    """A model of the ladder. cost: of training it on one target once, in the unit of the budget."""

    size: str
    n: int
    n_total: int
    cost: float


@dataclass(frozen=True)
class Data:
    """What there is: targets of one pass over all the data; epochs of the law's runs."""

    targets: int
    epochs: int


@dataclass(frozen=True)
class Choice:
    """A rung with the data that it is trained on.

    seen: targets it is trained on in all; available: different ones, so epochs = seen / available. x: the
    place on the law's axes. cost: in the unit of the budget. loss: what the law says there.
    """

    rung: Rung
    seen: float
    available: float
    x: Mapping[str, float]
    cost: float
    loss: float


@dataclass(frozen=True)
class Best:
    """The choice of least loss, of every rung's; with the next rung above, on the same data.

    n_interval, seen_interval: over resamples of the runs, None where the law has none. ladder: the best
    that the budget buys on each rung. at_end: "smallest" or "largest" where that rung is best.
    """

    choice: Choice
    ladder: tuple[Choice, ...]
    next: Choice | None
    n_interval: tuple[float, float] | None
    seen_interval: tuple[float, float] | None
    at_end: str


def shapes(study: Study, law: Law) -> list[Run]:
    """A run on all the data for each rung, by N: the sizes of the law's runs, then LSRM's above them.

    All else is as in the law's run of the largest N.
    """
    chosen = sorted((study.runs[name] for name in select(law, study.runs)), key=lambda run: run.shape.n)
    own = {run.size: run.shape for run in chosen}
    base = replace(chosen[-1], sample=Sample())
    ladder = [replace(base, shape=shape) for shape in own.values()]
    if isinstance(base.shape, Decoder):
        for layers, width, heads in LSRM:
            larger = replace(base.shape, n_layers=layers, d_model=width, n_heads=heads)
            if larger.n > base.shape.n:
                ladder.append(replace(base, shape=larger))
    return ladder


def rungs(ladder: Sequence[Run], n_items: int, cost: Callable[[Run], float]) -> list[Rung]:
    """The rungs with what a target costs on each; `cost` is that of one target seen once."""
    return [
        Rung(
            run.size,
            run.shape.n,
            run.shape.n_total(n_items, run.windows.max_len),
            cost(run),
        )
        for run in ladder
    ]


def _place(law: Law, rung: Rung, seen: float, data: Data) -> tuple[dict[str, float], float]:
    """Where a rung trained on so many targets lies on the axes of the law, and its different targets."""
    fixed = law.x["D"] == "D"  # the law's runs all repeat their data as often
    available = seen / data.epochs if fixed else min(seen, float(data.targets))
    columns = {"N": rung.n, "N_total": rung.n_total, "D": available, "D_seen": seen}
    return {axis: float(columns[column]) for axis, column in law.x.items()}, available


def choose(
    fit: Fit, law: Law, ladder: Sequence[Rung], data: Data, budget: float, theta: Array,
    most: float | None = None,
) -> Best:  # fmt: skip
    """The best that `budget` buys, by the constants theta of `forecast.refits`.

    most: no more different targets than this, whatever the budget; then, as larger models gain ever less
    on the same data, the cheapest rung that is within the noise of a run of the best. Raises InputError
    for a law without N and D.
    """
    if not {"N", "D"} <= set(law.x) or law.x["D"] not in ("D", "D_seen"):
        raise InputError(f"{fit.law}: a budget needs a law of N and D, as form: hoffmann, x: {{N: N, D: D}}")
    options = []
    for rung in ladder:
        seen = budget / rung.cost
        if most is not None and law.x["D"] == "D":
            seen = min(seen, most * data.epochs)
        options.append(_choice(fit, law, rung, seen, data))
    form = fit.shape
    at = form.logs({axis: np.array([option.x[axis] for option in options]) for axis in form.axes})
    values = solver.modelled(form, theta, at)[0]
    values = -values if form.rises else values
    best = values.argmin(axis=1)
    if most is not None:  # values are logarithms of losses
        close = values - values.min(axis=1, keepdims=True) <= (fit.sigma or 0.0)
        best = np.where(close, [option.cost for option in options], np.inf).argmin(axis=1)
    chosen = options[int(best[0])]
    above = [rung for rung in ladder if rung.n > chosen.rung.n]  # another shape of the same N is no step
    step = _choice(fit, law, above[0], chosen.seen, data) if above else None
    n_ends = seen_ends = None
    if len(best) > 1:
        drawn = [options[k] for k in best[1:]]
        n_ends = _interval([choice.rung.n for choice in drawn], fit.level)
        seen_ends = _interval([choice.seen for choice in drawn], fit.level)
    smallest = chosen.rung.n == ladder[0].n
    end = "smallest" if smallest else "largest" if step is None else ""
    return Best(chosen, tuple(options), step, n_ends, seen_ends, end)


def _choice(fit: Fit, law: Law, rung: Rung, seen: float, data: Data) -> Choice:
    x, available = _place(law, rung, seen, data)
    return Choice(rung, seen, available, x, seen * rung.cost, float(fit.predict(x)))


def _interval(values: Sequence[float], level: float) -> tuple[float, float]:
    """Of a ladder's rungs: percentiles that are values themselves."""
    ends = np.percentile(values, [50 * (1 - level), 50 * (1 + level)], method="nearest")
    return float(ends[0]), float(ends[1])
