"""Interactions to sequences, by the protocol of LSRM (arXiv 2311.11351, section III), in bounded memory.

Filters, in this order: exact duplicates (user, item, rating and time; the first stays), `min_rating` (what
has no rating goes too), `after` and `before` (days; from the first to the day before the second), `k_core`
(users and items with fewer interactions go until none is left), users with fewer than SHORTEST.

Order and ties: a user's interactions are ordered by time; interactions of the same time keep the row order
of the source (77 % of MovieLens-1M ratings tie, so this rule is part of the data).

Split: a user with more than `withhold_above` interactions gives the last 10 to the trajectory task. Of what
remains, the last is test, the one before valid, the rest train. Every train item but the first is a target.

Ids: users are rows by first appearance in the source; items are numbered from 1 by first appearance, items
seen outside the withheld tails (the catalogue, 1..n_items) before the others.

Memory: rows are spilled to partitions by a hash of the user (`spill`), filtered and counted one partition at
a time, then sorted one range of users at a time. What is held for all of the log is a table of the kept
users and one of the items. Neither the number of partitions nor of threads changes a byte of the output.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import shutil
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow
import pyarrow.parquet

from recscale import files
from recscale.data.filters import SHORTEST, ahead, filter_rows, find_users
from recscale.data.interactions import BLOCK, REJECTED, Chunk, Log
from recscale.data.rows import NOT_OF_OUR_DAYS
from recscale.data.spill import MOST_PARTITIONS, Collision, Parts, Spill
from recscale.data.times import OUR_DAYS, tomorrow
from recscale.errors import InputError
from recscale.next_item import ranges
from recscale.next_item.ranges import Sorted, count, distribute, groups, user_ranges
from recscale.study.study import PREPARE_RECIPE

Entry = Mapping[str, Any]
Say = Callable[[str], None]
Ints = npt.NDArray[np.int64]

MOST_VALUES = 10_000  # of a column that chooses rows, that are remembered
REJECTED_KEPT = 10_000  # rows of rejected.parquet
REJECT_ABOVE = 0.01  # share of the rows
FIXED = 400 * 2**20  # bytes: libraries, and a block being parsed
SHORT_ROW = 25  # bytes of text: most logs have fewer rows than their size says by this
SHORT_ITEM = 5  # the same for histories, where only the item is written
PER_ROW = 200  # bytes that a row of a partition takes while it is filtered or sorted
FEWEST = 2**16  # rows of a partition, whatever the limit
MAX_MEMORY = 2 * 2**30
WAYS_ON = {  # what to do where this is the reason for most of the rows that are rejected
    NOT_OF_OUR_DAYS: "their unit was guessed: say time_unit: s (taken as they stand), time_unit: none (the "
    "rows of a user are in order of time) or time_format (strptime)",
    "timestamp_is_none": "say time_format (strptime), or time_unit: none where rows of a user are in order",
    "rating_is_not_a_number": "leave rating out of columns where it is no number",
    "not_utf8": "legal is UTF-8 (iconv -f LATIN1 -t UTF-8 < FILE > NEW)",
    "broken_quotes": "say quote: backslash where a quote inside of quotes stands behind one, quote: none "
    "where quotes mean nothing",
    "not_a_list_of_items": "legal is {user: [item, ...]}; objects as JSON lines, one a line",
    "too_many_fields": "say quote: double where fields that have the separator stand in quotes",
}
NO_FILTERS = ("sources", "title", "terms", "expect", "reported")  # keys of a dataset that leave nothing out
TIE_RULE = "interactions of one user and time keep the row order of the source file"


@dataclass
class Read:
    """What reading the log found: counts of the raw rows, and the first of those that are none."""

    rows: int = 0
    blank: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    not_chosen: Counter[str] = field(default_factory=Counter)
    values: dict[str, set[str]] = field(default_factory=dict)  # of the columns that choose rows
    ratings: Counter[float] = field(default_factory=Counter)
    examples: list[pl.DataFrame] = field(default_factory=list)
    timed: bool = False
    odd_times: int = 0  # before 1990, or later than tomorrow

    def add(self, chunk: Chunk, ratings: bool) -> None:
        """Count a chunk."""
        self.rows += chunk.rows
        self.blank += chunk.blank
        self.rejected.update(chunk.rejected)
        self.not_chosen.update(chunk.not_chosen)
        for column, found in chunk.values.items():
            if len(self.values.setdefault(column, set())) < MOST_VALUES:
                self.values[column] |= found
        self.odd_times += _odd_times(chunk.frame["timestamp"])
        self.timed |= chunk.frame["timestamp"].null_count() < len(chunk.frame)
        if ratings:
            self.ratings.update(dict(chunk.frame["rating"].value_counts(sort=False).iter_rows()))
        room = REJECTED_KEPT - sum(map(len, self.examples))
        if room > 0 and len(chunk.examples):
            self.examples.append(chunk.examples.head(room))

    def check(self, share: float, name: str) -> None:
        """Raise InputError where more than `share` of the rows are no interactions, showing the first."""
        n = sum(self.rejected.values())
        if n <= share * self.rows:
            return
        first = pl.concat(self.examples).head(3).iter_rows(named=True)
        shown = "; ".join(f"{e['file']}: line {e['line']}: {e['reason']}: {e['text']!r}" for e in first)
        reasons = ", ".join(f"{count:,} {why}" for why, count in self.rejected.most_common())
        way = WAYS_ON.get(self.rejected.most_common(1)[0][0])
        raise InputError(
            f"{name}: {n:,} of {self.rows:,} rows are no interactions ({reasons}), legal is a share of "
            f"{share:g} (reject_above){f'; {way}' if way else ''}; the first: {shown}"
        )


def _odd_times(times: pl.Series) -> int:
    least, most = times.min(), times.max()
    if least is None or (least >= OUR_DAYS and most <= tomorrow()):  # type: ignore[operator]
        return 0
    return int((~times.is_between(OUR_DAYS, tomorrow())).sum())


def prepare(
    log: Log, dataset: Entry, out: Path, max_memory: int = MAX_MEMORY, say: Say = lambda line: None
) -> dict[str, Any]:
    """Write sequences.parquet, items.parquet and, where rows were rejected, rejected.parquet into `out`.

    `dataset` is an entry of config/datasets.yaml. Returns the content of stats.json. Raises InputError
    where nothing is left, too much is rejected, or counts are not those of `expect`. `max_memory` (bytes)
    is what the process may take; below about 500 MB it takes that all the same. `say` hears every ten
    seconds how far it is.

    sequences: user, items list<int32>, timestamps list<int64> (seconds; null where the log is order only),
    withheld, sample_rank (the user's place in the nested random sample of users). items: id, item,
    train_count, domain.
    """
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f".spill-{socket.gethostname()}-*"):  # by a run that was killed
        if not _alive(int(left.name.split("-")[-2])):
            shutil.rmtree(left, ignore_errors=True)
    for key in ("after", "before"):
        try:
            datetime.date.fromisoformat(str(dataset.get(key, "2000-01-01")))
        except ValueError:
            raise InputError(f"{log.name}: {key}: {dataset[key]} is no day, YYYY-MM-DD") from None
    rows = max(FEWEST, (max_memory - FIXED) // PER_ROW)  # that fit
    for seed in range(0, 40, 4):
        prefix = f".spill-{socket.gethostname()}-{os.getpid()}-"
        with tempfile.TemporaryDirectory(dir=out, prefix=prefix) as folder, files.disk_full(out):
            try:
                return _prepare(log, dataset, out, Path(folder), rows, seed, paced(say))
            except Collision:
                continue
    raise AssertionError(f"{log.name}: hashes collide at ten seeds")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def paced(say: Say, seconds: float = 10) -> Say:
    """The same, but not more often than every so many seconds."""
    last = time.monotonic()

    def rarely(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            say(line)
            last = time.monotonic()

    return rarely


def _prepare(
    log: Log, dataset: Entry, out: Path, folder: Path, rows: int, seed: int, say: Say
) -> dict[str, Any]:
    expect, name = dataset.get("expect", {}), log.name
    short = SHORT_ITEM if log.short else SHORT_ROW
    partitions = min(MOST_PARTITIONS, 1 + log.bytes() // short // rows)
    spill, read = Spill(folder, partitions, seed), Read()
    for chunk in ahead(log.chunks(min(BLOCK, rows * SHORT_ROW) * short // SHORT_ROW)):
        spill.add(chunk.frame)
        read.add(chunk, "ratings" in expect)
        say(f"{name}: {read.rows:,} rows read")
    spill.finish()
    read.check(dataset.get("reject_above", REJECT_ABOVE), name)
    for line in log.choice.unmet(read.values) if log.whole else ():
        raise InputError(f"{name}: {line}")
    if not read.timed and ("after" in dataset or "before" in dataset):
        raise InputError(f"{name}: after, before: need times, and the log is order only")

    kept = Parts(folder, "kept")
    say(f"{name}: all {read.rows:,} rows are read")
    raw, taken, items = filter_rows(spill, kept, dataset, partitions)
    _check_expected(expect, read, raw, name)
    short, users = find_users(kept, folder, items, partitions, dataset.get("k_core", 0), taken)
    if not len(users):
        left_out = (
            dict(read.rejected) | dict(read.not_chosen) | taken | {f"user_with_fewer_than_{SHORTEST}": short}
        )
        raise InputError(f"{name}: no interaction is left by its filters: {left_out}")
    parts = user_ranges(users["n"].to_numpy(), rows)
    say(f"{name}: {len(users):,} users are left by the filters")
    sorted_ = distribute(kept, folder, users, parts, partitions)
    table = Sorted(users, len(items), parts, dataset.get("withhold_above", 15))
    facts = count(sorted_, folder, table)
    catalogue = table.catalogue(spill)
    del items
    (out / "stats.json").unlink(missing_ok=True)  # it says that the others are whole: written last
    with files.atomic(out / "sequences.parquet") as part:
        _write(part, sorted_, spill, table, catalogue, read.timed)
    with files.atomic(out / "items.parquet") as part:
        catalogue.select("id", "item", "train_count", "domain").write_parquet(part)
    _write_rejected(out / "rejected.parquet", read)
    filters = {key: dataset[key] for key in sorted(dataset) if key not in NO_FILTERS}
    counts = _stats(read, raw, taken, short, users, table, catalogue, facts)
    always = {"drop_duplicates": True, "withhold_above": table.withhold_above}
    return {"filters": always | filters} | counts


def _write(
    path: Path, sorted_: Parts, spill: Spill, table: Sorted, catalogue: pl.DataFrame, timed: bool
) -> None:
    """sequences.parquet: row groups of ranges.GROUP users."""
    ids = np.zeros(len(table.seen), np.int32)
    ids[catalogue["item_code"].to_numpy()] = catalogue["id"].to_numpy()
    schema = pyarrow.schema([
        ("user", pyarrow.large_string()),
        ("items", pyarrow.large_list(pyarrow.int32())),
        ("timestamps", pyarrow.large_list(pyarrow.int64())),
        ("withheld", pyarrow.int32()),
        ("sample_rank", pyarrow.int32()),
    ])  # fmt: skip
    keys = pl.Series(list(spill.keys("user", table.first)), dtype=pl.String)
    rank = sample_rank(keys)
    with pyarrow.parquet.ParquetWriter(str(path), schema, compression="zstd") as writer:
        for items, times, begin, end in groups(sorted_, table):
            n = table.n[begin:end]
            offsets = np.concatenate([[0], np.cumsum(n)])
            seconds = (
                pyarrow.array(times // 1_000_000) if timed else pyarrow.nulls(len(items), pyarrow.int64())
            )
            columns = [
                keys.slice(begin, end - begin).to_arrow(compat_level=pl.CompatLevel.oldest()),
                pyarrow.LargeListArray.from_arrays(offsets, ids[items]),
                pyarrow.LargeListArray.from_arrays(offsets, seconds),
                table.withheld[begin:end],
                rank.slice(begin, end - begin).to_numpy(),
            ]
            writer.write_table(pyarrow.table(columns, schema=schema), row_group_size=ranges.GROUP)


def sample_rank(users: pl.Series) -> pl.Series:
    """Rank of each user by a hash of its key: nested samples that no row order changes."""
    digest = [hashlib.blake2b(key.encode(), digest_size=8).digest() for key in users]
    return pl.Series(digest, dtype=pl.Binary).rank("ordinal").cast(pl.Int32) - 1


# --- what is told of it -------------------------------------------------------------------------


def _check_expected(expect: Entry, read: Read, raw: Mapping[str, int], name: str) -> None:
    """Raise InputError naming the first count of the raw log that is not what the dataset must have."""
    found: dict[str, Any] = {"rows": read.rows, **raw}
    if "ratings" in expect:
        found["ratings"] = {
            f"{r:g}": read.ratings[r] for r in sorted(r for r in read.ratings if r is not None)
        }
    for key, value in expect.items():
        wanted = {f"{float(r):g}": c for r, c in value.items()} if key == "ratings" else value
        if found[key] != wanted:
            raise InputError(f"{name}: has {key} {found[key]}, the dataset has {wanted}")


def _write_rejected(path: Path, read: Read) -> None:
    if not read.rejected:
        path.unlink(missing_ok=True)
        return
    with files.atomic(path) as part:
        pl.concat([pl.DataFrame(schema=REJECTED), *read.examples]).write_parquet(part)


def _stats(
    read: Read, raw: Mapping[str, int], taken: Mapping[str, int], short: int, users: pl.DataFrame,
    table: Sorted, catalogue: pl.DataFrame, facts: Mapping[str, int],
) -> dict[str, Any]:  # fmt: skip
    n_users, kept = len(users), int(table.n.sum())
    trajectory = int(table.withheld.sum())
    targets = kept - trajectory - n_users  # all but each user's first
    left_out = dict(sorted(read.rejected.items())) | dict(sorted(read.not_chosen.items())) | dict(taken)
    return {
        "recipe": PREPARE_RECIPE,
        "interactions": {
            "raw": read.rows,
            "left_out": left_out | {f"user_with_fewer_than_{SHORTEST}": short},
            "kept": kept,
            "rejected": sum(read.rejected.values()),
            "blank_lines": read.blank,
            **({"times_outside_1990_to_tomorrow": read.odd_times} if read.odd_times else {}),
            **facts,
        },
        "users": {"raw": raw["users"], "kept": n_users},
        "items": {"raw": raw["items"], "kept": len(catalogue)},
        "n_items": int(catalogue["seen"].sum()),
        "n_items_with_withheld_tails": len(catalogue),
        "n_items_in_several_domains": table.in_several_domains(),
        "targets": {
            "all": targets,
            "train": targets - 2 * n_users,
            "valid": n_users,
            "test": n_users,
        },
        "trajectory_items": trajectory,
        "order_only": not read.timed,
        "tie_rule": TIE_RULE if read.timed else "the order of the source file: it has no times",
    }
