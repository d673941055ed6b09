"""The decoder: a causal transformer over item ids with a tied output layer (LSRM, section III).

Read top to bottom, in the order the data flows. Shapes: B windows, T positions, d = d_model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from recscale.study import shapes
from recscale.study.execution import Execution
from recscale.study.run import Run
from recscale.train.dropout import Dropout, dropout

INIT_STD = 0.02  # GPT-2's, as the authors' code uses
Attend = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, p: float) -> Tensor:
    """Two products and a softmax: at 50 positions on a CPU several times faster than the fused one.

    q, k, v (B, heads, T, d/heads); mask (T, T) is added to the scores; p drops attention weights.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + mask  # (B, heads, T, T)
    return dropout(scores.softmax(-1), p) @ v


def fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, p: float) -> Tensor:
    """The same by PyTorch's fused kernel, which never stores the scores; made for GPUs."""
    return scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)


ATTENTION: dict[str, Attend] = {"plain": plain, "fused": fused}


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, d_model: int, n_heads: int, dropout: float, attend: Attend) -> None:
        super().__init__()
        self.n_heads, self.dropout, self.attend = n_heads, dropout, attend
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.proj = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.n_heads, d // self.n_heads).permute(2, 0, 3, 1, 4)
        mixed = self.attend(q, k, v, mask, self.dropout if self.training else 0.0)
        return self.proj(mixed.transpose(1, 2).reshape(b, t, d))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm attention, then pre-norm feed-forward of width 4 d_model with GELU."""

    def __init__(self, d_model: int, n_heads: int, dropout: float, attend: Attend) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model)
        self.attention = Attention(d_model, n_heads, dropout, attend)
        self.norm2 = nn.LayerNorm(d_model)
        self.up = nn.Linear(d_model, 4 * d_model)
        self.down = nn.Linear(4 * d_model, d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), mask))
        hidden = nn.functional.gelu(self.up(self.norm2(x)))
        return x + self.dropout(self.down(hidden))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Item ids in, hidden states out; `item_table` is input and output layer at once.

    Id 0 is padding. Windows are padded on the right, so the causal mask alone keeps padding out of
    every real position. Dropout of residuals and attention follows a straight line over the blocks
    from `dropout` to `dropout_last` (LSRM's layer-wise dropout: larger in low layers);
    `dropout_embedding` is apart. `recompute` keeps no activations inside a block and computes them
    again in backward: the same numbers, less memory, a third more work.
    """

    def __init__(
        self, n_items: int, n_layers: int, d_model: int, n_heads: int, max_len: int,
        dropout: float = 0.0, dropout_last: float | None = None, dropout_embedding: float | None = None,
        attend: Attend = plain, recompute: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.recompute = recompute
        self.item_table = nn.Embedding(n_items + 1, d_model)
        self.positions = nn.Embedding(max_len, d_model)
        self.dropout = Dropout(dropout if dropout_embedding is None else dropout_embedding)
        last = dropout if dropout_last is None else dropout_last
        rates = np.linspace(dropout, last, n_layers).tolist()
        self.blocks = nn.ModuleList(Block(d_model, n_heads, rate, attend) for rate in rates)
        self.norm = nn.LayerNorm(d_model)
        mask = torch.full((max_len, max_len), -torch.inf).triu(1)
        self.register_buffer("mask", mask, persistent=False)
        self.mask: Tensor
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INIT_STD)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for block in self.blocks:  # 2 n_layers additions into x keep its variance at start
            for layer in (block.attention.proj, block.down):  # type: ignore[union-attr]
                nn.init.normal_(layer.weight, std=INIT_STD / math.sqrt(2 * n_layers))  # type: ignore

    def forward(self, items: Tensor) -> Tensor:
        """Hidden state at each position: (B, T) int ids -> (B, T, d)."""
        t = items.shape[1]
        x = self.dropout(self.item_table(items) + self.positions.weight[:t])
        mask = self.mask[:t, :t]
        for block in self.blocks:
            x = self._call(block, x, mask)
        return self.norm(x)  # type: ignore[no-any-return]

    def _call(self, block: nn.Module, *args: Any) -> Any:
        if self.recompute and self.training:
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)

    @property
    def output(self) -> Tensor:
        """Output layer without the padding row: (n_items, d); row i scores item i + 1."""
        return self.item_table.weight[1:]

    def counts(self) -> dict[str, int]:
        """Exact numbers of parameters: N (weight matrices of the blocks) and N_total (all)."""
        matrices = [p for p in self.blocks.parameters() if p.dim() == 2]
        return {
            "N": sum(p.numel() for p in matrices),
            "N_total": sum(p.numel() for p in self.parameters()),
        }


def of(run: Run, n_items: int, how: Execution) -> Decoder:
    """The untrained decoder of a run."""
    shape = run.shape
    assert isinstance(shape, shapes.Decoder)
    return Decoder(
        n_items, shape.n_layers, shape.d_model, shape.n_heads, run.windows.max_len, shape.dropout,
        shape.dropout_last, shape.dropout_embedding, ATTENTION[how.attention], how.recompute,
    )  # fmt: skip
