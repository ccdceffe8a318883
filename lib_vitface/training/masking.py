"""Hiding parts of the driving face from the encoder, and looking harder at others, by what the encoder itself looks at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lib_vitface.losses import priority_map
from lib_vitface.models.encoder import ViTEncoder
from lib_vitface.training.settings import TrainOptions
from lib_vitface.types import Batch

_MASKED_PICTURES = 0.5  # share of the pictures in which patches are hidden; the others are as when swapping
_REGION = 0.13  # radius of a guided region, of the picture's side
_EMPHASIS = 2.0  # what is emphasised counts this much more
_BEYOND = 0.15  # what the attention counts away from eyes and mouth


def patch_mask(
    random: np.random.Generator,
    count: int,
    side: int,
    share: float,
    pattern: str,
    attention: NDArray[np.floating] | None,
) -> NDArray[np.bool_]:
    """Which patches of `count` pictures are hidden, `[count, side * side]`; in half of the pictures none.

    random: any; block: rectangles (Bao et al. 2021, BEiT, arXiv:2106.08254), as things before a face are; attention: those
    most asked for (Kakogeorgiou et al. 2022, AttMask, arXiv:2203.12719), from `attention` `[count, side, side]`.
    """
    total = side * side
    hidden = round(share * total)
    masks = np.zeros((count, total), bool)
    for index in range(count):
        chosen = random.random() < _MASKED_PICTURES
        if pattern == "block":
            order = _blocks(random, side, hidden)
        elif pattern == "attention" and attention is not None:
            # Gumbel noise: patches are drawn without putting back, by their share of the attention
            order = np.argsort(-(np.log(attention[index].ravel() + 1e-9) + random.gumbel(size=total)))
        else:
            order = random.permutation(total)
        if chosen:
            masks[index, order[:hidden]] = True
    return masks


def _blocks(random: np.random.Generator, side: int, hidden: int) -> NDArray[np.intp]:
    """Patch numbers of random rectangles, enough of them."""
    found: dict[int, None] = {}
    while len(found) < hidden:
        area = random.uniform(0.1, 0.4) * hidden + 1
        shape = np.exp(random.uniform(np.log(0.4), np.log(2.5)))
        height, width = (int(np.clip(round(v), 1, side)) for v in (np.sqrt(area * shape), np.sqrt(area / shape)))
        top, left = (int(random.integers(side - v + 1)) for v in (height, width))
        found |= {(top + r) * side + left + c: None for r in range(height) for c in range(width)}
    return np.array(list(found), np.intp)


def guided_regions(
    random: np.random.Generator, attention: torch.Tensor, points: torch.Tensor, size: int, share: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Soft discs to hide and to emphasise, each `[N, 1, S, S]` 0..1; a picture has one of the two or, mostly, none.

    Attention-guided augmentation (Hu et al. 2019, WS-DAN, arXiv:1901.09891; Zhao et al. 2021, AGDA, arXiv:2103.02406): the
    middle of a disc is drawn by `attention` `[N, h, w]`, which counts most near eyes and mouth, `points` `[N, K, 2]` px.
    `share` 0..1 of the pictures are changed.
    """
    count = len(attention)
    looked = F.interpolate(attention[:, None].float(), size=(size, size), mode="bilinear")
    wanted = looked * (_BEYOND + priority_map(points, (size, size), size / 24))
    odds = wanted.flatten(1).cpu().numpy().astype(np.float64)
    hide, emphasise = (torch.zeros(count, 1, size, size, device=attention.device) for _ in range(2))
    for index in range(count):
        kind, place = random.random(), random.random()
        summed = odds[index].cumsum()
        middle = min(int(np.searchsorted(summed, place * summed[-1], side="right")), size * size - 1)
        if kind < share:
            centre = points.new_tensor([[middle % size, middle // size]], dtype=torch.float32)
            disc = priority_map(centre, (size, size), _REGION * size)
            (hide if kind < share / 2 else emphasise)[index] = disc
    return hide, emphasise


def apply_guided(image: torch.Tensor, hide: torch.Tensor, emphasise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Images `[N, 3, S, S]` blurred where `hide` says, and what each place counts `[N, 1, S, S]`, 1 where nothing was chosen."""
    size = image.shape[-1]
    coarse = F.interpolate(F.adaptive_avg_pool2d(image, max(size // 16, 1)), size=(size, size), mode="bilinear")
    return torch.lerp(image, coarse, hide), 1 + _EMPHASIS * emphasise


def guide(
    batch: Batch, points: torch.Tensor, encoder: ViTEncoder, options: TrainOptions, random: np.random.Generator
) -> tuple[Batch, torch.Tensor | None]:
    """The batch as the encoder shall see it, and what each place counts `[B * T, 1, S, S]` (None: all alike).

    All frames of a clip are changed alike, by what is seen in its first. `points` `[B * T, K, 2]` px are eyes and lips.
    """
    clips, length = batch.image.shape[:2]
    attention = emphasis = None
    if options.attention_guided or (options.mask_patches and options.mask_pattern == "attention"):
        attention = encoder.attention(batch.image[:, 0])
    if options.attention_guided and attention is not None:
        size = batch.image.shape[-1]
        regions = guided_regions(random, attention, points[::length], size, options.attention_guided)
        hide, emphasise = (r.repeat_interleave(length, dim=0) for r in regions)
        image, emphasis = apply_guided(batch.image.flatten(0, 1), hide, emphasise)
        batch = replace(batch, image=image.unflatten(0, (clips, length)))
    if options.mask_patches:
        looked = None if attention is None else attention.cpu().numpy()
        masks = patch_mask(random, clips, encoder.side, options.mask_patches, options.mask_pattern, looked)
        hidden = torch.from_numpy(masks).to(batch.image.device)
        batch = replace(batch, masked=hidden[:, None].expand(-1, length, -1))
    return batch, emphasis
