"""The objective of a fit, and its minimiser.

Summed Huber loss of residuals, of the logarithm for losses (Hoffmann et al., arXiv 2203.15556,
approach 3). Summed, never averaged: an average is so small that solvers stop early at wrong
exponents (Besiroglu et al., arXiv 2404.10102).

Everything works on a batch of problems at once, one a row: all starts of a fit, all bootstrap
resamples, or both ends of all intervals. That is why it is not `scipy.optimize`: with analytic
gradients its L-BFGS-B is near on one Hoffmann fit, and a hundred times slower on a ladder's profiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recscale.laws.form import Array, Form

LOOK = 12  # rows a constant on which starts descend first
MOST = 5_000  # rows that suffice for all but the last digits
PLACES, FINAL = 64, 8  # where starts end, from which MOST rows are fitted, and then all
CHUNK = 250_000  # numbers of one Jacobian: those of one chunk stay in a core's cache


@dataclass(frozen=True)
class Runs:
    """What is fitted, a row each. log_x [axes, rows]; target: ln y, or y in units of its median for metrics.

    low, high: bounds of theta; the same where a constant is held fixed. run: of each row, from 0. weight: 1
    over the rows of its run, so that a run counts once however many checkpoints it has; None where each
    run has one.
    """

    form: Form
    log_x: Array
    target: Array
    scale: float
    delta: float
    low: Array
    high: Array
    run: NDArray[np.int64]
    weight: Array | None

    @classmethod
    def of(
        cls, form: Form, log_x: Array, y: Array, delta: float, fixed: Mapping[str, float] | None = None,
        run: NDArray[np.int64] | None = None,
    ) -> Runs:  # fmt: skip
        """Rows with values y in the unit of y. fixed: named constants that are not fitted."""
        low, high = form.theta_bounds()
        for name, value in (fixed or {}).items():
            place = form.names.index(name)
            low[place] = high[place] = np.log(value) if form.parameters[place].log else value
        run = np.arange(len(y)) if run is None else np.unique(run, return_inverse=True)[1].ravel()
        if form.positive:
            return cls(form, log_x, np.log(y), 1.0, delta, low, high, run, _weight(run))
        scale = float(np.median(np.abs(y))) or 1.0
        return cls(form, log_x, y / scale, scale, delta, low, high, run, _weight(run))

    def __getitem__(self, rows: NDArray[Any]) -> Runs:
        """Some of the rows, weighted anew."""
        _, run = np.unique(self.run[rows], return_inverse=True)
        return replace(
            self, log_x=self.log_x[:, rows], target=self.target[rows], run=run.ravel(), weight=_weight(run)
        )

    @property
    def count(self) -> int:
        """How many runs there are."""
        return int(self.run.max(initial=-1)) + 1

    def total(self, values: Array) -> Array:
        """Sum over the last axis, rows, in which each run counts once."""
        return np.asarray((values if self.weight is None else values * self.weight).sum(-1))

    @property
    def free(self) -> int:
        """How many constants are fitted."""
        return int((self.low < self.high).sum())

    def at_bound(self, theta: Array) -> NDArray[np.bool_]:
        """Which free constants of each row are at a bound."""
        return ((theta <= self.low) | (theta >= self.high)) & (self.low < self.high)


def _weight(run: NDArray[np.int64]) -> Array | None:
    rows = np.bincount(run)
    return None if rows.max(initial=1) == 1 else np.asarray(1 / rows[run])


def modelled(form: Form, theta: Array, log_x: Array, scale: float = 1.0) -> tuple[Array, Array]:
    """What is compared with `Runs.target`, and its slopes: ln of the curve, or curve / scale."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        value, slopes = form.curve(theta, log_x)
        if not form.positive:
            return value / scale, slopes / scale
        value = np.maximum(value, 1e-300)
        return np.log(value), slopes / value[:, None]


@dataclass(frozen=True)
class Pull:
    """One quantity a row, drawn to a goal by a spring: 0.5 * weight * (quantity - goal)^2.

    Wherever the spring comes to rest, the objective is least for the quantity's value there: a point
    of its profile, exactly, however weak the spring.
    kind: which named constant, in its own scale; or -1: the modelled value at `log_x` [rows, axes].
    """

    kind: NDArray[np.int64]
    log_x: Array
    goal: Array
    weight: Array

    def __getitem__(self, rows: Any) -> Pull:
        return Pull(self.kind[rows], self.log_x[rows], self.goal[rows], self.weight[rows])


def quantity(runs: Runs, theta: Array, kind: NDArray[np.int64], log_x: Array) -> tuple[Array, Array]:
    """The quantity of each row (see `Pull`), and its slopes by theta."""
    scaled, turn = runs.form.scaled(theta)
    rows, column = np.arange(len(theta)), np.maximum(kind, 0)
    value, slope = scaled[rows, column], turn[rows, column]
    at = np.flatnonzero(kind < 0)
    if at.size:
        one, by = modelled(runs.form, theta[at], log_x[at].T[:, :, None], runs.scale)
        value[at], slope[at] = one[:, 0], by[:, :, 0]
    return value, slope


@dataclass
class _Local:
    """The objective about theta: value, gradient, Newton's Hessian (of the runs within delta), and
    the Hessian of the quadratic majorant, which is never too flat."""

    value: Array
    gradient: Array
    newton: Array
    majorant: Array

    def put(self, rows: Any, other: _Local, which: Any) -> None:
        for mine, new in zip(self.parts(), other.parts(), strict=True):
            mine[rows] = new[which]

    def parts(self) -> tuple[Array, Array, Array, Array]:
        return self.value, self.gradient, self.newton, self.majorant


def objective(theta: Array, runs: Runs, weights: Array | None = None) -> Array:
    """Summed Huber loss of each row of theta; weights [thetas, runs]: how often a run counts."""
    residual = np.abs(modelled(runs.form, theta, runs.log_x, runs.scale)[0] - runs.target)
    inside = np.minimum(residual, runs.delta)
    loss = inside * (residual - 0.5 * inside)
    of = _of_rows(runs, weights)
    return np.asarray((loss if of is None else loss * of).sum(1))


def _of_rows(runs: Runs, weights: Array | None) -> Array | None:
    """Weights of rows, from how often each run counts (once)."""
    if weights is None:
        return runs.weight
    weights = weights[:, runs.run]
    return weights if runs.weight is None else weights * runs.weight


def _local(theta: Array, runs: Runs, weights: Array | None, pull: Pull | None) -> _Local:
    value, slopes = modelled(runs.form, theta, runs.log_x, runs.scale)
    residual = value - runs.target
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.abs(residual)
        inside = np.minimum(size, runs.delta)
        loss = inside * (size - 0.5 * inside)
        psi = np.copysign(inside, residual)
        bend = inside / np.maximum(size, 1e-300)
        near = (size <= runs.delta).astype(np.float64)
        of = _of_rows(runs, weights)
        if of is not None:
            loss, psi, bend, near = loss * of, psi * of, bend * of, near * of
        gradient = (slopes @ psi[..., None])[..., 0]
        across = np.swapaxes(slopes, 1, 2)
        total, major = loss.sum(1), (slopes * bend[:, None]) @ across
        newton = (slopes * near[:, None]) @ across
    if pull is not None:
        q, by = quantity(runs, theta, pull.kind, pull.log_x)
        off = q - pull.goal
        total = total + 0.5 * pull.weight * off**2
        gradient = gradient + (pull.weight * off)[:, None] * by
        spring = pull.weight[:, None, None] * by[:, :, None] * by[:, None, :]
        newton, major = newton + spring, major + spring
    bad = ~(np.isfinite(total) & np.isfinite(gradient).all(1) & np.isfinite(major).all((1, 2)))
    total[bad], gradient[bad], newton[bad], major[bad] = np.inf, 0.0, 0.0, 0.0
    return _Local(total, gradient, newton, major)


def solve(
    theta: Array, runs: Runs, weights: Array | None = None, pull: Pull | None = None,
    tolerance: float = 1e-12, steps: int = 300,
) -> tuple[Array, Array]:  # fmt: skip
    """Minimise from every row of theta: where each ends, and its objective there (pull included)."""
    size = max(8, CHUNK // (runs.log_x.shape[1] * theta.shape[1]))
    ends = []
    for start in range(0, len(theta), size):
        rows = slice(start, start + size)
        of = None if weights is None else weights[rows]
        ends.append(_solve(theta[rows], runs, of, pull and pull[rows], tolerance, steps))
    return np.concatenate([end[0] for end in ends]), np.concatenate([end[1] for end in ends])


def _solve(
    theta: Array, runs: Runs, weights: Array | None, pull: Pull | None, tolerance: float, steps: int
) -> tuple[Array, Array]:
    """A damped Newton method. By damping, each step is between Newton's and a small majorant step.

    The majorant (reweighted least squares) always leads downhill but crawls where most residuals are
    beyond delta; Newton's step is exact once the set of runs within delta is right.
    A row stops when a nearly undamped step promises less than `tolerance` of its objective.
    """
    low, high = runs.low, runs.high
    theta = np.clip(theta, low, high)
    at = _local(theta, runs, weights, pull)
    damping, todo = np.full(len(theta), 1.0), np.flatnonzero(np.isfinite(at.value))
    for _ in range(steps):
        if not todo.size:
            break
        now, gradient = theta[todo], at.gradient[todo]
        stuck = ((now <= low) & (gradient > 0)) | ((now >= high) & (gradient < 0)) | (low == high)
        gradient = np.where(stuck, 0.0, gradient)
        step = _step(at, todo, gradient, stuck, damping[todo])
        sure = _step(at, todo, gradient, stuck, np.full(len(todo), 1e-3))
        far = np.maximum(8.0, np.abs(now))  # e^8 of a logarithm; in any unit of y, twice as far
        new = np.clip(now + np.clip(step, -far, far), low, high)
        of = None if weights is None else weights[todo]
        there = _local(new, runs, of, pull and pull[todo])
        value = at.value[todo]
        better = there.value < value
        enough = tolerance * value + 1e-24
        done = -(gradient * sure).sum(1) <= enough
        done |= better & (value - there.value <= enough) & (damping[todo] <= 1e-2)
        theta[todo[better]] = new[better]
        at.put(todo[better], there, better)
        damping[todo] = np.maximum(damping[todo] * np.where(better, 0.2, 5.0), 1e-10)
        todo = todo[~done & (damping[todo] < 1e14)]
    return theta, at.value


def _step(at: _Local, rows: Any, gradient: Array, stuck: NDArray[np.bool_], damping: Array) -> Array:
    major = at.majorant[rows]
    diagonal = np.einsum("bii->bi", major)
    diagonal = np.where(diagonal > 1e-200, diagonal, 1.0)
    eye = np.eye(gradient.shape[1])
    # Damped by the majorant, the step does not depend on how constants are scaled or mixed.
    hessian = at.newton[rows] + damping[:, None, None] * (major + 0.01 * diagonal[:, :, None] * eye)
    hessian = np.where(stuck[:, :, None] | stuck[:, None, :], 0.0, hessian)
    hessian += (np.where(stuck, 1.0, 0.0) + 1e-13 * diagonal)[:, :, None] * eye
    return np.asarray(np.linalg.solve(hessian, -gradient[..., None])[..., 0])


@dataclass(frozen=True)
class Optimum:
    """theta, its objective, the share of starts that end as low, and all ends, best first.

    equal: how many of the ends are as low.
    """

    theta: Array
    value: float
    share: float
    starts: int
    ends: Array
    equal: int

    def distinct(self, number: int, digits: int = 9) -> Array:
        """The best ends that differ, that many at most, best first."""
        _, first = np.unique(self.ends.round(digits), axis=0, return_index=True)
        return self.ends[np.sort(first)[:number]]


def best(runs: Runs, starts: Array) -> Optimum:
    """The lowest end of all starts.

    Of a long table every start first descends on some of its rows; the places where they end, each once,
    then descend on more, and the lowest of those on all.
    """
    few = thinned(runs, LOOK * runs.free)
    theta, value = solve(starts, runs[few])
    for rows, places in ((thinned(runs, MOST), PLACES), (np.arange(len(runs.target)), FINAL)):
        if len(rows) > len(few):
            theta, value, few = *_lowest(theta, value, runs[rows], places), rows
    order = np.argsort(value, kind="stable")
    # On an exact curve 0.1 % of the objective is rounding: a millionth of each run is near enough.
    near = value <= value[order[0]] * 1.001 + 0.5e-12 * runs.count
    theta, least = theta[order], float(value[order[0]])
    return Optimum(theta[0], least, float(near.mean()), len(starts), theta, int(near.sum()))


def _lowest(theta: Array, value: Array, runs: Runs, places: int) -> tuple[Array, Array]:
    """theta and value with the lowest different rows solved anew on `runs`, the others without value."""
    size = np.abs(theta[value.argmin()])
    place = (theta / np.where(size > 0, size, 1.0)).round(3)
    _, first, of = np.unique(place, axis=0, return_index=True, return_inverse=True)
    chosen = np.argsort(value[first], kind="stable")[:places]
    theta_of, value_of = theta[first], np.full(len(first), np.inf)
    theta_of[chosen], value_of[chosen] = solve(theta_of[chosen], runs)
    return theta_of[of.ravel()], value_of[of.ravel()]


def thinned(runs: Runs, number: int) -> NDArray[np.int64]:
    """Places of about `number` rows, spread over the values of each run; of all where there are few."""
    rows = len(runs.target)
    if rows <= 2 * number:
        return np.arange(rows)
    order = np.lexsort((runs.target, runs.run)) if runs.weight is not None else np.argsort(runs.target)
    return np.sort(order[np.linspace(0, rows - 1, number).round().astype(np.int64)])


def condition(best: Array, runs: Runs) -> float:
    """Condition number of the slopes at the optimum, each scaled to length 1, but for constants at a bound.

    It says how well the runs tell the constants apart: 1 is perfect, and from about 1e5 on some
    combination of them changes nothing that was measured.
    """
    free = (best > runs.low) & (best < runs.high)  # those held fixed are not in it either
    slopes = modelled(runs.form, best[None], runs.log_x, runs.scale)[1][0][free]
    slopes = slopes if runs.weight is None else slopes * np.sqrt(runs.weight)
    length = np.linalg.norm(slopes, axis=1, keepdims=True)
    if not len(slopes) or not (length > 0).all():
        return float("inf")
    values = np.linalg.svd(slopes / length, compute_uv=False)
    return float(values[0] / max(values[-1], 1e-300))
