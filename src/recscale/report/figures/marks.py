"""Axes and marks that the figures share: panels, broken and log axes, lines, bands and symbols."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recscale.laws.result import Fit, Status
from recscale.study.problems import NEXT_ITEM

GREY = "0.45"
SEEDS = "os^Dv<>P"  # a symbol a seed
FAR = 0.6  # a line that is further from the runs, in their spans, gets a panel of its own
OPEN = 1e3  # nats: where an interval has no end, its band leaves the panel
# A fit of any other status is no line that a reader should follow: only its runs are drawn.
LINE: dict[str, Any] = {
    Status.CONVERGED: "-", Status.OUTLIERS: "--", Status.BOUND_HIT: "--", Status.NOT_IDENTIFIED: "--",
    Status.UNDERDETERMINED: "--", Status.TOO_FEW_RUNS: "--", Status.OPEN: "--",
}  # fmt: skip
DASHES = (":", "-.")
REFERENCES: dict[str, tuple[str, Any]] = {
    name: (label, dash) for (name, label), dash in zip(NEXT_ITEM.references.items(), DASHES, strict=True)
}


def rows(table: pd.DataFrame, *series: str) -> list[Any]:
    return list(table[table["series"].isin(series)].itertuples())


def ladder(table: pd.DataFrame) -> list[str]:
    """The sizes from small N to large, where N ties by the numbers in their names: 2x256 before 8x128."""
    sizes = table.drop_duplicates("size")[["N", "size"]].itertuples(index=False, name=None)
    return [size for _, size in sorted(sizes, key=lambda one: (one[0], _numbers(one[1]), one[1]))]


def _numbers(name: str) -> list[int]:
    return [int(digits) for digits in re.findall("[0-9]+", name)]


# --- axes ---


def loss_panel(table: pd.DataFrame, label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axis = figure.subplots()
    ((low, high, *_),) = ranges(table, [])
    axis.set_ylim(low, high)
    axis.set_ylabel(label)
    return figure, axis


def ranges(table: pd.DataFrame, lines: Sequence[float]) -> list[tuple[float, float, int, bool]]:
    """Panels from top to bottom: low and high loss, lines in it, whether it is the runs' own.

    A line far from the runs would flatten their curve: it gets a panel above or below.
    """
    y = table.loc[~table["series"].isin(["reference", "irreducible_loss"]), "y"].dropna()
    y = y if len(y) else pd.Series(lines or [0.0])
    low, high = float(y.min()), float(y.max())
    span = max(high - low, 0.1)
    # Wide bands and intervals may leave the panel, which shows that they are wide.
    band = table.loc[table["series"].isin(["line", "predicted"]), ["lo", "hi"]].stack()
    ends = list(band.dropna().clip(low - 0.3 * span, high + 0.3 * span))
    near = [line for line in lines if low - FAR * span <= line <= high + FAR * span]
    low, high = min([low, *ends, *near]), max([high, *ends, *near])
    pad = max(0.07 * span, (0.1 - high + low) / 2)
    above, below = [v for v in lines if v > high], [v for v in lines if v < low]
    # Panels must not overlap: a run would be drawn in both.
    top = min([high + pad, *((high + v) / 2 for v in above)])
    bottom = max([low - pad, *((low + v) / 2 for v in below)])
    ranges = [(bottom, top, len(near), True)]
    for place, far, gap in (
        (0, above, min(above, default=top) - top),
        (1, below, bottom - max(below, default=bottom)),
    ):
        if far:
            pad = min(max(0.07 * span, 0.35 * (max(far) - min(far))), 0.9 * gap)
            ranges.insert(place * len(ranges), (min(far) - pad, max(far) + pad, len(far), False))
    return ranges


def break_axis(axes: Sequence[Axes]) -> None:
    """Slanted marks where the loss axis is broken between panels."""
    slash: dict[str, Any] = {"marker": [(-1, -0.6), (1, 0.6)], "ms": 7, "mew": 0.7, "color": "k"}
    for upper, lower in pairwise(axes):
        upper.spines["bottom"].set_visible(False)
        upper.tick_params(axis="x", which="both", bottom=False)
        for axis, y in ((upper, 0), (lower, 1)):
            axis.plot(0, y, transform=axis.transAxes, clip_on=False, **slash)


def log_x(axes: Sequence[Axes], table: pd.DataFrame, label: str) -> None:
    """A logarithmic x axis: ticks at the values themselves where they fit, else powers of ten."""
    values = np.unique(table.loc[table["series"] != "diverged", "x"].dropna())
    values = values if len(values) else np.array([1.0, 10.0])
    low, high = values[0], values[-1]
    pad = 2.0 if low == high else max(1.15, (high / low) ** 0.05)
    measured = np.unique(table.loc[~table["series"].isin(["line", "diverged"]), "x"].dropna())
    gaps = np.diff(np.log(measured)) / np.log(high / low * pad**2)
    for axis in axes:
        axis.set_xscale("log")
        axis.set_xlim(low / pad, high * pad)
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        if len(measured) and (gaps > 0.15).all():
            axis.xaxis.set_major_locator(ticker.FixedLocator(measured.tolist()))
            axis.xaxis.set_minor_locator(ticker.NullLocator())
        elif high / low < 50:
            axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        else:
            continue
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _short(value)))
    axes[-1].set_xlabel(label)


def _short(value: float) -> str:
    units = ((1e9, " G"), (1e6, " M"), (1e3, " k"), (0, ""))
    unit, letter = next((unit, letter) for unit, letter in units if value >= unit)
    return f"{value / (unit or 1):.3g}{letter}"


# --- marks ---


def draw_lines(axis: Axes, rows: Sequence[Any], form: str, gap: float, colours: Mapping[str, Any]) -> None:
    """Level lines, named beside the panel, where they hide no run; `gap` of its height apart."""
    low, high = axis.get_ylim()
    place = -np.inf
    for row in sorted(rows, key=lambda row: row.y):
        text, style, ink = "irreducible loss $E$", (0, (1, 1)), colours.get(row.name, GREY)
        if row.series == "reference":
            text, style = REFERENCES[row.name]
        text += f"\n{form.format(row.y)}"
        if row.series == "irreducible_loss":
            text += f" [{form.format(row.lo)}, {form.format(row.hi)}]"
        axis.axhline(row.y, color=ink, linestyle=style, linewidth=1, zorder=1)
        place = max(row.y, place + gap * (high - low))
        at = axis.get_yaxis_transform()
        axis.annotate(text, (1, place), (4, 0), at, "offset points", va="center", fontsize=7.5)


def draw_laws(axis: Axes, table: pd.DataFrame, fits: Mapping[str, Fit], colours: Mapping[str, Any]) -> None:
    filled = table.assign(low=table["lo"].fillna(-OPEN), high=table["hi"].fillna(OPEN))
    for name, part in filled[filled["series"] == "line"].groupby("name", sort=False):
        ink, band = colours[name], part[part["lo"].notna() | part["hi"].notna()]
        axis.plot(part["x"], part["y"], LINE[fits[name].status], color=ink, zorder=2)
        axis.fill_between(band["x"], band["low"], band["high"], color=ink, alpha=0.15, lw=0)
    for row in rows(filled, "predicted"):
        ink = colours[row.name]
        if pd.notna(row.lo) or pd.notna(row.hi):
            axis.plot([row.x] * 2, [row.low, row.high], "_-", color=ink, lw=1, ms=5, zorder=3)
        axis.plot(row.x, row.y, "x", color=ink, ms=5, zorder=5)


def seeds(table: pd.DataFrame) -> dict[int, str]:
    seeds = sorted(set(table["seed"].dropna().astype(int)))
    return {seed: SEEDS[place % len(SEEDS)] for place, seed in enumerate(seeds)}


def draw_runs(axis: Axes, table: pd.DataFrame, inks: Mapping[str, Any], size: float = 5) -> None:
    """Filled symbols, a shape a seed; open where a law predicts the run."""
    for place, (seed, marker) in enumerate(seeds(table).items()):
        ms = size * 0.85**place  # so that none hides under the next
        for row in rows(table[table["seed"] == seed], "run", "fitted", "held_out"):
            ink = inks[row.run]
            face, edge, width = ("none", ink, 1) if row.series == "held_out" else (ink, "w", 0.4)
            axis.plot(row.x, row.y, marker, ms=ms, mfc=face, mec=edge, mew=width, zorder=4)
