"""The next item as a problem: windows of sequences in, the loss of the item after each position."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recscale.errors import InputError
from recscale.next_item import sequences
from recscale.next_item.batches import Batches
from recscale.next_item.evaluate import evaluate
from recscale.next_item.loss import cross_entropy_sum
from recscale.next_item.models import decoder
from recscale.study.execution import Execution
from recscale.study.problems import NEXT_ITEM
from recscale.study.run import Run, training_flops
from recscale.train.machine import PRECISION
from recscale.train.problem import Chosen, Problem
from recscale.train.processes import Processes

MODELS: dict[str, Callable[[Run, int, Execution], Any]] = {"decoder": decoder.of}


def model_of(run: Run, n_items: int, how: Execution) -> Any:
    """The untrained model of a run: ids of items in, hidden states out, with `output` and `counts`."""
    return MODELS[run.model](run, n_items, how)


class Objective(nn.Module):
    """Model and loss as one module, as DistributedDataParallel wants it."""

    def __init__(self, model: Any, how: Execution) -> None:
        super().__init__()
        self.model, self.how, self.dtype = model, how, PRECISION[how.precision]
        self.hidden = torch.compile(model) if how.compile else model

    def forward(self, inputs: Tensor, places: Tensor, target: Tensor) -> Tensor:
        """Summed cross-entropy of a batch."""
        with torch.autocast(self.how.device, torch.bfloat16, self.dtype == torch.bfloat16):
            hidden = self.hidden(inputs).flatten(0, 1).index_select(0, places).to(self.dtype)
        return cross_entropy_sum(hidden, self.model.item_table.weight, target - 1)


class NextItem(Problem):
    """One run on prepared sequences."""

    headline = NEXT_ITEM.headline

    def __init__(self, run: Run, data: sequences.Sequences) -> None:
        self.run, self.data, self.sha256 = run, data, data.sha256
        users = sequences.train_users(data, run)
        if not (data.train_length[users] > 1).any():  # on the axis time one at least is inside
            raise InputError(f"data_fraction={run.sample.data_fraction:g} has no train target")
        self.windows = sequences.train_windows(data, run, users)

    @classmethod
    def load(cls, run: Run, folder: Path) -> NextItem:
        """On the prepared dataset in `folder`. Raises InputError."""
        data = sequences.load(folder, with_timestamps=run.sample.data_axis == "time")
        try:
            return cls(run, data)
        except InputError as error:
            raise InputError(f"{folder}: {error}") from error

    def build(self, how: Execution, processes: Processes) -> None:
        self.items = torch.from_numpy(self.data.items).to(processes.device)
        self.batches = Batches(self.windows, self.items)
        torch.manual_seed(self.run.seed)
        self.model = model_of(self.run, self.data.n_items, how).to(processes.device)
        self.objective = Objective(self.model, how).train()

    def __len__(self) -> int:
        return len(self.windows)

    def order(self, epoch: int) -> Chosen:
        return np.random.default_rng([self.run.seed, epoch]).permutation(len(self))

    def targets(self, chosen: Chosen) -> int:
        return int(self.windows.targets[chosen].sum())

    def positions(self, chosen: Chosen) -> int:
        return int(self.windows.length[chosen].sum())

    def take(self, chosen: Chosen) -> tuple[Tensor, Tensor, Tensor]:
        batch = self.batches.take(chosen)
        return batch.inputs, batch.places, batch.target

    def evaluate(self, split: str, processes: Processes, check: Callable[[], None]) -> dict[str, float]:
        max_len = self.run.windows.max_len
        return evaluate(self.model, self.data, split, max_len, self.items, processes, check)

    def epoch(self) -> tuple[int, int]:
        return int(self.windows.length.sum()), int(self.windows.targets.sum())

    def flops(self, positions: int, targets: int) -> int:
        return training_flops(self.run, self.data.n_items, positions, targets)

    def counts(self) -> dict[str, Any]:
        return {
            **self.model.counts(),
            "D": self.epoch()[1],
            "D_input": self.windows.input_items,
            "n_items": self.data.n_items,
        }
