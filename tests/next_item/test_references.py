import itertools
from collections import Counter

import numpy as np
import pytest

from recscale.next_item import references as module
from recscale.next_item import sequences
from recscale.next_item.references import references


def test_against_counting_by_hand(small_data):
    """Oracle: dictionaries of counts and one user at a time."""
    data = sequences.load(small_data)
    seen, after, pairs = Counter(), Counter(), Counter()
    cases = []
    for user in range(data.n_users):
        history = data.items[data.offsets[user] : data.offsets[user + 1]].tolist()
        n = data.train_length[user]
        seen.update(history[:n])
        pairs.update(itertools.pairwise(history[:n]))
        after.update(history[: n - 1])
        cases.append((history[n], history[n + 1]))  # valid item, then test item
    total = sum(seen.values()) + data.n_items
    popular = {i: (seen[i] + 1) / total for i in range(1, data.n_items + 1)}
    found = references(data)
    expected = np.mean([-np.log(popular[target]) for _, target in cases])
    assert found["popularity"]["test"]["loss"] == pytest.approx(expected, rel=1e-5)
    k = found["markov"]["pseudo_counts"]
    expected = np.mean([-np.log((pairs[i, j] + k * popular[j]) / (after[i] + k)) for i, j in cases])
    assert found["markov"]["test"]["loss"] == pytest.approx(expected, rel=1e-5)


def test_pseudo_counts_are_chosen_on_valid_not_on_test(small_data, monkeypatch):
    data = sequences.load(small_data)
    losses = {}
    for k in module.PSEUDO_COUNTS:
        monkeypatch.setattr(module, "PSEUDO_COUNTS", (k,))
        losses[k] = references(data)["markov"]["valid"]["loss"]
    monkeypatch.undo()
    assert references(data)["markov"]["pseudo_counts"] == min(losses, key=losses.get)


def test_on_ml_1m(ml_1m_data):
    """Popularity is known from elsewhere to lie near 7.46 nats and HR@10 near 0.023."""
    found = references(ml_1m_data)
    assert found["popularity"]["test"]["loss"] == pytest.approx(7.46, abs=0.02)
    assert found["markov"]["test"]["loss"] < found["popularity"]["test"]["loss"] - 0.5
