import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit

from recscale.errors import InputError
from recscale.laws.metric_map import fit_map

QUICK = "results/published/quick/points.csv"
POPULARITY = 7.47


def planted(rng, runs, sd):
    loss = rng.uniform(5.3, 6.3, runs)
    return loss, expit(-1.2 - 1.4 * (loss - 5.6) + rng.normal(0, sd, runs))


def test_the_planted_line_comes_back():
    loss, value = planted(np.random.default_rng(0), 12, 0.0)
    found = fit_map("HR@10", loss, value, 9.0)
    assert found.b == pytest.approx(-1.4)
    assert found.error < 1e-12
    assert found.predict(5.6) == pytest.approx(expit(-1.2))


def test_slope_and_its_interval_are_those_of_scipy():
    loss, value = planted(np.random.default_rng(1), 9, 0.05)
    found = fit_map("HR@10", loss, value, 9.0)
    line = stats.linregress(loss, np.log(value / (1 - value)))
    assert found.b == pytest.approx(line.slope)
    assert found.sd / np.sqrt(found.spread) == pytest.approx(line.stderr)


def test_the_error_is_that_of_refits_without_each_run():
    loss, value = planted(np.random.default_rng(2), 8, 0.1)
    odds = np.log(value / (1 - value))
    errors = []
    for k in range(8):
        rest = np.arange(8) != k
        b, a = np.polyfit(loss[rest], odds[rest], 1)
        errors.append(expit(a + b * loss[k]) / value[k] - 1)
    assert fit_map("HR@10", loss, value, 9.0).error == pytest.approx(np.sqrt(np.mean(np.square(errors))))


@pytest.mark.parametrize("at", [5.5, 4.9])
def test_nine_tenths_of_new_runs_lie_inside_the_interval(at):
    rng, inside = np.random.default_rng(3), []
    for _ in range(600):
        loss, value = planted(rng, 8, 0.1)
        low, high = fit_map("HR@10", loss, value, 9.0).interval(at, 0.9)
        new = expit(-1.2 - 1.4 * (at - 5.6) + rng.normal(0, 0.1))
        inside.append(low <= new <= high)
    assert 0.86 <= np.mean(inside) <= 0.94


def test_an_uncertain_loss_widens_the_interval_on_its_own_side():
    loss, value = planted(np.random.default_rng(4), 8, 0.05)
    found = fit_map("HR@10", loss, value, 9.0)
    low, high = found.interval(5.5, 0.9)
    assert found.interval(5.5, 0.9, [5.5, 5.5]) == (low, high)
    lower, same = found.interval(5.5, 0.9, [5.5, 5.8])
    assert lower < low
    assert same == high
    assert found.interval(5.5, 0.9, [None, 5.5])[1] == 1.0


def test_runs_near_popularity_are_another_line_and_left_out():
    points = pd.read_csv(QUICK)
    found = fit_map("HR@10", points["test_loss"], points["HR@10"], POPULARITY)
    assert found.high < found.threshold < points["test_loss"].max()
    assert found.runs == (points["test_loss"] < found.threshold).sum() < len(points)
    assert found.error < 0.05  # of all runs it would be 0.26: those near popularity lie far off
    best = points.sort_values("test_loss").iloc[0]
    rest = points[points["run"] != best["run"]]
    without = fit_map("HR@10", rest["test_loss"], rest["HR@10"], POPULARITY)
    assert without.predict(best["test_loss"]) == pytest.approx(best["HR@10"], rel=0.03)
    assert "below the runs" in without.warning(best["test_loss"])
    assert not found.warning(best["test_loss"])


@pytest.mark.parametrize(
    ("loss", "value", "message"),
    [
        ([5.0, 5.1, 5.2], [0.3, 0.2, 0.1], "needs 4 runs of different loss"),
        ([5.0, 5.0, 5.0, 5.0], [0.3, 0.2, 0.1, 0.2], "there are 1"),
        ([5.0, 5.1, 5.2, 5.3], [0.1, 0.2, 0.3, 0.4], "does not rise as the loss falls"),
        ([np.nan] * 4, [0.1] * 4, "there are 0"),
    ],
)
def test_too_little_for_a_map_is_one_line(loss, value, message):
    with pytest.raises(InputError, match=message):
        fit_map("HR@10", loss, value, POPULARITY)
