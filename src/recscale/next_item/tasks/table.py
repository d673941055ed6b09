"""The table of all tasks of a study: a row a task, run, cell and metric, with intervals.

Intervals are over cases, as if users were drawn anew; what another seed of the training would give is not in
them. A value between 0 and 1 has Wilson's interval (1927) for the number of cases that a share of the same
variance would have. A change is a ratio of two means over the same cases; its interval is that of the log
of the ratio by the delta method, cases paired.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from recscale import files
from recscale.errors import InputError
from recscale.next_item.tasks.cases import CELL
from recscale.next_item.tasks.robustness import CLEAN
from recscale.study.run import Run, settings
from recscale.study.study import TASK_RECIPE, Study, select

LEVEL = 0.9  # of all intervals, as of the laws
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
Floats = npt.NDArray[np.float64]
Cell = tuple[str, float | None, int]  # group, x, noise
RECORD = ("task", "recipe", "status", "spec", "data_sha256", "passes", "seconds", "cells")
COLUMNS = (
    "task", "run", "size", "N", *CELL, "metric", "cases", "value", "lo", "hi",
    "against", "change", "change_lo", "change_hi",
)  # fmt: skip


def collect(study: Study, tasks_dir: Path) -> pd.DataFrame:
    """COLUMNS and the settings of the run, from <task>/<run>.json and .parquet in `tasks_dir`.

    `change` is relative to the run that `against` names: in robustness the same run without noise, else the
    run of the smallest size, both on the same cases; empty where that one has not got them
    (domains, with another max_len). 0.5 is half as much again, -0.3 a drop of 30 %. Raises
    InputError where a file is missing, of another spec than the study's or of other data than the others.
    """
    rows: list[dict[str, Any]] = []
    data = set()
    for name, task in study.tasks.items():
        cases = cache(lambda run, folder=tasks_dir / name: _cases(folder / f"{run}.parquet"))
        runs = {run: study.runs[run] for run in select(task, study.runs)}
        records = {run: read(tasks_dir / name / f"{run}.json", spec) for run, spec in runs.items()}
        data |= {record["data_sha256"] for record in records.values()}
        done = {run: spec for run, spec in runs.items() if records[run]["status"] == "finished"}
        for run, spec in done.items():
            against = run if name == "robustness" else smallest(run, done)
            about: dict[str, Any] = {"task": name, "run": run, "size": spec.size}
            about["N"] = spec.shape.n
            own = {key: value for key, value in settings(spec).items() if key not in about}
            for cell in records[run]["cells"]:
                key: Cell = (cell["group"], cell["x"], cell["noise"])
                base = (CLEAN, 0.0, 0) if name == "robustness" else key
                other = cases(against).get(base) if against and (against, base) != (run, key) else None
                mine = cases(run)[key]
                if other is not None and not mine.index.isin(other.index).all():
                    other = None
                for row in _rows(cell, mine, other):
                    rows.append(about | {"against": None if other is None else against} | row | own)
    if len(data) > 1:
        raise InputError(f"{tasks_dir}: its files are of different data; remove the older ones")
    table = pd.DataFrame(rows)  # of one size alone, no row has a change
    return table.reindex(columns=[*COLUMNS, *(column for column in table.columns if column not in COLUMNS)])


def read(path: Path, run: Run) -> dict[str, Any]:
    """A task's record of a run. Raises InputError when it is of another spec than the study's."""
    record = files.read_json(path, *RECORD)
    if record["spec"] != json.loads(run.spec()) or record["recipe"] != TASK_RECIPE:
        raise InputError(f"{path}: was made by another spec or recipe; remove it to have it made again")
    return record


def _cases(path: Path) -> dict[Cell, pd.DataFrame]:
    """The values of each cell's cases, by user."""
    table = files.read_table(path, "user", *CELL)
    return {
        (group, None if pd.isna(x) else x, noise): part.drop(columns=CELL).set_index("user")
        for (group, x, noise), part in table.groupby(CELL, dropna=False)
    }


def smallest(name: str, runs: Mapping[str, Run]) -> str | None:
    """The run of the smallest size that `name` is compared with; None where there is none on its data.

    Of several on the same share of the data, the one that differs in the fewest other settings; the
    first of equals in the order of the study.
    """
    run = runs[name]
    least = min(other.shape.n for other in runs.values())

    def differences(other: Run) -> int:
        keys = set(json.loads(run.spec())) | set(json.loads(other.spec()))
        own, its = run.flat(), other.flat()
        return sum(own.get(key) != its.get(key) for key in keys - {*run.shape.SIZE, "learning_rate"})

    same = [key for key, other in runs.items() if other.shape.n == least and other.sample == run.sample]
    return min(same, key=lambda key: differences(runs[key]), default=None)


def _rows(
    cell: Mapping[str, Any], cases: pd.DataFrame, other: pd.DataFrame | None
) -> Iterator[dict[str, Any]]:
    """A row a metric of a cell."""
    for metric in (key for key in cell if key not in (*CELL, "cases")):
        row = {key: cell[key] for key in (*CELL, "cases")} | {"metric": metric, "value": cell[metric]}
        if metric in cases:  # else it is of the cell as a whole
            values = cases[metric].to_numpy(np.float64)
            row |= dict(zip(("lo", "hi"), interval(values), strict=True))
            if other is not None:
                names = ("change", "change_lo", "change_hi")
                base = other[metric].loc[cases.index].to_numpy(np.float64)
                row |= dict(zip(names, change(values, base), strict=True))
        yield row


def interval(values: Floats) -> tuple[float, float]:
    """Wilson's interval of the mean of values between 0 and 1, (n,), at LEVEL."""
    n, mean, variance = float(len(values)), float(values.mean()), float(values.var())
    if variance > 0:
        n = n * mean * (1 - mean) / variance  # at least n; equal where all values are 0 or 1
    centre = (mean + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(mean * (1 - mean) / n + Z**2 / (4 * n**2))
    return max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))  # of rounding


def change(values: Floats, base: Floats) -> tuple[float, float, float]:
    """mean(values) / mean(base) - 1 over paired cases (n,) and its interval at LEVEL; NaN without a base.

    Where no value is above 0 the upper end is what Wilson's interval allows.
    """
    mean, of = float(values.mean()), float(base.mean())
    if of == 0:
        return math.nan, math.nan, math.nan
    if mean == 0:
        return -1.0, -1.0, interval(values)[1] / of - 1
    spread = Z * float((values / mean - base / of).std()) / math.sqrt(len(values))
    ratio = mean / of
    return ratio - 1, ratio * math.exp(-spread) - 1, ratio * math.exp(spread) - 1
