"""The figure of one law shows the numbers of its fit."""

import numpy as np
import pandas as pd

from recscale.laws.fit import fit_law
from recscale.report.figures.law import draw

SIZES = np.geomspace(1e3, 1e6, 16)


def fitted(**options):
    y = (5 + (2000 / SIZES) ** 0.3) * np.exp(0.002 * np.random.default_rng(0).standard_normal(16))
    y[4] *= 1.5
    return fit_law(SIZES, y, law="law", x_name="N", resamples=50, **options)


def test_the_csv_holds_the_runs_the_band_the_held_out_and_the_profile(tmp_path):
    fit = fitted(hold_out=2)
    draw(fit, "loss", tmp_path / "law.png")
    csv = pd.read_csv(tmp_path / "law.csv")
    counts = csv["series"].value_counts().to_dict()
    assert counts == {"band": 33, "profile": 25, "fitted": 13, "outlier": 1, "held_out": 2}
    assert csv.loc[csv["series"] == "band", "predicted"].tolist() == fit.band["mid"]
    held = csv[csv["series"] == "held_out"]
    assert held[["lo", "hi"]].values.tolist() == [entry["interval"] for entry in fit.held_out]
    assert (tmp_path / "law.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "law.pdf").read_bytes().startswith(b"%PDF")


def test_without_a_law_the_figure_has_the_runs_and_says_why(tmp_path):
    fit = fit_law(SIZES, np.full(16, 5.0), law="flat")
    assert fit.parameters is None
    draw(fit, "loss", tmp_path / "law.png")
    csv = pd.read_csv(tmp_path / "law.csv")
    assert set(csv["series"]) == {"fitted"}
    assert csv["measured"].tolist() == [5.0] * 16
    assert (tmp_path / "law.pdf").read_bytes().startswith(b"%PDF")


def test_as_many_sizes_as_constants_have_a_curve_without_a_band(tmp_path):
    fit = fit_law(SIZES[[0, 7, 15]], [6.2, 5.4, 5.2], law="three")
    assert set(fit.band["lo"]) == {None}
    draw(fit, "loss", tmp_path / "law.png")
    csv = pd.read_csv(tmp_path / "law.csv")
    assert csv.loc[csv["series"] == "band", "predicted"].tolist() == fit.band["mid"]
    assert csv.loc[csv["series"] == "band", "lo"].isna().all()
