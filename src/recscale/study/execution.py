"""How a run is computed, as plain values that planner and trainer share. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

NUMBER_BYTES = {"bfloat16": 2, "float32": 4}  # of the products, by precision
CHUNK_BYTES = 2**28  # of logits at most
CHUNK_ROWS = 512  # targets at most, on a CPU: the chunk stays in a cache, the products are still large
BLOCK = 512  # users scored at once, at most
ATTENTION = ("plain", "fused")  # kernels; the models have a function for each


@dataclass(frozen=True)
class Execution:
    """One way to compute a run. `micro_batch`: windows at once, 0 for the whole batch."""

    device: str
    precision: str
    attention: str
    compile: bool
    allocator: str
    recompute: bool
    micro_batch: int
    threads: int
    processes: int

    @property
    def itemsize(self) -> int:
        """Bytes of a number of the products."""
        return NUMBER_BYTES[self.precision]
