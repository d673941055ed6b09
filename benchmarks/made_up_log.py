"""A made-up log in the shape of Amazon Review Data 2018: CSV files `item,user,rating,time` with CRLF ends.

    python benchmarks/made_up_log.py FOLDER ROWS [FILES]

Keys are as long as Amazon's (users 14 characters, items 10), users and items are drawn by shifted Zipf laws
from as many as Amazon's 224 million rows have, in proportion to the rows; every file has items of its own,
users are shared by all files. One row in a hundred is the exact copy of an earlier one. Times are days. Two
calls write the same bytes. Also writes datasets.yaml, an entry `made-up` with the files in their order.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

USERS, ITEMS = 43_530_000 / 223_798_558, 15_170_000 / 223_798_558  # distinct ones a row, as Amazon 2018 has
CHUNK = 4_000_000  # rows
ROW = np.dtype([
    ("item", "S10"), ("c1", "S1"), ("user", "S14"), ("c2", "S1"), ("rating", "S3"), ("c3", "S1"),
    ("time", "S10"), ("end", "S2"),
])  # fmt: skip
DIGITS = np.frombuffer(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", np.uint8)


def keys(count: int, prefix: bytes, width: int) -> npt.NDArray[np.bytes_]:
    """`count` distinct keys of `width` characters: the prefix, then a number scrambled and in base 36."""
    digits = width - len(prefix)
    left = (np.arange(count, dtype=np.uint64) * np.uint64(2_654_435_761)) % np.uint64(36 ** min(digits, 12))
    out = np.empty((count, width), np.uint8)
    out[:] = DIGITS[0]
    out[:, : len(prefix)] = np.frombuffer(prefix, np.uint8)
    for place in range(min(digits, 12)):
        left, digit = np.divmod(left, np.uint64(36))
        out[:, width - 1 - place] = DIGITS[digit]
    return out.view(f"S{width}")[:, 0]


def drawn(rng: np.random.Generator, n: int, kinds: int, shift: float, slope: float) -> npt.NDArray[np.int64]:
    """n ranks from 0 with p(rank) ~ (rank + shift) ** -slope, by the inverse of its integral."""
    low, high = shift ** (1 - slope), (kinds + shift) ** (1 - slope)
    rank = (low + rng.random(n) * (high - low)) ** (1 / (1 - slope)) - shift
    return rank.astype(np.int64).clip(0, kinds - 1)


def who(rng: np.random.Generator, n: int, users: int) -> npt.NDArray[np.int64]:
    """Two rows in three by anybody, the others by a Zipf law: about a tenth is in the 30-core, as there."""
    of_few = rng.random(n) < 0.35
    anybody = rng.integers(0, users, n)
    return np.where(of_few, drawn(rng, n, users, users / 400, 1.4), anybody)


def write(folder: Path, rows: int, files: int) -> None:
    """The files and datasets.yaml."""
    rng = np.random.default_rng(0)
    users = keys(int(rows * USERS), b"A", 14)
    items = keys(int(rows * ITEMS), b"B0", 10)
    ratings = np.array([b"1.0", b"2.0", b"3.0", b"4.0", b"5.0"])
    days = np.array([b"%d" % (86_400 * day) for day in range(11_600, 17_800)])
    folder.mkdir(parents=True, exist_ok=True)
    share = 1 / np.arange(1, files + 1) ** 0.8
    of_file = np.floor(rows * share / share.sum()).astype(int)
    of_file[0] += rows - of_file.sum()
    bounds = np.floor(len(items) * np.cumsum(np.append(0, share)) / share.sum()).astype(int)
    entries = []
    for number in range(files):
        name = f"made_up_{number:02}.csv"
        with (folder / name).open("wb") as file:
            for begin in range(0, of_file[number], CHUNK):
                n = min(CHUNK, of_file[number] - begin)
                chunk = np.empty(n, ROW)
                chunk["c1"] = chunk["c2"] = chunk["c3"] = b","
                chunk["end"] = b"\r\n"
                mine = items[bounds[number] : bounds[number + 1]]
                chunk["item"] = mine[drawn(rng, n, len(mine), 10, 1.25)]
                chunk["user"] = users[who(rng, n, len(users))]
                chunk["rating"] = ratings[rng.choice(5, n, p=[0.08, 0.05, 0.08, 0.17, 0.62])]
                chunk["time"] = days[len(days) - 1 - (rng.random(n) ** 2 * len(days)).astype(int)]
                again = rng.integers(0, n, n // 100)
                chunk[again] = chunk[(again * 7 + 1) % n]
                chunk.tofile(file)
        path = (folder / name).resolve()
        entries.append(f"        - {{file: {path}, domain: domain {number}, rows: {of_file[number]}}}")
    (folder / "datasets.yaml").write_text(
        "made-up:\n  k_core: 30\n  withhold_above: 20\n  sources:\n    - name: made up\n"
        "      format: {columns: [item, user, rating, timestamp]}\n      files:\n" + "\n".join(entries) + "\n"
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 29)
