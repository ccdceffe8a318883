"""What the faces of a stretch have in common, and what each must be looked at for."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.faceset.finder import Finder, Found
from lib_vitface.faceset.inputs import Picture
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.types import Face, Floats, Image


class Counting:
    """A finder whose embeddings are counted, and pictures of three people to look at in turn."""

    def __init__(self) -> None:
        self.finder = Finder(FacesetOptions([Path("in")], Path("out")))
        self.embed, self.looked = self.finder.embed, 0
        self.finder.embed = self._counted
        self._index = 0

    def _counted(self, image: Image, face: Face) -> Floats:
        self.looked += 1
        return self.embed(image, face)

    def look(self, image: Image) -> tuple[Floats, Floats]:
        """The embedding that the next picture's face gets, and its own."""
        picture = Picture(self._index, self._index, image, "clip", still=False)  # type: ignore[arg-type]
        self._index += 1
        face = self.finder.faces(picture, None)[0]
        found = self.finder.measure(picture, face, 0)
        assert isinstance(found, Found)
        return self.finder.look(picture, face, found)(), self.embed(image, face)


@pytest.fixture
def counting() -> Counting:
    return Counting()


def frame(name: str, at_s: float) -> Image:
    return next(islice(media.read_frames(locate(name), at_s), 1)).image


def test_a_face_that_stays_as_it_was_is_recognised_once_in_a_stretch(counting: Counting) -> None:
    image = frame("sample_source", 0.0)
    counting.finder.begin()
    first, _ = counting.look(image)
    dimmed = (image * 0.8).astype(np.uint8)
    again, own = counting.look(dimmed)
    assert counting.looked == 1 and np.array_equal(first, again) and float(again @ own) > 0.97
    counting.finder.begin()
    counting.look(image)
    assert counting.looked == 2


def test_nobody_gets_the_identity_of_who_was_there_before_a_cut(counting: Counting) -> None:
    """The second woman is put where the first one's face was, at its size."""
    first, second = frame("sample_source", 0.0), frame("sample_target", 12.0)
    a, b = (counting.finder.analyser(image)[0] for image in (first, second))
    scale = float(np.sqrt(np.prod(a.box[2:] - a.box[:2]) / np.prod(b.box[2:] - b.box[:2])))
    shift = (a.box[:2] + a.box[2:]) / 2 - scale * (b.box[:2] + b.box[2:]) / 2
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    placed = np.asarray(cv2.warpAffine(second, matrix, (first.shape[1], first.shape[0])), np.uint8)
    counting.finder.begin()
    for image in (first, placed, first):
        found, own = counting.look(image)
        np.testing.assert_array_equal(found, own)
    assert counting.looked == 3


def test_what_comes_before_a_face_is_looked_at(counting: Counting) -> None:
    image = frame("sample_source", 0.0)
    face = counting.finder.analyser(image)[0]
    covered = image.copy()
    low, high = face.box[:2].astype(int), face.box[2:].astype(int)
    covered[(low[1] + high[1]) // 2 + 15 : high[1], low[0] : high[0]] = (150, 110, 90)
    counting.finder.begin()
    counting.look(image)
    found, own = counting.look(covered)
    assert counting.looked == 2 and np.array_equal(found, own)


def test_a_look_is_taken_only_when_it_is_wanted(counting: Counting) -> None:
    image = frame("sample_source", 0.0)
    picture = Picture(0, 0, image, "clip", still=False)  # type: ignore[arg-type]
    face = counting.finder.faces(picture, None)[0]
    found: Any = counting.finder.measure(picture, face, 0)
    counting.finder.begin()
    looks = [counting.finder.look(picture, face, found) for _ in range(2)]
    assert counting.looked == 0
    np.testing.assert_array_equal(looks[0](), looks[1]())
    assert counting.looked == 1
