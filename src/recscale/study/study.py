"""A study file names the runs; this module turns it into runs, laws, figures and tasks.

Imports nothing heavy: Snakemake reads it at every start, on every cluster job.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from recscale.errors import InputError
from recscale.laws.names import NAMES
from recscale.study import keys, schema, shapes
from recscale.study.problems import PROBLEMS
from recscale.study.run import DATA_AXES, INPUTS, Course, Run, Sample, Whole, rules
from recscale.study.schema import check, read_yaml
from recscale.study.shapes import SHAPES

PREPARE_RECIPE = 1  # bumped by hand where prepared data change
TASK_RECIPE = 1  # and for the tasks of a run
WITHHELD = 10  # items of the trajectory task

# By column of the points: keys over which the runs of one law of it may differ, beside those that make a
# size where the column counts parameters; learning rates belong to a size. A law of C may mix anything.
OF_DATA = {"data_axis", "data_fraction", "data_seed", "learning_rate", "seed"}
LAW_MAY_VARY = {
    "N": {"learning_rate", "seed"},
    "N_total": {"learning_rate", "seed"},
    "D": OF_DATA,
    "D_seen": OF_DATA | {"epochs"},
}
OF_SIZE = ("N", "N_total")
LOSSES = ("test_loss", "valid_loss")
TASKS = tuple(PROBLEMS["next_item"].tasks)
RESERVED = ("data", "published")  # folders of results/ that are no study


@dataclass(frozen=True)
class Law:
    """What to fit: `form` of `y` over the runs that `where` selects.

    x: the column of the points for each axis of the form. hold_out: by axis, how many of its largest
    values are predicted instead of fitted.
    """

    name: str
    form: str
    x: Mapping[str, str]
    y: str
    where: Mapping[str, Any]
    hold_out: Mapping[str, int]

    @property
    def columns(self) -> str:
        """The columns of x as text, e.g. `N, D`."""
        return ", ".join(self.x.values())

    def text(self) -> str:
        """Canonical JSON: the same for the same law, whatever the order of its keys."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Task:
    """A task of next_item.tasks, to be done with the runs that `where` selects."""

    name: str
    where: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """A study: title, runs in file order, laws to fit, figures to draw (each law's too), tasks to do."""

    name: str
    title: str
    dataset: str
    runs: Mapping[str, Run]
    laws: Mapping[str, Law]
    figures: tuple[str, ...]
    tasks: Mapping[str, Task] = dataclasses.field(default_factory=dict)


@cache
def study_rules() -> dict[str, Any]:
    """JSON schema of a study file: study.schema.yaml, with names and keys that stand elsewhere filled in."""
    made = deepcopy(schema.rules("study"))
    properties, grid = made["properties"], made["properties"]["grid"]["items"]["properties"]
    facts = PROBLEMS.values()
    properties["problem"]["enum"] = list(PROBLEMS)
    properties["figures"]["items"]["enum"] = [name for one in facts for name in one.figures]
    properties["tasks"]["propertyNames"]["enum"] = [name for one in facts for name in one.tasks]
    measured = [
        name for one in facts for name, metric in one.metrics.items() if metric.law and name != "loss"
    ]
    made["$defs"]["y"]["enum"] = [*LOSSES, *measured]
    legal: dict[str, Any] = {}
    for part in (Whole, *INPUTS.values(), *SHAPES.values(), Course, Sample):
        for key, one in keys.schema(part)["properties"].items():
            # Of two families' keys of one name either rule may hold; which one, is checked for each run.
            legal[key] = one if legal.get(key, one) == one else {"anyOf": [legal[key], one]}
    made["$defs"]["run"]["properties"] = legal
    grid |= dict.fromkeys(legal, True) | {"test_epochs": grid["test_epochs"]}
    return made


def load(path: str | Path) -> Study:
    """Read and check a study file.

    Raises InputError, one line with file, key and what is legal, for anything not in `study_rules`, for two
    runs on one path, and for unknown size names.
    """
    path = Path(path)
    content = read_yaml(path, study_rules())
    runs: dict[str, Run] = {}
    sizes: dict[str, str] = {}  # of each run, the name in the file
    for size, given in _grid(content, path):
        try:
            run = Run.of(**given)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        name = run.name()
        if runs.setdefault(name, run) != run:
            raise InputError(
                f"{path}: grid: two runs share the folder {name}: {runs[name].spec()} and {run.spec()}"
            )
        if sizes.setdefault(name, size) != size:
            raise InputError(f"{path}: sizes: {sizes[name]} and {size} give the same run {name}")
    of_file = _Sizes.of(content["sizes"], sizes, runs)
    laws = {
        name: _law(name, law, of_file, f"{path}: laws.{name}")
        for name, law in content.get("laws", {}).items()
    }
    for law in laws.values():
        _check_law(law, runs, f"{path}: laws.{law.name}")
    tasks = {
        name: Task(name, _where(task, of_file, f"{path}: tasks.{name}"))
        for name, task in content.get("tasks", {}).items()
    }
    for task in tasks.values():
        _check_where(task, runs, f"{path}: tasks.{task.name}")
    if path.stem in RESERVED:
        raise InputError(f"{path}: a study cannot be named {path.stem}: results/{path.stem} is taken")
    return Study(
        path.stem,
        content["title"],
        content["dataset"],
        runs,
        laws,
        (*content.get("figures", ()), *(f"fit_{law}" for law in laws)),
        tasks,
    )


def select(part: Law | Task, runs: Mapping[str, Run]) -> list[str]:
    """Names of the runs a law is fitted on or a task is done with: those that equal `where` on every key,
    where it lists values one of them.

    A run on all the data ends every axis and is in every sample, so it has any data_axis and data_seed.
    """
    return [
        name
        for name, run in runs.items()
        if all(
            (run.flat() | {"size": run.size, "run": name}).get(key)
            in (value if isinstance(value, list) else [value])
            or (key in ("data_axis", "data_seed") and run.sample.data_fraction == 1)
            for key, value in part.where.items()
        )
    ]


@dataclass(frozen=True)
class _Sizes:
    """The sizes of a file: the runs of each, and those whose runs are labelled by something else."""

    runs: Mapping[str, list[str]]
    renamed: set[str]

    @classmethod
    def of(cls, names: Iterable[str], sizes: Mapping[str, str], runs: Mapping[str, Run]) -> _Sizes:
        """sizes: of each run, the name in the file."""
        made = {name: [run for run, size in sizes.items() if size == name] for name in names}
        return cls(made, {name for name in made if any(runs[run].size != name for run in made[name])})


def _where(part: Mapping[str, Any], sizes: _Sizes, where: str) -> dict[str, Any]:
    """`where` of a law or task; a size that is called otherwise than its label stands for its runs."""
    chosen = dict(part.get("where", {}))
    if "run" in chosen:
        raise InputError(f"{where}.where: run is not one of size and the keys of runs")
    wanted = chosen.get("size")
    names = [str(name) for name in (wanted if isinstance(wanted, list) else [wanted])]
    if not sizes.renamed & set(names):
        return chosen
    for name in names:
        if not sizes.runs.get(name):
            why = (
                "has no runs in the grid" if name in sizes.runs else f"is not one of {', '.join(sizes.runs)}"
            )
            raise InputError(f"{where}.where.size: {name} {why}")
    del chosen["size"]
    return chosen | {"run": [run for name in names for run in sizes.runs[name]]}


def _law(name: str, keys: Mapping[str, Any], of_file: _Sizes, where: str) -> Law:
    """A law of the file; a lone column or number is that of its first axis.

    Raises InputError where the form has other axes, or is no form for this y.
    """
    form, x, y = keys.get("form", "saturating_power"), keys["x"], keys.get("y", LOSSES[0])
    held = keys.get("hold_out", {})
    x = x if isinstance(x, Mapping) else {"x": x}
    x = _by_axis(form, x, y, where)
    held = held if isinstance(held, Mapping) else {next(iter(x)): held}
    for axis in held:
        if axis not in x:
            raise InputError(f"{where}.hold_out: {axis} is not one of {', '.join(x)}")
    return Law(name, form, x, y, _where(keys, of_file, where), held)


def _by_axis(form: str, x: Mapping[str, str], y: str, where: str) -> dict[str, str]:
    """x in the order of the axes of the form."""
    if form not in NAMES:
        raise InputError(f"{where}.form: {form} is not one of {', '.join(NAMES)}")
    chosen = NAMES[form]
    if set(x) != set(chosen.axes):
        needs = "a column" if chosen.axes == ("x",) else f"a column for each of {', '.join(chosen.axes)}"
        raise InputError(f"{where}.x: {form}, {chosen.formula.split(';')[0]}, needs {needs}")
    if not chosen.suits(y in LOSSES):
        legal = [name for name, one in NAMES.items() if one.suits(y in LOSSES)]
        raise InputError(f"{where}.form: {form} is none for {y}; legal: {', '.join(legal)}")
    return {axis: x[axis] for axis in chosen.axes}


def _check_where(part: Law | Task, runs: Mapping[str, Run], where: str) -> list[Run]:
    """The runs that `where` selects. Raises InputError where it names no settings, or no run."""
    legal = ["size", *dict.fromkeys(key for run in runs.values() for key in run.flat())]
    for key in part.where:
        if key not in (*legal, "run"):
            raise InputError(f"{where}.where: {key} is not one of {', '.join(legal)}")
    axes = part.where.get("data_axis", "users")
    for axis in axes if isinstance(axes, list) else [axes]:
        if axis not in DATA_AXES:
            raise InputError(f"{where}.where.data_axis: {axis} is not one of {', '.join(DATA_AXES)}")
    chosen = [runs[name] for name in select(part, runs)]
    if not chosen:
        raise InputError(f"{where}.where: selects none of the {len(runs)} runs")
    for key, value in part.where.items():
        for one in value if isinstance(value, list) else ():
            if not select(replace(part, where={**part.where, key: one}), runs):
                raise InputError(f"{where}.where.{key}: {one} selects none of the {len(runs)} runs")
    return chosen


def _check_law(law: Law, runs: Mapping[str, Run], where: str) -> None:
    """Raise InputError where a law would mix runs that do not belong on one curve."""
    chosen = _check_where(law, runs, where)
    columns = set(law.x.values())
    if columns & {"D", "D_seen"}:
        axes = {run.sample.data_axis for run in chosen if run.sample.data_fraction < 1}
        if "history" in axes:
            raise InputError(
                f"{where}.where: x: D is the same in all runs of data_axis history, which cuts inputs and "
                "keeps all targets (only D_input changes); name data_axis users or time"
            )
        if len(axes) > 1:
            raise InputError(f"{where}.where: mixes data_axis {_list(axes)}; name one of them")
    if columns <= set(LAW_MAY_VARY):
        may_vary = set().union(*(LAW_MAY_VARY[column] for column in columns))
        if columns & set(OF_SIZE):
            may_vary |= {key for run in chosen for key in run.shape.SIZE}
        for key in dict.fromkeys(["model", *(key for run in chosen for key in run.flat())]):
            found = {run.flat().get(key) for run in chosen}
            if key not in may_vary and len(found) > 1:
                raise InputError(f"{where}.where: mixes {key} {_list(found)}; name one of them")
        rates: dict[Any, set[float]] = {}
        for run in chosen:
            of = (run.size, run.course.epochs, run.sample, run.seed)
            rates.setdefault(of, set()).add(run.course.learning_rate)
        for (size, *_), found_rates in rates.items():
            if len(found_rates) > 1:
                raise InputError(f"{where}.where: mixes learning_rate {_list(found_rates)} of {size}")
    for axis, number in law.hold_out.items():
        distinct = len({_place(run, law.x[axis]) for run in chosen})
        if number >= distinct:
            raise InputError(f"{where}.hold_out: {number} of {distinct} {law.x[axis]} leaves none to fit")


def _place(run: Run, column: str) -> tuple[Any, ...]:
    """What decides a run's value in a column of the points."""
    size, data = (run.size,), (run.sample.data_fraction, run.sample.data_seed)
    epochs = run.course.epochs
    return {"N": size, "N_total": size, "D": data, "D_seen": (*data, epochs)}.get(
        column, (*size, *data, epochs)
    )


def _list(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in sorted(values, key=lambda v: (str(type(v)), v)))


def _grid(content: Mapping[str, Any], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Size and settings of every run: each block of the grid crosses its sizes with its lists of values."""
    sizes, problem = content["sizes"], content.get("problem", "next_item")
    for number, block in enumerate(content["grid"]):
        chosen = block.get("sizes", "all")
        names = list(sizes) if chosen == "all" else chosen
        axes = {key: value for key, value in block.items() if key != "sizes"}
        lists = [value if isinstance(value, list) else [value] for value in axes.values()]
        if [] in lists:
            raise InputError(f"{path}: grid.{number}: an empty list gives no run")
        for name in names:
            if name not in sizes:
                raise InputError(f"{path}: grid.{number}.sizes: {name} is not one of {', '.join(sizes)}")
            for values in itertools.product(*lists):
                crossed = dict(zip(axes, values, strict=True))
                where = f"{path}: grid.{number} ({name})"
                given = {**content.get("run", {}), **sizes[name], **crossed}
                given = _settings(given, name, problem, where, path)
                yield name, given | {"dataset": content["dataset"], "problem": problem}


def _settings(given: dict[str, Any], size: str, problem: str, where: str, path: Path) -> dict[str, Any]:
    """The keys of one run, with those that its size's name states, a rate for a rule. Raises InputError."""
    family = str(given.get("model", Whole.model))
    if family not in SHAPES:
        raise InputError(f"{where}: model: {family} is not one of {', '.join(SHAPES)}")
    check(given, rules(problem, family), f"{where}, model {family}" if "model" in given else where)
    named = shapes.from_name(size) if family == "decoder" else {}
    for key, value in named.items():
        if given.setdefault(key, value) != value:
            raise InputError(f"{path}: sizes.{size}: {key}: {given[key]} is not that of its name")
    missing = [key for key in keys.required(SHAPES[family]) if key not in given]
    if missing:
        short = " (a name as 2x64 states them)" if family == "decoder" else ""
        raise InputError(f"{path}: sizes.{size}: states no {', '.join(missing)}{short}")
    if "learning_rate" not in given:
        raise InputError(f"{path}: sizes.{size}.learning_rate: is missing")
    rate = given["learning_rate"]
    if isinstance(rate, Mapping):
        rate = peak_rate(rate, keys.made(SHAPES[family], given).work(1).width)
    return given | {"learning_rate": rate}


def peak_rate(rule: Mapping[str, float], width: int) -> float:
    """A learning rate by the rule `base * (width / rule's width) ** power`, of a model of this width.

    Adam's best rate falls with width, for hidden matrices as 1/width (power -1: Yang et al. 2022,
    Tensor Programs V). Two digits are kept, so that specs and folder names stay readable.
    """
    return float(f"{rule['base'] * (width / rule['width']) ** rule['power']:.2g}")


def check_dataset(study: Study, datasets: Path) -> None:
    """Raise InputError unless the study's dataset is in the datasets file."""
    known = read_yaml(datasets, "datasets")
    if study.dataset not in known:
        raise InputError(
            f"config/studies/{study.name}.yaml: dataset: {study.dataset} is not one of "
            f"{', '.join(known)} ({datasets})"
        )
