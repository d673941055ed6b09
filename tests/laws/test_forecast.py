"""Forecasts are the curve and its own intervals; allocations are those of the closed form."""

import json
from dataclasses import replace

import numpy as np
import pytest

from recscale.cli import main as cli
from recscale.errors import InputError
from recscale.files import write_json
from recscale.laws.fit import fit_law
from recscale.laws.forecast import best_of, predict, text, warning
from recscale.laws.forms import CEILING, HOFFMANN, MUENNIGHOFF, SATURATING_POWER
from recscale.laws.result import Fit, Status

N, D = (part.ravel() for part in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 5)))
TRUTH = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
SIZES = np.geomspace(1e3, 1e6, 7)


@pytest.fixture(scope="module")
def joint():
    scatter = 0.002 * np.random.default_rng(0).standard_normal(25)
    y = HOFFMANN.predict({"N": N, "D": D}, TRUTH) * np.exp(scatter)
    return fit_law({"N": N, "D": D}, y, law="joint", form=HOFFMANN, resamples=200)


@pytest.fixture(scope="module")
def ladder():
    scatter = 0.002 * np.random.default_rng(0).standard_normal(7)
    return fit_law(SIZES, (5 + (2000 / SIZES) ** 0.3) * np.exp(scatter), law="ladder", x_name="N")


def test_a_forecast_is_what_a_run_held_out_there_would_have(ladder):
    x = np.r_[SIZES, 1e7]
    y = np.r_[[point["y"] for point in ladder.points_used], 5.0]
    held = fit_law(x, y, law="ladder", x_name="N", hold_out=1).held_out[0]
    asked = predict(ladder, {"x": 1e7})
    assert asked.value == pytest.approx(held["predicted"], rel=1e-9)
    assert asked.interval == pytest.approx(held["interval"], rel=1e-5)


def test_a_bootstrap_answers_from_what_is_kept(joint):
    far = {"N": np.r_[N, 3e9], "D": np.r_[D, 3e11]}
    y = np.r_[[point["y"] for point in joint.points_used], 1.0]
    held = fit_law(far, y, law="joint", form=HOFFMANN, resamples=200, hold_out=1).held_out[0]
    asked = predict(Fit.from_json(json.loads(json.dumps(joint.to_json()))), {"N": 3e9, "D": 3e11})
    assert asked.value == pytest.approx(held["predicted"], rel=1e-9)
    assert asked.interval == pytest.approx(held["interval"], rel=1e-5)


def test_what_was_held_out_is_fitted_again_for_a_forecast():
    """The test first; then the largest sizes are known, and nobody should act as if they were not."""
    y = (5 + (2000 / SIZES) ** 0.3) * np.exp(0.002 * np.random.default_rng(3).standard_normal(7))
    tested, every = (fit_law(SIZES, y, law="ladder", x_name="N", hold_out=k) for k in (2, 0))
    assert every.final is None
    assert tested.final.parameters == pytest.approx(every.parameters, rel=1e-6)
    assert predict(tested, {"x": 1e7}).value == pytest.approx(predict(every, {"x": 1e7}).value, rel=1e-8)
    assert predict(tested, {"x": 1e7}).value != pytest.approx(float(tested.predict(1e7)), rel=1e-4)
    error = 100 * max(entry["error"] for entry in tested.held_out)
    assert (
        f"fitted again on all 7 runs, what had been held out among them (predicted without it: {error:.2g} %"
        in text(tested, {"x": 1e7})
    )
    assert "none of them held out" in text(every, {"x": 1e7})
    assert "10 times above the runs" in warning(
        tested, {"x": 1e7}
    )  # of what was measured, not of what was fitted


def test_the_law_of_all_runs_is_searched_for_like_any_other():
    """Not only from where the test's starts ended, of which there may be one: then no two could agree."""
    for seed in range(8):
        y = (5 + (2000 / SIZES) ** 0.3) * np.exp(0.003 * np.random.default_rng(seed).standard_normal(7))
        final = fit_law(SIZES, y, law="ladder", x_name="N", hold_out=1).final
        assert final.status is not Status.NOT_CONVERGED
        assert final.starts > 50


@pytest.mark.parametrize(("n", "measure"), [(1.01e8, "1.01e\\+06"), (9.9, "990")])
def test_beyond_a_hundred_times_there_is_no_forecast(ladder, n, measure):
    with pytest.raises(InputError, match=f"no forecast: N is 101 times .*; measure a run at N {measure} and"):
        text(ladder, {"x": n})


def test_the_best_n_and_d_are_those_of_the_closed_form(joint):
    """Hoffmann et al., arXiv 2203.15556, eq. 4."""
    p, c = joint.parameters, 1e21
    g = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
    a = p["beta"] / (p["alpha"] + p["beta"])
    best = best_of(joint, c)
    assert best.n == pytest.approx(g * (c / 6) ** a, rel=1e-4)
    assert best.d == pytest.approx((c / 6) ** (1 - a) / g, rel=1e-4)
    assert best.exponent == pytest.approx(a, abs=1e-4)
    assert best.n_interval[0] < best.n < best.n_interval[1]
    assert best.d_interval[0] < best.d < best.d_interval[1]
    assert best.exponent_interval[0] < a < best.exponent_interval[1]
    assert best.value == pytest.approx(float(joint.predict({"N": best.n, "D": best.d})), rel=1e-5)
    dearer = best_of(joint, c, per_target=12)
    assert dearer.n * dearer.d == pytest.approx(c / 12)


def test_a_metric_is_highest_at_its_best(joint):
    named = {"E": 0.2, "A": 18.0, "B": 3.0, "alpha": 0.38, "beta": 0.36}
    y = CEILING.predict({"N": N, "D": D}, named)
    best = best_of(replace(joint, form=CEILING.name, parameters=named, draws=None), 1e18)
    around = CEILING.predict(
        {"N": best.n * np.array([0.8, 1, 1.25]), "D": best.d / np.array([0.8, 1, 1.25])}, named
    )
    assert around.argmax() == 1
    assert best.value == pytest.approx(around[1], rel=1e-5)
    assert best.n_interval is None
    assert y.max() < 0.2


def test_little_unique_data_ask_for_a_smaller_model(joint):
    named = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "R_D": 15.0, "R_N": 5.0}
    points = [point | {"U": point["D"]} for point in joint.points_used]
    fit = replace(joint, form=MUENNIGHOFF.name, parameters=named, points_used=points, draws=None)
    plenty, little = best_of(fit, 1e21, unique=1e12), best_of(fit, 1e21, unique=1e8)
    assert little.value > plenty.value
    assert little.n != pytest.approx(plenty.n, rel=0.05)
    with pytest.raises(InputError, match="unique data, --U"):
        best_of(fit, 1e21)


def test_warnings_name_the_axis_the_factor_and_the_status(joint, ladder):
    assert warning(joint, {"N": 1e8, "D": 1e10}) == ""
    assert "D 1e+12 is 10 times above the runs" in warning(joint, {"N": 1e8, "D": 1e12})
    assert "N 1e+05 is 100 times below the runs" in warning(joint, {"N": 1e5, "D": 1e10})
    assert "the fit is bound_hit" in warning(replace(ladder, status=Status.BOUND_HIT), {"x": 1e4})
    assert "N 1e+08 is 100 times above" in text(ladder, {"x": 1e8})


def test_what_has_no_forecast_is_an_input_error(joint, ladder):
    flat = fit_law(SIZES, np.full(7, 5.0), law="flat")
    for call in (
        lambda: predict(flat, {"x": 1e4}),
        lambda: predict(joint, {"N": 1e8}),
        lambda: best_of(ladder, 1e20),
        lambda: best_of(joint, 7.0),
    ):
        with pytest.raises(InputError):
            call()


def test_the_verb(joint, ladder, monkeypatch, capsys, tmp_path):
    write_json(tmp_path / "joint.json", joint.to_json())
    write_json(tmp_path / "ladder.json", ladder.to_json())

    def run(*args):
        monkeypatch.setattr("sys.argv", ["recscale", "forecast", *map(str, args)])
        try:
            cli.main()
        except SystemExit as stopped:
            return stopped.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    code, out, _ = run(tmp_path / "ladder.json", "--N", "1e7")
    assert (code, "ladder: at N 1e+07: " in out, "warning: extrapolates" in out) == (0, True, True)
    code, out, _ = run(tmp_path / "joint.json", "--N", "1e8", "--D", "1e10")
    assert (code, out.count("\n")) == (0, 2)
    code, out, _ = run(tmp_path / "joint.json", "--flops", "1e20")
    assert (code, "the best N is" in out, "N grows as C^0.5" in out) == (0, True, True)
    for args in (
        ("ladder.json",),
        ("ladder.json", "--N", "1e7", "--D", "1e7"),
        ("joint.json", "--N", "1e8"),
        ("no.json",),
    ):
        code, _, err = run(tmp_path / args[0], *args[1:])
        assert (code, err.count("\n")) == (2, 1)
    assert run(tmp_path / "joint.json", "--N", "0")[0] == 2


def test_the_law_of_one_axis_is_its_curve(ladder):
    asked = predict(ladder, {"x": 5e4})
    assert asked.value == pytest.approx(float(SATURATING_POWER.predict(5e4, ladder.parameters)))
