"""Whose face comes out: measured on the new face's own pixels, and refused where it is a third person's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tint import AtOnce

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.errors import ConsentError
from lib_vitface.faces import align
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.embed import make_embedder
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.provenance.consent import ConsentRecord, make_record
from lib_vitface.provenance.keys import open_keys
from lib_vitface.swap.person import EVERY, CheckedSwapper
from lib_vitface.types import Face, Image, SwappedFace

SIDE = 256


@pytest.fixture(scope="module")
def people() -> dict[str, tuple[Image, Face]]:
    analyse = Analyser(make_detector(), MeshLandmarker(), make_embedder("sface"))
    found = {}
    for name in ("sample_source", "sample_target"):
        image = next(islice(media.read_frames(locate(name)), 1)).image
        found[name] = (image, max(analyse(image), key=lambda f: float(f.box[2] - f.box[0])))
    return found


def record_of(folder: Path, look: np.ndarray, who: str) -> ConsentRecord:
    return make_record(open_keys(folder), who, "yes", look)


class Puts(AtOnce):
    """Puts a picture's own face where the footage's is, or grey."""

    clip_length, context = 4, 0
    network = SimpleNamespace(device=None)

    def __init__(self, image: Image | None = None, face: Face | None = None) -> None:
        self.image, self.face = image, face

    def swap(
        self, frames: Sequence[Image], faces: Sequence[Face], times: object = None, nearby: object = None
    ) -> list[SwappedFace]:
        found = []
        for frame, face in zip(frames, faces, strict=True):
            matrix = align.crop_matrix(face, SIDE)
            crop = align.warp(frame, matrix, SIDE) // 8 + 112
            if self.image is not None and self.face is not None:
                assert face.landmarks is not None and self.face.landmarks is not None
                own = align.similarity_matrix(self.face.landmarks[:, :2], align.apply(matrix, face.landmarks)[:, :2])
                crop = align.warp(self.image, own, SIDE)
            found.append(SwappedFace(crop, np.ones((SIDE, SIDE), np.float32), matrix))
        return found


def random_look() -> np.ndarray:
    vector = np.random.default_rng(7).normal(size=128)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def test_the_consenting_person_passes(people: dict[str, tuple[Image, Face]], tmp_path: Path) -> None:
    image, face = people["sample_target"]
    record = record_of(tmp_path, people["sample_source"][1].embedding, "Ann")  # type: ignore[arg-type]
    swapper = CheckedSwapper(Puts(*people["sample_source"]), record)  # type: ignore[arg-type]
    assert swapper.likeness() is None
    swapper([image], [face])
    found = swapper.likeness()
    assert found is not None and found["record"] > 0.5 > 0.3 > found["footage"] and found["nearest"] == "record"


def test_a_third_person_is_refused_and_told(people: dict[str, tuple[Image, Face]], tmp_path: Path) -> None:
    image, face = people["sample_target"]
    told: list[str] = []
    record = record_of(tmp_path, random_look(), "Bob")
    swapper = CheckedSwapper(Puts(*people["sample_source"]), record, (), told.append)  # type: ignore[arg-type]
    with pytest.raises(ConsentError, match="neither that of Bob, who agreed, nor that of the footage") as caught:
        swapper([image], [face])
    assert told == [str(caught.value)]
    ann = record_of(tmp_path, people["sample_source"][1].embedding, "Ann")  # type: ignore[arg-type]
    weak = record_of(tmp_path, people["sample_target"][1].embedding, "Carl")  # type: ignore[arg-type]
    with pytest.raises(ConsentError, match=r"neither|the face of Ann and not that of Carl"):
        CheckedSwapper(Puts(*people["sample_source"]), weak, [ann])([image], [face])  # type: ignore[arg-type]


def test_what_still_resembles_the_footage_harms_nobody(people: dict[str, tuple[Image, Face]], tmp_path: Path) -> None:
    image, face = people["sample_target"]
    swapper = CheckedSwapper(Puts(image, face), record_of(tmp_path, random_look(), "Bob"))  # type: ignore[arg-type]
    swapper([image], [face])
    assert swapper.likeness()["nearest"] == "footage"  # type: ignore[index]


def test_looks_are_few_and_only_at_clear_faces(people: dict[str, tuple[Image, Face]], tmp_path: Path) -> None:

    image, face = people["sample_target"]
    swapper = CheckedSwapper(Puts(image, face), record_of(tmp_path, random_look(), "Bob"))  # type: ignore[arg-type]
    assert face.pose is not None
    swapper([image], [replace(face, pose=face.pose._replace(yaw_deg=60.0))])
    assert swapper.likeness() is None and swapper.undecided == 1, "turned away: nothing can be said"
    handed = swapper.hand_over()
    assert handed == [None] and swapper.undecided == 0
    swapper.take_over(handed)
    assert swapper.likeness() is None and swapper.undecided == 1
    for _ in range(2 * EVERY):
        swapper([image], [face])
    assert swapper.likeness()["faces"] == 3  # type: ignore[index]


class Reads:
    """Takes the mean of a picture's red for years."""

    name, error_years, error_source, package = "a seer", 5.0, "made up", ""

    def __call__(self, image: Image, face: Face) -> float:
        return float(image[..., 0].mean())


def test_each_footage_is_asked_for_minors_by_itself(
    people: dict[str, tuple[Image, Face]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many grown-ups before do not hide one who may be none; within one footage the median counts."""
    monkeypatch.setattr("lib_vitface.provenance.age.find_estimator", Reads)
    image, face = people["sample_target"]
    young, old = np.full_like(image, 20), np.full_like(image, 40)
    told: list[str] = []
    swapper = CheckedSwapper(Puts(), record_of(tmp_path, random_look(), "Bob"), (), told.append, stops=False)  # type: ignore[arg-type]
    for _ in range(3):
        swapper.begin()
        swapper([old], [face])
    swapper.begin()
    with pytest.raises(
        ConsentError, match=r"The footage's face: shows somebody who may be a minor \(a seer says 20 years, 1 face"
    ):
        swapper([young], [face])
    assert told and swapper.likeness()["faces"] == 4  # type: ignore[index]


def test_who_measures_is_told_and_not_stopped(people: dict[str, tuple[Image, Face]], tmp_path: Path) -> None:
    image, face = people["sample_target"]
    record = record_of(tmp_path, random_look(), "Bob")
    swapper = CheckedSwapper(Puts(*people["sample_source"]), record, stops=False)  # type: ignore[arg-type]
    assert swapper.fault() == ""
    swapper([image], [face])
    assert "neither that of Bob, who agreed, nor that of the footage" in swapper.fault()
