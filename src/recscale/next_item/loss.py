"""Cross-entropy over the full catalogue without the full logits.

Equivalent to `F.cross_entropy(hidden @ output.T, target, reduction="sum")`. Targets are taken in
chunks; a chunk's logits become its probabilities and then its share of both gradients, and its
memory is used again, so no more than one chunk of logits exists, and the exponential is taken once,
not once forward and once backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recscale.study.execution import CHUNK_BYTES, CHUNK_ROWS

FILL = 64  # a CPU's last chunk is filled to a multiple: oneDNN compiles and keeps kernels for every shape
TINY = torch.finfo(torch.float32).tiny


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Takes the item table whole, padding row included, so that its gradient is made only once."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, item_table: Tensor, target: Tensor) -> Tensor:
        grad_table = torch.zeros_like(item_table)
        grad_output = grad_table[1:]
        output = item_table[1:].to(hidden.dtype)  # bfloat16 where the model computes in it
        n, n_items = len(hidden), len(output)
        rows = max(1, CHUNK_BYTES // (n_items * hidden.element_size()))
        filled = hidden
        if hidden.device.type == "cpu":
            rows = min(rows, CHUNK_ROWS)
            filled = torch.nn.functional.pad(hidden, (0, 0, 0, -n % min(rows, FILL)))
        grad_hidden = torch.empty_like(filled)
        buffer = hidden.new_empty(min(rows, len(filled)), n_items)
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for begin in range(0, len(filled), rows):
            h, t = filled[begin : begin + rows], target[begin : begin + rows]
            p = torch.mm(h, output.T, out=buffer[: len(h)])
            torch.softmax(p, 1, out=p)
            loss -= p[: len(t)].gather(1, t[:, None]).float().clamp_min(TINY).log().sum()
            # d loss / d logits = p - one-hot; the one-hot part of all chunks follows below
            torch.mm(p, output, out=grad_hidden[begin : begin + rows])
            if hidden.dtype == item_table.dtype:
                grad_output.addmm_(p.T, h)
            else:
                grad_output += p.T @ h  # summed in float32 over chunks
        grad_hidden = grad_hidden[:n]  # rows of zeros add nothing to the table's gradient
        grad_hidden -= output[target]
        grad_output.index_add_(0, target, hidden.to(item_table.dtype), alpha=-1)
        ctx.gradients = grad_hidden, grad_table
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden, grad_table = ctx.gradients
        del ctx.gradients
        return grad_hidden.mul_(grad.to(grad_hidden.dtype)), grad_table.mul_(grad), None


def cross_entropy_sum(hidden: Tensor, item_table: Tensor, target: Tensor) -> Tensor:
    """Summed cross-entropy in nats of item ids `target` under softmax over items 1..n_items.

    hidden (n, d), item_table (n_items + 1, d) with padding as row 0, target (n,) int64 rows of the
    output layer, 0..n_items-1. Returns a scalar. A target of probability below 1.2e-38 (a gap of 87
    nats) counts as 87 nats. The gradients are made here and used up by the first `backward`.
    """
    return _ChunkedCrossEntropy.apply(hidden, item_table, target)  # type: ignore
