"""A picture of how far the training is."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import torch
from torch import nn

from lib_vitface.faces import align
from lib_vitface.faceset.morphable import SHAPES
from lib_vitface.faceset.texture import geometry_map
from lib_vitface.models.config import IDENTITIES
from lib_vitface.training.data import Person
from lib_vitface.training.sampler import Sampler
from lib_vitface.types import Batch, Floats, Image

_COLUMNS = 6


def preview_sheet(model: nn.Module, sampler: Sampler, device: torch.device) -> Image:
    """Rows: target faces, redrawn as themselves, swapped, their masks, swapped with each further faceset of the source;
    `[rows * S, columns * S, 3]` uint8."""
    source, target, *further = sampler.persons
    frames = target.held_out if len(target.held_out) else target.training
    frames = frames[np.linspace(0, len(frames) - 1, min(_COLUMNS, len(frames))).astype(int)]
    own = _drive(target, target, frames, device, identity=1)
    swapped = _drive(source, target, frames, device, identity=0)
    others = [
        _drive(person, target, frames, device, identity=number) for number, person in enumerate(further, IDENTITIES)
    ]
    views = sampler.views()
    if views is not None:
        pictures = torch.from_numpy(views).to(device)
        own, swapped, *others = (dataclasses.replace(batch, views=pictures) for batch in (own, swapped, *others))
    redrawn, result = model(own), model(swapped)
    rows = [
        _pictures(own.image),
        _pictures(redrawn.image),
        _pictures(result.image),
        _pictures(result.mask.expand_as(result.image)),
        *(_pictures(model(batch).image) for batch in others),
    ]
    return np.concatenate(rows, axis=0)


def _drive(person: Person, target: Person, frames: np.ndarray, device: torch.device, identity: int) -> Batch:
    """Target faces that drive `person`."""
    size = target.images.shape[1]

    def channels_first(pictures: list[np.ndarray]) -> torch.Tensor:
        stacked = np.stack(pictures).astype(np.float32).transpose(0, 3, 1, 2)
        return torch.from_numpy(np.ascontiguousarray(stacked)).to(device).unsqueeze(1)

    images = [target.images[f].astype(np.float32) / 255 for f in frames]
    geometry = [geometry_map(target.landmarks[f], size) for f in frames]
    if len(person.references):
        drawn = []
        for f in frames:
            seen = target.expressions[f]
            wanted = dataclasses.replace(seen, points=seen.points - target.memory.neutral + person.memory.neutral)
            footage = target.images[f].astype(np.float32)
            drawn.append(person.memory.render(target.landmarks[f], size, wanted, footage=footage))
        reference = [np.clip(d.image, 0, 255) / 255 for d in drawn]
        trust = [d.mask[..., None] for d in drawn]
        own = [target.references[0, f].astype(np.float32) / 255 for f in frames]
    else:
        reference = own = images
        trust = [np.ones((size, size, 1), np.float32) for _ in frames]
    told = None
    if person.coefficients is not None and target.coefficients is not None:
        numbers = target.coefficients[0, frames].copy()
        numbers[:, -SHAPES:] = person.coefficients[0, 0, -SHAPES:]
        told = torch.from_numpy(numbers).to(device).unsqueeze(1)
    heads = np.stack([align.picture_to_face(align.fit_head(target.landmarks[f]), size) for f in frames])
    return Batch(
        channels_first(images),
        channels_first(reference),
        channels_first(trust),
        channels_first(own),
        channels_first(geometry),
        torch.full((len(frames),), identity, device=device),
        coefficients=told,
        picture_to_face=torch.from_numpy(heads).to(device).unsqueeze(1),
    )


def views_sheet(views: Floats) -> Image:
    """The views `[2, V, 3, S, S]` 0..1 that a model remembers: a row for each person."""
    return np.concatenate([_pictures(torch.from_numpy(person).unsqueeze(1)) for person in views], axis=0)


def _pictures(tensor: torch.Tensor) -> Image:
    """`[B, 1, 3, S, S]` as one row of pictures, at most 192 px a side."""
    pictures = (tensor.detach().float().cpu().clamp(0, 1) * 255).round().byte().squeeze(1).permute(0, 2, 3, 1).numpy()
    side = min(192, pictures.shape[1])
    return np.concatenate([cv2.resize(p, (side, side), interpolation=cv2.INTER_AREA) for p in pictures], axis=1)
