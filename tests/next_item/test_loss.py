import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from recscale.next_item import loss as module
from recscale.next_item.loss import cross_entropy_sum


def both(hidden, output, target, scale=1.0):
    """(loss, gradients) of ours and of the plain float64 computation; row 0 of `output` is padding."""
    results = []
    for dtype, function in (
        (hidden.dtype, cross_entropy_sum),
        (torch.float64, lambda h, o, t: F.cross_entropy(h @ o[1:].T, t, reduction="sum")),
    ):
        h = hidden.detach().to(dtype).requires_grad_()
        o = output.detach().to(torch.float64 if dtype == torch.float64 else output.dtype)
        o.requires_grad_()
        value = function(h, o, target) * scale
        value.backward()
        results.append([value.detach().double(), h.grad.double(), o.grad.double()])
    return zip(*results, strict=True)


@given(st.integers(1, 70), st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**31))
def test_value_and_gradients_are_the_plain_ones(n, n_items, d, seed):
    torch.manual_seed(seed)
    hidden, output = torch.randn(n, d), torch.randn(n_items + 1, d)
    target = torch.randint(n_items, (n,))
    for ours, plain in both(hidden, output, target, scale=0.37):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "rows"), [(2**8, 512), (2**28, 7), (2**28, 512)])
def test_chunks_do_not_change_the_result(monkeypatch, size, rows):
    monkeypatch.setattr(module, "CHUNK_BYTES", size)
    monkeypatch.setattr(module, "CHUNK_ROWS", rows)
    torch.manual_seed(0)
    for ours, plain in both(torch.randn(300, 16), torch.randn(51, 16), torch.randint(50, (300,))):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_large_logits_do_not_overflow():
    """A gap of 80 nats is exact; beyond the smallest float32, 87 nats, it counts as 87."""
    output = torch.tensor([[0.0], [1.0], [-1.0], [0.5]])
    small, large = torch.full((2, 1), 40.0), torch.full((2, 1), 1000.0)
    assert cross_entropy_sum(small, output, torch.tensor([0, 1])).item() == pytest.approx(80)
    assert cross_entropy_sum(large, output, torch.tensor([0, 1])).item() == pytest.approx(87.34, abs=0.01)


def test_a_loss_that_is_not_a_number_stays_one():
    hidden, output = torch.tensor([[torch.nan], [1.0]]), torch.ones(4, 1)
    assert cross_entropy_sum(hidden, output, torch.tensor([0, 1])).isnan()


def test_bfloat16_is_as_good_as_the_plain_bfloat16():
    """No worse than twice the error that the plain computation makes in the same precision."""
    torch.manual_seed(0)
    hidden, output = torch.randn(200, 32).bfloat16(), 0.3 * torch.randn(501, 32)
    target = torch.randint(500, (200,))
    exact = F.cross_entropy(hidden.double() @ output[1:].double().T, target, reduction="sum")
    low = F.cross_entropy(hidden @ output[1:].bfloat16().T, target, reduction="sum")
    ours = cross_entropy_sum(hidden, output, target)
    assert abs(ours - exact) <= 2 * abs(low - exact) + 1e-3 * exact


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor that any operation gives, in bytes."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.bytes = max(self.bytes, result.untyped_storage().nbytes())
        return result


def test_the_full_logits_are_never_there():
    """20,000 items and 4,000 targets: the logits would take 320 MB."""
    hidden = torch.randn(4000, 16, requires_grad=True)
    output = torch.randn(20_001, 16, requires_grad=True)
    with Largest() as largest:
        cross_entropy_sum(hidden, output, torch.randint(20_000, (4000,))).backward()
    assert largest.bytes == module.CHUNK_ROWS * 20_000 * 4 < module.CHUNK_BYTES
    output = output.detach()[1:]
    with Largest() as largest:  # the measure itself: it sees the plain computation's logits
        F.cross_entropy(hidden @ output.T, torch.randint(20_000, (4000,)))
    assert largest.bytes == 4000 * 20_000 * 4


MILLION = """
import resource, torch
from recscale.train import machine
from recscale.next_item.loss import cross_entropy_sum
machine.apply(machine.choose({}, 2))
n_items, d, n = 1_000_000, 64, 3_200
table = torch.nn.Parameter(0.02 * torch.randn(n_items + 1, d))
table.grad = torch.zeros_like(table)
optimizer = torch.optim.Adam([table], fused=True)
optimizer.step()  # its state is there from now on
optimizer.zero_grad()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
places, target = torch.randint(n_items, (n,)), torch.randint(n_items, (n,))
hidden = torch.nn.functional.embedding(places + 1, table).to(torch.DTYPE)
(cross_entropy_sum(hidden, table, target) / n).backward()
optimizer.step()
print(peak() - before)
"""


@pytest.mark.heavy
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_million_items_take_less_than_a_gibibyte(dtype):
    """A whole step beyond parameters, gradient and optimizer state, which are there before."""
    code = MILLION.replace("DTYPE", dtype)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2**30
