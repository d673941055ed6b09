"""Time `recscale card` on 20 million made-up interactions: the size of MovieLens-20M, not its content.

    python benchmarks/card.py [users] [items] [interactions] [domains]

Defaults: 138,000 users, 27,000 items, 20,000,000 interactions, no domains (0). Lengths are log-normal,
items are drawn by Zipf's law with slope 1, users have repeats and ties. Prints seconds (of the whole
command, Python's start included), peak memory, cores and the card's line.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet


def make_up(folder: Path, users: int, items: int, interactions: int, domains: int) -> None:
    """A made-up prepared folder: sequences.parquet, items.parquet, stats.json."""
    rng = np.random.default_rng(0)
    share = rng.lognormal(sigma=1.1, size=users)
    length = 3 + rng.multinomial(interactions - 3 * users, share / share.sum())
    offsets = np.concatenate([[0], np.cumsum(length)])
    p = 1 / np.arange(1, items + 1)
    drawn = np.searchsorted(np.cumsum(p / p.sum()), rng.random(interactions)).clip(max=items - 1)
    ids = rng.permutation(items).astype(np.int32)[drawn] + 1
    gap = np.where(rng.random(interactions) < 0.5, 0, rng.lognormal(4, 3, interactions)).clip(max=3e7)
    spent = np.cumsum(gap.astype(np.int64))
    first = rng.integers(800_000_000, 1_400_000_000, users) - spent[offsets[:-1]]
    seconds = spent + np.repeat(first, length)
    columns = {
        name: pyarrow.LargeListArray.from_arrays(offsets, values)
        for name, values in (("items", ids), ("timestamps", np.minimum(seconds, 5_000_000_000)))
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "sequences.parquet", compression="zstd")
    names = [f"domain {k % domains}" if domains else None for k in range(items)]
    table = {"id": np.arange(1, items + 1, dtype=np.int32), "domain": pyarrow.array(names, pyarrow.string())}
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "items.parquet")
    stats = {"dataset": "made up", "n_items": items}
    (folder / "stats.json").write_text(json.dumps(stats))


def main() -> None:
    asked = [int(text) for text in sys.argv[1:]]
    users, items, interactions, domains = asked + [138_000, 27_000, 20_000_000, 0][len(asked) :]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_up(folder, users, items, interactions, domains)
        command = [sys.executable, "-m", "recscale", "card", "--data", name, "--out", name]
        begun = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        cores = len(os.sched_getaffinity(0))
        print(f"{interactions:,} made-up interactions: {seconds:.1f} s, {peak:.1f} GiB, {cores} cores")


if __name__ == "__main__":
    main()
