"""What the peer scripts share: made-up and real sequences, the clock, NDCG@10, the result lines.

Needs numpy, pyarrow and torch only, so that it runs in every peer's environment. recscale itself is
not installed there.
"""

from __future__ import annotations

import contextlib
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

WARM_UP = 3  # steps not measured
LEAST = 5  # measured steps, however slow
Settings = dict[str, Any]
Rows = list[np.ndarray]  # one user's items each: train items, then one valid, one test; ids from 1

sys.stdout = sys.stderr  # libraries print; only result lines go to the real stdout


class Stop(Exception):
    """Raised out of a library's training loop; the message says why."""


def say(row: dict[str, Any]) -> None:
    print(json.dumps(row), file=sys.__stdout__, flush=True)


def arguments() -> tuple[str, Settings]:
    """Mode and settings of the command line; sets seed and threads."""
    mode, text = sys.argv[1:]
    settings = json.loads(text)
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    return mode, settings


def made_up(settings: Settings, users: int) -> Rows:
    """Random sequences of max_len + 1 train items, a valid and a test item; every item occurs."""
    length = settings["max_len"] + 3
    users = max(users, -(-settings["n_items"] // length))
    items = np.arange(users * length) % settings["n_items"] + 1
    return list(np.random.default_rng(settings["seed"]).permutation(items).reshape(users, length))


def real(folder: Path) -> tuple[Rows, int]:
    """Sequences of a dataset that recscale prepared, without withheld tails, and its n_items."""
    table = pyarrow.parquet.read_table(folder / "sequences.parquet", columns=["items", "withheld"])
    rows = [
        row.values.to_numpy()[: len(row.values) - withheld.as_py()]
        for row, withheld in zip(table["items"], table["withheld"], strict=True)
    ]
    return rows, json.loads((folder / "stats.json").read_text())["n_items"]


class Rate:
    """Wall clock between consecutive optimizer steps, of whatever optimizer the library uses."""

    def __init__(self, seconds: float) -> None:
        self.limit = seconds
        self.at: list[float] = []

    def _step(self, *_: object) -> None:
        self.at.append(time.perf_counter())
        measured = len(self.at) - 1 - WARM_UP
        if measured >= LEAST and self.at[-1] - self.at[WARM_UP] >= self.limit:
            raise Stop("seconds")

    def run(self, train: Callable[[], object], targets: int) -> dict[str, Any]:
        """Measure steps of `targets` targets each until the time is up."""
        hook = register_optimizer_step_post_hook(self._step)
        with contextlib.suppress(Stop):
            train()
        hook.remove()
        steps = np.diff(self.at[WARM_UP:])
        median = statistics.median(steps)
        return {
            "precision": "float32",
            "targets_per_second": targets / median,
            "median_step_seconds": median,
            "steps": len(steps),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }


class Quality:
    """A line an epoch, and when to stop. Seconds are those of training, evaluation taken out."""

    def __init__(self, settings: Settings, ndcg: Callable[[], float]) -> None:
        self.patience, self.limit = settings["patience"], settings["max_seconds"]
        self.ndcg = ndcg
        self.begun = self.paused = 0.0
        self.lines: list[dict[str, Any]] = []

    def start(self) -> None:
        """Call when the first epoch starts: preparing the data is not training."""
        self.begun = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begun - self.paused

    def _step(self, *_: object) -> None:
        if self.seconds >= self.limit:
            raise Stop("max_seconds")

    def epoch(self, loss: float | None, partial: bool = False) -> None:
        """Call after each epoch; evaluates, prints a line, raises Stop when patience is over.

        An epoch that max_seconds cut short has a line too, with "partial": true.
        """
        seconds, begun = self.seconds, time.perf_counter()
        line = {"epoch": len(self.lines) + 1, "seconds": seconds, "ndcg10": self.ndcg(), "loss": loss}
        say(line | ({"partial": True} if partial else {}))
        self.lines.append(line)
        self.paused += time.perf_counter() - begun
        if not partial and line["epoch"] - self.best["epoch"] >= self.patience:
            raise Stop("patience")

    @property
    def best(self) -> dict[str, Any]:
        return max(self.lines, key=lambda line: line["ndcg10"])  # the first of equals

    def run(self, train: Callable[[], object]) -> dict[str, Any]:
        hook = register_optimizer_step_post_hook(self._step)
        stopped = "max_epochs"
        try:
            train()
        except Stop as stop:
            stopped = str(stop)
        hook.remove()
        if stopped == "max_seconds":
            self.epoch(None, partial=True)
        best = self.best
        return {
            "best_ndcg10": best["ndcg10"],
            "best_epoch": best["epoch"],
            "seconds_to_best": best["seconds"],
            "stopped": stopped,
        }


def ndcg10_sum(scores: torch.Tensor, target: torch.Tensor) -> float:
    """Sum of NDCG@10 over rows: scores (b, n_items) in order of item id, target columns (b,).

    The definition of recscale.next_item.evaluate.metrics: all items are ranked, seen ones too; equal scores
    rank by item id; a score that is not a number comes last.
    """
    n_items = scores.shape[1]
    picked = scores.gather(1, target[:, None])
    after = torch.arange(n_items) > target[:, None]
    rank = n_items - ((scores < picked) | ((scores == picked) & after)).sum(1).double()
    return (1 / torch.log2(rank[rank <= 10] + 1)).sum().item()
