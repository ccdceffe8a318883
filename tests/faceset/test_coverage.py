"""What is missing, in sentences and as a picture."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from lib_vitface.errors import OutputError
from lib_vitface.faceset import coverage
from lib_vitface.faceset.select import YAW_EDGES
from lib_vitface.faceset.writer import FacesetWriter
from lib_vitface.types import Floats, Pose


def complete() -> tuple[np.ndarray, Floats, Floats]:
    """Fifteen faces of every view; in the frontal ones five each with open mouth, smile, and closed eyes."""
    views = [(0, 0), (30, 0), (-30, 0), (60, 0), (-60, 0), (0, 20), (0, -20)]
    pose = np.repeat(np.array(views, dtype=float), 15, axis=0)
    expression = np.tile(np.array([0, 0, 0, 0.3, 0.3, 0, 0], np.float32), (len(pose), 1))
    expression[:5, 0], expression[5:10, 2], expression[10:15, 3] = 0.5, 0.2, 0.1
    light = np.tile(np.array([0.45, 0, 0, 0.2], np.float32), (len(pose), 1))
    return pose, expression, light


def test_a_complete_set_has_no_hint() -> None:
    assert coverage.hints(*complete()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda p, e, s: p[:, 0] > 20,
            "No view turned to the left: film yourself turning your head slowly to your left.",
        ),
        (lambda p, e, s: p[:, 0] < -20, "No view turned to the right"),
        (lambda p, e, s: p[:, 0] > 45, "No left profile"),
        (lambda p, e, s: p[:, 0] < -45, "No right profile"),
        (lambda p, e, s: np.abs(p[:, 0]) < 20, "No frontal view"),
        (lambda p, e, s: p[:, 1] > 12, "No view from below"),
        (lambda p, e, s: p[:, 1] < -12, "No view from above"),
        (lambda p, e, s: e[:, 0] > 0.25, "No open mouth"),
        (lambda p, e, s: e[:, 2] > 0.12, "No smile"),
        (lambda p, e, s: e[:, 3] < 0.19, "No closed eyes"),
    ],
)
def test_each_gap_has_its_own_sentence(change: Callable[..., np.ndarray], words: str) -> None:
    pose, expression, light = complete()
    stay = ~change(pose, expression, light)
    found = coverage.hints(pose[stay], expression[stay], light[stay])
    assert any(line.startswith(words) for line in found), found
    if "frontal" not in words:  # without frontal views the tilted ones and the expressions are gone too
        assert len(found) == 1


def test_light_hints() -> None:
    pose, expression, light = complete()
    assert "dim" in coverage.hints(pose, expression, light * 0.3)[0]
    assert "too bright" in coverage.hints(pose, expression, light * 1.9)[0]


def test_the_picture_shows_where_faces_are(make_faceset: Callable[..., FacesetWriter]) -> None:
    left = make_faceset(12, pictures=True, folder="left", pose=Pose(60, 0, 0))
    right = make_faceset(12, pictures=True, folder="right", pose=Pose(-60, 0, 0))
    a, b = coverage.picture(left), coverage.picture(right)
    assert a.dtype == np.uint8 and a.shape == b.shape and a.shape[2] == 3
    for shown, yaw_deg in ((a, 60), (b, -60)):
        column = np.searchsorted(YAW_EDGES, yaw_deg, side="right") - 1
        expected = shown.shape[1] * (0.09 + 0.88 * (column + 0.5) / (len(YAW_EDGES) - 1))
        blue = (
            np.flatnonzero(shown[..., 2].astype(int) - shown[..., 0] > 80) % shown.shape[1]
        )  # only a full cell is dark
        assert len(blue) > 2000 and abs(np.median(blue) - expected) < 8


def test_saved_beside_the_index_and_empty_sets_say_so(make_faceset: Callable[..., FacesetWriter]) -> None:
    faceset = make_faceset(0)
    assert coverage.hints_of(faceset) == ["The faceset is empty: name inputs that show the person."]
    path = coverage.save(faceset)
    assert path == faceset.path / "coverage.png" and cv2.imread(str(path)) is not None
    path.unlink()
    path.mkdir()
    with pytest.raises(OutputError, match=r"coverage\.png: it cannot be written"):
        coverage.save(faceset)
    assert not list(faceset.path.glob(".*.part"))
