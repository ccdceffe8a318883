"""Every detector finds the people of the sample clips where they are, in any size and place of the picture."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import islice

import cv2
import numpy as np
import pytest

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.errors import InputError
from lib_vitface.faces.blazeface import BlazeFaceDetector, five_of_four
from lib_vitface.faces.detect import DETECTORS, YuNetDetector, make_detector
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.faces.track import overlap
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.options import declared
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.types import Detector, Image

OWN = pytest.mark.parametrize("make", [YuNetDetector, BlazeFaceDetector])
EYE_CORNERS = ((33, 133), (362, 263))


def picture(name: str, at_s: float = 0.0) -> Image:
    return next(iter(islice(media.read_frames(locate(name), at_s), 1))).image


@OWN
@pytest.mark.parametrize("name", ["sample_source", "sample_target"])
def test_points_lie_where_the_mesh_sees_them(make: Callable[[], Detector], name: str) -> None:
    """The mesh network is another one; looking from the same start or not, it must settle on the same face."""
    image = picture(name)
    (face,) = make()(image)
    seen = MeshLandmarker()(image, face)
    assert seen.presence is not None and seen.presence > 0.9 and seen.landmarks is not None
    eyes = np.array([seen.landmarks[list(pair), :2].mean(axis=0) for pair in EYE_CORNERS])
    apart = np.linalg.norm(eyes[1] - eyes[0])
    assert np.linalg.norm(face.points[:2] - eyes, axis=1).max() < 0.12 * apart
    assert np.linalg.norm(face.points - seen.points, axis=1).max() < 0.35 * apart
    assert face.points[0, 0] < face.points[1, 0] and face.points[3, 0] < face.points[4, 0]  # the viewer's left first
    assert 0.6 <= face.score <= 1 and face.landmarks is None and face.box.dtype == np.float32


@OWN
def test_a_picture_moved_and_enlarged_moves_its_faces(make: Callable[[], Detector]) -> None:
    image, detect = picture("sample_source"), make()
    (face,) = detect(image)
    canvas = np.full((1100, 1500, 3), 128, np.uint8)
    canvas[150 : 150 + 720, 90 : 90 + 1280] = cv2.resize(image, (1280, 720), interpolation=cv2.INTER_CUBIC)
    (moved,) = detect(canvas)
    expected = (face.points + 0.5) * 2 - 0.5 + [90, 150]
    within = (
        0.15 * 139 if make is YuNetDetector else 2 * 1500 / 128
    )  # px; eyes are 139 apart; two pixels of its picture
    assert np.linalg.norm(moved.points - expected, axis=1).max() < within
    box = (face.box.reshape(2, 2) + 0.5) * 2 - 0.5 + [90, 150]
    assert overlap(moved.box, box.ravel().astype(np.float32)) > 0.75


@OWN
def test_two_people_are_two_faces_and_nobody_is_none(make: Callable[[], Detector]) -> None:
    both = np.hstack([picture("sample_source")[:, 120:480], picture("sample_target")[:, 200:]])
    faces = make()(both)
    assert len(faces) == 2 and faces[0].score >= faces[1].score
    assert sorted(int(f.points[2, 0] > 360) for f in faces) == [0, 1]
    assert make()(np.full((90, 160, 3), 127, np.uint8)) == []
    assert make()(np.zeros((1, 1, 3), np.uint8)) == []


def test_a_tiny_picture_is_the_same_each_time() -> None:
    """What lay in memory before must not be seen: here the allocator fills it with numbers that look like a face."""
    program = (
        "import numpy as np\n"
        "from lib_vitface.faces.detect import YuNetDetector\n"
        "found = [YuNetDetector()(np.zeros((*size, 3), np.uint8)) for size in ((1, 1), (32, 32), (20, 90), (64, 32)) * 5]\n"
        "print(sum(map(len, found)))\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "MALLOC_PERTURB_": "165"}
    )
    assert told.stdout.split() == ["0"], told.stderr


def test_mouth_corners_are_put_along_the_line_of_the_eyes() -> None:
    upright = np.array([[0, 0], [100, 0], [50, 60], [50, 110]], float)
    turn = np.array([[0, -1], [1, 0]])
    five = five_of_four(upright @ turn.T)
    np.testing.assert_allclose(five[3:].mean(axis=0), turn @ [50, 110], atol=1e-4)
    across = turn.T @ (five[4] - five[3])
    assert across[1] == pytest.approx(0, abs=1e-4) and 80 < across[0] < 100


@pytest.mark.parametrize("options", [FacesetOptions, SwapOptions])
def test_every_offered_detector_exists(options: type) -> None:
    (offered,) = (item.spec.choices for item in declared(options) if item.name == "detector")
    assert set(offered) == set(DETECTORS)


def test_an_unknown_detector_is_named() -> None:
    with pytest.raises(InputError, match="no face detector called 'haar'; choose one of auto, yunet"):
        make_detector("haar")
    assert isinstance(make_detector(), YuNetDetector)


def test_a_low_score_is_no_face() -> None:
    image = picture("sample_source")
    (face,) = BlazeFaceDetector(0.5)(image)
    assert BlazeFaceDetector(min(1.0, face.score + 1e-3))(image) == []
