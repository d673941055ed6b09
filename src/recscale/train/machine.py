"""How a run is computed, as against what it computes: device, precision, kernels, memory.

Chosen from what the machine has, set by hand on the command line, recorded in the point and in the
resume state. Nothing here is part of a spec: results agree up to rounding.
"""

from __future__ import annotations

import ctypes
import datetime
import os
import platform
import resource
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recscale import __version__
from recscale.errors import InputError
from recscale.study.execution import ATTENTION, Execution

# Of matrix products; weights, sums and the optimizer are float32 always.
PRECISION = {"bfloat16": torch.bfloat16, "float32": torch.float32}
LEGAL: dict[str, tuple[Any, ...]] = {
    "device": ("cpu", "cuda"),
    "precision": tuple(PRECISION),
    "attention": ATTENTION,
    "compile": (False, True),
    "allocator": ("keep", "default"),
    "recompute": (False, True),
}


def choose(by_hand: Mapping[str, Any], threads: int) -> Execution:
    """What this machine does best, but for what is set by hand.

    Device: the GPU where there is one. Precision: bfloat16 on GPUs and on CPUs whose instructions
    multiply it (AVX512-BF16: 2.3 times the float32 rate, AMX: 4 times), else float32 (emulated
    bfloat16 is a hundred times slower). Attention: fused on GPUs, plain on CPUs. Compilation: not
    by itself; docs/performance.md has what it brings. Allocator: `keep` freed memory under glibc,
    where giving it back costs a page fault for every tensor. Raises InputError for what is not legal.
    """
    for key, value in by_hand.items():
        if key in LEGAL and value not in LEGAL[key]:
            raise InputError(f"{key}: {value!r} is not one of {', '.join(map(str, LEGAL[key]))}")
    device = by_hand.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
    if by_hand.get("allocator") == "keep" and platform.libc_ver()[0] != "glibc":
        raise InputError("allocator: keep needs glibc, which this system does not use")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda is not there: torch sees no GPU")
    on_gpu = device == "cuda"
    chosen: dict[str, Any] = {
        "device": device,
        "precision": "bfloat16" if on_gpu or _multiplies_bfloat16() else "float32",
        "attention": "fused" if on_gpu else "plain",
        "compile": False,
        "allocator": "keep" if not on_gpu and platform.libc_ver()[0] == "glibc" else "default",
        "recompute": False,
        "micro_batch": 0,
        "threads": threads,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }
    return Execution(**chosen | dict(by_hand))


def resume(
    now: Execution, saved: Mapping[str, Any], by_hand: Mapping[str, Any]
) -> tuple[Execution, list[str], list[str]]:
    """The execution of a resumed run, and what differs from the saved one, in words: to refuse, to note.

    What the saved run chose is kept where it was not set by hand and can be done here: on another
    device, or a CPU that does not multiply bfloat16, it cannot. The number of threads and of processes
    is the caller's and only noted. A micro-batch that has halved stays so whatever the command says.
    """
    free = {"threads", "processes"}
    kept = {f.name: saved[f.name] for f in fields(Execution) if f.name not in free | set(by_hand)}
    if saved["device"] != now.device:
        kept = {}  # everything follows from the device
    elif now.device == "cpu" and now.precision == "float32" and kept.get("precision") == "bfloat16":
        del kept["precision"]
    if 0 < saved["micro_batch"] < by_hand.get("micro_batch", 0):
        kept["micro_batch"] = saved["micro_batch"]
    resumed = Execution(**asdict(now) | kept)
    found: dict[bool, list[str]] = {False: [], True: []}
    for name in (f.name for f in fields(Execution)):
        if saved[name] != getattr(resumed, name):
            found[name in free].append(f"{name} {saved[name]} -> {getattr(resumed, name)}")
    return resumed, found[False], found[True]


def known(saved: Mapping[str, Any]) -> None:
    """Raise KeyError unless every key of an Execution is there."""
    for field in fields(Execution):
        saved[field.name]


def apply(execution: Execution) -> None:
    """Set what is set once a process: threads and the allocator."""
    torch.set_num_threads(execution.threads)
    if execution.allocator == "keep":
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block of its own mapping
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: never give the top of the heap back


def _multiplies_bfloat16() -> bool:
    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.exists() else ""
    return "amx_bf16" in flags or "avx512_bf16" in flags


def machine(execution: Execution) -> dict[str, Any]:
    """Where and with what a point was made, as its metrics.json has it."""
    peak, name = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, processor()
    if execution.device == "cuda":
        peak, name = torch.cuda.max_memory_allocated(), torch.cuda.get_device_name()
    return {
        "peak_memory_bytes": peak,
        "device": f"{execution.device} {name}",
        "precision": execution.precision,
        "threads": execution.threads,
        "execution": asdict(execution),
        "versions": {"recscale": __version__, "torch": torch.__version__, "numpy": np.__version__},
        "commit": commit(Path(__file__).resolve().parents[1]),
        "host": platform.node(),
        "job_id": os.environ.get("SLURM_JOB_ID"),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def processor() -> str:
    """Name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit(package: Path) -> str | None:
    """The commit of recscale's own checkout; None where `package` is installed, also inside a foreign one."""
    root = package.parents[1]
    git = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    said = done.stdout.split("\n")
    own = done.returncode == 0 and Path(said[0]).resolve() == root and package == root / "src" / "recscale"
    return said[1] if own else None
