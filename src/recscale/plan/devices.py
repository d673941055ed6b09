"""What devices do: seconds of what a model's work is made of, measured here or by data sheets.

Imports nothing heavy. The rates of GPUs are assumed, not measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from recscale.study.execution import Execution
from recscale.study.shapes import Work

WIDTHS, ITEMS = (64, 256), (8192, 28672)  # that Costs are measured at
ATTENTION, NARROW = 0.4, 8  # share of the large rate; width at which a product reaches half of it
LAYER_BYTES, SCORE_BYTES = {2: 222, 4: 292}, {2: 52, 4: 44}  # by e; forward and backward, no dropout
LOGIT_PASSES = 5
# Assumed for accelerators, not measured: what training reaches of the data sheet, seconds a call.
REACH_PRODUCTS, REACH_BANDWIDTH, REACH_LINK, GPU_CALL = 0.4, 0.7, 0.35, 1e-5


@dataclass(frozen=True)
class Costs:
    """What a device takes in one precision: FLOP/s of large products, seconds of what comes on top.

    Forward and backward. `layer`, at WIDTHS: a position, layer and width. `logit`, at WIDTHS by ITEMS: a
    logit. `score`: a score of attention, with its products where `attention`, their FLOP/s, is infinite.
    """

    products: float
    layer: tuple[float, float]
    logit: tuple[tuple[float, float], tuple[float, float]]
    score: float
    attention: float = math.inf

    def position_seconds(self, work: Work) -> float:
        """A position through all layers, without attention."""
        return work.products / self.products + work.elements * _between(work.width, WIDTHS, self.layer)

    def logit_seconds(self, d: int, n_items: int) -> float:
        """A logit of the loss."""
        top = (_between(n_items, ITEMS, by_items) for by_items in self.logit)
        return 6 * d / self.products + _between(d, WIDTHS, (next(top), next(top)))


def _between(x: float, ends: tuple[int, int], values: tuple[float, float]) -> float:
    """The value at x of two at `ends`, straight in log x; beyond them the nearer one."""
    share = math.log(x / ends[0]) / math.log(ends[1] / ends[0])
    return values[0] + min(1.0, max(0.0, share)) * (values[1] - values[0])


def assumed(e: int, products: float, bandwidth: float) -> Costs:
    """Costs of a device of which these are known, with e bytes a number and fused attention."""
    layer = 72 * NARROW / products + LAYER_BYTES[e] / bandwidth
    logit = 6 * NARROW / products + LOGIT_PASSES * e / bandwidth
    score = SCORE_BYTES[e] / bandwidth
    return Costs(products, (layer, layer), ((logit, logit), (logit, logit)), score, ATTENTION * products)


@dataclass(frozen=True)
class Device:
    """What a device does: Costs by precision, bytes/s, seconds a call, dropout's elements/s; its bytes."""

    name: str
    kind: str  # cpu or cuda
    bfloat16: Costs
    float32: Costs
    bandwidth: float
    link: float  # to the other devices
    call: float
    randoms: float = math.inf
    memory: float = math.inf


def _sheet(name: str, bfloat16: float, float32: float, bandwidth: float, link: float, gb: float) -> Device:
    """By a data sheet: dense TFLOP/s, GB/s of memory, GB/s of NVLink both ways together, GB."""
    moved, wire = REACH_BANDWIDTH * 1e9 * bandwidth, REACH_LINK * 1e9 * link
    costs = (assumed(e, REACH_PRODUCTS * 1e12 * rate, moved) for e, rate in ((2, bfloat16), (4, float32)))
    return Device(name, "cuda", next(costs), next(costs), moved, wire, GPU_CALL, memory=gb * 1e9)


# NVIDIA's data sheets of the SXM modules: A100 80GB (2021), H100 (2022), H200 (2023). float32 without
# tensor cores: the trainer leaves TF32 off.
SHEETS = (
    _sheet("A100-80GB", 312, 19.5, 2039, 600, 80),
    _sheet("H100", 989, 67, 3350, 900, 80),
    _sheet("H200", 989, 67, 4800, 900, 141),
)
DEVICES = {device.name: device for device in SHEETS}


def computed(on: Device, devices: int, threads: int, by_hand: Mapping[str, Any]) -> Execution:
    """How a run would be computed on so many of a device; `by_hand` sets keys of Execution."""
    precision = "bfloat16" if on.bfloat16.products > on.float32.products else "float32"
    attention, allocator = ("fused", "default") if on.kind == "cuda" else ("plain", "keep")
    how = Execution(on.kind, precision, attention, False, allocator, False, 0, threads, devices)
    return replace(how, **by_hand)
