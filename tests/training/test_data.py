"""What training knows of real faces."""

from __future__ import annotations

import numpy as np
import pytest

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.faceset.extract import extract
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.faceset.store import Faceset
from lib_vitface.options import build
from lib_vitface.training.data import MAX_COVERED, Person, load_person

WITH_HAND, WITHOUT = (4.0, 5.2, 5.6, 6.0), (11.5, 12.0, 13.0, 14.0, 15.0, 16.0, 17.0)


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Person:
    """A woman before whose face a hand lies in the first pictures."""
    root = tmp_path_factory.mktemp("hands")
    for number, time_s in enumerate((*WITH_HAND, *WITHOUT)):
        frame = next(iter(media.read_frames(locate("sample_target"), time_s))).image
        media.write_image(root / "in" / f"{number:02d}.png", frame)
    values = {"input": [root / "in"], "output": root / "set", "max_occlusion": 1.0, "min_change": 0.0}
    extract(build(FacesetOptions, values))
    with Faceset.open(root / "set") as faceset:
        return load_person(faceset, 96, 6)


def test_hands_are_no_part_of_the_person(person: Person) -> None:
    held = (person.hands > 127).mean(axis=(1, 2))
    with_hand = np.arange(len(held)) < len(WITH_HAND)
    assert len(held) == len(WITH_HAND) + len(WITHOUT)
    assert (held[with_hand] > 0.02).sum() >= 3 and (held[~with_hand] == 0).all()  # engines differ a little
    hull = person.layers[0, ..., 1] > 250
    covered = (hull & (person.hands > 127)).sum(axis=(1, 2)) / hull.sum(axis=(1, 2))
    assert (covered > MAX_COVERED).any()
    assert not (covered[person.views] > MAX_COVERED).any()  # there are enough pictures without
    assert person.sure[person.hands > 250].max() < 40


def test_a_hand_is_not_drawn_from_the_memory(person: Person) -> None:
    """Nor is the mouth behind it filled with it: where the hand is, what is drawn is like the face without."""
    frame = int(((person.hands > 127) & (person.layers[0, ..., 1] > 250)).sum(axis=(1, 2)).argmax())
    where = (person.hands[frame] > 127) & (person.layers[0, frame, ..., 1] > 250)
    assert where.sum() > 60
    drawn, seen = (picture[where].astype(float) for picture in (person.references[0, frame], person.images[frame]))
    assert np.abs(drawn - seen).mean() > 12
