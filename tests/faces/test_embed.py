"""Embeddings keep people apart, whatever the size, place and light of the picture."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.errors import InputError
from lib_vitface.faces import align, embed
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.faces.track import SAME_PERSON
from lib_vitface.types import Face, Image


@pytest.fixture(scope="module")
def looks() -> list[tuple[Image, Face]]:
    """Two moments of the first sample person, then two of the second."""
    detect, landmark = make_detector(), MeshLandmarker()
    found = []
    for name, at_s in (("sample_source", 0.0), ("sample_source", 2.0), ("sample_target", 0.0), ("sample_target", 13.0)):
        image = next(iter(islice(media.read_frames(locate(name), at_s), 1))).image
        found.append((image, landmark(image, detect(image)[0])))
    return found


@pytest.mark.parametrize("name", ["sface", "dlib"])
def test_one_person_is_nearer_to_herself_than_to_another(looks: list[tuple[Image, Face]], name: str) -> None:
    embedder = embed.make_embedder(name)
    vectors = np.stack([embedder(image, face) for image, face in looks])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosine = vectors @ vectors.T
    others = cosine[:2, 2:].max()
    assert min(cosine[0, 1], cosine[2, 3]) > others + 0.05
    if name == "sface":
        assert min(cosine[0, 1], cosine[2, 3]) > SAME_PERSON > others


@pytest.mark.parametrize("name", ["sface", "dlib"])
def test_size_place_and_roll_hardly_matter(looks: list[tuple[Image, Face]], name: str) -> None:
    image, face = looks[0]
    matrix = align.square_matrix(np.array([320.0, 180.0]), 1.3, 25.0, 900)
    turned = cv2.warpAffine(image, matrix, (900, 900), flags=cv2.INTER_CUBIC)
    assert face.landmarks is not None
    other = replace(
        face,
        points=align.apply(matrix, face.points).astype(np.float32),
        landmarks=align.apply(matrix, face.landmarks).astype(np.float32),
    )
    embedder = embed.make_embedder(name)
    assert embed.cosine(embedder(image, face), embedder(turned, other)) > 0.95


def test_dlib_needs_landmarks_and_unknown_names_are_refused(looks: list[tuple[Image, Face]]) -> None:
    image, face = looks[0]
    with pytest.raises(ValueError, match="landmarks"):
        embed.make_embedder("dlib")(image, replace(face, landmarks=None))
    with pytest.raises(InputError, match="'facenet'; choose one of sface, dlib, insightface"):
        embed.make_embedder("facenet")


def test_unit_and_cosine() -> None:
    a, b = np.array([3.0, 4.0], np.float32), np.array([-4.0, 3.0], np.float32)
    assert embed.unit(a).tolist() == pytest.approx([0.6, 0.8])
    assert embed.unit(a * 0).tolist() == [0, 0]
    assert embed.cosine(a, b) == pytest.approx(0, abs=1e-6) and embed.cosine(a, a * 7) == pytest.approx(1, abs=1e-6)
