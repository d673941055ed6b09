"""What a run costs: seconds and bytes, by formulas. Imports nothing heavy: Snakemake asks it for every job.

Parameters P and work a position (shapes.Work) are counted by the shape, FLOPs C by run.training_flops. A step
of B windows of T positions takes the sum of these times, times UNCOUNTED:

- products of linear layers and of the loss: FLOPs at the rate of a large product, `Costs.products`;
- what comes on top of that, because a product is narrow and because of all elementwise work: `layer` seconds
  an element of a layer's width, `logit` seconds a logit. Recomputation adds a third to the layers;
- attention: `score` seconds a score (a head, query and key), or its FLOPs at the rate `attention`;
- dropout at its own rate, the optimizer: UPDATE_BYTES a parameter over the bandwidth;
- calls: those of the shape and STEP_CALLS a step, each a fixed time;
- on n devices: 2 (n - 1) / n of the float32 gradients over the link, as if nothing overlapped.

How far narrow products stay behind large ones differs more between CPUs than anything else (without AMX,
at width 64, by a tenth; with AMX by three quarters), so plan.here measures `Costs` with the model's
own code, at two widths and two catalogues; between the two the logarithm decides, beyond them the
nearer counts. Of a GPU only FLOP/s and bandwidth are known: devices.assumed makes Costs of them.

A run is its steps (those of branches too), its evaluations (float32: one window a user forward, and the
scores of all items) and STARTUP. Checkpoints, at most 2 %, come on top. A task of a trained run is
so many evaluations (study/problems.py), with the model in the run's precision, and STARTUP.

Memory of steps is BASE + 12 P bytes (weights, Adam) + the larger of the gradients (4 P) and SLACK times
what backward waits for (`Shape.activation_bytes`, `loss_bytes`); several processes hold the gradients all
along (4 P). An evaluation of BLOCK users uses a GPU's freed memory again, but comes on top in a CPU's
heap. A run on a CPU also holds its data, the best weights (4 P) and in bfloat16 KERNELS.

The bytes and calls count the operations of one step (PyTorch 2, plain attention). here.CALL, UNCOUNTED, BASE,
SLACK, HOLES and KERNELS come from measurements on two CPUs; tests/plan/test_plan.py compares with the one it
runs on. What is said of GPUs is assumed: nothing was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recscale import files
from recscale.errors import InputError
from recscale.plan.devices import Device
from recscale.study.execution import BLOCK, CHUNK_BYTES, CHUNK_ROWS, Execution
from recscale.study.problems import PROBLEMS
from recscale.study.run import Run, Sample
from recscale.study.schedule import legs
from recscale.study.study import WITHHELD

UPDATE_BYTES = 50  # fused Adam 28, casts and sums of gradients
STEP_CALLS = 230
STARTUP = 5.0  # seconds: imports, data
UNCOUNTED = 1.05
MIB = 2**20
BASE = {"cpu": 360 * MIB, "cuda": 1024 * MIB}  # Python and torch; on a GPU context and workspaces
DATA_BASE, DATA_BYTES = 100 * MIB, 10  # the reader of the data; a train target
SLACK = {"cpu": 1.3, "cuda": 1.1}  # what an allocator holds over what is used
HOLES = {2: 13, 4: 37}  # bytes by e: recomputation's freed tensors between kept ones in a CPU's heap
KERNELS = 60 * MIB  # that oneDNN makes in bfloat16, one for every shape, and keeps


# --- time ---------------------------------------------------------------------------------------


def _pass_seconds(
    device: Device, how: Execution, run: Run, n_items: int, windows: float, targets: float, share: float
) -> float:
    """Seconds of the model and its output layer. `share`: 1 forward and backward, 1/3 forward alone."""
    work, positions = run.shape.work(run.context), windows * run.context
    costs = device.bfloat16 if how.precision == "bfloat16" else device.float32
    kept = work.scores if how.attention == "plain" or device.kind == "cpu" else 0
    layers = costs.position_seconds(work) + kept * costs.score + work.mixed / costs.attention
    again = how.recompute and share == 1
    drawn = positions * work.draws / device.randoms + work.dropouts * device.call
    dropped = share == 1 and work.draws > 0
    return (
        share * (4 / 3 if again else 1) * positions * layers
        + share * targets * n_items * costs.logit_seconds(work.width, n_items)
        + positions * work.width * 80 / device.bandwidth
        + (drawn * (2 if again else 1) if dropped else 0.0)
        + share * (work.calls + STEP_CALLS) * device.call
    )


def step_seconds(device: Device, how: Execution, run: Run, n_items: int, targets: float) -> float:
    """Seconds of a training step with `targets` targets, on how.processes devices together."""
    n, parameters = how.processes, run.shape.n_total(n_items, run.windows.max_len)
    windows = math.ceil(run.course.batch_size / n)
    update = UPDATE_BYTES * parameters / device.bandwidth
    exchange = 2 * (n - 1) / n * 4 * parameters / device.link
    return UNCOUNTED * (_pass_seconds(device, how, run, n_items, windows, targets / n, 1) + update + exchange)


def run_seconds(device: Device, how: Execution, run: Run, data: Counts) -> float:
    """Seconds of a whole run: the steps of every leg, every evaluation, and STARTUP."""
    windows, _, targets = data.epoch(run)
    course = run.course
    steps = math.ceil(windows / course.batch_size)
    trained = sum(leg.end - leg.begin for leg in legs(course, steps))
    branches = [e for e in course.test_epochs if course.schedule == "constant" and e < course.epochs]
    evaluations = course.epochs + 1 + len(course.test_epochs) + len(branches)  # valid, the last test, others
    step = step_seconds(device, how, run, data.n_items, targets / steps)
    answering = _answer_seconds(device, replace(how, precision="float32"), run, data)
    return trained * step + evaluations * answering / how.processes + STARTUP


def task_seconds(device: Device, how: Execution, run: Run, data: Counts, task: str) -> float:
    """Seconds of a task of a trained run, in one process and at most: short histories leave users out."""
    return PROBLEMS[run.problem].tasks[task] * _answer_seconds(device, how, run, data) + STARTUP


def _answer_seconds(device: Device, how: Execution, run: Run, data: Counts) -> float:
    """Seconds in which one process scores all items for every user, by a window each."""
    full = replace(run, sample=Sample())  # whole inputs
    return (
        UNCOUNTED * data.users / BLOCK * _pass_seconds(device, how, full, data.n_items, BLOCK, BLOCK, 1 / 3)
    )


# --- memory -------------------------------------------------------------------------------------


def loss_bytes(run: Run, n_items: int, targets: int, how: Execution) -> int:
    """Bytes of a chunk of logits, the output layer in the precision and both gradients of the loss."""
    e, d = how.itemsize, run.shape.work(run.context).width
    rows = min(targets, CHUNK_BYTES // (n_items * e), CHUNK_ROWS if how.device == "cpu" else targets)
    return max(1, rows) * n_items * e + n_items * d * (4 + (2 * e if e == 2 else 0)) + 2 * targets * d * e


def step_bytes(run: Run, n_items: int, how: Execution) -> float:
    """Peak memory of a process that only trains, in bytes."""
    gradients = 4 * run.shape.n_total(n_items, run.windows.max_len)
    windows = math.ceil(run.course.batch_size / how.processes)
    positions = windows * run.context
    waiting: float = run.shape.activation_bytes(positions, run.context, how)
    waiting += loss_bytes(run, n_items, positions, how)
    if how.recompute and how.device == "cpu":
        waiting += HOLES[how.itemsize] * positions * run.shape.work(run.context).elements
    held = BASE[how.device] + 3 * gradients + (gradients if how.processes > 1 else 0)
    return held + max(SLACK[how.device] * waiting, gradients)


def run_bytes(run: Run, data: Counts, how: Execution) -> float:
    """Peak memory of a whole run in a process, in bytes: of the GPU where it is one, else the host."""
    weights = 4 * run.shape.n_total(data.n_items, run.windows.max_len)
    max_len = run.windows.max_len
    block = BLOCK * (max_len * run.shape.answer_bytes(max_len, how) + 14 * data.n_items)
    evaluating, training = SLACK[how.device] * block, step_bytes(run, data.n_items, how)
    if how.device == "cuda":
        return max(training, BASE[how.device] + 3 * weights + evaluating)
    host = weights + DATA_BASE + DATA_BYTES * data.targets
    if how.precision == "bfloat16":
        host += KERNELS
    return training + evaluating + host


# --- data ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """A dataset in numbers. exact: counts windows, positions and targets of a run, where it is prepared."""

    users: int
    n_items: int
    targets: int  # train targets of all users
    exact: Callable[[Run], tuple[int, int, int]] | None = None

    def epoch(self, run: Run) -> tuple[int, int, int]:
        """Windows, positions and targets of an epoch of `run`.

        Where they are not counted exactly, as if users had exponential lengths: 2 % off on MovieLens-1M.
        """
        if self.exact is not None:
            return self.exact(run)
        n, mean = math.ceil(self.users * run.sample.data_fraction), self.targets / self.users
        longer = math.exp(-run.windows.max_len / mean)
        if run.sample.data_axis == "history":  # a window a target of all users
            positions = run.sample.data_fraction * self.users * mean**2 * (1 - longer)
            return self.targets, round(positions), self.targets
        later = longer / (1 - math.exp(-run.windows.stride / mean))  # windows after a user's first
        positions = n * (mean * (1 - longer) + run.windows.max_len * later)
        return math.ceil(n * (1 + later)), round(positions), round(n * mean)


def stated(dataset: str, folder: Path, entry: Mapping[str, Any]) -> Counts:
    """Counts of a prepared dataset folder, else by `expect` of its entry in the datasets file.

    `reported` of the entry comes before `expect`, by which every item is in the catalogue, and all users
    give items to the trajectory task or none.
    Raises InputError where neither says enough.
    """
    if (folder / "stats.json").exists():
        stats = files.read_json(folder / "stats.json", "users", "n_items", "targets")
        return Counts(stats["users"]["kept"], stats["n_items"], stats["targets"]["train"])
    if "reported" in entry:
        return Counts(*(entry["reported"][key] for key in ("users", "items", "targets")))
    expect = entry.get("expect", {})
    missing = [key for key in ("rows", "users", "items") if key not in expect]
    if missing:
        raise InputError(
            f"{folder}: is not there, and the entry of {dataset} expects no {', '.join(missing)}: "
            "prepare the dataset first"
        )
    withheld = WITHHELD if expect["rows"] > entry.get("withhold_above", 15) * expect["users"] else 0
    targets = expect["rows"] - (3 + withheld) * expect["users"]
    return Counts(expect["users"], expect["items"], max(1, targets))
