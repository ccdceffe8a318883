"""Rendered views: where poses are missing, like the person, and never taken for real ones."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from faceset_maker import make_record, unit_vector

from lib_vitface.errors import InputError
from lib_vitface.faces import align, mesh
from lib_vitface.faceset import atlas, coverage, extract, inputs, novel
from lib_vitface.faceset.record import NOVEL
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.faceset.store import Faceset
from lib_vitface.faceset.writer import FacesetWriter, Progress
from lib_vitface.options import build
from lib_vitface.swap.references import _faces
from lib_vitface.training.data import load_person
from lib_vitface.types import Face, Floats, Image, Pose

SIZE = 128
LOOK = unit_vector(1)


def picture_at(pose: Pose) -> tuple[Image, Floats, np.ndarray]:
    """The canonical face, coloured by where on it a pixel lies, before grey; its landmarks; where it is."""
    landmarks = align.crop_head(pose, SIZE).project(mesh.vertices()).astype(np.float32)
    seen = atlas.draw_triangles(landmarks, SIZE, depth=True)
    x, y = atlas.pixel_map(seen, landmarks, atlas.places(256))
    colour = np.stack([128 + 80 * np.sin(x / 21), 128 + 80 * np.cos(y / 27), 60 + x / 3], axis=2)
    return np.where((seen >= 0)[..., None], colour, 110).astype(np.uint8), landmarks, seen >= 0


@pytest.fixture
def faceset(tmp_path: Path) -> FacesetWriter:
    """Turned to one side and to the front, never to the other."""
    made = FacesetWriter.create(tmp_path / "set", {"size": SIZE, "image_format": "png"})
    place, records = made.add_input("/clip.mp4", "1"), []
    for k, (yaw, pitch) in enumerate((y, p) for y in (-45, -30, -15, 0, 12) for p in (-20, 0, 20)):
        image, landmarks, _ = picture_at(Pose(yaw, pitch, 0))
        made.save_crop(f"{k}.png", image, 95)
        records.append(
            make_record(k, pose=Pose(yaw, pitch, 0), landmarks=landmarks, size=SIZE, image=f"{k}.png", kept=True, reason="",
                        cluster=0, time=Fraction(k), embedding=LOOK, occlusion=0.0, sharpness=0.5)
        )  # fmt: skip
    made.add(place, records, Progress(15, frames=15, found=15, done=True))
    made.note("finished", True)
    return made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "_STEPS": 130,
        "_SIDE": 64,
        "_RAYS": 192,
        "_SIDE_RAYS": 96,
        "_COARSE": 16,
        "_FINE": 12,
        "_RATE": 0.03,
    }.items():
        monkeypatch.setattr(novel, name, value)


def like(image: Image, face: Face) -> Floats:
    return LOOK


def test_gaps_are_where_nothing_is_near_and_something_not_far() -> None:
    pose = np.array([[0, 0], [10, 0], [0, 10]])
    found = np.array(novel.gaps(pose, 50))[:, :2]
    away = np.linalg.norm(found[:, None] - pose[None], axis=2).min(axis=1)
    assert len(found) > 5 and (away > 10).all() and (away <= 25).all()
    between = np.linalg.norm(found[:, None] - found[None], axis=2)[np.triu_indices(len(found), 1)]
    assert between.min() > 10
    assert novel.gaps(pose, 2) == [Pose(*map(float, p), 0.0) for p in found[:2]] and novel.gaps(pose, 0) == []
    every = np.stack(np.meshgrid(np.arange(-60, 61, 10), np.arange(-30, 31, 10)), -1).reshape(-1, 2)
    assert novel.gaps(every, 9) == []


def test_they_show_the_person_from_where_no_picture_was(faceset: FacesetWriter) -> None:
    before = (coverage.hints_of(faceset), faceset.mean_embedding())
    assert novel.add_novel_views(faceset, 2, like) == 2
    made = [r for r in faceset.records() if r.novel]
    assert [r.source for r in made] == [NOVEL] * 2 and all(r.synthetic and r.kept for r in made)
    assert max(r.pose.yaw_deg for r in made) >= 30
    for record in made:
        image, landmarks, seen = picture_at(record.pose)
        np.testing.assert_allclose(record.landmarks[:, :2], landmarks[:, :2], atol=0.5)
        gap = np.abs(faceset.image(record).astype(float) - image)[seen].mean()
        shots = [np.abs(faceset.image(r).astype(float) - image)[seen].mean() for r in faceset.records(novel=False)]
        assert gap < 20 and gap < 0.75 * min(shots), "it is the turned face, not the nearest picture"
    # what they must not change
    assert len(faceset) == 17 and len(list(faceset.records(novel=False))) == 15
    assert coverage.hints_of(faceset) == before[0] and (faceset.mean_embedding() == before[1]).all()
    assert (faceset.summary()["novel"], faceset.summary()["synthetic"]) == (2, 0)
    assert len(list(_faces(faceset.path, lambda *_: None))) == 15 and len(inputs.expand([faceset.path])) == 15
    person = load_person(faceset, 64, 6)
    assert len(person.images) == 17 and set(person.held_out) < set(range(15)) and {15, 16} < set(person.training)


def test_strange_looking_ones_and_too_few_faces_are_refused(
    faceset: FacesetWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(novel, "_STEPS", 1)
    assert novel.add_novel_views(faceset, 2, lambda *_: -LOOK) == 0 and len(faceset) == 15
    few = FacesetWriter.create(tmp_path / "few", {"size": SIZE})
    with pytest.raises(InputError, match="too few"):
        novel.add_novel_views(few, 2, like)
    with pytest.raises(InputError, match="one person"):
        extract.extract(
            build(FacesetOptions, {"input": ["x"], "output": tmp_path, "novel_views": 1, "keep_strangers": True})
        )


def test_a_further_build_makes_them_anew(faceset: FacesetWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are no input of the choice, and go where they are not asked for any more."""
    asked: list[int] = []

    def fake(made: FacesetWriter, count: int, *_: object) -> int:
        asked.append(len(made))
        place = made.add_input(NOVEL, "rendered")
        view = make_record(
            0, source=NOVEL, synthetic=True, kept=True, reason="", image="novel_00000.png", embedding=LOOK
        )
        made.save_crop(view.image, picture_at(Pose(30, 0, 0))[0], 95)
        made.add(place, [view], Progress(1, found=1, done=True))
        return 1

    monkeypatch.setattr(novel, "add_novel_views", fake)
    monkeypatch.setattr(extract, "_read_all", lambda *_: None)
    monkeypatch.setattr(extract.inputs, "expand", lambda _: [])
    for name, value in {"keep_strangers": False}.items():
        faceset.note(name, value)
    faceset.close()
    values = {"input": ["x"], "output": faceset.path, "size": SIZE, "image_format": "png", "min_change": 0}
    first = extract.extract(build(FacesetOptions, {**values, "novel_views": 1}))
    second = extract.extract(build(FacesetOptions, {**values, "novel_views": 1}))
    assert first["novel"] == second["novel"] == 1 and asked == [15, 15]
    assert extract.extract(build(FacesetOptions, values))["novel"] == 0
    assert not (faceset.path / "images" / "novel_00000.png").exists()
    with Faceset.open(faceset.path) as found:
        assert len(found) == 15
