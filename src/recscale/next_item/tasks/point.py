"""One task of one run: the trained weights in, a JSON of the task's cells and a table of its cases out."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recscale import files
from recscale.errors import InputError
from recscale.next_item import sequences
from recscale.next_item.problem import model_of
from recscale.next_item.tasks.cases import CELL, Outcome, Trained
from recscale.study.execution import Execution
from recscale.study.run import Run
from recscale.study.study import TASK_RECIPE
from recscale.train import checkpoint, machine


def task_of(name: str) -> Callable[[Trained], Outcome]:
    """The function of a task: it and its module have the task's name. Raises InputError."""
    try:
        return getattr(import_module(f"recscale.next_item.tasks.{name}"), name)  # type: ignore[no-any-return]
    except (ModuleNotFoundError, AttributeError) as error:
        raise InputError(
            f"task {name}: study/problems.py names it, and next_item/tasks has none: {error}"
        ) from None


def write(task: str, run_dir: Path, data_dir: Path, out: Path, threads: int) -> dict[str, Any]:
    """Do a task with the run in `run_dir` on prepared data; write `out`, a .json path, and .parquet beside.

    Returns the content of the JSON: task, status, spec, data_sha256, users, passes (windows through the
    model over users), seconds, and `cells`, one object a cell with its number of cases and mean values. A
    run that diverged has no cells. Raises InputError where the weights are gone or of other data.
    """
    begun = time.perf_counter()
    how = machine.choose({}, threads)
    machine.apply(how)
    point = files.read_json(run_dir / "metrics.json", "spec", "status", "data_sha256")
    content = {key: point[key] for key in ("spec", "status", "data_sha256")}
    content = {"task": task, "recipe": TASK_RECIPE, **content}
    outcome, passes = Outcome(pd.DataFrame(columns=["user", *CELL])), 0.0
    if point["status"] == "finished":
        trained = trained_of(run_dir, point, data_dir, how)
        outcome = task_of(task)(trained)
        passes = trained.windows / trained.data.n_users
        content["users"] = trained.data.n_users
    with files.atomic(out.with_suffix(".parquet")) as part:
        outcome.cases.to_parquet(part, index=False)
    content |= {"passes": passes, "seconds": time.perf_counter() - begun, "cells": cells(outcome)}
    content |= machine.machine(how)
    files.write_json(out, content)  # last: it says that the other is whole
    return content


def trained_of(run_dir: Path, point: dict[str, Any], data_dir: Path, how: Execution) -> Trained:
    """The model of a finished run, on the device, and its data. Raises InputError."""
    weights, run = run_dir / "model.safetensors", Run.of(**point["spec"])
    data = sequences.load(data_dir, with_timestamps=run.sample.data_axis == "time")
    if data.sha256 != point["data_sha256"]:
        raise InputError(f"{data_dir}: is not what {run_dir / 'metrics.json'} was trained on: train it again")
    model = model_of(run, data.n_items, how)
    again = f"remove {run_dir / 'metrics.json'} to train it again"
    if not weights.exists():
        raise InputError(f"{weights}: there is no such file; {again}")
    try:
        header, tensors = checkpoint.read(weights)
        if header.get("spec") != run.spec():
            raise checkpoint.Unusable("it is of another spec")
        model.load_state_dict(tensors)
    except (checkpoint.Unusable, RuntimeError) as error:
        raise InputError(f"{weights}: {error}; {again}") from error
    return Trained(run, model.to(how.device), data, data_dir, how.device, machine.PRECISION[how.precision])


def cells(outcome: Outcome) -> list[dict[str, Any]]:
    """One object a cell, in the order of the cases: group, x (None: none), noise, cases, mean values."""
    values = [name for name in outcome.cases.columns if name not in ("user", *CELL)]
    found = []
    for key, part in outcome.cases.groupby(CELL, sort=False, dropna=False):
        cell = dict(zip(CELL, key, strict=True)) | {"cases": len(part)}
        cell |= {name: float(part[name].to_numpy(np.float64).mean()) for name in values}
        if outcome.coverage is not None:
            same = outcome.coverage[(outcome.coverage[CELL] == list(key)).all(axis=1)]
            cell["coverage@10"] = float(same["coverage@10"].item())
        cell["x"] = None if pd.isna(cell["x"]) else float(cell["x"])
        found.append(cell | {"noise": int(cell["noise"])})
    return found
