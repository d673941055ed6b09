"""Do 90 % intervals hold the planted constants nine times in ten, at the sizes that are really used?"""

import numpy as np
import pytest
from test_frontier import curves

from planted import EVEN, STEEP, exponent, isoflop, ladder
from recscale.laws import fit as module
from recscale.laws import forms
from recscale.laws.fit import fit_law
from recscale.laws.form import Form
from recscale.laws.forms import HOFFMANN, SATURATING_POWER
from recscale.laws.frontier import frontier, line
from recscale.laws.intervals import draws
from recscale.laws.isoflop import isoflops, minima

DRAWS = 500
LADDERS = {6: np.geomspace(768, 98304, 6), 7: np.geomspace(768, 331776, 7)}
PLANTED = {"E": 5.0, "X0": 2000.0, "alpha": 0.3}
JOINT = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}


def hits(form: Form, x, truth, noise, seeds):
    """For each constant, in what share of the draws its interval holds it."""
    y, found = form.predict(x, truth), []
    for draw in range(DRAWS):
        scatter = np.random.default_rng([draw, seeds, len(y)]).standard_normal(len(y))
        fit = fit_law(x, y * np.exp(noise * scatter), law="planted", form=form, resamples=200)
        ends = [fit.intervals[name] for name in truth]
        assert fit.parameters is not None
        found.append(
            [
                (lo or 0) <= value <= (hi or np.inf)
                for (lo, hi), value in zip(ends, truth.values(), strict=True)
            ]
        )
    return dict(zip(truth, np.mean(found, axis=0), strict=True))


@pytest.mark.heavy
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("sizes", LADDERS)
def test_ladders(sizes, seeds, monkeypatch):
    monkeypatch.setattr(module, "BAND_POINTS", 2)
    shares = hits(SATURATING_POWER, np.repeat(LADDERS[sizes], seeds), PLANTED, 0.003, seeds)
    print(sizes, seeds, shares)
    assert all(0.85 <= share <= 0.95 for share in shares.values()), shares


@pytest.mark.heavy
def test_a_table_of_245_points(monkeypatch):
    """N and D as wide as those of Chinchilla, noise as there; a tenth of the starts saves hours."""
    monkeypatch.setattr(forms, "LOG_TERMS", np.array([5.0, 10.0]))
    monkeypatch.setattr(forms, "LOG_E", np.array([0.0, 0.5]))
    monkeypatch.setattr(forms, "EXPONENTS", np.array([0.3, 0.5]))
    rng = np.random.default_rng(0)
    n = np.exp(rng.uniform(np.log(5e7), np.log(1.5e10), 245))
    x = {"N": n, "D": n * np.exp(rng.uniform(np.log(2), np.log(200), 245))}
    shares = hits(HOFFMANN, x, JOINT, 0.01, 1)
    print(245, shares)
    assert all(0.85 <= share <= 0.95 for share in shares.values()), shares


@pytest.mark.heavy
@pytest.mark.parametrize("law", [EVEN, STEEP], ids=["even", "steep"])
@pytest.mark.parametrize("design", ["7 sizes", "12 sizes", "14 curves", "30 curves"])
def test_the_exponent_of_frontier_and_valleys(design, law):
    """No less than nominal; more with few sizes, for a resample that lacks some knows much less."""
    number, found = int(design.split()[0]), {"frontier": [], "isoflop": []}
    for draw in range(150):
        if design.endswith("sizes"):
            x, loss = isoflop(law, number, np.geomspace(1e18, 1e21, 6), 0.002, draw)
            run = np.arange(len(loss))
        else:
            x, loss, run = ladder(law, number, 25, 0.002, draw)
        one = curves(x, loss, run)
        counts = draws(int(run.max()) + 1, 300, np.random.default_rng(draw))
        counts = np.concatenate([np.ones((1, counts.shape[1])), counts])
        seen, parts = frontier(one, counts > 0), isoflops(one, 0.9)
        log_c = np.array([part.log_c for part in parts])
        slopes = {"frontier": line(seen.log_c, seen.log_n)[0]}
        if sum(not part.reason for part in parts) > 2:
            slopes["isoflop"] = line(log_c, minima(parts, counts)[0])[0]
        for name, slope in slopes.items():
            low, high = np.nanpercentile(slope[1:], [5, 95])
            found[name].append((low <= exponent(law) <= high, slope[0] - exponent(law), high - low))
    for name, rows in found.items():
        if len(rows) > 30:
            share, off, width = np.mean(rows, axis=0)
            print(
                f"{design}, {name}: {len(rows)} of 150, covers {share:.2f}, off {off:+.3f}, width {width:.3f}"
            )
            assert share > 0.85
            assert abs(off) < 0.01
