"""What a run costs: seconds and bytes, by formulas. Imports nothing heavy: Snakemake asks it for every job.

Parameters P = study.n_total, FLOPs C = study.training_flops. A step of B windows of T positions, width d
and h heads takes the sum of these times, times UNCOUNTED:

- products of linear layers and of the loss: FLOPs at the rate of a large product, `Costs.products`;
- what comes on top of that, because a product is narrow and because of all elementwise work: `layer` seconds
  a position, layer and width, `logit` seconds a logit. Recomputation adds a third to the layers;
- attention: `score` seconds a score (a head, query and key), or its FLOPs at the rate `attention`;
- dropout at its own rate, the optimizer: UPDATE_BYTES a parameter over the bandwidth;
- calls: LAYER_CALLS operations a layer and STEP_CALLS a step, each a fixed time;
- on n devices: 2 (n - 1) / n of the float32 gradients over the link, as if nothing overlapped.

How far narrow products stay behind large ones differs more between CPUs than anything else (without AMX,
at width 64, by a tenth; with AMX by three quarters), so plan.here measures `Costs` with the model's
own code, at two WIDTHS and two catalogues, ITEMS; between the two the logarithm decides, beyond them the
nearer counts. Of a GPU only FLOP/s and bandwidth are known: `assumed` makes Costs of NARROW, ATTENTION and
the bytes that elementwise work moves, LAYER_BYTES d a layer and position, SCORE_BYTES a score and
LOGIT_PASSES over the logits.

A run is its steps (those of branches too), its evaluations (float32: one window a user forward, and the
scores of all items) and STARTUP. Checkpoints, at most 2 %, come on top. A task of a trained run is
TASK_PASSES evaluations, with the blocks in the run's precision, and STARTUP.

Memory of steps is BASE + 12 P bytes (weights, Adam) + the larger of the gradients (4 P) and SLACK times
what backward waits for (`activations`, `loss_bytes`); several processes hold the gradients all along (4 P).
An evaluation of BLOCK users uses a GPU's freed memory again, but comes on top in a CPU's heap. A run on a
CPU also holds its data, the best weights (4 P) and in bfloat16 KERNELS.

The bytes and calls count the operations of one step (PyTorch 2, plain attention). plan.CALL, UNCOUNTED, BASE,
SLACK, HOLES and KERNELS come from measurements on two CPUs; tests/test_plan.py compares with the one it
runs on. NARROW, ATTENTION and the REACH of GPUs are assumed: for GPUs nothing was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recscale import files
from recscale.errors import InputError
from recscale.study.execution import BLOCK, CHUNK_BYTES, CHUNK_ROWS, Execution
from recscale.study.schedule import legs
from recscale.study.study import WITHHELD, Run, n_total

if TYPE_CHECKING:
    from recscale.next_item.sequences import Sequences

WIDTHS, ITEMS = (64, 256), (8192, 28672)  # that Costs are measured at
ATTENTION, NARROW = 0.4, 8  # share of the large rate; width at which a product reaches half of it
LAYER_BYTES, SCORE_BYTES = {2: 222, 4: 292}, {2: 52, 4: 44}  # by e; forward and backward, no dropout
LOGIT_PASSES = 5
UPDATE_BYTES = 50  # fused Adam 28, casts and sums of gradients
LAYER_CALLS, STEP_CALLS, DROPOUT_CALLS = 85, 230, 20
STARTUP = 5.0  # seconds: imports, data
UNCOUNTED = 1.05
TASK_PASSES = {
    "long_tail": 1,
    "cold_start": 6,
    "domains": 1,
    "robustness": 15,
    "trajectory": 10,
}  # docs/method.md
MIB = 2**20
BASE = {"cpu": 360 * MIB, "cuda": 1024 * MIB}  # Python and torch; on a GPU context and workspaces
DATA_BASE, DATA_BYTES = 100 * MIB, 10  # the reader of the data; a train target
SLACK = {"cpu": 1.3, "cuda": 1.1}  # what an allocator holds over what is used
HOLES = {2: 13, 4: 37}  # bytes by e: recomputation's freed tensors between kept ones in a CPU's heap
KERNELS = 60 * MIB  # that oneDNN makes in bfloat16, one for every shape, and keeps
# Assumed for accelerators, not measured: what training reaches of the data sheet, seconds a call.
REACH_PRODUCTS, REACH_BANDWIDTH, REACH_LINK, GPU_CALL = 0.4, 0.7, 0.35, 1e-5


@dataclass(frozen=True)
class Costs:
    """What a device takes in one precision: FLOP/s of large products, seconds of what comes on top.

    Forward and backward. `layer`, at WIDTHS: a position, layer and width. `logit`, at WIDTHS by ITEMS: a
    logit. `score`: a score of attention, with its products where `attention`, their FLOP/s, is infinite.
    """

    products: float
    layer: tuple[float, float]
    logit: tuple[tuple[float, float], tuple[float, float]]
    score: float
    attention: float = math.inf

    def layer_seconds(self, d: int) -> float:
        """A position through a layer, without attention."""
        return 72 * d**2 / self.products + d * _between(d, WIDTHS, self.layer)

    def logit_seconds(self, d: int, n_items: int) -> float:
        """A logit of the loss."""
        top = (_between(n_items, ITEMS, by_items) for by_items in self.logit)
        return 6 * d / self.products + _between(d, WIDTHS, (next(top), next(top)))


def _between(x: float, ends: tuple[int, int], values: tuple[float, float]) -> float:
    """The value at x of two at `ends`, straight in log x; beyond them the nearer one."""
    share = math.log(x / ends[0]) / math.log(ends[1] / ends[0])
    return values[0] + min(1.0, max(0.0, share)) * (values[1] - values[0])


def assumed(e: int, products: float, bandwidth: float) -> Costs:
    """Costs of a device of which these are known, with e bytes a number and fused attention."""
    layer = 72 * NARROW / products + LAYER_BYTES[e] / bandwidth
    logit = 6 * NARROW / products + LOGIT_PASSES * e / bandwidth
    score = SCORE_BYTES[e] / bandwidth
    return Costs(products, (layer, layer), ((logit, logit), (logit, logit)), score, ATTENTION * products)


@dataclass(frozen=True)
class Device:
    """What a device does: Costs by precision, bytes/s, seconds a call, dropout's elements/s; its bytes."""

    name: str
    kind: str  # cpu or cuda
    bfloat16: Costs
    float32: Costs
    bandwidth: float
    link: float  # to the other devices
    call: float
    randoms: float = math.inf
    memory: float = math.inf


def _sheet(name: str, bfloat16: float, float32: float, bandwidth: float, link: float, gb: float) -> Device:
    """By a data sheet: dense TFLOP/s, GB/s of memory, GB/s of NVLink both ways together, GB."""
    moved, wire = REACH_BANDWIDTH * 1e9 * bandwidth, REACH_LINK * 1e9 * link
    costs = (assumed(e, REACH_PRODUCTS * 1e12 * rate, moved) for e, rate in ((2, bfloat16), (4, float32)))
    return Device(name, "cuda", next(costs), next(costs), moved, wire, GPU_CALL, memory=gb * 1e9)


# NVIDIA's data sheets of the SXM modules: A100 80GB (2021), H100 (2022), H200 (2023). float32 without
# tensor cores: the trainer leaves TF32 off.
SHEETS = (
    _sheet("A100-80GB", 312, 19.5, 2039, 600, 80),
    _sheet("H100", 989, 67, 3350, 900, 80),
    _sheet("H200", 989, 67, 4800, 900, 141),
)
DEVICES = {device.name: device for device in SHEETS}


def computed(on: Device, devices: int, threads: int, by_hand: Mapping[str, Any]) -> Execution:
    """How a run would be computed on so many of a device; `by_hand` sets keys of Execution."""
    precision = "bfloat16" if on.bfloat16.products > on.float32.products else "float32"
    attention, allocator = ("fused", "default") if on.kind == "cuda" else ("plain", "keep")
    how = Execution(on.kind, precision, attention, False, allocator, False, 0, threads, devices)
    return replace(how, **by_hand)


# --- time ---------------------------------------------------------------------------------------


def _dropout(run: Run) -> bool:
    return run.dropout > 0 or (run.dropout_last or 0) > 0


def _pass_seconds(
    device: Device, how: Execution, run: Run, n_items: int, windows: float, targets: float, share: float
) -> float:
    """Seconds of blocks and output layer. `share`: 1 forward and backward, 1/3 forward alone."""
    d, layers, positions = run.d_model, run.n_layers, windows * run.context
    costs = device.bfloat16 if how.precision == "bfloat16" else device.float32
    scores = positions * run.context * run.n_heads
    kept = scores if how.attention == "plain" or device.kind == "cpu" else 0
    layer = positions * costs.layer_seconds(d) + kept * costs.score
    layer += 12 * positions * d * run.context / costs.attention
    again = how.recompute and share == 1
    drawn = (layers * (2 * positions * d + scores) + positions * d) / device.randoms
    drawn += (3 * layers + 1) * DROPOUT_CALLS * device.call
    dropped = share == 1 and _dropout(run)
    return (
        share * (4 / 3 if again else 1) * layers * layer
        + share * targets * n_items * costs.logit_seconds(d, n_items)
        + positions * d * 80 / device.bandwidth
        + (drawn * (2 if again else 1) if dropped else 0.0)
        + share * (LAYER_CALLS * layers + STEP_CALLS) * device.call
    )


def step_seconds(device: Device, how: Execution, run: Run, n_items: int, targets: float) -> float:
    """Seconds of a training step with `targets` targets, on how.processes devices together."""
    n, parameters = how.processes, n_total(run.n_layers, run.d_model, n_items, run.max_len)
    windows = math.ceil(run.batch_size / n)
    update = UPDATE_BYTES * parameters / device.bandwidth
    exchange = 2 * (n - 1) / n * 4 * parameters / device.link
    return UNCOUNTED * (_pass_seconds(device, how, run, n_items, windows, targets / n, 1) + update + exchange)


def run_seconds(device: Device, how: Execution, run: Run, data: Counts) -> float:
    """Seconds of a whole run: the steps of every leg, every evaluation, and STARTUP."""
    windows, _, targets = data.epoch(run)
    steps = math.ceil(windows / run.batch_size)
    trained = sum(leg.end - leg.begin for leg in legs(run, steps))
    branches = [epoch for epoch in run.test_epochs if run.schedule == "constant" and epoch < run.epochs]
    evaluations = run.epochs + 1 + len(run.test_epochs) + len(branches)  # valid, the last test, others
    step = step_seconds(device, how, run, data.n_items, targets / steps)
    answering = _answer_seconds(device, replace(how, precision="float32"), run, data)
    return trained * step + evaluations * answering / how.processes + STARTUP


def task_seconds(device: Device, how: Execution, run: Run, data: Counts, task: str) -> float:
    """Seconds of a task of a trained run, in one process and at most: short histories leave users out."""
    return TASK_PASSES[task] * _answer_seconds(device, how, run, data) + STARTUP


def _answer_seconds(device: Device, how: Execution, run: Run, data: Counts) -> float:
    """Seconds in which one process scores all items for every user, by a window each."""
    full = replace(run, data_axis="users", data_seed=0)
    return (
        UNCOUNTED * data.users / BLOCK * _pass_seconds(device, how, full, data.n_items, BLOCK, BLOCK, 1 / 3)
    )


# --- memory -------------------------------------------------------------------------------------


def activations(run: Run, windows: int, how: Execution) -> int:
    """Bytes that backward waits for, without the loss; with recomputation, of one block and all inputs.

    A layer and width: two norms' inputs in float32; both outputs, q, k, v, what they mix and twice 4 d
    in the precision; what two dropouts drew. A head and score: softmax in float32, what dropout drew, the
    product of both. A GPU draws bytes, a CPU two each, and its fused attention keeps no scores.
    """
    e, d, positions = how.itemsize, run.d_model, windows * run.context
    drawn = 1 if how.device == "cuda" else 2  # bytes an element
    width, score = 8 + 14 * e, 4 + (e if e == 2 else 0)
    if _dropout(run):
        width, score = 8 + 14 * e + 2 * drawn, 4 + drawn + e
    scores = run.n_heads * run.context * score if how.attention == "plain" else 0
    layer = positions * (width * d + scores + 16) + (12 * d**2 * e if e == 2 else 0)  # and weights cast
    embedding = run.dropout if run.dropout_embedding is None else run.dropout_embedding
    ends = positions * (d * (4 + (drawn if embedding else 0)) + 20)
    kept = layer + run.n_layers * positions * 4 * d if how.recompute else run.n_layers * layer
    return ends + kept


def loss_bytes(run: Run, n_items: int, targets: int, how: Execution) -> int:
    """Bytes of a chunk of logits, the output layer in the precision and both gradients of the loss."""
    e, d = how.itemsize, run.d_model
    rows = min(targets, CHUNK_BYTES // (n_items * e), CHUNK_ROWS if how.device == "cpu" else targets)
    return max(1, rows) * n_items * e + n_items * d * (4 + (2 * e if e == 2 else 0)) + 2 * targets * d * e


def step_bytes(run: Run, n_items: int, how: Execution) -> float:
    """Peak memory of a process that only trains, in bytes."""
    gradients = 4 * n_total(run.n_layers, run.d_model, n_items, run.max_len)
    windows = math.ceil(run.batch_size / how.processes)
    waiting = activations(run, windows, how) + loss_bytes(run, n_items, windows * run.context, how)
    if how.recompute and how.device == "cpu":
        waiting += HOLES[how.itemsize] * run.n_layers * windows * run.context * run.d_model
    held = BASE[how.device] + 3 * gradients + (gradients if how.processes > 1 else 0)
    return held + max(SLACK[how.device] * waiting, gradients)


def run_bytes(run: Run, data: Counts, how: Execution) -> float:
    """Peak memory of a whole run in a process, in bytes: of the GPU where it is one, else the host."""
    weights = 4 * n_total(run.n_layers, run.d_model, data.n_items, run.max_len)
    scores = 12 * run.n_heads * run.max_len if how.attention == "plain" else 0
    block = BLOCK * (run.max_len * (56 * run.d_model + scores) + 14 * data.n_items)
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
    """A dataset in numbers; with its sequences, where they are prepared, windows are counted exactly."""

    users: int
    n_items: int
    targets: int  # train targets of all users
    sequences: Sequences | None = None

    def epoch(self, run: Run) -> tuple[int, int, int]:
        """Windows, positions and targets of an epoch of `run`.

        Without sequences as if users had exponential lengths: 2 % off on MovieLens-1M.
        """
        if self.sequences is not None:
            from recscale.next_item import sequences

            users = sequences.train_users(self.sequences, run)
            made = sequences.train_windows(self.sequences, run, users)
            return len(made), int(made.length.sum()), int(made.targets.sum())
        n, mean = math.ceil(self.users * run.data_fraction), self.targets / self.users
        longer = math.exp(-run.max_len / mean)
        if run.data_axis == "history":  # a window a target of all users
            positions = run.data_fraction * self.users * mean**2 * (1 - longer)
            return self.targets, round(positions), self.targets
        later = longer / (1 - math.exp(-run.stride / mean))  # windows after a user's first
        positions = n * (mean * (1 - longer) + run.max_len * later)
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
