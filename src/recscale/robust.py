"""The objective of a fit of L(x) = E + (X0/x)^alpha, its solver, and its profile intervals.

Summed Huber loss of log residuals. Everything works on a batch of problems at once, one a row: all
starts of a fit, or both ends of all its intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import f as f_distribution
from scipy.stats import norm

Array = NDArray[np.float64]

ALPHA_RANGE = (1e-3, 5.0)
# Losses are float32 at best, so smaller noise of the log loss is not believed.
NOISE_FLOOR = 1e-7
START_ALPHAS = np.geomspace(0.03, 3.0, 10)
START_SHARES = (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.995)  # of E in the lowest loss
STARTS = len(START_ALPHAS) * len(START_SHARES)

# What a problem holds fixed. X0 is the size where the curve is E + 1, VALUE its height at one size.
FREE, PIN_E, PIN_X0, PIN_ALPHA, PIN_VALUE = range(5)


@dataclass(frozen=True)
class Runs:
    u: Array  # ln x less its mean: centring keeps the height of the curve and alpha apart
    log_y: Array
    delta: float


@dataclass(frozen=True)
class Pins:
    kind: NDArray[np.int64]
    at: Array  # the fixed E, centred ln X0, ln alpha or ln value
    where: Array  # centred ln x of a fixed value

    def __getitem__(self, index: NDArray[Any]) -> Pins:
        return Pins(self.kind[index], self.at[index], self.where[index])


def curve(theta: Array, u: Array) -> tuple[Array, Array]:
    """ln L and its slopes by theta = (E, t, alpha), L = E + exp(t - alpha u); one row a problem."""
    term = theta[:, 1:2] - theta[:, 2:3] * u
    with np.errstate(divide="ignore"):  # E = 0 is legal: ln E = -inf adds nothing
        log_l = np.logaddexp(np.log(theta[:, :1]), term)
    share = np.exp(term - log_l)
    return log_l, np.stack([np.exp(-log_l), share, -u * share], axis=-1)


def objective(theta: Array, runs: Runs) -> Array:
    size = np.abs(curve(theta, runs.u)[0] - runs.log_y)
    inside = np.minimum(size, runs.delta)
    return np.asarray((inside * (size - 0.5 * inside)).sum(1))


def slopes(theta: Array, runs: Runs, turn: Array) -> tuple[Array, Array]:
    """Gradient in the directions `turn`, and the Hessian of the objective's quadratic majorant."""
    log_l, jac = curve(theta, runs.u)
    residual = log_l - runs.log_y
    weight = np.minimum(1.0, runs.delta / np.maximum(np.abs(residual), 1e-300))[..., None]
    jac = jac @ turn
    gradient = (jac * weight * residual[..., None]).sum(1)
    return gradient, np.swapaxes(jac * weight, 1, 2) @ jac


def pin(theta: Array, pins: Pins) -> tuple[Array, Array]:
    """theta moved onto what is held fixed, and the directions in which it may still move."""
    theta, turn = theta.copy(), np.tile(np.eye(3), (len(theta), 1, 1))
    for kind, column in ((PIN_E, 0), (PIN_X0, 1), (PIN_VALUE, 1), (PIN_ALPHA, 2)):
        turn[pins.kind == kind, :, column] = 0
    m = pins.kind == PIN_E
    theta[m, 0] = pins.at[m]
    m = pins.kind == PIN_ALPHA
    theta[m, 2] = np.exp(pins.at[m])
    m = pins.kind == PIN_X0
    theta[m, 1], turn[m, 1, 2] = theta[m, 2] * pins.at[m], pins.at[m]
    m = pins.kind == PIN_VALUE
    value = np.exp(pins.at[m])
    theta[m, 0] = np.minimum(theta[m, 0], value * (1 - 1e-9))
    theta[m, 1] = np.log(value - theta[m, 0]) + theta[m, 2] * pins.where[m]
    turn[m, 1, 0], turn[m, 1, 2] = -1 / (value - theta[m, 0]), pins.where[m]
    return theta, turn


def _moved(theta: Array, step: NDArray[np.floating[Any]], pins: Pins) -> Array:
    """theta after a step, with E of a pinned value moved along ln(value - E).

    On that scale the path that keeps the curve on the runs is straight. In E itself it bends, and
    for a value far beyond the runs the solver would stop halfway and the interval come out short.
    """
    new = theta + step
    m = pins.kind == PIN_VALUE
    gap = np.exp(pins.at[m]) - theta[m, 0]
    new[m, 0] = theta[m, 0] - gap * np.expm1(np.clip(-step[m, 0] / gap, -5.0, 5.0))
    return new


def _solve(theta: Array, pins: Pins, runs: Runs, tolerance: float, steps: int) -> tuple[Array, Array]:
    """Levenberg-Marquardt on every row of theta: where each ends, and its objective there.

    A row stops when a full Newton step promises less than `tolerance` of its objective.
    """
    low, high = np.array([[0.0, -300.0, ALPHA_RANGE[0]], [inf, 300.0, ALPHA_RANGE[1]]])
    theta, _ = pin(np.clip(theta, low, high), pins)
    value, damping, todo = objective(theta, runs), np.full(len(theta), 1e-3), np.arange(len(theta))
    for _ in range(steps):
        if not todo.size:
            break
        now, turn = pin(theta[todo], pins[todo])
        gradient, hessian = slopes(now, runs, turn)
        stuck = ((now <= low) & (gradient > 0)) | ((now >= high) & (gradient < 0))
        gradient = np.where(stuck, 0.0, gradient)
        hessian = np.where(stuck[:, :, None] | stuck[:, None, :], 0.0, hessian)
        diagonal = np.einsum("bii->bi", hessian)
        scale = np.where(diagonal > 0, diagonal, 1.0)[:, :, None] * np.eye(3)
        newton = np.linalg.solve(hessian + 1e-10 * scale, -gradient[..., None])[..., 0]
        step = np.linalg.solve(hessian + damping[todo, None, None] * scale, -gradient[..., None])
        new, _ = pin(np.clip(_moved(now, step[..., 0], pins[todo]), low, high), pins[todo])
        new_value = objective(new, runs)
        better = new_value < value[todo]
        enough = tolerance * value[todo] + 1e-24
        done = -(gradient * newton).sum(1) <= enough
        done |= better & (value[todo] - new_value <= enough) & (damping[todo] <= 1)
        theta[todo[better]], value[todo[better]] = new[better], new_value[better]
        damping[todo] = np.maximum(damping[todo] * np.where(better, 0.2, 5.0), 1e-12)
        todo = todo[~done & (damping[todo] < 1e14)]
    return theta, value


def best(runs: Runs) -> tuple[Array, float, float]:
    """The best theta over the grid of starts, its objective, the share of starts that reach it."""
    alpha, share = (g.ravel() for g in np.meshgrid(START_ALPHAS, START_SHARES))
    e = share * np.exp(runs.log_y.min())
    t = np.median(np.log(np.exp(runs.log_y) - e[:, None]) + alpha[:, None] * runs.u, axis=1)
    free = Pins(np.full(len(e), FREE), np.zeros(len(e)), np.zeros(len(e)))
    theta, value = _solve(np.stack([e, t, alpha], axis=1), free, runs, 1e-12, 300)
    k = int(value.argmin())
    # On an exact curve 0.1 % of the objective is rounding: a millionth of each loss is near enough.
    near = value <= value[k] * 1.001 + 0.5e-12 * len(runs.u)
    return theta[k], float(value[k]), float(near.mean())


# --- intervals ---


def noise(runs: Runs, rss: float, df: int) -> float | None:
    """sd of the log loss of one run: of the residuals, never below that of seeds at one size."""
    if df < 1:
        return None
    _, group = np.unique(runs.u, return_inverse=True)
    means = np.bincount(group, runs.log_y) / np.bincount(group)
    extra = len(group) - len(means)
    pooled = ((runs.log_y - means[group]) ** 2).sum() / extra if extra else 0.0
    return max(sqrt(rss / df), sqrt(pooled), NOISE_FLOOR)


def rise(sigma: float, delta: float, level: float, df: int) -> float:
    """How far the objective may rise above its minimum inside an interval.

    Schrader and Hettmansperger (1980): 2 * rise ~ E[psi^2] / E[psi'] * F(1, df), normal noise.
    """
    z = min(delta / sigma, 20.0)  # beyond, psi is linear for all noise, and inf * 0 is no number
    slope = 2 * norm.cdf(z) - 1
    square = sigma**2 * (slope - 2 * z * norm.pdf(z)) + 2 * (z * sigma) ** 2 * norm.sf(z)
    return float(0.5 * square / slope * f_distribution.ppf(level, 1, df))


def ends(best: Array, runs: Runs, rise: float, targets: Sequence[tuple[int, float]]) -> Array:
    """Both profile ends of every target (kind, where); nan where its quantity meets a limit first.

    Walks outwards from the estimate, then closes in by secants of the root of the rise, which is
    near linear; every step of every end is one row of one batch.
    """
    y, (e, t, alpha) = np.exp(runs.log_y), best
    about = {  # estimate, lower and upper limit
        PIN_E: (e, 0.0, y.max()),
        PIN_X0: (t / alpha, runs.u.min() - 60, runs.u.max() + 60),
        PIN_ALPHA: (log(alpha), log(ALPHA_RANGE[0]), log(ALPHA_RANGE[1])),
    }
    wheres = np.repeat([where for _, where in targets], 2)
    kinds = np.repeat([kind for kind, _ in targets], 2)
    heights = curve(best[None], wheres)[0][0]
    start, low, high = np.array(
        [about.get(k, (h, log(y.min()) - 7, log(y.max()) + 7)) for k, h in zip(kinds, heights, strict=True)]
    ).T
    side = np.tile([-1.0, 1.0], len(targets))
    base = float(objective(best[None], runs)[0])
    inner, outer = start.copy(), np.full(len(start), np.nan)
    z_in, z_out, theta_in = 0 * start, outer.copy(), np.tile(best, (len(start), 1))
    todo, met = np.arange(len(start)), np.zeros(len(start), dtype=bool)
    for turn in range(60):
        a, b, za, zb = inner[todo], outer[todo], z_in[todo], z_out[todo]
        further = (a - start[todo]) * np.clip(1.1 / np.maximum(za, 1e-9), 1.3, 100.0)
        away = start[todo] + np.where(a == start[todo], side[todo] * 1e-3, further)
        # A secant alone creeps where the rise has a kink, so every third step halves the bracket.
        part = np.clip((1 - za) / (zb - za), 1e-3, 0.9) if turn % 3 else 0.5
        between = a + part * (b - a)
        trial = np.where(np.isnan(b), np.clip(away, low[todo], high[todo]), between)
        pins = Pins(kinds[todo], trial, wheres[todo])
        near = theta_in[todo]
        # A pinned value is approached by shifting the whole curve, which its runs resist least.
        shift = np.where(kinds[todo] == PIN_VALUE, np.exp(trial) - np.exp(a), 0.0)
        near[:, 0] = np.maximum(near[:, 0] + shift, 0.0)
        theta, value = _solve(near, pins, runs, 1e-7, 50)
        z = np.sqrt(np.maximum(value - base, 0.0) / rise)
        into, out = todo[z <= 1], todo[z > 1]
        inner[into], z_in[into], theta_in[into] = trial[z <= 1], z[z <= 1], theta[z <= 1]
        outer[out], z_out[out] = trial[z > 1], z[z > 1]
        met[todo] = (z <= 1) & (trial == np.where(side[todo] < 0, low[todo], high[todo]))
        close = np.abs(outer[todo] - inner[todo]) < 2e-3 * np.abs(inner[todo] - start[todo]) + 1e-12
        todo = todo[~(met[todo] | ((z <= 1) & (z > 0.998)) | close)]
        if not todo.size:
            break
    return np.where(met, np.nan, inner).reshape(-1, 2)
