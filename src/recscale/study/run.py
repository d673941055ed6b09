"""One training: everything that decides its numbers, in parts, and its spec, name and cells of a table.

A run is flat in JSON; a key belongs to one part. Imports nothing heavy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from fractions import Fraction
from functools import cache
from typing import Any

from recscale.errors import InputError
from recscale.study import keys
from recscale.study.keys import key, needed
from recscale.study.problems import PROBLEMS
from recscale.study.schema import check
from recscale.study.shapes import SHAPES, Shape

# Bumped by hand exactly when a change makes a training give other numbers: every run retrains.
TRAIN_RECIPE = 2
DATA_AXES = ("users", "history", "time")
SEEDS: dict[str, Any] = {"minimum": 0, "maximum": 2**32 - 1}


@dataclass(frozen=True)
class Windows:
    """How sequences are cut to inputs (next_item)."""

    max_len: int = key(50, "items of context (LSRM: 50)", minimum=1)
    stride: int = key(50, "a window takes the loss on its last `stride` positions", minimum=1)

    def check(self) -> None:
        if self.stride > self.max_len:
            raise InputError(f"stride: {self.stride} is above max_len={self.max_len}")


@dataclass(frozen=True)
class Course:
    """How long and at which rates it is trained, whatever the problem."""

    learning_rate: float = needed(
        "peak rate of Adam: a number, or the rule base * (width of the model / width)^power",
        type=["number", "object"],
        exclusiveMinimum=0,
        additionalProperties=False,
        required=["base", "width", "power"],
        properties={
            "base": {"type": "number", "exclusiveMinimum": 0, "description": "rate at `width`"},
            "width": {"type": "integer", "minimum": 1},
            "power": {
                "type": "number", "minimum": -2, "maximum": 0,
                "description": "-1 as 1/width, 0 the same for all",
            },
        },
    )  # fmt: skip
    epochs: int = key(1, minimum=1)
    batch_size: int = key(32, "windows a step", minimum=1)
    schedule: str = key(
        "cosine",
        "cosine to zero; or constant, with a linear cooldown to zero before the end and before each of "
        "test_epochs",
        enum=["cosine", "constant"],
    )
    warmup: float = key(
        0.1,
        "linear, share of all steps; under a constant schedule of the steps to the first of test_epochs",
        minimum=0,
        exclusiveMaximum=1,
    )
    cooldown: float = key(
        0.2, "constant schedule: share of the training that a cooldown takes",
        exclusiveMinimum=0, exclusiveMaximum=1,
    )  # fmt: skip
    test_epochs: tuple[int, ...] = key(
        (),
        "epochs whose weights are evaluated on test too, never used to choose; under a constant schedule a "
        "finished point each, by a cooldown of its own",
        items={"type": "integer", "minimum": 1},
    )
    weight_decay: float = key(0.0, "L2 inside Adam (LSRM 1e-8)", minimum=0)
    decoupled_decay: bool = key(False, "weight decay apart from the gradient (AdamW)")
    switch_patience: int = key(
        0,
        "epochs without a better valid loss after which SGD takes over from Adam, at the best weights "
        "(LSRM); 0 never",
        minimum=0,
    )
    switch_learning_rate: float | None = key(
        None, "of SGD, times the schedule; needed with switch_patience", exclusiveMinimum=0
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "test_epochs", tuple(sorted(set(self.test_epochs))))

    def check(self) -> None:
        if self.test_epochs and self.test_epochs[-1] > self.epochs:
            raise InputError(f"test_epochs: {self.test_epochs[-1]} is above epochs={self.epochs}")
        if (self.switch_patience > 0) != (self.switch_learning_rate is not None):
            raise InputError("switch_patience and switch_learning_rate: the switch to SGD needs both")


@dataclass(frozen=True)
class Sample:
    """Which share of the data it is trained on."""

    data_fraction: float = key(
        1.0, "share of the data along data_axis, nested: 0.25 is inside 0.5", exclusiveMinimum=0, maximum=1
    )
    data_axis: str = key(
        "users",
        "what data_fraction is a share of: users; history, the input of every target cut to its most recent "
        "items (D stays, needs stride 1); time, the train interactions from a moment on. Below data_fraction "
        "1 only, all the data is of axis users",
        enum=list(DATA_AXES),
    )
    data_seed: int = key(0, "another sample of users; 0 is that of the prepared data", **SEEDS)

    def check(self) -> None:
        if self.data_axis != "users" and self.data_fraction == 1:  # or one run would have two names
            raise InputError(
                f"data_axis: {self.data_axis} needs a data_fraction below 1; "
                "the run on all the data is of axis users"
            )
        if self.data_seed and (self.data_axis != "users" or self.data_fraction == 1):
            raise InputError(
                f"data_seed: {self.data_seed} draws a sample of users: it needs data_axis: users and a "
                "data_fraction below 1"
            )


@dataclass(frozen=True)
class Whole:
    """Keys of the run as a whole."""

    model: str = key("decoder", "the family of the model", enum=list(SHAPES))
    seed: int = key(1, **SEEDS)


INPUTS = {"next_item": Windows}  # the part of each problem that says what a model is given
# The order of the columns of points.csv and of a folder's name; the keys of a part that are not named follow.
FIRST = ("dataset", "n_layers", "d_model", "learning_rate", "n_heads", "max_len", "stride")


@cache
def rules(problem: str = "next_item", model: str = "decoder") -> dict[str, Any]:
    """JSON schema of the keys that a study file may set of a run of this problem and family.

    A key of another problem or family is refused, and the message names those that are legal.
    """
    parts = (Whole, INPUTS[problem], SHAPES[model], Course, Sample)
    return {"type": "object", "allOf": [keys.schema(p) for p in parts], "unevaluatedProperties": False}


@dataclass(frozen=True)
class Run:
    """One training: everything that decides its numbers, and nothing else. Made by `Run.of` from flat keys.

    A key at its default is left out of the spec, so a new key with a default retrains nothing.
    A default therefore never changes without a bump of TRAIN_RECIPE.
    """

    dataset: str
    shape: Shape
    windows: Windows
    course: Course
    sample: Sample
    model: str = "decoder"
    seed: int = 1
    problem: str = "next_item"
    recipe: int = TRAIN_RECIPE

    @classmethod
    def of(cls, dataset: str, problem: str = "next_item", recipe: int = TRAIN_RECIPE, **given: Any) -> Run:
        """A run of flat keys. Raises InputError, beginning with the size, for what is not legal."""
        family = str(given.get("model", Whole.model))
        if problem not in PROBLEMS or family not in SHAPES:
            legal = f"{', '.join(PROBLEMS)}; {', '.join(SHAPES)}"
            raise InputError(f"problem {problem}, model {family}: legal are {legal}")
        size = "x".join(str(given[name]) for name in keys.required(SHAPES[family]) if name in given)
        absent = [name for name, usual in _defaults(problem, family).items() if usual is None]
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}  # as in JSON and YAML
        check(
            {k: v for k, v in plain.items() if v is not None or k not in absent}, rules(problem, family), size
        )
        if isinstance(given.get("learning_rate"), Mapping):
            raise InputError(f"{size}: learning_rate: a run has a number, rules are for study files")
        try:
            shape, windows, course, sample, own = (
                keys.made(part, given) for part in (SHAPES[family], INPUTS[problem], Course, Sample, Whole)
            )
            for part in (shape, windows, course, sample):
                part.check()
        except InputError as error:
            raise InputError(f"{size}: {error}") from error
        if sample.data_axis == "history" and windows.stride != 1:
            raise InputError(
                f"{size}: data_axis: history needs stride: 1, not {windows.stride}: each target has an "
                "input of its own length, so a window of its own"
            )
        return cls(dataset, shape, windows, course, sample, own.model, own.seed, problem, recipe)

    def but(self, **changed: Any) -> Run:
        """The same run with other values of these keys."""
        return Run.of(**{**self.flat(), **changed})

    @property
    def context(self) -> int:
        """Items of the longest training input: max_len, less where the axis is history."""
        whole, sample = self.windows.max_len, self.sample
        return part_of(sample.data_fraction, whole) if sample.data_axis == "history" else whole

    @property
    def size(self) -> str:
        """Name of the model shape, of a decoder layers x width, e.g. `2x64`."""
        return self.shape.label

    def flat(self) -> dict[str, Any]:
        """All keys by name, flat, in the order of the columns of points.csv."""
        flat: dict[str, Any] = {"dataset": self.dataset}
        for part in (self.shape, self.windows, self.course, self.sample):
            flat |= vars(part)
        flat |= {"seed": self.seed, "recipe": self.recipe, "model": self.model, "problem": self.problem}
        return {name: flat[name] for name in FIRST if name in flat} | flat

    def spec(self) -> str:
        """Canonical JSON: sorted keys, defaults left out, the recipe always in.

        Snakemake compares this string to decide whether a run is the one on disk.
        """
        usual = _defaults(self.problem, self.model)
        kept = {k: v for k, v in self.flat().items() if k == "recipe" or v != usual.get(k, MISSING)}
        return json.dumps(kept, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_spec(cls, spec: str) -> Run:
        """The run a canonical JSON string names. Raises InputError on an unknown or missing key."""
        try:
            found = json.loads(spec)
        except ValueError as error:
            raise InputError(f"spec {spec!r}: is not JSON: {error}") from error
        given = found if isinstance(found, dict) else {}
        problem, model = str(given.get("problem", "next_item")), str(given.get("model", Whole.model))
        if given and (problem not in PROBLEMS or model not in SHAPES):
            raise InputError(f"spec: problem {problem}, model {model}: is not known to this version")
        needs = keys.required(SHAPES[model]) if given else ["n_layers", "d_model"]
        known = ["dataset", *needs, "learning_rate", "problem", "recipe"]
        for part in (SHAPES.get(model, object), INPUTS[problem], Course, Sample, Whole) if given else ():
            known += [name for name in keys.names(part) if name not in known]
        for name in given:
            if name not in known:
                raise InputError(f"spec: {name}: is not one of {', '.join(known)}")
        if not given or not {"dataset", *needs, "learning_rate"} <= set(given):
            raise InputError(
                f"spec {spec!r}: is not a JSON object with {', '.join(['dataset', *needs, 'learning_rate'])}"
            )
        for name in (*needs, "recipe"):
            if not isinstance(given.get(name, 1), int) or given.get(name, 1) < 1:
                raise InputError(f"spec: {name}: {given[name]!r} is not a whole number from 1")
        return cls.of(**given)

    def name(self) -> str:
        """Readable folder name: shape, epochs, rate, data, seed; then what is not at default."""
        course, sample = self.course, self.sample
        parts = [self.size, f"e{course.epochs}", f"lr{course.learning_rate:g}"]
        parts += [f"f{sample.data_fraction:g}", f"s{self.seed}"]
        shown = {"dataset", "n_heads", "learning_rate", "epochs", "data_fraction", "seed", "recipe"}
        shown |= set(keys.required(type(self.shape)))
        usual = _defaults(self.problem, self.model)
        for one, value in self.flat().items():
            if one not in shown and value != usual.get(one, MISSING):
                parts.append(f"{one}{_short(value)}")
        return "-".join(parts)


@cache
def _defaults(problem: str, model: str) -> dict[str, Any]:
    """The default of every key of such a run that has one."""
    found: dict[str, Any] = {"problem": "next_item", "recipe": TRAIN_RECIPE}
    for part in (SHAPES[model], INPUTS[problem], Course, Sample, Whole):
        found |= {one.name: one.default for one in fields(part) if one.default is not MISSING}
    return found


def part_of(fraction: float, whole: int) -> int:
    """ceil(fraction * whole) of the decimal that was written: 0.07 of 100 is 7, in floating point 8."""
    return math.ceil(Fraction(str(fraction)) * whole)


def _short(value: Any) -> str:
    """A setting as part of a folder name."""
    if isinstance(value, tuple):
        return ".".join(str(part) for part in value)
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def settings(run: Run) -> dict[str, Any]:
    """The settings of a run as cells of a table: dropouts as they were used, epochs tested as text.

    Problem and family are in it where they are not the usual ones.
    """
    usual = _defaults(run.problem, run.model)
    cells = {k: v for k, v in run.flat().items() if k not in ("problem", "model") or v != usual[k]}
    cells["test_epochs"] = ".".join(map(str, run.course.test_epochs)) or "none"
    for name in ("dropout_last", "dropout_embedding"):
        if name in cells and cells[name] is None:
            cells[name] = cells["dropout"]
    if run.course.switch_learning_rate is None:
        cells["switch_learning_rate"] = 0.0  # a blank would split groups of like runs
    return cells


def training_flops(run: Run, n_items: int, positions: int, targets: int) -> int:
    """C, FLOPs of training: 2 per multiply-add, backward counted as twice the forward.

    Per input position what the shape says of its products and of attention (over T = run.context positions,
    max_len unless histories are cut, whatever the length of the window); per target 6 n_items width for the
    output layer. `positions` and `targets` are summed over all epochs. Look-ups, norms, softmax and the
    optimizer are not counted.
    """
    work = run.shape.work(run.context)
    return positions * int(work.products + work.mixed) + targets * 6 * n_items * work.width


def relative_cost(run: Run) -> int:
    """A number that orders runs by their training time; the catalogue is not known here."""
    positions = max(1.0, run.context / run.windows.stride)  # computed for each target
    per_target = positions * run.shape.n + 4000 * run.shape.work(run.context).width
    targets = 1.0 if run.sample.data_axis == "history" else run.sample.data_fraction  # share of all
    return int(per_target * run.course.epochs * targets)
