"""A study file names the runs; this module turns it into specs, paths and counts.

Imports nothing heavy: Snakemake reads it at every start, on every cluster job.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from recscale.errors import InputError
from recscale.laws.names import NAMES
from recscale.study.schema import check, read_yaml

# Bumped by hand exactly when a change makes a training give other numbers: every run retrains.
TRAIN_RECIPE = 2
PREPARE_RECIPE = 1  # the same for prepared data
TASK_RECIPE = 1  # and for the tasks of a run
WITHHELD = 10  # items of the trajectory task

# By column of the points: keys over which the runs of one law of it may differ; learning rates belong
# to a size. A law of C may mix anything.
OF_SIZE = {"n_layers", "d_model", "n_heads", "learning_rate", "seed"}
OF_DATA = {"data_axis", "data_fraction", "data_seed", "learning_rate", "seed"}
LAW_MAY_VARY = {"N": OF_SIZE, "N_total": OF_SIZE, "D": OF_DATA, "D_seen": OF_DATA | {"epochs"}}
LOSSES = ("test_loss", "valid_loss")
DATA_AXES = ("users", "history", "time")
TASKS = ("long_tail", "cold_start", "domains", "robustness", "trajectory")
RESERVED = ("data", "published")  # folders of results/ that are no study


# Keys of a run that a study file does not set among its settings.
NOT_IN_FILE = ("dataset", "n_layers", "d_model", "recipe")


@dataclass(frozen=True)
class Run:
    """One training: everything that decides its numbers, and nothing else.

    A key at its default is left out of the spec, so a new key with a default retrains nothing.
    A default therefore never changes without a bump of TRAIN_RECIPE.
    """

    dataset: str
    n_layers: int
    d_model: int
    learning_rate: float  # peak of the schedule
    n_heads: int = 1
    max_len: int = 50  # items of context (LSRM: 50)
    stride: int = 50  # a window takes the loss on its last `stride` positions
    dropout: float = 0.1  # residual and attention dropout of the first block
    dropout_last: float | None = None  # of the last block, a straight line between; none: as the first
    dropout_embedding: float | None = None  # none: as `dropout`
    epochs: int = 1
    batch_size: int = 32  # windows a step
    schedule: str = "cosine"  # or constant, with a linear cooldown to zero
    warmup: float = 0.1  # share of all steps; of the first `test_epochs` under a constant schedule
    cooldown: float = 0.2  # constant schedule: last share of the training
    test_epochs: tuple[int, ...] = ()  # epochs also evaluated on test; never used to choose
    weight_decay: float = 0.0  # L2 inside Adam (LSRM: 1e-8)
    decoupled_decay: bool = False  # as AdamW does it
    switch_patience: int = 0  # epochs without a better valid loss until SGD follows Adam; 0: never
    switch_learning_rate: float | None = None  # of SGD, times the schedule
    data_fraction: float = 1.0  # nested: 0.25 is inside 0.5
    data_axis: str = "users"  # what data_fraction is a share of: users, history or time
    data_seed: int = 0  # which sample of users; 0: the one of the prepared data
    seed: int = 1
    recipe: int = TRAIN_RECIPE

    def __post_init__(self) -> None:
        settings = {k: v for k, v in asdict(self).items() if k not in NOT_IN_FILE}
        for field in fields(self):
            if field.default is None and settings[field.name] is None:
                del settings[field.name]
        if isinstance(self.test_epochs, tuple):  # a list in JSON and YAML
            settings["test_epochs"] = list(self.test_epochs)
        check(settings, "study", self.size, part="run")
        object.__setattr__(self, "test_epochs", tuple(sorted(set(self.test_epochs))))
        if isinstance(self.learning_rate, Mapping):
            raise InputError(f"{self.size}: learning_rate: a run has a number, rules are for study files")
        for field in fields(self):  # 1 and 1.0 are the same run
            value = getattr(self, field.name)
            kind = {"float": float, "float | None": float, "int": int}.get(str(field.type))
            if kind is not None and value is not None:
                if not math.isfinite(value):
                    raise InputError(f"{self.size}: {field.name}: {value} is not a finite number")
                object.__setattr__(self, field.name, kind(value))
        if self.d_model % self.n_heads:
            raise InputError(f"{self.size}: n_heads: {self.n_heads} does not divide the width {self.d_model}")
        if self.stride > self.max_len:
            raise InputError(f"{self.size}: stride: {self.stride} is above max_len={self.max_len}")
        if self.test_epochs and self.test_epochs[-1] > self.epochs:
            last = self.test_epochs[-1]
            raise InputError(f"{self.size}: test_epochs: {last} is above epochs={self.epochs}")
        if (self.switch_patience > 0) != (self.switch_learning_rate is not None):
            raise InputError(
                f"{self.size}: switch_patience and switch_learning_rate: the switch to SGD needs both"
            )
        if self.data_axis != "users" and self.data_fraction == 1:  # or one run would have two names
            raise InputError(
                f"{self.size}: data_axis: {self.data_axis} needs a data_fraction below 1; "
                "the run on all the data is of axis users"
            )
        if self.data_axis == "history" and self.stride != 1:
            raise InputError(
                f"{self.size}: data_axis: history needs stride: 1, not {self.stride}: each target has an "
                "input of its own length, so a window of its own"
            )
        if self.data_seed and (self.data_axis != "users" or self.data_fraction == 1):
            raise InputError(
                f"{self.size}: data_seed: {self.data_seed} draws a sample of users: it needs data_axis: "
                "users and a data_fraction below 1"
            )

    @property
    def context(self) -> int:
        """Items of the longest training input: max_len, less where the axis is history."""
        return part_of(self.data_fraction, self.max_len) if self.data_axis == "history" else self.max_len

    @property
    def size(self) -> str:
        """Name of the model shape, layers x width, e.g. `2x64`."""
        return f"{self.n_layers}x{self.d_model}"

    def spec(self) -> str:
        """Canonical JSON: sorted keys, defaults left out, the recipe always in.

        Snakemake compares this string to decide whether a run is the one on disk.
        """
        kept = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name == "recipe" or getattr(self, field.name) != field.default
        }
        return json.dumps(kept, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_spec(cls, spec: str) -> Run:
        """The run a canonical JSON string names. Raises InputError on an unknown or missing key."""
        try:
            keys = json.loads(spec)
        except ValueError as error:
            raise InputError(f"spec {spec!r}: is not JSON: {error}") from error
        known = {field.name: field for field in fields(cls)}
        for key in keys if isinstance(keys, dict) else {}:
            if key not in known:
                raise InputError(f"spec: {key}: is not one of {', '.join(known)}")
        required = ("dataset", "n_layers", "d_model", "learning_rate")
        if not isinstance(keys, dict) or not set(required) <= set(keys):
            raise InputError(f"spec {spec!r}: is not a JSON object with {', '.join(required)}")
        for key in ("n_layers", "d_model", "recipe"):
            if not isinstance(keys.get(key, 1), int) or keys.get(key, 1) < 1:
                raise InputError(f"spec: {key}: {keys[key]!r} is not a whole number from 1")
        return cls(**keys)

    def name(self) -> str:
        """Readable folder name: shape, epochs, rate, data, seed; then what is not at default."""
        parts = [self.size, f"e{self.epochs}", f"lr{self.learning_rate:g}"]
        parts += [f"f{self.data_fraction:g}", f"s{self.seed}"]
        shown = [
            "dataset",
            "n_layers",
            "d_model",
            "n_heads",
            "learning_rate",
            "epochs",
            "data_fraction",
            "seed",
            "recipe",
        ]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name not in shown and value != field.default:
                parts.append(f"{field.name}{_short(value)}")
        return "-".join(parts)


def settings(run: Run) -> dict[str, Any]:
    """The settings of a run as cells of a table: dropouts as they were used, epochs tested as text."""
    cells = asdict(run) | {"test_epochs": ".".join(map(str, run.test_epochs)) or "none"}
    for key in ("dropout_last", "dropout_embedding"):
        cells[key] = run.dropout if cells[key] is None else cells[key]
    if run.switch_learning_rate is None:
        cells["switch_learning_rate"] = 0.0  # a blank would split groups of like runs
    return cells


def part_of(fraction: float, whole: int) -> int:
    """ceil(fraction * whole) of the decimal that was written: 0.07 of 100 is 7, in floating point 8."""
    return math.ceil(Fraction(str(fraction)) * whole)


def _short(value: Any) -> str:
    """A setting as part of a folder name."""
    if isinstance(value, tuple):
        return ".".join(str(part) for part in value)
    return f"{value:g}" if isinstance(value, int | float) else str(value)


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


def load(path: str | Path) -> Study:
    """Read and check a study file.

    Raises InputError, one line with file, key and what is legal, for anything not in
    study/schemas/study.schema.yaml, for two runs on one path, and for unknown size names.
    """
    path = Path(path)
    content = read_yaml(path, "study")
    runs: dict[str, Run] = {}
    for spec in _grid(content, path):
        try:
            run = Run(**spec)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        name = run.name()
        if runs.setdefault(name, run) != run:
            raise InputError(
                f"{path}: grid: two runs share the folder {name}: {runs[name].spec()} and {run.spec()}"
            )
    laws = {name: _law(name, law, f"{path}: laws.{name}") for name, law in content.get("laws", {}).items()}
    for law in laws.values():
        _check_law(law, runs, f"{path}: laws.{law.name}")
    tasks = {name: Task(name, task.get("where", {})) for name, task in content.get("tasks", {}).items()}
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
            {**asdict(run), "size": run.size}.get(key) in (value if isinstance(value, list) else [value])
            or (key in ("data_axis", "data_seed") and run.data_fraction == 1)
            for key, value in part.where.items()
        )
    ]


def _law(name: str, keys: Mapping[str, Any], where: str) -> Law:
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
    return Law(name, form, x, y, keys.get("where", {}), held)


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
    legal = ["size", *(field.name for field in fields(Run))]
    for key in part.where:
        if key not in legal:
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
        axes = {run.data_axis for run in chosen if run.data_fraction < 1}
        if "history" in axes:
            raise InputError(
                f"{where}.where: x: D is the same in all runs of data_axis history, which cuts inputs and "
                "keeps all targets (only D_input changes); name data_axis users or time"
            )
        if len(axes) > 1:
            raise InputError(f"{where}.where: mixes data_axis {_list(axes)}; name one of them")
    if columns <= set(LAW_MAY_VARY):
        may_vary = set().union(*(LAW_MAY_VARY[column] for column in columns))
        for key in asdict(chosen[0]):
            found = {getattr(run, key) for run in chosen}
            if key not in may_vary and len(found) > 1:
                raise InputError(f"{where}.where: mixes {key} {_list(found)}; name one of them")
        rates: dict[Any, set[float]] = {}
        for run in chosen:
            of = (run.size, run.epochs, run.data_axis, run.data_fraction, run.data_seed, run.seed)
            rates.setdefault(of, set()).add(run.learning_rate)
        for (size, *_), found_rates in rates.items():
            if len(found_rates) > 1:
                raise InputError(f"{where}.where: mixes learning_rate {_list(found_rates)} of {size}")
    for axis, number in law.hold_out.items():
        distinct = len({_place(run, law.x[axis]) for run in chosen})
        if number >= distinct:
            raise InputError(f"{where}.hold_out: {number} of {distinct} {law.x[axis]} leaves none to fit")


def _place(run: Run, column: str) -> tuple[Any, ...]:
    """What decides a run's value in a column of the points."""
    size, data = (run.size,), (run.data_fraction, run.data_seed)
    return {"N": size, "N_total": size, "D": data, "D_seen": (*data, run.epochs)}.get(
        column, (*size, *data, run.epochs)
    )


def _list(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in sorted(values, key=lambda v: (str(type(v)), v)))


def _grid(content: Mapping[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    """Settings of every run: each block of the grid crosses its sizes with its lists of values."""
    sizes = content["sizes"]
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
            n_layers, d_model = (int(part) for part in name.split("x"))
            shape = {"dataset": content["dataset"], "n_layers": n_layers, "d_model": d_model}
            for values in itertools.product(*lists):
                crossed = dict(zip(axes, values, strict=True))
                settings = {**content.get("run", {}), **sizes[name], **crossed}
                check(settings, "study", f"{path}: grid.{number} ({name})", part="run")
                if "learning_rate" not in settings:
                    raise InputError(f"{path}: sizes.{name}.learning_rate: is missing")
                settings["learning_rate"] = peak_rate(settings["learning_rate"], d_model)
                yield settings | shape


def peak_rate(rule: float | Mapping[str, float], d_model: int) -> float:
    """A learning rate given as it is, or by the rule `base * (d_model / width) ** power`.

    Adam's best rate falls with width, for hidden matrices as 1/width (power -1: Yang et al. 2022,
    Tensor Programs V). Two digits are kept, so that specs and folder names stay readable.
    """
    if not isinstance(rule, Mapping):
        return rule
    return float(f"{rule['base'] * (d_model / rule['width']) ** rule['power']:.2g}")


def check_dataset(study: Study, datasets: Path) -> None:
    """Raise InputError unless the study's dataset is in the datasets file."""
    known = read_yaml(datasets, "datasets")
    if study.dataset not in known:
        raise InputError(
            f"config/studies/{study.name}.yaml: dataset: {study.dataset} is not one of "
            f"{', '.join(known)} ({datasets})"
        )


# --- counts -------------------------------------------------------------------------------------


def n_non_embedding(n_layers: int, d_model: int) -> int:
    """N, the weight matrices of the blocks: 12 n_layers d_model^2 (LSRM, table of sizes).

    4 d^2 of attention (query, key, value, projection) and 8 d^2 of the two feed-forward matrices.
    Biases, norms, positions and the item table are not in it.
    """
    return 12 * n_layers * d_model**2


def n_total(n_layers: int, d_model: int, n_items: int, max_len: int) -> int:
    """Every trained number: blocks with biases and norms, item table (with padding), positions."""
    blocks = n_layers * (12 * d_model**2 + 9 * d_model + 4 * d_model)
    return blocks + (n_items + 1 + max_len) * d_model + 2 * d_model


def training_flops(run: Run, n_items: int, positions: int, targets: int) -> int:
    """C, FLOPs of training: 2 per multiply-add, backward counted as twice the forward.

    Per input position 6 N for the blocks and 12 n_layers d_model T for attention (scores and weighted
    sum over T = run.context positions, max_len unless histories are cut, whatever the length of the
    window); per target 6 n_items d_model for the output layer. `positions` and `targets` are summed
    over all epochs. Look-ups, norms, softmax and the optimizer are not counted.
    """
    n = n_non_embedding(run.n_layers, run.d_model)
    per_position = 6 * n + 12 * run.n_layers * run.d_model * run.context
    return positions * per_position + targets * 6 * n_items * run.d_model


def relative_cost(run: Run) -> int:
    """A number that orders runs by their training time; the catalogue is not known here."""
    positions = max(1.0, run.context / run.stride)  # computed for each target
    per_target = positions * n_non_embedding(run.n_layers, run.d_model) + 4000 * run.d_model
    targets = 1.0 if run.data_axis == "history" else run.data_fraction  # share of all
    return int(per_target * run.epochs * targets)
