"""Verbs of one run: train, task."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from pathlib import Path
from typing import Any

from recscale import files
from recscale.cli.options import Verb, of_prepared, of_threads, positive, say
from recscale.errors import InputError
from recscale.study.run import Run
from recscale.study.study import TASKS

BY_HAND = ("device", "precision", "attention", "compile", "allocator", "recompute", "micro_batch")


def train_options(parser: ArgumentParser) -> None:
    parser.add_argument("--spec", required=True, help="the run as canonical JSON")
    of_prepared(parser)
    parser.add_argument("--out", type=Path, required=True, help="writes: the run's folder")
    of_threads(parser)
    parser.add_argument(
        "--log",
        type=Path,
        help="writes: the output too; notes failures beside the run (what rule train uses)",
    )
    parser.add_argument(
        "--processes", type=positive, default=1, help="with --log: that train it, by torchrun"
    )
    how = parser.add_argument_group("how it is computed", "default: what this machine does best")
    how.add_argument("--device", choices=["cpu", "cuda"])
    how.add_argument("--precision", choices=["bfloat16", "float32"], help="of matrix products")
    how.add_argument("--attention", choices=["plain", "fused"])
    how.add_argument("--allocator", choices=["keep", "default"], help="keep: freed memory stays here")
    switch = argparse.BooleanOptionalAction
    how.add_argument("--compile", action=switch, help="torch.compile; needs a C++ compiler")
    how.add_argument("--recompute", action=switch, help="activations again in backward: less memory")
    how.add_argument("--micro-batch", type=positive, help="windows at once; the batch stays the same")
    how.add_argument("--allow-change", action="store_true", help="resume a run that began otherwise")


def train(args: Namespace) -> None:
    run = Run.from_spec(args.spec)
    if args.log is not None:
        from recscale.cluster.attempt import attempt

        command = [sys.executable, "-m", "recscale", "train", *_of_training(args)]
        sys.exit(attempt(command, run.spec(), args.out, args.log, args.processes, say))
    if args.processes > 1:
        raise InputError("train: --processes goes with --log; torchrun starts several by hand")
    for number in (signal.SIGTERM, signal.SIGINT):  # importing torch alone takes seconds
        signal.signal(number, _stopped_early)
    from recscale.next_item.problem import NextItem
    from recscale.train.train import train

    by_hand = {name: getattr(args, name) for name in BY_HAND if getattr(args, name) is not None}
    problem = NextItem.load(run, args.data)
    train(run, problem, args.out, args.threads, say, by_hand, args.allow_change)


def _stopped_early(number: int, _: Any) -> None:
    """End at once: libraries that load catch exceptions, and then fail of something else."""
    name = signal.Signals(number).name
    with suppress(OSError):  # not print, which may be what was interrupted
        os.write(1, f"recscale: stopped by {name} outside the training; nothing to save\n".encode())
    os._exit(75)


def _of_training(args: Namespace) -> list[str]:
    """The options of `train` but for those of the attempt around it."""
    around = ("verb", "call", "log", "processes")
    options = []
    for name, value in vars(args).items():
        if name in around:
            continue
        option = name.replace("_", "-")
        if isinstance(value, bool):
            if value or name in ("compile", "recompute"):
                options.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None:
            options += [f"--{option}", str(value)]
    return options


def task_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "task", choices=["references", *TASKS], help="references: popularity and first-order Markov"
    )
    parser.add_argument("--run", type=Path, help="reads: folder of the trained run; references needs none")
    of_prepared(parser)
    parser.add_argument(
        "--out", type=Path, required=True, help="writes: a JSON file; of a run .parquet beside it"
    )
    of_threads(parser)


def task(args: Namespace) -> None:
    if args.task != "references":
        _task_of_run(args)
        return
    from recscale.next_item import sequences
    from recscale.next_item.references import references

    content = references(sequences.load(args.data))
    files.write_json(args.out, content)
    for name, result in content.items():
        say(f"{name}: test loss {result['test']['loss']:.4f}, HR@10 {result['test']['HR@10']:.4f}")


def _task_of_run(args: Namespace) -> None:
    from recscale.next_item.tasks import point

    if args.run is None:
        raise InputError(f"task {args.task}: give --run FOLDER, of a trained run")
    content = point.write(args.task, args.run, args.data, args.out, args.threads)
    done = f"{len(content['cells'])} cells, {content['passes']:.1f} passes, {content['seconds']:.1f} s"
    say(f"{args.run.name}: {args.task}: {done}")


TRAIN = Verb(
    "train", "train one run, evaluate it, write metrics.json and model.safetensors", train_options, train
)
TASK = Verb(
    "task",
    "evaluate what needs no training of its own: a task of a trained run, or references",
    task_options,
    task,
)
