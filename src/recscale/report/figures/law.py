"""One figure of one fitted law: the curve with its band, residuals, what was held out, profile of E."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recscale.laws.result import Fit
from recscale.laws.words import summary
from recscale.report.figures.marks import GREY, LINE
from recscale.report.figures.style import OKABE_ITO, STYLE, save

INK = OKABE_ITO[0]


def numbers(fit: Fit, y_name: str) -> pd.DataFrame:
    """Every number that the figure shows; series: fitted, outlier, held_out, band, profile."""
    axes = list(fit.shape.axes)
    rows = []
    for place, point in enumerate(fit.points_used):
        series = "outlier" if place in fit.outliers else "fitted"
        rows.append({"series": series, **{axis: point[axis] for axis in axes}, "measured": point["y"]})
    for entry in fit.held_out:
        lo, hi = entry["interval"]
        rows.append(
            {"series": "held_out", **{axis: entry[axis] for axis in axes}, "measured": entry["measured"]}
        )
        rows[-1] |= {"lo": lo, "hi": hi}
    table = pd.DataFrame(rows, columns=["series", *axes, "measured", "lo", "hi"])
    if fit.parameters is None:
        return table.assign(y=y_name)
    table["predicted"] = fit.predict({axis: table[axis].to_numpy(float) for axis in axes})
    parts = [table]
    if fit.band:
        band = pd.DataFrame(fit.band, dtype=float)  # an open end is None
        parts.append(band.rename(columns={"mid": "predicted"}).assign(series="band"))
    if fit.profile:
        parts.append(pd.DataFrame(fit.profile).assign(series="profile"))
    return pd.concat(parts, ignore_index=True).assign(y=y_name)


def draw(fit: Fit, y_name: str, out: Path) -> None:
    """Write the figure to `out`, a .png path, with .pdf and .csv beside it; without a law, its runs."""
    table = numbers(fit, y_name)
    with matplotlib.rc_context(STYLE):
        if fit.parameters is None:
            figure = Figure(figsize=(3.6, 2.9), layout="constrained")
            axis, x = figure.subplots(), fit.shape.axes[0]
            _runs(axis, table, x, "measured")
            _log_x(axis, fit)
            axis.set_ylabel(y_name)
            figure.suptitle(summary(fit), fontsize=7.5, wrap=True)
            save(figure, table, out)
            return
        figure = Figure(figsize=(7.2, 2.9 if fit.profile is None else 5.0), layout="constrained")
        grid = figure.subplots(1 if fit.profile is None else 2, 2, squeeze=False)
        (_curve if fit.band else _against)(grid[0, 0], table, fit, y_name)
        _residuals(grid[0, 1], table, fit)
        if fit.profile is not None:
            _profile(grid[1, 0], table, fit)
            _errors(grid[1, 1], fit)
        figure.suptitle(summary(fit), fontsize=7.5, wrap=True)
        save(figure, table, out)


def _runs(axis: Axes, table: pd.DataFrame, x: str, y: str) -> None:
    looks = {"fitted": (INK, "o"), "outlier": (OKABE_ITO[1], "x"), "held_out": ("none", "o")}
    for series, (face, marker) in looks.items():
        rows = table[table["series"] == series]
        if len(rows):
            edge = OKABE_ITO[1] if marker == "x" else INK
            axis.plot(
                rows[x],
                rows[y],
                marker,
                mfc=face,
                mec=edge,
                ms=4,
                linestyle="",
                label=series.replace("_", " "),
            )


def _log_x(axis: Axes, fit: Fit) -> None:
    """A logarithmic axis of the first x."""
    axis.set_xscale("log")
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    axis.set_xlabel(fit.x.split(", ")[0] if len(fit.shape.axes) > 1 else fit.x)


def _curve(axis: Axes, table: pd.DataFrame, fit: Fit, y_name: str) -> None:
    band = table[table["series"] == "band"]
    axis.plot(band["x"], band["predicted"], LINE.get(fit.status, ":"), color=INK)
    inside = band["lo"].notna() & band["hi"].notna()
    axis.fill_between(band["x"][inside], band["lo"][inside], band["hi"][inside], color=INK, alpha=0.15, lw=0)
    _runs(axis, table, "x", "measured")
    _log_x(axis, fit)
    axis.set_ylabel(y_name)
    axis.legend()


def _against(axis: Axes, table: pd.DataFrame, fit: Fit, y_name: str) -> None:
    """Measured against predicted, for a law of several axes."""
    _runs(axis, table, "predicted", "measured")
    ends = [table["predicted"].min(), table["predicted"].max()]
    axis.plot(ends, ends, color=GREY, lw=0.8)
    axis.set_xlabel(f"predicted {y_name}")
    axis.set_ylabel(f"measured {y_name}")
    axis.legend()


def _residuals(axis: Axes, table: pd.DataFrame, fit: Fit) -> None:
    shown = table.assign(off=100 * (table["measured"] / table["predicted"] - 1))
    _runs(axis, shown, fit.shape.axes[0], "off")
    axis.axhline(0, color=GREY, lw=0.8)
    _log_x(axis, fit)
    axis.set_ylabel("residual (% of predicted)")


def _profile(axis: Axes, table: pd.DataFrame, fit: Fit) -> None:
    rows = table[table["series"] == "profile"]
    axis.plot(rows["E"], rows["rise"], color=INK)
    axis.axhline(1, color=GREY, lw=0.8)
    axis.set_ylim(0, 4)
    axis.set_xlabel("E, held")
    axis.set_ylabel(f"rise (1: {100 * fit.level:g} % interval)")


def _errors(axis: Axes, fit: Fit) -> None:
    known = [entry for entry in fit.held_out if entry["error"] is not None]
    if not known:
        axis.text(0.5, 0.5, "nothing held out", ha="center", transform=axis.transAxes, color=GREY)
        axis.set_axis_off()
        return
    far = np.array([entry["extrapolation"] for entry in known])
    for key, label, marker in (("error", "law", "o"), ("baseline_error", "largest fitted point", "^")):
        axis.plot(far, [100 * entry[key] for entry in known], marker, ms=4, linestyle="", label=label)
    axis.set_xscale("log")
    axis.set_yscale("log")
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        scale.set_minor_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        scale.set_minor_locator(ticker.LogLocator(subs=(2, 5)))
    axis.set_xlabel("times the largest fitted")
    axis.set_ylabel("error held out (%)")
    axis.legend()
