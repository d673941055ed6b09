import numpy as np
import pytest
import torch

from recscale.next_item import sequences
from recscale.next_item.batches import Batches
from runs import run_of


@pytest.mark.parametrize("axis", ["users", "history", "time"])
def test_a_batch_is_the_windows_it_names(small_data, axis):
    data = sequences.load(small_data, with_timestamps=True)
    stride = 1 if axis == "history" else 4
    run = run_of("x", 1, 8, 0.1, max_len=10, stride=stride, data_axis=axis, data_fraction=0.5)
    windows = sequences.train_windows(data, run, sequences.train_users(data, run))
    batches = Batches(windows, torch.from_numpy(data.items))
    chosen = np.array([3, 0, 11])
    batch = batches.take(chosen)
    places, targets = [], []
    for row, w in enumerate(chosen):
        start, length, n = windows.start[w], windows.length[w], windows.targets[w]
        assert batch.inputs[row, :length].tolist() == data.items[start : start + length].tolist()
        assert not batch.inputs[row, length:].any()
        width = batch.inputs.shape[1]
        places += [row * width + place for place in range(length - n, length)]
        targets += data.items[start + length - n + 1 : start + length + 1].tolist()
    assert batch.places.tolist() == places
    assert batch.target.tolist() == targets
    assert batches.targets(chosen) == len(targets)


def test_an_epoch_of_batches_takes_every_target_once_at_any_stride(ml_1m_data):
    """MovieLens-1M has 921,689 train targets; each is (user, place), so an item's count is its own."""
    everyone = np.ones(ml_1m_data.n_users, bool)
    counts = []
    for stride in (1, 25, 50):
        windows = sequences.windows(ml_1m_data, everyone, 50, stride)
        batches = Batches(windows, torch.from_numpy(ml_1m_data.items))
        seen = np.zeros(ml_1m_data.n_items + 1, np.int64)
        for begin in range(0, len(batches), 4096):
            batch = batches.take(np.arange(begin, min(begin + 4096, len(batches))))
            seen += np.bincount(batch.target.numpy(), minlength=len(seen))
        counts.append(seen)
    assert counts[0].sum() == 921_689
    assert (counts[0] == counts[1]).all()
    assert (counts[0] == counts[2]).all()
