"""What the loop asks of a problem. It knows no more: neither what a batch is, nor what is measured.

A problem is made on the command line from a run and its data, and handed to `train`. Examples are what an
epoch orders anew (windows, rows); targets are what the loss is summed over; positions are what a model
computes. A problem of one's own derives from `Problem` and fills in the methods without a body.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from recscale.study.execution import Execution
from recscale.study.run import Course
from recscale.train.processes import Processes

BETAS = (0.9, 0.98)
Chosen = npt.NDArray[np.int64]


class Problem(Protocol):
    """`model` and `objective` are there once `build` was called; the rest before.

    sha256: of the data, which a point names. headline: the metric that a training prints.
    objective: a module from what `take` gives to the summed loss of its targets.
    """

    sha256: str
    headline: str
    model: nn.Module
    objective: nn.Module

    @abstractmethod
    def build(self, how: Execution, processes: Processes) -> None:
        """Make the model anew, on the device, and the data that it needs there."""

    @abstractmethod
    def __len__(self) -> int:
        """Examples of an epoch."""

    @abstractmethod
    def order(self, epoch: int) -> Chosen:
        """Examples in the order of this epoch, from 1: the same for the same run."""

    @abstractmethod
    def targets(self, chosen: Chosen) -> int:
        """Targets of these examples."""

    @abstractmethod
    def positions(self, chosen: Chosen) -> int:
        """Positions of these examples."""

    @abstractmethod
    def take(self, chosen: Chosen) -> tuple[Any, ...]:
        """The batch of these examples, on the device: what `objective` is called with."""

    @abstractmethod
    def evaluate(self, split: str, processes: Processes, check: Callable[[], None]) -> dict[str, float]:
        """Metrics of the model on `valid` or `test`, `loss` among them. Calls `check` often; it may raise."""

    @abstractmethod
    def epoch(self) -> tuple[int, int]:
        """Positions and targets of an epoch."""

    @abstractmethod
    def flops(self, positions: int, targets: int) -> int:
        """C of training on so many."""

    @abstractmethod
    def counts(self) -> dict[str, Any]:
        """N, N_total, D and what else a point has of the model and its data."""

    def optimizer(self, course: Course) -> torch.optim.Optimizer:
        """What trains from the start; the rate is set by the loop."""
        return torch.optim.Adam(
            self.model.parameters(), course.learning_rate, BETAS, weight_decay=course.weight_decay,
            decoupled_weight_decay=course.decoupled_decay, fused=True,
        )  # fmt: skip
