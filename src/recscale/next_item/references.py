"""Reference lines: two models that need no training, evaluated like every trained one.

Both count train interactions only and give probabilities over the whole catalogue.
Popularity: (train count of the item + 1) / (train interactions + n_items).
Markov, first order: how often an item followed the last one in train, pulled towards popularity by
a weight of `k` pseudo-counts: (count(i, j) + k pop(j)) / (count(i) + k), k chosen on valid loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from recscale.next_item.evaluate import metrics
from recscale.next_item.sequences import Sequences, contexts
from recscale.study.execution import BLOCK

PSEUDO_COUNTS = (1, 3, 10, 30, 100, 300, 1000, 3000)


def references(data: Sequences) -> dict[str, Any]:
    """METRICS on valid and test of popularity and of the first-order Markov chain."""
    popularity = _popularity(data)
    chain = _transitions(data)
    n = data.n_items
    k = min(PSEUDO_COUNTS, key=lambda k: _markov_loss(data, "valid", popularity, chain, k))
    return {
        "popularity": {split: metrics(_constant(data, split, popularity), n) for split in ("valid", "test")},
        "markov": {
            "pseudo_counts": k,
            **{split: metrics(_markov(data, split, popularity, chain, k), n) for split in ("valid", "test")},
        },
    }


def _train_items(data: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Train items of all users in one array, and whether each is a user's first."""
    place = np.arange(len(data.items)) - np.repeat(data.offsets[:-1], np.diff(data.offsets))
    train = place < np.repeat(data.train_length, np.diff(data.offsets))
    return data.items[train].astype(np.int64), place[train] == 0


def _popularity(data: Sequences) -> np.ndarray:
    items, _ = _train_items(data)
    count = np.bincount(items - 1, minlength=data.n_items) + 1.0
    p: np.ndarray = count / count.sum()
    return p


def _transitions(data: Sequences) -> scipy.sparse.csr_array:
    """count(i, j): how often item j + 1 directly follows item i + 1 in a user's train items."""
    items, first = _train_items(data)
    here, after = items[:-1][~first[1:]] - 1, items[1:][~first[1:]] - 1
    ones = np.ones(len(here))
    return scipy.sparse.csr_array((ones, (here, after)), shape=(data.n_items, data.n_items))


def _blocks(data: Sequences, split: str) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Row of the last item before the target, and row of the target (-1: not in the catalogue)."""
    where, target = contexts(data, split, 1)
    last = data.items[where.start].astype(np.int64) - 1
    rows = torch.from_numpy(np.where(target <= data.n_items, target - 1, -1))
    for begin in range(0, len(rows), BLOCK):
        yield last[begin : begin + BLOCK], rows[begin : begin + BLOCK]


def _constant(data: Sequences, split: str, p: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
    score = torch.from_numpy(np.log(p)).float()
    for last, target in _blocks(data, split):
        yield score.expand(len(last), -1), target


def _markov_loss(
    data: Sequences, split: str, popularity: np.ndarray, chain: scipy.sparse.csr_array, k: float
) -> float:
    """The loss of `_markov` alone, in nats: it needs the probability of each target and of no other item."""
    where, target = contexts(data, split, 1)
    last, row = data.items[where.start].astype(np.int64) - 1, target.astype(np.int64) - 1
    seen = np.asarray(chain[last, row]).reshape(-1)
    total = np.asarray(chain.sum(1)).reshape(-1)
    return -float(np.log((seen + k * popularity[row]) / (total[last] + k)).mean())


def _markov(
    data: Sequences, split: str, popularity: np.ndarray, chain: scipy.sparse.csr_array, k: float
) -> Iterator[tuple[Tensor, Tensor]]:
    total = np.asarray(chain.sum(1)).reshape(-1)
    for last, target in _blocks(data, split):
        p = (chain[last].toarray() + k * popularity) / (total[last] + k)[:, None]
        yield torch.from_numpy(np.log(p)).float(), target
