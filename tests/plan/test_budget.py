"""What a budget buys, against brute force over the ladder and the closed form of the law."""

from pathlib import Path

import numpy as np
import pytest

from conftest import REPO
from recscale.errors import InputError
from recscale.laws.fit import fit_law
from recscale.laws.forecast import refits
from recscale.laws.forms import HOFFMANN, MUENNIGHOFF
from recscale.plan import budget
from recscale.plan.budget import Data, Rung, choose, rungs, shapes
from recscale.study import study
from recscale.study.run import training_flops
from recscale.study.study import Law

N, D = (part.ravel() for part in np.meshgrid(np.geomspace(1e4, 1e6, 5), np.geomspace(1e6, 1e8, 5)))
TRUTH = {"E": 1.8, "A": 48.0, "B": 210.0, "alpha": 0.35, "beta": 0.37}
LADDER = [Rung(f"{k}", int(n), int(2 * n), 6.0 * n) for k, n in enumerate(np.geomspace(1e3, 1e9, 61))]
JOINT = Law("joint", "hoffmann", {"N": "N", "D": "D"}, "test_loss", {}, {})
ONCE = Data(10**12, 1)


@pytest.fixture(scope="module")
def joint():
    y = HOFFMANN.predict({"N": N, "D": D}, TRUTH)
    y *= np.exp(0.002 * np.random.default_rng(0).standard_normal(25))
    return fit_law({"N": N, "D": D}, y, law="joint", form=HOFFMANN, resamples=200)


def test_the_best_rung_is_next_to_the_closed_form(joint):
    """Hoffmann et al., arXiv 2203.15556, eq. 4: a cost of 6 N a target makes C = 6 N D."""
    p, c = joint.parameters, 1e15
    g = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
    n = g * (c / 6) ** (p["beta"] / (p["alpha"] + p["beta"]))
    best = choose(joint, JOINT, LADDER, ONCE, c, refits(joint)[1])
    assert abs(np.log(best.choice.rung.n / n)) <= np.log(1e6) / 60 / 2 * 1.01
    assert best.choice.seen == pytest.approx(c / 6 / best.choice.rung.n)
    low, high = best.n_interval
    assert low <= best.choice.rung.n <= high
    assert {low, high} <= {rung.n for rung in LADDER}


def test_the_choice_is_the_least_of_all_and_the_step_up_costs_as_much_data(joint):
    prices = np.random.default_rng(1).uniform(1, 30, 61)
    ladder = [Rung(r.size, r.n, r.n_total, r.n * price) for r, price in zip(LADDER, prices, strict=True)]
    best = choose(joint, JOINT, ladder, Data(10**7, 3), 1e15, refits(joint)[1])
    losses = [float(joint.predict({"N": r.n, "D": 1e15 / r.cost / 3})) for r in ladder]
    k = int(np.argmin(losses))
    assert best.choice.rung == ladder[k]
    assert [one.loss for one in best.ladder] == pytest.approx(losses)
    assert best.choice.available * 3 == pytest.approx(best.choice.seen)
    assert best.next.rung == ladder[k + 1]
    assert best.next.x["D"] == best.choice.x["D"]
    assert best.next.cost == pytest.approx(best.choice.seen * ladder[k + 1].cost)


@pytest.mark.parametrize(("c", "end"), [(1e5, "smallest"), (1e26, "largest"), (1e15, "")])
def test_an_end_of_the_ladder_is_said(joint, c, end):
    best = choose(joint, JOINT, LADDER, ONCE, c, refits(joint)[1])
    assert best.at_end == end
    assert (best.next is None) == (end == "largest")


def test_another_shape_of_the_same_n_is_no_step_up(joint):
    twice = [shape for rung in LADDER for shape in (rung, Rung("other", rung.n, rung.n_total, rung.cost))]
    best = choose(joint, JOINT, twice, ONCE, 1e15, refits(joint)[1])
    assert best.next.rung.n > best.choice.rung.n


def test_on_the_data_there_is_no_rung_is_dearer_than_noise_is_worth(joint):
    data = Data(10**7, 1)
    best = choose(joint, JOINT, LADDER, data, 1e18, refits(joint)[1], most=data.targets)
    losses = {r.n: float(joint.predict({"N": r.n, "D": min(1e7, 1e18 / r.cost)})) for r in LADDER}
    least = min(losses.values())
    close = [n for n, loss in losses.items() if np.log(loss / least) <= joint.sigma]
    assert best.choice.rung.n == min(close) < max(close)
    assert max(one.available for one in best.ladder) <= 1e7


def test_a_law_of_repeated_data_takes_epochs():
    named = {"E": 1.8, "A": 500.0, "B": 1500.0, "alpha": 0.35, "R_D": 15.0, "R_N": 5.0}
    x = {"N": np.tile(N, 3), "D": np.tile(D, 3), "U": np.repeat([1e6, 3e6, 1e7], 25)}
    x["U"] = np.minimum(x["U"], x["D"])
    y = MUENNIGHOFF.predict(x, named)
    fit = fit_law(x, y, law="repeated", form=MUENNIGHOFF, resamples=20)
    law = Law("repeated", "muennighoff", {"N": "N", "D": "D_seen", "U": "D"}, "test_loss", {}, {})
    best = choose(fit, law, LADDER, Data(10**7, 1), 1e15, refits(fit)[1]).choice
    assert best.available == best.x["U"] == 1e7
    assert best.x["D"] == best.seen > 1e7
    fresh = choose(fit, law, LADDER, Data(10**12, 1), 1e15, refits(fit)[1]).choice
    assert fresh.available == fresh.seen
    assert fresh.loss < best.loss


def test_without_resamples_there_is_no_interval(joint):
    few = np.unique(N)[:4]
    x = {"N": np.r_[few, few], "D": np.repeat([1e6, 1e8], 4)}
    fit = fit_law(x, HOFFMANN.predict(x, TRUTH), law="few", form=HOFFMANN)
    assert len(refits(fit)[1]) == 1
    best = choose(fit, JOINT, LADDER, ONCE, 1e15, refits(fit)[1])
    assert best.n_interval is None
    assert best.seen_interval is None


def test_a_law_of_one_axis_has_no_budget():
    fit = fit_law(np.unique(N), 5 + (1e4 / np.unique(N)) ** 0.3, law="ladder", x_name="N")
    law = Law("ladder", "saturating_power", {"x": "N"}, "test_loss", {}, {})
    with pytest.raises(InputError, match="ladder: a budget needs a law of N and D"):
        choose(fit, law, LADDER, ONCE, 1e15, refits(fit)[1])


def test_the_ladder_is_the_sizes_of_the_law_and_lsrms_above_with_exact_costs():
    quick = study.load(REPO / Path("config/studies/quick.yaml"))
    ladder = shapes(quick, quick.laws["loss_vs_N_and_D"])
    own = list(dict.fromkeys(run.size for run in quick.runs.values()))
    assert [run.size for run in ladder] == [*own, "4x128", "8x128", "12x256", "24x512", "48x1200"]
    assert {run.sample.data_fraction for run in ladder} == {1.0}
    assert [run.shape.n_heads for run in ladder[-5:]] == [4, 4, 8, 8, 24]
    made = rungs(ladder, 3700, lambda run: training_flops(run, 3700, 1200, 1000) / 1000)
    assert [rung.n for rung in made] == sorted(rung.n for rung in made)
    assert made[-1].n == 829_440_000
    assert made[0].cost == pytest.approx(1.2 * (6 * 768 + 12 * 8 * 50) + 6 * 3700 * 8)
    assert budget.LSRM[0] == (2, 64, 2)
