"""What the figures of a study draw, as rows of one table; with its legends and notes."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from recscale.laws.result import Fit, Status
from recscale.laws.words import summary
from recscale.report.figures import marks
from recscale.study.run import settings
from recscale.study.study import Study, select

COLUMNS = ["series", "name", "run", "size", "seed", "x", "y", "lo", "hi"]


@dataclass(frozen=True)
class Results:
    """What figures are drawn from: the study and the content of its results folder."""

    study: Study
    points: pd.DataFrame
    curves: pd.DataFrame
    references: Mapping[str, Any]
    fits: Mapping[str, Fit]

    def laws(self, x: str) -> list[str]:
        """Names of the laws of test loss against x."""
        return [k for k, v in self.study.laws.items() if (v.x, v.y) == ({"x": x}, "test_loss")]

    def selected(self, *laws: str) -> set[str]:
        """Names of the runs that any of these laws is about."""
        return {run for law in laws for run in select(self.study.laws[law], self.study.runs)}

    def keys(self, *others: str) -> list[str]:
        """Keys of the study's runs that are columns of the points, but for `others`."""
        known = dict.fromkeys(key for run in self.study.runs.values() for key in settings(run))
        return [key for key in known if key not in others and key in self.points]

    def tuned(self) -> pd.DataFrame:
        """Of runs that differ in nothing but the learning rate, the one of lowest valid loss."""
        same = self.keys("learning_rate")
        best = self.points.sort_values("valid_loss", kind="stable").drop_duplicates(same)
        return best.sort_index()

    def drawn(self, more: pd.DataFrame, laws: Sequence[str]) -> pd.DataFrame:
        """The runs of these laws, and `more`."""
        runs = self.selected(*laws) | set(more["run"])
        return self.points[self.points["run"].isin(runs)]


# --- what is drawn: rows of one table ---


def full(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs on all the data, or on the largest share of it that the study has."""
    return runs[runs["data_fraction"] == runs["data_fraction"].max()]


def runs(tables: Results, runs: pd.DataFrame, x: str, y: str, laws: Sequence[str] = ()) -> pd.DataFrame:
    """One row a run; series: fitted, held_out, run (in no law that has a line) or diverged."""
    table = runs.assign(series="run", name="", x=runs[x].astype(float), y=runs[y].astype(float))
    for law in laws:
        fit = tables.fits[law]
        if fit.status in marks.LINE:
            mine = table["run"].isin(tables.selected(law)) & (table["name"] == "")
            held = table["x"].isin([entry["x"] for entry in fit.held_out])
            table.loc[mine, "name"] = law
            table.loc[mine, "series"] = np.where(held[mine], "held_out", "fitted")
    table.loc[~np.isfinite(table["y"]), "series"] = "diverged"
    return table.reindex(columns=COLUMNS)


def law(name: str, fit: Fit, with_e: bool) -> pd.DataFrame:
    """A fit's curve with its band, its predictions and, where the runs bound it, E."""
    rows: list[tuple[Any, ...]] = []
    if fit.status in marks.LINE and fit.band and fit.parameters:
        curve = zip(*(fit.band[key] for key in ("x", "mid", "lo", "hi")), strict=True)
        rows += [("line", *point) for point in curve]
        rows += [("predicted", h["x"], h["predicted"], *h["interval"]) for h in fit.held_out]
        ends = fit.intervals.get("E", [None, None])  # not every form has one
        if with_e and fit.status is Status.CONVERGED and None not in ends:
            rows.append(("irreducible_loss", None, fit.parameters["E"], *ends))
    table = pd.DataFrame(rows, columns=["series", "x", "y", "lo", "hi"]).assign(name=name)
    return table.reindex(columns=COLUMNS).astype(dict.fromkeys(("x", "y", "lo", "hi"), float))


def references(tables: Results, metric: str) -> pd.DataFrame:
    rows = [("reference", name, tables.references[name]["test"][metric]) for name in marks.REFERENCES]
    return pd.DataFrame(rows, columns=["series", "name", "y"]).reindex(columns=COLUMNS)


def named(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """The table as its CSV has it: quantities under their own names."""
    return table.rename(columns={"x": x, "y": y}).reset_index(drop=True)


def inks(tables: Results) -> dict[str, Any]:
    """A colour a size, from small N to large, the same in all figures of the study."""
    ladder = marks.ladder(tables.points)
    # The light end of the map is left out: it vanishes on paper.
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, len(ladder)))
    return dict(zip(ladder, colours, strict=True))


def by_run(table: pd.DataFrame, inks: Mapping[str, Any]) -> dict[str, Any]:
    return {row.run: inks[row.size] for row in marks.rows(table, "run", "fitted", "held_out")}


# --- legends and notes ---


def run_handles(table: pd.DataFrame, ink: Any) -> list[Any]:
    """Which symbol is which seed, where there are several, and what the other symbols mean."""
    series, markers = set(table["series"]), marks.seeds(table)
    looks = [(f"seed {seed}", marker, marks.GREY) for seed, marker in markers.items() if len(markers) > 1]
    looks += [("held out", "o", "none")] if "held_out" in series else []
    looks += [("predicted", "x", "none")] if "predicted" in series else []
    looks += [("in no law", "o", ink)] if {"run", "fitted"} <= series else []
    return [
        Line2D([], [], marker=marker, mfc=face, mec=marks.GREY, ms=5, linestyle="", label=label)
        for label, marker, face in looks
    ]


def law_handles(table: pd.DataFrame, fits: Mapping[str, Fit], colours: Mapping[str, Any]) -> list[Any]:
    """A line and a band for each law; without colours, for each status (the colour is the size)."""
    handles: dict[str, Any] = {}
    for law in dict.fromkeys(table.loc[table["series"] == "line", "name"]):
        fit, ink = fits[law], colours.get(law, marks.GREY)
        status = "" if fit.status is Status.CONVERGED else f" ({fit.status})".replace("_", " ")
        label = (law if colours else "fit") + status
        handles[label] = Line2D([], [], color=ink, linestyle=marks.LINE[fit.status], label=label)
        if fit.sigma is not None:
            label = f"{100 * fit.level:g} % interval"
            handles.setdefault(label, Patch(color=ink, alpha=0.2, linewidth=0, label=label))
    return list(handles.values())


def summaries(tables: Results, laws: Sequence[str]) -> list[str]:
    if len(laws) > 3:
        return ["; ".join(f"{law}: {tables.fits[law].status}" for law in laws)]
    return [summary(tables.fits[law]) for law in laws]


def finish(
    figure: Figure, tables: Results, title: str, table: pd.DataFrame, handles: Sequence[Any],
    inks: Mapping[str, Any] | None = None, notes: Sequence[str] = (),
) -> None:  # fmt: skip
    """Title, legend outside the panels; below them the notes and the runs that diverged."""
    title, rows = f"{title}, {tables.study.dataset}", 0
    diverged = table["series"] == "diverged"
    if inks:
        n, shown = tables.points.groupby("size")["N"].first(), set(table.loc[~diverged, "size"])
        sizes = {f"{size} ({n[size]:,})": ink for size, ink in inks.items() if size in shown}
        lines = [Line2D([], [], color=ink, lw=3, label=text) for text, ink in sizes.items()]
        place: dict[str, Any] = {
            "loc": "outside right upper",
            "alignment": "left",
            "title": "size ($N$)",
        }
        figure.legend(handles=[*lines, *handles], **place)
    elif handles:
        longest = max(len(handle.get_label()) for handle in handles)
        columns = max(1, min(len(handles), int(figure.get_figwidth() * 15) // (longest + 6)))
        rows = -(-len(handles) // columns)
        # As the legend's own, the title cannot collide with it.
        figure.legend(handles=handles, loc="outside upper center", ncols=columns, title=title)
    if inks or not handles:
        figure.axes[0].set_title(title)
    lost = list(table.loc[diverged, "run"])
    if lost:
        names = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        plural = "s" if len(lost) > 1 else ""
        notes = [*notes, f"Diverged, not drawn: {len(lost)} run{plural} ({names})"]
    width = int(figure.get_figwidth() * 18)
    wrapped = [line for note in notes for line in textwrap.wrap(note.replace(" %", "\u00a0%"), width)]
    figure.supxlabel("\n".join(wrapped), x=0.02, ha="left", fontsize=7.5)
    figure.set_figheight(figure.get_figheight() + 0.16 * rows + 0.13 * len(wrapped))
