"""Figures of a study, from its tables alone: one function a figure, named in FIGURES.

Each function first puts every number it draws into one tidy table and then draws from that table
only, so the CSV beside a figure is what the figure shows. Files are touched in `draw` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from recscale.errors import InputError
from recscale.files import read_json, read_table, table_path
from recscale.laws.metric_map import fit_map
from recscale.laws.result import Fit, Status
from recscale.report.figures import content, marks
from recscale.report.figures import law as law_figure
from recscale.report.figures.style import OKABE_ITO, STYLE, save
from recscale.study.problems import NEXT_ITEM
from recscale.study.study import OF_DATA, Study

METRICS = NEXT_ITEM.shown
N_LABEL = "$N$, non-embedding parameters"


Drawn = tuple[Figure, pd.DataFrame]


def loss_vs_n(tables: content.Results) -> Drawn:
    """Test loss against N: runs on all the data, laws, held-out predictions, E, references."""
    laws = tables.laws("N")
    runs = tables.drawn(content.full(tables.tuned()), laws)
    parts = [content.law(law, tables.fits[law], with_e=True) for law in laws]
    parts = [content.runs(tables, runs, "N", "test_loss", laws), *parts, content.references(tables, "loss")]
    table = pd.concat(parts)
    lines = marks.rows(table, "reference", "irreducible_loss")
    ranges = marks.ranges(table, [row.y for row in lines])
    figure = Figure(figsize=(4.6, 2.7 + 0.4 * len(ranges)), layout="constrained")
    # A line far from the runs has a panel only as high as its label needs.
    heights = [1.0 if core else 0.07 + 0.11 * n for _, _, n, core in ranges]
    grid = figure.subplots(len(ranges), sharex=True, squeeze=False, height_ratios=heights)
    axes = list(grid[:, 0])
    colours = dict(zip(laws, OKABE_ITO * len(laws), strict=False))
    single = marks.GREY if (table["series"] == "line").any() else OKABE_ITO[0]
    inks = {row.run: colours.get(row.name, single) for row in table.itertuples()}
    for axis, (low, high, _, core) in zip(axes, ranges, strict=True):
        axis.set_ylim(low, high)
        marks.draw_laws(axis, table, tables.fits, colours)
        marks.draw_runs(axis, table, inks)
        inside = [row for row in lines if low < row.y < high]
        marks.draw_lines(axis, inside, "{:.2f}", 0.19 if core else 0.5, colours)
        if core:
            axis.set_ylabel("test loss (nats)")
        else:
            axis.set_yticks([row.y for row in inside], [f"{row.y:.2f}" for row in inside])
    marks.break_axis(axes)
    marks.log_x(axes, table, N_LABEL)
    handles = content.law_handles(table, tables.fits, colours) + content.run_handles(table, single)
    content.finish(
        figure, tables, "Test loss and model size", table, handles, notes=content.summaries(tables, laws)
    )
    return figure, content.named(table, "N", "test_loss")


def loss_vs_d(tables: content.Results) -> Drawn:
    """Test loss against D, one colour a size, with the laws in D.

    Only runs that differ in nothing else from one on another amount of data, unless there is none. Of one
    axis of the data: of users where there are some, else of time; cut histories keep D and are no points.
    """
    laws, tuned, inks = tables.laws("D"), tables.tuned(), content.inks(tables)
    full = tuned["data_fraction"] == 1
    shown = "users" if (tuned.loc[~full, "data_axis"] == "users").any() else "time"
    tuned = tuned[full | (tuned["data_axis"] == shown)]
    same = tables.keys(*OF_DATA)
    several = tuned[tuned.groupby(same, dropna=False)["D"].transform("nunique") > 1]
    runs = tables.drawn(tuned if several.empty and not laws else several, laws)
    parts = [content.law(law, tables.fits[law], with_e=False) for law in laws]
    table = pd.concat([content.runs(tables, runs, "D", "test_loss", laws), *parts])
    colours = {}
    for law in laws:
        sizes = {tables.study.runs[run].size for run in tables.selected(law)}
        colours[law] = inks[sizes.pop()] if len(sizes) == 1 else "black"
    figure, axis = marks.loss_panel(table, "test loss (nats)")
    marks.draw_laws(axis, table, tables.fits, colours)
    marks.draw_runs(axis, table, content.by_run(table, inks))
    marks.log_x([axis], table, "$D$, training targets available")
    handles = content.law_handles(table, tables.fits, {}) + content.run_handles(table, marks.GREY)
    content.finish(
        figure, tables, "Test loss and data", table, handles, inks, content.summaries(tables, laws)
    )
    return figure, content.named(table, "D", "test_loss")


def learning_curves(tables: content.Results) -> Drawn:
    """Valid and train loss by epoch, one colour a size: all the data, first seed.

    Of several such runs of a size, the one of the lowest valid loss.
    """
    full, inks = content.full(tables.tuned()), content.inks(tables)
    first = full[full["seed"] == full.groupby("size")["seed"].transform("min")]
    best = first.sort_values("valid_loss", kind="stable").drop_duplicates("size").sort_index()
    table = content.runs(tables, best, "chosen_epoch", "valid_loss")
    table["series"] = table["series"].replace("run", "chosen_epoch")
    ends = table.loc[table["series"] == "chosen_epoch", "run"]
    curves = tables.curves[tables.curves["run"].isin(ends)] if len(ends) else pd.DataFrame()
    curves = curves[curves["train_loss"].notna()] if len(curves) else curves  # no branches
    parts = [table]
    for series in ("valid_loss", "train_loss") if len(curves) else ():
        part = curves.rename(columns={"epoch": "x", series: "y"}).assign(series=series, name="")
        parts.append(part.reindex(columns=content.COLUMNS))
    table = pd.concat(parts)
    figure, axis = marks.loss_panel(table, "loss (nats)")
    short = not table["x"].max() > 2  # one epoch makes no line
    looks: dict[str, dict[str, Any]] = {
        "valid_loss": {"label": "valid", "linestyle": "-", "marker": "." if short else ""},
        "train_loss": {"label": "train", "linestyle": "--", "marker": "x" if short else ""},
    }
    for series, look in looks.items():
        for size, rows in table[table["series"] == series].groupby("size"):
            axis.plot(rows["x"], rows["y"], color=inks[size], **look | {"linewidth": 1})
    dot: dict[str, Any] = {"marker": "o", "ms": 5, "mec": "black", "mew": 0.7, "linestyle": ""}
    for row in marks.rows(table, "chosen_epoch"):
        axis.plot(row.x, row.y, color=inks[row.size], zorder=4, **dot)
    axis.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, min_n_ticks=1))
    axis.set_xlabel("epoch")
    looks["chosen"] = dot | {"label": "chosen epoch"}
    handles = [Line2D([], [], color=marks.GREY, **look) for look in looks.values()]
    content.finish(figure, tables, "Learning curves", table, handles, inks)
    return figure, content.named(table, "epoch", "loss")


def loss_vs_epochs(tables: content.Results) -> Drawn:
    """Test loss against the epochs trained, one colour a size: finished points and points of curves.

    All the data; each run whose `test_epochs` were measured, or that ended there.
    """
    inks, full = content.inks(tables), set(content.full(tables.tuned())["run"])
    curves = tables.curves if len(tables.curves) else pd.DataFrame(columns=[*content.COLUMNS, "finished"])
    rows = curves[curves["run"].isin(full)].rename(columns={"epoch": "x", "test_loss": "y"})
    ends = tables.points[tables.points["run"].isin(full)]
    ends = ends.assign(x=ends["epochs"], y=ends["test_loss"], finished=True)
    ends = ends[ends["chosen_epoch"] == ends["epochs"]]  # else the test is of an earlier epoch
    rows = pd.concat([rows.dropna(subset="y"), ends]).drop_duplicates(["run", "x"])
    rows = rows.assign(name="", series=np.where(rows["finished"], "finished", "curve"))
    table = rows.sort_values(["size", "x"]).reindex(columns=content.COLUMNS)
    figure, axis = marks.loss_panel(table, "test loss (nats)")
    looks: dict[str, dict[str, Any]] = {
        "finished": {"marker": "o", "ms": 5, "label": "finished: rate at zero"},
        "curve": {"marker": "o", "ms": 4, "mfc": "white", "label": "on the way of a longer run"},
    }
    for (size, _, series), points in table.groupby(["size", "run", "series"], sort=False):
        line = "-" if series == "finished" else ":"  # points of one run belong together
        axis.plot(points["x"], points["y"], color=inks[size], linestyle=line, lw=1, **looks[series])
    axis.set_xscale("log")
    ticks = sorted(set(table["x"].dropna().astype(int)))
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel("epochs")
    handles = [Line2D([], [], color=marks.GREY, linestyle="", **look) for look in looks.values()]
    content.finish(figure, tables, "Repetition of the data", table, handles, inks)
    return figure, content.named(table, "epochs", "test_loss")


def metrics_vs_n(tables: content.Results) -> Drawn:
    """HR@10 and NDCG@10 of test against N, a panel each, with references; a colour a number of epochs."""
    parts, runs = [], content.full(tables.tuned())
    epochs = dict(zip(sorted(set(runs["epochs"])), OKABE_ITO * len(runs), strict=False))
    inks = dict(zip(runs["run"], runs["epochs"].map(epochs), strict=True))
    figure = Figure(figsize=(4.2, 4.0), layout="constrained")
    axes = figure.subplots(2, sharex=True)
    for axis, metric in zip(axes, METRICS, strict=True):
        part = pd.concat([content.runs(tables, runs, "N", metric), content.references(tables, metric)])
        axis.set_ylim(0, 1.08 * max([0.01, *part["y"].dropna()]))
        marks.draw_runs(axis, part, inks)
        marks.draw_lines(axis, marks.rows(part, "reference"), "{:.3f}", 0.16, {})
        axis.set_ylabel(f"test {metric}")
        parts.append(part.assign(metric=metric))
    marks.log_x(axes, part, N_LABEL)
    handles = content.run_handles(part, OKABE_ITO[0])
    if len(epochs) > 1:
        look: dict[str, Any] = {"marker": "o", "ms": 5, "linestyle": ""}
        words = {n: f"{n} epoch" + "s" * (n > 1) for n in epochs}
        handles = [
            *(Line2D([], [], color=ink, label=words[n], **look) for n, ink in epochs.items()),
            *handles,
        ]
    content.finish(figure, tables, "Full ranking and model size", part, handles)
    return figure, content.named(pd.concat(parts), "N", "value")


def learning_rates(tables: content.Results) -> Drawn:
    """Valid loss against learning rate, one colour a size; the best rate of each marked."""
    full, inks = content.full(tables.points), content.inks(tables)
    table = content.runs(tables, full, "learning_rate", "valid_loss")
    # Runs share a line only where nothing but rate and seed differs; it joins the means of seeds.
    same = tables.keys("learning_rate", "seed")
    parts = [table]
    for _, group in full.groupby(same, sort=False):
        tried = table[table["run"].isin(group["run"])]
        mean = tried[tried["series"] == "run"].groupby("x", as_index=False)["y"].mean()
        if len(mean) > 1:
            mean = mean.assign(series="mean", name=tried["run"].iloc[0], size=tried["size"].iloc[0])
            best = mean.loc[[mean["y"].idxmin()]]
            edge = best["x"].item() in (tried["x"].min(), tried["x"].max())
            parts += [mean, best.assign(series="lowest_at_edge" if edge else "lowest")]
    table = pd.concat(parts).reindex(columns=content.COLUMNS)
    figure, axis = marks.loss_panel(table, "valid loss, chosen epoch (nats)")
    for _, rows in table[table["series"] == "mean"].groupby("name", sort=False):
        axis.plot(rows["x"], rows["y"], color=inks[rows["size"].iloc[0]], linewidth=1)
    marks.draw_runs(axis, table, content.by_run(table, inks), 3.5)
    star: dict[str, Any] = {"marker": "*", "ms": 9, "mec": "black", "mew": 0.7, "linestyle": ""}
    handles = content.run_handles(table, marks.GREY)
    labels = {"lowest": "lowest", "lowest_at_edge": "lowest, at the end\nof the rates"}
    for series, label in labels.items():
        for row in marks.rows(table, series):
            face = inks[row.size] if series == "lowest" else "white"
            axis.plot(row.x, row.y, mfc=face, zorder=5, **star)
        if (table["series"] == series).any():
            face = marks.GREY if series == "lowest" else "white"
            handles.append(Line2D([], [], mfc=face, label=label, **star))
    marks.log_x([axis], table, "peak learning rate of Adam")
    notes = [] if len(parts) > 1 else ["No size finished at more than one rate: no lowest to mark"]
    content.finish(figure, tables, "Learning rates", table, handles, inks, notes)
    return figure, content.named(table, "learning_rate", "valid_loss")


def exponents(tables: content.Results) -> Drawn:
    """The exponents of all laws of the study with their intervals, a row each."""
    rows: list[dict[str, Any]] = []
    for name, fit in tables.fits.items():
        columns = list(tables.study.laws[name].x.values())
        for parameter in fit.shape.parameters:
            if parameter.name not in ("alpha", "beta") or not fit.parameters:
                continue
            both = parameter.meaning == "exponent of N and D"
            of = " and ".join(columns[:2]) if both else columns[parameter.name == "beta"]
            lo, hi = fit.intervals[parameter.name]
            row = {"law": name, "form": fit.form, "of": of, "exponent": fit.parameters[parameter.name]}
            rows.append(row | {"lo": lo, "hi": hi, "status": str(fit.status)})
    table = pd.DataFrame(rows, columns=["law", "form", "of", "exponent", "lo", "hi", "status"])
    table = table.astype(dict.fromkeys(("exponent", "lo", "hi"), float))
    figure = Figure(figsize=(5, 0.9 + 0.34 * max(1, len(table))), layout="constrained")
    axis = figure.subplots()
    reach = table[["exponent", "lo", "hi"]].to_numpy()
    reach = reach[np.isfinite(reach)]
    low, high = (0.0, 1.0) if not len(reach) else (min(0.0, reach.min()), 1.05 * reach.max())
    for place, row in enumerate(table.itertuples()):
        ink, sure = OKABE_ITO[0], row.status == Status.CONVERGED
        ends = [low if np.isnan(row.lo) else row.lo, high if np.isnan(row.hi) else row.hi]
        axis.plot(ends, [place, place], "-" if sure else ":", color=ink)
        for end, marker, known in ((ends[0], "<", row.lo), (ends[1], ">", row.hi)):
            axis.plot(end, place, "|" if np.isfinite(known) else marker, color=ink, ms=5)
        axis.plot(row.exponent, place, "o", color=ink, mfc=ink if sure else "white", ms=5)
    names = [f"{row.law}: {row.of}" for row in table.itertuples()]
    axis.set_yticks(range(len(table)), names)
    axis.set_ylim(max(0, len(table) - 1) + 0.6, -0.6)
    axis.set_xlim(low, high)
    level = {fit.level for fit in tables.fits.values()}
    axis.set_xlabel(f"exponent, {'/'.join(f'{100 * one:g}' for one in sorted(level)) or '90'} % interval")
    notes = [f"{law}: {fit.status}" for law, fit in tables.fits.items() if fit.status is not Status.CONVERGED]
    if notes:
        notes = ["; ".join(notes) + (" (open, dotted: read with care)" if len(table) else "")]
    content.finish(figure, tables, "Exponents", table.assign(series="", run=""), [], notes=notes)
    return figure, table


def loss_to_metric(tables: content.Results) -> Drawn:
    """HR@10 and NDCG@10 of test against the test loss, a panel each, with the maps that a forecast uses."""
    inks, parts, notes = content.inks(tables), [], []
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    axes = figure.subplots(2, sharex=True)
    popularity = tables.references["popularity"]["test"]["loss"]
    runs = tables.points[np.isfinite(tables.points["test_loss"])]
    for axis, metric in zip(axes, METRICS, strict=True):
        part = content.runs(tables, runs, "test_loss", metric)
        try:
            found = fit_map(metric, part["x"], part["y"], popularity)
        except InputError as error:  # too few runs: a figure of what there is
            notes.append(str(error))
        else:
            at = np.linspace(found.low, found.high, 41)
            lo, hi = found.interval(at, 0.9)
            line = pd.DataFrame({"x": at, "y": found.predict(at), "lo": lo, "hi": hi}).assign(series="map")
            part.loc[part["x"] > found.threshold, "series"] = "held_out"  # drawn open
            part = pd.concat([part, line.reindex(columns=content.COLUMNS)])
            axis.plot(at, line["y"], color=marks.GREY, zorder=2)
            axis.fill_between(at, lo, hi, color=marks.GREY, alpha=0.2, lw=0)
            notes.append(f"{metric}: {found.runs} runs, error of a run left out {100 * found.error:.1f} %")
        marks.draw_runs(axis, part, content.by_run(part, inks))
        part["series"] = part["series"].replace("held_out", "not_used")
        axis.set_ylim(0, 1.08 * max([0.01, *part["y"].dropna()]))
        axis.set_ylabel(f"test {metric}")
        parts.append(part.assign(metric=metric))
    table = pd.concat(parts)
    axes[-1].set_xlabel("test loss (nats)")
    band: list[Any] = [Patch(color=marks.GREY, alpha=0.3, linewidth=0, label="map, 90 % of runs")]
    if (table["series"] == "not_used").any():
        label = "nearer popularity,\nnot used"
        band.append(Line2D([], [], marker="o", mfc="none", mec=marks.GREY, ms=5, linestyle="", label=label))
    handles = band if (table["series"] == "map").any() else []
    content.finish(figure, tables, "From loss to ranking", table, handles, inks, notes)
    return figure, content.named(table, "test_loss", "value")


FIGURES: dict[str, Callable[[content.Results], Drawn]] = {
    "loss_vs_n": loss_vs_n,
    "loss_vs_d": loss_vs_d,
    "learning_curves": learning_curves,
    "loss_vs_epochs": loss_vs_epochs,
    "metrics_vs_n": metrics_vs_n,
    "learning_rates": learning_rates,
    "exponents": exponents,
    "loss_to_metric": loss_to_metric,
}
OF_A_LAW = "fit_"  # followed by the name of a law: its own figure


def draw(name: str, study: Study, results: Path, out: Path) -> None:
    """Write figure `name` of a study to `out`, a .png path, with the .pdf and .csv beside it.

    Reads {points,curves}.parquet (or .csv), references.json and laws/*.json of the folder `results`.
    Raises InputError for a name that is not in FIGURES, nor fit_ and the name of a law.
    """
    law = study.laws.get(name.removeprefix(OF_A_LAW)) if name.startswith(OF_A_LAW) else None
    if law is not None:
        law_figure.draw(Fit.read(results / "laws" / f"{law.name}.json"), law.y, out)
        return
    if name not in FIGURES:
        legal = [*FIGURES, *(f"{OF_A_LAW}{law}" for law in study.laws), *study.tasks]
        raise InputError(f"{study.name}: figure {name} is not one of {', '.join(legal)}")
    points = read_table(table_path(results, "points"), "run", "size", "N", "D")
    for column in ("test_loss", "valid_loss", "chosen_epoch", *METRICS):
        # Where every run diverged the column is absent or holds nothing but None.
        points[column] = pd.to_numeric(points[column]) if column in points else np.nan
    curves = read_table(table_path(results, "curves"))
    references = read_json(results / "references.json", *marks.REFERENCES)
    fits = {law: Fit.read(results / "laws" / f"{law}.json") for law in study.laws}
    with matplotlib.rc_context(STYLE):
        figure, table = FIGURES[name](content.Results(study, points, curves, references, fits))
        save(figure, table, out)
