"""A prepared dataset in memory: flat arrays, and the windows and contexts that index into them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.parquet

from recscale import files
from recscale.errors import InputError

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
    sha256: str  # of sequences.parquet: which data a run was trained on

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
    """Sequences of a prepared dataset folder (sequences.parquet and stats.json).

    Raises InputError where a file is missing or damaged.
    """
    path = folder / "sequences.parquet"
    columns = ["items", "withheld", "sample_rank"]
    try:
        table = pyarrow.parquet.read_table(path, columns=columns)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; prepare the dataset first") from None
    except (pyarrow.ArrowException, KeyError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: is not a table of sequences: {reason}") from error
    if not len(table):
        raise InputError(f"{path}: has no users")
    lists = table["items"].combine_chunks()
    return Sequences(
        items=np.array(lists.values),  # a copy torch may share: Arrow's own is read-only
        offsets=lists.offsets.to_numpy().astype(np.int64),
        withheld=table["withheld"].to_numpy().astype(np.int64),
        sample_rank=table["sample_rank"].to_numpy().astype(np.int64),
        n_items=files.read_json(folder / "stats.json", "n_items")["n_items"],
        sha256=files.sha256(path),
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
