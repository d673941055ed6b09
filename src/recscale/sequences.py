"""A prepared dataset in memory: flat arrays, and the windows and contexts that index into them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sequences:
    """All users' items, one after the other; user u owns items[offsets[u] : offsets[u + 1]].

    A user's row is train items, then one valid, one test, then `withheld` trajectory items.
    """

    items: npt.NDArray[np.int32]
    offsets: Ints
    withheld: Ints
    sample_rank: Ints
    n_items: int  # catalogue; ids above it occur in withheld tails only

    @property
    def n_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def train_length(self) -> Ints:
        """Train items of each user."""
        return np.diff(self.offsets) - self.withheld - 2

    def in_fraction(self, fraction: float) -> npt.NDArray[np.bool_]:
        """Users in the nested sample: ceil(fraction * n_users), 0.25 inside 0.5 inside 1."""
        return np.less(self.sample_rank, np.ceil(fraction * self.n_users))


@dataclass(frozen=True)
class Windows:
    """Training windows as slices of Sequences.items: inputs start..start+length-1.

    The target of a position is the item after it; the last `targets` positions take the loss.
    """

    start: Ints
    length: Ints
    targets: Ints

    def __len__(self) -> int:
        return len(self.start)


def load(folder: Path) -> Sequences:
    """Sequences of a prepared dataset folder (sequences.parquet and stats.json)."""
    columns = ["items", "withheld", "sample_rank"]
    table = pyarrow.parquet.read_table(folder / "sequences.parquet", columns=columns)
    lists = table["items"].combine_chunks()
    return Sequences(
        items=lists.values.to_numpy(),
        offsets=lists.offsets.to_numpy().astype(np.int64),
        withheld=table["withheld"].to_numpy().astype(np.int64),
        sample_rank=table["sample_rank"].to_numpy().astype(np.int64),
        n_items=json.loads((folder / "stats.json").read_text())["n_items"],
    )


def windows(data: Sequences, users: npt.NDArray[np.bool_], max_len: int, stride: int) -> Windows:
    """Windows in which every train target of `users` takes the loss exactly once.

    A user's first window takes the loss on up to max_len targets, each later one on the next
    `stride`, with as much context before them as max_len allows. stride = 1 gives the paper's
    samples, one a target; stride = max_len is the cheapest.
    """
    chosen = np.flatnonzero(users & (data.train_length > 1))
    total = data.train_length[chosen] - 1  # targets: every train item but the first
    first = np.minimum(max_len, total)
    count = 1 + -(-(total - first) // stride)
    user = np.repeat(np.arange(len(chosen)), count)
    k = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    end = np.minimum(first[user] + k * stride, total[user])  # inputs 0..end-1, targets up to item end
    start = np.maximum(end - max_len, 0)
    begin = np.where(k == 0, 0, first[user] + (k - 1) * stride)  # targets already taken before
    return Windows(data.offsets[chosen][user] + start, end - start, end - begin)


def contexts(data: Sequences, split: str, max_len: int) -> tuple[Windows, Ints]:
    """The last max_len items before each user's valid or test item, and that item: (n_users,)."""
    at = data.offsets[:-1] + data.train_length + {"valid": 0, "test": 1}[split]
    length = np.minimum(at - data.offsets[:-1], max_len)
    target = data.items[at].astype(np.int64)
    return Windows(at - length, length, np.ones_like(length)), target
