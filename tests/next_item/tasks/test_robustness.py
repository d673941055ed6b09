"""Disturbed inputs against one place at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recscale.next_item.tasks.cases import before_test
from recscale.next_item.tasks.robustness import NOISE, close_up, draws, overwrite, robustness
from trained import inputs_of, rows_of, trained_on

rows = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=7), min_size=1, max_size=6)
etas = st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0])


def brute_force(row, chance, items, eta, closed):
    out = []
    for item, u, drawn in zip(row, chance, items, strict=False):
        if u < eta / 2:
            out.append(int(drawn))
        elif u >= eta:
            out.append(item)
        elif not closed:
            out.append(0)
    return out or [row[-1]]


@given(rows, etas, st.integers(0, 100))
def test_both_are_the_brute_force_ones(rows, eta, seed):
    inputs = inputs_of(rows)
    chance, items = draws(inputs, 30, seed)
    assert items.min() >= 1
    assert items.max() <= 30
    changed = overwrite(inputs, eta, chance, items)
    assert changed.length.tolist() == inputs.length.tolist()
    found = [row[:n].tolist() for row, n in zip(changed.items, changed.length, strict=True)]
    assert found == [brute_force(r, c, i, eta, False) for r, c, i in zip(rows, chance, items, strict=True)]
    assert not changed.items[~changed.real].any()
    closed = close_up(inputs, eta, chance, items)
    assert rows_of(closed) == [
        brute_force(r, c, i, eta, True) for r, c, i in zip(rows, chance, items, strict=True)
    ]


def test_by_eye():
    inputs, chance = inputs_of([[5, 6, 7, 8]], 4), np.array([[0.0, 0.2, 0.5, 0.9]])
    drawn = np.array([[9, 9, 9, 9]], np.int32)
    assert overwrite(inputs, 0.3, chance, drawn).items.tolist() == [[9, 0, 7, 8]]
    assert close_up(inputs, 0.3, chance, drawn).items.tolist() == [[9, 7, 8, 0]]
    assert close_up(inputs_of([[5, 6]], 2), 1.0, np.array([[0.6, 0.7]]), drawn[:, :2]).items.tolist() == [
        [6, 0]
    ]


def test_a_share_of_eta_is_disturbed_half_of_it_by_zero():
    inputs = inputs_of([[40] * 50] * 400, 50)
    chance, items = draws(inputs, 30, 1)
    changed = overwrite(inputs, 0.3, chance, items).items
    assert (changed != 40).mean() == pytest.approx(0.3, abs=0.01)
    assert (changed == 0).mean() == pytest.approx(0.15, abs=0.01)
    replaced = np.bincount(changed[(changed != 40) & (changed != 0)], minlength=31)[1:]
    assert replaced.min() > 0.6 * replaced.mean()  # evenly over the catalogue


def test_id_0_is_attended_and_moves_the_scores(small_data):
    """Were it masked, the answer would be that of the closed-up input."""
    trained = trained_on(small_data)
    inputs, target = before_test(trained.data, 12)
    zero, one = np.where(np.arange(12) == 0, 0.2, 0.9), np.ones((len(target), 12), np.int32)
    chance = np.broadcast_to(zero, one.shape)
    overwritten = overwrite(inputs, 0.3, chance, one)
    clean, changed = trained._scores(inputs), trained._scores(overwritten)
    assert (clean - changed).abs().max() > 1e-4
    closed = trained._scores(close_up(inputs, 0.3, chance, one))
    assert (closed - changed).abs().max() > 1e-4


def test_every_eta_and_seed_of_both_variants_and_one_clean(small_data):
    trained = trained_on(small_data)
    cases = robustness(trained).cases
    cells = set(zip(cases["group"], cases["x"], cases["noise"], strict=True))
    expected = {(name, eta, seed) for name in ("overwritten", "closed up") for eta, seed in NOISE}
    assert cells == expected | {("clean", 0.0, 0)}
    assert sorted(eta for eta, _ in NOISE) == [0.1, 0.2, 0.3, 0.3, 0.3, 0.4, 0.5]
    assert trained.windows == 15 * trained.data.n_users
