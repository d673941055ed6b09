import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recscale.next_item import sequences
from recscale.next_item.evaluate import evaluate, metrics
from recscale.next_item.models.decoder import Decoder


def brute_force(scores, target):
    """Rank by sorting, one user at a time; equal scores by item."""
    n_items = scores.shape[1]
    result = {"MRR": 0.0, "loss": 0.0, "HR@5": 0.0, "NDCG@5": 0.0, "HR@10": 0.0, "NDCG@10": 0.0}
    for row, t in zip(scores, target, strict=True):
        order = sorted(range(n_items), key=lambda i: (-row[i], i))
        rank = order.index(t) + 1
        result["MRR"] += 1 / rank
        result["loss"] -= float(row[t] - np.log(np.exp(row).sum()))
        for k in (5, 10):
            result[f"HR@{k}"] += rank <= k
            result[f"NDCG@{k}"] += (rank <= k) / np.log2(rank + 1)
    return {name: value / len(target) for name, value in result.items()}


@given(st.integers(1, 30), st.integers(11, 40), st.integers(0, 2**31), st.booleans())
def test_metrics_are_the_brute_force_ones(n, n_items, seed, ties):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, n_items))
    scores = np.round(scores) if ties else scores
    target = rng.integers(n_items, size=n)
    found = metrics([(torch.from_numpy(scores), torch.from_numpy(target))], n_items)
    for name, value in brute_force(scores, target).items():
        assert found[name] == pytest.approx(value, rel=1e-4), name


def test_a_target_outside_the_catalogue_is_a_miss_without_loss():
    scores, target = torch.zeros(2, 12), torch.tensor([0, -1])
    found = metrics([(scores, target)], 12)
    assert found["HR@10"] == 0.5
    assert found["loss"] == pytest.approx(np.log(12))


def test_a_constant_score_is_not_a_perfect_one():
    found = metrics([(torch.zeros(100, 1000), torch.arange(100, 200))], 1000)
    assert found["HR@50"] == 0
    assert found["coverage@10"] == 0.01


def test_a_score_that_is_not_a_number_comes_last():
    found = metrics([(torch.full((3, 20), torch.nan), torch.tensor([0, 5, 19]))], 20)
    assert found["HR@10"] == 0


def test_blocks_do_not_change_the_result():
    torch.manual_seed(0)
    scores, target = torch.randn(40, 30), torch.randint(30, (40,))
    blocks = [(scores[k : k + 7], target[k : k + 7]) for k in range(0, 40, 7)]
    assert metrics(blocks, 30) == pytest.approx(metrics([(scores, target)], 30))


def test_a_model_is_scored_on_the_item_after_its_context(small_data):
    """Brute force: one user at a time, the unpadded history, plain Python slices."""
    data = sequences.load(small_data)
    torch.manual_seed(0)
    model = Decoder(data.n_items, 1, 8, 2, 12, 0.3)
    items = torch.from_numpy(data.items.astype(np.int64))
    rows, targets = [], []
    model.eval()
    for user in range(data.n_users):
        history = data.items[data.offsets[user] : data.offsets[user + 1]].tolist()
        test = data.train_length[user] + 1
        context = torch.tensor([history[max(0, test - 12) : test]])
        with torch.no_grad():
            rows.append(model(context)[0, -1] @ model.output.T)
        targets.append(history[test] - 1)
    expected = metrics([(torch.stack(rows), torch.tensor(targets))], data.n_items)
    model.train()
    found = evaluate(model, data, "test", 12, items)
    assert found == pytest.approx(expected, rel=1e-5)
    assert model.training
