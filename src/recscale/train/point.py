"""The point of a run: the content of its metrics.json, complete."""

from __future__ import annotations

import json
from typing import Any

from recscale.study.execution import Execution
from recscale.study.run import Run
from recscale.train.machine import machine
from recscale.train.problem import Problem
from recscale.train.progress import Progress


def point(
    run: Run, problem: Problem, progress: Progress, how: Execution, test: dict[str, float] | None
) -> dict[str, Any]:
    """Plain JSON of a run that has ended; `test` is None where it diverged."""
    best = progress.best
    patience, counts = run.course.switch_patience, problem.counts()
    rule = f"no better valid loss for {patience} epochs"
    switch = {"rule": rule, "happened": progress.switched} if patience else None
    return {
        "spec": json.loads(run.spec()),
        "size": run.size,
        "status": "finished" if progress.diverged is None else "diverged",
        "diverged": progress.diverged,
        **counts,
        "D_seen": progress.targets,
        "C": problem.flops(progress.positions, progress.targets),
        "data_sha256": problem.sha256,
        "epochs": progress.epochs,
        "chosen_epoch": best["epoch"] if best and test else None,
        "test": test,
        "tests": progress.tests,
        "switch": switch,
        "seconds": progress.seconds,
        "seconds_saving": progress.saving,
        "targets_per_second": progress.targets / progress.training if progress.training else None,
        "changes": progress.changes,
        **machine(how),
    }
