"""Compute-optimal N from IsoFLOP valleys: runs of one budget, their loss against N, its minimum.

Approach 2 of Hoffmann et al. (arXiv 2203.15556), with a least-squares cubic spline where they have a
parabola, whose minimum is off where a valley's sides are not alike. It does not pass through the noise
of each run, as an interpolating spline would (Porian et al., arXiv 2406.19146), which moved the minimum
two to three times as much in planted valleys: docs/laws.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.stats import f as f_distribution

from recscale.laws.form import Array
from recscale.laws.frontier import WIDTH, Curves

BUDGETS = 12  # that curves are cut at
SIZES = 5  # distinct N of a valley, at least
APART = float(np.log(1.05))  # ln N between sizes that are not the same one with another item table
OVERSHOOT = 0.25  # of a valley's depth: how far between its sizes the spline may go below every run
BEND = 12  # distinct N from which the spline has an inner knot: with fewer it follows the noise
REACH = float(
    np.log(10)
)  # ln N on either side of the lowest run: a valley's far walls say nothing of its floor
GRID = 401  # ln N at which the spline is compared
FLOOR = 1e-7  # noise below that of float32 is not believed


@dataclass(frozen=True)
class IsoFlop:
    """Runs of one budget. off: ln C of each less `log_c`. reason: why it has no minimum, '' where it has.

    grid, floor: ln N and the spline through the runs, at `log_c`; empty where there are too few.
    """

    log_c: float
    run: NDArray[np.int64]
    log_n: Array
    log_d: Array
    value: Array
    off: Array
    reason: str = ""
    best: float = np.nan
    grid: Array = field(default_factory=lambda: np.empty(0))
    floor: Array = field(default_factory=lambda: np.empty(0))


def isoflops(curves: Curves, level: float) -> list[IsoFlop]:
    """Every budget that has enough sizes, with its minimum or the reason why it has none.

    Runs of one row each are of one budget where their C are within a factor 1.5. Curves are cut at
    budgets evenly spaced in ln C. Only sizes within a factor 10 of the lowest count.
    """
    return [_judged(part, level) for part in _groups(curves) if _sizes(part.log_n) >= SIZES]


def _sizes(log_n: Array) -> int:
    """Distinct sizes, those within a twentieth of the next taken for one."""
    return 1 + int((np.diff(np.sort(log_n)) > APART).sum())


def _groups(curves: Curves) -> list[IsoFlop]:
    spans, sizes = curves.spans, curves.sizes
    if (spans[:, 0] < spans[:, 1]).any():
        places = np.linspace(spans[:, 0].min(), spans[:, 1].max(), BUDGETS + 2)[1:-1]
        value, log_d = curves.at(places)
        parts = []
        for k, log_c in enumerate(places):
            run = np.flatnonzero(~np.isnan(value[:, k]))
            off = np.zeros(len(run))
            parts.append(IsoFlop(float(log_c), run, sizes[run], log_d[run, k], value[run, k], off))
    elif len(sizes) > 1:
        label = fcluster(linkage(curves.log_c[:, None], "complete"), WIDTH, "distance")
        parts = []
        for one in range(1, label.max() + 1):
            rows = np.flatnonzero(label == one)
            log_c = float(curves.log_c[rows].mean())
            log_n, log_d, value = (x[rows] for x in (curves.log_n, curves.log_d, curves.value))
            off = curves.log_c[rows] - log_c
            parts.append(IsoFlop(log_c, curves.run[rows], log_n, log_d, value, off))
    else:
        parts = []
    return sorted((_near(part) for part in parts if len(part.run)), key=lambda part: part.log_c)


def _near(part: IsoFlop) -> IsoFlop:
    kept = np.abs(part.log_n - part.log_n[part.value.argmin()]) <= REACH
    log_n, log_d, value, off = (x[kept] for x in (part.log_n, part.log_d, part.value, part.off))
    return IsoFlop(part.log_c, part.run[kept], log_n, log_d, value, off)


def _basis(part: IsoFlop, log_n: Array, off: Array) -> Array:
    """Columns of the spline: a cubic, a knot at the median size where there are many, and C's own slope."""
    sizes = np.unique(part.log_n)
    u = (log_n - np.median(sizes)) / np.ptp(sizes)
    columns = [np.ones_like(u), u, u**2, u**3]
    if len(sizes) >= BEND:
        columns.append(np.maximum(u, 0.0) ** 3)
    if np.ptp(part.off) > 1e-6:
        columns.append(off)
    return np.stack(columns, axis=1)


def _minima(part: IsoFlop, weights: Array) -> tuple[Array, Array, Array]:
    """ln N of the spline's minimum for each row of weights [resamples, runs of the valley], and the curves.

    nan where it is at the smallest or largest size that counts, or fewer sizes count than constants.
    """
    x = _basis(part, part.log_n, part.off)
    gram = np.einsum("rn,ni,nj->rij", weights, x, x)
    by_y = (weights * part.value) @ x
    theta = (np.linalg.pinv(gram, rcond=1e-11, hermitian=True) @ by_y[:, :, None])[:, :, 0]
    grid = np.linspace(part.log_n.min(), part.log_n.max(), GRID)
    curve = theta @ _basis(part, grid, np.zeros(GRID)).T
    low = np.where(weights > 0, part.log_n, np.inf).min(1)[:, None]
    high = np.where(weights > 0, part.log_n, -np.inf).max(1)[:, None]
    step = grid[1] - grid[0]
    inside = (grid >= low - step / 2) & (grid <= high + step / 2)
    place = np.where(inside, curve, np.inf).argmin(1)
    best = grid[place]
    bounded = (best > low[:, 0] + 1.5 * step) & (best < high[:, 0] - 1.5 * step)
    sizes, of = np.unique(part.log_n, return_inverse=True)
    seen = weights @ (of.ravel()[:, None] == np.arange(len(sizes)))
    enough = (seen > 0).sum(1) >= x.shape[1]
    return np.where(bounded & enough, best, np.nan), grid, curve


def _judged(part: IsoFlop, level: float) -> IsoFlop:
    best, grid, curve = _minima(part, np.ones((1, len(part.run))))
    floor = curve[0]
    found = replace(part, grid=grid, floor=floor)
    noise, bends = _noise(part, level)
    rises = {"smallest": floor[0] - floor.min(), "largest": floor[-1] - floor.min()}
    end = min(rises, key=lambda end: float(rises[end]))
    if np.isnan(best[0]) or rises[end] <= noise:
        return replace(
            found, reason=f"the {end} size is as low as any, within noise: the best may be beyond it"
        )
    if not bends:
        return replace(found, reason="no bend beyond its noise")
    below = part.value.min() - floor.min()
    if below > 2 * noise + OVERSHOOT * rises[end]:
        return replace(found, reason="the minimum is in a gap between sizes, below every run")
    return replace(found, best=float(best[0]))


def _noise(part: IsoFlop, level: float) -> tuple[float, bool]:
    """sd of a run about the spline, and whether an F test finds the spline better than a straight line."""
    full = _basis(part, part.log_n, part.off)
    straight = full[:, [0, 1, *([full.shape[1] - 1] if np.ptp(part.off) > 1e-6 else [])]]
    rss = [
        float(((part.value - x @ np.linalg.lstsq(x, part.value, rcond=None)[0]) ** 2).sum())
        for x in (full, straight)
    ]
    terms, df = full.shape[1] - straight.shape[1], len(part.value) - full.shape[1]
    noise = max(rss[0] / df, FLOOR**2) if df > 0 else FLOOR**2
    quantile = f_distribution.ppf(level, terms, df) if df > 0 else 1.0
    return float(np.sqrt(noise)), bool((rss[1] - rss[0]) / terms > noise * quantile)


def minima(parts: list[IsoFlop], counts: Array) -> tuple[Array, Array]:
    """ln N and ln D [resamples, valleys] at the minimum of each; counts [resamples, runs].

    nan where a valley has no minimum, or has none in that resample.
    """
    log_n, log_d = np.full((2, len(counts), len(parts)), np.nan)
    for k, part in enumerate(parts):
        if not part.reason:
            log_n[:, k] = _minima(part, counts[:, part.run])[0]
            order = np.argsort(part.log_n, kind="stable")
            # At one C, ln D falls with ln N on a straight line, or nearly.
            log_d[:, k] = np.interp(log_n[:, k], part.log_n[order], (part.log_d - part.off)[order])
    return log_n, log_d
