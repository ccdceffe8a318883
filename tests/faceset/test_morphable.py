"""The morphable face: axes are what they are said to be, and a fit finds what was put in."""

from __future__ import annotations

import numpy as np
import pytest

from lib_vitface.errors import CheckpointError
from lib_vitface.faces import align, mesh
from lib_vitface.faceset.morphable import (
    COEFFICIENTS,
    EXPRESSIONS,
    SHAPES,
    Morphable,
    coefficients,
    mirrored_landmarks,
    shape_axes,
)
from lib_vitface.faceset.texture import Expression
from lib_vitface.types import Floats, Pose


@pytest.fixture(scope="module")
def model() -> Morphable:
    """Of two persons who open the mouth, blink, frown and smile."""
    random = np.random.default_rng(0)
    persons = []
    for _ in range(2):
        rest = mesh.vertices() + random.normal(0, 0.1, (468, 3)).astype(np.float32)
        ways = np.zeros((5, 468, 3), np.float32)
        for way, (points, direction) in enumerate(
            (
                (mesh.LIPS_INNER[11:], (0, -1.2, 0)), (mesh.RIGHT_EYE[1:8], (0, -0.4, 0)), (mesh.LEFT_EYE[1:8], (0, -0.4, 0)),
                (mesh.BROWS, (0, 0.5, 0)), (mesh.MOUTH_CORNERS, (0.0, 0.6, -0.2)),
            )
        ):  # fmt: skip
            ways[way, list(points)] = direction
        frames = [rest + np.tensordot(random.uniform(0, 1, 5), ways, 1).astype(np.float32) for _ in range(40)]
        persons.append(([Expression(f, np.zeros(2, np.float32)) for f in frames], rest))
    return Morphable.build(persons)


def test_shape_axes_are_symmetric_and_move_nothing_as_a_whole() -> None:
    axes = shape_axes()
    flat = axes.reshape(SHAPES, -1)
    gram = flat @ flat.T
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-8)
    np.testing.assert_allclose(axes[:, mesh.mirror_order()] * [-1, 1, 1], axes, atol=1e-6)
    np.testing.assert_allclose(axes.mean(axis=1), 0, atol=1e-9)
    centred = mesh.vertices() - mesh.vertices().mean(axis=0)
    np.testing.assert_allclose((axes * centred).sum(axis=(1, 2)), 0, atol=1e-6)  # no growing
    np.testing.assert_allclose(np.cross(centred, axes).sum(axis=1), 0, atol=1e-5)  # no turning
    edges = np.concatenate([mesh.triangles()[:, [0, 1]], mesh.triangles()[:, [1, 2]]])
    rough = [np.linalg.norm(a[edges[:, 0]] - a[edges[:, 1]]) / np.linalg.norm(a) for a in axes]
    noise = np.random.default_rng(0).normal(size=(468, 3))
    assert max(rough) < 0.35 * np.linalg.norm(noise[edges[:, 0]] - noise[edges[:, 1]]) / np.linalg.norm(noise)


def test_expression_axes_are_principal_components(model: Morphable) -> None:
    sizes = np.linalg.norm(model.expression.reshape(EXPRESSIONS, -1), axis=1)
    assert (np.diff(sizes) <= 1e-6).all() and sizes[0] > 0.5
    assert sizes[5:].max() < 1e-3 * sizes[0]  # five ways to move, mirrored ones are among them
    flat = model.expression[:4].reshape(4, -1)
    gram = flat @ flat.T
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-4)


def seen(
    model: Morphable, count: int, noise_px: float = 0.0, seed: int = 3
) -> tuple[Floats, Floats, Floats, list[Pose]]:
    """Landmarks of a person over a clip, and what they were made of."""
    random = np.random.default_rng(seed)
    shape = random.normal(0, 1, SHAPES).astype(np.float32)
    expression = random.normal(0, 1, (count, EXPRESSIONS)).astype(np.float32) * (np.arange(EXPRESSIONS) < 4)
    poses = [Pose(*random.uniform((-40, -20, -15), (40, 20, 15))) for _ in range(count)]
    landmarks = []
    for face, pose in zip(model.points(shape, expression.astype(np.float32)), poses, strict=True):
        placed = (face * [1, -1, -1]) @ align.rotation_of(pose).T * 9 + [120, 110, 0]
        landmarks.append(placed + random.normal(0, noise_px, (468, 3)))
    return np.stack(landmarks).astype(np.float32), shape, expression.astype(np.float32), poses


@pytest.mark.parametrize(("noise_px", "shape_mm", "pose_deg"), [(0.0, 0.5, 0.5), (1.0, 0.8, 1.0)])
def test_a_fit_finds_shape_expression_and_pose(
    model: Morphable, noise_px: float, shape_mm: float, pose_deg: float
) -> None:
    landmarks, shape, expression, poses = seen(model, 20, noise_px)
    fit = model.fit(landmarks)
    rest = np.zeros(EXPRESSIONS, np.float32)
    gap = model.points(fit.shape, rest) - model.points(shape, rest)
    assert 10 * np.linalg.norm(gap, axis=1).mean() < shape_mm
    assert 10 * np.linalg.norm(model.points(shape, rest) - model.mean, axis=1).mean() > 4 * shape_mm
    angles = np.array([h.pose for h in fit.heads]) - np.array(poses)
    assert np.abs(angles).max() < 2 and np.abs(angles).mean() < pose_deg
    assert np.corrcoef(fit.expression[:, :4].ravel(), expression[:, :4].ravel())[0, 1] > 0.97
    scales = np.array([h.scale for h in fit.heads])
    np.testing.assert_allclose(scales, 9, rtol=0.02)


def test_a_known_shape_is_kept(model: Morphable) -> None:
    landmarks, shape, expression, _ = seen(model, 3)
    fit = model.fit(landmarks, shape)
    np.testing.assert_array_equal(fit.shape, shape)
    np.testing.assert_allclose(fit.expression[:, :4], expression[:, :4], atol=0.15)


def test_coefficients_tell_expression_angles_and_the_wanted_shape(model: Morphable) -> None:
    landmarks, _, _, poses = seen(model, 4)
    fit = model.fit(landmarks)
    told = coefficients(fit, np.full(SHAPES, 0.5, np.float32))
    assert told.shape == (4, COEFFICIENTS)
    np.testing.assert_array_equal(told[:, :EXPRESSIONS], fit.expression)
    np.testing.assert_allclose(told[:, EXPRESSIONS] * 30, [p.yaw_deg for p in poses], atol=1)
    assert (told[:, -SHAPES:] == 0.5).all()


def test_a_mirrored_face_has_the_same_shape_and_turns_the_other_way(model: Morphable) -> None:
    landmarks, _, _, _ = seen(model, 10)
    fit, other = model.fit(landmarks), model.fit(mirrored_landmarks(landmarks, 200))
    np.testing.assert_allclose(other.shape, fit.shape, atol=0.05)
    for a, b in zip(fit.heads, other.heads, strict=True):
        assert b.pose.yaw_deg == pytest.approx(-a.pose.yaw_deg, abs=0.3)


def test_it_survives_being_written(model: Morphable) -> None:
    again = Morphable.from_arrays(model.arrays())  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.shape, model.shape)
    with pytest.raises(CheckpointError, match="lacks 'shape'"):
        Morphable.from_arrays({"mean": model.mean})
