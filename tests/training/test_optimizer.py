"""Optimisers against their published rules, in other arithmetic; clipping; whatever the memory layout."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from lib_vitface.training import optimizer as optimizers
from lib_vitface.training.optimizer import AdaBelief, clip_gradients, make_optimizer


def network() -> nn.Module:
    torch.manual_seed(0)
    parts = nn.Sequential(nn.Conv2d(5, 7, 3), nn.Conv2d(7, 9, 1), nn.Linear(9, 11), nn.LayerNorm(11))
    return parts.to(memory_format=torch.channels_last)


def set_gradients(model: nn.Module, step: int) -> None:
    for k, parameter in enumerate(model.parameters()):
        values = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(100 * step + k))
        parameter.grad = torch.empty_like(parameter).copy_(values)


def adabelief(model: nn.Module, rate: float, steps: int) -> list[torch.Tensor]:
    """Algorithm 2 of Zhuang et al. 2020 in double precision, with the small number added after the root, too."""
    found = []
    for k, parameter in enumerate(model.parameters()):
        value = parameter.detach().double().clone()
        mean, surprise = torch.zeros_like(value), torch.zeros_like(value)
        for step in range(1, steps + 1):
            slope = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(100 * (step - 1) + k)).double()
            mean = 0.9 * mean + 0.1 * slope
            surprise = 0.999 * surprise + 0.001 * (slope - mean) ** 2 + 1e-14
            value -= rate * (mean / (1 - 0.9**step)) / ((surprise / (1 - 0.999**step)).sqrt() + 1e-8)
        found.append(value)
    return found


@pytest.mark.parametrize("piece", [7, 1 << 15])
def test_adabelief_is_the_papers_whatever_its_pieces(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr(optimizers, "_PIECE", piece)
    model = network()
    expected = adabelief(model, 1e-2, 4)
    found = AdaBelief(model.parameters(), 1e-2)
    for step in range(4):
        set_gradients(model, step)
        found.step()
    for parameter, true in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.detach().double(), true, rtol=1e-5, atol=1e-6)


def test_adabelief_takes_gradients_that_lie_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizers, "_PIECE", 7)
    one, other = network(), network()
    for model, order in ((one, torch.channels_last), (other, torch.contiguous_format)):
        set_gradients(model, 0)
        first = next(model.parameters())
        first.grad = first.grad.contiguous(memory_format=order)
        AdaBelief(model.parameters(), 1e-2).step()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_adamw_is_fused_and_the_same() -> None:
    one, other = network(), network()
    fused = make_optimizer(one, "vit", 1e-2)
    plain = torch.optim.AdamW(other.parameters(), 1e-2, betas=(0.9, 0.99), weight_decay=1e-4, foreach=False)
    for step in range(4):
        for model, optimizer in ((one, fused), (other, plain)):
            set_gradients(model, step)
            optimizer.step()
    if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 4):
        assert fused.defaults["fused"]
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("largest", [0.5, 1e6, math.inf])
def test_clipping_is_torchs(largest: float) -> None:
    one, other = network(), network()
    for model in (one, other):
        set_gradients(model, 0)
    before = copy.deepcopy([p.grad for p in one.parameters()])
    norm = clip_gradients(one.parameters(), largest)
    assert float(norm) == pytest.approx(float(nn.utils.clip_grad_norm_(other.parameters(), largest)))
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    assert (largest > 1) == all(torch.equal(p.grad, g) for p, g in zip(one.parameters(), before, strict=True))


def test_clipping_leaves_what_is_not_finite_to_the_caller() -> None:
    model = network()
    set_gradients(model, 0)
    first = next(model.parameters())
    first.grad[0] = math.nan
    assert not torch.isfinite(clip_gradients(model.parameters(), 1.0))
