"""Where every run of a study stands, by its folder, and by SLURM's queue where there is one."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from recscale.cluster import attempt
from recscale.cluster.slurm import Job
from recscale.errors import InputError
from recscale.study.folder import read_point
from recscale.study.run import Run
from recscale.study.study import Study
from recscale.train import claim


def status(
    study: Study, runs_dir: Path, queue: Mapping[str, Job] | None = None, now: float | None = None
) -> pd.DataFrame:
    """A row a run: state, epoch k/n, job and detail.

    States: done, diverged, damaged, failed (for good), running, pending (in `queue`), stopped (begun, and
    nobody at it), missing.
    """
    now, queue = now or time.time(), queue or {}
    return pd.DataFrame(
        [
            {"run": name, "state": "missing", "epoch": "", "job": "", "detail": ""}
            | _row(run, runs_dir / name, queue.get(name), now)
            for name, run in study.runs.items()
        ]
    )


def _row(run: Run, folder: Path, job: Job | None, now: float) -> dict[str, Any]:
    if (folder / "metrics.json").exists():
        return _point(run, folder / "metrics.json")
    row: dict[str, Any] = {"job": job.number} if job is not None else {}
    why = attempt.failed(folder, run.spec())
    if why is not None:
        return row | {"state": "failed", "detail": f"{why['reason']}; log: {why['log']}"}
    log, claimed = folder / "log.jsonl", folder / claim.NAME  # touched each minute by the one who trains
    held = _touched(claimed)
    signs = [sign for sign in (held, _touched(log)) if sign is not None]
    alive = held is not None and now - max(signs) < claim.STALE
    if signs:
        row |= _progress(log, run, alive) | {"state": "running" if alive else "stopped"}
    if not alive and job is not None:
        row["state"] = "pending" if job.state in ("PENDING", "CONFIGURING") else "running"
    last = attempt.last_failure(folder, run.spec())
    if last and row.get("state") != "running":
        row["detail"] = f"last: {last}"
    return row


def _point(run: Run, path: Path) -> dict[str, Any]:
    try:
        point = read_point(path, run)
    except InputError as error:
        return {"state": "damaged", "detail": str(error)}
    loss = f"test loss {point['test']['loss']:.3f}" if point["test"] else ""
    state = "done" if point["test"] else "diverged"
    return {"state": state, "epoch": f"{len(point['epochs'])}/{run.course.epochs}", "detail": loss}


def _touched(path: Path) -> float | None:
    """When; None where it is not there, or no longer."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None


def _progress(log: Path, run: Run, alive: bool) -> dict[str, Any]:
    """As the last whole line of `log` tells it."""
    row = {"epoch": f"1/{run.course.epochs}"}
    try:
        lines = log.read_text(errors="replace").splitlines()
        last = json.loads([line for line in lines if line.endswith("}")][-1])
        speed = f"{last['targets_per_second']:,.0f} targets/s"
        row["detail"] = f"step {last['step']}/{last['steps']}, {speed}"
        row["epoch"] = f"{last['epoch']}/{run.course.epochs}"
        if alive and "seconds_left" in last:
            row["detail"] += f", {last['seconds_left'] / 60:,.1f} minutes left"
    except (OSError, ValueError, LookupError, TypeError):
        pass  # nothing logged yet, or by something else
    return row
