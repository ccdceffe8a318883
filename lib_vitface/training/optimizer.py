"""Optimisers by model kind, and the learning rate over the course of a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch


class AdaBelief(torch.optim.Optimizer):
    """Adam whose step shrinks where gradients do not meet expectation (Zhuang et al. 2020, arXiv:2010.07468); SAEHD's usual one."""

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], lr: float, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": 1e-14})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from the gradients that are there."""
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros(())
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"] += 1
                count = float(state["step"])
                mean, surprise = state["exp_avg"], state["exp_avg_sq"]
                mean.lerp_(parameter.grad, 1 - first)
                gap = parameter.grad - mean
                surprise.mul_(second).addcmul_(gap, gap, value=1 - second).add_(group["eps"])
                size = (surprise.sqrt() / math.sqrt(1 - second**count)).add_(1e-8)
                parameter.addcdiv_(mean, size, value=-group["lr"] / (1 - first**count))


def make_optimizer(model: torch.nn.Module, kind: str, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW for vit, AdaBelief for saehd."""
    if kind.startswith("saehd"):
        return AdaBelief(model.parameters(), learning_rate)
    return torch.optim.AdamW(model.parameters(), learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)


def rate_at(step: int, progress: float, warm_up: int) -> float:
    """Factor 0..1 on the learning rate: linear warm-up, then a cosine to 2 % at the end. `progress` 0..1 of the whole training."""
    rise = min(1.0, (step + 1) / (warm_up + 1))
    return rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress)))))
