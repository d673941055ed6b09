"""The table of all points of a study: one row a run, and one row a run and epoch for its curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from recscale import files
from recscale.errors import InputError
from recscale.study.folder import COSTS, COUNTS, MACHINE, read_point
from recscale.study.problems import NEXT_ITEM
from recscale.study.run import Run, settings
from recscale.study.study import Study

CURVE = ("run", "size", "epoch", "finished", "train_loss", "test_loss")  # where no run has an epoch


def collect(study: Study, runs_dir: Path, references_file: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`tables` of all runs of a study. Raises InputError where one is missing or of another spec."""
    references = files.read_json(references_file, *NEXT_ITEM.references)
    found = {name: read_point(runs_dir / name / "metrics.json", run) for name, run in study.runs.items()}
    return tables(study, found, references, runs_dir)


def tables(
    study: Study, found: Mapping[str, dict[str, Any]], references: Mapping[str, Any], runs_dir: Path
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Points (one row a run, in the order of `found`) and curves (one row a run and epoch).

    `beats_popularity`: whether the test loss is below that of item popularity. Raises InputError, naming
    `runs_dir`, where runs were trained on different data.
    """
    points, curves = [], []
    cells = _settings({name: study.runs[name] for name in found})
    for name, point in found.items():
        run = study.runs[name]
        test = point["test"] or {}
        chosen = point["epochs"][point["chosen_epoch"] - 1] if test else {}
        row = {
            "run": name,
            "size": run.size,
            "status": point["status"],
            **{key: point[key] for key in COUNTS},
            "D_input": point.get("D_input"),  # points of version 0.2 have none
            "chosen_epoch": point["chosen_epoch"],
            "train_loss": chosen.get("train_loss"),
            "valid_loss": chosen.get("valid", {}).get("loss"),
            **{f"test_{key}" if key == "loss" else key: value for key, value in test.items()},
            "beats_popularity": bool(test) and test["loss"] < references["popularity"]["test"]["loss"],
            **cells[name],
            **{key: point[key] for key in (*COSTS, *MACHINE)},
        }
        points.append(row)
        about = {"run": name, "size": run.size, "N": point["N"]}
        about |= {"data_axis": run.sample.data_axis, "data_fraction": run.sample.data_fraction}
        about |= {"learning_rate": run.course.learning_rate, "seed": run.seed}
        curves += [about | row for row in _curve(point, run)]
    # Where a run diverged none is chosen.
    table = pd.DataFrame(points).astype({"chosen_epoch": "Int64", "D_input": "Int64"})
    whole = {key for one in cells.values() for key, value in one.items() if type(value) is int}
    table = table.astype({key: "Int64" for key in whole if table[key].isna().any()})
    if table["data_sha256"].nunique() > 1:
        odd = table.drop_duplicates("data_sha256")["run"].tolist()
        raise InputError(
            f"{runs_dir}: the runs {' and '.join(odd)} were trained on different data; remove the "
            "metrics.json of the older ones to train them again"
        )
    return table, pd.DataFrame(curves, columns=None if curves else list(CURVE))


def _settings(runs: Mapping[str, Run]) -> dict[str, dict[str, Any]]:
    """The settings of each run, all with the same keys.

    Of several families each run says which, and keys of the others are None.
    """
    cells = {name: settings(run) for name, run in runs.items()}
    of_all = list(dict.fromkeys(key for one in cells.values() for key in one))
    if "model" in of_all:
        cells = {name: one | {"model": runs[name].model} for name, one in cells.items()}
    return {name: {key: one.get(key) for key in of_all} for name, one in cells.items()}


def _curve(point: Mapping[str, Any], run: Run) -> Iterator[dict[str, Any]]:
    """A row an epoch, with its test loss where it was tested, then one for each cooled-down branch.

    `finished`: the learning rate had come to zero, so the row is a point and not part of a curve.
    """
    tests = {row["epoch"]: row for row in point["tests"]}
    branches = run.course.schedule == "constant"
    for epoch in point["epochs"]:
        number = epoch["epoch"]
        here = number in tests and not (branches and number < run.course.epochs)
        yield {
            "epoch": number,
            "finished": number == run.course.epochs,
            "train_loss": epoch["train_loss"],
            "test_loss": tests[number]["test"]["loss"] if here else math.nan,
            **{f"valid_{key}": value for key, value in epoch["valid"].items()},
        }
    for number, row in tests.items():
        if branches and number < run.course.epochs:
            yield {
                "epoch": number,
                "finished": True,
                "train_loss": math.nan,
                "test_loss": row["test"]["loss"],
                **{f"valid_{key}": value for key, value in row["valid"].items()},
            }
