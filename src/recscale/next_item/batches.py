"""Batches of windows as index gathers from one flat tensor of items: nothing is copied an epoch.

On a GPU the items and the windows live there, and no batch waits for an answer from it: what the
host must know (lengths, numbers of targets) it knows itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recscale.next_item.sequences import Windows


@dataclass(frozen=True)
class Batch:
    """inputs (b, T) item ids, padded right with 0; `places` (n,) of the loss in the flat b * T
    positions; target (n,) ids of the items that follow them, int64.
    """

    inputs: Tensor
    places: Tensor
    target: Tensor


class Batches:
    """Windows over `items`, Sequences.items as an int32 tensor on the device of the model."""

    def __init__(self, windows: Windows, items: Tensor) -> None:
        self.items, self.windows = items, windows
        parts = (windows.start, windows.length, windows.targets)
        self._start, self._length, self._targets = (torch.from_numpy(p).to(items.device) for p in parts)

    def __len__(self) -> int:
        return len(self.windows)

    def targets(self, chosen: npt.NDArray[np.int64]) -> int:
        """How many targets these windows have."""
        return int(self.windows.targets[chosen].sum())

    def take(self, chosen: npt.NDArray[np.int64]) -> Batch:
        """The batch of these windows; T is the longest of them."""
        width, n = int(self.windows.length[chosen].max()), self.targets(chosen)
        index = torch.from_numpy(chosen).to(self.items.device)
        start, length, targets = self._start[index], self._length[index], self._targets[index]
        place = torch.arange(width, device=index.device)
        inputs = self.items[(start[:, None] + place).clamp_(max=len(self.items) - 1)]
        inputs = inputs * (place < length[:, None])
        # The k-th target of a window is at its position length - targets + k.
        row = torch.repeat_interleave(torch.arange(len(index), device=index.device), targets, output_size=n)
        k = torch.arange(n, device=index.device) - (targets.cumsum(0) - targets)[row]
        position = (length - targets)[row] + k
        target = self.items[start[row] + position + 1].long()
        return Batch(inputs, row * width + position, target)
