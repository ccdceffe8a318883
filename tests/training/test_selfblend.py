"""Self-blended images: what a detector learns from without any swap."""

from __future__ import annotations

import numpy as np
import pytest

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.training.selfblend import Recipe, blend_mask, changed, self_blended
from lib_vitface.types import Face, Image


@pytest.fixture(scope="module")
def shown() -> tuple[Image, Face]:
    image = next(iter(media.read_frames(locate("sample_source")))).image
    return image, Analyser(make_detector("auto"), MeshLandmarker(eyes=False))(image)[0]


@pytest.mark.parametrize("seed", range(4))
def test_the_mask_lies_on_the_face_and_ends_softly(shown: tuple[Image, Face], seed: int) -> None:
    image, face = shown
    assert face.landmarks is not None
    mask = blend_mask(face.landmarks, image.shape, np.random.default_rng(seed))
    assert mask.shape == image.shape[:2] and mask.dtype == np.float32
    assert mask.min() >= 0 and mask.max() == pytest.approx(1)
    assert ((mask > 0.05) & (mask < 0.95)).any()
    # far from the face, by half of its height, there is nothing
    x0, y0, x1, y1 = face.box
    away = 0.5 * (y1 - y0)
    far = np.ones_like(mask, bool)
    far[max(int(y0 - away), 0) : int(y1 + away), max(int(x0 - away), 0) : int(x1 + away)] = False
    assert far.any() and mask[far].max() < 1e-3


def test_a_recipe_is_the_same_for_all_frames_and_another_seed_is_another(shown: tuple[Image, Face]) -> None:
    image, face = shown
    assert face.landmarks is not None
    one, two = Recipe(3), Recipe(4)
    first, mask = one(image, face.landmarks)
    again, same = self_blended(image, face.landmarks, 3)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(mask, same)
    assert not np.array_equal(two(image, face.landmarks)[0], first)


def test_inside_and_outside_come_from_two_pictures(shown: tuple[Image, Face]) -> None:
    """Outside of the mask the result is, wherever the picture under the blend was left alone, the picture itself."""
    image, face = shown
    assert face.landmarks is not None
    kinds = set()
    for seed in range(12):
        made, mask = self_blended(image, face.landmarks, seed)
        outside = np.abs(made.astype(int) - image)[mask < 1e-6].mean()
        inside = np.abs(made.astype(int) - image)[mask > 0.2].mean()
        assert max(inside, outside) > 0.5
        kinds.add(bool(outside < 1e-6))
    assert kinds == {True, False}, "now the inner picture is changed, now the outer one"


def test_a_changed_picture_keeps_its_shape(shown: tuple[Image, Face]) -> None:
    made = changed(shown[0], np.random.default_rng(1))
    assert made.shape == shown[0].shape and made.dtype == np.uint8 and not np.array_equal(made, shown[0])
