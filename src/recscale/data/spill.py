"""A log on disk in partitions, so that any length of it fits in memory.

Rows are split by a hash of the user: all of a user's rows are in one partition, in row order. Keys are 64-bit
hashes there; the text itself stands beside it, in row order, and is looked up for what is kept in the end.
Two keys of one hash would become one user or item: each row has a second, independent hash of both keys,
and prepare refuses a partitioning in which they do not agree (`Collision`) and takes another seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow

from recscale.errors import InputError

MOST_PARTITIONS = 200  # each is an open file while it is written, and many systems allow 1024
MOST_DOMAINS = 2**16
ROW = {
    "user": pl.UInt64,
    "item": pl.UInt64,
    "user_check": pl.UInt32,
    "item_check": pl.UInt32,
    "rating": pl.Float64,
    "timestamp": pl.Int64,
    "domain": pl.UInt16,  # place in Spill.domains
    "row": pl.Int64,
}


class Collision(Exception):
    """Two keys have the same 64-bit hash; another seed parts them."""


class Parts:
    """Tables appended to numbered files, each read again as one."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._writers: dict[int, Any] = {}

    def append(self, number: int, frame: pl.DataFrame) -> None:
        """Add rows to file `number`."""
        if number not in self._writers:
            schema = frame.head(0).to_arrow(compat_level=pl.CompatLevel.newest()).schema
            self._writers[number] = pyarrow.ipc.new_stream(str(self._path(number)), schema)
        self._writers[number].write_table(frame.to_arrow(compat_level=pl.CompatLevel.newest()))

    def split(self, frame: pl.DataFrame, number: pl.Series) -> None:
        """Add each row to the file that `number` (below 2^16) says; order within a file is kept."""
        order = np.argsort(number.to_numpy().astype(np.uint16), kind="stable")  # 16 bits: sorts by counting
        sorted_ = frame[order]
        counts = np.bincount(number.to_numpy())
        begin = 0
        for k in np.flatnonzero(counts):
            self.append(int(k), sorted_.slice(begin, counts[k]))
            begin += counts[k]

    def finish(self) -> None:
        """Close all files; before they are read."""
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def read(self, number: int) -> pl.DataFrame | None:
        """File `number`, or None where nothing was added to it."""
        path = self._path(number)
        if not path.exists():
            return None
        with pyarrow.memory_map(str(path)) as file, pyarrow.ipc.open_stream(file) as stream:
            frame: pl.DataFrame = pl.DataFrame(stream.read_all())
        return frame

    def remove(self, number: int) -> None:
        """Give its space back."""
        self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{self.name}-{number}.arrow"


class Spill:
    """Interactions as they come (`add`), then partition by partition; and the keys of any rows."""

    def __init__(self, folder: Path, partitions: int, seed: int) -> None:
        self.partitions, self.seed = partitions, seed
        self._code: dict[str | None, int] = {}  # of each domain
        self.rows = 0
        self._parts = Parts(folder, "rows")
        self._keys = Parts(folder, "keys")
        self._begin: list[int] = []  # row at which each file of keys begins

    def add(self, frame: pl.DataFrame) -> None:
        """Rows of interactions.COLUMNS; they follow those added before."""
        if not len(frame):
            return
        domains = frame["domain"].unique(maintain_order=True)
        codes = [self._code.setdefault(name, len(self._code)) for name in domains]
        if len(self._code) > MOST_DOMAINS:
            raise InputError(f"the column of domains has more than {MOST_DOMAINS:,} values: is it one?")
        rows = frame.select(
            _hash("user", self.seed).alias("user"),
            _hash("item", self.seed + 1).alias("item"),
            _hash("user", self.seed + 2).cast(pl.UInt32, wrap_numerical=True).alias("user_check"),
            _hash("item", self.seed + 3).cast(pl.UInt32, wrap_numerical=True).alias("item_check"),
            "rating",
            "timestamp",
            pl.col("domain").replace_strict(domains, codes, return_dtype=pl.UInt16),
            pl.int_range(self.rows, self.rows + pl.len(), dtype=pl.Int64).alias("row"),
        )
        self._parts.split(rows, rows["user"] % self.partitions)
        self._keys.append(len(self._begin), frame.select("user", "item"))
        self._keys.finish()
        self._begin.append(self.rows)
        self.rows += len(frame)

    @property
    def domains(self) -> list[str | None]:
        """By their codes."""
        return list(self._code)

    def finish(self) -> None:
        """After the last `add`."""
        self._parts.finish()

    def partition_rows(self, number: int) -> pl.DataFrame:
        """The rows (ROW) of one partition, in row order; they are gone from the disk then."""
        frame = self._parts.read(number)
        self._parts.remove(number)
        return pl.DataFrame(schema=ROW) if frame is None else frame

    def keys(self, column: str, rows: npt.NDArray[np.int64]) -> Iterator[str]:
        """The user's or item's text of each of these rows, which are in rising order."""
        bounds = np.searchsorted(rows, [*self._begin, self.rows])
        for number, (low, high) in enumerate(pairwise(bounds)):
            if low < high:
                frame = self._keys.read(number)
                assert frame is not None
                yield from frame[column].gather(rows[low:high] - self._begin[number])


def _hash(column: str, seed: int) -> pl.Expr:
    return pl.col(column).hash(seed)
