"""The processes that train one run together: torchrun's environment, PyTorch's collectives."""

from __future__ import annotations

import atexit
import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

CPU = torch.device("cpu")
HOUR = datetime.timedelta(hours=1)  # others wait while the first writes a checkpoint or evaluates


@dataclass(frozen=True)
class Processes:
    """This process is number `rank` of `world`; alone, every method is free."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sums over the processes, in float64."""
        if self.world == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return list(total.tolist())

    def either(self, flags: Tensor) -> Tensor:
        """Elementwise `or` over the processes."""
        if self.world == 1:
            return flags
        total = flags.to(self.device, torch.uint8)
        dist.all_reduce(total, dist.ReduceOp.MAX)
        return total.bool().cpu()

    def largest(self, value: float) -> float:
        """The largest value of all."""
        if self.world == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total, dist.ReduceOp.MAX)
        return total.item()

    def wait(self) -> None:
        """Return when all have come here."""
        if self.world > 1:
            dist.barrier()


ALONE = Processes()


def join(device: str) -> Processes:
    """The group that torchrun started this process in, or ALONE. NCCL on GPUs, gloo on CPUs."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return ALONE if device == "cpu" else Processes(device=torch.device(device))
    local = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if device == "cuda" else CPU
    if device == "cuda":
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=HOUR)
    atexit.register(dist.destroy_process_group)
    return Processes(dist.get_rank(), world, local)
