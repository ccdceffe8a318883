"""What is put into the age network and taken out of it, held against the format that insightface reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from age_model import age_model

from lib_vitface.errors import MissingDependencyError
from lib_vitface.faces import age, mesh
from lib_vitface.types import Face, Image


def a_face(middle: tuple[float, float], height: float) -> Face:
    """Landmarks of the canonical head seen from the front, so high and there."""
    points = mesh.vertices()[:468] * [1.0, -1.0, -1.0]
    low, high = points.min(axis=0), points.max(axis=0)
    points = (points - (low + high) / 2) * height / (high - low)[1]
    points[:, :2] += middle
    box = np.concatenate([points.min(axis=0)[:2], points.max(axis=0)[:2]])
    return Face(box.astype(np.float32), 1.0, np.zeros((5, 2), np.float32), points.astype(np.float32))


def picture(inside: int, outside: int, low: int, high: int) -> Image:
    """Red `inside` in the square of both axes from `low` up to `high`; all green and half blue everywhere."""
    image = np.full((300, 300, 3), (outside, 255, 128), np.uint8)
    image[low:high, low:high, 0] = inside
    return image


def test_it_sees_red_first_in_a_square_half_as_large_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    age_model(tmp_path, monkeypatch)
    estimator = age.find_estimator()
    assert estimator is not None and estimator.name == "insightface's genderage"
    face = a_face((149.5, 149.5), 100)  # so the square is 150 px, from 75 to 225
    assert estimator(picture(102, 0, 75, 225), face) == pytest.approx(40, abs=0.3), "102 of 255 are 40 of 100 years"
    assert estimator(picture(0, 255, 75, 225), face) == pytest.approx(0, abs=2.0), "nothing from beyond the square"
    half = estimator(picture(255, 0, 97, 203), face)
    assert half == pytest.approx(100 * (106 / 150) ** 2, abs=1.5), "and all of it"
    cut = estimator(picture(255, 255, 0, 300), a_face((0, 149.5), 100))
    assert cut == pytest.approx(50, abs=1.0), "beyond the picture is black"


def test_another_file_of_that_name_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = age_model(tmp_path, monkeypatch)
    monkeypatch.setattr(age.InsightFaceAge, "sha256", "0" * 64)
    with pytest.raises(MissingDependencyError, match=r"genderage\.onnx: is not the file that insightface publishes"):
        age.find_estimator()
    path.write_bytes(b"no network")
    with pytest.raises(MissingDependencyError, match=r"put that one there, or none\.$"):
        age.find_estimator()


def test_without_file_or_package_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(age, "HOME", tmp_path)
    monkeypatch.setattr(age.util, "find_spec", lambda name: object())
    assert age.installed() is None and age.find_estimator() is None
    (tmp_path / "antelopev2").mkdir()
    (tmp_path / "antelopev2" / "genderage.onnx").write_bytes(b"any")
    assert age.installed() is age.InsightFaceAge
    monkeypatch.setattr(age.util, "find_spec", lambda name: None)
    assert age.installed() is None and age.find_estimator() is None


@pytest.mark.optional
def test_insightface_itself_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attribute = pytest.importorskip("insightface.model_zoo.attribute", reason="insightface is not installed")
    path = age_model(tmp_path, monkeypatch)
    theirs, ours = attribute.Attribute(str(path)), age.find_estimator()
    assert ours is not None and theirs.taskname == "genderage" and theirs.input_mean == 0
    image = np.random.default_rng(4).integers(0, 255, (300, 300, 3)).astype(np.uint8)
    image[:, :, 0] = np.linspace(0, 255, 300).round()  # red tells how far to the right it looks
    for middle, height in (((100, 120), 90), ((220, 160), 60), ((40, 40), 70)):
        face = a_face(middle, height)
        assert face.landmarks is not None
        low, high = face.landmarks[:, :2].min(axis=0), face.landmarks[:, :2].max(axis=0)
        said = theirs.get(image[..., ::-1], type("Face", (dict,), {"bbox": np.concatenate([low, high])})())[1]
        assert ours(image, face) == pytest.approx(said, abs=1.0), middle
