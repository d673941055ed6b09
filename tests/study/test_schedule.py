import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recscale.study.schedule import Leg, factor, legs
from runs import run_of

RUN = run_of("made-up", 1, 8, 0.01, epochs=4).course


def course(run, steps):
    """(leg, step, factor) of every step in the order they are trained."""
    return [
        (leg, s, factor(run, leg, s, steps)) for leg in legs(run, steps) for s in range(leg.begin, leg.end)
    ]


def test_cosine_warms_up_and_ends_at_zero():
    factors = [f for _, _, f in course(RUN, 100)]
    assert len(factors) == 400
    assert factors[0] == pytest.approx(0.5 / 40)
    assert max(factors) == pytest.approx(1, abs=1e-3)
    assert factors.index(max(factors)) in (39, 40, 41)
    assert factors[220] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.5)), abs=0.01)
    assert factors[-1] < 1e-4


def test_constant_is_flat_and_cools_down_in_its_last_fifth():
    run = replace(RUN, schedule="constant")
    factors = [f for _, _, f in course(run, 100)]
    assert len(factors) == 400
    assert set(factors[40:320]) == {1.0}
    assert factors[320] == pytest.approx(79.5 / 80)
    assert factors[-1] == pytest.approx(0.5 / 80)


def test_branches_leave_the_trunk_and_end_at_the_epochs_tested():
    run = replace(RUN, schedule="constant", test_epochs=(1, 2))
    assert legs(run, 100) == [
        Leg(0, 80),
        Leg(80, 100, cools=True, branch=True),
        Leg(80, 160),
        Leg(160, 200, cools=True, branch=True),
        Leg(160, 320),
        Leg(320, 400, cools=True),
    ]
    factors = {(leg, step): f for leg, step, f in course(run, 100)}
    assert factors[Leg(0, 80), 9] == pytest.approx(0.95)  # warm-up: a tenth of the first epoch
    assert factors[Leg(80, 160), 80] == 1.0
    assert factors[Leg(80, 100, True, True), 99] == pytest.approx(0.5 / 20)


@given(
    st.integers(1, 12), st.integers(1, 40), st.floats(0.01, 0.99), st.sets(st.integers(1, 12)),
    st.sampled_from(["cosine", "constant"]),
)  # fmt: skip
def test_the_trunk_takes_every_step_once_and_in_order(epochs, steps, cooldown, tests, schedule):
    tests = tuple(epoch for epoch in tests if epoch <= epochs)
    run = replace(RUN, epochs=epochs, cooldown=cooldown, test_epochs=tests, schedule=schedule)
    made = course(run, steps)
    assert [step for leg, step, _ in made if not leg.branch] == list(range(epochs * steps))
    assert all(0 < f <= 1 for _, _, f in made)
    if schedule == "constant":
        assert made[-1][0].cools  # however few the steps
        ends = {leg.end for leg in legs(run, steps) if leg.branch}
        assert ends == {epoch * steps for epoch in tests if epoch < epochs}
