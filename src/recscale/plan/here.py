"""What this machine does, measured: devices.Costs in both precisions, with the model's own code.

A block and a chunk of the loss at two widths (the loss at two catalogues), attention with heads of 32.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from recscale.errors import InputError
from recscale.next_item.loss import cross_entropy_sum
from recscale.next_item.models.decoder import INIT_STD, Block, plain
from recscale.plan import devices
from recscale.plan.cost import MIB
from recscale.plan.devices import DEVICES, GPU_CALL, ITEMS, WIDTHS, Costs, Device
from recscale.study.execution import CHUNK_ROWS
from recscale.study.shapes import LAYER_CALLS
from recscale.train import machine
from recscale.train.dropout import dropout

HEAD = 32  # width of a head
WINDOWS, POSITIONS = 32, 50  # of the block that `here` measures
CALL = 6  # additions of eight numbers take as long as one operation and its gradient


def busy(load: float, cores: int, threads: int) -> str | None:
    """What to say where other programs take the cores that `threads` threads need, by the load."""
    if cores - load >= threads - 0.5:
        return None
    return (
        f"this machine is busy ({load:.1f} programs on {cores} cores): the times are longer than without them"
    )


def here(threads: int, seconds: float = 0.03) -> Device:
    """This machine: medians over `seconds` of each rate, or twice; two seconds in all.

    Gradients are taken to move at the memory's bandwidth. Emulated bfloat16 is not tried: it is a
    hundred times slower than float32.
    """
    how = machine.choose({}, threads)
    machine.apply(how)

    def median(call: Callable[[], object]) -> float:
        call()
        begun, times = time.perf_counter(), list[float]()
        while len(times) < 2 or time.perf_counter() - begun < seconds:
            before = time.perf_counter()
            call()
            if how.device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - before)
        return statistics.median(times)

    large, small = torch.zeros(2, 32 * MIB // 4, device=how.device), torch.zeros(8, device=how.device)
    bandwidth = 2 * large[0].nbytes / median(lambda: large[0].copy_(large[1]))
    call = CALL / 1000 * median(lambda: [small + small for _ in range(1000)])
    call = GPU_CALL if how.device == "cuda" else call

    def costs(precision: str) -> Costs:
        dtype = machine.PRECISION[precision]
        x, w = (torch.randn(shape, device=how.device).to(dtype) for shape in ((1600, 1024), (1024, 256)))
        products = 2 * x.numel() * w.shape[1] / median(lambda: x @ w)
        if how.device == "cuda":
            return devices.assumed(dtype.itemsize, products, bandwidth)
        return _costs(median, dtype, products, bandwidth, call)

    float32 = costs("float32")
    bfloat16 = costs("bfloat16") if how.precision == "bfloat16" else _slower(float32, 100)
    device = Device("here", how.device, bfloat16, float32, bandwidth, bandwidth, call)
    if how.device == "cuda":
        return replace(device, memory=torch.cuda.mem_get_info()[1])
    leaf = torch.randn(1600, 1024).requires_grad_()
    return replace(
        device, randoms=leaf.numel() / median(lambda: torch.autograd.grad(dropout(leaf, 0.1), leaf, leaf))
    )


def _slower(costs: Costs, times: float) -> Costs:
    small, large = ((a * times, b * times) for a, b in costs.logit)
    layer = costs.layer[0] * times, costs.layer[1] * times
    return Costs(costs.products / times, layer, (small, large), costs.score * times)


def _costs(
    median: Callable[[Callable[[], object]], float],
    dtype: torch.dtype,
    products: float,
    bandwidth: float,
    call: float,
) -> Costs:
    """Costs of a CPU, by the code that the model runs."""
    mask = torch.full((POSITIONS, POSITIONS), -torch.inf).triu(1)
    n_heads = WIDTHS[1] // HEAD
    heads = torch.randn(WINDOWS, POSITIONS, 3, n_heads, HEAD).to(dtype).requires_grad_()
    precision = torch.autocast("cpu", torch.bfloat16, dtype == torch.bfloat16)

    def attend() -> None:
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        with precision:
            mixed = plain(q, k, v, mask, 0.0)
        torch.autograd.grad(mixed, heads, mixed)

    def layer(d: int) -> float:
        block, x = Block(d, d // HEAD, 0.0, plain), torch.randn(WINDOWS, POSITIONS, d).requires_grad_()

        def both() -> None:
            with precision:
                out = block(x, mask)
            torch.autograd.grad(out, [x, *block.parameters()], out)

        position = (median(both) - LAYER_CALLS * call) / (WINDOWS * POSITIONS)
        on_top = position - score * POSITIONS * d / HEAD - 72 * d**2 / products
        return max(0.0, on_top / d)

    def logit(d: int, n_items: int) -> float:
        hidden = torch.randn(CHUNK_ROWS, d).to(dtype).requires_grad_()
        table = INIT_STD * torch.randn(n_items + 1, d)  # larger ones make probabilities denormal, and slow
        target = torch.randint(n_items, (CHUNK_ROWS,))
        taken = median(lambda: cross_entropy_sum(hidden, table, target)) - 10 * table.numel() / bandwidth
        return max(0.0, taken / (CHUNK_ROWS * n_items) - 6 * d / products)

    score = median(attend) / (WINDOWS * n_heads * POSITIONS**2)
    narrow, wide = ((logit(d, ITEMS[0]), logit(d, ITEMS[1])) for d in WIDTHS)
    return Costs(products, (layer(WIDTHS[0]), layer(WIDTHS[1])), (narrow, wide), score)


def device(name: str, threads: int) -> Device:
    """The device of that name, in any case of letters. Raises InputError for a name that is not known."""
    known = {one.lower(): device for one, device in DEVICES.items()}
    if name.lower() not in ("here", *known):
        raise InputError(f"--device: {name} is not one of here, {', '.join(DEVICES)}")
    return here(threads) if name.lower() == "here" else known[name.lower()]
