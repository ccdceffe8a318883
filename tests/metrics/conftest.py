"""Faces of known shape, and short clips cut from the sample that the demo uses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lib_vitface.faces import align, landmarks, mesh
from lib_vitface.types import Face, Floats, Pose


def face_of(points: Floats) -> Face:
    """A `Face` with these landmarks `[468, 3]` and what follows from them."""
    points = points.astype(np.float32)
    box = np.concatenate([points[:, :2].min(axis=0), points[:, :2].max(axis=0)])
    pose = align.fit_head(points).pose
    return Face(box=box, score=1.0, points=landmarks.five_points(points), landmarks=points, presence=1.0, pose=pose)


def posed(pose: Pose, scale: float = 10.0, centre: tuple[float, float] = (200.0, 200.0)) -> Floats:
    """The canonical head turned to a pose, `[468, 3]` in frame pixels."""
    fit = align.HeadFit(scale, align.rotation_of(pose), np.array([*centre, 0.0]))
    return fit.project(mesh.vertices()).astype(np.float32)


@pytest.fixture(scope="session", name="posed")
def posed_fixture() -> Callable[..., Floats]:
    return posed


@pytest.fixture(scope="session", name="face_of")
def face_of_fixture() -> Callable[[Floats], Face]:
    return face_of


@pytest.fixture(scope="session")
def frontal_face() -> Face:
    return face_of(posed(Pose(0, 0, 0)))
