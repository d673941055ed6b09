"""A fit as JSON and as words."""

import json
import re
from dataclasses import replace
from math import nan

import numpy as np
import pandas as pd
import pytest

from conftest import REPO
from recscale.errors import InputError
from recscale.files import write_json
from recscale.laws.fit import fit_law
from recscale.laws.forms import HOFFMANN, SIGMOID
from recscale.laws.result import Fit, Status
from recscale.laws.words import paragraph, summary

SIZES = np.array([768, 768, 1536, 3072, 6144, 12288, 24576, 98304], dtype=float)


@pytest.mark.parametrize("hold_out", [0, 2, 4, 6])
def test_json_round_trip(hold_out):
    x = np.r_[SIZES, 2e5]
    y = (5 + (2000 / x) ** 0.3) * np.exp(0.003 * np.random.default_rng(0).standard_normal(9))
    y[-1] = nan
    found = fit_law(x, y, law="loss_vs_N", x_name="N", hold_out=hold_out)
    text = json.dumps(found.to_json(), allow_nan=False)
    assert Fit.from_json(json.loads(text)) == found
    plain = json.loads(text)
    assert plain["meaning"] == found.meaning
    assert plain["x"] == "N"
    with pytest.raises(KeyError):
        Fit.from_json({})


def planted_fit(**changes) -> Fit:
    base = {
        "law": "loss_vs_N",
        "form": "saturating_power",
        "x": "N",
        "level": 0.9,
        "delta": 1e-3,
        "interval_method": "profile of the objective",
        "intervals": {"E": [5.16, 5.25], "X0": [900.0, 4400.0], "alpha": [0.24, 0.38]},
        "points_used": [],
        "points_left_out": [],
        "held_out": [{"error": 0.004, "baseline_error": 0.02}, {"error": 0.008, "baseline_error": 0.05}],
        "status": Status.CONVERGED,
        "parameters": {"E": 5.2123, "X0": 1912.3, "alpha": 0.3123},
    }
    return Fit(**base | changes)


def test_summary_prints_what_the_intervals_support():
    assert summary(planted_fit()) == (
        "loss_vs_N: L = 5.21 + (1.9e3/N)^0.31, alpha 0.31 [0.24, 0.38] (90 %, profile), converged; "
        "held out 2 sizes, largest error 0.8 % (largest fitted point: 5 %)"
    )
    worse = [{"error": 0.03, "baseline_error": 0.02}]
    assert summary(planted_fit(held_out=worse)).endswith(
        "largest error 3 % (largest fitted point: 2 %); no better than that guess"
    )
    wide = {"E": [None, 6.0], "X0": [900.0, None], "alpha": [0.1, 1.2]}
    assert summary(planted_fit(intervals=wide, held_out=[])) == (
        "loss_vs_N: L = E + (X0/N)^0.3, E [not bounded, 6.0], X0 [9e2, not bounded], "
        "alpha 0.3 [0.1, 1.2] (90 %, profile), converged"
    )


def test_a_joint_law_is_written_with_its_axes_and_both_exponents():
    text = summary(
        planted_fit(
            form="hoffmann",
            x="N, D",
            parameters={"E": 1.8169, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3659},
            intervals={
                "E": [1.77, 1.87], "A": [300, 700], "B": [1000, 6000],
                "alpha": [0.32, 0.37], "beta": [0.33, 0.41],
            },
            held_out=[],
        )
    )  # fmt: skip
    assert text == (
        "loss_vs_N: L = 1.82 + 4.8e2/N^0.348 + 2.1e3/D^0.37, alpha 0.348 [0.320, 0.370], "
        "beta 0.37 [0.33, 0.41] (90 %, profile), converged"
    )


def test_negative_constants_have_their_sign():
    x = np.geomspace(1e3, 1e9, 9)
    found = fit_law(
        x, SIGMOID.predict(x, {"top": 0.4, "k": 0.3, "middle": 14, "offset": -0.1}), law="m", form=SIGMOID
    )
    assert found.parameters["offset"] == pytest.approx(-0.1, rel=1e-3)
    assert summary(found).split(" (90 %")[0].endswith("+ 0.1000")


def test_the_table_has_a_line_a_constant_and_what_was_held_out():
    rng = np.random.default_rng(0)
    n, d = (part.ravel() for part in np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 1e11, 4)))
    truth = {"E": 1.8, "A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37}
    y = HOFFMANN.predict({"N": n, "D": d}, truth) * np.exp(0.002 * rng.standard_normal(16))
    found = fit_law({"N": n, "D": d}, y, law="joint", form=HOFFMANN, hold_out={"N": 1, "D": 1}, resamples=50)
    lines = paragraph(found).splitlines()
    assert [line.split()[0] for line in lines[2:7]] == ["E", "A", "B", "alpha", "beta"]
    assert sum(line.startswith("held out N ") for line in lines) == len(found.held_out) == 7
    assert len(found.points_used) == 9


def test_the_printed_formula_is_the_curve():
    """Constants that move together cannot be rounded one by one to what their intervals support."""
    points = pd.read_csv(REPO / "results/published/quick/points.csv")
    columns = {"N": points["N"].to_numpy(float), "D": points["D"].to_numpy(float)}
    found = fit_law(columns, points["test_loss"], law="joint", form=HOFFMANN, resamples=200)
    said = re.match(
        r"joint: L = ([\d.e]+) \+ ([\d.e]+)/N\^([\d.]+) \+ ([\d.e]+)/D\^([\d.]+),", summary(found)
    )
    e, a, alpha, b, beta = map(float, said.groups())
    assert said.groups() != tuple(f"{found.parameters[k]:.6g}" for k in ("E", "A", "alpha", "B", "beta"))
    printed = e + a / columns["N"] ** alpha + b / columns["D"] ** beta
    assert np.abs(printed / found.predict(columns) - 1).max() <= 1e-3


def test_a_constant_below_what_its_interval_supports_still_has_a_digit():
    x = np.geomspace(1e3, 1e6, 7)
    found = fit_law(x, 5 + (2000 / x) ** 0.3, law="law")
    wide = replace(
        found, parameters=found.parameters | {"E": 0.21}, intervals=found.intervals | {"E": [0.0, 8.0]}
    )
    assert re.search(r"E +0\.21 ", paragraph(wide))  # not 0, and as many digits as give the curve


@pytest.mark.parametrize(("key", "value"), [("form", "cubic"), ("status", "fine")])
def test_a_damaged_law_is_one_line(tmp_path, key, value):
    x = np.geomspace(1e3, 1e6, 7)
    plain = fit_law(x, 5 + (2000 / x) ** 0.3, law="law").to_json() | {key: value}
    write_json(tmp_path / "law.json", plain)
    with pytest.raises(InputError, match=f"law.json: {key}: '{value}' is not one of"):
        Fit.read(tmp_path / "law.json")
