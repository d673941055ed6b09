"""Finished points of a study as small files that can be committed, and back.

results/published/<study>/ has points.jsonl (a line a run: its name and its metrics.json), points.csv,
curves.csv, references.json and, as soon as they are there, laws/, tasks.csv and all figures as PNG.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from recscale import files, points
from recscale.errors import InputError
from recscale.study import TASKS, Study, select

POINTS = "points.jsonl"
Say = Callable[[str], None]


def publish(study: Study, folder: Path, out: Path, say: Say) -> None:
    """Write what is finished in `folder`, results/<study>, to `out`; runs published before stay.

    Laws, tasks and figures come once every run of theirs is there; until then those published before are
    removed, for they are of other points. Raises InputError where no run has finished.
    """
    before = read(out / POINTS, study) if (out / POINTS).exists() else {}
    here = {
        name: points.read_point(folder / "runs" / name / "metrics.json", run)
        for name, run in study.runs.items()
        if (folder / "runs" / name / "metrics.json").exists()
    }
    found = {name: (before | here)[name] for name in study.runs if name in before | here}
    if not found:
        raise InputError(f"{folder / 'runs'}: no run of {study.name} has finished yet")
    references = next((f for f in (folder, out) if (f / "references.json").exists()), folder)
    about = files.read_json(references / "references.json", "popularity", "markov")
    table, curves = points.tables(study, found, about, folder / "runs")
    with files.atomic(out / POINTS) as part:
        part.write_text("".join(json.dumps({"run": name, **point}) + "\n" for name, point in found.items()))
    files.write_json(out / "references.json", about)
    for name, frame in (("points", table), ("curves", curves)):
        with files.atomic(out / f"{name}.csv") as part:
            frame.to_csv(part, index=False)
    say(f"{out}: {len(found)} of {len(study.runs)} runs, {len(found.keys() - before.keys())} of them new")
    missing = [*_laws(study, folder, out), *_tasks(study, folder, out)]
    for name, why in missing:
        say(f"{name}: not published, {why}; snakemake --config study={study.name} makes it")
    _figures(study, out, say)


def read(path: Path, study: Study) -> dict[str, dict[str, Any]]:
    """The points of points.jsonl that are runs of the study, by name; those of other specs are left out.

    Raises InputError naming the line that is no point.
    """
    found = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; recscale publish {study.name} makes it") from None
    for number, line in enumerate(lines, 1):
        try:
            point = json.loads(line)
            name = point.pop("run")
            spec = point["spec"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f"{path}: line {number} is no point") from None
        if name in study.runs and json.loads(study.runs[name].spec()) == spec:
            found[name] = point
    return found


def restore(study: Study, out: Path, folder: Path, say: Say) -> None:
    """Write metrics.json of the published runs that `folder`, results/<study>, does not have.

    They count as done for points, laws and figures; a task needs weights, which are not published.
    """
    found = read(out / POINTS, study)
    new = [name for name in found if not (folder / "runs" / name / "metrics.json").exists()]
    for name in new:
        files.write_json(folder / "runs" / name / "metrics.json", found[name])
    say(f"{folder / 'runs'}: {len(new)} points restored, {len(found) - len(new)} were there")
    if len(found) < len(study.runs):
        say(f"{len(study.runs) - len(found)} runs of {study.name} are not published")


def _laws(study: Study, folder: Path, out: Path) -> list[tuple[str, str]]:
    """Copy the laws if they are of the published points; else remove them, and say why."""
    source, target = folder / "laws", out / "laws"
    names = [f"{law}.json" for law in study.laws]
    why = ""
    if not all((source / name).exists() for name in (*names, "laws.csv")):
        why = "not fitted yet"
    elif _differ(folder / "points.csv", out / "points.csv"):
        why = "fitted on other points"
    shutil.rmtree(target, ignore_errors=True)
    if study.laws and not why:
        _copy(source, target, (*names, "laws.csv"))
    return [("laws", why)] if study.laws and why else []


def _tasks(study: Study, folder: Path, out: Path) -> list[tuple[str, str]]:
    """Copy the table of tasks if it has every task and run of the study; else remove it, and say why."""
    if not study.tasks:
        return []
    wanted = {(name, run) for name, task in study.tasks.items() for run in select(task, study.runs)}
    if (folder / "tasks.csv").exists():
        table = pd.read_csv(folder / "tasks.csv", usecols=["task", "run"])
        if set(table.itertuples(index=False, name=None)) == wanted:
            _copy(folder, out, ("tasks.csv",))
            return []
    (out / "tasks.csv").unlink(missing_ok=True)
    return [("tasks", "not done with every run yet")]


def _figures(study: Study, out: Path, say: Say) -> None:
    """Draw every figure from what is published; only the PNG is kept, for the rest can be drawn again."""
    shutil.rmtree(out / "figures", ignore_errors=True)
    with tempfile.TemporaryDirectory() as drawn:
        names = draw(study, out, Path(drawn), say)
        _copy(Path(drawn), out / "figures", [f"{name}.png" for name in names])


def draw(study: Study, source: Path, out: Path, say: Say, figure: str | None = None) -> list[str]:
    """Draw figures of a study, whose tables are in `source`: one to `out`, a .png path, or all into a folder.

    Returns their names; says which were left out because what they show is not there yet. Raises InputError.
    """
    from recscale import figures
    from recscale.tasks import figures as of_tasks

    if figure is not None:
        (of_tasks if figure in TASKS else figures).draw(figure, study, source, out)
        return [figure]
    fitted = all((source / "laws" / f"{law}.json").exists() for law in study.laws)
    names = [*study.figures] * fitted + [*study.tasks] * files.table_path(source, "tasks").exists()
    for name in names:
        draw(study, source, out / f"{name}.png", say, name)
    left = [name for name in (*study.figures, *study.tasks) if name not in names]
    if left:
        say(f"{source}: has not yet what {', '.join(left)} show")
    return names


def _differ(one: Path, other: Path) -> bool:
    return not one.exists() or one.read_bytes() != other.read_bytes()


def _copy(source: Path, target: Path, names: Mapping[str, Any] | tuple[str, ...] | list[str]) -> None:
    for name in names:
        with files.atomic(target / name) as part:
            shutil.copyfile(source / name, part)
