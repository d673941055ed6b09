"""What a study will cost: time and memory of every run, before the first is started.

Parameters P = study.n_total, FLOPs C = study.training_flops. Time of a step of B windows, T = max_len,
B T positions, d = d_model, h heads, e bytes a number (2 in bfloat16), as the sum of:

- matrix products: their FLOPs over the measured rate; those of attention are small and batched and run
  at ATTENTION of that rate. Recomputation adds a third to the blocks;
- elementwise work: bytes over the bandwidth, LAYER_BYTES[e] d a layer and position (and SCORE_BYTES a
  head and score), and five passes over the logits; GELU and softmax also by the rate of exponentials
  and dropout by that of random numbers, which a CPU makes one at a time (a GPU: free);
- the optimizer: UPDATE_BYTES a parameter over the bandwidth;
- calls: LAYER_CALLS operations a layer and STEP_CALLS a step at a fixed time each;
- several devices: 2 (n - 1) / n of the float32 gradients over the link, as if nothing overlapped.

A run is its steps (those of branches too), its evaluations (float32 forward of one window a user, and
the scores of all items) and STARTUP; all but that times UNCOUNTED. Checkpoints come on top, at most 2 %.

Memory is 12 P bytes (weights, Adam; 4 P more for gradients where several processes hold them in
buckets; 4 P for the copy of the best weights on a CPU) + BASE + the largest of SLACK times what backward
waits for (`activations`, `loss_bytes`), the gradients, and SLACK times an evaluation of BLOCK users.

The constants count the operations of one step (PyTorch 2, plain attention), except UNCOUNTED, SLACK and
BASE, fitted on a CPU: tests/test_plan.py has the check. For accelerators nothing was measured.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from recscale import execution, files, points, sequences
from recscale.errors import InputError
from recscale.evaluate import BLOCK
from recscale.execution import Execution
from recscale.loss import CHUNK_BYTES, CHUNK_ROWS
from recscale.prepare import WITHHELD
from recscale.schedule import legs
from recscale.study import Run, Study, n_non_embedding, n_total, training_flops

ATTENTION = 0.4  # of the rate of large products, those of 50 x 50 scores
LAYER_BYTES = {2: 263, 4: 373}  # read and written a layer, position and width, forward and backward
SCORE_BYTES = {2: 92, 4: 84}  # the same a head and score
GELU = {2: 9, 4: 14}  # a layer, position and width: 4 d values forward and twice that backward
UPDATE_BYTES = 50  # a parameter: fused Adam 28, casts and sums of gradients
LAYER_CALLS, STEP_CALLS = 85, 120
CALL = 3  # small additions that an operation with its gradient takes
STARTUP = 5.0  # seconds: imports and data
UNCOUNTED = 1.1
BASE = {"cpu": 360 * 2**20, "cuda": 2**30}  # bytes: Python and torch; on a GPU context and workspaces
DATA_BASE = 120 * 2**20  # bytes: pyarrow and what it read the data with; on the host only
SLACK = {"cpu": 1.3, "cuda": 1.1}  # what an allocator holds over what is used; cuda: assumed


@dataclass(frozen=True)
class Device:
    """What a device does: FLOP/s, bytes/s, elements/s, seconds a call, bytes/s to others, bytes."""

    name: str
    kind: str  # cpu or cuda
    bfloat16: float
    float32: float
    bandwidth: float
    exponentials: float
    randoms: float
    call: float
    link: float
    memory: float = math.inf


# Assumed, not measured here: the shares of the data sheet that training reaches, and a call's time.
REACH_PRODUCTS, REACH_BANDWIDTH, REACH_LINK, GPU_CALL = 0.4, 0.7, 0.35, 1e-5


def _sheet(name: str, bfloat16: float, float32: float, bandwidth: float, link: float, gb: float) -> Device:
    """A device by its data sheet: dense TFLOP/s, GB/s of memory, GB/s of NVLink both ways, GB."""
    products, inf = REACH_PRODUCTS * 1e12, math.inf
    memory, wire = REACH_BANDWIDTH * 1e9 * bandwidth, REACH_LINK * 1e9 * link
    return Device(
        name, "cuda", products * bfloat16, products * float32, memory, inf, inf, GPU_CALL, wire, gb * 1e9
    )


# NVIDIA's data sheets of the SXM modules: A100 (2021), H100 (2022), H200 (2023). float32 is without
# tensor cores, as the trainer does not allow TF32.
DEVICES = {
    device.name: device
    for device in (
        _sheet("A100-80GB", 312, 19.5, 2039, 600, 80),
        _sheet("H100", 989, 67, 3350, 900, 80),
        _sheet("H200", 989, 67, 4800, 900, 141),
    )
}


def here(threads: int, seconds: float = 0.1) -> Device:
    """This machine, measured: medians of `seconds` each for what Device has; about a second in all.

    On a GPU exponentials and random numbers count as free, and gradients move at REACH_LINK of 600 GB/s.
    """
    how = execution.choose({}, threads)
    torch.set_num_threads(threads)
    gpu = how.device == "cuda"

    def median(call: Callable[[], object]) -> float:
        call()
        begun, times = time.perf_counter(), list[float]()
        while len(times) < 5 or time.perf_counter() - begun < seconds:
            before = time.perf_counter()
            call()
            if gpu:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - before)
        return statistics.median(times)

    x, w = torch.randn(1600, 1024, device=how.device), torch.randn(1024, 256, device=how.device)
    y, small = torch.empty_like(x), torch.randn(8, device=how.device)
    large = torch.zeros(2, 2**23, device=how.device)  # 32 MiB each, beyond the caches
    half = x.bfloat16(), w.bfloat16()
    flops, few = 2 * x.numel() * w.shape[1], y[:100]
    bandwidth = 8 * 2**23 / median(lambda: large[0].copy_(large[1]))
    emulated = not gpu and how.precision == "float32"  # a hundred times slower; not worth the wait
    return Device(
        "here", how.device,
        flops / median(lambda: x @ w) / 100 if emulated else flops / median(lambda: half[0] @ half[1]),
        flops / median(lambda: x @ w),
        bandwidth,
        math.inf if gpu else x.numel() / median(lambda: torch.softmax(x, 1, out=y)),
        math.inf if gpu else few.numel() / median(lambda: few.bernoulli_(0.9)),
        CALL / 1000 * median(lambda: [small + small for _ in range(1000)]),
        REACH_LINK * 600e9 if gpu else bandwidth,
    )  # fmt: skip


# --- time ---------------------------------------------------------------------------------------


def _seconds(device: Device, how: Execution, run: Run, n_items: int, windows: float, targets: float,
             share: float = 1.0) -> float:  # fmt: skip
    """Seconds of the blocks and the output layer. `share`: 1 forward and backward, 1/3 forward only."""
    e, d, layers = how.dtype.itemsize, run.d_model, run.n_layers
    rate = device.bfloat16 if e == 2 else device.float32
    positions, scores = (
        windows * run.max_len,
        windows * run.max_len**2 * run.n_heads * (how.attention == "plain"),
    )
    blocks = share * (4 / 3 if how.recompute and share == 1 else 1)
    flops = 6 * n_non_embedding(layers, d) + 12 * layers * d * run.max_len / ATTENTION
    logits = targets * n_items
    chunks = math.ceil(targets / CHUNK_ROWS) if how.device == "cpu" else 1
    moved = blocks * layers * (positions * LAYER_BYTES[e] * d + scores * SCORE_BYTES[e])
    moved += logits * 5 * e + positions * d * 80 + share * chunks * n_items * d * (e + 8)
    exponentials = blocks * layers * (positions * GELU[e] * d + scores) + logits
    dropped = layers * (2 * positions * d + scores) + positions * d if share == 1 and run.dropout else 0
    return (
        (blocks * flops * positions + share * 6 * logits * d) / rate
        + moved / device.bandwidth
        + exponentials / device.exponentials
        + dropped * (blocks / share) / device.randoms
        + share * (LAYER_CALLS * layers + STEP_CALLS) * device.call
    )


def step_seconds(device: Device, how: Execution, run: Run, n_items: int, targets: float) -> float:
    """Seconds of one training step of run.batch_size windows with `targets` targets."""
    n, parameters = how.processes, n_total(run.n_layers, run.d_model, n_items, run.max_len)
    windows = math.ceil(run.batch_size / n)
    update = UPDATE_BYTES * parameters / device.bandwidth
    exchange = 2 * (n - 1) / n * 4 * parameters / device.link
    return UNCOUNTED * (_seconds(device, how, run, n_items, windows, targets / n) + update + exchange)


def evaluation_seconds(device: Device, how: Execution, run: Run, n_items: int, users: int) -> float:
    """Seconds of one evaluation of `users`, in float32."""
    exact = replace(how, precision="float32")
    block = _seconds(device, exact, run, n_items, BLOCK, BLOCK, 1 / 3)
    return UNCOUNTED * users / BLOCK / how.processes * block


def seconds(device: Device, how: Execution, run: Run, data: Counts) -> float:
    """Seconds of a whole run: every leg's steps, every evaluation, and STARTUP."""
    windows, _, targets = data.epoch(run)
    an_epoch = math.ceil(windows / run.batch_size)
    steps = sum(leg.end - leg.begin for leg in legs(run, an_epoch))
    branches = [epoch for epoch in run.test_epochs if run.schedule == "constant" and epoch < run.epochs]
    evaluations = run.epochs + 1 + len(run.test_epochs) + len(branches)  # valid, the last test, tests
    step = step_seconds(device, how, run, data.n_items, targets / an_epoch)
    return (
        steps * step + evaluations * evaluation_seconds(device, how, run, data.n_items, data.users) + STARTUP
    )


# --- memory -------------------------------------------------------------------------------------


def activations(run: Run, windows: int, how: Execution) -> int:
    """Bytes that backward waits for, the loss apart; with recomputation one block's and all inputs.

    A layer: two norms' float32 inputs; in the precision their outputs, q, k, v, the mixed values, 4 d
    twice and what dropout drew; a head: scores in float32, their dropout, and as they are multiplied.
    """
    e, d, positions = how.dtype.itemsize, run.d_model, windows * run.max_len
    drew = (1 if how.device == "cuda" else e) if run.dropout else 0  # a GPU keeps a bit mask of bytes
    score = 0
    if how.attention == "plain":
        score = 4 + (drew and drew * 4 // e) + (e if run.dropout or e == 2 else 0)
    layer = positions * (d * (8 + 14 * e + 2 * drew) + run.n_heads * run.max_len * score + 16)
    cast = 12 * d**2 * e if e == 2 else 0  # weights in the precision
    embedding = run.dropout if run.dropout_embedding is None else run.dropout_embedding
    ends = positions * (4 * d + 20 + (d * (drew * 4 // e if how.device == "cpu" else 1) if embedding else 0))
    if how.recompute:
        return ends + run.n_layers * positions * 4 * d + layer + cast
    return ends + run.n_layers * (layer + cast)


def loss_bytes(run: Run, n_items: int, targets: int, how: Execution) -> int:
    """Bytes of a chunk of logits and of both gradients of the loss, table and output layer."""
    e = how.dtype.itemsize
    rows = min(targets, max(1, CHUNK_BYTES // (n_items * e)), CHUNK_ROWS if how.device == "cpu" else targets)
    casts = 2 * e * n_items * run.d_model if e == 2 else 0
    return rows * n_items * e + casts + 4 * n_items * run.d_model + 2 * e * run.d_model * targets


def step_bytes(run: Run, n_items: int, how: Execution) -> float:
    """Peak of a process that only trains, in bytes, from its start on."""
    parameters = n_total(run.n_layers, run.d_model, n_items, run.max_len)
    windows, gradients = math.ceil(run.batch_size / how.processes), 4 * parameters
    kept = activations(run, windows, how) + loss_bytes(run, n_items, windows * run.max_len, how)
    held = 12 * parameters + (gradients if how.processes > 1 else 0)
    return BASE[how.device] + held + max(SLACK[how.device] * kept, gradients)


def evaluation_bytes(run: Run, n_items: int, how: Execution) -> float:
    """What evaluating a block of users takes beside the weights, in bytes."""
    scores = 12 * run.n_heads * run.max_len if how.attention == "plain" else 0
    return SLACK[how.device] * BLOCK * (run.max_len * (56 * run.d_model + scores) + 14 * n_items)


def memory(run: Run, data: Counts, how: Execution) -> float:
    """Peak of a whole run in one process, in bytes: on the GPU where there is one, else on the host."""
    parameters = n_total(run.n_layers, run.d_model, data.n_items, run.max_len)
    state = BASE[how.device] + 12 * parameters + evaluation_bytes(run, data.n_items, how)
    peak = max(step_bytes(run, data.n_items, how), state)
    return peak + (4 * parameters + DATA_BASE + 10 * data.targets if how.device == "cpu" else 0)


# --- what is planned ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Counts:
    """A dataset in numbers; with its sequences, where they are prepared, the windows are exact."""

    users: int
    n_items: int
    targets: int  # train targets of all users
    sequences: sequences.Sequences | None = None

    def epoch(self, run: Run) -> tuple[int, int, int]:
        """Windows, their positions and targets in an epoch of `run`.

        Without sequences: as if the users' lengths were exponential (2 % off on MovieLens-1M).
        """
        length, stride = run.max_len, run.stride
        if self.sequences is not None:
            users = self.sequences.in_fraction(run.data_fraction)
            made = sequences.windows(self.sequences, users, length, stride)
            return len(made), int(made.length.sum()), int(made.targets.sum())
        users_here, mean = math.ceil(self.users * run.data_fraction), self.targets / self.users
        longer = math.exp(-length / mean)
        later = longer / (1 - math.exp(-stride / mean))  # windows after a user's first
        positions = users_here * (mean * (1 - longer) + length * later)
        return math.ceil(users_here * (1 + later)), round(positions), round(self.targets * run.data_fraction)


def counts(dataset: str, folder: Path, entry: Mapping[str, Any]) -> Counts:
    """Counts of a prepared dataset folder, else by `expect` of its entry in the datasets file.

    Raises InputError where neither has them. By `expect` every item is in the catalogue and every user
    gives the trajectory task its items where the mean user does.
    """
    if (folder / "stats.json").exists():
        stats = files.read_json(folder / "stats.json", "users", "n_items", "targets")
        made = sequences.load(folder) if (folder / "sequences.parquet").exists() else None
        return Counts(stats["users"]["kept"], stats["n_items"], stats["targets"]["train"], made)
    expect = entry.get("expect", {})
    missing = [key for key in ("rows", "users", "items") if key not in expect]
    if missing:
        raise InputError(
            f"{folder / 'stats.json'}: there is no such file, and {dataset} has no {', '.join(missing)} under "
            "`expect`: prepare the dataset first"
        )
    withheld = WITHHELD if expect["rows"] > entry["withhold_above"] * expect["users"] else 0
    targets = expect["rows"] - (3 + withheld) * expect["users"]
    return Counts(expect["users"], expect["items"], max(1, targets))


def execute(device: Device, devices: int, threads: int, by_hand: Mapping[str, Any]) -> Execution:
    """How a run would be computed on `devices` of it; precision and recompute may be set by hand."""
    gpu = device.kind == "cuda"
    best = "bfloat16" if gpu or device.bfloat16 > device.float32 else "float32"
    attention, allocator = ("fused", "default") if gpu else ("plain", "keep")
    how = Execution(device.kind, best, attention, False, allocator, False, 0, threads, devices)
    return replace(how, **by_hand)


def plan(study: Study, data: Counts, runs_dir: Path, device: Device, how: Execution) -> pd.DataFrame:
    """A row a run: counts, estimate, and the measured minutes where it is done. Minutes and GiB."""
    return pd.DataFrame(
        [_row(name, run, data, runs_dir / name, device, how) for name, run in study.runs.items()]
    )


def _row(name: str, run: Run, data: Counts, folder: Path, device: Device, how: Execution) -> dict[str, Any]:
    _, positions, targets = (run.epochs * number for number in data.epoch(run))
    measured = None
    if (folder / "metrics.json").exists():
        try:
            measured = points.read_point(folder / "metrics.json", run)["seconds"] / 60
        except InputError:  # of another spec, or damaged: it will be trained
            pass
    return {
        "run": name,
        "N": n_non_embedding(run.n_layers, run.d_model),
        "parameters": n_total(run.n_layers, run.d_model, data.n_items, run.max_len),
        "D": targets,
        "C": training_flops(run, data.n_items, positions, targets),
        "minutes": seconds(device, how, run, data) / 60,
        "GiB": memory(run, data, how) / 2**30,
        "measured": measured,
    }


def text(table: pd.DataFrame, device: Device, how: Execution) -> str:
    """The rows to read, and the total of the runs that are not done, in device hours."""
    shown = table.assign(
        measured=["" if pd.isna(m) else f"{m:.1f}" for m in table["measured"]],
        minutes=[f"{m:.1f}" for m in table["minutes"]],
        GiB=[f"{g:.2f}{' !' if g * 2**30 > device.memory else ''}" for g in table["GiB"]],
        C=[f"{c:.2e}" for c in table["C"]],
        **{key: [f"{n:,}" for n in table[key]] for key in ("N", "parameters", "D")},
    )
    open_ = table[table["measured"].isna()]
    hours = open_["minutes"].sum() / 60 * how.processes
    where = f"{how.processes} x {device.name}, {how.precision}" + (", recompute" if how.recompute else "")
    lines = [
        shown.to_string(index=False),
        f"{len(table)} runs: {len(table) - len(open_)} done, {len(open_)} to do: "
        f"{hours:,.2f} device hours on {where}",
    ]
    if (table["GiB"] * 2**30 > device.memory).any():
        lines.append(f"! above the {device.memory / 2**30:.0f} GiB of {device.name}: try --recompute")
    return "\n".join(lines)
