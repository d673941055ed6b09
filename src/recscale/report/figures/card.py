"""The figure of a data card: lengths, popularity, times and gaps, or where items repeat."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recscale.next_item.card import Histories, gaps, item_counts, repeated
from recscale.next_item.sequences import UNKNOWN, Ints
from recscale.report.figures.style import OKABE_ITO, STYLE, save

DAY = 86_400  # seconds


def write(log: Histories, content: dict[str, Any], out: Path) -> None:
    """Write the figure of a card to `out`, a .png path, with .pdf and .csv beside it."""
    table = plotted(log, content)
    with matplotlib.rc_context(STYLE):
        save(draw(table, content), table, out)


def plotted(log: Histories, content: dict[str, Any]) -> pd.DataFrame:
    """What the figure shows: series, x, x_end (of a bin, which ends before it) and y."""
    counts, known = item_counts(log), log.time[log.time != UNKNOWN]
    rank = np.unique(np.geomspace(1, len(counts), 300).astype(np.int64))
    parts = [_density("lengths", log.length), _rows("items", rank, counts[rank - 1])]
    slope = content["popularity"]["zipf"]["slope"]
    if slope is not None:
        scale = counts.sum() / (np.arange(1, len(counts) + 1) ** -slope).sum()
        parts.append(_rows("zipf", rank, scale * rank**-slope))
    if len(known):
        a_day = np.bincount(known // DAY - known.min() // DAY)
        begin = np.arange(0, len(a_day), -(-len(a_day) // 60))
        end = np.append(begin[1:], len(a_day))
        y = np.add.reduceat(a_day, begin) / (end - begin)
        day = known.min() // DAY
        parts += [_rows("interactions", day + begin, y, day + end), _density("gaps", gaps(log))]
    else:
        edges = _edges(log.place + 1)
        seen, again = (np.histogram(place + 1, edges)[0] for place in (log.place, log.place[repeated(log)]))
        share = again[seen > 0] / seen[seen > 0]
        parts.append(_rows("repeats", edges[:-1][seen > 0], share, edges[1:][seen > 0]))
    return pd.concat(parts, ignore_index=True)


def _rows(series: str, x: Any, y: Any, end: Any = None) -> pd.DataFrame:
    return pd.DataFrame({"series": series, "x": x, "x_end": np.nan if end is None else end, "y": y})


def _edges(values: Ints) -> Ints:
    """Edges of bins of whole numbers, about evenly wide on a log axis; the last bin holds the largest."""
    low, high = max(1, int(values.min())), max(1, int(values.max()))
    return np.unique(np.geomspace(low, high + 1, 41).astype(np.int64))


def _density(series: str, values: Ints) -> pd.DataFrame:
    """How many values there are a unit, for those from 1."""
    values = values[values > 0]
    if not len(values):
        return _rows(series, [], [], [])
    edges = _edges(values)
    return _rows(series, edges[:-1], np.histogram(values, edges)[0] / np.diff(edges), edges[1:])


def draw(table: pd.DataFrame, content: dict[str, Any]) -> Figure:
    """Four panels from the rows of `plotted` and the numbers of the card."""
    series = {name: rows for name, rows in table.groupby("series") if len(rows)}
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    (length, items), (time, more) = figure.subplots(2, 2)
    counts = (f"{content[name]:,} {name}" for name in ("users", "items", "interactions"))
    figure.suptitle(f"{content['dataset']}: {', '.join(counts)}", fontsize=9)
    _stairs(length, series.get("lengths"), "interactions of a user", "users with that many")
    items.plot(series["items"]["x"], series["items"]["y"], ".", color=OKABE_ITO[0], ms=3)
    if "zipf" in series:
        zipf = content["popularity"]["zipf"]
        label = f"Zipf, slope {zipf['slope']:.2f}\n(distance {zipf['distance']:.2f})"
        items.plot(series["zipf"]["x"], series["zipf"]["y"], "-", color=OKABE_ITO[1], label=label)
        items.set_ylim(bottom=0.7)
        items.legend(loc="lower left")
    items.set(xscale="log", yscale="log", xlabel="rank of the item", ylabel="interactions of the item")
    if "interactions" not in series:
        _empty(time, "order only:\nno timestamps")
        _stairs(more, series.get("repeats"), "place in the user's history", "share of repeats", "linear")
        more.set_ylim(0, max(0.01, 1.08 * float(series["repeats"]["y"].max())))
        return figure
    rows = series["interactions"]
    edges = np.append(rows["x"], rows["x_end"].iloc[-1])
    time.stairs(rows["y"], edges, fill=True, color=OKABE_ITO[0])
    time.set_ylabel("interactions a day")
    time.xaxis.set_major_locator(ticker.MaxNLocator(3, integer=True, min_n_ticks=1))
    time.xaxis.set_major_formatter(ticker.FuncFormatter(lambda day, _: str(np.datetime64(int(day), "D"))))
    _stairs(more, series.get("gaps"), "gap between interactions (s)", "gaps of that many seconds")
    more.set_title(f"{100 * content['time']['ties']:.3g} % of interactions tie with another", fontsize=8)
    return figure


def _stairs(axis: Axes, rows: pd.DataFrame | None, x: str, y: str, scale: str = "log") -> None:
    if rows is None:
        _empty(axis, f"no {x}")
        return
    axis.set(xscale="log", yscale=scale, xlabel=x, ylabel=y)
    edges = np.append(rows["x"], rows["x_end"].iloc[-1])
    low = float(rows.loc[rows["y"] > 0, "y"].min()) / 2 if scale == "log" else 0.0
    axis.stairs(rows["y"].clip(lower=low), edges, baseline=low, fill=True, color=OKABE_ITO[0])


def _empty(axis: Axes, text: str) -> None:
    axis.set_axis_off()
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center")
