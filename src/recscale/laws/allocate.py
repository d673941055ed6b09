"""Find the best N and D for a budget in three ways from one table of runs (`laws.allocation`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recscale.errors import InputError
from recscale.laws.allocation import Allocations, Ends, Found, Ratio, Way
from recscale.laws.fit import MANY, fit_law
from recscale.laws.forecast import FARTHEST, PER_TARGET, least, refits
from recscale.laws.form import Array, Form
from recscale.laws.forms import FORMS
from recscale.laws.frontier import Curves, frontier, line
from recscale.laws.intervals import draws, resample
from recscale.laws.isoflop import REACH, SIZES, isoflops, minima
from recscale.laws.reading import numbers
from recscale.laws.result import Fit, Status

SEED = 0
LINE = 3  # sizes on the frontier, or valleys, that make a line
PLACES = 4  # of them from which it is evidence
RARE = 0.1  # share of resamples without an exponent that is no reason for doubt
UNEVEN = 0.1  # rms of ln C about its line in N and D that is worth a word
TRUSTED = (Status.CONVERGED, Status.OUTLIERS)


@dataclass(frozen=True)
class _Lines:
    """Of all rows at once, the first the runs themselves, the others their resamples."""

    a: Array
    b: Array
    log_n: Array  # [rows, budgets]
    log_d: Array


def allocate(
    x: Mapping[str, Array],
    y: Array,
    *,
    form: Form,
    runs: Sequence[Any] | None = None,
    per_target: float = PER_TARGET,
    budgets: Sequence[float] = (),
    level: float = 0.9,
    delta: float | None = None,
    resamples: int = 1000,
) -> Allocations:
    """The three ways. x: N and D, or C, or both (the third by C = per_target N D); y: loss or metric.

    One entry a row; rows of one run (checkpoints) have the same entry in `runs`. form: of the joint law, of N
    and D. budgets: C to tell N and D at, by default the middle, the largest and ten times the largest C.
    Rows without a usable y are left out. Raises InputError where none is left, or a run has several N.
    """
    good = np.isfinite(y) & ((y > 0) | (not form.positive))
    if not good.any():
        raise InputError("no row has a usable y")
    log = {axis: np.log(np.asarray(part, dtype=np.float64)[good]) for axis, part in x.items()}
    slope, intercept = _cost(log, per_target)
    log.setdefault("D", log.get("C", 0.0) - intercept - slope * log["N"])
    log.setdefault("C", intercept + slope * log["N"] + log["D"])
    y = np.asarray(y, dtype=np.float64)[good]
    ids = np.arange(len(good)) if runs is None else np.asarray(runs)
    run = np.unique(ids[good], return_inverse=True)[1].ravel().astype(np.int64)
    curves = Curves(log["N"], log["D"], log["C"], np.log(y) if form.positive else -y, run)
    if (np.abs(curves.log_n - curves.sizes[run]) > 1e-9).any():
        raise InputError("a run has several N: is the column of the run the right one?")
    count = len(curves.sizes)
    rest = log["C"] - intercept - slope * log["N"] - log["D"]
    cost = {"k": float(np.exp(intercept)), "growth": slope, "rms": float(np.sqrt((rest**2).mean()))}
    low, high = float(np.exp(log["C"].min())), float(np.exp(log["C"].max()))
    at = np.array(sorted(budgets) or [np.sqrt(low * high), high, 10 * high])
    if at[-1] > FARTHEST * high * (1 + 1e-9):
        raise InputError(
            f"{at[-1]:.3g} FLOPs is {at[-1] / high:,.0f} times above the runs, {FARTHEST:g} times is the "
            f"most: measure runs of {at[-1] / FARTHEST:.3g} FLOPs"
        )
    law = fit_law(
        {"N": np.exp(log["N"]), "D": np.exp(log["D"])}, y, law=form.name, form=form, level=level, delta=delta,
        groups=run, resamples=resamples,
    )  # fmt: skip
    counts = draws(count, resamples, np.random.default_rng(SEED))
    with_all = np.concatenate([np.ones((1, count)), counts])
    by_frontier, margin = _by_frontier(curves, with_all, at, level, form.positive)
    by_isoflop = _by_isoflop(curves, with_all, at, level, form.positive)
    ways = [by_frontier, by_isoflop, _by_law(law, run, cost, at, resamples)]
    return Allocations(
        ways=tuple(way for way, _ in ways),
        ratios=tuple(_ratios(ways, at, level)),
        budgets=at.tolist(),
        measured=(low, high),
        cost=cost,
        runs=count,
        rows=len(y),
        left_out=int((~good).sum()),
        level=level,
        resamples=resamples,
        cautions=_cautions(ways[0][0], margin, law, cost, at, high, len(y) > count),
        law=law,
        curves=curves,
    )


def _cost(log: Mapping[str, Array], per_target: float) -> tuple[float, float]:
    """Slope and intercept of ln(C/D) against ln N: measured where the table has all three, else as given."""
    if not {"C", "D"} <= set(log) or np.ptp(log["N"]) < 1e-9:
        return 1.0, float(np.log(per_target))
    slope, intercept = np.polyfit(log["N"], log["C"] - log["D"], 1)
    return float(slope), float(intercept)


# --- the three ways ---


def _by_frontier(
    curves: Curves, counts: Array, at: Array, level: float, positive: bool
) -> tuple[tuple[Way, _Lines | None], float]:
    seen = frontier(curves, counts > 0)
    on = np.flatnonzero(~np.isnan(seen.log_n[0]))
    sizes = len(np.unique(seen.log_n[0, on]))
    if sizes < LINE:
        reason = (
            f"{sizes} sizes are lowest at a compute where sizes well below and above the best were measured "
            f"too; {LINE} make a line"
        )
        return (Way("frontier", Found.REFUSED, reason), None), seen.margin
    points = _points(seen.log_c[on], seen.log_n[0, on], seen.log_d[0, on], seen.value[0, on], positive)
    few = f"only {sizes} sizes are on the frontier" if sizes < PLACES else ""
    lines = _lines(seen.log_c, seen.log_n, seen.log_d, at)
    return _way("frontier", lines, few, len(curves.sizes), level, points, []), seen.margin


def _by_isoflop(
    curves: Curves, counts: Array, at: Array, level: float, positive: bool
) -> tuple[Way, _Lines | None]:
    parts = isoflops(curves, level)
    left = [{"C": float(np.exp(part.log_c)), "reason": part.reason} for part in parts if part.reason]
    bottom = len(parts) - len(left)
    if bottom < LINE:
        reason = (
            f"{bottom} of {len(parts)} budgets with {SIZES} sizes or more have a minimum; {LINE} make a line"
            if parts
            else f"no budget has {SIZES} sizes within a factor {np.exp(REACH):.0f} of the lowest"
        )
        told = "; ".join(f"{entry['C']:.3g} FLOPs: {entry['reason']}" for entry in left)
        return Way("isoflop", Found.REFUSED, f"{reason} ({told})" if told else reason), None
    log_n, log_d = minima(parts, counts)
    log_c = np.array([part.log_c for part in parts])
    on = np.flatnonzero(~np.isnan(log_n[0]))
    floor = np.array([parts[k].floor.min() for k in on])
    points = _points(log_c[on], log_n[0, on], log_d[0, on], floor, positive)
    few = f"only {bottom} budgets have a minimum" if bottom < PLACES else ""
    return _way("isoflop", _lines(log_c, log_n, log_d, at), few, len(curves.sizes), level, points, left)


def _by_law(
    law: Fit, run: NDArray[np.int64], cost: Mapping[str, float], at: Array, resamples: int
) -> tuple[Way, _Lines | None]:
    if law.parameters is None:
        return Way("parametric", Found.REFUSED, f"the law is {law.status}: {law.meaning}"), None
    if len({point["N"] for point in law.points_used}) == 1:
        return Way("parametric", Found.REFUSED, "there is one N alone"), None
    runs, theta = refits(law)
    if len(theta) == 1:  # too few for the law's own intervals, not for a look at how they scatter
        others, _ = resample(theta[0], runs, resamples, np.random.default_rng(SEED))
        theta = np.concatenate([theta, others])

    def best(c: float) -> Array:
        return least(runs, theta, c, cost["k"], None, cost["growth"])[0]

    log_n = np.stack([best(c) for c in at], axis=1)
    middle = float(at[len(at) // 2])
    a = (best(middle * np.sqrt(2)) - best(middle / np.sqrt(2))) / np.log(2)
    if np.isnan(log_n[0]).any() or np.isnan(a[0]):
        return Way("parametric", Found.REFUSED, "by the law the best is all N or all D"), None
    log_d = np.log(at / cost["k"]) - cost["growth"] * log_n
    lines = _Lines(a, 1 - cost["growth"] * a, log_n, log_d)
    doubt = "" if law.status in TRUSTED else f"the law is {law.status}: {law.meaning}"
    return _way("parametric", lines, doubt, int(run.max()) + 1, law.level, [], [])


def _lines(log_c: Array, log_n: Array, log_d: Array, at: Array) -> _Lines:
    (a, start_n), (b, start_d) = line(log_c, log_n), line(log_c, log_d)
    here = np.log(at)
    return _Lines(a, b, start_n[:, None] + a[:, None] * here, start_d[:, None] + b[:, None] * here)


def _points(log_c: Array, log_n: Array, log_d: Array, value: Array, positive: bool) -> list[Any]:
    y = np.exp(value) if positive else -value
    rows = zip(np.exp(log_c), np.exp(log_n), np.exp(log_d), y, strict=True)
    return [dict(zip(("C", "N", "D", "y"), map(float, row), strict=True)) for row in rows]


def _way(
    name: str, lines: _Lines, doubt: str, runs: int, level: float, points: list[Any], left: list[Any]
) -> tuple[Way, _Lines]:
    none = float(np.isnan(lines.a[1:]).mean())
    doubts = [doubt] if doubt else []
    few = runs < MANY
    if few:
        doubts.append(f"{runs} runs are too few to be resampled")
    if none > RARE:
        doubts.append(f"{100 * none:.0f} % of the resamples have no exponent")
    columns = range(lines.log_n.shape[1])

    def ends(values: Array, exp: bool = False) -> Ends:
        return [None, None] if few else _ends(values, level, exp)

    way = Way(
        way=name,
        status=Found.DOUBTFUL if doubts else Found.FOUND,
        reason="; ".join(doubts),
        a=float(lines.a[0]),
        a_interval=ends(lines.a[1:]),
        b=float(lines.b[0]),
        b_interval=ends(lines.b[1:]),
        n=np.exp(lines.log_n[0]).tolist(),
        n_intervals=[ends(lines.log_n[1:, k], exp=True) for k in columns],
        d=np.exp(lines.log_d[0]).tolist(),
        d_intervals=[ends(lines.log_d[1:, k], exp=True) for k in columns],
        points=points,
        left_out=left,
        no_exponent=none,
    )
    return way, lines


def _ends(values: Array, level: float, exp: bool = False) -> Ends:
    """Percentiles over the resamples that have a value; open where fewer than half have one."""
    if np.isnan(values).mean() > 0.5:
        return [None, None]
    ends = np.nanpercentile(values, [50 * (1 - level), 50 * (1 + level)])
    low, high = np.exp(ends) if exp else ends
    return [float(low), float(high)]


def _ratios(ways: Sequence[tuple[Way, _Lines | None]], at: Array, level: float) -> list[Ratio]:
    known = [(way.way, lines) for way, lines in ways if lines is not None]
    few = any(way.a is not None and way.a_interval == [None, None] for way, _ in ways)
    rows = []
    for k, c in enumerate(at):
        for (first, one), (second, other) in combinations(known, 2):
            ratio = one.log_n[:, k] - other.log_n[:, k]
            low, high = [None, None] if few else _ends(ratio[1:], level, exp=True)
            differ = low is not None and high is not None and not low <= 1 <= high
            rows.append(Ratio(first, second, float(c), float(np.exp(ratio[0])), [low, high], differ))
    return rows


def _cautions(
    found: Way, margin: float, law: Fit, cost: Mapping[str, float], at: Array, high: float, several: bool
) -> list[str]:
    words = []
    if found.points:
        curse = "frontier: each winner was picked on its own noisy loss, so it looks better than it is"
        if np.isfinite(margin):
            behind = f"{100 * margin:.2g} %" if law.shape.positive else f"{margin:.2g} of y"
            curse += f"; the next size is {behind} behind in the median"
            if law.shape.positive and law.sigma and margin < 2 * law.sigma:
                noise = f"{100 * law.sigma:.2g} %"
                curse += f", the noise of one run about the law {noise}: luck decides which size wins"
        words.append(curse)
    if several:
        words.append(
            "rows before the end of a run are no finished runs if its learning rate was still to fall: then "
            "their loss is too high, in all three ways"
        )
    if cost["rms"] > UNEVEN:
        words.append(
            f"C is {cost['k']:.3g} N^{cost['growth']:.2f} D only within {100 * cost['rms']:.0f} % (rms): the "
            "parametric way spends its budget by that line"
        )
    if at[-1] > 1.001 * high:
        words.append(
            f"{at[-1]:.3g} FLOPs is {at[-1] / high:.3g} times above the runs: the intervals are for noise, "
            "not for another form"
        )
    return words


# --- a table ---


def allocate_table(
    path: Path, frame: pd.DataFrame, x: Mapping[str, str], y: str, law: str, run: str | None, **options: Any
) -> Allocations:
    """`allocate` of a table's columns. Raises InputError for columns and options that cannot be."""
    if law not in FORMS or set(FORMS[law].axes) != {"N", "D"}:
        known = ", ".join(name for name, form in FORMS.items() if set(form.axes) == {"N", "D"})
        raise InputError(f"--law {law}: is not one of {known}")
    if "N" not in x or not {"C", "D"} & set(x) or not set(x) <= {"N", "D", "C"}:
        raise InputError("--x: give N=COLUMN and D=COLUMN or C=COLUMN (FLOPs), or all three")
    if not 0 < options.get("level", 0.9) < 1 or not (options.get("delta") is None or options["delta"] > 0):
        raise InputError("need 0 < level < 1, delta > 0")
    columns = {axis: numbers(frame, column, path, positive=True) for axis, column in x.items()}
    values = numbers(frame, y, path, positive=False)
    if run is not None and run not in frame:
        raise InputError(f"{path}: has no column {run}; it has {', '.join(map(str, frame.columns[:30]))}")
    runs = None if run is None else frame[run].astype(str).to_numpy()
    try:
        return allocate(columns, values, form=FORMS[law], runs=runs, **options)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
