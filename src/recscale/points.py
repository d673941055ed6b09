"""The table of all points of a study: one row a run, and one row a run and epoch for its curves."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from recscale.errors import InputError
from recscale.study import Run, Study

STALE = 120  # seconds without a logged step after which a run does not count as running


def read_point(path: Path, run: Run) -> dict[str, Any]:
    """A run's metrics.json. Raises InputError when it is of another spec than the study's."""
    try:
        point: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; train it first") from None
    except ValueError as error:
        raise InputError(f"{path}: is not JSON: {error}") from error
    if Run(**point["spec"]) != run:
        raise InputError(
            f"{path}: was made by another spec, {json.dumps(point['spec'])}; "
            f"the study has {run.spec()}: remove the file to train it again"
        )
    return point


def collect(study: Study, runs_dir: Path, references: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Points (one row a run, in the order of the study) and curves (one row a run and epoch).

    `beats_popularity`: whether the test loss is below that of item popularity.
    """
    points, curves = [], []
    for name, run in study.runs.items():
        point = read_point(runs_dir / name / "metrics.json", run)
        test = point["test"] or {}
        chosen = point["epochs"][point["chosen_epoch"] - 1] if test else {}
        row = {
            "run": name,
            "size": run.size,
            "status": point["status"],
            **{key: point[key] for key in ("N", "N_total", "D", "D_seen", "C", "n_items")},
            "chosen_epoch": point["chosen_epoch"],
            "train_loss": chosen.get("train_loss"),
            "valid_loss": chosen.get("valid", {}).get("loss"),
            **{f"test_{key}" if key == "loss" else key: value for key, value in test.items()},
            "beats_popularity": bool(test) and test["loss"] < references["popularity"]["test"]["loss"],
            **asdict(run),
            **{key: point[key] for key in ("seconds", "targets_per_second", "peak_memory_bytes")},
            **{key: point[key] for key in ("device", "precision", "threads", "commit")},
        }
        points.append(row)
        for epoch in point["epochs"]:
            valid = {f"valid_{key}": value for key, value in epoch["valid"].items()}
            curves.append({"run": name, "size": run.size, "N": point["N"]} | {
                "data_fraction": run.data_fraction,
                "learning_rate": run.learning_rate,
                "seed": run.seed,
                "epoch": epoch["epoch"],
                "train_loss": epoch["train_loss"],
            } | valid)  # fmt: skip
    return pd.DataFrame(points), pd.DataFrame(curves)


def status(study: Study, runs_dir: Path, now: float | None = None) -> pd.DataFrame:
    """State of each run: done, diverged, running or stopped (epoch k of n, targets/s), missing."""
    rows = []
    for name, run in study.runs.items():
        folder = runs_dir / name
        row: dict[str, Any] = {"run": name, "state": "missing", "epoch": "", "detail": ""}
        if (folder / "metrics.json").exists():
            point = json.loads((folder / "metrics.json").read_text())
            loss = point["test"] and f"test loss {point['test']['loss']:.3f}"
            row |= {"state": "done" if point["test"] else "diverged", "detail": loss or ""}
            row["epoch"] = f"{len(point['epochs'])}/{run.epochs}"
        elif (folder / "log.jsonl").exists():
            log = folder / "log.jsonl"
            lines = log.read_text().splitlines()
            age = (now or time.time()) - log.stat().st_mtime
            last = json.loads(lines[-1]) if lines and lines[-1].endswith("}") else {}
            row["state"] = "running" if age < STALE else "stopped"
            row["epoch"] = f"{last.get('epoch', 1)}/{run.epochs}"
            if last:
                speed = f"{last['targets_per_second']:,.0f} targets/s"
                row["detail"] = f"step {last['step']}/{last['steps']}, {speed}"
        rows.append(row)
    return pd.DataFrame(rows)
