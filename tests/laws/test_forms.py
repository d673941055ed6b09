"""Forms are checked by finite differences, by their own inverses, and at published constants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recscale.laws import forms
from recscale.laws.forms import FORMS
from recscale.laws.names import NAMES

# Ranges of theta in which a form is smooth and neither term drowns the other.
RANGES = {
    "saturating_power": [(0, 5), (0, 4), (0.05, 1)],
    "power_constant": [(0, 5), (0, 4), (0.05, 1)],
    "pure_power": [(0, 4), (0.05, 1)],
    "log_linear": [(-1, 1), (-1, -0.1)],
    "sigmoid": [(0.1, 1), (0.05, 1), (5, 15), (-1, 1)],
    "hoffmann": [(-1, 1), (0, 6), (0, 6), (0.05, 1), (0.05, 1)],
    "hoffmann_tied": [(-1, 1), (0, 6), (0, 6), (0.05, 1)],
    "kaplan": [(5, 15), (5, 15), (0.05, 1), (0.05, 1)],
    "muennighoff": [(-1, 1), (0, 1), (1.2, 3), (0.2, 1), (0, 4), (0, 4)],
    "performance": [(0, 1), (-1, 1), (-1, 1), (-0.4, 0.4), (-0.4, 0.4), (-0.4, 0.4)],
    "ceiling": [(0, 2), (0, 6), (0, 6), (0.05, 1), (0.05, 1)],
}
# Three points where both N and D are beyond what is unique, and one where neither is.
LOGS = np.array([[7.0, 9.5, 12, 14], [8, 13.0, 10, 11], [6.5, 9.0, 9.5, 40], [-4, -1, 0.5, -3]])


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=25, derandomize=True)
@given(data=st.data())
def test_slopes_are_those_of_the_curve(name, data):
    form = FORMS[name]
    theta = np.array([[data.draw(st.floats(*limits)) for limits in RANGES[name]]])
    log_x = LOGS[: len(form.axes)]
    value, slopes = form.curve(theta, log_x)
    assert value.shape == (1, 4)
    assert slopes.shape == (1, len(form.parameters), 4)
    # 1e-5 balances truncation (h^2) against rounding (1e-16 / h).
    steps = 1e-5 * np.eye(len(form.parameters))
    central = (form.curve(theta + steps, log_x)[0] - form.curve(theta - steps, log_x)[0]) / 2e-5
    assert slopes[0] == pytest.approx(central, rel=1e-5, abs=1e-7 * max(1, np.abs(value).max()))
    _, turn = form.scaled(theta)
    central = (form.scaled(theta + steps)[0] - form.scaled(theta - steps)[0]) / 2e-5
    assert np.allclose(turn[0].T, central, rtol=1e-5, atol=1e-6)
    named = dict(zip(form.names, form.named(theta)[0], strict=True))
    assert form.theta(named) == pytest.approx(theta, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.solve])
def test_inverse_undoes_the_curve(name):
    form = FORMS[name]
    theta = np.array([[sum(limits) / 2 for limits in RANGES[name]]])
    named = dict(zip(form.names, form.named(theta)[0], strict=True))
    x = np.geomspace(1e4, 1e6, 4)
    assert form.inverse(form.predict(x, named), named) == pytest.approx(x, rel=1e-6)


def test_a_loss_below_the_irreducible_one_is_never_reached():
    assert np.isnan(forms.SATURATING_POWER.inverse(4.0, {"E": 5.0, "X0": 1e3, "alpha": 0.3}))
    with pytest.raises(ValueError, match="no inverse"):
        forms.HOFFMANN.inverse(4.0, {})


@pytest.mark.parametrize("name", FORMS)
def test_starts_are_inside_the_bounds_and_finite(name):
    form, log_x = FORMS[name], LOGS[: len(FORMS[name].axes)]
    starts = form.starts(log_x, np.array([0.4, 0.3, 0.25, 0.2]))
    assert starts.shape[1] == len(form.parameters)
    assert np.isfinite(form.curve(starts, log_x)[0]).all()
    assert form.source
    assert all(parameter.meaning for parameter in form.parameters)


def test_the_grid_of_hoffmann_has_4500_starts():
    assert len(forms.HOFFMANN.starts(LOGS[:2], LOGS[0])) == 4500


def test_lsrm_law_at_its_six_sizes():
    """arXiv 2311.11351, sec. IV: E 4.9, N0 6.8e5, alpha 0.121."""
    sizes = [98304, 786432, 1572864, 9437184, 75497472, 829440000]
    values = forms.SATURATING_POWER.predict(sizes, {"E": 4.9, "X0": 6.8e5, "alpha": 0.121})
    assert np.round(values, 3).tolist() == [6.164, 5.883, 5.804, 5.627, 5.466, 5.323]


def test_muennighoff_at_the_two_published_points():
    """Constants of arXiv 2305.16264 as its released code has them, unrounded."""
    named = {"E": np.exp(0.6254804), "A": np.exp(6.255414), "B": np.exp(7.3049974)}
    named |= {"alpha": 0.3526596, "R_D": 15.387756, "R_N": 5.309743}
    points = {"N": [6.34e9, 8.67e9], "D": [242e9, 178e9], "U": [25e9, 25e9]}
    assert np.round(forms.MUENNIGHOFF.predict(points, named), 5).tolist() == [2.22564, 2.22696]


def test_unrepeated_data_have_the_law_without_repetition():
    named = {"E": 1.9, "A": 500.0, "B": 1500.0, "alpha": 0.35}
    points = {"N": [1e8, 1e9], "D": [1e10, 4e10]}
    repeated = forms.MUENNIGHOFF.predict(points | {"U": [4e10, 4e10]}, named | {"R_D": 15.0, "R_N": 5.0})
    assert repeated == pytest.approx(forms.HOFFMANN_TIED.predict(points, named))


def test_a_law_of_two_axes_takes_x_by_name():
    with pytest.raises(ValueError, match="by axis: N, D"):
        forms.HOFFMANN.predict([1e6], {"E": 1, "A": 1, "B": 1, "alpha": 0.3, "beta": 0.3})


def test_every_name_has_its_form_and_every_form_its_name():
    assert list(FORMS) == list(NAMES)
