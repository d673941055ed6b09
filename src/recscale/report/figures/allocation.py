"""One figure of the best N and D for a budget: curves with their envelope, valleys, best N against C."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import cm, ticker
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from recscale.laws.allocation import Allocations, Found
from recscale.laws.form import Array
from recscale.laws.isoflop import isoflops
from recscale.report.figures.marks import GREY
from recscale.report.figures.style import OKABE_ITO, STYLE, save

INKS = dict(zip(("frontier", "isoflop", "parametric"), OKABE_ITO, strict=False))
MARKS = {"frontier": "o", "isoflop": "s", "parametric": "^"}


def numbers(found: Allocations) -> pd.DataFrame:
    """Every number that the figure shows.

    series: row (of a run), valley (a run of a budget), floor (its spline), optimum (a winner, or a minimum)
    and budget (the best N there, with its interval in lo and hi); way, run, C, N, y where they apply.
    """
    positive, curves = found.law.shape.positive, found.curves
    rows = pd.DataFrame(
        {"series": "row", "run": curves.run, "C": np.exp(curves.log_c), "N": np.exp(curves.log_n)}
    )
    rows["y"] = _y(curves.value, positive)
    parts = [rows.sort_values(["run", "C"], kind="stable")]
    for part in isoflops(curves, found.level):
        c = float(np.exp(part.log_c))
        for series, log_n, value in (
            ("isoflop", part.log_n, part.value),
            ("floor", part.grid[::8], part.floor[::8]),
        ):
            parts.append(
                pd.DataFrame({"series": series, "C": c, "N": np.exp(log_n), "y": _y(value, positive)})
            )
            if series == "isoflop":
                parts[-1]["run"] = part.run
    for way in found.ways:
        if way.points:
            parts.append(pd.DataFrame(way.points).drop(columns="D").assign(series="optimum", way=way.way))
        for c, n, (low, high) in zip(found.budgets, way.n, way.n_intervals, strict=False):
            parts.append(
                pd.DataFrame([{"series": "budget", "way": way.way, "C": c, "N": n, "lo": low, "hi": high}])
            )
    table = pd.concat(parts, ignore_index=True).astype({"run": "Int64"})
    return table.reindex(columns=["series", "way", "run", "C", "N", "y", "lo", "hi"])


def _y(value: Array, positive: bool) -> Array:
    return np.asarray(np.exp(value) if positive else -value)


def draw(found: Allocations, y_name: str, out: Path) -> None:
    """Write the figure to `out`, a .png path, with .pdf and .csv beside it."""
    table = numbers(found)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.2, 3.4), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        _curves(figure, left, table, y_name)
        _isoflops(figure, middle, table, y_name)
        _optima(right, table, found)
        save(figure, table, out)


def _curves(figure: Figure, axis: Axes, table: pd.DataFrame, y_name: str) -> None:
    rows, best = table[table["series"] == "row"], _optimum(table, "frontier")
    norm, colours = LogNorm(rows["N"].min(), rows["N"].max()), matplotlib.colormaps["viridis"]
    for _, run in rows.groupby("run", sort=False):
        ink = colours(norm(run["N"].iloc[0]))
        if len(run) > 1:
            axis.plot(run["C"], run["y"], color=ink, lw=0.7)
        else:
            axis.plot(run["C"], run["y"], "o", color=ink, ms=2.5)
    axis.plot(best["C"], best["y"], color=INKS["frontier"], lw=1.6, marker=".", ms=3, label="frontier")
    axis.set_xscale("log")
    axis.set_xlabel("$C$, training FLOPs")
    axis.set_ylabel(y_name)
    _tight(axis, rows["y"], best["y"])
    figure.colorbar(cm.ScalarMappable(norm, colours), ax=axis, label="$N$", pad=0.01)
    if len(best):
        axis.legend()


def _tight(axis: Axes, y: pd.Series, best: pd.Series) -> None:
    """What is far above a frontier of losses (the first steps of a run) may leave the panel."""
    if len(best) and best.iloc[-1] < best.iloc[0]:
        span = max(float(best.max() - best.min()), 1e-9)
        axis.set_ylim(float(y.min()) - 0.1 * span, min(float(y.max()), float(best.max()) + span))


def _isoflops(figure: Figure, axis: Axes, table: pd.DataFrame, y_name: str) -> None:
    rows, floors, best = (
        table[table["series"] == "isoflop"], table[table["series"] == "floor"], _optimum(table, "isoflop")
    )  # fmt: skip
    if rows.empty:
        axis.text(0.5, 0.5, "no budget has enough sizes", ha="center", transform=axis.transAxes, color=GREY)
        axis.set_axis_off()
        return
    colours = matplotlib.colormaps["plasma"]
    low, high = float(rows["C"].min()), float(rows["C"].max())
    norm = LogNorm(low, high if high > low else 2 * low)
    for c, part in rows.groupby("C"):
        ink, floor = colours(0.9 * norm(c)), floors[floors["C"] == c]
        axis.plot(part["N"], part["y"], "o", color=ink, ms=2)
        refused = not np.isclose(best["C"], c).any()
        axis.plot(floor["N"], floor["y"], ":" if refused else "-", color=ink, lw=0.9)
    axis.plot(best["N"], best["y"], MARKS["isoflop"], color=INKS["isoflop"], mec="w", ms=4.5, label="minimum")
    _log(axis, rows["N"])
    axis.set_xlabel("$N$")
    axis.set_ylabel(y_name)
    figure.colorbar(cm.ScalarMappable(norm, colours), ax=axis, label="$C$ (dotted: refused)", pad=0.01)
    if len(best):
        axis.legend()


def _optima(axis: Axes, table: pd.DataFrame, found: Allocations) -> None:
    budgets = table[table["series"] == "budget"]
    if budgets.empty:
        axis.text(0.5, 0.5, "all three ways refused", ha="center", transform=axis.transAxes, color=GREY)
        axis.set_axis_off()
        return
    for place, way in enumerate(found.ways):
        if way.status is Found.REFUSED or way.a is None:
            axis.plot([], [], color=INKS[way.way], marker=MARKS[way.way], ls="", label=f"{way.way}: refused")
            continue
        ink, points = INKS[way.way], _optimum(table, way.way)
        axis.plot(points["C"], points["N"], MARKS[way.way], color=ink, ms=2.5, alpha=0.6)
        rows = budgets[budgets["way"] == way.way]
        ends = np.array([found.measured[0], max(found.measured[1], found.budgets[-1])])
        style = "-" if way.status is Found.FOUND else "--"
        line = way.n[0] * (ends / found.budgets[0]) ** way.a
        axis.plot(ends, line, style, color=ink, label=f"{way.way}: $C^{{{way.a:.3f}}}$")
        at = rows["C"] * 1.12 ** (place - 1)  # side by side
        axis.vlines(at, rows["lo"], rows["hi"], color=ink, lw=1.4)
        axis.plot(at, rows["N"], MARKS[way.way], color=ink, mec="w", ms=5)
    axis.axvspan(*found.measured, color=GREY, alpha=0.1, lw=0)
    axis.set_xscale("log")
    axis.set_yscale("log")
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_minor_formatter(ticker.NullFormatter())
    axis.set_xlabel("$C$, training FLOPs (shaded: measured)")
    axis.set_ylabel("best $N$")
    axis.legend()


def _log(axis: Axes, x: pd.Series) -> None:
    """A logarithmic x axis with ticks at powers of ten, or at 1, 2 and 5 times them where there are few."""
    axis.set_xscale("log")
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    if x.max() < 50 * x.min():
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:.0e}"))


def _optimum(table: pd.DataFrame, way: str) -> pd.DataFrame:
    return table[(table["series"] == "optimum") & (table["way"] == way)]
