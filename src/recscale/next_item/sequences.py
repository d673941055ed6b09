"""A prepared dataset in memory: flat arrays, and the windows and contexts that index into them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from recscale import files
from recscale.errors import InputError
from recscale.study.run import Run, part_of

Ints = npt.NDArray[np.int64]
UNKNOWN = np.iinfo(np.int64).min  # the time of an interaction that has none


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
    timestamps: Ints | None = None  # seconds, beside items; only where they were asked for

    @property
    def n_users(self) -> int:
        return len(self.offsets) - 1

    @property
    def train_length(self) -> Ints:
        """Train items of each user."""
        return np.diff(self.offsets) - self.withheld - 2

    def leading(self, count: Ints) -> npt.NDArray[np.bool_]:
        """Whether each item is among the first `count`, (n_users,), of its user's row: (len(items),)."""
        pairs = np.stack([count, np.diff(self.offsets) - count], axis=1)
        return np.repeat(np.tile([True, False], self.n_users), pairs.ravel())

    def in_fraction(self, fraction: float, seed: int = 0) -> npt.NDArray[np.bool_]:
        """Users in a nested sample: ceil(fraction * n_users), 0.25 inside 0.5 inside 1.

        Ranks are of the users' keys, so no order of rows changes a sample. Another `seed` than 0
        permutes the ranks.
        """
        rank = self.sample_rank
        if seed:
            rank = np.random.default_rng(seed).permutation(self.n_users)[rank]
        return np.less(rank, np.ceil(fraction * self.n_users))

    def since(self, fraction: float) -> Ints:
        """Train items of each user from a moment on: (n_users,).

        The moment is the latest second with at least ceil(fraction * D) targets from it on, D those of
        all the data. All of that second is inside, so that order in the source does not matter. A
        target counts where the item before it is inside too. Raises ValueError without timestamps.
        """
        if self.timestamps is None:
            raise ValueError("the sequences were loaded without timestamps")
        followed = np.maximum(self.train_length - 1, 0)  # train items with a target after them, one each
        seconds = self.timestamps[self.leading(followed)]
        if not len(seconds):
            return np.zeros(self.n_users, np.int64)
        first = len(seconds) - part_of(fraction, len(seconds))
        moment = np.partition(seconds, first)[first]
        inside = self.leading(self.train_length) & (self.timestamps >= moment)
        return np.diff(np.concatenate([[0], np.cumsum(inside)])[self.offsets])


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

    @property
    def input_items(self) -> int:
        """Input items, summed over the targets: the last of n has `length`, the first n - 1 fewer."""
        n = self.targets
        return int((n * self.length - n * (n - 1) // 2).sum())


@dataclass(frozen=True)
class Rows:
    """What sequences.parquet has: items of all users, offsets, seconds beside the items, other columns.

    seconds: UNKNOWN for all of a user who has not all of them; empty where they were not asked for.
    """

    items: npt.NDArray[np.int32]
    offsets: Ints
    seconds: Ints
    columns: tuple[Ints, ...]


def read(path: Path, *columns: str, seconds: bool = False) -> Rows:
    """A sequences.parquet with these columns of numbers. Raises InputError if it is missing or damaged."""
    try:
        table = pyarrow.parquet.read_table(path, columns=["items", *columns])
        timed = seconds and "timestamps" in pyarrow.parquet.read_schema(path).names
        times = pyarrow.parquet.read_table(path, columns=["timestamps"]) if timed else None
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; prepare the dataset first") from None
    except (pyarrow.ArrowException, KeyError, OSError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: is not a table of sequences: {reason}") from error
    try:
        lists = table["items"].combine_chunks()
        if not hasattr(lists, "flatten") or lists.null_count or lists.flatten().null_count:
            raise InputError(f"{path}: is not a table of sequences: items are not lists of ids")
        items = np.array(lists.flatten().cast(pyarrow.int32()))  # copied: Arrow's own is read-only
        length = pyarrow.compute.list_value_length(lists).to_numpy().astype(np.int64)
        offsets = np.concatenate([[0], np.cumsum(length)])
        given = times["timestamps"].combine_chunks() if times else None
        known = _seconds(path, given, length) if seconds else np.empty(0, np.int64)
        others = tuple(table[name].to_numpy().astype(np.int64) for name in columns)
    except (pyarrow.ArrowException, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise InputError(f"{path}: is not a table of sequences: {reason}") from error
    return Rows(items, offsets, known, others)


def _seconds(path: Path, lists: Any, length: Ints) -> Ints:
    """Seconds of each item; UNKNOWN for all of a user who has not all of them."""
    flat = np.full(length.sum(), UNKNOWN)
    if lists is None or pyarrow.types.is_null(lists.type):
        return flat
    given = lists.is_valid().to_numpy(zero_copy_only=False)
    n = pyarrow.compute.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    if (n != length)[given].any():
        raise InputError(f"{path}: timestamps: a user has not as many as items")
    values = lists.flatten().cast(pyarrow.int64()).fill_null(UNKNOWN)
    flat[np.repeat(given, length)] = values.to_numpy(zero_copy_only=False)
    user = np.repeat(np.arange(len(length)), length)
    incomplete = np.bincount(user[flat == UNKNOWN], minlength=len(length)) > 0
    flat[incomplete[user]] = UNKNOWN
    if ((np.diff(flat) < 0) & (np.diff(user) == 0)).any():
        raise InputError(f"{path}: timestamps: of a user are not in order")
    return flat


def load(folder: Path, with_timestamps: bool = False) -> Sequences:
    """Sequences of a prepared dataset folder (sequences.parquet and stats.json).

    Raises InputError where a file is missing or damaged, or has no timestamps and they are asked for.
    """
    path = folder / "sequences.parquet"
    rows = read(path, "withheld", "sample_rank", seconds=with_timestamps)
    if not len(rows.offsets) > 1:
        raise InputError(f"{path}: has no users")
    if (rows.seconds == UNKNOWN).any():
        raise InputError(
            f"{path}: timestamps: are absent or null, the log has order only; data_axis: time needs all of "
            "them, legal here: users, history"
        )
    return Sequences(
        items=rows.items,
        offsets=rows.offsets,
        withheld=rows.columns[0],
        sample_rank=rows.columns[1],
        n_items=files.read_json(folder / "stats.json", "n_items")["n_items"],
        sha256=files.sha256(path),
        timestamps=rows.seconds if with_timestamps else None,
    )


def train_users(data: Sequences, run: Run) -> npt.NDArray[np.bool_]:
    """Users that `run` trains on: a sample on the axis users, all on the others. (n_users,)"""
    if run.sample.data_axis == "users":
        return data.in_fraction(run.sample.data_fraction, run.sample.data_seed)
    return np.ones(data.n_users, bool)


def train_windows(data: Sequences, run: Run, users: npt.NDArray[np.bool_]) -> Windows:
    """Windows of an epoch of `run`: every train target of its sample takes the loss exactly once.

    On the axes users and time a target's input is inside the sample too; on the axis history all
    targets stay and their inputs are cut. Raises ValueError where the axis is time and `data` was
    loaded without timestamps.
    """
    if run.sample.data_axis == "history":
        return recent_windows(data, users, run.sample.data_fraction, run.windows.max_len)
    if run.sample.data_axis == "time":
        inside = np.where(users, data.since(run.sample.data_fraction), 0)
        start = data.offsets[:-1] + data.train_length - inside  # rows are in order of time
        return _windows(start, inside, run.windows.max_len, run.windows.stride)
    return windows(data, users, run.windows.max_len, run.windows.stride)


def recent_windows(data: Sequences, users: npt.NDArray[np.bool_], fraction: float, max_len: int) -> Windows:
    """A window a train target of `users`: the most recent ceil(fraction * n) of its n input items.

    n is at most max_len, as in LSRM's released code (`sparse_seq`): inputs first have their length,
    then are cut.
    """
    total = np.where(users, np.maximum(data.train_length - 1, 0), 0)  # targets
    before = np.arange(total.sum()) - np.repeat(np.cumsum(total) - total, total) + 1  # items before each
    target = np.repeat(data.offsets[:-1], total) + before
    kept = np.array([part_of(fraction, n) for n in range(max_len + 1)])
    length = kept[np.minimum(before, max_len)]
    return Windows(target - length, length, np.ones_like(length))


def windows(data: Sequences, users: npt.NDArray[np.bool_], max_len: int, stride: int) -> Windows:
    """Windows in which every train target of `users` takes the loss exactly once.

    A user's first window takes the loss on up to max_len targets, each later one on the next
    `stride`, with as much context before them as max_len allows. stride = 1 gives the paper's
    samples, one a target; stride = max_len is the cheapest.
    """
    return _windows(data.offsets[:-1], np.where(users, data.train_length, 0), max_len, stride)


def _windows(begin_of: Ints, n_items: Ints, max_len: int, stride: int) -> Windows:
    """The same over a stretch a user, n_items items from begin_of on; shorter than two it has no target."""
    chosen = np.flatnonzero(n_items > 1)
    total = n_items[chosen] - 1  # targets: every item but the first
    first = np.minimum(max_len, total)
    count = 1 + -(-(total - first) // stride)
    user = np.repeat(np.arange(len(chosen)), count)
    k = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    end = np.minimum(first[user] + k * stride, total[user])  # inputs 0..end-1, targets up to item end
    start = np.maximum(end - max_len, 0)
    begin = np.where(k == 0, 0, first[user] + (k - 1) * stride)  # targets already taken before
    return Windows(begin_of[chosen][user] + start, end - start, end - begin)


def contexts(data: Sequences, split: str, max_len: int) -> tuple[Windows, Ints]:
    """The last max_len items before each user's valid or test item, and that item: (n_users,)."""
    at = data.offsets[:-1] + data.train_length + {"valid": 0, "test": 1}[split]
    length = np.minimum(at - data.offsets[:-1], max_len)
    target = data.items[at].astype(np.int64)
    return Windows(at - length, length, np.ones_like(length)), target
