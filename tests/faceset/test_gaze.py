"""Gaze against drawn irises, mirrored pictures and real frames."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from faceset_maker import posed_landmarks

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.faces import mesh
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.faceset import atlas, gaze
from lib_vitface.faceset.texture import TextureMemory, read_expression
from lib_vitface.types import Floats, Image, Pose

SIZE = 384
SKIN, WHITE, DARK = (200, 150, 130), (235, 235, 235), (20, 30, 40)


def drawn_face(across: float, yaw: float = 0.0) -> tuple[Image, Floats]:
    """A face whose irises stand `across` eye widths right of the middle of each eye, and its landmarks."""
    landmarks = posed_landmarks(Pose(yaw, 0, 0), SIZE, mesh.vertices())
    image = np.full((SIZE, SIZE, 3), SKIN, np.uint8)
    for eye, loop in enumerate(gaze.EYES):
        inside = np.zeros((SIZE, SIZE), np.uint8)
        cv2.fillPoly(inside, [np.round(landmarks[list(loop), :2]).astype(np.int32)], 1)
        corners = landmarks[list(((33, 133), (362, 263))[eye]), :2]
        width = np.linalg.norm(corners[0] - corners[1])
        iris = np.zeros_like(inside)
        centre = corners.mean(axis=0) + np.array([across * width, 0])
        cv2.circle(iris, tuple(int(v) for v in np.round(centre * 16)), int(width * 0.17 * 16), 1, -1, cv2.LINE_8, 4)
        image[inside > 0] = WHITE
        image[(inside & iris) > 0] = DARK
    return image, landmarks


def iris_of(image: Floats | Image, landmarks: Floats, eye: int) -> float:
    """Where the dark part of an opening is, in eye widths right of its middle."""
    inside = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(inside, [np.round(landmarks[list(gaze.EYES[eye]), :2]).astype(np.int32)], 1)
    inside = cv2.erode(inside, np.ones((3, 3), np.uint8))
    dark = np.clip(235 - np.asarray(image, np.float64).mean(axis=2), 0, None) * inside
    dark[dark < 60] = 0
    corners = landmarks[list(((33, 133), (362, 263))[eye]), :2]
    columns = np.arange(image.shape[1])[None]
    return float(((dark * columns).sum() / dark.sum() - corners[:, 0].mean()) / np.linalg.norm(corners[0] - corners[1]))


def place(landmarks: Floats, across: float) -> Floats:
    """Gaze `[2, 2]` of irises drawn by `drawn_face`, by the mesh alone."""
    found = []
    for eye in (0, 1):
        corners = landmarks[list(((33, 133), (362, 263))[eye]), :2]
        width = float(np.linalg.norm(corners[0] - corners[1]))
        found.append(gaze._place(landmarks, eye, corners.mean(axis=0) + np.array([across * width, 0])))
    return np.stack(found)


@pytest.mark.parametrize("eye", [0, 1])
def test_a_point_of_the_opening_is_found_in_the_atlas(eye: int) -> None:
    landmarks = posed_landmarks(Pose(20, 10, 5), SIZE, mesh.vertices())
    triangle = gaze._opening_triangles(eye)[4]
    weights = np.array([0.2, 0.5, 0.3])
    found = gaze._place(landmarks, eye, weights @ landmarks[triangle, :2].astype(np.float64))
    assert found * 255 == pytest.approx(weights @ atlas.places(256)[triangle], abs=0.02)
    assert np.isnan(gaze._place(landmarks, eye, landmarks[mesh.CHIN, :2])).all(), "an iris on the chin is none"


@pytest.mark.parametrize(("given", "wanted"), [(0.1, -0.1), (-0.12, 0.05), (0.0, 0.0)])
def test_a_drawn_iris_goes_where_it_is_wanted(given: float, wanted: float) -> None:
    image, landmarks = drawn_face(given)
    memory = TextureMemory.build([(image, landmarks, place(landmarks, given))], 512)
    drawn = memory.render(landmarks, SIZE, read_expression(landmarks, place(landmarks, wanted))).image
    plain = memory.render(landmarks, SIZE, read_expression(landmarks)).image
    for eye in (0, 1):
        assert iris_of(plain, landmarks, eye) == pytest.approx(given, abs=0.02), "nothing asked, nothing moved"
        assert iris_of(drawn, landmarks, eye) == pytest.approx(wanted, abs=0.03)
    moved = np.abs(drawn - plain).max(axis=2)
    opening = np.zeros((SIZE, SIZE), np.uint8)
    for loop in gaze.EYES:
        cv2.fillPoly(opening, [np.round(landmarks[list(loop), :2]).astype(np.int32)], 1)
    assert moved[cv2.dilate(opening, np.ones((9, 9), np.uint8)) == 0].max() < 0.5, "skin stays"


def test_blended_views_keep_one_iris() -> None:
    """Two views that look left and right: without gaze two grey irises, with it a dark one in the middle."""
    views = [(*drawn_face(across), place(drawn_face(across)[1], across)) for across in (-0.12, 0.12)]
    landmarks = views[0][1]
    memory = TextureMemory.build(views, 512)
    looks = read_expression(landmarks, place(landmarks, 0.0)), read_expression(landmarks)
    aimed, blind = (memory.render(landmarks, SIZE, look).image for look in looks)
    for eye in (0, 1):
        x, y = landmarks[list(((33, 133), (362, 263))[eye]), :2].mean(axis=0).round().astype(int)
        assert aimed[y, x].mean() < 60
        assert blind[y, x - 14].mean() > 90 and abs(iris_of(aimed, landmarks, eye)) < 0.03


def test_closed_lids_move_nothing() -> None:
    texture = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    area = slice(30, 70), slice(20, 70)
    for given, wanted, lids in (
        (np.array([0.3, 0.4]), np.array([0.33, 0.4]), 0.09),
        (np.array([0.3, np.nan]), np.array([0.33, 0.4]), 0.3),
        (np.array([0.3, 0.4]), np.array([0.3, 0.4]), 0.3),
    ):
        assert np.array_equal(gaze.slid(texture, area, given, wanted, 0, lids), texture[area])
    moved = gaze.slid(texture, area, np.array([0.3, 0.4]), np.array([0.33, 0.4]), 0, 0.3)
    assert not np.array_equal(moved, texture[area])
    assert np.isnan(gaze.GazeReader()(*shut_face())).all()


def shut_face() -> tuple[Image, Floats]:
    points = mesh.vertices().copy()
    for upper, lower in ((159, 145), (386, 374)):
        points[upper] = points[lower]
    return np.full((SIZE, SIZE, 3), SKIN, np.uint8), posed_landmarks(Pose(0, 0, 0), SIZE, points)


def test_real_eyes_look_the_other_way_in_a_mirror() -> None:
    image = next(iter(media.read_frames(locate("sample_source")))).image
    face = Analyser(make_detector(), MeshLandmarker())(image)[0]
    assert face.landmarks is not None
    reader = gaze.GazeReader()
    seen = reader(image, face.landmarks)
    width = image.shape[1]
    mirrored = face.landmarks[mesh.mirror_order()] * [-1, 1, 1] + [width - 1, 0, 0]
    other = reader(np.ascontiguousarray(image[:, ::-1]), mirrored.astype(np.float32))
    assert np.isfinite(seen).all()
    assert other[::-1, 0] == pytest.approx(1 - seen[:, 0], abs=0.004)  # of the atlas; an eye is 0.11 wide
    assert other[::-1, 1] == pytest.approx(seen[:, 1], abs=0.004)
    away = seen + np.array([0.02, 0], np.float32)
    near, far, shut = (
        gaze.unlike(np.stack([seen]), look, 0, lids)[0] for look, lids in ((seen, 0.3), (away, 0.3), (away, 0.1))
    )
    assert near == 0 == shut and far > 0.3
