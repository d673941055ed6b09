"""Dropout whose masks a CPU draws quickly.

PyTorch draws a CPU's masks element by element in one thread, up to half of a training step. Here
they come from 16 random bits an element, drawn in bulk and compared in parallel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LEVELS = 2**16  # a rate is met to within half of 1 / LEVELS


class _Dropout(torch.autograd.Function):
    """Keeps the random bits, not the mask: comparing them again is cheaper than four bytes an element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropped: int) -> Tensor:
        ctx.dropped = dropped
        bits = _bits(x.numel()).view(x.shape)
        ctx.save_for_backward(bits)
        return _masked(x, bits, dropped)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (bits,) = ctx.saved_tensors
        return _masked(grad, bits, ctx.dropped), None


def _masked(x: Tensor, bits: Tensor, dropped: int) -> Tensor:
    """x scaled where bits are not among the `dropped` lowest of LEVELS values, else 0."""
    out = torch.empty(x.shape, dtype=x.dtype)
    torch.ge(bits, dropped - LEVELS // 2, out=out)  # as 0 and 1 in x's type: bool is slow to multiply
    return out.mul_(x).mul_(LEVELS / (LEVELS - dropped))


def _bits(n: int) -> Tensor:
    """n random int16, from a seed that torch's generator gives: its state alone decides."""
    seed = int(torch.randint(2**63 - 1, ()))
    raw = np.random.SFC64(seed).random_raw(-(-n // 4))
    return torch.from_numpy(raw.view(np.int16))[:n]


def dropout(x: Tensor, rate: float) -> Tensor:
    """Each element 0 with probability `rate`, else divided by 1 - rate; x itself where rate is 0.

    Masks follow torch's generator, on a CPU and on a GPU (PyTorch's own kernel there and in compiled
    code), but are not the same on both.
    """
    dropped = min(round(rate * LEVELS), LEVELS - 1)
    if dropped == 0:
        return x
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.nn.functional.dropout(x, rate)
    return _Dropout.apply(x, dropped)  # type: ignore[no-any-return,no-untyped-call]


class Dropout(nn.Module):
    """The same as a module, which does nothing in evaluation."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """x with elements dropped while training."""
        return dropout(x, self.rate) if self.training else x
