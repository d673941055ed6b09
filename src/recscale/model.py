"""The decoder: a causal transformer over item ids with a tied output layer (LSRM, section III).

Read top to bottom, in the order the data flows. Shapes: B windows, T positions, d = d_model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

INIT_STD = 0.02  # GPT-2's, as the authors' code uses


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, d_model: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.proj = nn.Linear(d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.n_heads, d // self.n_heads).permute(2, 0, 3, 1, 4)
        # Two products and a softmax, not scaled_dot_product_attention: at 50 positions its backward
        # is the largest cost of a step on a CPU.
        scores = q @ k.transpose(-2, -1) / math.sqrt(d // self.n_heads) + mask  # (B, heads, T, T)
        weights = self.dropout(scores.softmax(-1))
        return self.proj((weights @ v).transpose(1, 2).reshape(b, t, d))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm attention, then pre-norm feed-forward of width 4 d_model with GELU."""

    def __init__(self, d_model: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(d_model)
        self.attention = Attention(d_model, n_heads, dropout)
        self.norm2 = nn.LayerNorm(d_model)
        self.up = nn.Linear(d_model, 4 * d_model)
        self.down = nn.Linear(4 * d_model, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), mask))
        hidden = nn.functional.gelu(self.up(self.norm2(x)))
        return x + self.dropout(self.down(hidden))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Item ids in, hidden states out; `item_table` is input and output layer at once.

    Id 0 is padding. Windows are padded on the right, so the causal mask alone keeps padding out of
    every real position.
    """

    def __init__(
        self, n_items: int, n_layers: int, d_model: int, n_heads: int, max_len: int, dropout: float
    ) -> None:
        super().__init__()
        self.item_table = nn.Embedding(n_items + 1, d_model)
        self.positions = nn.Embedding(max_len, d_model)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(d_model, n_heads, dropout) for _ in range(n_layers))
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
            x = block(x, mask)
        return self.norm(x)  # type: ignore[no-any-return]

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
