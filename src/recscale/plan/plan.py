"""What a study will cost: time and memory of every run, before the first is started.

The formulas are in cost.py, the devices in devices.py and, measured, in here.py.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from recscale.errors import InputError
from recscale.next_item import sequences
from recscale.plan import cost
from recscale.plan.cost import Counts
from recscale.plan.devices import Device
from recscale.study.execution import Execution
from recscale.study.folder import read_point
from recscale.study.run import Run, training_flops
from recscale.study.study import Study, select


def counts(dataset: str, folder: Path, entry: Mapping[str, Any], timed: bool = False) -> Counts:
    """cost.stated, which count exactly where the dataset is prepared; `timed`: its items with their times."""
    found = cost.stated(dataset, folder, entry)
    if not (folder / "stats.json").exists() or not (folder / "sequences.parquet").exists():
        return found
    data = sequences.load(folder, with_timestamps=timed)

    @cache
    def exact(run: Run) -> tuple[int, int, int]:
        made = sequences.train_windows(data, run, sequences.train_users(data, run))
        return len(made), int(made.length.sum()), int(made.targets.sum())

    return replace(found, exact=exact)


def plan(
    study: Study, data: Counts, runs_dir: Path, rounds: Sequence[Device], how: Execution
) -> list[dict[str, Any]]:  # fmt: skip
    """A row a run: N, all parameters, D and C over all epochs, estimated minutes and GiB a process.

    rounds: the device, as often as it was measured. `minutes` is the median over them, `by_round` has each.
    `measured`: minutes of a run that is done, else None.
    """
    rows = []
    for name, run in study.runs.items():
        _, positions, targets = (run.course.epochs * number for number in data.epoch(run))
        row = {"run": name, "N": run.shape.n}
        row["parameters"] = run.shape.n_total(data.n_items, run.windows.max_len)
        row |= {"D": targets, "C": training_flops(run, data.n_items, positions, targets)}
        minutes = [cost.run_seconds(on, how, run, data) / 60 for on in rounds]
        row |= {
            "minutes": median(minutes),
            "GiB": cost.run_bytes(run, data, how) / 2**30,
            "by_round": minutes,
        }
        rows.append(row | {"measured": _measured(runs_dir / name / "metrics.json", run)})
    return rows


def tasks(study: Study, data: Counts, on: Device, how: Execution) -> list[dict[str, Any]]:
    """A row a task of trained runs: how many runs, and estimated minutes of them all together."""
    rows = []
    for name, task in study.tasks.items():
        runs = [study.runs[run] for run in select(task, study.runs)]
        seconds = sum(cost.task_seconds(on, how, run, data, name) for run in runs)
        rows.append({"task": name, "runs": len(runs), "minutes": seconds / 60})
    return rows


def _measured(path: Path, run: Run) -> float | None:
    """Minutes of a finished run; None where there is none, or none of this spec."""
    try:
        return float(read_point(path, run)["seconds"]) / 60
    except InputError:
        return None


def wall(minutes: Sequence[float], at_once: int) -> float:
    """Minutes until runs are done that start longest first, so many at a time; as Snakemake starts them."""
    free = [0.0] * at_once
    for one in sorted(minutes, reverse=True):
        heapq.heappush(free, heapq.heappop(free) + one)
    return max(free)


def wall_text(rows: list[dict[str, Any]], cores: int, threads: int) -> str:
    """When all runs that are not done will be, on so many cores, with the spread of the measurements."""
    to_do, at_once = [row["by_round"] for row in rows if row["measured"] is None], max(1, cores // threads)
    ends = sorted(wall(of_round, at_once) for of_round in zip(*to_do, strict=True))
    if not ends:
        return "nothing to do"
    return (
        f"done in about {median(ends):,.0f} min on {cores} cores, {at_once} at a time ({ends[0]:,.0f} to "
        f"{ends[-1]:,.0f} by {len(ends)} measurements of this machine)"
    )


def text(rows: list[dict[str, Any]], of_tasks: list[dict[str, Any]], on: Device, how: Execution) -> str:
    """The rows as a table, the device hours of the runs that are not done, and those of all tasks."""
    shown = [
        {key: value for key, value in row.items() if key != "by_round"}
        | {key: f"{row[key]:,}" for key in ("N", "parameters", "D")}
        | {"C": f"{row['C']:.2e}", "minutes": f"{row['minutes']:,.1f}"}
        | {"GiB": f"{row['GiB']:.2f}{'!' if row['GiB'] * 2**30 > on.memory else ''}"}
        | {"measured": "" if row["measured"] is None else f"{row['measured']:,.1f}"}
        for row in rows
    ]
    to_do = [row["minutes"] / 60 * how.processes for row in rows if row["measured"] is None]
    lines = [pd.DataFrame(shown).to_string(index=False)]
    if any(row["GiB"] * 2**30 > on.memory for row in rows):
        lines.append(f"! more than the {on.memory / 2**30:.0f} GiB of {on.name}")
    lines.append(
        f"{len(rows)} runs, {len(to_do)} to do: {sum(to_do):,.2f} device hours on {how.processes} x {on.name}"
        f" in {how.precision}{' with recomputation' if how.recompute else ''}"
    )
    if of_tasks:
        each = ", ".join(f"{row['task']} {row['minutes']:,.1f} min" for row in of_tasks)
        hours, jobs = (sum(row[key] for row in of_tasks) for key in ("minutes", "runs"))
        lines.append(f"then {jobs} tasks of trained runs ({each}): {hours / 60:,.2f} device hours")
    return "\n".join(lines)
