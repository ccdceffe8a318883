"""Dense landmarks on the sample clips: steady under the picture's own motion, honest about what is no face."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.faces import align, mesh
from lib_vitface.faces.analyse import MIN_PRESENCE, Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.landmarks import EyeNet, MeshLandmarker, eye_matrix, five_points, roi_matrix
from lib_vitface.types import Face, Floats, Image

LIDS = {"right": (159, 145), "left": (386, 374)}


@pytest.fixture(scope="module")
def landmarker() -> MeshLandmarker:
    return MeshLandmarker()


@pytest.fixture(scope="module")
def seen(landmarker: MeshLandmarker) -> tuple[Image, Face]:
    image = next(iter(islice(media.read_frames(locate("sample_source")), 1))).image
    return image, landmarker(image, make_detector()(image)[0])


def points_of(face: Face) -> Floats:
    assert face.landmarks is not None
    return face.landmarks


def test_what_is_found_agrees_with_itself(seen: tuple[Image, Face]) -> None:
    _, face = seen
    points = points_of(face)
    assert points.shape == (mesh.POINT_COUNT, 3) and points.dtype == np.float32
    assert face.presence is not None and face.presence > 0.95
    np.testing.assert_array_equal(face.points, five_points(points))
    np.testing.assert_allclose(face.box, [*points[:, :2].min(axis=0), *points[:, :2].max(axis=0)])
    assert face.pose == align.fit_head(points).pose and abs(face.pose.yaw_deg) < 15
    canonical = align.fit_head(points).project(mesh.vertices())
    assert np.abs(points - canonical).mean() < 0.05 * np.ptp(points[:, 1])


def test_a_face_knows_its_irises(seen: tuple[Image, Face]) -> None:
    image, face = seen
    assert face.iris is not None
    for eye, loop in enumerate((mesh.RIGHT_EYE, mesh.LEFT_EYE)):
        low, high = points_of(face)[list(loop), :2].min(axis=0), points_of(face)[list(loop), :2].max(axis=0)
        assert (low < face.iris[eye]).all() and (face.iris[eye] < high).all()
    apart = np.linalg.norm(face.iris - EyeNet().irises(image, face)[:, 0], axis=1)
    assert apart.max() < 0.05 * (face.points[1, 0] - face.points[0, 0])


@pytest.mark.parametrize("roll", [-35.0, 20.0])
def test_a_turned_and_enlarged_picture_turns_its_landmarks(
    landmarker: MeshLandmarker, seen: tuple[Image, Face], roll: float
) -> None:
    image, face = seen
    matrix = align.square_matrix(np.array([300.0, 190.0]), 1.6, roll, 1000)
    turned = cv2.warpAffine(image, matrix, (1000, 1000), flags=cv2.INTER_CUBIC)
    five = align.apply(matrix, face.points).astype(np.float32)
    low, high = five.min(axis=0) - 60, five.max(axis=0) + 60
    again = landmarker(turned, Face(np.concatenate([low, high]).astype(np.float32), 1.0, five))
    expected = align.apply(matrix, points_of(face))
    error = np.linalg.norm(points_of(again)[:, :2] - expected[:, :2], axis=1)
    assert np.median(error) < 0.012 * np.ptp(expected[:, 1]) and error.max() < 0.06 * np.ptp(expected[:, 1])


def test_where_the_look_begins_hardly_matters(landmarker: MeshLandmarker, seen: tuple[Image, Face]) -> None:
    image, face = seen
    size = face.box[2] - face.box[0]
    found = []
    for shift in (-0.15, 0.0, 0.15):
        moved = Face(face.box + shift * size, 1.0, (face.points + shift * size).astype(np.float32))
        found.append(points_of(landmarker(image, moved)))
    assert np.abs(found[0] - found[1])[:, :2].mean() < 0.01 * size
    assert np.abs(found[2] - found[1])[:, :2].mean() < 0.01 * size


def test_no_face_has_no_presence(landmarker: MeshLandmarker, seen: tuple[Image, Face]) -> None:
    image, face = seen
    nothing = np.random.default_rng(0).integers(0, 256, image.shape).astype(np.uint8)
    presence = landmarker(nothing, replace(face, landmarks=None)).presence
    assert presence is not None and presence < MIN_PRESENCE


def test_closed_eyes_are_closed(landmarker: MeshLandmarker) -> None:
    """She weeps with her eyes shut at 5 s and looks up at 13 s."""
    openings = []
    for at_s in (3.0, 13.0):
        image = next(iter(islice(media.read_frames(locate("sample_target"), at_s), 1))).image
        points = points_of(landmarker(image, make_detector()(image)[0]))
        gaps = [np.linalg.norm(points[a, :2] - points[b, :2]) for a, b in LIDS.values()]
        openings.append(np.mean(gaps) / np.linalg.norm(points[33, :2] - points[133, :2]))
    assert openings[0] < 0.5 * openings[1]


def test_irises_lie_between_the_lids(seen: tuple[Image, Face]) -> None:
    image, face = seen
    iris = EyeNet().irises(image, face)
    assert iris.shape == (2, 5, 2) and iris[0, 0, 0] < iris[1, 0, 0]
    for (centre, *_), (inner, outer) in zip(iris, ((133, 33), (362, 263)), strict=True):
        across = points_of(face)[outer, :2] - points_of(face)[inner, :2]
        along = float((centre - points_of(face)[inner, :2]) @ across / (across @ across))
        assert 0.2 < along < 0.8


def test_squares_are_level_with_the_eyes_and_mirror_the_left_one(seen: tuple[Image, Face]) -> None:
    _, face = seen
    plain = roi_matrix(replace(face, landmarks=None))
    eyes = align.apply(plain, face.points[:2])
    assert abs(eyes[1, 1] - eyes[0, 1]) < 1e-3 and eyes[0, 0] < eyes[1, 0]
    for left, (outer, inner) in ((False, (33, 133)), (True, (263, 362))):
        a, b = align.apply(eye_matrix(face, left), points_of(face)[[outer, inner], :2])
        assert a[0] < b[0] and (a + b) / 2 == pytest.approx([31.5, 31.5], abs=1e-3)
    with pytest.raises(ValueError, match="landmarks"):
        eye_matrix(replace(face, landmarks=None), False)


def test_analyser_drops_what_is_no_face_and_follows_without_detecting(seen: tuple[Image, Face]) -> None:
    image, face = seen
    calls = {"detector": 0}

    def detector(_: Image) -> list[Face]:
        calls["detector"] += 1
        return [replace(face, presence=None, landmarks=None), replace(face, presence=None, landmarks=None, score=0.1)]

    def landmark(_: Image, one: Face) -> Face:
        return replace(one, presence=presence if one.score > 0.5 else 0.0, landmarks=face.landmarks)

    presence = 0.9
    analyse = Analyser(detector, landmark, lambda _, __: np.ones(4, np.float32))
    found = analyse(image)
    assert len(found) == 1 and calls["detector"] == 1 and found[0].embedding is not None
    assert Analyser(detector, landmark)(image)[0].embedding is None
    calls["detector"] = 0
    assert len(analyse.follow(image, found)) == 1 and calls["detector"] == 0
    presence = MIN_PRESENCE - 0.01  # lost: looked for anew
    assert analyse.follow(image, found) == [] and calls["detector"] == 1
    assert analyse.follow(image, []) == [] and calls["detector"] == 2


@pytest.mark.parametrize("box", [(5, 5, 5, 5), (9, 9, 3, 30), (0, 0, np.inf, 10), (0, 0, np.nan, 10)])
def test_a_box_of_no_size_or_of_an_endless_one_is_no_face(seen: tuple[Image, Face], box: tuple[float, ...]) -> None:
    image, face = seen
    odd = Face(np.array(box, dtype=np.float32), 0.9, face.points)
    found = Analyser(lambda _: [odd, replace(face, landmarks=None)], MeshLandmarker())(image)
    assert [one.score for one in found] == [face.score]
