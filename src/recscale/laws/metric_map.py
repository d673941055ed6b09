"""From loss to a ranking metric: what a study's own runs say of HR@10 at a test loss.

Laws are fitted to the loss, for it is smooth where metrics are counts of users; who plans thinks in
metrics. The map is a straight line of the metric's log-odds in the loss, through the runs in the better
half between item popularity and the best run: worse ones have learned popularity and little else, and
lie on another line. It belongs to one dataset and one way of evaluating.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit
from scipy.stats import t as t_distribution

from recscale.errors import InputError
from recscale.laws.form import Array

LEAST = 4  # runs for a line and an honest error


@dataclass(frozen=True)
class MetricMap:
    """logit(metric) = a + b * (loss - centre), least squares.

    sd: of a run's log-odds about the line; spread: sum of squares of the losses about centre; runs: how
    many; low, high: their losses; threshold: runs of a higher loss were not used; error: root mean
    square of the relative errors of runs left out one at a time.
    """

    metric: str
    a: float
    b: float
    centre: float
    spread: float
    sd: float
    runs: int
    low: float
    high: float
    threshold: float
    error: float

    def predict(self, loss: ArrayLike) -> Array:
        """The metric at a test loss in nats."""
        return np.asarray(expit(self.a + self.b * (np.asarray(loss) - self.centre)))

    def interval(
        self, loss: ArrayLike, level: float, ends: Sequence[float | None] | None = None
    ) -> tuple[Array, Array]:
        """Interval of one run's metric at a loss; with `ends`, an interval of the loss, in quadrature.

        An end of the loss that is not bounded leaves the metric's open: 0, or 1.
        """
        at = np.asarray(loss, dtype=np.float64)
        quantile = t_distribution.ppf(0.5 + level / 2, self.runs - 2)
        own = quantile * self.sd * np.sqrt(1 + 1 / self.runs + (at - self.centre) ** 2 / self.spread)
        middle = self.a + self.b * (at - self.centre)
        low_loss, high_loss = (at, at) if ends is None else (
            np.inf * sign if end is None else np.asarray(end)
            for end, sign in zip(ends, (-1, 1), strict=True)
        )  # fmt: skip
        below = np.hypot(own, self.b * (high_loss - at))
        above = np.hypot(own, self.b * (low_loss - at))
        return np.asarray(expit(middle - below)), np.asarray(expit(middle + above))

    def warning(self, loss: float) -> str:
        """Why not to trust the metric at this loss; empty where there is no reason."""
        if self.low <= loss <= self.high:
            return ""
        beyond, end = ("below", self.low) if loss < self.low else ("above", self.high)
        return f"loss {loss:.4g} is {abs(end - loss):.2g} nats {beyond} the runs of the map"


def fit_map(metric: str, loss: ArrayLike, value: ArrayLike, popularity: float) -> MetricMap:
    """The map of a metric, from a test loss and a value a run and the test loss of item popularity.

    Runs without a finite loss, or with a value that is not between 0 and 1, are not used. Raises InputError
    where fewer than LEAST runs are left, their losses are one, or the metric does not rise as the loss falls.
    """
    x, y = np.asarray(loss, dtype=np.float64), np.asarray(value, dtype=np.float64)
    good = np.isfinite(x) & (y > 0) & (y < 1)
    threshold = (float(x[good].min()) + popularity) / 2 if good.any() else np.nan
    good &= x <= threshold
    x, t, y = x[good], logit(y[good]), y[good]
    if len(x) < LEAST or np.ptp(x) == 0:
        raise InputError(
            f"{metric}: a map from the loss needs {LEAST} runs of different loss in the better half between "
            f"item popularity and the best run; there are {len(np.unique(x))}"
        )
    centre = float(x.mean())
    spread = float(((x - centre) ** 2).sum())
    b = float(((x - centre) * t).sum()) / spread
    a = float(t.mean())
    if b >= 0:
        raise InputError(f"{metric}: does not rise as the loss falls, among {len(x)} runs: there is no map")
    left = t - a - b * (x - centre)
    sd = float(np.sqrt((left**2).sum() / (len(x) - 2)))
    alone = left / (1 - 1 / len(x) - (x - centre) ** 2 / spread)  # residuals of runs left out
    error = float(np.sqrt(np.mean((expit(t - alone) / y - 1) ** 2)))
    return MetricMap(
        metric, a, b, centre, spread, sd, len(x), float(x.min()), float(x.max()), threshold, error
    )
