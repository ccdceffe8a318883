"""The light of the footage on the new face."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "faceset"))

from faceset_maker import posed_landmarks

from lib_vitface.faces import mesh
from lib_vitface.swap.light import GRID, light_map, relit, skin_mask
from lib_vitface.types import Image, Pose

SIZE = 192


def pictures(gain: np.ndarray) -> tuple[Image, Image]:
    """A grainy grey face, and another one under light `gain` [S, S]."""
    random = np.random.default_rng(3)
    faces = [
        np.clip(120 + cv2.GaussianBlur(random.normal(0, 40, (SIZE, SIZE)), (0, 0), 2) * 3, 1, 254) for _ in range(2)
    ]
    lit = np.clip(faces[1] * gain, 0, 255)
    return tuple(np.repeat(p[..., None], 3, axis=2).round().astype(np.uint8) for p in (faces[0], lit))  # type: ignore[return-value]


@pytest.fixture
def skin() -> np.ndarray:
    return skin_mask(posed_landmarks(Pose(0, 0, 0), SIZE), (SIZE, SIZE))


def test_skin_leaves_out_features(skin: np.ndarray) -> None:
    landmarks = posed_landmarks(Pose(0, 0, 0), SIZE)[:, :2].round().astype(int)
    for point in (159, 386, 13, mesh.RIGHT_BROW[2], mesh.LEFT_BROW[2]):
        assert skin[landmarks[point][1], landmarks[point][0]] < 0.05
    for cheek in (205, 425):
        assert skin[landmarks[cheek][1], landmarks[cheek][0]] > 0.9


def test_a_side_light_is_taken_over(skin: np.ndarray) -> None:
    slope = np.exp(np.linspace(-0.4, 0.4, SIZE))[None].repeat(SIZE, 0)
    own, footage = pictures(slope)
    light = light_map(own, footage, skin)
    assert light.shape == (GRID, GRID) and light.dtype == np.float32

    def sides(image: Image) -> float:
        firm = skin > 0.9
        left, right = firm.copy(), firm.copy()
        left[:, SIZE // 2 :], right[:, : SIZE // 2] = False, False
        return float(np.log(image[right].mean() / image[left].mean()))

    assert sides(own) == pytest.approx(0, abs=0.05)
    whole = sides(relit(own, light, 1.0))
    assert 0.5 * sides(footage) < whole < 1.2 * sides(footage)
    assert sides(own) < sides(relit(own, light, 0.5)) < whole


def test_brightness_as_a_whole_is_left_to_the_colours(skin: np.ndarray) -> None:
    own, footage = pictures(np.full((SIZE, SIZE), 0.5))
    assert np.abs(light_map(own, footage, skin)[skin[::4, ::4] > 0.9]).max() < 0.12


def test_fine_detail_stays(skin: np.ndarray) -> None:
    own, footage = pictures(np.ones((SIZE, SIZE)))
    fine = [
        p.astype(float)[..., 0] - cv2.GaussianBlur(p.astype(float)[..., 0], (0, 0), 4)
        for p in (own, relit(own, light_map(own, footage, skin), 1.0))
    ]
    firm = skin > 0.9
    assert np.corrcoef(fine[0][firm], fine[1][firm])[0, 1] > 0.99


def test_nothing_to_go_by_changes_nothing(skin: np.ndarray) -> None:
    own, footage = pictures(np.ones((SIZE, SIZE)))
    assert not light_map(own, footage, np.zeros_like(skin)).any()
    assert relit(own, np.zeros((GRID, GRID), np.float32), 1.0) is own
    assert relit(own, np.ones((GRID, GRID), np.float32), 0.0) is own
