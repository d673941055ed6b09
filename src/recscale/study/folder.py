"""The folder of a run: the names of its files, and how its point is read. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from recscale import files
from recscale.errors import InputError
from recscale.study import schema
from recscale.study.run import Run

LAST, BRANCH = "last.safetensors", "branch.safetensors"
STATES = (LAST, BRANCH)  # the resume state
FAILURES, FAILED = "failures.json", "failed.json"
ATTEMPTS = "attempt-*.json"  # of attempts that have not ended, or not by themselves

# What every metrics.json has; the order of the columns in the table of points.
COUNTS = ("N", "N_total", "D", "D_seen", "C", "n_items")
COSTS = ("seconds", "targets_per_second", "peak_memory_bytes")
MACHINE = ("device", "precision", "threads", "data_sha256", "commit")
POINT = ("spec", "status", "test", "tests", "epochs", "chosen_epoch", *COUNTS, *COSTS, *MACHINE)


def check_point(point: Any, run: Run, where: str) -> None:
    """Raise InputError, beginning with `where`, unless the numbers of a point can be those of the run."""
    schema.check(point, "point", where)
    if any(not isfinite(value) for value in _numbers(point)):
        raise InputError(f"{where}: a number is not finite, which no training writes")
    n_items, epochs = point["n_items"], point["epochs"]
    counts = {"N": run.shape.n, "N_total": run.shape.n_total(n_items, run.windows.max_len)}
    for key, count in counts.items():
        if point[key] != count:
            raise InputError(f"{where}: {key}: is {point[key]}, a model of this spec has {count}")
    numbers = [epoch["epoch"] for epoch in epochs]
    if numbers != list(range(1, len(epochs) + 1)) or len(epochs) > run.course.epochs:
        raise InputError(f"{where}: epochs: are {numbers}, the run has 1 to {run.course.epochs}")
    if (point["status"] == "finished") != (point["test"] is not None and point["chosen_epoch"] is not None):
        raise InputError(f"{where}: status: is {point['status']}; a finished run, and no other, is tested")
    if (point["chosen_epoch"] or 0) > len(epochs):
        raise InputError(f"{where}: chosen_epoch: is {point['chosen_epoch']} of {len(epochs)}")


def _numbers(content: Any) -> Iterator[float]:
    if isinstance(content, dict | list):
        for part in content.values() if isinstance(content, dict) else content:
            yield from _numbers(part)
    elif isinstance(content, float):
        yield content


def read_point(path: Path, run: Run) -> dict[str, Any]:
    """A run's metrics.json. Raises InputError when it is damaged, or of another spec than the study's."""
    point = files.read_json(path, *POINT)
    if json.loads(run.spec()) != point["spec"]:
        raise InputError(
            f"{path}: was made by another spec, {json.dumps(point['spec'])}; "
            f"the study has {run.spec()}: remove the file to train it again"
        )
    check_point(point, run, str(path))
    return point


def check_data(points: Mapping[str, Mapping[str, Any]], sequences: Path) -> None:
    """Raise InputError, with both checksums, for a point of other data than the prepared ones, if any."""
    if not sequences.exists():
        return
    digest = files.sha256(sequences)
    for name, point in points.items():
        if point["data_sha256"] != digest:
            raise InputError(
                f"{name}: was trained on data of sha256 {point['data_sha256']}, {sequences} has {digest}: "
                "remove its metrics.json to train it again, or prepare the data that it had"
            )


def clean(out: Path) -> None:
    """Remove the resume state of a finished run, and what was noted of attempts that failed."""
    for pattern in (f"*{LAST}", BRANCH, "best-*.safetensors", FAILURES, FAILED, ATTEMPTS):
        for path in out.glob(pattern):
            path.unlink(missing_ok=True)
