import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from recscale import loss as module
from recscale.loss import cross_entropy_sum


def both(hidden, output, target, scale=1.0):
    """(loss, gradients) of ours and of the plain float64 computation."""
    results = []
    for dtype, function in (
        (hidden.dtype, cross_entropy_sum),
        (torch.float64, lambda h, o, t: F.cross_entropy(h @ o.T, t, reduction="sum")),
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
    hidden, output = torch.randn(n, d), torch.randn(n_items, d)
    target = torch.randint(n_items, (n,))
    for ours, plain in both(hidden, output, target, scale=0.37):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [2**8, 2**22])
def test_chunks_do_not_change_the_result(monkeypatch, size):
    monkeypatch.setattr(module, "CHUNK_BYTES", size)
    torch.manual_seed(0)
    for ours, plain in both(torch.randn(300, 16), torch.randn(50, 16), torch.randint(50, (300,))):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


def test_large_logits_do_not_overflow():
    hidden, output = torch.full((2, 1), 100.0), torch.tensor([[1.0], [-1.0], [0.5]])
    assert cross_entropy_sum(hidden, output, torch.tensor([0, 1])).item() == pytest.approx(200)


def test_bfloat16_is_as_good_as_the_plain_bfloat16():
    """No worse than twice the error that the plain computation makes in the same precision."""
    torch.manual_seed(0)
    hidden, output = torch.randn(200, 32).bfloat16(), 0.3 * torch.randn(500, 32)
    target = torch.randint(500, (200,))
    exact = F.cross_entropy(hidden.double() @ output.double().T, target, reduction="sum")
    low = F.cross_entropy(hidden @ output.bfloat16().T, target, reduction="sum")
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
    output = torch.randn(20_000, 16, requires_grad=True)
    with Largest() as largest:
        cross_entropy_sum(hidden, output, torch.randint(20_000, (4000,))).backward()
    assert 16 * 20_000 * 4 <= largest.bytes <= module.CHUNK_BYTES
    with Largest() as largest:  # the measure itself: it sees the plain computation's logits
        F.cross_entropy(hidden @ output.T, torch.randint(20_000, (4000,)))
    assert largest.bytes == 4000 * 20_000 * 4
