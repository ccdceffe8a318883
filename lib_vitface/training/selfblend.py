"""Self-blended images: a face blended with a changed copy of itself, to learn a detector from without any swap.

The method of Shiohara and Yamasaki 2022 (arXiv:2204.08376), written afresh from the paper: one of the two copies gets other
colours or another sharpness, the one that is put in is also moved a little, and a bent, softened hull of the landmarks says where.
What differs then between inside and outside is what every method that pastes a face leaves behind.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.faces import mesh
from lib_vitface.types import Floats, Image, Mask

_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)
_LOWER = (*mesh.NOSE_BASE, *mesh.LIPS_OUTER, *mesh.OVAL[9:28])
_INNER = (*mesh.BROWS, *mesh.NOSE, *mesh.LIPS_OUTER, *mesh.RIGHT_EYE, *mesh.LEFT_EYE)
_PARTS: tuple[tuple[int, ...], ...] = (tuple(range(mesh.POINT_COUNT)), _INNER, _LOWER)
_CHANCES = (0.6, 0.25, 0.15)


@dataclass(frozen=True)
class Recipe:
    """What is done to the frames of one clip, so that they agree with each other. `seed` draws it all."""

    seed: int

    def __call__(self, image: Image, landmarks: Floats) -> tuple[Image, Mask]:
        """Blend of an RGB picture `[H, W, 3]` with itself, and where `[H, W]` 0..1; `landmarks` `[468, 2 or 3]` in its pixels."""
        random = np.random.default_rng(self.seed)
        height = float(np.ptp(landmarks[:, 1]))
        mask = blend_mask(landmarks, image.shape[:2], random)
        put_in = under = image
        if random.random() < 0.5:
            put_in = changed(image, random)
        else:
            under = changed(image, random)
        put_in, mask = _moved(put_in, mask, height, random)
        mask = mask * np.float32(random.choice(_RATIOS))
        mixed = under + mask[..., None] * (put_in.astype(np.float32) - under)
        return np.clip(mixed, 0, 255).round().astype(np.uint8), mask


def self_blended(image: Image, landmarks: Floats, seed: int) -> tuple[Image, Mask]:
    """As `Recipe`, for one picture."""
    return Recipe(seed)(image, landmarks)


def blend_mask(landmarks: Floats, shape: tuple[int, ...], random: np.random.Generator) -> Mask:
    """A hull of the landmarks or of a part of them, bent and softened `[H, W]` 0..1."""
    chosen = _PARTS[int(random.choice(len(_PARTS), p=_CHANCES))]
    points = landmarks[list(chosen), :2].astype(np.float32)
    height = float(np.ptp(landmarks[:, 1]))
    drawn = np.zeros(shape[:2], np.uint8)
    hull = cv2.convexHull(points)[:, 0]
    middle = hull.mean(axis=0)
    grown = middle + (hull - middle) * random.uniform(0.85, 1.08)
    cv2.fillPoly(drawn, [np.rint(grown).astype(np.int32)], 255)
    bent = _bent(np.asarray(drawn / 255, np.float32), 0.06 * height, 0.25 * height, random)
    soft = cv2.GaussianBlur(bent, (0, 0), max(random.uniform(0.005, 0.07) * height, 0.4))
    if random.random() < 0.5:  # a second blur after a cut moves the edge inwards
        soft = cv2.GaussianBlur((soft > 0.5) * soft, (0, 0), max(random.uniform(0.005, 0.05) * height, 0.4))
    return np.asarray(np.clip(soft / max(float(soft.max()), 1e-6), 0, 1), np.float32)


def _bent(picture: Floats, most_px: float, coarse_px: float, random: np.random.Generator) -> Floats:
    """Elastic deformation (Simard et al. 2003): a smooth random field of at most `most_px`, about `coarse_px` coarse."""
    height, width = picture.shape
    rows, columns = (max(2, round(n / max(coarse_px, 1.0))) for n in (height, width))
    field = random.uniform(-most_px, most_px, (rows, columns, 2)).astype(np.float32)
    smooth = cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC)
    x = smooth[..., 0] + np.arange(width, dtype=np.float32)
    y = smooth[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    return np.asarray(cv2.remap(picture, x, y, cv2.INTER_LINEAR), np.float32)


def changed(image: Image, random: np.random.Generator) -> Image:
    """Other colours, and other sharpness half of the time."""
    result = image.astype(np.float32)
    if random.random() < 0.7:
        result = result + random.uniform(-18, 18, 3).astype(np.float32)
    if random.random() < 0.7:
        result = (result - 128) * np.float32(random.uniform(0.88, 1.12)) + 128 + np.float32(random.uniform(-14, 14))
    result = np.clip(result, 0, 255)
    if random.random() < 0.4:
        hsv = cv2.cvtColor(result.astype(np.uint8), cv2.COLOR_RGB2HSV).astype(np.float32)
        hsv += random.uniform(-1, 1, 3).astype(np.float32) * np.array((6, 25, 12), np.float32)
        hsv[..., 0] %= 180
        result = cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)
    kind = random.random()
    if kind < 0.25:
        result = result + random.uniform(0.3, 1.2) * (result - cv2.GaussianBlur(result, (0, 0), 1.2))
    elif kind < 0.5:
        result = _coarse(result, random.uniform(1.3, 4.0))
    elif kind < 0.7:
        result = cv2.GaussianBlur(result, (0, 0), random.uniform(0.5, 2.0))
    return np.clip(result, 0, 255).round().astype(np.uint8)


def _coarse(picture: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Shrunk and enlarged again: what a network of low resolution leaves."""
    height, width = picture.shape[:2]
    size = max(8, round(width / factor)), max(8, round(height / factor))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _moved(image: Image, mask: Mask, height_px: float, random: np.random.Generator) -> tuple[Image, Mask]:
    """Picture and mask moved by up to 3 % of the face's height and scaled by up to 5 % about the mask's middle."""
    scale = random.uniform(0.95, 1.05)
    total = max(float(mask.sum()), 1e-6)
    middle = np.array([mask.sum(0) @ np.arange(mask.shape[1]), mask.sum(1) @ np.arange(mask.shape[0])]) / total
    shift = (1 - scale) * middle + random.uniform(-0.03, 0.03, 2) * height_px
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    size = image.shape[1::-1]
    moved = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(moved, np.uint8), np.asarray(cv2.warpAffine(mask, matrix, size), np.float32)
