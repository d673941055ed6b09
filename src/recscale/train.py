"""One run: a spec and a prepared dataset in, metrics.json and model.safetensors out."""

from __future__ import annotations

import ctypes
import datetime
import json
import math
import os
import pickle
import platform
import resource
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from recscale import __version__, files, sequences
from recscale.errors import InputError
from recscale.evaluate import evaluate, gather
from recscale.loss import cross_entropy_sum
from recscale.model import Decoder
from recscale.study import TRAIN_RECIPE, Run, training_flops

LOG_EVERY = 100  # steps
BETAS = (0.9, 0.98)
# What loading a damaged or foreign resume state may raise: torch and safetensors have many ways.
UNUSABLE = (
    OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError,
    pickle.UnpicklingError, safetensors.SafetensorError,
)  # fmt: skip
Say = Callable[[str], None]


@dataclass
class Progress:
    """What a resumed run continues from: everything but weights and optimizer state.

    Random numbers are not in it: each epoch seeds its own from (seed, epoch).
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    positions: int = 0
    targets: int = 0
    seconds: float = 0.0

    @property
    def best(self) -> dict[str, Any] | None:
        """The epoch with the lowest valid loss, the first of equals."""
        return min(self.epochs, key=lambda epoch: epoch["valid"]["loss"], default=None)


def train(run: Run, data_dir: Path, out: Path, threads: int, say: Say) -> None:
    """Train `run`, choose the epoch on valid, evaluate it once on test, write `out`/metrics.json.

    Interrupted, it continues at the epoch in progress with the same numbers. A loss that is not
    finite ends the run with status `diverged` and no test metrics.
    """
    if run.recipe != TRAIN_RECIPE:
        raise InputError(f"spec: recipe: {run.recipe}, this version trains by recipe {TRAIN_RECIPE}")
    torch.set_num_threads(threads)
    _keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = _precision(device)
    data = sequences.load(data_dir)
    users = data.in_fraction(run.data_fraction)
    if not (data.train_length[users] > 1).any():
        raise InputError(f"{data_dir}: data_fraction={run.data_fraction:g} has no train target")
    items = torch.from_numpy(data.items.astype(np.int64)).to(device)
    model, optimizer = _start(run, data.n_items, device)
    out.mkdir(parents=True, exist_ok=True)
    progress = Progress()
    if (out / "last.pt").exists():
        try:
            progress = _restore(run, data, out, model, optimizer)
            say(f"{out.name}: continues after epoch {len(progress.epochs)}")
        except UNUSABLE as error:
            reason = " ".join(str(error).split())[:100]
            say(f"{out.name}: {out / 'last.pt'} cannot be used, starting anew: {reason}")
            model, optimizer = _start(run, data.n_items, device)
    _cut_log(out, len(progress.epochs))
    status = "finished"
    for epoch in range(len(progress.epochs) + 1, run.epochs + 1):
        status = _epoch(run, epoch, data, users, items, model, optimizer, precision, progress, out)
        if status != "finished":
            say(f"{out.name}: epoch {epoch}: the loss is not finite; the run ends as diverged")
            break
        last = progress.epochs[-1]
        say(
            f"{out.name}: epoch {epoch}/{run.epochs}  train {last['train_loss']:.4f}  "
            f"valid {last['valid']['loss']:.4f}  HR@10 {last['valid']['HR@10']:.4f}  "
            f"{last['targets_per_second']:,.0f} targets/s"
        )
        if progress.best is last:
            with files.atomic(out / "model.safetensors") as part:
                safetensors.torch.save_file(_weights(model), part)
        _save(run, data, out, model, optimizer, progress)
    test = None
    if status == "finished":
        model.load_state_dict(safetensors.torch.load_file(out / "model.safetensors"))
        test = evaluate(model, data, "test", run.max_len, items)
    point = _point(run, data, users, model, progress, status, test)
    files.write_json(out / "metrics.json", point | _machine(device, precision, threads))
    (out / "last.pt").unlink(missing_ok=True)


def _start(run: Run, n_items: int, device: torch.device) -> tuple[Decoder, torch.optim.Optimizer]:
    torch.manual_seed(run.seed)
    model = Decoder(n_items, run.n_layers, run.d_model, run.n_heads, run.max_len, run.dropout)
    model.to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), run.learning_rate, BETAS, fused=True)
    return model, optimizer


def _epoch(
    run: Run,
    epoch: int,
    data: sequences.Sequences,
    users: np.ndarray,
    items: Tensor,
    model: Decoder,
    optimizer: torch.optim.Optimizer,
    precision: torch.dtype,
    progress: Progress,
    out: Path,
) -> str:
    """One pass over every train target, then valid; appends to `progress`. Returns a status."""
    begun = time.perf_counter()
    rng = np.random.default_rng([run.seed, epoch])
    torch.manual_seed(int(rng.integers(2**62)))  # dropout
    windows = sequences.windows(data, users, run.max_len, run.stride)
    order = rng.permutation(len(windows))
    steps = math.ceil(len(windows) / run.batch_size)
    total_loss = torch.zeros((), dtype=torch.float64, device=items.device)
    n_targets = 0
    for step in range(steps):
        chosen = order[step * run.batch_size : (step + 1) * run.batch_size]
        inputs, mask, target = gather(windows, chosen, run.max_len, items)
        rate = run.learning_rate * _schedule((epoch - 1 + (step + 0.5) / steps) / run.epochs, run.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(items.device.type, torch.bfloat16, precision == torch.bfloat16):
            hidden = model(inputs)[mask]
        loss = cross_entropy_sum(hidden, model.output, target - 1)
        (loss / len(target)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total_loss += loss.detach()
        n_targets += len(target)
        if step % LOG_EVERY == LOG_EVERY - 1 or step == steps - 1:
            mean = (total_loss / n_targets).item()
            speed = n_targets / (time.perf_counter() - begun)
            _log(out, epoch, run.epochs, step + 1, steps, mean, rate, speed)
            if not math.isfinite(mean):
                return "diverged"
    trained = time.perf_counter() - begun
    valid = evaluate(model, data, "valid", run.max_len, items)
    if not math.isfinite(valid["loss"]):
        return "diverged"
    progress.positions += int(windows.length.sum())
    progress.targets += n_targets
    seconds = time.perf_counter() - begun
    progress.seconds += seconds
    progress.epochs.append(
        {
            "epoch": epoch,
            "train_loss": mean,
            "valid": valid,
            "seconds": seconds,
            "targets_per_second": n_targets / trained,
        }
    )
    return "finished"


def _schedule(done: float, warmup: float) -> float:
    """Share of the peak rate after `done` of the training: linear warm-up, then cosine to zero."""
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def _weights(model: Decoder) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}


def _save(
    run: Run,
    data: sequences.Sequences,
    out: Path,
    model: Decoder,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    state = {
        "spec": run.spec(),
        "data_sha256": data.sha256,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": json.dumps(vars(progress)),
    }
    with files.atomic(out / "last.pt") as part:
        torch.save(state, part)


def _restore(
    run: Run, data: sequences.Sequences, out: Path, model: Decoder, optimizer: torch.optim.Optimizer
) -> Progress:
    """Load out/last.pt into model and optimizer. Raises one of UNUSABLE where that cannot be."""
    state = torch.load(out / "last.pt", weights_only=True, map_location="cpu")
    if (state["spec"], state["data_sha256"]) != (run.spec(), data.sha256):
        raise ValueError("it is of another spec or of other data")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    safetensors.torch.load_file(out / "model.safetensors")  # the best epoch so far must be there
    return Progress(**json.loads(state["progress"]))


def _log(
    out: Path,
    epoch: int,
    epochs: int,
    step: int,
    steps: int,
    loss: float,
    rate: float,
    speed: float,
) -> None:
    row = {
        "epoch": epoch,
        "epochs": epochs,
        "step": step,
        "steps": steps,
        "train_loss": loss if math.isfinite(loss) else None,
        "learning_rate": rate,
        "targets_per_second": speed,
    }
    with (out / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def _cut_log(out: Path, epochs: int) -> None:
    """Drop what was logged after the last saved epoch (it will be logged again) and broken lines."""
    path = out / "log.jsonl"
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    kept = [line for line in lines if _epoch_of(line) <= epochs]
    with files.atomic(path) as part:
        part.write_text("".join(line + "\n" for line in kept))


def _epoch_of(line: str) -> float:
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _point(
    run: Run,
    data: sequences.Sequences,
    users: np.ndarray,
    model: Decoder,
    progress: Progress,
    status: str,
    test: dict[str, float] | None,
) -> dict[str, Any]:
    best = progress.best
    return {
        "spec": json.loads(run.spec()),
        "size": run.size,
        "status": status,
        **model.counts(),
        "D": int(np.maximum(data.train_length[users] - 1, 0).sum()),
        "D_seen": progress.targets,
        "C": training_flops(run, data.n_items, progress.positions, progress.targets),
        "n_items": data.n_items,
        "data_sha256": data.sha256,
        "epochs": progress.epochs,
        "chosen_epoch": best["epoch"] if best and test else None,
        "test": test,
        "seconds": progress.seconds,
        "targets_per_second": progress.targets / progress.seconds if progress.seconds else None,
    }


def _machine(device: torch.device, precision: torch.dtype, threads: int) -> dict[str, Any]:
    """Where and with what the point was made."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    name = _processor()
    if device.type == "cuda":
        peak, name = torch.cuda.max_memory_allocated(), torch.cuda.get_device_name()
    root = Path(__file__).resolve().parents[2]
    commit = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "peak_memory_bytes": peak,
        "device": f"{device.type} {name}",
        "precision": str(precision).removeprefix("torch."),
        "threads": threads,
        "versions": {"recscale": __version__, "torch": torch.__version__, "numpy": np.__version__},
        "commit": commit.stdout.strip() or None,
        "host": platform.node(),
        "job_id": os.environ.get("SLURM_JOB_ID"),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the machine multiplies it faster than float32: GPUs, CPUs with AMX."""
    if device.type == "cuda":
        return torch.bfloat16
    info = Path("/proc/cpuinfo")
    amx = info.exists() and "amx_bf16" in info.read_text()
    return torch.bfloat16 if amx else torch.float32


def _keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks: giving them back costs a page fault for every tensor."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block of its own mapping
        libc.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD
