"""A new face in its frame: where the mask is, with the footage's colours, and nothing changed elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tint import options

from lib_vitface.faces import align, mesh
from lib_vitface.faces.landmarks import with_landmarks
from lib_vitface.faces.parse import Hand, hull_mask
from lib_vitface.swap.finish import Finisher, face_height
from lib_vitface.types import Face, Image, Pose, SwappedFace

SIDE = 128


@pytest.fixture
def face() -> Face:
    points = (mesh.vertices() * [1, -1, -1]) @ align.rotation_of(Pose(5, 0, 8)).T * 7 + [150, 120, 0]
    return with_landmarks(Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32)), points.astype(np.float32))


def frame_image() -> Image:
    y, x = np.mgrid[0:240, 0:300]
    return np.dstack([90 + x * 0.2, 70 + y * 0.2, 60 + (x + y) * 0.05]).astype(np.uint8)


def swapped_of(face: Face, shade: float = 1.0) -> SwappedFace:
    matrix = align.crop_matrix(face, SIDE)
    crop = align.warp(frame_image(), matrix, SIDE)
    new = np.clip(255 - crop.astype(float) * shade, 0, 255).astype(np.uint8)
    return SwappedFace(new, np.ones((SIDE, SIDE), np.float32), matrix)


def finish(tmp_path: Path, face: Face, strength: float = 1.0, hands: tuple[Hand, ...] = (), **values: Any) -> Image:
    finisher = Finisher(
        options(tmp_path, input=tmp_path, **{"color": "none", "blend": "alpha", "sharpen": 0, **values})
    )
    measured = finisher.measure(frame_image(), face, swapped_of(face), hands)
    return finisher.finish(frame_image(), measured, [measured], [1.0], strength, (0.0, 0.0))


def inside_of(face: Face) -> np.ndarray:
    assert face.landmarks is not None
    return hull_mask(face.landmarks, (240, 300)) > 0.5


def test_only_the_face_changes(tmp_path: Path, face: Face) -> None:
    image, result = frame_image(), finish(tmp_path, face, feather=0, erode=0)
    changed = (result != image).any(axis=2)
    inside = inside_of(face)
    assert changed[inside].mean() > 0.97
    assert not changed[
        np.pad(~inside, 4, mode="edge")[4:-4, 4:-4] & (hull_mask(face.landmarks, (240, 300), erode_px=-4) == 0)
    ].any()
    middle = tuple(int(v) for v in face.points[2][::-1])
    np.testing.assert_allclose(result[middle].astype(int), 255 - image[middle].astype(int), atol=3)


def test_strength_and_opacity_are_one_mixture(tmp_path: Path, face: Face) -> None:
    image = frame_image()
    assert finish(tmp_path, face, strength=0.0) is not None
    np.testing.assert_array_equal(finish(tmp_path, face, strength=0.0), image)
    full = finish(tmp_path, face).astype(float)
    half = finish(tmp_path, face, strength=0.5).astype(float)
    np.testing.assert_allclose(half, (full + image) / 2, atol=1.1)
    np.testing.assert_allclose(finish(tmp_path, face, opacity=0.5), half, atol=1)


def test_colours_move_to_those_of_the_footage(tmp_path: Path, face: Face) -> None:
    image, inside = frame_image().astype(float), inside_of(face)
    plain = finish(tmp_path, face).astype(float)[inside].mean(axis=0)
    fitted = finish(tmp_path, face, color="rct").astype(float)[inside].mean(axis=0)
    wanted = image[inside].mean(axis=0)
    assert np.abs(fitted - wanted).max() < 4 < 40 < np.abs(plain - wanted).max()


def test_erode_feather_and_mask_kinds(tmp_path: Path, face: Face) -> None:
    image = frame_image()
    areas = {e: (finish(tmp_path, face, erode=e, feather=0) != image).any(axis=2).sum() for e in (0, 5, 10)}
    assert areas[0] > areas[5] > areas[10] > 0
    assert face.landmarks is not None
    height = face_height(face.landmarks)
    assert height == pytest.approx(7 * align.HEIGHT_CM, rel=1e-3)
    edges = []
    for feather in (0, 10):
        gap = np.abs(finish(tmp_path, face, feather=feather).astype(float) - image).max(axis=2)
        edges.append(((gap > 3) & (gap < 0.8 * gap.max())).sum())
    assert edges[1] > 1.5 * edges[0]
    learned = (finish(tmp_path, face, mask="learned") != image).any(axis=2)  # all of the crop but its border
    assert learned.sum() > 1.5 * areas[0]


def test_a_hand_before_the_face_stays(tmp_path: Path, face: Face) -> None:
    grid = np.stack(np.meshgrid(np.arange(7), np.arange(3)), -1).reshape(21, 2)
    hand = Hand((face.points[2] + (grid - [3, 1]) * 6.0).astype(np.float32), 0.9)
    image = frame_image()
    place = tuple(int(v) for v in face.points[2][::-1])
    shown = finish(tmp_path, face, hands=(hand,), occlusion=True)
    np.testing.assert_allclose(shown[place].astype(int), image[place], atol=2)
    hidden = finish(tmp_path, face, hands=(hand,), occlusion=False)
    assert np.abs(hidden[place].astype(int) - image[place]).max() > 40


@pytest.mark.parametrize("mask", ["both", "hull"])
def test_beside_a_cover_that_was_learned_the_face_begins_at_once(tmp_path: Path, face: Face, mask: str) -> None:
    """The outline's edge is as soft as asked for; a cover in the middle of the face has a quarter of that."""
    swapped = swapped_of(face)
    assert face.landmarks is not None
    points = align.apply(swapped.frame_to_crop, face.landmarks)
    middle = round(float(points[mesh.NOSE_TIP, 0]))
    row = round(float(points[mesh.NOSE_TIP, 1]))
    learned = np.ones((SIDE, SIDE), np.float32)
    learned[:, :middle] = 0
    finisher = Finisher(options(tmp_path, input=tmp_path, feather=16, mask=mask))
    shown = finisher.measure(frame_image(), face, replace(swapped, mask=learned)).mask[row]
    if mask == "hull":
        assert shown[middle - 4] == pytest.approx(1, abs=0.02)
        return
    height = face_height(points)
    assert shown[middle - 1] < 0.05
    inner = shown[middle : middle + round(0.16 * height / 2)]
    assert inner[round(0.16 * height / 4) + 1] > 0.9
    edge = np.flatnonzero(shown > 0.02).max()
    assert shown[edge - round(0.16 * height / 4)] < 0.9  # at the outline the rise is longer
