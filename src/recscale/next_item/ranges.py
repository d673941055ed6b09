"""Interactions of a range of users at a time: spread to ranges, sorted, counted, and given back in groups.

What is held of all users is their lengths, and of all items what is counted of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from recscale.data.filters import Union
from recscale.data.spill import MOST_PARTITIONS, Collision, Parts, Spill
from recscale.study.study import WITHHELD

Ints = npt.NDArray[np.int64]

GROUP = 2**14  # users of a row group of sequences.parquet


def user_ranges(n: Ints, rows: int) -> Ints:
    """First users of the ranges, and the number of users: whole row groups, of about `rows` rows."""
    groups = np.arange(0, len(n), GROUP)
    ends = np.cumsum(np.add.reduceat(n.astype(np.int64), groups))
    rows = max(rows, ends[-1] // MOST_PARTITIONS + 1)
    number = (ends - 1) // rows  # groups of one number are a range
    return np.append(groups[np.flatnonzero(np.diff(number, prepend=-1))], len(n))


def distribute(kept: Parts, folder: Path, users: pl.DataFrame, ranges: Ints, partitions: int) -> Parts:
    """The rows of kept users, by the range of the user: `code` is the user's place in `users`."""
    sorted_ = Parts(folder, "range")
    codes = users.select("user").with_row_index("code")
    for number in range(partitions):
        rows = kept.read(number)
        assert rows is not None
        kept.remove(number)
        rows = rows.join(codes, on="user", maintain_order="left").drop("user")
        at = np.searchsorted(ranges, rows["code"].to_numpy(), side="right") - 1
        if len(rows):
            sorted_.split(rows, pl.Series(at))
    sorted_.finish()
    return sorted_


class Sorted:
    """The users' lengths and what is counted of every item while the ranges are sorted."""

    def __init__(self, users: pl.DataFrame, n_items: int, ranges: Ints, withhold_above: int) -> None:
        self.n, self.first = users["n"].to_numpy().astype(np.int64), users["first"].to_numpy()
        self.withheld = np.where(self.n > withhold_above, WITHHELD, 0).astype(np.int32)
        self.ranges, self.withhold_above = ranges, withhold_above
        self.item_first = np.full(n_items, np.iinfo(np.int64).max)
        self.item_domain = np.zeros(n_items, np.uint16)
        self.item_check = np.zeros(n_items, np.uint32)
        self.seen = np.zeros(n_items, bool)
        self.train_count = np.zeros(n_items, np.int64)
        self.domains = Union()

    def take(self, rows: pl.DataFrame, begin: int, end: int) -> None:
        """Count the items of the users begin to end, whose rows are sorted."""
        n, code = self.n[begin:end], rows["item_code"].to_numpy()
        place = np.arange(len(rows)) - np.repeat(np.cumsum(n) - n, n)
        left = np.repeat(n - self.withheld[begin:end], n) - place  # up to the withheld tail
        self.seen[code[left > 0]] = True
        self.train_count += np.bincount(code[left > 2], minlength=len(self.seen))
        row, domain = rows["row"].to_numpy(), rows["domain"].to_numpy()
        order = np.argsort(row)  # the first of each item is the earliest row
        kinds, at = np.unique(code[order], return_index=True)
        at = order[at]
        earlier = row[at] < self.item_first[kinds]
        check = rows["item_check"].to_numpy()
        known = self.item_first[kinds] < np.iinfo(np.int64).max
        if (known & (self.item_check[kinds] != check[at])).any():
            raise Collision
        self.item_check[kinds] = check[at]
        if (self.item_check[code] != check).any():
            raise Collision
        self.item_first[kinds[earlier]] = row[at[earlier]]
        self.item_domain[kinds[earlier]] = domain[at[earlier]]
        self.domains.add(pl.Series(code.astype(np.uint64) * np.uint64(2**16) + domain).unique())

    def catalogue(self, spill: Spill) -> pl.DataFrame:
        """Every item that is left: id, item_code, item (its key), seen, train_count, domain."""
        code = np.flatnonzero(self.item_first < np.iinfo(np.int64).max)
        code = code[np.argsort(self.item_first[code])]
        keys = list(spill.keys("item", self.item_first[code]))
        names = pl.Series(spill.domains, dtype=pl.String)
        items = pl.DataFrame({
            "item_code": code, "item": keys, "seen": self.seen[code], "train_count": self.train_count[code],
            "domain": names.gather(self.item_domain[code]),
        })  # fmt: skip
        return (
            items.sort(~pl.col("seen"), maintain_order=True)
            .with_row_index("id", offset=1)
            .with_columns(pl.col("id").cast(pl.Int32))
        )

    def in_several_domains(self) -> int:
        """Items that stand in files of more than one domain."""
        items = self.domains.value() // 2**16
        return int((items.value_counts()["count"] > 1).sum())


def count(sorted_: Parts, folder: Path, table: Sorted) -> dict[str, int]:
    """Sort every range by user, time and row, and count what only whole histories tell."""
    facts = Counter[str](tied_in_user_and_second=0, repeated_user_item_pairs=0)
    for number, (begin, end) in enumerate(zip(table.ranges[:-1], table.ranges[1:], strict=True)):
        rows = sorted_.read(number)
        assert rows is not None
        sorted_.remove(number)
        rows = rows.sort("code", "timestamp", maintain_order=True)
        user, check = rows["code"].to_numpy(), rows["user_check"].to_numpy()
        same = np.diff(user) == 0
        if (same & (np.diff(check) != 0)).any():
            raise Collision
        table.take(rows, int(begin), int(end))
        second = rows["timestamp"].fill_null(0).to_numpy() // 1_000_000
        tied = same & (np.diff(second) == 0) & rows["timestamp"].is_not_null().to_numpy()[1:]
        facts["tied_in_user_and_second"] += int((np.append(tied, False) | np.append(False, tied)).sum())
        pairs = user.astype(np.uint64) << 32 | rows["item_code"].to_numpy()
        facts["repeated_user_item_pairs"] += len(rows) - pl.Series(pairs).n_unique()
        sorted_.append(number, rows.select("item_code", "timestamp"))
    sorted_.finish()
    return dict(facts)


def groups(sorted_: Parts, table: Sorted) -> Iterator[tuple[npt.NDArray[Any], Ints, int, int]]:
    """Item codes, microseconds, first user and end of every group of users."""
    for number, (begin, end) in enumerate(zip(table.ranges[:-1], table.ranges[1:], strict=True)):
        rows = sorted_.read(number)
        assert rows is not None
        offsets = np.concatenate([[0], np.cumsum(table.n[begin:end])])
        items, times = rows["item_code"].to_numpy(), rows["timestamp"].fill_null(0).to_numpy()
        for first in range(int(begin), int(end), GROUP):
            last = min(first + GROUP, int(end))
            part = slice(offsets[first - begin], offsets[last - begin])
            yield items[part], times[part], first, last
        sorted_.remove(number)
