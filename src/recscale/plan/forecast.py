"""`recscale forecast STUDY`: what a study's laws say of a model, or of what a budget buys, with HR@10."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import log
from pathlib import Path
from typing import Any

from recscale.errors import InputError
from recscale.files import read_json, read_table
from recscale.laws import forecast
from recscale.laws.metric_map import MetricMap, fit_map
from recscale.laws.result import Fit
from recscale.plan import budget, cost, plan
from recscale.plan.devices import computed
from recscale.study.problems import NEXT_ITEM
from recscale.study.run import Run, training_flops
from recscale.study.study import Law, Study

METRICS = NEXT_ITEM.shown


@dataclass(frozen=True)
class Answer:
    """What is said of one place: the loss there with its interval, and each metric with its own."""

    x: dict[str, float]
    loss: float
    interval: list[float | None]
    metrics: dict[str, tuple[float, float, float]]  # value, low, high
    warnings: list[str]


# What to add to a study that has no law of these axes.
LINES = {
    "DN": "loss_vs_N_and_D: {form: hoffmann, x: {N: N, D: D}}",
    "N": "loss_vs_N: {x: N, where: {data_fraction: 1}}",
    "D": "loss_vs_D: {x: D, where: {size: LxD}}",
}


@dataclass(frozen=True)
class Told:
    """A study's results as a forecast needs them."""

    study: Study
    law: Law
    fit: Fit
    maps: list[MetricMap]
    no_map: list[str]  # why a metric has none
    n_items: int  # the catalogue of the runs


def read(study: Study, folder: Path, law_name: str | None, given: set[str]) -> Told:
    """The law that answers for the axes `given`, by name if one is named, and the maps.

    folder: results/<study>. Raises InputError.
    """
    law = _law(study, law_name, given)
    path = folder / "laws" / f"{law.name}.json"
    if not path.exists():
        raise InputError(f"{path}: is not fitted yet; run snakemake --cores 2 --config study={study.name}")
    fit = Fit.read(path)
    forecast.on_all(fit)
    points = read_table(folder / "points.parquet", "run", "test_loss", "n_items", *METRICS)
    popularity = read_json(folder / "references.json", "popularity")["popularity"]["test"]["loss"]
    maps, no_map = [], []
    for metric in METRICS:
        try:
            maps.append(fit_map(metric, points["test_loss"], points[metric], popularity))
        except InputError as error:
            no_map.append(str(error))
    return Told(study, law, fit, maps, no_map, int(points["n_items"].iloc[0]))


def _law(study: Study, name: str | None, given: set[str]) -> Law:
    """The law of that name, else the first of the test loss whose columns are those given."""
    if name is not None and name not in study.laws:
        raise InputError(f"--law: {study.name} has no law {name}; it has {', '.join(study.laws) or 'none'}")
    laws = [study.laws[name]] if name is not None else list(study.laws.values())
    for law in laws:
        if law.y == "test_loss" and given == (_axes(law) if given != {"N", "D"} else _axes(law) - {"U"}):
            return law
    if name is not None:
        raise InputError(f"--law: {name} is of {laws[0].y} and {laws[0].columns}: give {_asked(laws[0])}")
    raise InputError(
        f"{study.name}: has no law of test_loss by {' and '.join(sorted(given, reverse=True))}; it has "
        + (", ".join(f"{law.name} ({law.columns})" for law in study.laws.values()) or "none")
        + (f"; add under laws: {LINES[key]}" if (key := "".join(sorted(given))) in LINES else "")
    )


def _axes(law: Law) -> set[str]:
    """Options that give the place on a law: its axes, or of a single one what its column counts."""
    if set(law.x) == {"x"}:
        return {{"N": "N", "D": "D"}.get(law.x["x"], "x")}
    return set(law.x)


def _asked(law: Law) -> str:
    return " and ".join(f"--{axis}" for axis in sorted(_axes(law), reverse=True))


def answer(told: Told, x: Mapping[str, float]) -> Answer:
    """The loss at x by the law, and the metrics by the maps, with intervals of one run."""
    found = forecast.predict(told.fit, x)
    loss, ends = found.value, found.interval
    if loss > log(told.n_items):
        raise InputError(
            f"{told.law.name}: no forecast: a loss of {loss:.3g} is above that of guessing among "
            f"{told.n_items:,} items, {log(told.n_items):.3g}; so few parameters or targets are no model"
        )
    metrics, cautions = {}, [forecast.warning(told.fit, x)]
    for one in told.maps:
        low, high = one.interval(loss, told.fit.level, ends)
        metrics[one.metric] = float(one.predict(loss)), float(low), float(high)
    cautions += [told.maps[0].warning(loss)] if told.maps else []
    return Answer(dict(x), loss, ends, metrics, [line for line in cautions if line] + told.no_map)


def _says(told: Told, found: Answer) -> str:
    """loss 5.4 [5.3, 5.5], HR@10 0.25 [0.24, 0.26], ..."""
    ends = ["not bounded" if end is None else f"{end:.4g}" for end in found.interval]
    words = [f"loss {found.loss:.4g} [{', '.join(ends)}]"]
    words += [
        f"{metric} {mid:.3g} [{low:.3g}, {high:.3g}]" for metric, (mid, low, high) in found.metrics.items()
    ]
    return ", ".join(words)


def _map_note(told: Told) -> list[str]:
    if not told.maps:
        return []
    errors = ", ".join(f"{one.metric} {100 * one.error:.2g} %" for one in told.maps)
    return [
        f"metrics by the map from the loss of {told.maps[0].runs} runs; error of a run left out: {errors}"
    ]


def place(told: Told, asked: Mapping[str, float]) -> Answer:
    """What the law says at a place: a value by axis, or of a law of one axis the only one.

    Raises InputError where the place is too far from the runs.
    """
    one = told.fit.shape.axes == ("x",)
    x = {"x": next(iter(asked.values()))} if one else asked
    if reason := forecast.refusal(told.fit, x):
        raise InputError(f"{told.law.name}: {reason}")
    return answer(told, x)


def place_text(told: Told, found: Answer) -> str:
    """What a terminal shows of a place."""
    at = ", ".join(f"{told.law.x[axis]} {value:,.4g}" for axis, value in found.x.items())
    lines = [f"{told.law.name} at {at}: {_says(told, found)} ({100 * told.fit.level:g} %, one run)"]
    lines += [forecast.evidence(told.fit), *_map_note(told)]
    return "\n".join([*lines, *(f"warning: {line}" for line in found.warnings)])


def place_json(told: Told, found: Answer) -> dict[str, Any]:
    """The same as plain JSON types."""
    return {"study": told.study.name, "law": told.law.name, "at": asdict(found)}


@dataclass(frozen=True)
class Spent:
    """What a budget buys, in `unit`, FLOPs or device hours, on no more data than there is.

    more: with all the data that the budget could pay for, where that is more than there is. no_more: why the
    law says nothing of that.
    """

    amount: float
    unit: str
    how: str
    best: budget.Best
    more: budget.Best | None
    no_more: str
    data: budget.Data
    ladder: list[budget.Rung]
    theta: Any


def spend(
    told: Told,
    folder: Path,
    entry: Mapping[str, Any],
    *,
    flops: float | None,
    hours: str | None,
    device: str,
    devices: int,
) -> Spent:
    """What so many FLOPs buy, or so many hours (`100GPUh`) of devices of that name.

    folder: of the prepared dataset; entry: what the datasets file says of it. Raises InputError.
    """
    counts = plan.counts(told.study.dataset, folder, entry)
    if counts.exact is None:  # what the runs had, where the prepared data are not here
        counts = replace(counts, n_items=told.n_items)
    shapes = budget.shapes(told.study, told.law)
    _, positions, targets = counts.epoch(shapes[0])
    if flops is not None:
        amount, unit, how = flops, "FLOPs", "C counts blocks, attention and the output layer"

        def price(run: Run) -> float:
            return training_flops(run, counts.n_items, positions, targets) / targets

    else:
        from recscale.plan import here  # imports torch, which a place does not need

        on = here.device(device, 1)
        chosen = computed(on, devices, 1, {})
        amount, unit = _hours(hours or ""), "GPUh" if on.kind == "cuda" else "h"
        how = f"on {devices} x {on.name} in {chosen.precision}, time as recscale plan estimates it"

        def price(run: Run) -> float:
            seconds = cost.run_seconds(on, chosen, run, counts)
            return seconds * chosen.processes / 3600 / (targets * run.course.epochs)

    law, (_, theta) = forecast.on_all(told.fit), forecast.refits(told.fit)
    data = budget.Data(targets, shapes[0].course.epochs)
    size = {"N": "n", "N_total": "n_total"}.get(told.law.x.get("N", ""), "n")
    ladder = [
        rung
        for rung in budget.rungs(shapes, counts.n_items, price)
        if not forecast.refusal(told.fit, {"N": float(getattr(rung, size))} if "N" in told.law.x else {})
    ]
    best = budget.choose(law, told.law, ladder, data, amount, theta)
    step = shapes[0].course.batch_size * shapes[0].windows.stride
    if best.choice.seen < step:
        raise InputError(
            f"budget: {amount:g} {unit} buy {best.choice.seen:.2g} targets, less than a step ({step})"
        )
    too_far, more = forecast.refusal(told.fit, best.choice.x), None
    if best.choice.available > targets:
        more, best = best, budget.choose(law, told.law, ladder, data, amount, theta, most=targets)
        if reason := forecast.refusal(told.fit, best.choice.x):
            raise InputError(f"{told.law.name}: {reason}")
    elif too_far:
        raise InputError(f"{told.law.name}: {too_far}")
    return Spent(amount, unit, how, best, more, too_far, data, ladder, theta)


def _hours(text: str) -> float:
    """Device hours of `100GPUh` or `100h`. Raises InputError."""
    number = text.lower().removesuffix("h").removesuffix("gpu").strip()
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not text.lower().endswith("h") or not 0 < value < float("inf"):
        raise InputError(f"--budget: {text} is not device hours, as 100GPUh")
    return value


def budget_lines(told: Told, spent: Spent) -> tuple[list[str], dict[str, Any]]:
    """What a terminal shows of a budget, and the same as plain JSON types: first what the data allow."""
    lines = [
        f"{told.study.name}: {spent.amount:.4g} {spent.unit} for one training, {spent.how}; {told.law.name}"
    ]
    best, more = spent.best, spent.more
    found = answer(told, best.choice.x)
    lead = "best" if more is None else "on the data there is, cheapest within noise of the best there"
    lines += [f"{lead}: {_choice(best.choice, spent)}", f"  {_says(told, found)}"]
    content: dict[str, Any] = {
        "study": told.study.name, "law": told.law.name, "budget": spent.amount, "unit": spent.unit,
        "best": asdict(best), "at": asdict(found),
    }  # fmt: skip
    cautions = list(found.warnings)
    if more is None:
        lines.append(_chosen(told, best))
    if best.next is not None:
        up = answer(told, best.next.x)
        lines += [
            f"one step up, {best.next.rung.size} on the same data: {best.next.cost:.3g} {spent.unit} "
            f"({best.next.cost / best.choice.cost:.2g} times)",
            f"  {_says(told, up)}",
        ]
        content["step_up"] = asdict(up)
    if more is not None:
        times = more.choice.available / spent.data.targets
        lines.append(f"the budget would pay for {times:.3g} times the data there is: ")
        if spent.no_more:
            lines[-1] += spent.no_more
        else:
            with_more = answer(told, more.choice.x)
            lines[-1] += _choice(more.choice, spent)
            lines += [f"  {_says(told, with_more)}", _chosen(told, more)]
            content |= {"more_data": asdict(more), "more_data_at": asdict(with_more)}
            cautions += [f"with more data: {line}" for line in with_more.warnings if line not in cautions]
    if (more or best).at_end:
        end = (more or best).at_end
        cautions.insert(0, f"the best is the {end} of the ladder: the true best may lie beyond")
    if told.law.x["D"] == "D_seen" and "U" not in told.law.x and best.choice.seen > best.choice.available:
        cautions.insert(0, f"{told.law.name} takes repeated data for new; a law with U would not")
    lines += [forecast.evidence(told.fit), *_map_note(told), *(f"warning: {line}" for line in cautions)]
    return lines, content


def _chosen(told: Told, best: budget.Best) -> str:
    """What refits of the law choose."""
    if best.n_interval is None or best.seen_interval is None:
        return "  no interval of the best size: the law has too few runs to resample"
    n, seen = best.n_interval, best.seen_interval
    return (
        f"  {100 * told.fit.level:g} % of refits choose N from {n[0]:,.0f} to {n[1]:,.0f}, targets seen "
        f"from {seen[0]:.3g} to {seen[1]:.3g}"
    )


def _choice(choice: budget.Choice, spent: Spent) -> str:
    epochs = choice.seen / choice.available
    return (
        f"{choice.rung.size} (N {choice.rung.n:,}, all parameters {choice.rung.n_total:,}) on "
        f"{choice.available:.3g} targets, {epochs:.3g} epochs: {choice.cost:.3g} {spent.unit}"
    )


def around(told: Told, spent: Spent) -> tuple[list[float], list[budget.Best]]:
    """Budgets from a thirtieth of this one to ten times, and the best of each."""
    budgets = [spent.amount * 10 ** (step / 4) for step in range(-6, 5)]
    law, most = forecast.on_all(told.fit), None if spent.more is None else float(spent.data.targets)
    bests = [
        budget.choose(law, told.law, spent.ladder, spent.data, amount, spent.theta, most)
        for amount in budgets
    ]
    return budgets, bests
