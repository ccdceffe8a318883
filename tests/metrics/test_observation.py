"""Which face was replaced, and what changed around it, on made-up frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from skimage.measure import blur_effect

from lib_vitface.faces import align
from lib_vitface.metrics import observation
from lib_vitface.metrics.alignment import FramePair
from lib_vitface.types import Face, Floats, Image, Pose

Heads = Callable[..., Floats]
Faces = Callable[[Floats], Face]


def noise(seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 200, (400, 600, 3), dtype=np.uint8)


def test_the_changed_face_is_the_replaced_one(posed: Heads, face_of: Faces) -> None:
    large = face_of(posed(Pose(0, 0, 0), scale=12, centre=(150, 200)))
    small = face_of(posed(Pose(0, 0, 0), scale=8, centre=(450, 200)))
    frame = noise()
    swapped = frame.copy()
    x0, y0, x1, y1 = small.box.astype(int)
    swapped[y0:y1, x0:x1] += 20
    assert observation.replaced_face([large, small], frame, swapped) is small
    assert observation.replaced_face([small, large], frame, frame) is large  # nothing changed: the largest
    assert observation.replaced_face([small], frame, swapped) is small
    beyond = replace(small, box=np.float32([-500, -500, -400, -400]))  # no pixel of it in the frame
    assert observation.replaced_face([beyond, large], frame, frame) is large


def test_error_outside_the_face_crop(posed: Heads, face_of: Faces) -> None:
    face = face_of(posed(Pose(0, 0, 20), scale=6, centre=(300, 200)))
    matrix = align.crop_matrix(face, observation.FACE_PX)
    corners = align.apply(align.invert(matrix), np.array([[0, 0], [255, 0], [255, 255], [0, 255.0]]))
    frame, inside, outside = noise(), noise(), noise()
    middle = corners.mean(0).astype(int)
    inside[middle[1] - 40 : middle[1] + 40, middle[0] - 40 : middle[0] + 40] = 255  # within the turned square
    assert observation.outside_error(FramePair(0, Fraction(0), frame, inside), matrix) == 0
    outside[:10] += 3
    area = float(np.linalg.norm(corners[1] - corners[0]) * np.linalg.norm(corners[3] - corners[0])) * (256 / 255) ** 2
    expected = 9 * 10 * 600 / (400 * 600 - area)
    assert observation.outside_error(FramePair(0, Fraction(0), frame, outside), matrix) == pytest.approx(
        expected, rel=0.03
    )
    close = align.crop_matrix(face_of(posed(Pose(0, 0, 0), scale=90, centre=(300, 200))), observation.FACE_PX)
    assert observation.outside_error(FramePair(0, Fraction(0), frame, outside), close) == 0


def test_sharpness_is_that_of_the_faces_rectangle_in_the_upright_crop(posed: Heads, face_of: Faces) -> None:
    face = face_of(posed(Pose(5, 0, 10), scale=12, centre=(300, 200)))
    blurred = cv2.GaussianBlur(noise(), (0, 0), 2)
    see = observation.Observer(None, lambda *_: np.zeros(3, np.float32), {})  # type: ignore[arg-type]
    found = see.score(observation.Sighting(FramePair(0, Fraction(0), noise(), blurred), face, face)).sharpness
    matrix = align.crop_matrix(face, observation.FACE_PX)
    points = align.apply(matrix, face.landmarks)[:, :2]
    (x0, y0), (x1, y1) = points.min(axis=0).astype(int), (points.max(axis=0) + 1).astype(int)
    for value, picture in zip(found, (blurred, noise()), strict=True):
        crop = align.warp(picture, matrix, observation.FACE_PX)[y0:y1, x0:x1]
        grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
        assert value == pytest.approx(1 - blur_effect(grey, h_size=11), abs=1e-5)
    assert found[0] < found[1]
