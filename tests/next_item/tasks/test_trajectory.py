"""Trajectories: scores by hand and by NLTK, predictions by one user and step at a time."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from conftest import log_of, prepare, write_dataset
from recscale.errors import InputError
from recscale.next_item.tasks.cases import before_trajectory
from recscale.next_item.tasks.trajectory import bleu, predict, scores, trajectory
from trained import rows_of, trained_on


def one(predicted, true):
    return {name: float(value[0]) for name, value in scores(np.array([predicted]), np.array([true])).items()}


def test_by_hand():
    """First and third are hits: HR 2/3, DCG 1 + 1/2, ideal 1 + 1/log2(3) + 1/2."""
    found = one([1, 2, 3], [3, 1, 9])
    assert found["HR"] == pytest.approx(2 / 3)
    assert found["NDCG"] == pytest.approx(1.5 / (1.5 + 1 / np.log2(3)))
    # unigrams 2/3; bigrams (1,2), (2,3) against (3,1), (1,9): (0+1)/(2+1); trigrams (0+1)/(1+1)
    assert found["BLEU"] == pytest.approx((2 / 3 * 1 / 3 * 1 / 2) ** (1 / 3))
    assert found["distinct"] == 1


def test_the_ends():
    assert one([4, 5, 6, 7], [4, 5, 6, 7]) == pytest.approx({"HR": 1, "NDCG": 1, "BLEU": 1, "distinct": 1})
    nothing = {"HR": 0, "NDCG": 0, "BLEU": 0, "distinct": 1}
    assert one([1, 2], [3, 4]) == nothing
    assert one([1], [2]) == nothing


def test_an_item_predicted_twice_counts_once():
    found = one([7, 7, 7], [1, 7, 2])
    assert found["HR"] == found["distinct"] == pytest.approx(1 / 3)
    assert found["BLEU"] == pytest.approx((1 / 3 * 1 / 3 * 1 / 2) ** (1 / 3))


lists = st.integers(1, 10).flatmap(
    lambda j: st.tuples(*[st.lists(st.integers(1, 6), min_size=j, max_size=j)] * 2)
)


@given(st.lists(lists, min_size=1, max_size=1))
def test_bleu_is_that_of_nltk(pairs):
    """NLTK's method 2 adds one to matches and n-grams from bigrams on."""
    ((predicted, true),) = pairs
    n = min(4, len(true))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sentence_bleu([true], predicted, [1 / n] * n, SmoothingFunction().method2)
    assert bleu(np.array([predicted]), np.array([true]))[0] == pytest.approx(expected, abs=1e-12)


@given(
    st.lists(st.tuples(*[st.lists(st.integers(1, 12), min_size=10, max_size=10)] * 2), min_size=1, max_size=5)
)
def test_hits_and_gains_are_the_brute_force_ones_for_many_cases_at_once(pairs):
    predicted, true = (np.array(rows) for rows in zip(*pairs, strict=True))
    for j in range(1, 11):
        found = scores(predicted[:, :j], true[:, :j])
        for case, (ours, theirs) in enumerate(pairs):
            both = set(ours[:j]) & set(theirs[:j])
            gain, seen = 0.0, set()
            for place, item in enumerate(ours[:j]):
                gain += (item in both - seen) / np.log2(place + 2)
                seen.add(item)
            assert found["HR"][case] == pytest.approx(len(both) / j)
            assert found["NDCG"][case] == pytest.approx(gain / sum(1 / np.log2(k + 2) for k in range(j)))


def test_greedy_takes_its_own_predictions_one_shot_does_not(small_data):
    trained = trained_on(small_data)
    users, inputs, _ = before_trajectory(trained.data, 12)
    first, steps = predict(trained, inputs, 10)
    assert trained.windows == 10 * len(users)
    for case, row in enumerate(rows_of(inputs)):
        for step in range(10):
            with torch.no_grad():
                answer = trained.model(torch.tensor([row]))[0, -1] @ trained.model.output.T
            if step == 0:
                assert first[case].tolist() == (answer.topk(10).indices + 1).tolist()
            assert steps[case, step] == answer.argmax() + 1
            row = [*row, int(steps[case, step])][-12:]


def test_both_ways_and_all_ten_lengths(small_data):
    trained = trained_on(small_data)
    cases = trajectory(trained).cases
    users, inputs, true = before_trajectory(trained.data, 12)
    first, steps = predict(trained, inputs, 10)
    for name, predicted in (("greedy", steps), ("one shot", first)):
        for j in (1, 4, 10):
            part = cases[(cases["group"] == name) & (cases["x"] == j)]
            assert part["user"].tolist() == users.tolist()
            expected = scores(predicted[:, :j], true[:, :j])
            for metric, values in expected.items():
                assert part[metric].to_numpy() == pytest.approx(values, abs=1e-6)


def test_no_withheld_items_is_one_line(tmp_path):
    folder = write_dataset(prepare(log_of([range(20)]), 1000), tmp_path)
    with pytest.raises(InputError, match="no user has withheld items"):
        trajectory(trained_on(folder))
