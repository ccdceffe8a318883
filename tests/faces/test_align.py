"""Fits, crops and matrices against closed forms, round trips and OpenCV's own estimate."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_vitface.faces import align, mesh
from lib_vitface.faces.landmarks import with_landmarks
from lib_vitface.types import Face, Floats, Pose

ANGLES = st.tuples(st.floats(-80, 80), st.floats(-80, 80), st.floats(-179, 179))


def head(pose: Pose, scale: float, x: float, y: float) -> Floats:
    """The canonical head in a frame, `scale` px per cm, made without `HeadFit`."""
    points = mesh.vertices().astype(np.float64) * [1, -1, -1]
    return (scale * points @ align.rotation_of(pose).T + [x, y, 0]).astype(np.float32)


def face_of(landmarks: Floats) -> Face:
    return with_landmarks(Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32)), landmarks)


@given(ANGLES, st.floats(2, 40), st.floats(-500, 2000), st.floats(-500, 2000))
@settings(max_examples=60, deadline=None)
def test_a_posed_head_is_read_back(angles: tuple[float, float, float], scale: float, x: float, y: float) -> None:
    fit = align.fit_head(head(Pose(*angles), scale, x, y))
    assert fit.scale == pytest.approx(scale, rel=1e-3)
    np.testing.assert_allclose(fit.shift, [x, y, 0], atol=0.02 * scale + 1e-2)
    np.testing.assert_allclose(fit.rotation, align.rotation_of(Pose(*angles)), atol=2e-3)
    np.testing.assert_allclose(align.rotation_of(fit.pose), fit.rotation, atol=1e-9)


@pytest.mark.parametrize(
    ("pose", "where"),
    [
        (Pose(30, 0, 0), lambda p: p[mesh.NOSE_TIP, 0] - p[[127, 356], 0].mean() > 0),  # to the viewer's right
        (Pose(0, 30, 0), lambda p: p[mesh.NOSE_TIP, 1] - p[[127, 356], 1].mean() < 0),  # up
        (Pose(0, 0, 30), lambda p: p[mesh.FOREHEAD, 0] > p[mesh.CHIN, 0]),  # clockwise as seen
    ],
)
def test_signs_of_the_angles_are_the_conventions(pose: Pose, where: object) -> None:
    assert where(head(pose, 10, 0, 0))  # type: ignore[operator]


def test_similarity_agrees_with_opencv_and_never_mirrors() -> None:
    random = np.random.default_rng(0)
    a = random.normal(size=(40, 2)) * 30
    matrix = align.square_matrix(np.array([3.0, 4.0]), 1.7, 40.0, 100)
    b = align.apply(matrix, a)
    np.testing.assert_allclose(align.similarity_matrix(a, b), matrix, atol=1e-9)
    noisy = b + random.normal(size=b.shape) * 0.01
    expected, _ = cv2.estimateAffinePartial2D(a, noisy, method=cv2.LMEDS, refineIters=50)
    np.testing.assert_allclose(align.similarity_matrix(a, noisy), expected, atol=0.02)
    scale, rotation, _ = align.similarity(a, a * [-1, 1])
    assert np.linalg.det(rotation) == pytest.approx(1) and scale < 1
    weights = np.ones(40)
    weights[0], b[0] = 0, b[0] + 1000
    assert align.similarity(a, b, weights)[0] == pytest.approx(1.7)
    with pytest.raises(ValueError, match="extent"):
        align.similarity(np.ones((5, 2)), np.ones((5, 2)))


@given(ANGLES.filter(lambda a: abs(a[0]) < 50 and abs(a[1]) < 40), st.floats(4, 30))
@settings(max_examples=30, deadline=None)
def test_crops_are_upright_and_hold_the_whole_face(angles: tuple[float, float, float], scale: float) -> None:
    landmarks = head(Pose(*angles), scale, 300, 200)
    matrix = align.crop_matrix(face_of(landmarks), 256)
    inside = align.apply(matrix, landmarks)
    assert inside[:, :2].min() > 8 and inside[:, :2].max() < 248
    assert abs(align.fit_head(inside.astype(np.float32)).pose.roll_deg) < 0.5
    assert align.fit_head(inside.astype(np.float32)).scale == pytest.approx(256 / (1.5 * align.HEIGHT_CM), rel=1e-3)


def test_an_opening_mouth_moves_no_crop() -> None:
    closed = head(Pose(10, 5, 3), 12, 300, 200)
    open_ = closed.copy()
    jaw = [k for k in range(mesh.POINT_COUNT) if mesh.vertices()[k, 1] < -4]
    open_[jaw, 1] += 30
    np.testing.assert_array_equal(align.crop_matrix(face_of(closed), 256), align.crop_matrix(face_of(open_), 256))


@given(st.floats(-100, 700), st.floats(-100, 700), st.floats(0.05, 8), st.floats(-180, 180), st.integers(8, 512))
@settings(max_examples=60, deadline=None)
def test_square_matrices_centre_and_invert(x: float, y: float, factor: float, roll: float, size: int) -> None:
    matrix = align.square_matrix(np.array([x, y]), factor, roll, size)
    np.testing.assert_allclose(align.apply(matrix, np.array([[x, y]]))[0], [(size - 1) / 2] * 2, atol=1e-6)
    points = np.array([[0.0, 0, 5], [10, -3, -2], [400, 300, 0]])
    back = align.apply(align.invert(matrix), align.apply(matrix, points))
    np.testing.assert_allclose(back, points, atol=1e-6)
    assert align.apply(matrix, points)[0, 2] == pytest.approx(5 * factor)


@pytest.mark.parametrize("factor", [0.11, 0.25, 0.5, 1.0, 2.5])
def test_warping_a_linear_picture_is_exact_at_pixel_centres(factor: float) -> None:
    """A ramp survives averaging and interpolation unchanged, so every pixel must be the ramp at its own place."""
    y, x = np.mgrid[0:600, 0:600]
    ramp = np.dstack([x * 0.4, y * 0.4, (x + y) * 0.2]).round().astype(np.uint8)
    matrix = align.square_matrix(np.array([300.0, 290.0]), factor, 0.0, 48)
    picture = align.warp(ramp, matrix, 48)
    v, u = np.mgrid[0:48, 0:48]
    places = align.apply(align.invert(matrix), np.stack([u.ravel(), v.ravel()], 1))
    inside = ((places > 8) & (places < 591)).all(axis=1)
    assert inside.sum() > 900
    expected = np.stack([places[:, 0] * 0.4, places[:, 1] * 0.4, places.sum(axis=1) * 0.2], 1)
    assert np.abs(picture.reshape(-1, 3)[inside] - expected[inside]).max() < 1.3


def test_shrinking_averages_instead_of_picking() -> None:
    checker = np.indices((512, 512)).sum(axis=0) % 2 * 255
    picture = align.warp(
        np.dstack([checker] * 3).astype(np.uint8), align.square_matrix(np.array([255.5] * 2), 0.125, 0, 64), 64
    )
    assert np.abs(picture.astype(int) - 127).max() < 12


def test_points_scale_like_the_picture() -> None:
    points = np.array([[0, 0, 1], [95, 95, -2], [47.5, 47.5, 0]], np.float32)
    scaled = align.scale_points(points, 96, 192)
    np.testing.assert_allclose(scaled, [[0.5, 0.5, 2], [190.5, 190.5, -4], [95.5, 95.5, 0]])
    np.testing.assert_allclose(align.scale_points(scaled, 192, 96), points, atol=1e-5)
    small, ratio = align.shrunk(np.zeros((300, 1000, 3), np.uint8), 500)
    assert small.shape == (150, 500, 3) and ratio.tolist() == [2, 2]
    assert align.shrunk(small, 500)[0] is small


@pytest.mark.parametrize("size", [112, 224])
def test_the_chip_puts_the_five_points_on_the_template(size: int) -> None:
    random = np.random.default_rng(1)
    image = np.zeros((400, 400, 3), np.uint8)
    place = align.square_matrix(np.array([56.0, 56.0]), 1.9, -20, 400)
    points = align.apply(place, align.ARCFACE_TEMPLATE).astype(np.float32)
    for k, (x, y) in enumerate(points):
        cv2.circle(image, (round(float(x)), round(float(y))), 5, tuple(int(c) for c in random.integers(80, 255, 3)), -1)
        assert k < 5
    chip = align.five_point_chip(image, points, size)
    assert chip.shape == (size, size, 3)
    for x, y in (align.ARCFACE_TEMPLATE + 0.5) * size / 112 - 0.5:
        assert chip[round(float(y)), round(float(x))].max() > 60


def test_faces_without_landmarks_are_refused() -> None:
    with pytest.raises(ValueError, match="landmarks"):
        align.crop_matrix(Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32)), 64)
