"""Measures of one crop, checked against scenes whose answer is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from faceset_maker import noise_image, posed_landmarks

from lib_vitface.faces import mesh
from lib_vitface.faceset import quality
from lib_vitface.types import Floats, Image, Pose

FRONT = Pose(0, 0, 0)


def test_exposure_is_the_share_of_usable_pixels() -> None:
    hull = np.zeros((100, 100), np.float32)
    hull[:, :50] = 1
    crop = np.full((100, 100, 3), 128, np.uint8)
    assert quality.exposure(crop, hull) == 1.0
    crop[:20] = 255  # a fifth burnt out
    crop[20:30] = 3  # a tenth crushed
    crop[:, 50:] = 0  # outside, does not count
    assert quality.exposure(crop, hull) == pytest.approx(0.7)
    assert quality.exposure(crop, hull * 0) == 0.0


def lit(points: Floats, direction: tuple[float, float, float], ambient: float = 0.35, strength: float = 0.5) -> Image:
    """The mesh drawn with Lambert shading by a light from `direction` (x right, y up, z to the viewer), triangle by triangle."""
    image = np.full((256, 256, 3), 30, np.uint8)
    towards = np.array(direction) / np.linalg.norm(direction)
    corners = points[mesh.triangles()]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) * np.array([1, -1, -1])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normals *= np.sign(normals[:, 2].mean())
    for i in np.argsort(-corners[:, :, 2].mean(axis=1)):
        shade = int(255 * min(1.0, ambient + strength * max(0.0, float(normals[i] @ towards))))
        cv2.fillConvexPoly(image, np.rint(corners[i, :, :2]).astype(np.int32), (shade, shade, shade))
    return image


@pytest.mark.parametrize("yaw", [0.0, 30.0, -30.0])
def test_light_tells_where_it_comes_from(yaw: float) -> None:
    points = posed_landmarks(Pose(yaw, 0, 0), 256)
    names = dict(zip(quality.LIGHT, range(4), strict=True))
    right, left = (quality.light(lit(points, (x, 0, 0.4)), points) for x in (1, -1))
    above, below = (quality.light(lit(points, (0, y, 0.4)), points) for y in (1, -1))
    assert right[names["side"]] > 0.25 and left[names["side"]] < -0.25
    assert above[names["above"]] > 0.25 and below[names["above"]] < -0.25
    assert abs(above[names["side"]]) < 0.5 * right[names["side"]]


def test_light_level_and_warmth() -> None:
    points = posed_landmarks(FRONT, 256)
    dim, bright = (quality.light(np.full((256, 256, 3), v, np.uint8), points) for v in (51, 204))
    assert dim[0] == pytest.approx(0.2, abs=0.01) and bright[0] == pytest.approx(0.8, abs=0.01)
    assert np.abs(dim[1:]).max() < 0.02
    warm = np.full((256, 256, 3), (180, 120, 60), np.uint8)
    assert quality.light(warm, points)[3] == pytest.approx((180 - 60) / (180 + 60), abs=0.01)


@pytest.mark.parametrize("pose", [FRONT, Pose(35, 0, 0), Pose(-20, 15, 40), Pose(5, -20, -80)])
def test_expression_is_zero_at_rest_at_any_pose(pose: Pose) -> None:
    values = dict(zip(quality.EXPRESSION, quality.expression(posed_landmarks(pose, 300)), strict=True))
    for name in ("mouth_open", "mouth_width", "smile", "brow_right", "brow_left"):
        assert abs(values[name]) < 1e-3, name
    assert values["eye_right"] == pytest.approx(values["eye_left"], rel=0.05) and values["eye_right"] > 0.1


def deformed(name: str) -> Floats:
    """The canonical face (cm, y up) with one part moved."""
    points = mesh.vertices().copy()
    if name == "mouth_open":
        points[[14, 87, 178, 88, 95, 317, 402, 318, 324, 17]] -= [0, 2.0, 0]
    elif name == "smile":
        points[list(mesh.MOUTH_CORNERS)] += [0, 0.8, 0]
    elif name == "mouth_width":
        points[list(mesh.MOUTH_CORNERS)] *= [1.4, 1, 1]
    elif name == "eye_right":
        points[159] = points[145]
    elif name == "eye_left":
        points[386] = points[374]
    else:
        points[list(mesh.RIGHT_BROW if name == "brow_right" else mesh.LEFT_BROW)] += [0, 0.6, 0]
    return points


@pytest.mark.parametrize("pose", [FRONT, Pose(30, -10, 20)])
@pytest.mark.parametrize("name", quality.EXPRESSION)
def test_each_value_follows_its_own_part(name: str, pose: Pose) -> None:
    rest = quality.expression(posed_landmarks(pose, 300))
    moved = quality.expression(posed_landmarks(pose, 300, deformed(name))) - rest
    own = quality.EXPRESSION.index(name)
    assert moved[own] < -0.1 if name.startswith("eye") else moved[own] > 0.08
    related = {"mouth_open": {"smile"}, "smile": {"mouth_width"}, "mouth_width": {"smile"}}.get(name, set())
    for other, change in zip(quality.EXPRESSION, moved, strict=True):
        if other != name and other not in related:
            assert abs(change) < 0.35 * abs(moved[own]), (other, change, moved[own])


def test_fingerprint_is_near_for_the_same_and_far_for_another_picture() -> None:
    crop = cv2.resize(noise_image(3, 12) // 2 + 40, (256, 256), interpolation=cv2.INTER_CUBIC)
    own = quality.fingerprint(crop)
    brighter = quality.fingerprint(np.clip(crop.astype(int) + 20, 0, 255).astype(np.uint8))
    compressed = cv2.imdecode(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 1)
    assert 0 <= own < 2**64
    assert (own ^ brighter).bit_count() <= 2 and (own ^ quality.fingerprint(compressed)).bit_count() <= 2
    assert (own ^ quality.fingerprint(np.ascontiguousarray(crop[:, ::-1]))).bit_count() > 16
    assert quality.fingerprint(np.zeros((64, 64, 3), np.uint8)) == 0


def test_change_is_the_largest_rms_of_eyes_lips_and_mesh() -> None:
    points = posed_landmarks(FRONT, 256)
    assert quality.change(points, points, 256) == 0
    assert quality.change(points, points + np.array([3.0, 4.0, 9.0]), 256) == pytest.approx(100 * 5 / 256)
    blink = points.copy()
    eyes = list(mesh.RIGHT_EYE + mesh.LEFT_EYE)
    blink[eyes, 1] += 2.0
    assert quality.change(points, blink, 256) == pytest.approx(100 * 2 / 256)
