"""One measurement of recscale itself, in a process of its own: what `recscale bench` starts.

`python -m recscale.bench.measure MODE SETTINGS` with the modes and settings of benchmarks/README.md; result
lines are JSON. Made-up data, but for `quality`.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recscale import __version__
from recscale.next_item import sequences
from recscale.next_item.problem import NextItem
from recscale.study.run import Run, training_flops
from recscale.train import machine
from recscale.train.loop import Trainer
from recscale.train.processes import ALONE

WARM_UP, LEAST = 3, 5  # steps not measured, and steps measured however slow
# n, k, m of the products tried for the machine's rate: those of large layers, and square ones.
SHAPES = ((3200, 512, 2048), (3200, 2048, 512), (3200, 256, 1024), (2048, 2048, 2048), (4096, 1024, 4096))
Settings = Mapping[str, Any]


def matrix_rate(settings: Settings) -> dict[str, Any]:
    """FLOP/s of matrix products in bfloat16 and float32, each the best of SHAPES."""
    torch.set_num_threads(settings["threads"])
    result: dict[str, Any] = {}
    for name, dtype in machine.PRECISION.items():
        best = 0.0
        for n, k, m in SHAPES:
            a, b, out = (
                torch.randn(n, k).to(dtype),
                torch.randn(k, m).to(dtype),
                torch.empty(n, m, dtype=dtype),
            )
            torch.mm(a, b, out=out)
            begun = time.perf_counter()
            times: list[float] = []
            while len(times) < 3 or time.perf_counter() - begun < 0.5:
                before = time.perf_counter()
                torch.mm(a, b, out=out)
                times.append(time.perf_counter() - before)
            best = max(best, 2 * n * k * m / statistics.median(times))
        result[name] = best
    return result


def made_up(settings: Settings, users: int) -> sequences.Sequences:
    """Users of max_len + 1 random train items, a valid and a test item: every window is full."""
    length = settings["max_len"] + 3
    items = np.random.default_rng(settings["seed"]).integers(1, settings["n_items"] + 1, users * length)
    zeros = np.zeros(users, np.int64)
    offsets = np.arange(users + 1, dtype=np.int64) * length
    return sequences.Sequences(items.astype(np.int32), offsets, zeros, zeros, settings["n_items"], "made up")


def trainer(settings: Settings, data: sequences.Sequences, out: Path, **more: Any) -> Trainer:
    """A trainer of the size in `settings`."""
    size = {key: settings[key] for key in ("n_layers", "d_model", "n_heads", "max_len", "seed")}
    run = Run.of(
        **{"dataset": "made-up", "learning_rate": 1e-3, "batch_size": settings["batch"]} | size | more
    )
    by_hand = {key: settings[key] for key in machine.LEGAL if settings.get(key) not in (None, "")}
    how = machine.choose(by_hand, settings["threads"])
    machine.apply(how)
    return Trainer(run, NextItem(run, data), out, how, ALONE, lambda line: None, lambda: None)


def rate(settings: Settings, out: Path) -> dict[str, Any]:
    """Targets a second in training, from the median time of a step."""
    made = trainer(settings, made_up(settings, 64 * settings["batch"]), out, epochs=1000)
    times: list[float] = []
    while len(times) < WARM_UP + LEAST or sum(times[WARM_UP:]) < settings["seconds"]:
        before = time.perf_counter()
        made._step(made.legs[0])
        times.append(time.perf_counter() - before)
    targets, median = settings["batch"] * settings["max_len"], statistics.median(times[WARM_UP:])
    return {
        "precision": made.how.precision,
        "targets_per_second": targets / median,
        "flops_per_second": training_flops(made.run, settings["n_items"], targets, targets) / median,
        "median_step_seconds": median,
        "steps": len(times) - WARM_UP,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def evaluation(settings: Settings, out: Path) -> dict[str, Any]:
    """Users a second in full-ranking evaluation, all METRICS; the second pass is measured."""
    data = made_up(settings, settings["users"])
    made = trainer(settings, data, out)
    times = []
    for _ in range(3):
        before = time.perf_counter()
        made.problem.evaluate("test", ALONE, lambda: None)
        times.append(time.perf_counter() - before)
    return {"precision": "float32", "users_per_second": data.n_users / statistics.median(times[1:])}


def quality(settings: Settings, out: Path) -> dict[str, Any]:
    """Train `epochs` epochs on a prepared dataset; a line an epoch, and when `goal` was reached.

    Seconds are those of training, evaluation taken out, as for the peers.
    """
    data = sequences.load(Path(settings["data"]))
    more = {key: settings[key] for key in ("learning_rate", "epochs", "stride", "dropout")}
    made, seconds, goal = trainer(settings, data, out, **more), 0.0, settings["goal"]
    reached, best = None, 0.0
    for epoch in range(1, made.run.course.epochs + 1):
        begun = time.perf_counter()
        while made.progress.step < epoch * made.steps:
            made._step(made.legs[0])
        seconds += time.perf_counter() - begun
        valid = made.problem.evaluate("valid", ALONE, lambda: None)
        line = {"epoch": epoch, "seconds": seconds, "ndcg10": valid["NDCG@10"], "loss": valid["loss"]}
        print(json.dumps(line), flush=True)
        best = max(best, valid["NDCG@10"])
        if reached is None and valid["NDCG@10"] >= goal:
            reached = seconds
    return {"best_ndcg10": best, "seconds_to_goal": reached, "seconds": seconds}


def main() -> None:
    mode, settings = sys.argv[1], json.loads(sys.argv[2])
    if mode == "matrix_rate":
        result = matrix_rate(settings)
    else:
        call = {"rate": rate, "evaluate": evaluation, "quality": quality}[mode]
        with tempfile.TemporaryDirectory() as folder:
            result = call(settings, Path(folder))
    print(json.dumps({"library": "recscale", "version": __version__} | result))


if __name__ == "__main__":
    main()
