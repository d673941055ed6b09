"""Model families by their shapes: what a run says of a model, and all that is counted of it.

A family is one frozen dataclass here, one module with one torch.nn.Module, and one row in the MODELS of its
problem. A shape counts itself: planner and figures know no layer. For another family write the methods
of `Shape`; a test compares the counts with the module and the FLOPs with torch's counter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from recscale.errors import InputError
from recscale.study.execution import Execution
from recscale.study.keys import key, needed

LAYER_CALLS, DROPOUT_CALLS = 85, 20  # operations of a block, forward and backward, and of a dropout


@dataclass(frozen=True)
class Work:
    """What one position takes, forward and backward, without the output layer.

    products: FLOPs of linear layers. width: of those products, and of the output layer. elements: layers
    times width, the unit of elementwise work. scores: of attention, queries times keys. mixed: FLOPs of the
    products with them. draws: random numbers of dropout, 0 where there is none.
    Of a whole pass, whatever the positions: calls, operations; dropouts, those that draw.
    """

    products: float
    width: int
    elements: float
    scores: float
    mixed: float
    draws: float
    calls: int
    dropouts: int


class Shape(Protocol):
    """What the shape of every family tells. Positions are those of inputs of `context` at most."""

    SIZE: ClassVar[tuple[str, ...]]  # keys that make the size: runs of one law of N may differ in them

    @property
    def label(self) -> str:
        """The size as figures and folders call it."""

    @property
    def n(self) -> int:
        """N: non-embedding parameters."""

    def n_total(self, n_items: int, max_len: int) -> int:
        """Every trained number."""

    def work(self, context: int) -> Work:
        """Of one position."""

    def activation_bytes(self, positions: int, context: int, how: Execution) -> int:
        """Bytes that backward waits for, without the loss."""

    def answer_bytes(self, context: int, how: Execution) -> int:
        """Bytes a position takes in an evaluation."""

    def check(self) -> None:
        """Raise InputError, beginning with the key, where keys do not go together."""


@dataclass(frozen=True)
class Decoder:
    """A causal transformer over item ids with a tied output layer: next_item/models/decoder.py."""

    n_layers: int = needed("blocks", minimum=1)
    d_model: int = needed("width", minimum=1)
    n_heads: int = key(1, "attention heads; divides the width", minimum=1)
    dropout: float = key(
        0.1, "residual and attention dropout, of the first block where dropout_last is given",
        minimum=0, exclusiveMaximum=1,
    )  # fmt: skip
    dropout_last: float | None = key(
        None,
        "of the last block, on a straight line from the first (LSRM: larger in low layers); default: as "
        "dropout",
        minimum=0, exclusiveMaximum=1,
    )  # fmt: skip
    dropout_embedding: float | None = key(None, "default: as dropout", minimum=0, exclusiveMaximum=1)

    SIZE: ClassVar[tuple[str, ...]] = ("n_layers", "d_model", "n_heads")

    @property
    def label(self) -> str:
        """Layers x width, e.g. `2x64`."""
        return f"{self.n_layers}x{self.d_model}"

    @property
    def n(self) -> int:
        """The weight matrices of the blocks: 12 n_layers d_model^2 (LSRM, table of sizes).

        4 d^2 of attention (query, key, value, projection) and 8 d^2 of the two feed-forward matrices.
        Biases, norms, positions and the item table are not in it.
        """
        return 12 * self.n_layers * self.d_model**2

    def n_total(self, n_items: int, max_len: int) -> int:
        """Blocks with biases and norms, item table (with padding), positions."""
        d = self.d_model
        return self.n + self.n_layers * 13 * d + (n_items + 1 + max_len) * d + 2 * d

    def work(self, context: int) -> Work:
        """6 N FLOPs of linear layers and 12 n_layers d_model T of attention, scores and weighted sum."""
        layers, d, scores = self.n_layers, self.d_model, self.n_layers * self.n_heads * context
        return Work(
            products=6 * self.n,
            width=d,
            elements=layers * d,
            scores=scores,
            mixed=12 * layers * d * context,
            draws=layers * 2 * d + scores + d if self._drops else 0,
            calls=LAYER_CALLS * layers,
            dropouts=(3 * layers + 1) * DROPOUT_CALLS,
        )

    def activation_bytes(self, positions: int, context: int, how: Execution) -> int:
        """With recomputation of one block and all inputs.

        A layer and width: two norms' inputs in float32; both outputs, q, k, v, what they mix and twice 4 d
        in the precision; what two dropouts drew. A head and score: softmax in float32, what dropout drew, the
        product of both. A GPU draws bytes, a CPU two each, and its fused attention keeps no scores.
        """
        e, d = how.itemsize, self.d_model
        drawn = 1 if how.device == "cuda" else 2  # bytes an element
        width, score = 8 + 14 * e, 4 + (e if e == 2 else 0)
        if self._drops:
            width, score = 8 + 14 * e + 2 * drawn, 4 + drawn + e
        scores = self.n_heads * context * score if how.attention == "plain" else 0
        layer = positions * (width * d + scores + 16) + (12 * d**2 * e if e == 2 else 0)  # and weights cast
        embedding = self.dropout if self.dropout_embedding is None else self.dropout_embedding
        ends = positions * (d * (4 + (drawn if embedding else 0)) + 20)
        kept = layer + self.n_layers * positions * 4 * d if how.recompute else self.n_layers * layer
        return ends + kept

    def answer_bytes(self, context: int, how: Execution) -> int:
        """One block after the other, nothing kept: 56 d, and where attention is plain its scores."""
        return 56 * self.d_model + (12 * self.n_heads * context if how.attention == "plain" else 0)

    @property
    def _drops(self) -> bool:
        return self.dropout > 0 or (self.dropout_last or 0) > 0

    def check(self) -> None:
        if self.d_model % self.n_heads:
            raise InputError(f"n_heads: {self.n_heads} does not divide the width {self.d_model}")


SHAPES: dict[str, type[Any]] = {"decoder": Decoder}
SHORT = re.compile(r"([1-9][0-9]*)x([1-9][0-9]*)")


def from_name(name: str) -> dict[str, int]:
    """The keys that a size's name states: of a decoder layers x width, 2x64; of any other name none."""
    found = SHORT.fullmatch(name)
    return {"n_layers": int(found[1]), "d_model": int(found[2])} if found else {}
