"""Sharpness of a face against scikit-image's blur effect, and how it goes with blur, contrast and size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.measure import blur_effect

from lib_vitface.faces import mesh
from lib_vitface.faces.sharpness import sharpness
from lib_vitface.types import Floats, Image


def face(size: int = 256) -> Floats:
    """The canonical face in the middle of a crop."""
    return (mesh.vertices() * [1, -1, -1] * (size / 28) + [size / 2, size / 2, 0]).astype(np.float32)


def scene(size: int = 256) -> Image:
    """Soft blobs and sharp lines on grey, as a face has; the same at every size."""
    fine = np.full((1024, 1024, 3), 120, dtype=np.uint8)
    rng = np.random.default_rng(3)
    for _ in range(160):
        at = tuple(int(v) for v in rng.integers(100, 924, 2))
        colour = tuple(int(v) for v in rng.integers(40, 220, 3))
        cv2.ellipse(
            fine,
            at,
            (int(rng.integers(8, 90)), int(rng.integers(3, 30))),
            float(rng.uniform(0, 180)),
            0,
            360,
            colour,
            -1,
        )
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)


def test_sharpness_falls_with_every_kind_of_blur() -> None:
    crop, points = scene(), face()
    whole = sharpness(crop, points)
    soft = [sharpness(cv2.GaussianBlur(crop, (0, 0), s), points) for s in (1, 2, 4)]
    line = np.zeros((9, 9), np.float32)
    line[4] = 1 / 9
    moved = sharpness(cv2.filter2D(crop, -1, line), points)
    enlarged = sharpness(cv2.resize(cv2.resize(crop, (64, 64), interpolation=cv2.INTER_AREA), (256, 256)), points)
    assert whole > soft[0] > soft[1] > soft[2] > 0
    assert whole > 0.45 and soft[1] < 0.75 * whole and moved < 0.8 * whole and enlarged < 0.8 * whole


def test_sharpness_does_not_depend_on_contrast_or_size() -> None:
    crop, points = scene(), face()
    whole = sharpness(crop, points)
    dark = sharpness((crop * 0.4).astype(np.uint8), points)
    assert abs(dark - whole) < 0.03
    large = sharpness(scene(512), face(512))
    assert abs(large - whole) < 0.08


@pytest.mark.parametrize("blur_px", [0, 1, 3])
def test_sharpness_is_one_minus_the_blur_effect_of_skimage(blur_px: int) -> None:
    crop, points = scene(), face()
    if blur_px:
        crop = cv2.GaussianBlur(crop, (0, 0), blur_px)
    low, high = points[:, :2].min(axis=0).astype(int), (points[:, :2].max(axis=0) + 1).astype(int)
    part = cv2.cvtColor(crop[low[1] : high[1], low[0] : high[0]], cv2.COLOR_RGB2GRAY)
    assert sharpness(crop, points) == pytest.approx(1 - blur_effect(part, h_size=11), abs=1e-5)


def test_lines_of_one_direction_are_smeared_along_it() -> None:
    lines = np.tile(np.arange(256) // 8 % 2 * 200, (256, 1)).astype(np.uint8)
    assert sharpness(np.dstack([lines] * 3), face()) == 0.0


def test_sharpness_of_nothing_is_zero() -> None:
    flat = np.full((128, 128, 3), 90, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, flat.shape).astype(np.uint8)
    assert sharpness(flat, face(128)) == 0.0
    assert sharpness(noise, face(128) * 0.01) == 0.0
