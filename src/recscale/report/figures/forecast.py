"""Figures of forecasts: a law drawn out to the place asked for, and what a budget buys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recscale.laws import solver
from recscale.laws.forecast import along, warning
from recscale.laws.form import Array
from recscale.laws.result import Fit
from recscale.plan.budget import Best, Choice
from recscale.report.figures.marks import GREY
from recscale.report.figures.style import OKABE_ITO, STYLE, save

INK, FAR = OKABE_ITO[0], OKABE_ITO[1]
POINTS = 41


def place(fit: Fit, x: Mapping[str, float], out: Path, y_name: str = "y") -> None:
    """Write the law along its first axis, through x, with the runs and the forecast."""
    axis, *others = fit.shape.axes
    held = [entry for entry in fit.held_out if entry["measured"] is not None]
    runs = pd.DataFrame(fit.points_used)
    fit = fit.final or fit
    every = pd.DataFrame(fit.points_used)[axis]
    grid = np.geomspace(min(every.min(), x[axis]), max(every.max(), x[axis]), POINTS)
    said = along(fit, {axis: [*grid, x[axis]]} | {name: [x[name]] * (POINTS + 1) for name in others})
    rows: list[dict[str, Any]] = [{"series": "curve", axis: at.x[axis], "y": at.value} for at in said]
    for row, at in zip(rows, said, strict=True):
        row["lo"], row["hi"] = at.interval
    rows[-1]["series"] = "forecast"
    tested = pd.DataFrame(
        [{axis: entry[axis], "y": entry["measured"]} for entry in held], columns=[axis, "y"]
    )
    parts = [runs.assign(series="run"), tested.assign(series="held_out"), pd.DataFrame(rows)]
    table = pd.concat(parts, ignore_index=True)
    table[["lo", "hi"]] = table[["lo", "hi"]].astype(float)
    curve, point = table[table["series"] == "curve"], table[table["series"] == "forecast"].iloc[0]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5, 3.4), layout="constrained")
        panel = figure.subplots()
        panel.plot(curve[axis], curve["y"], color=INK, label="law, and interval of one run")
        panel.fill_between(curve[axis], curve["lo"], curve["hi"], color=INK, alpha=0.15, lw=0)
        label = f"runs, each at its own {' and '.join(others)}" if others else "runs"
        looks: dict[str, Any] = {"color": GREY if others else INK, "ms": 4, "linestyle": ""}
        panel.plot(runs[axis], runs["y"], "o", label=label, **looks)
        if held:
            panel.plot(tested[axis], tested["y"], "o", label="held out", mfc="white", **looks)
        panel.plot([point[axis]] * 2, [point["lo"], point["hi"]], "_-", color=FAR, lw=1)
        panel.plot(point[axis], point["y"], "*", color=FAR, ms=10, linestyle="", label="forecast")
        _log(panel, fit.x if axis == "x" else axis)
        panel.set_ylabel(y_name)
        panel.legend()
        _below(figure, warning(fit, x))
        save(figure, table, out)


def budget(
    fit: Fit, best: Best, budgets: Sequence[float], bests: Sequence[Best], unit: str, theta: Array, out: Path
) -> None:
    """Write what a budget buys on each rung of the ladder, and the best of more and of less money."""
    parts = [_said(fit, best.ladder, theta).assign(series="rung")]
    parts.append(_said(fit, [best.choice], theta).assign(series="best"))
    chosen = [one.choice for one in bests]
    parts.append(_said(fit, chosen, theta).assign(series="budget", budget=budgets))
    table = pd.concat(parts, ignore_index=True)
    rungs, star, line = (table[table["series"] == series] for series in ("rung", "best", "budget"))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        left.plot(rungs["N"], rungs["loss"], "o-", color=INK, ms=4)
        left.fill_between(rungs["N"], rungs["lo"], rungs["hi"], color=INK, alpha=0.15, lw=0)
        left.plot(star["N"], star["loss"], "*", color=FAR, ms=11, zorder=5)
        left.set_title(f"the ladder for {best.choice.cost:.3g} {unit}")
        _log(left, "$N$, non-embedding parameters")
        left.set_ylabel("test loss by the law (nats)")
        right.plot(line["budget"], line["loss"], "-", color=INK)
        right.fill_between(line["budget"], line["lo"], line["hi"], color=INK, alpha=0.15, lw=0)
        right.plot(star["cost"], star["loss"], "*", color=FAR, ms=11, zorder=5)
        names = line["size"].where(line["size"] != line["size"].shift())
        for row, name in zip(line.itertuples(), names, strict=True):
            if isinstance(name, str):
                right.plot(row.budget, row.loss, "o", color=INK, ms=4)
                right.annotate(name, (row.budget, row.loss), (3, 5), textcoords="offset points", fontsize=7.5)
        right.set_title("the best of each budget")
        _log(right, f"budget of one training ({unit})")
        spread = table.loc[table["series"] != "budget", "loss"]
        low, high = float(table["loss"].min()), float(max(spread.min() * 1.25, line["loss"].max()))
        left.set_ylim(low - 0.1 * (high - low), high + 0.05 * (high - low))
        level = f"band: {100 * fit.level:g} % of refits to resampled runs" if len(theta) > 1 else ""
        _below(figure, "; ".join(part for part in (level, warning(fit, best.choice.x)) if part))
        save(figure, table, out)


def _said(fit: Fit, choices: Sequence[Choice], theta: Array) -> pd.DataFrame:
    """A row a choice, with the percentiles of the refits."""
    form = fit.shape
    at = form.logs({axis: np.array([choice.x[axis] for choice in choices]) for axis in form.axes})
    values = np.exp(solver.modelled(form, theta, at)[0])
    lo, hi = np.percentile(values, [50 * (1 - fit.level), 50 * (1 + fit.level)], axis=0)
    if len(theta) == 1:
        lo = hi = np.full(len(choices), np.nan)
    columns = {
        "size": [choice.rung.size for choice in choices],
        "N": [choice.rung.n for choice in choices],
        "seen": [choice.seen for choice in choices],
        "cost": [choice.cost for choice in choices],
        "loss": [choice.loss for choice in choices],
    }
    return pd.DataFrame(columns | {"lo": lo, "hi": hi})


def _log(axis: Axes, label: str) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    axis.set_xlabel(label)


def _below(figure: Figure, text: str) -> None:
    if text:
        figure.supxlabel(text, x=0.02, ha="left", fontsize=7, wrap=True)
