"""One model out of several states of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch

from lib_vitface.models.checkpoint import Checkpoint, open_model

Weights = Mapping[str, torch.Tensor]
_ROUNDS = 12


def candidates(checkpoint: Checkpoint) -> dict[str, Weights]:
    """Weights of a model folder by name: the last, the best, and those of every backup of the same architecture."""
    found: dict[str, Weights] = {"last": checkpoint.tensors("weights")}
    if "best" in checkpoint.files:
        found["best"] = checkpoint.tensors("best")
    for place in sorted((checkpoint.folder / "backups").glob("step-*")):
        backup = open_model(place)
        if backup.config == checkpoint.config:
            found[place.name] = backup.tensors("weights")
    return found


def average(weights: Sequence[Weights], shares: Sequence[float]) -> dict[str, torch.Tensor]:
    """The weighted mean; whole numbers (counters) are the first's."""
    total = sum(shares)
    mixed = {}
    for name, first in weights[0].items():
        mixed[name] = first
        if first.is_floating_point():
            mixed[name] = torch.stack([s / total * w[name].float() for w, s in zip(weights, shares, strict=True)]).sum(
                0
            )
    return mixed


def soup(
    found: Mapping[str, Weights], judge: Callable[[Weights], float]
) -> tuple[dict[str, torch.Tensor], dict[str, float], float]:
    """Averaged weights, the share of each candidate, and the loss `judge` finds for them.

    Begins with the best candidate and adds, again and again, whichever lowers the loss of the average most, until none does
    (greedy soup, Wortsman et al. 2022, arXiv:2203.05482; repeated choice as in Caruana et al. 2004, so shares differ).
    """
    names = list(found)
    counts = dict.fromkeys(names, 0)
    best = math.inf
    for _ in range(_ROUNDS):
        trials = {}
        for name in names:
            counts[name] += 1
            trials[name] = judge(average([found[n] for n in names if counts[n]], [c for c in counts.values() if c]))
            counts[name] -= 1
        winner = min(trials, key=lambda n: trials[n])
        if not trials[winner] < best:
            break
        best = trials[winner]
        counts[winner] += 1
    chosen = {n: c / sum(counts.values()) for n, c in counts.items() if c}
    return average([found[n] for n in chosen], list(chosen.values())), chosen, best
