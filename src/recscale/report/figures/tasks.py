"""A figure a task, from the table of tasks alone, by the conventions of the others.

A line is a size: the mean of the runs that differ in nothing but the seed, on the largest share of the data
of the task. Bars are intervals over cases of one run, averaged over these runs.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from recscale.errors import InputError
from recscale.files import read_table, table_path
from recscale.next_item.tasks.cold_start import SEEN, UNSEEN
from recscale.next_item.tasks.domains import DIFF, MIX
from recscale.next_item.tasks.long_tail import GROUPS
from recscale.next_item.tasks.robustness import CLOSED_UP, OVERWRITTEN
from recscale.next_item.tasks.table import COLUMNS, LEVEL
from recscale.next_item.tasks.trajectory import GREEDY, ONE_SHOT
from recscale.report.figures import marks
from recscale.report.figures.marks import GREY
from recscale.report.figures.style import STYLE, save
from recscale.study.study import Study

Drawn = tuple[Figure, pd.DataFrame]
Y = ["y", "lo", "hi"]
CHANGED = {"change": "y", "change_lo": "lo", "change_hi": "hi"}
DRAWN = ["panel", "size", "N", "runs", "group", "x", "cases", *Y]
GAIN = "relative gain in HR@10"
BARS = f"Bars: {100 * LEVEL:g} % intervals over test cases of one run, not over trainings."


def long_tail(table: pd.DataFrame) -> Drawn:
    """HR@10 of the four groups of items, and its gain over the smallest size."""
    shown = _full(table[table["metric"] == "HR@10"]).assign(x=lambda t: t["group"].map(GROUPS.index))
    figure, axes = _panels(2, 2.9)
    along = ("x", "group")
    drawn = [_means(shown, "HR@10", {"value": "y"}, along), _means(_compared(shown), "gain", CHANGED, along)]
    for axis, part, label in zip(axes, drawn, ("HR@10", GAIN), strict=True):
        _lines(axis, part, _inks(table), dodge=0.06)
        axis.set_xticks(range(len(GROUPS)), GROUPS)
        axis.set_xlabel("a quarter of the interactions each,\nthe most frequent items first")
        axis.set_ylabel(label)
    axes[0].set_ylim(bottom=0)
    _percent(axes[1])
    against = f"Gain: over {_smallest(table)}, on the same cases."
    return _finished(figure, table, "Long-tail items", pd.concat(drawn), [], [against, BARS])


def cold_start(table: pd.DataFrame) -> Drawn:
    """HR@10 and coverage@10 by the length of the input, users in training and held out."""
    seen, unseen = table[table["group"] == SEEN], table[table["group"] == UNSEEN]
    shown = pd.concat([_full(seen), _full(unseen)])
    figure, axes = _panels(2, 2.9)
    looks, drawn = {SEEN: "-", UNSEEN: "--"}, []
    for axis, metric in zip(axes, ("HR@10", "coverage@10"), strict=True):
        part = _means(shown[shown["metric"] == metric], metric, {"value": "y"})
        _lines(axis, part, _inks(table), looks, dodge=0.4)
        axis.set_xticks(sorted(part["x"].unique()))
        axis.set_xlabel("last items of the input")
        axis.set_ylabel(metric)
        axis.set_ylim(bottom=0)
        drawn.append(part)
    part = pd.concat(drawn)
    counts = [
        f"{name}: {_range(rows['cases'])} users, {_shares(shown[shown['group'] == name])}"
        for name, rows in part.groupby("group", sort=False)
    ]
    handles = _styles({name: looks[name] for name in looks if name in set(part["group"])})
    if len(handles) > 1:
        counts.append(
            "More users have more lists, so more coverage: compare sizes with it, not the two groups."
        )
    return _finished(figure, table, "Cold-start users", part, handles, [*counts, BARS])


def domains(table: pd.DataFrame) -> Drawn:
    """HR@10 of all sizes where the input has the target's domain and where not, and the gain of each.

    No line joins sizes: shapes of about one N (2x1200 beside 24x512) are no ladder.
    """
    groups = [name for name in (MIX, DIFF) if name in set(table["group"])]
    shown = _full(table[table["metric"] == "HR@10"]).assign(x=lambda t: t["group"].map(groups.index))
    figure, axes = _panels(2, 2.9)
    drawn = [_means(shown, "HR@10", {"value": "y"}), _means(_compared(shown), "gain", CHANGED)]
    names = [f"{name}\n{_range(shown.loc[shown['group'] == name, 'cases'])} cases" for name in groups]
    inks = _inks(table)
    for axis, part, label in zip(axes, drawn, ("HR@10", GAIN), strict=True):
        _lines(axis, part, inks, dict.fromkeys(groups, "none"), dodge=0.7 / len(inks))
        axis.set_xticks(range(len(groups)), names)
        axis.set_xlim(-0.5, len(groups) - 0.5)
        axis.set_xlabel("the target's domain among\nthose of the input")
        axis.set_ylabel(label)
    axes[0].set_ylim(bottom=0)
    _percent(axes[1])
    notes = [f"Gain: over {_smallest(table)}, on the same cases.", BARS]
    return _finished(figure, table, "Multi-domain transfer", pd.concat(drawn), [], notes)


def robustness(table: pd.DataFrame) -> Drawn:
    """The drop of HR@10 against the clean input, by eta; mean of the seeds of the noise."""
    shown = _compared(_full(table[table["metric"] == "HR@10"]))
    for column in ("change", "change_lo", "change_hi"):
        shown[column] = -shown[column]
    shown = shown.rename(columns={"change_lo": "change_hi", "change_hi": "change_lo"})
    figure, axes = _panels(2, 2.9, sharey=True)
    drawn = []
    for axis, name in zip(axes, (OVERWRITTEN, CLOSED_UP), strict=True):
        part = _means(shown[shown["group"] == name], name, CHANGED)
        _lines(axis, part, _inks(table), dodge=0.004)
        axis.set_title("half replaced, half " + {OVERWRITTEN: "overwritten", CLOSED_UP: "taken out"}[name])
        axis.set_xlabel(r"$\eta$, share of the items disturbed")
        drawn.append(part)
    axes[0].set_ylabel("relative drop of HR@10")
    axes[0].set_ylim(bottom=min(0.0, *axes[0].get_ylim()))
    axes[0].yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f} %")
    seeds = shown.groupby("x")["noise"].nunique().max() if len(shown) else 0
    notes = [f"At 0.3 the mean of {seeds} seeds of the noise.", BARS]
    return _finished(figure, table, "Robustness", pd.concat(drawn), [], notes)


def trajectory(table: pd.DataFrame) -> Drawn:
    """HR, NDCG and BLEU of the first j of ten withheld items."""
    shown, looks, drawn = _full(table), {GREEDY: "-", ONE_SHOT: "--"}, []
    figure, axes = _panels(3, 2.7)
    for axis, metric in zip(axes, ("HR", "NDCG", "BLEU"), strict=True):
        part = _means(shown[shown["metric"] == metric], metric, {"value": "y"})
        _lines(axis, part, _inks(table), looks, bars=False)
        axis.set_ylabel(f"{metric}@$j$")
        axis.set_ylim(bottom=0)
        axis.xaxis.set_major_locator(ticker.MultipleLocator(3, offset=1))
        axis.set_xlabel("$j$, items predicted")
        drawn.append(part)
    last = shown[
        (shown["metric"] == "distinct") & (shown["group"] == GREEDY) & (shown["x"] == shown["x"].max())
    ]
    notes = [
        f"{_range(shown['cases'])} users. BLEU has longer n-grams at each j up to 4. Of the ten greedy "
        f"predictions {_percents(last['value'])} are distinct: repeated ones count once."
    ]
    return _finished(figure, table, "Trajectory", pd.concat(drawn), _styles(looks), notes)


FIGURES: dict[str, Callable[[pd.DataFrame], Drawn]] = {
    "long_tail": long_tail,
    "cold_start": cold_start,
    "domains": domains,
    "robustness": robustness,
    "trajectory": trajectory,
}


def draw(name: str, study: Study, results: Path, out: Path) -> None:
    """Write the figure of task `name` to `out`, a .png path, with the .pdf and .csv beside it.

    Reads tasks.parquet (or .csv) of the folder `results`. Raises InputError where the study has no such task,
    or none of its runs has finished.
    """
    if name not in study.tasks:
        known = ", ".join(study.tasks) or "none"
        raise InputError(f"{out}: the study {study.name} has no task {name}; it has {known}")
    path = table_path(results, "tasks")
    table = read_table(path, *COLUMNS)
    table = table[table["task"] == name]
    if table.empty:
        raise InputError(f"{path}: {name}: no run has finished")
    numbers = ["value", "lo", "hi", "change", "change_lo", "change_hi"]
    table = table.astype(dict.fromkeys(numbers, float)).assign(dataset=study.dataset)
    with matplotlib.rc_context(STYLE):
        save(*FIGURES[name](table), out)


# --- what is drawn ---


def _full(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs on the largest share of the data."""
    return table[table["data_fraction"] == table["data_fraction"].max()]


def _compared(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["change"].notna()].copy()


def _means(
    table: pd.DataFrame, panel: str, names: Mapping[str, str], along: Sequence[str] = ("x",)
) -> pd.DataFrame:
    """DRAWN: the mean over runs that differ in the seed only, and over noise. A line runs `along` columns."""
    own = [column for column in Y if column in names.values() and column not in names]
    table = table.drop(columns=own, errors="ignore").rename(columns=dict(names))
    settings = [key for key in table if key not in (*COLUMNS, *Y, "seed", "recipe")]
    keys = ["size", "N", "group", "x", *settings]
    grouped = table.groupby(keys, sort=False, dropna=False)
    made = grouped[Y].mean().reset_index()
    made["runs"], made["cases"] = grouped["run"].nunique().to_numpy(), grouped["cases"].max().to_numpy()
    made["line"] = made.groupby([key for key in keys if key not in along], sort=False, dropna=False).ngroup()
    return made.assign(panel=panel)[[*DRAWN, "line"]]


def _inks(table: pd.DataFrame) -> dict[str, Any]:
    """A colour a size, from small N to large."""
    ladder = marks.ladder(table)
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(ladder)))
    return dict(zip(ladder, colours, strict=True))


def _smallest(table: pd.DataFrame) -> str:
    return str(table.loc[table["N"].idxmin(), "size"])


def _range(counts: pd.Series) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _percents(values: pd.Series) -> str:
    low, high = f"{100 * values.min():.0f}", f"{100 * values.max():.0f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def _shares(table: pd.DataFrame) -> str:
    """On how much of the data the runs were trained."""
    of = " and ".join(sorted(set(table["data_axis"])))
    return f"runs on {100 * table['data_fraction'].max():g} % of the {of}"


# --- how it is drawn ---


def _panels(n: int, height: float, sharey: bool = False) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(2.6 * n + 1.6, height), layout="constrained")
    return figure, list(figure.subplots(1, n, sharey=sharey))


def _lines(
    axis: Axes, part: pd.DataFrame, inks: Mapping[str, Any], looks: Mapping[str, str] | None = None,
    dodge: float = 0.0, bars: bool = True,
) -> None:  # fmt: skip
    """A line for every size; with `looks`, for every size and group. `dodge` parts their bars."""
    order = {size: place - (len(inks) - 1) / 2 for place, size in enumerate(inks)}
    for _, rows in part.groupby("line", sort=False):
        rows, size = rows.sort_values("x"), rows["size"].iloc[0]
        style = (looks or {}).get(rows["group"].iloc[0], "-")
        shift = dodge * order[size]
        axis.plot(rows["x"] + shift, rows["y"], color=inks[size], linestyle=style, marker=".", ms=5)
        if bars:
            _bars(axis, rows, inks[size], shift)


def _bars(axis: Axes, rows: pd.DataFrame, ink: Any, shift: float) -> None:
    axis.vlines(rows["x"] + shift, rows["lo"], rows["hi"], color=ink, linewidth=0.8, alpha=0.7)


def _percent(axis: Axes) -> None:
    axis.axhline(0, color=GREY, linewidth=0.7, zorder=1)
    axis.yaxis.set_major_formatter(lambda y, _: f"{100 * y:+.0f} %".replace("+0 ", "0 "))


def _styles(looks: Mapping[str, Any]) -> list[Line2D]:
    return [Line2D([], [], color=GREY, linestyle=style, label=name) for name, style in looks.items()]


def _finished(
    figure: Figure, table: pd.DataFrame, title: str, drawn: pd.DataFrame, handles: list[Line2D],
    notes: Sequence[str],
) -> Drawn:  # fmt: skip
    """Title and legend beside the panels, notes below them; the table as its CSV has it."""
    n = table.groupby("size")["N"].first()
    lines = [
        Line2D([], [], color=ink, lw=3, label=f"{size} ({n[size]:,})") for size, ink in _inks(table).items()
    ]
    place: dict[str, Any] = {"loc": "outside right upper", "alignment": "left"}
    figure.legend(handles=[*lines, *handles], title="size ($N$)", **place)
    figure.suptitle(f"{title}, {table['dataset'].iloc[0]}", fontsize=9)
    width = int(figure.get_figwidth() * 18)
    wrapped = [line for note in notes for line in textwrap.wrap(note.replace(" %", "\u00a0%"), width)]
    figure.supxlabel("\n".join(wrapped), x=0.02, ha="left", fontsize=7.5)
    figure.set_figheight(figure.get_figheight() + 0.13 * len(wrapped))
    return figure, drawn.drop(columns="line").reset_index(drop=True)
