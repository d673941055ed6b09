"""What of a log is kept: filters of single rows and the k-core, one partition of its users at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from recscale.data.spill import Parts, Spill

Entry = Mapping[str, Any]
Thing = TypeVar("Thing")
Codes = npt.NDArray[np.uint32]
Places = npt.NDArray[np.uint32]

SHORTEST = 3  # one item to condition on, one valid, one test


def ahead(things: Iterable[Thing]) -> Iterator[Thing]:
    """The same things; the next one is made in a second thread while one is used."""
    with ThreadPoolExecutor(1) as pool:
        left = iter(things)
        waiting = pool.submit(next, left, None)
        while (thing := waiting.result()) is not None:
            waiting = pool.submit(next, left, None)
            yield thing


class Union:
    """A set of hashes, merged when the parts are as many as what is merged."""

    def __init__(self) -> None:
        self.merged = pl.Series(dtype=pl.UInt64)
        self.parts: list[pl.Series] = []

    def add(self, part: pl.Series) -> None:
        self.parts.append(part)
        if sum(map(len, self.parts)) > len(self.merged):
            self.value()

    def value(self) -> pl.Series:
        if self.parts:
            self.merged = pl.concat([self.merged, *self.parts]).unique()
            self.parts = []
        return self.merged


def filter_rows(
    spill: Spill, kept: Parts, dataset: Entry, partitions: int
) -> tuple[dict[str, int], dict[str, int], pl.Series]:
    """Filters of single rows, and users below the k-core: raw users and items, rows taken, items left."""
    k = dataset.get("k_core", 0)
    n_users, taken = 0, Counter[str]()
    raw_items, items = Union(), Union()
    for number, rows in enumerate(ahead(_once(spill, dataset, partitions, taken))):
        heavy, n = _with_enough(rows["user"], k)
        n_users += n
        raw_items.add(rows["item"].unique())
        left = keep(rows, dataset, taken)
        if k and len(left) < len(rows):
            heavy, _ = _with_enough(left["user"], k)
        if k:
            left = _note(left, taken, f"outside_{k}_core", left.filter(pl.col("user").is_in(heavy.implode())))
        rows = left
        items.add(rows["item"].unique())
        kept.append(number, rows.drop("rating"))
    kept.finish()
    return {"users": n_users, "items": len(raw_items.value())}, dict(taken), items.value()


def _once(spill: Spill, dataset: Entry, partitions: int, taken: Counter[str]) -> Iterator[pl.DataFrame]:
    """The rows of each partition without exact duplicates: the first stays, no user and no item is lost.

    Rows without a time are none: in a log that is order only, an item that comes again was met again.
    """
    for number in range(partitions):
        rows = spill.partition_rows(number)
        if dataset.get("drop_duplicates", True):
            timed = rows["timestamp"].null_count() == 0
            rows = _note(rows, taken, "exact_duplicates", _distinct(rows) if timed else rows)
        yield rows


def _with_enough(users: pl.Series, k: int) -> tuple[pl.Series, int]:
    """Users with k rows or more, and the number of users."""
    ordered = np.sort(users.to_numpy())
    begins = np.flatnonzero(np.diff(ordered, prepend=~ordered[:1]))
    n = np.diff(begins, append=len(ordered))
    return pl.Series(ordered[begins[n >= k]]), len(begins)


def _note(before: pl.DataFrame, taken: Counter[str], name: str, after: pl.DataFrame) -> pl.DataFrame:
    taken[name] += len(before) - len(after)
    return after


def keep(rows: pl.DataFrame, dataset: Entry, taken: Counter[str]) -> pl.DataFrame:
    """What the filters of ratings and days leave, in row order; `taken` counts what they take."""
    if "min_rating" in dataset:
        least = dataset["min_rating"]
        rows = _note(rows, taken, "rating_below_minimum", rows.filter(pl.col("rating") >= least))
    for key, name in (("after", "before_first_day"), ("before", "after_last_day")):
        if key in dataset:
            day = pl.lit(str(dataset[key])).str.to_date().dt.epoch("us")
            rows = _note(rows, taken, name, rows.filter((pl.col("timestamp") >= day) == (key == "after")))
    return rows


def _distinct(rows: pl.DataFrame) -> pl.DataFrame:
    """The first of the rows that are the same in user, item, rating and time.

    A sum of hashes is sorted to find the few rows that may be; only those are compared.
    """
    columns = ["user", "item", "rating", "timestamp"]
    mixed = rows.select(sum=pl.sum_horizontal(pl.col(c).hash(k) for k, c in enumerate(columns)))["sum"]
    ordered = np.sort(mixed.to_numpy())
    twice = pl.Series(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(twice):
        return rows
    again = mixed.is_in(twice.implode()).arg_true()
    first = rows[again].with_columns(at=again).unique(columns, keep="first", maintain_order=True)["at"]
    stays = np.ones(len(rows), bool)
    stays[again.to_numpy()] = False
    stays[first.to_numpy()] = True
    return rows.filter(pl.Series(stays))


def find_users(
    kept: Parts, folder: Path, items: pl.Series, partitions: int, k: int, taken: dict[str, int]
) -> tuple[int, pl.DataFrame]:
    """Take the k-core, give items their codes, and find the users.

    Rows get `item_code`, a place in `items`. Returns the rows of users that are too short, and the other
    users by first appearance: user (hash), n, first (row).
    """
    codes = pl.DataFrame({"item": items}).with_row_index("item_code")
    for number in range(partitions):
        rows = kept.read(number)
        assert rows is not None
        rows = rows.join(codes, on="item", maintain_order="left").drop("item")
        kept.remove(number)
        kept.append(number, rows)
        if k:
            users = rows["user"].rank("dense").cast(pl.UInt32).to_numpy() - np.uint32(1)
            places = np.arange(len(rows), dtype=np.uint32)
            save_pairs(folder, number, users, rows["item_code"].to_numpy(), places)
    kept.finish()
    if k:
        k_core(folder, partitions, len(items), k)
    short, found = 0, []
    for number in range(partitions):
        rows = kept.read(number)
        assert rows is not None
        if k:
            before = len(rows)
            rows = rows[load_pairs(folder, number)[2]]
            taken[f"outside_{k}_core"] += before - len(rows)
        users_ = rows.group_by("user").agg(pl.len().alias("n"), pl.col("row").min().alias("first"))
        short += int(users_.filter(pl.col("n") < SHORTEST)["n"].sum())
        found.append(users_.filter(pl.col("n") >= SHORTEST))
        kept.remove(number)
        kept.append(number, rows)
    kept.finish()
    return short, pl.concat(found).sort("first")


# --- the k-core: the largest part in which every user and every item has k interactions or more ---


def save_pairs(folder: Path, number: int, users: Codes, items: Codes, places: Places) -> None:
    """One partition: a user, an item and the place of the row where they stand, for each row."""
    with (folder / f"pairs-{number}").open("wb") as file:
        for array in (users, items, places):
            np.save(file, array)


def load_pairs(folder: Path, number: int) -> tuple[Codes, Codes, Places]:
    """What was saved last."""
    with (folder / f"pairs-{number}").open("rb") as file:
        users, items, places = (np.load(file) for _ in range(3))
    return users, items, places


def k_core(folder: Path, partitions: int, n_items: int, k: int) -> None:
    """Leave of every saved partition only the rows that are in the k-core.

    Users and items are codes from 0; users are numbered within their partition and no user is in two.
    Each round takes away what has too few, until a round takes nothing. Rounds see partition after
    partition, and the order does not matter: the k-core is unique.
    """
    counts = np.zeros(n_items, np.int64)
    for number in range(partitions):
        counts += np.bincount(load_pairs(folder, number)[1], minlength=n_items)
    done = False
    while not done:
        enough, counts, done = counts >= k, np.zeros(n_items, np.int64), True
        for number in range(partitions):
            users, items, places = load_pairs(folder, number)
            kept = np.flatnonzero(enough[items])
            of_user = np.bincount(users[kept])
            kept = kept[of_user[users[kept]] >= k] if len(kept) else kept
            if len(kept) < len(users):
                done = False
                users, items, places = users[kept], items[kept], places[kept]
                save_pairs(folder, number, users, items, places)
            counts += np.bincount(items, minlength=n_items)
