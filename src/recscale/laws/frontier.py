"""Compute-optimal N from the envelope of training curves: the lowest loss that each compute has bought.

Approach 1 of Hoffmann et al. (arXiv 2203.15556). The winner at each C is picked on a noisy loss, so its
loss is too low and its size partly luck: `Frontier.margin` says how near the next size comes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recscale.laws.form import Array

NODES = 200  # compute at which curves are compared, evenly spaced in ln C
WIDTH = float(np.log(1.5))  # ln C of runs that count as of one budget


@dataclass(frozen=True)
class Curves:
    """Rows of runs, one or several (checkpoints) each. value: ln loss, or a metric times -1: less is better.

    run: which run each row is of, 0 to the number of runs less 1; N is the same in all rows of a run.
    """

    log_n: Array
    log_d: Array
    log_c: Array
    value: Array
    run: NDArray[np.int64]

    @property
    def sizes(self) -> Array:
        """ln N of each run."""
        return np.asarray(self.log_n[np.unique(self.run, return_index=True)[1]])

    @property
    def spans(self) -> Array:
        """[runs, 2]: ln C of the first and the last row of each run."""
        count = int(self.run.max()) + 1
        ends = np.stack([np.full(count, np.inf), np.full(count, -np.inf)], axis=1)
        np.minimum.at(ends[:, 0], self.run, self.log_c)
        np.maximum.at(ends[:, 1], self.run, self.log_c)
        return ends

    def at(self, log_c: Array) -> tuple[Array, Array]:
        """value and ln D [runs, log_c], between rows of a run on a straight line, nan outside them."""
        value, log_d = np.full((2, len(self.sizes), len(log_c)), np.nan)
        for run in range(len(value)):
            rows = np.flatnonzero(self.run == run)
            rows = rows[np.argsort(self.log_c[rows], kind="stable")]
            x = self.log_c[rows]
            inside = (log_c >= x[0]) & (log_c <= x[-1])
            value[run, inside] = np.interp(log_c[inside], x, self.value[rows])
            log_d[run, inside] = np.interp(log_c[inside], x, self.log_d[rows])
        return value, log_d


@dataclass(frozen=True)
class Frontier:
    """log_n, log_d, value [resamples, nodes]: of the winner at each log_c, nan where no frontier is seen.

    margin: how much worse, in the unit of `value`, the best other size is at the same compute, as the
    median over the frontier of the first resample; nan where there is none.
    """

    log_c: Array
    log_n: Array
    log_d: Array
    value: Array
    margin: float


def frontier(curves: Curves, present: NDArray[np.bool_]) -> Frontier:
    """The frontier of each resample; present [resamples, runs]: which runs are in it.

    A node is on it where its winner is lower than anything cheaper, and where the sizes measured at that
    compute reach beyond the best on either side by twice the scatter of the winners: near the end of a
    ladder those winners that luck would put beyond it are missing, which flattens the exponent. The best
    there is that of a first line, through the winners that had a smaller and a larger size beside them.
    """
    spans, sizes = curves.spans, curves.sizes
    several = spans[:, 0] < spans[:, 1]
    nodes = spans[~several, 0]
    if several.any():
        nodes = np.r_[nodes, np.linspace(spans[several, 0].min(), spans[several, 1].max(), NODES)]
    log_c = np.unique(nodes)
    value, log_d = curves.at(log_c)
    near = (log_c >= spans[:, :1] - WIDTH / 2) & (log_c <= spans[:, 1:] + WIDTH / 2)
    smallest, largest = (np.where(near, sizes[:, None], end) for end in (np.inf, -np.inf))
    losses = np.where(np.isnan(value), np.inf, value)
    won = np.full((3, len(present), len(log_c)), np.nan)
    low, high = np.full((2, len(present), len(log_c)), np.nan)
    every = np.arange(len(log_c))
    for row, here in enumerate(present):
        if not here.any():
            continue
        winner = np.flatnonzero(here)[losses[here].argmin(0)]
        best = losses[winner, every]
        record = best < np.r_[np.inf, np.minimum.accumulate(best)[:-1]]
        won[:, row, record] = np.stack([sizes[winner], log_d[winner, every], best])[:, record]
        low[row], high[row] = smallest[here].min(0), largest[here].max(0)
    first = np.where((won[0] > low) & (won[0] < high), won[0], np.nan)
    slope, start = (part[:, None] for part in line(log_c, first))
    expected = start + slope * log_c
    known = ~np.isnan(first)
    square = np.where(known, first - expected, 0.0) ** 2
    beyond = 2 * np.sqrt(square.sum(1) / np.maximum(known.sum(1), 1))[:, None]
    on = (expected - beyond > low) & (expected + beyond < high)
    found = np.where(on, won, np.nan)
    margin = _margin(curves, log_c, found[0, 0], found[2, 0]) if len(present) else np.nan
    return Frontier(log_c, found[0], found[1], found[2], margin)


def _margin(curves: Curves, log_c: Array, log_n: Array, best: Array) -> float:
    """Median of how far the best other size is behind at the same compute, or up to a fifth less."""
    gaps = []
    for k in np.flatnonzero(~np.isnan(log_n)):
        less = log_c[k] - curves.log_c
        other = (less >= 0) & (less <= WIDTH / 2) & (curves.log_n != log_n[k])
        if other.any():
            gaps.append(max(0.0, float(curves.value[other].min() - best[k])))
    return float(np.median(gaps)) if gaps else np.nan


def line(log_c: Array, y: Array) -> tuple[Array, Array]:
    """Least-squares slope and intercept of each row of y against log_c, over what is not nan.

    nan for a row of fewer than two distinct log_c.
    """
    known = ~np.isnan(y)
    count = np.maximum(known.sum(1), 1)
    x = np.where(known, log_c, 0.0)
    middle = x.sum(1) / count
    height = np.where(known, y, 0.0).sum(1) / count
    away = np.where(known, x - middle[:, None], 0.0)
    square = (away**2).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = (away * np.where(known, y - height[:, None], 0.0)).sum(1) / square
    slope = np.where(square > 1e-9, slope, np.nan)
    return slope, height - slope * middle
