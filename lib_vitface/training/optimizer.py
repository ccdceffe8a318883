"""Optimisers by model kind, and the learning rate over the course of a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import torch

_PIECE = 1 << 16
"""Numbers of a parameter that a processor's core works on at once: what a step needs of them stays in its cache."""


class AdaBelief(torch.optim.Optimizer):
    """Adam whose step shrinks where gradients do not meet expectation (Zhuang et al. 2020, arXiv:2010.07468); SAEHD's usual one.

    It works piece by piece, all of a piece's arithmetic at once, because on a processor such a step waits for memory.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], lr: float, betas: tuple[float, float] = (0.9, 0.999)
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": 1e-14})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from the gradients that are there."""
        spare = torch.empty(0)
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
                unbias = math.sqrt(1 - second**count)
                rate = -group["lr"] * unbias / (1 - first**count)
                # as tensors: of a number torch would make one for every piece
                least, small = torch.tensor(group["eps"]), torch.tensor(1e-8 * unbias)
                whole = parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"]
                for value, gradient, mean, surprise in _pieces(*whole):
                    if (spare.shape, spare.device) != (value.shape, value.device):
                        spare = torch.empty_like(value)
                    mean.lerp_(gradient, 1 - first)
                    torch.sub(gradient, mean, out=spare)  # how far it was from what was expected
                    surprise.lerp_(spare.square_(), 1 - second).add_(least)
                    torch.sqrt(surprise, out=spare)
                    value.addcdiv_(mean, spare.add_(small), value=rate)


def _pieces(*whole: torch.Tensor) -> Iterable[tuple[torch.Tensor, ...]]:
    """Tensors of one shape in parts that lie in one place of memory; whole where they lie differently or on another device."""
    if any(tensor.device.type != "cpu" for tensor in whole):
        return [whole]
    if all(tensor.is_contiguous() for tensor in whole):
        lines = [tensor.view(-1) for tensor in whole]
    elif all(t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last) for t in whole):
        lines = [tensor.permute(0, 2, 3, 1).reshape(-1) for tensor in whole]
    else:
        return [whole]
    return zip(*(line.split(_PIECE * torch.get_num_threads()) for line in lines), strict=True)


def make_optimizer(model: torch.nn.Module, kind: str, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW for vit, AdaBelief for saehd."""
    if kind.startswith("saehd"):
        return AdaBelief(model.parameters(), learning_rate)
    parameters = list(model.parameters())
    settings: dict[str, Any] = {"lr": learning_rate, "betas": (0.9, 0.99), "weight_decay": 1e-4}
    if all(parameter.device.type == "cpu" for parameter in parameters):
        with suppress(RuntimeError):  # torch before 2.4 has it for CUDA only
            return torch.optim.AdamW(parameters, fused=True, **settings)
    return torch.optim.AdamW(parameters, **settings)


@torch.no_grad()
def clip_gradients(parameters: Iterable[torch.nn.Parameter], largest: float) -> torch.Tensor:
    """Scales all gradients down to a norm of at most `largest`, and returns what it was. Those that are short enough are left alone,
    which is a way through memory less than `torch.nn.utils.clip_grad_norm_`."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    if (factor := largest / (norm + 1e-6)) < 1:
        torch._foreach_mul_(gradients, factor)
    return norm


def rate_at(step: int, progress: float, warm_up: int) -> float:
    """Factor 0..1 on the learning rate: linear warm-up, then a cosine to 2 % at the end. `progress` 0..1 of the whole training."""
    rise = min(1.0, (step + 1) / (warm_up + 1))
    return rise * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, progress)))))
