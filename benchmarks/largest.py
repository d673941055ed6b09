"""Train LSRM's largest model, 48 x 1200 with 24 heads, for a few real steps on a 24 GB machine.

    python benchmarks/largest.py results/data/ml-1m /tmp/largest

Takes the first users of a prepared dataset as a dataset of their own (so that the evaluation is small
too), trains one epoch in steps of four windows, and prints losses, seconds and the peak memory.
829,440,000 parameters in the blocks; weights, gradients and Adam's state are 13.4 GB.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import polars

from recscale.next_item.problem import NextItem
from recscale.study.run import Run
from recscale.train import loop
from recscale.train.train import train

USERS, WINDOWS = 12, 4


def main() -> None:
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    threads = int(sys.argv[3]) if len(sys.argv) > 3 else 2
    part = out / "data"
    part.mkdir(parents=True, exist_ok=True)
    users = polars.read_parquet(data / "sequences.parquet").head(USERS)
    users = users.with_columns(sample_rank=polars.int_range(USERS))  # all of them are in the sample
    users.write_parquet(part / "sequences.parquet")
    (part / "stats.json").write_text((data / "stats.json").read_text())
    run = Run.of(
        "ml-1m", n_layers=48, d_model=1200, learning_rate=2e-4, n_heads=24, batch_size=WINDOWS,
        dropout=0.0, warmup=0.5,
    )  # fmt: skip
    loop.LOG_EVERY = 1
    begun = time.perf_counter()
    train(run, NextItem.load(run, part), out / "run", threads, lambda line: print(line, flush=True))
    for line in (out / "run" / "log.jsonl").read_text().splitlines():
        row = json.loads(line)
        print(f"step {row['step']}: mean train loss so far {row['train_loss']:.3f}")
    point = json.loads((out / "run" / "metrics.json").read_text())
    print(
        f"N {point['N']:,}, {point['precision']}, {time.perf_counter() - begun:.0f} s in all, "
        f"{point['seconds']:.0f} s training and evaluation, peak {point['peak_memory_bytes'] / 1e9:.1f} GB"
    )


if __name__ == "__main__":
    main()
