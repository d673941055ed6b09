"""Cross-entropy over the full catalogue without the full logits.

Equivalent to `F.cross_entropy(hidden @ output.T, target, reduction="sum")`. Targets are taken in
chunks; a chunk's logits are turned into its gradient in place and dropped, so memory is
CHUNK_BYTES of logits whatever the number of targets, and the exponential is taken once, not once
forward and once backward.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_BYTES = 2**22  # of logits: stays in a last-level cache


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, output: Tensor, target: Tensor) -> Tensor:
        n, n_items = len(hidden), len(output)
        table = output.to(hidden.dtype)  # bfloat16 where the model computes in it
        rows = max(1, CHUNK_BYTES // (n_items * hidden.element_size()))
        buffer = hidden.new_empty(min(rows, n), n_items)
        grad_hidden = torch.empty_like(hidden)
        grad_output = output.new_zeros(output.shape[::-1])  # (d, n_items): the faster way round
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for begin in range(0, n, rows):
            h, t = hidden[begin : begin + rows], target[begin : begin + rows]
            logits = torch.mm(h, table.T, out=buffer[: len(h)])
            picked = logits.gather(1, t[:, None]).squeeze(1)
            peak = logits.amax(1, keepdim=True)
            total = logits.sub_(peak).exp_().sum(1, dtype=torch.float32)
            loss += (total.log() + peak.squeeze(1) - picked).sum()
            # d loss / d logits = softmax - one-hot; 1/total goes to the thin factors, not the chunk
            scale = (1 / total).to(h.dtype)[:, None]
            grad_hidden[begin : begin + rows] = (logits @ table) * scale - table[t]
            grad_output += (h * scale).T @ logits  # summed in float32 over chunks
        grad_output = grad_output.T.contiguous()
        grad_output.index_add_(0, target, hidden.to(output.dtype), alpha=-1)
        ctx.save_for_backward(grad_hidden, grad_output)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden, grad_output = ctx.saved_tensors
        return (
            grad_hidden * grad.to(grad_hidden.dtype),
            grad_output * grad.to(grad_output.dtype),
            None,
        )


def cross_entropy_sum(hidden: Tensor, output: Tensor, target: Tensor) -> Tensor:
    """Summed cross-entropy in nats of `target` rows of `output` under softmax(hidden @ output.T).

    hidden (n, d), output (n_items, d), target (n,) int64 in 0..n_items-1. Returns a scalar.
    """
    return _ChunkedCrossEntropy.apply(hidden, output, target)  # type: ignore
