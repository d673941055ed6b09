"""Finished points of a study as small files that can be committed, and back.

results/published/<study>/ has points.jsonl (a line a run: its name and its metrics.json), points.csv,
curves.csv, references.json and, as soon as they are there, laws/, tasks.csv and all figures as PNG.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from recscale import files
from recscale.errors import InputError
from recscale.report import points
from recscale.report.figures import study as of_study
from recscale.report.figures import tasks as of_tasks
from recscale.study.folder import POINT, check_data, check_point, read_point
from recscale.study.problems import NEXT_ITEM
from recscale.study.study import TASKS, Study, select

POINTS = "points.jsonl"
Say = Callable[[str], None]


def publish(study: Study, folder: Path, out: Path, say: Say, sequences: Path | None = None) -> None:
    """Write what is finished in `folder`, results/<study>, to `out`; runs published before stay.

    Points of runs that the study has no more stay in points.jsonl, and in no table. Files that are none of
    ours stay. sequences: the prepared data, of which the points in `folder` must be.

    Laws, tasks and figures come once every run of theirs is there. Those published before stay as long as
    they are of the same points; else they are removed. Raises InputError where no run has finished.
    """
    before = read(out / POINTS, study, say) if (out / POINTS).exists() else {}
    here = {
        name: read_point(folder / "runs" / name / "metrics.json", run)
        for name, run in study.runs.items()
        if (folder / "runs" / name / "metrics.json").exists()
    }
    if sequences is not None:
        check_data(here, sequences)
    left = _left(out / POINTS, study)
    found = {name: (before | here)[name] for name in study.runs if name in before | here}
    if not found:
        raise InputError(f"{folder / 'runs'}: no run of {study.name} has finished yet")
    same = {name for name in found if before.get(name) == found[name]}
    references = next((f for f in (folder, out) if (f / "references.json").exists()), folder)
    about = files.read_json(references / "references.json", *NEXT_ITEM.references)
    table, curves = points.tables(study, found, about, folder / "runs")
    files.write_json(out / "references.json", about)
    for name, frame in (("points", table), ("curves", curves)):
        with files.atomic(out / f"{name}.csv") as part:
            frame.to_csv(part, index=False)
    missing = [*_laws(study, folder, out, same), *_tasks(study, folder, out, found, same)]
    # After laws and tasks: it says which points these are of, should this be cut off and begun again.
    with files.atomic(out / POINTS) as part:
        lines = [json.dumps({"run": name, **point}) for name, point in found.items()]
        part.write_text("".join(f"{line}\n" for line in [*lines, *left]))
    say(f"{out}: {len(found)} of {len(study.runs)} runs, {len(found.keys() - before.keys())} of them new")
    for name, why in missing:
        say(f"{name}: not published, {why}; snakemake --config study={study.name} makes it")
    _figures(study, out, say)


def read(path: Path, study: Study, say: Say) -> dict[str, dict[str, Any]]:
    """The points of points.jsonl that are runs of the study, by name; says how many are of other specs.

    Raises InputError naming the line that is no point.
    """
    found: dict[str, dict[str, Any]] = {}
    others = 0
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; recscale publish {study.name} makes it") from None
    for number, line in enumerate(lines, 1):
        try:
            point = json.loads(line)
            name, spec = str(point.pop("run")), point["spec"]
            of_study = name in study.runs and json.loads(study.runs[name].spec()) == spec
            missing = [key for key in POINT if key not in point]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InputError(f"{path}: line {number} is no point") from None
        if of_study and missing:
            raise InputError(f"{path}: line {number} is no point: it has no {', '.join(missing)}")
        if of_study:
            check_point(point, study.runs[name], f"{path}: line {number}")
            if name in found and found[name] != point:
                raise InputError(f"{path}: line {number}: {name} is there twice, with other numbers")
            found[name] = point
        others += not of_study
    if others:
        say(f"{path}: {others} of {len(lines)} points are of no run that {study.name} has now")
    return found


def _left(path: Path, study: Study) -> list[str]:
    """Lines of points.jsonl whose runs the study has no more: who adds their size again finds them."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line for line in lines if json.loads(line)["run"] not in study.runs]


def restore(study: Study, out: Path, folder: Path, say: Say, sequences: Path | None = None) -> None:
    """Write metrics.json of the published runs that `folder`, results/<study>, does not have.

    They count as done for points, laws and figures; a task needs weights, which are not published.
    sequences: the prepared data; where these are there and others, nothing is restored (InputError).
    """
    found = read(out / POINTS, study, say)
    if sequences is not None:
        check_data(found, sequences)
    new = [name for name in found if not (folder / "runs" / name / "metrics.json").exists()]
    for name in new:
        files.write_json(folder / "runs" / name / "metrics.json", found[name])
    say(f"{folder / 'runs'}: {len(new)} points restored, {len(found) - len(new)} were there")
    if len(found) < len(study.runs):
        say(f"{len(study.runs) - len(found)} runs of {study.name} are not published")


def _laws(study: Study, folder: Path, out: Path, same: Collection[str]) -> list[tuple[str, str]]:
    """Copy the laws if they are of the published points; else remove them, and say why.

    `same`: the runs whose points are those published before, with the laws that are there.
    """
    source, target = folder / "laws", out / "laws"
    names = [f"{law}.json" for law in study.laws] + ["laws.csv"] * bool(study.laws)
    why = ""
    if not all((source / name).exists() for name in names):
        why = "not fitted yet"
    elif study.laws and _differ(folder / "points.csv", out / "points.csv"):
        why = "fitted on other points"
    if not why:
        _copy(source, target, names)
    if why and set(same) == set(study.runs) and all((target / name).exists() for name in names):
        why = ""
    _only(target, [] if why else names, lambda path: path.name in names or _is_law(path))
    return [("laws", why)] if why else []


def _tasks(
    study: Study, folder: Path, out: Path, found: Mapping[str, dict[str, Any]], same: Collection[str]
) -> list[tuple[str, str]]:
    """Copy the table of tasks if it has every task and run of the study; else remove it, and say why.

    A run that diverged has no rows in it. What was published stays where its runs are the `same`: weights
    are not published, so elsewhere nobody could make it again.
    """
    if not study.tasks:
        (out / "tasks.csv").unlink(missing_ok=True)
        return []
    wanted = {(name, run) for name, task in study.tasks.items() for run in select(task, study.runs)}
    diverged = {run for run, point in found.items() if point["status"] != "finished"}
    whole = {(name, run) for name, run in wanted if run not in diverged}

    def complete(path: Path) -> bool:
        if not path.exists():
            return False
        table = files.read_table(path, "task", "run")[["task", "run"]]
        return set(table.itertuples(index=False, name=None)) == whole

    if complete(folder / "tasks.csv"):
        _copy(folder, out, ["tasks.csv"])
        return []
    if {run for _, run in wanted} <= set(same) and complete(out / "tasks.csv"):
        return []
    (out / "tasks.csv").unlink(missing_ok=True)
    return [("tasks", "not done with every run yet")]


def _figures(study: Study, out: Path, say: Say) -> None:
    """Draw every figure from what is published; only the PNG is kept, for the rest can be drawn again."""
    with tempfile.TemporaryDirectory() as drawn:
        names = [f"{name}.png" for name in draw_all(study, out, Path(drawn), say)]
        _copy(Path(drawn), out / "figures", names)
    _only(out / "figures", names, _is_figure)


def draw_all(study: Study, source: Path, out: Path, say: Say) -> list[str]:
    """Draw the figures of a study, whose tables are in `source`, into the folder `out`.

    Returns their names; says which were left out because what they show is not there yet. Raises InputError.
    """
    fitted = all((source / "laws" / f"{law}.json").exists() for law in study.laws)
    done = _tasks_in(source)
    names = [*study.figures] * fitted + [name for name in study.tasks if name in done]
    for name in names:
        (of_tasks if name in TASKS else of_study).draw(name, study, source, out / f"{name}.png")
    left = [name for name in (*study.figures, *study.tasks) if name not in names]
    if left:
        say(f"{source}: has not yet what {', '.join(left)} show")
    return names


def _tasks_in(source: Path) -> set[str]:
    """Tasks that have a row in the table of `source`: one whose runs all diverged has none."""
    path = files.table_path(source, "tasks")
    return set(files.read_table(path, "task")["task"]) if path.exists() else set()


def _differ(one: Path, other: Path) -> bool:
    return not one.exists() or one.read_bytes() != other.read_bytes()


def _copy(source: Path, target: Path, names: Collection[str]) -> None:
    for name in names:
        with files.atomic(target / name) as part:
            shutil.copyfile(source / name, part)


def _is_law(path: Path) -> bool:
    """Whether publish wrote it: the laws of a study that has other laws now."""
    if path.name == "laws.csv":
        return True
    try:
        return path.suffix == ".json" and files.read_json(path, "formula", "law")["law"] == path.stem
    except InputError:
        return False


def _is_figure(path: Path) -> bool:
    known = (*of_study.FIGURES, *TASKS)
    return path.suffix == ".png" and (path.stem in known or path.stem.startswith(of_study.OF_A_LAW))


def _only(folder: Path, names: Collection[str], ours: Callable[[Path], bool]) -> None:
    """Remove all other files of `ours` from a folder, and the folder where none is left."""
    if folder.exists():
        for path in folder.iterdir():
            if path.name not in names and path.is_file() and ours(path):
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
