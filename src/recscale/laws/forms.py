"""The forms that laws are fitted with, in `FORMS` by name.

Adding one: its formula and axes in names.py; here its curve (value and slopes), its constants, its starts,
and its place in `FORMS`, in the order of names.py. A test compares the slopes of
each with finite differences.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from recscale.laws.form import Array, Form, Parameter

EXPONENT = (1e-3, 5.0)
HUGE = 1e60  # a constant beyond it says that the runs do not know it


def _columns(theta: Array) -> list[Array]:
    return [theta[:, place, None] for place in range(theta.shape[1])]


def _grid(*values: ArrayLike) -> Array:
    return np.array(list(product(*(np.atleast_1d(part) for part in values))), dtype=np.float64)


# --- one axis ---

ALPHAS = np.geomspace(0.03, 3.0, 10)
SHARES = (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.995)  # of E in the lowest loss


def _power(theta: Array, log_x: Array) -> tuple[Array, Array]:
    """E + exp(t - alpha ln x)."""
    e, t, alpha = _columns(theta)
    term = np.exp(t - alpha * log_x[0])
    return e + term, np.stack([np.ones_like(term), term, -log_x[0] * term], axis=1)


def _power_starts(log_x: Array, y: Array) -> Array:
    """E a share of the lowest y; the height of the rest is its median for each exponent."""
    alpha, share = (part.ravel() for part in np.meshgrid(ALPHAS, SHARES))
    e = share * y.min()
    t = np.median(np.log(y - e[:, None]) + alpha[:, None] * log_x[0], axis=1)
    return np.stack([e, t, alpha], axis=1)


def _x0(theta: Array) -> tuple[Array, Array]:
    """X0 = exp(t / alpha): moved as t, for t and alpha bend less against each other than X0 and alpha."""
    e, t, alpha = theta.T
    slopes = np.tile(np.eye(3), (len(theta), 1, 1))
    slopes[:, 1, 1], slopes[:, 1, 2] = 1 / alpha, -t / alpha**2
    return np.stack([e, t / alpha, alpha], axis=1), slopes


def _from_x0(scaled: Array) -> Array:
    return np.stack([scaled[:, 0], scaled[:, 1] * scaled[:, 2], scaled[:, 2]], axis=1)


E_LOSS = Parameter("E", "irreducible loss, in nats", 0.0)
ALPHA = Parameter("alpha", "exponent", *EXPONENT)
A = Parameter("A", "the rest of the loss at x = 1, in nats", 1 / HUGE, HUGE, log=True)

SATURATING_POWER = Form(
    "saturating_power",
    "LSRM, arXiv 2311.11351, sec. IV",
    (E_LOSS, Parameter("X0", "x at which the loss is E + 1", 1 / HUGE, HUGE, log=True), ALPHA),
    _power,
    _power_starts,
    lambda y, p: p["X0"] * (np.asarray(y) - p["E"]) ** (-1 / p["alpha"]),
    turned=_x0,
    unturned=_from_x0,
)
POWER_CONSTANT = Form(
    "power_constant",
    "Ardalani et al., arXiv 2208.08489",
    (E_LOSS, A, ALPHA),
    _power,
    _power_starts,
    lambda y, p: ((np.asarray(y) - p["E"]) / p["A"]) ** (-1 / p["alpha"]),
)
PURE_POWER = Form(
    "pure_power",
    "Kaplan et al., arXiv 2001.08361, eq. 1.1",
    (A, ALPHA),
    lambda theta, log_x: _without_e(theta, log_x),
    lambda log_x, y: _power_starts(log_x, y)[: len(ALPHAS), 1:],
    lambda y, p: (np.asarray(y) / p["A"]) ** (-1 / p["alpha"]),
)


def _without_e(theta: Array, log_x: Array) -> tuple[Array, Array]:
    value, slopes = _power(np.insert(theta, 0, 0.0, axis=1), log_x)
    return value, slopes[:, 1:]


def _line(theta: Array, log_x: Array) -> tuple[Array, Array]:
    a, b = _columns(theta)
    log = log_x[0] + 0 * a
    return a + b * log, np.stack([np.ones_like(log), log], axis=1)


LOG_LINEAR = Form(
    "log_linear",
    "as HSTU reports its metrics, arXiv 2402.17152",
    (Parameter("a", "y at x = 1"), Parameter("b", "change of y for e times the x")),
    _line,
    lambda log_x, y: np.array([np.polyfit(log_x[0], y, 1)[::-1], [y.mean(), 0.0]]),
    lambda y, p: np.exp((np.asarray(y) - p["a"]) / p["b"]),
)


def _sigmoid(theta: Array, log_x: Array) -> tuple[Array, Array]:
    top, k, middle, offset = _columns(theta)
    z = log_x[0] - middle
    s = 1 / (1 + np.exp(-np.clip(k * z, -700, 700)))
    bend = top * s * (1 - s)
    return top * s - offset, np.stack([s, bend * z, -bend * k, -np.ones_like(s)], axis=1)


def _sigmoid_starts(log_x: Array, y: Array) -> Array:
    low, high, middle = y.min(), y.max(), log_x[0]
    spread, span = max(high - low, 1e-12), max(float(np.ptp(middle)), 1e-3)
    middles = middle.min() + span * np.array([-0.5, 0.0, 0.3, 0.5, 0.7, 1.0, 1.5])
    rows = _grid(spread * np.array([1.1, 1.5, 3.0]), np.array([1.0, 3.0, 8.0]) / span, middles, [0.0])
    rows[:, 3] = rows[:, 0] / 2 - y.mean()
    return rows


SIGMOID = Form(
    "sigmoid",
    "SRT, arXiv 2412.07585, compute law",
    (
        Parameter("top", "height of the step", 1e-6, 1e3),
        Parameter("k", "steepness, per unit of ln x", 1e-3, 20.0),
        Parameter("middle", "ln x in the middle of the step", -200.0, 200.0),
        Parameter("offset", "y far below the step, times -1", -1e3, 1e3),
    ),
    _sigmoid,
    _sigmoid_starts,
    lambda y, p: np.exp(p["middle"] - np.log(p["top"] / (np.asarray(y) + p["offset"]) - 1) / p["k"]),
)

# --- N and data together ---

E_LOG = Parameter("E", "irreducible loss, in nats", 1e-6, 1e3, log=True)
N_TERM = Parameter("A", "loss from finite size at N = 1, in nats", 1 / HUGE, HUGE, log=True)
D_TERM = Parameter("B", "loss from finite data at D = 1, in nats", 1 / HUGE, HUGE, log=True)
N_EXPONENT = Parameter("alpha", "exponent of N", 0.0, 5.0)
D_EXPONENT = Parameter("beta", "exponent of D", 0.0, 5.0)
TIED = Parameter("alpha", "exponent of N and D", 0.0, 5.0)
LOG_TERMS, LOG_E, EXPONENTS = np.arange(0, 26, 5.0), np.arange(-1, 1.1, 0.5), np.arange(0, 2.1, 0.5)


def _hoffmann(theta: Array, log_x: Array) -> tuple[Array, Array]:
    e, a, b, alpha, beta = _columns(theta)
    n, d = np.exp(a - alpha * log_x[0]), np.exp(b - beta * log_x[1])
    e = np.broadcast_to(np.exp(e), n.shape)
    return e + n + d, np.stack([e, n, d, -log_x[0] * n, -log_x[1] * d], axis=1)


def _tied(theta: Array, log_x: Array) -> tuple[Array, Array]:
    value, slopes = _hoffmann(theta[:, [0, 1, 2, 3, 3]], log_x)
    slopes[:, 3] += slopes[:, 4]
    return value, slopes[:, :4]


HOFFMANN = Form(
    "hoffmann",
    "Hoffmann et al., arXiv 2203.15556, eq. 2 and approach 3",
    (E_LOG, N_TERM, D_TERM, N_EXPONENT, D_EXPONENT),
    _hoffmann,
    # The grid of the paper's appendix: 4,500 starts.
    lambda log_x, y: _grid(LOG_E, LOG_TERMS, LOG_TERMS, EXPONENTS, EXPONENTS),
)
HOFFMANN_TIED = Form(
    "hoffmann_tied",
    "Hoffmann et al., arXiv 2203.15556, with beta = alpha as Muennighoff et al., arXiv 2305.16264",
    (E_LOG, N_TERM, D_TERM, TIED),
    _tied,
    lambda log_x, y: _grid(LOG_E, LOG_TERMS, LOG_TERMS, EXPONENTS),
)


def _kaplan(theta: Array, log_x: Array) -> tuple[Array, Array]:
    log_n, log_d, alpha, beta = _columns(theta)
    ratio, depth = alpha / beta, log_n - log_x[0]
    n, d = np.exp(np.clip(ratio * depth, -700, 300)), np.exp(log_d - log_x[1])
    value = (n + d) ** beta
    by_n, by_d = beta * value * n / (n + d), beta * value * d / (n + d)
    by_beta = value * np.log(n + d) - by_n * depth * ratio / beta
    return value, np.stack([by_n * ratio, by_d, by_n * depth / beta, by_beta], axis=1)


def _kaplan_starts(log_x: Array, y: Array) -> Array:
    """The scales at which either term alone would make the median loss, and a thousand times more."""
    powers = np.array([0.05, 0.1, 0.3, 0.8])
    rows = _grid([0.0, 3.0, 7.0], [0.0, 3.0, 7.0], powers, powers)
    rows[:, 0] += np.median(log_x[0]) + np.log(np.median(y)) / rows[:, 2]
    rows[:, 1] += np.median(log_x[1]) + np.log(np.median(y)) / rows[:, 3]
    return rows


KAPLAN = Form(
    "kaplan",
    "Kaplan et al., arXiv 2001.08361, eq. 1.5",
    (
        Parameter("N_c", "scale of N", 1 / HUGE, HUGE, log=True),
        Parameter("D_c", "scale of D", 1 / HUGE, HUGE, log=True),
        Parameter("alpha", "exponent of N", *EXPONENT),
        Parameter("beta", "exponent of D", *EXPONENT),
    ),
    _kaplan,
    _kaplan_starts,
)


def _effective(log_x: Array, log_u: Array, log_r: Array) -> tuple[Array, Array, Array]:
    """ln x' and its slopes by ln u and ln r; x' = u + u r (1 - exp(-(x/u - 1)/r)), x where x <= u.

    u: what of x is unique; r: after how many repetitions the value of one more is 1/e.
    """
    r, repeats = np.exp(log_r), np.maximum(np.expm1(log_x - log_u), 0.0)
    left = np.exp(-repeats / r)
    scale = 1 - r * np.expm1(-repeats / r)  # x' over u
    over = repeats > 0
    by_u = np.where(over, 1 - left * (repeats + 1) / scale, 0.0)
    by_r = np.where(over, (r * (1 - left) - repeats * left) / scale, 0.0)
    return np.where(over, log_u + np.log(scale), log_x), by_u, by_r


def _repeated(theta: Array, log_x: Array) -> tuple[Array, Array]:
    _, a, b, alpha, log_rd, log_rn = _columns(theta)
    log_n, log_d, log_unique = log_x
    # N that is compute-optimal for the unique data, of the tied law: (A/B)^(1/alpha) U.
    log_un = (a - b) / alpha + log_unique
    n, n_by_u, n_by_r = _effective(log_n, log_un, log_rn)
    d, _, d_by_r = _effective(log_d, np.broadcast_to(log_unique, n.shape), log_rd)
    value, slopes = _tied(theta[:, :4], np.stack([n, d]))
    by_n, by_d = -alpha * slopes[:, 1], -alpha * slopes[:, 2]
    by_un = by_n * n_by_u
    slopes[:, 1] += by_un / alpha
    slopes[:, 2] -= by_un / alpha
    slopes[:, 3] -= by_un * (a - b) / alpha**2
    return value, np.concatenate([slopes, (by_d * d_by_r)[:, None], (by_n * n_by_r)[:, None]], axis=1)


MUENNIGHOFF = Form(
    "muennighoff",
    "Muennighoff et al., arXiv 2305.16264, sec. 3 and appendix A",
    (
        E_LOG,
        N_TERM,
        D_TERM,
        Parameter("alpha", "exponent of N' and D'", *EXPONENT),
        Parameter("R_D", "repetitions of the data after which one more is worth 1/e", 1e-3, 1e6, log=True),
        Parameter("R_N", "the same of parameters beyond the optimum of the unique data", 1e-3, 1e6, log=True),
    ),
    _repeated,
    lambda log_x, y: _grid(
        LOG_E, LOG_TERMS[1:], LOG_TERMS[1:], EXPONENTS[1:4], np.log([3.0, 15.0]), np.log([3.0, 15.0])
    ),
)


def _ceiling(theta: Array, log_x: Array) -> tuple[Array, Array]:
    e, a, b, alpha, beta = _columns(theta)
    n, d = np.exp(a - alpha * log_x[0]), np.exp(b - beta * log_x[1])
    return e - n - d, np.stack([np.ones_like(n), -n, -d, log_x[0] * n, log_x[1] * d], axis=1)


def _ceiling_starts(log_x: Array, y: Array) -> Array:
    """Exponents from a grid; each term a part of the gap between the ceiling and the median."""
    powers = np.array([0.05, 0.2, 0.4, 0.8])
    rows = _grid(y.max() * np.array([1.05, 1.5, 3.0]), [0.2, 0.5, 0.8], [0.0], powers, powers)
    gap = rows[:, 0] - np.median(y)
    rows[:, 2] = np.log(gap * (1 - rows[:, 1])) + rows[:, 4] * np.median(log_x[1])
    rows[:, 1] = np.log(gap * rows[:, 1]) + rows[:, 3] * np.median(log_x[0])
    return rows


CEILING = Form(
    "ceiling",
    "SRT, arXiv 2412.07585, NDCG(N, T) with D for its T",
    (
        Parameter("E", "y of an endless model on endless data", 0.0, 1e3),
        Parameter("A", "y lost to finite size at N = 1", 1 / HUGE, HUGE, log=True),
        Parameter("B", "y lost to finite data at D = 1", 1 / HUGE, HUGE, log=True),
        Parameter("alpha", "exponent of N", *EXPONENT),
        Parameter("beta", "exponent of D", *EXPONENT),
    ),
    _ceiling,
    _ceiling_starts,
)

# --- depth, width and the information in the data ---

HALVES = 2.0  # p of the paper, which its code holds at 2


def _hump(log_x: Array, e: Array) -> tuple[Array, Array]:
    """-1/(2 x^e) - e ln x and its slope by e. For e < 0 highest where x^-e = 2."""
    term = np.exp(-e * log_x) / HALVES
    return -term - e * log_x, log_x * (term - 1)


def _performance(theta: Array, log_x: Array) -> tuple[Array, Array]:
    b, w_l, w_d, e_l, e_d, e_data = _columns(theta)
    depth, by_depth = _hump(log_x[0], e_l)
    width, by_width = _hump(log_x[1], e_d)
    data, by_data = _hump(log_x[2] + log_x[3], e_data)
    slopes = [np.ones_like(depth), depth, width, w_l * by_depth, w_d * by_width, by_data]
    return b + w_l * depth + w_d * width + data, np.stack(slopes, axis=1)


def _performance_starts(log_x: Array, y: Array) -> Array:
    """Exponents from a grid; b and the weights, in which the curve is linear, by least squares for each."""
    powers = np.array([-0.6, -0.25, -0.1, 0.1, 0.4, 1.0])
    rows = _grid([0.0], [0.0], [0.0], powers, powers, [-0.1, -0.02, 0.02, 0.1])
    data, slopes = _performance(rows, log_x)
    for row, part, basis in zip(rows, data, slopes[:, :3], strict=True):
        row[:3] = np.clip(np.linalg.lstsq(basis.T, y - part, rcond=1e-9)[0], -100, 100)
    return rows


PERFORMANCE = Form(
    "performance",
    "Performance Law, arXiv 2412.00430, as its released code has it; what is open: docs/laws.md",
    (
        Parameter("b", "offset", -1e3, 1e3),
        Parameter("w_L", "weight of depth", -1e3, 1e3),
        Parameter("w_d", "weight of width", -1e3, 1e3),
        Parameter("e_L", "exponent of depth; below 0 the best is at 2^(-1/e_L) layers", -5.0, 5.0),
        Parameter("e_d", "exponent of width; likewise", -5.0, 5.0),
        Parameter("e_D", "exponent of data times approximate entropy", -5.0, 5.0),
    ),
    _performance,
    _performance_starts,
)

# In the order of their names.
FORMS = {
    form.name: form
    for form in (
        SATURATING_POWER, POWER_CONSTANT, PURE_POWER, LOG_LINEAR, SIGMOID,
        HOFFMANN, HOFFMANN_TIED, KAPLAN, MUENNIGHOFF, CEILING, PERFORMANCE,
    )
}  # fmt: skip
