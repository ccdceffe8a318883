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


def irises_at(face: Floats, right: tuple[float, float], left: tuple[float, float]) -> Floats:
    """Iris centres that far along and across from the middle of the eyes, in their widths."""
    found = np.zeros((2, 5, 2), np.float32)
    for eye, (pair, place) in enumerate((((33, 133), right), ((362, 263), left))):
        a, b = face[pair[0], :2], face[pair[1], :2]
        along = b - a
        found[eye, 0] = (a + b) / 2 + place[0] * along + place[1] * np.array([-along[1], along[0]])
    return found


def test_gaze_is_read_in_widths_of_the_eye_however_the_head_leans(posed: Heads) -> None:
    for pose in (Pose(0, 0, 0), Pose(0, 0, 30), Pose(-20, 10, -50)):
        face = posed(pose, scale=4.0)
        seen = geometry.gaze(irises_at(face, (0.1, -0.05), (-0.2, 0.0)), face, pose.yaw_deg)
        np.testing.assert_allclose(seen, [[0.1, -0.05], [-0.2, 0.0]], atol=1e-3)


def test_gaze_distance_leaves_out_eyes_that_are_not_seen(posed: Heads) -> None:
    face = posed(Pose(0, 0, 0), scale=4.0)
    a, b = (geometry.gaze(irises_at(face, place, (0, 0)), face) for place in ((0, 0), (0.3, 0.4)))
    assert geometry.gaze_distance(a, b) == pytest.approx(0.25, abs=1e-3), "0.5 in one eye, 0 in the other"
    shut = face.copy()
    for upper, lower in ((160, 144), (159, 145), (158, 153)):
        shut[upper] = shut[lower]
    closed = geometry.gaze(irises_at(face, (0.3, 0.4), (0, 0)), shut)
    assert np.isnan(closed[0]).all() and geometry.gaze_distance(a, closed) == pytest.approx(0, abs=1e-3)
    away = geometry.gaze(irises_at(face, (0, 0), (0, 0)), face, yaw_deg=60)
    assert np.isnan(away[1]).all() and not np.isnan(away[0]).any()
    assert geometry.gaze_distance(closed, away) is None, "each shows another eye"
