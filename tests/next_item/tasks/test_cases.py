"""Inputs are what plain Python slices say, and the model is asked as one user at a time would be."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import log_of, prepare, write_dataset
from recscale.next_item import sequences
from recscale.next_item.tasks.cases import TOP, Trained, before_test, before_trajectory, ranked
from trained import inputs_of, rows_of, trained_on

rows_of_items = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=7), min_size=1, max_size=6)


@given(rows_of_items, st.integers(1, 9))
def test_latest_are_the_last_items(rows, n):
    assert rows_of(inputs_of(rows).latest(n)) == [row[-n:] for row in rows]


@given(rows_of_items, st.integers(1, 30))
def test_a_following_item_pushes_the_oldest_out(rows, item):
    followed = inputs_of(rows).followed_by(np.full(len(rows), item))
    assert rows_of(followed) == [[*row, item][-7:] for row in rows]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.integers(3, 40), min_size=1, max_size=8), st.integers(1, 12))
def test_inputs_end_just_before_what_is_asked(tmp_path, lengths, max_len):
    histories = [[f"{u}-{k}" for k in range(n)] for u, n in enumerate(lengths)]
    data = sequences.load(write_dataset(prepare(log_of(histories), 15), tmp_path))
    whole = [data.items[data.offsets[u] : data.offsets[u + 1]].tolist() for u in range(data.n_users)]
    kept = [row[: len(row) - n] for row, n in zip(whole, data.withheld, strict=True)]
    inputs, target = before_test(data, max_len)
    assert rows_of(inputs) == [row[:-1][-max_len:] for row in kept]
    assert target.tolist() == [row[-1] for row in kept]
    users, inputs, true = before_trajectory(data, max_len)
    assert users.tolist() == [u for u, n in enumerate(lengths) if n > 15]
    assert rows_of(inputs) == [kept[u][-max_len:] for u in users]
    assert true.tolist() == [whole[u][-10:] for u in users]


def test_answers_are_those_of_one_unpadded_user_at_a_time(small_data):
    trained = trained_on(small_data)
    inputs, target = before_test(trained.data, 12)
    rank, best = trained.answer(inputs, target, TOP)
    for user, row in enumerate(rows_of(inputs)):
        with torch.no_grad():
            scores = trained.model(torch.tensor([row]))[0, -1] @ trained.model.output.T
        order = sorted(range(len(scores)), key=lambda i: (-scores[i].item(), i))
        assert rank[user] == order.index(target[user] - 1) + 1
        assert best[user].tolist() == [item + 1 for item in order[:TOP]]
    assert trained.windows == trained.data.n_users


def test_a_target_outside_the_catalogue_comes_after_all_items(small_data):
    trained = trained_on(small_data)
    inputs, target = before_test(trained.data, 12)
    target[3] = trained.data.n_items + 1
    assert trained.answer(inputs, target)[0][3] == trained.data.n_items + 1


def test_the_output_layer_sees_the_last_item_alone(small_data):
    """Hidden states of all positions would be twelve times as many."""
    trained, rows = trained_on(small_data), []
    scores = Trained._scores

    def counted(self, inputs):
        rows.append(scores(self, inputs).shape)
        return scores(self, inputs)

    inputs, target = before_test(trained.data, 12)
    Trained._scores = counted
    try:
        trained.answer(inputs, target)
    finally:
        Trained._scores = scores
    assert sum(n for n, _ in rows) == trained.data.n_users


def test_ranks_become_hits_and_gains():
    cases = ranked(np.arange(4), "a", np.array([1, 3, 10, 11]))
    assert cases["HR@10"].tolist() == [1, 1, 1, 0]
    assert cases["NDCG@10"].tolist() == pytest.approx([1, 0.5, 1 / np.log2(11), 0])
