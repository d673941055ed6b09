"""Tables of runs of a law that is known, with the best N and D that it has by formula."""

import numpy as np

from recscale.laws.forms import HOFFMANN

EVEN = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
STEEP = {"E": 1.8, "A": 2e4, "B": 40.0, "alpha": 0.6, "beta": 0.2}  # valleys with unlike sides


def exponent(law):
    return law["beta"] / (law["alpha"] + law["beta"])


def best_n(law, c):
    """Hoffmann et al., arXiv 2203.15556, eq. 4."""
    alpha, beta = law["alpha"], law["beta"]
    return (alpha * law["A"] / (beta * law["B"])) ** (1 / (alpha + beta)) * (c / 6) ** exponent(law)


def isoflop(law, sizes, budgets, noise, seed=0, span=8.0):
    """N, D, loss: at each budget, sizes from 1/span to span times the best, moved a little."""
    rng = np.random.default_rng(seed)
    spread = np.geomspace(1 / span, span, sizes)
    n = np.concatenate([best_n(law, c) * spread * np.exp(rng.uniform(-0.3, 0.3)) for c in budgets])
    d = np.repeat(budgets, sizes) / 6 / n
    loss = HOFFMANN.predict({"N": n, "D": d}, law)
    return {"N": n, "D": d}, loss * np.exp(noise * rng.standard_normal(len(n)))


def ladder(law, sizes, rows, noise, seed=0):
    """N, D, loss, run: each size trained once, from a twentieth to twenty times its own best compute."""
    rng = np.random.default_rng(seed)
    n = np.geomspace(best_n(law, 1e18) / 3, best_n(law, 1e21) * 3, sizes)
    own = (n / best_n(law, 1.0)) ** (1 / exponent(law))
    c = (own[:, None] * np.geomspace(0.05, 20, rows)).ravel()
    n, run = np.repeat(n, rows), np.repeat(np.arange(sizes), rows)
    d = c / 6 / n
    scatter = noise * rng.standard_normal(sizes)[run] + noise / 3 * rng.standard_normal(len(n))
    return {"N": n, "D": d}, HOFFMANN.predict({"N": n, "D": d}, law) * np.exp(scatter), run
