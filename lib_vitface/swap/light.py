"""The footage's light on the new face: slow changes over the face are taken over, everything finer stays the person's own.

In the spirit of quotient images (Shashua & Riklin-Raviv 2001, "The Quotient Image"): two faces under one mesh differ at low
spatial frequencies mostly by their light, so the ratio of their smoothed luma is the ratio of their lights.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.faces.parse import hull_mask, region_mask
from lib_vitface.types import Floats, Image, Mask

GRID = 48
"""Side of a light map; the light is far smoother than that."""

_SPAN = 0.09  # standard deviation of the smoothing, in crop sides: a crop is one and a half faces high
_MOST = 0.5  # largest change, natural logarithm of luma
_DOUBT = 0.08  # weight at which half of a ratio is believed
_FEATURES = (("eyes", 0.03), ("brows", 0.025), ("mouth", 0.02))
_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601 luma


def skin_mask(landmarks: Floats, shape: tuple[int, int]) -> Mask:
    """Where a face `[468, 3]` shows skin: the inner part of its outline without eyes, brows and mouth; `[H, W]` 0..1."""
    size = shape[0]
    return hull_mask(landmarks, shape, erode_px=0.025 * size, feather_px=0.02 * size) * featureless(landmarks, shape)


def featureless(landmarks: Floats, shape: tuple[int, int]) -> Mask:
    """Where neither eyes, brows nor mouth of a face `[468, 3]` are; `[H, W]` 0..1."""
    bare = np.ones(shape, np.float32)
    for group, margin in _FEATURES:
        bare *= 1 - region_mask(landmarks, group, shape, erode_px=-margin * shape[0], feather_px=1.0)
    return bare


def light_map(own: Image, footage: Image, skin: Mask) -> Floats:
    """Logarithm of the footage's light over the face's own, its mean taken out, `[GRID, GRID]`; 0 where no skin is near.

    `own`, `footage` RGB uint8 `[S, S, 3]` of one crop, `skin` `[S, S]` 0..1 where both show skin.
    """
    weight = cv2.resize(skin, (GRID, GRID), interpolation=cv2.INTER_AREA)
    if weight.sum() < 1:
        return np.zeros((GRID, GRID), np.float32)
    seen = _blurred(weight)
    ratio = np.log(
        (_blurred(_luma(footage, skin)) + 2e-2 * seen) / (_blurred(_luma(own, skin)) + 2e-2 * seen + 1e-6) + 1e-6
    )
    ratio = ratio - float((ratio * weight).sum() / weight.sum())
    believed = seen / (seen + _DOUBT)
    return np.clip(ratio, -_MOST, _MOST).astype(np.float32) * believed


def relit(image: NDArray[Any], light: Floats, amount: float) -> NDArray[Any]:
    """RGB uint8 `[S, S, 3]` with `amount` 0..1 of a light map put on it."""
    if amount <= 0 or not light.any():
        return image
    gain = cv2.resize(np.exp(np.float32(amount) * light), image.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return cv2.multiply(image, cv2.merge([gain] * 3), dtype=cv2.CV_8U)


def _luma(image: Image, skin: Mask) -> Floats:
    """Skin's luma 0..1 times its weight, on the grid."""
    luma = image.astype(np.float32) @ _WEIGHTS / 255 * skin
    return np.asarray(cv2.resize(luma, (GRID, GRID), interpolation=cv2.INTER_AREA), np.float32)


def _blurred(values: Floats) -> Floats:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), _SPAN * GRID, borderType=cv2.BORDER_CONSTANT), np.float32)
