"""What a run asks of a cluster: GPUs, minutes and memory, by the formulas of cost.py and within limits."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from recscale.errors import InputError
from recscale.plan import cost, devices
from recscale.plan.cost import Counts
from recscale.plan.devices import Costs, Device
from recscale.study.run import Run

HEADROOM_MINUTES, START_MINUTES = 2.0, 10  # times the estimate, and what a busy file system takes
HEADROOM_MEMORY = 1.25
SNAKEMAKE_MB = 512  # two of them start the training, and one process watches it
LEAST_MB = 600
LEAST_SECONDS = 60  # of a job until it is told to save: Snakemake and torch have to start in it
GPU_HOST = 3 * 2**30  # memory of a process beside its GPU: libraries and pinned buffers; assumed
SPARE_RETRIES = 2


# One core of a Xeon with AVX-512 in float32, by plan.here(1), rounded: what is assumed of a processor.
_FLOAT32 = Costs(8e10, (8e-8, 8e-8), ((4e-9, 6e-9), (3e-9, 5e-9)), 3e-8)
CORE = Device("core", "cpu", _FLOAT32, _FLOAT32, bandwidth=3e9, link=3e9, call=6e-6, randoms=1.2e8)
DEVICES = {**devices.DEVICES, CORE.name: CORE}


@dataclass(frozen=True)
class Limits:
    """What a profile allows a job of rule train; 0: no limit, and no GPU.

    `device`: a name that recscale plan knows, or `core`, a processor core. `gpu_gres`: how the cluster names
    its GPUs in --gres, where --gpus is not known there.
    """

    device: str = "core"
    max_gpus: int = 0
    max_minutes: int = 0
    max_mem_mb: int = 0
    gpu_gres: str = ""

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise InputError(f"profile: train: device: {self.device} is not one of {', '.join(DEVICES)}")
        for name in ("max_gpus", "max_minutes", "max_mem_mb"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise InputError(f"profile: train: {name}: {value} is not a whole number from 0")

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Limits:
        """Of a profile's resources, whatever else they have.

        Some of a profile without the rest would silently train on a processor, for as long as it takes.
        """
        names = [field.name for field in fields(cls)]
        limits = cls(**{name: given[name] for name in names if name in given})
        if "max_gpus" not in given and any(key in names or key.startswith("slurm_") for key in given):
            raise InputError(
                f"profile: train: {', '.join(given)} without max_gpus: --set-resources replaces all that the "
                "profile says; edit the profile, or give max_gpus, device, max_minutes and max_mem_mb too"
            )
        warned = re.search(r"--signal=\S*@(\d+)", str(given.get("slurm_extra", "")))
        if limits.max_minutes and warned and 60 * limits.max_minutes < int(warned[1]) + LEAST_SECONDS:
            raise InputError(
                f"profile: train: max_minutes: {limits.max_minutes} leaves less than {LEAST_SECONDS} s until "
                f"the signal of slurm_extra, {warned[1]} s before the end: no run would get on"
            )
        return limits


@dataclass(frozen=True)
class Request:
    """Of one job. `processes` train the run together, one a GPU; `planned`: minutes without a limit."""

    gpus: int
    processes: int
    minutes: int
    mem_mb: int
    planned: int


@cache
def request(run: Run, data: Counts, limits: Limits, attempt: int = 1, kills: int = 0) -> Request:
    """What the job of the `attempt`-th try of `run` asks for, after so many kills.

    As many GPUs as it takes to fit into their memory and to finish within the limit of time, if the limits
    allow so many. Time grows with the attempt, memory doubles with each kill.
    """
    device = DEVICES[limits.device]
    for n in (n for n in (1, 2, 4, 8) if n <= min(max(1, limits.max_gpus), run.course.batch_size)):
        how = devices.computed(device, n, 1, {})
        planned = math.ceil(HEADROOM_MINUTES * cost.run_seconds(device, how, run, data) / 60) + START_MINUTES
        memory = cost.run_bytes(run, data, how)
        if memory <= device.memory and planned <= (limits.max_minutes or math.inf):
            break
    if device.kind == "cuda":
        parameters = run.shape.n_total(data.n_items, run.windows.max_len)
        memory = n * (GPU_HOST + cost.DATA_BASE + cost.DATA_BYTES * data.targets) + 20 * parameters
    else:
        memory *= n
    mem_mb = (math.ceil(HEADROOM_MEMORY * memory / 1e6) + SNAKEMAKE_MB) * 2**kills
    return Request(
        gpus=n if limits.max_gpus else 0,
        processes=n,
        minutes=min(planned * attempt, limits.max_minutes or planned * attempt),
        mem_mb=max(LEAST_MB, min(mem_mb, limits.max_mem_mb or mem_mb)),
        planned=planned,
    )


def retries(runs: Mapping[str, Run], data: Counts, limits: Limits) -> int:
    """So many that the longest run ends within the limit of time, and SPARE_RETRIES more."""
    if not limits.max_minutes:
        return SPARE_RETRIES
    longest = max(request(run, data, limits, 1, 0).planned for run in runs.values())
    return math.ceil(longest / limits.max_minutes) + SPARE_RETRIES
