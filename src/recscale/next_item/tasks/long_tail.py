"""Long-tail items: is the gain of a larger model in frequent or in rare items?

Items are sorted by how often they occur in the train part of all users, the most frequent first, and cut
into four groups with a quarter of those occurrences each (not a quarter of the items), G1 to G4. A test case
belongs to the group of its target. Nothing else is changed (LSRM, section V).
"""

from __future__ import annotations

import numpy as np

from recscale.next_item.sequences import Ints, Sequences
from recscale.next_item.tasks.cases import Outcome, Trained, before_test, ranked

GROUPS = ("G1", "G2", "G3", "G4")


def long_tail(trained: Trained) -> Outcome:
    """Cases by the group of the target; no x."""
    inputs, target = before_test(trained.data, trained.run.windows.max_len)
    rank, _ = trained.answer(inputs, target)
    group = np.array(GROUPS)[groups(train_counts(trained.data))[target - 1]]
    return Outcome(ranked(np.arange(len(rank)), group, rank))


def train_counts(data: Sequences) -> Ints:
    """How often each item of the catalogue occurs in the train part of all users: (n_items,)."""
    return np.bincount(data.items[data.leading(data.train_length)] - 1, minlength=data.n_items)


def groups(count: Ints) -> Ints:
    """Group from 0 of items that occur so often.

    An item belongs to the quarter in which its first occurrence lies when all occurrences stand in a row,
    those of the most frequent item first; items of one count stand in order of their ids.
    """
    order = np.argsort(-count, kind="stable")
    before = np.cumsum(count[order]) - count[order]
    group = np.empty(len(count), np.int64)
    group[order] = np.minimum(len(GROUPS) * before // max(1, int(count.sum())), len(GROUPS) - 1)
    return group
