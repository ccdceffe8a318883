"""Landmark distance, pose and expression errors on heads of known shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lib_vitface.faces import mesh
from lib_vitface.metrics import geometry
from lib_vitface.types import Floats, Pose

Heads = Callable[..., Floats]


def test_landmark_distance_by_hand(posed: Heads) -> None:
    face = posed(Pose(0, 0, 0))
    eyes = [face[list(loop), :2].mean(0) for loop in (mesh.RIGHT_EYE, mesh.LEFT_EYE)]
    between = np.hypot(*(eyes[0] - eyes[1]))
    assert geometry.eye_distance(face) == pytest.approx(between, rel=1e-6)
    moved = face.copy()
    moved[:, :2] += (3, 4)
    moved[:, 2] += 50  # depth is not looked at
    assert geometry.landmark_distance(moved, face) == pytest.approx(5 / between, rel=1e-5)
    one = face.copy()
    one[7, 0] += 10
    assert geometry.landmark_distance(one, face) == pytest.approx(10 / between / 468, rel=1e-4)
    assert geometry.landmark_distance(2 * one, 2 * face) == pytest.approx(
        geometry.landmark_distance(one, face), rel=1e-4
    )


def test_pose_error_goes_the_short_way_round() -> None:
    assert geometry.pose_error(Pose(10, -5, 3), Pose(4, -2, 3)) == pytest.approx(3)
    assert geometry.pose_error(Pose(0, 0, 179), Pose(0, 0, -178)) == pytest.approx(1)


def test_expression_is_the_same_from_all_sides_and_sizes(posed: Heads) -> None:
    front = geometry.expression(posed(Pose(0, 0, 0)))
    for pose in (Pose(40, 0, 0), Pose(-20, 25, 10)):
        np.testing.assert_allclose(geometry.expression(posed(pose, scale=3.0)), front, rtol=1e-4)


def test_expression_follows_what_moves(posed: Heads) -> None:
    base = posed(Pose(0, 0, 0))
    still = geometry.expression(base)
    between = geometry.eye_distance(base)
    opened = base.copy()
    opened[14, 1] += 20  # lower lip goes down
    change = geometry.expression(opened) - still
    assert change[geometry.EXPRESSION.index("mouth_open")] == pytest.approx(20 / between, rel=0.1)
    assert np.abs(np.delete(change, geometry.EXPRESSION.index("mouth_open"))).max() < 1e-6
    shut = base.copy()
    shut[[160, 159, 158]] = shut[[144, 145, 153]]
    assert geometry.expression(shut)[0] == pytest.approx(0, abs=1e-6)
    assert geometry.expression(shut)[1] == pytest.approx(still[1])


def test_expression_scores() -> None:
    rng = np.random.default_rng(0)
    target = 0.3 + 0.1 * rng.random((50, 6))
    target[:, 3] = 0.5  # never moves
    shifted = geometry.expression_scores(target + 0.07, target)  # another person at rest, the same play
    assert shifted["error"] == pytest.approx(0, abs=1e-9)
    assert shifted["correlation_mean"] == pytest.approx(1)
    assert shifted["correlation"]["mouth_width"] is None
    noisy = target + 0.05 * rng.normal(size=target.shape)
    found = geometry.expression_scores(noisy, target)
    assert found["correlation"]["mouth_open"] == pytest.approx(np.corrcoef(noisy[:, 2], target[:, 2])[0, 1])
    frozen = geometry.expression_scores(np.full_like(target, 0.3), target)
    assert frozen["correlation_mean"] == 0 and frozen["error"] > 0.01
    assert geometry.expression_scores(target[:2], target[:2])["correlation_mean"] is None
