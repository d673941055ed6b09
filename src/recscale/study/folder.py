"""The folder of a run: the names of its files, and how its point is read. Imports nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recscale import files
from recscale.errors import InputError
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


def read_point(path: Path, run: Run) -> dict[str, Any]:
    """A run's metrics.json. Raises InputError when it is of another spec than the study's."""
    point = files.read_json(path, *POINT)
    if json.loads(run.spec()) != point["spec"]:
        raise InputError(
            f"{path}: was made by another spec, {json.dumps(point['spec'])}; "
            f"the study has {run.spec()}: remove the file to train it again"
        )
    return point


def clean(out: Path) -> None:
    """Remove the resume state of a finished run, and what was noted of attempts that failed."""
    for pattern in (f"*{LAST}", BRANCH, "best-*.safetensors", FAILURES, FAILED, ATTEMPTS):
        for path in out.glob(pattern):
            path.unlink(missing_ok=True)
