"""Pictures for a ControlNet: depth from the mesh, dots from the landmarks."""

from __future__ import annotations

import numpy as np

from lib_vitface.faces import mesh
from lib_vitface.swap.control import DOTS, control_image, depth_image, dots_image
from lib_vitface.types import Floats


def head(size: float = 200.0) -> Floats:
    """The canonical face in the middle of a picture, nose towards the viewer (negative z)."""
    flat = mesh.vertices()[:, :3].astype(np.float32)
    points = (flat - flat.mean(axis=0)) / np.ptp(flat[:, 1]) * (0.8 * size) * np.float32([1, -1, -1])
    return points + np.float32([size / 2, size / 2, 0])


def test_the_nose_is_nearest_and_the_ground_is_black() -> None:
    landmarks = head()
    drawn = depth_image(landmarks, (200, 200))
    assert drawn.shape == (200, 200, 3) and drawn.dtype == np.uint8 and not drawn[:8].any()
    x, y = np.rint(landmarks[mesh.NOSE_TIP, :2]).astype(int)
    cheek_x, cheek_y = np.rint(landmarks[[234, 454], :2].mean(axis=0) * [0, 1] + [landmarks[234, 0] + 4, 0]).astype(int)
    assert drawn[y, x, 0] > drawn[cheek_y, cheek_x, 0] + 60 > 60
    assert drawn.max() <= 255 and drawn[y - 2 : y + 3, x - 2 : x + 3].min() > 220
    turned = landmarks * np.float32([1, 1, -1])
    assert depth_image(turned, (200, 200))[y, x, 0] < 100, "seen from behind, the nose is furthest"


def test_dots_lie_where_the_landmarks_are() -> None:
    landmarks = head()
    drawn = dots_image(landmarks, (200, 200))
    places = np.rint(landmarks[list(DOTS), :2]).astype(int)
    assert (drawn[places[:, 1], places[:, 0]] == 255).all()
    assert 0.005 < (drawn > 0).mean() < 0.12
    assert len(set(DOTS)) == len(DOTS) and max(DOTS) < mesh.POINT_COUNT


def test_kinds() -> None:
    image = np.full((200, 200, 3), 9, np.uint8)
    assert control_image("tile", image, head()) is image
    for kind in ("depth", "face"):
        assert (control_image(kind, image, head()) != image).any()
