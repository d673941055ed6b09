import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import log_of, write_dataset
from recscale import sequences
from recscale.prepare import prepare


def data_of(lengths, tmp_path):
    histories = [[f"u{u}-{k}" for k in range(n)] for u, n in enumerate(lengths)]
    return sequences.load(write_dataset(prepare(log_of(histories), 15), tmp_path))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.lists(st.integers(3, 90), min_size=1, max_size=12),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_every_target_is_taken_once_with_the_most_context(tmp_path, lengths, max_len, stride):
    stride = min(stride, max_len)
    data = data_of(lengths, tmp_path)
    windows = sequences.windows(data, np.ones(data.n_users, bool), max_len, stride)
    taken = []
    for start, length, targets in zip(windows.start, windows.length, windows.targets, strict=True):
        user = np.searchsorted(data.offsets, start, side="right") - 1
        first = data.offsets[user]
        assert 1 <= targets <= length <= max_len
        # Either the window begins at the user's first item or it is as long as it may be.
        assert start == first or length == max_len
        assert targets <= stride or start == first
        taken += [start + length - k for k in range(targets)]
    expected = [data.offsets[u] + k for u in range(data.n_users) for k in range(1, data.train_length[u])]
    assert sorted(taken) == expected


@pytest.mark.parametrize("stride", [1, 25, 50])
def test_ml_1m_has_921689_targets_an_epoch_at_any_stride(ml_1m_data, stride):
    everyone = np.ones(ml_1m_data.n_users, bool)
    assert sequences.windows(ml_1m_data, everyone, 50, stride).targets.sum() == 921689


@pytest.mark.parametrize(("split", "at"), [("valid", 18), ("test", 19)])
def test_contexts_end_just_before_their_target(tmp_path, split, at):
    data = data_of([30, 5], tmp_path)  # user 0: 18 train, 1 valid, 1 test, 10 withheld
    where, targets = sequences.contexts(data, split, 6)
    rows = [data.items[s : s + n].tolist() for s, n in zip(where.start, where.length, strict=True)]
    assert rows[0] == data.items[at - 6 : at].tolist()
    assert targets[0] == data.items[at]
    second = data.items[data.offsets[1] : data.offsets[2]].tolist()  # 3 train, 1 valid, 1 test
    n = {"valid": 3, "test": 4}[split]
    assert rows[1] == second[:n]
    assert targets[1] == second[n]


def test_fractions_are_nested_and_of_stated_size(ml_1m_data):
    fractions = [1, 0.5, 0.25, 0.1, 0.0625]
    masks = [ml_1m_data.in_fraction(f) for f in fractions]
    assert [m.sum() for m in masks] == [6040, 3020, 1510, 604, 378]
    for larger, smaller in itertools.pairwise(masks):
        assert not (smaller & ~larger).any()
