import pytest
import torch

from recscale.train.dropout import Dropout, dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_drops_at_its_rate_and_keeps_the_mean(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x = torch.ones(1000, 1001, dtype=dtype)
    y = dropout(x, rate)
    share = (y == 0).double().mean().item()
    assert abs(share - rate) < 5 * (rate * (1 - rate) / x.numel()) ** 0.5 + 2**-17
    kept = y[y != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)), rtol=2e-2, atol=0)
    # Rows and columns are independent: their shares vary as those of coin tosses do.
    for dim in (0, 1):
        spread = (y == 0).double().mean(dim).std().item() / (rate * (1 - rate) / 1000) ** 0.5
        assert 0.9 < spread < 1.1


def test_the_gradient_takes_the_same_mask() -> None:
    x = torch.randn(40, 51, requires_grad=True)
    y = dropout(x.transpose(0, 1), 0.3)  # not contiguous
    grad = torch.randn_like(y)
    y.backward(grad)
    mask = torch.where(y == 0, 0.0, 1 / 0.7)
    torch.testing.assert_close(y, x.transpose(0, 1) * mask, rtol=1e-4, atol=0)
    torch.testing.assert_close(x.grad, (grad * mask).transpose(0, 1), rtol=1e-4, atol=0)


def test_masks_follow_the_generator() -> None:
    x = torch.ones(997)
    torch.manual_seed(7)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(7)
    assert torch.equal(dropout(x, 0.5), first)
    assert not torch.equal(first, second)


def test_the_rate_is_met_to_within_its_resolution() -> None:
    x = torch.ones(1)
    assert dropout(x, 0.0) is x
    module = Dropout(0.999).eval()
    assert module(x) is x
