"""The convolution as a matrix product is the convolution."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib_vitface.models.convolution import Convolution


@pytest.mark.parametrize(("side", "step", "edge"), [(3, 1, 1), (5, 2, 2), (1, 1, 0), (3, 2, 1), (3, 1, 0)])
def test_pictures_and_gradients_are_the_convolutions(side: int, step: int, edge: int) -> None:
    torch.manual_seed(0)
    layer = Convolution(7, 96, side, step, edge).to(memory_format=torch.channels_last)
    plain = nn.Conv2d(7, 96, side, step, edge)
    plain.load_state_dict(layer.state_dict())  # the same names and shapes
    x = torch.randn(2, 7, 6, 5).to(memory_format=torch.channels_last)
    found = []
    for one in (layer, plain.double()):
        mine = x.to(one.weight.dtype).requires_grad_()
        y = one(mine)
        slopes = torch.linspace(-1, 1, y[0].numel()).view_as(y[0]).to(y)
        found.append([y, *torch.autograd.grad((y * slopes).sum(), (mine, one.weight, one.bias))])
    for got, true in zip(*found, strict=True):
        torch.testing.assert_close(got.double(), true, rtol=1e-4, atol=1e-4)


def test_it_is_a_product_in_training_where_places_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = F.linear
    monkeypatch.setattr(F, "linear", lambda x, *more: seen.append(x.shape) or real(x, *more))
    layer = Convolution(4, 32, 3, padding=1)
    layer(torch.rand(2, 4, 4, 4))
    assert seen == [(32, 36)]
    layer(torch.rand(5, 4, 4, 4))  # 80 places for 32 channels
    layer.eval()(torch.rand(2, 4, 4, 4))  # as it is exported
    assert len(seen) == 1


def test_gradients_lie_in_memory_as_the_weights_do() -> None:
    """A fused optimiser goes by addresses."""
    layer = Convolution(8, 64, 3, padding=1).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.rand(2, 8, 4, 4)).float().square().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.stride() == layer.weight.stride()
