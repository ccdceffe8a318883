"""A trained model's place in the frame, with weights that are known to change nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lib_vitface.faces import align, mesh
from lib_vitface.faces.landmarks import with_landmarks
from lib_vitface.faces.parse import hull_mask
from lib_vitface.faceset.gaze import UNKNOWN, read_gaze
from lib_vitface.faceset.texture import TextureMemory
from lib_vitface.models.checkpoint import Checkpoint, save_model
from lib_vitface.models.config import Config, EncoderConfig, SAEHDConfig, ViTSwapperConfig
from lib_vitface.models.swapper import build_model
from lib_vitface.swap.frame import TARGET, ModelSwapper
from lib_vitface.types import Face, Floats, Image, Pose

TINY = ViTSwapperConfig(64, EncoderConfig(32, 8, 32, 2, 2), (8, 16, 24, 32), 8)
SHADES = {"source": (200, 60, 40), "target": (40, 60, 200)}


def landmarks_at(pose: Pose, scale: float, x: float, y: float) -> Floats:
    points = (mesh.vertices() * [1, -1, -1]) @ align.rotation_of(pose).T
    return (points * scale + [x, y, 0]).astype(np.float32)


def face_at(pose: Pose, scale: float, x: float, y: float) -> Face:
    empty = Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32))
    return with_landmarks(empty, landmarks_at(pose, scale, x, y))


def memory_of(shade: tuple[int, int, int]) -> TextureMemory:
    views = [
        (np.full((96, 96, 3), shade, np.uint8), landmarks_at(Pose(yaw, 0, 0), 3.4, 48, 48), UNKNOWN)
        for yaw in (-15, 0, 15)
    ]
    return TextureMemory.build(views, 128)


def model_in(folder: Path, config: Config, change: Callable[[torch.nn.Module], None] = lambda _: None) -> Checkpoint:
    torch.manual_seed(0)
    network = build_model(config)
    change(network)
    parts = {f"memory_{name}": memory_of(shade).arrays() for name, shade in SHADES.items()}
    return save_model(Checkpoint(folder, config, "m", 1, 1.0, None), {"weights": network.state_dict(), **parts})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Fresh weights: the network gives back the reference it is shown."""
    return model_in(tmp_path_factory.mktemp("model"), TINY)


def frame_of(size: int = 300) -> Image:
    return np.full((size, size, 3), (90, 140, 90), np.uint8)


@pytest.mark.parametrize(("identity", "name"), [(0, "source"), (TARGET, "target")])
@pytest.mark.parametrize("scale", [2.5, 9.0])
def test_the_wanted_person_is_drawn_where_the_face_is(
    model: Checkpoint, identity: int, name: str, scale: float
) -> None:
    face = face_at(Pose(8, 4, 15), scale, 150, 145)
    (swapped,) = ModelSwapper(model, device="cpu", identity=identity)([frame_of()], [face])
    side = swapped.image.shape[0]
    assert swapped.image.dtype == np.uint8 and swapped.mask.shape == (side, side) and swapped.mask.dtype == np.float32
    np.testing.assert_allclose(swapped.frame_to_crop, align.crop_matrix(face, side))
    assert face.landmarks is not None
    inside = hull_mask(
        align.apply(swapped.frame_to_crop, face.landmarks).astype(np.float32), (side, side), erode_px=side / 12
    )
    skin = swapped.image[inside > 0.99].astype(float)
    assert np.abs(np.median(skin, axis=0) - SHADES[name]).max() < 25
    assert swapped.mask[inside > 0.99].min() > 0.7 and swapped.mask[0].max() == 0 == swapped.mask[:, 0].max()


def test_larger_faces_get_larger_crops_in_few_steps(model: Checkpoint) -> None:
    swap = ModelSwapper(model, device="cpu")
    sides = [
        swap([frame_of(900)], [face_at(Pose(0, 0, 0), s, 450, 450)])[0].image.shape[0] for s in np.linspace(1, 30, 10)
    ]
    assert sides == sorted(sides) and len(set(sides)) <= 5 and (sides[0], sides[-1]) == (64, 192)


def test_a_clip_is_its_frames(model: Checkpoint) -> None:
    swap = ModelSwapper(model, device="cpu")
    faces = [face_at(Pose(k * 5, 0, 0), 5, 150 + k, 145) for k in range(3)]
    together = swap([frame_of()] * 3, faces)
    for k, face in enumerate(faces):
        (alone,) = swap([frame_of()], [face])
        assert np.abs(alone.image.astype(int) - together[k].image).max() <= 1
        np.testing.assert_allclose(alone.mask, together[k].mask, atol=1e-4)


def test_an_autoencoder_sees_the_footage_itself(tmp_path: Path) -> None:
    """Its crop goes through the network alone: with another frame under the face another face comes out."""
    config = SAEHDConfig("saehd-df", 64, "u", 16, 8, 8, 4)
    swap = ModelSwapper(model_in(tmp_path / "m", config), device="cpu")
    face = face_at(Pose(0, 0, 0), 5, 150, 145)
    noise = cv2.resize(np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8), (300, 300))
    (a,), (b,) = swap([frame_of()], [face]), swap([noise], [face])
    assert a.image.shape == b.image.shape == (*a.mask.shape, 3) and (a.image != b.image).any()
    np.testing.assert_array_equal(a.frame_to_crop, b.frame_to_crop)


def test_shape_moves_the_outline_of_what_is_drawn(model: Checkpoint, tmp_path: Path) -> None:
    """With persons of one shape there is nothing to take over; the default keeps the footage's proportions anyway."""
    face = face_at(Pose(0, 0, 0), 5, 150, 145)
    plain, shaped = (ModelSwapper(model, device="cpu", shape=s)([frame_of()], [face])[0] for s in (0.0, 1.0))
    assert np.abs(plain.image.astype(int) - shaped.image).mean() < 1.5
    np.testing.assert_allclose(plain.mask, shaped.mask, atol=0.35)


def test_a_face_without_landmarks_is_refused(model: Checkpoint) -> None:
    with pytest.raises(ValueError, match="landmarks"):
        ModelSwapper(model, device="cpu")([frame_of()], [replace(face_at(Pose(0, 0, 0), 5, 150, 145), landmarks=None)])


def test_the_drawn_eyes_follow_the_footages_irises_and_the_memory_fits_the_crop(tmp_path: Path) -> None:
    """One view with dark irises in the middle; the footage's stand to the right."""
    size = 256
    landmarks = landmarks_at(Pose(0, 0, 0), 9.0, size / 2, size / 2)
    image = np.full((size, size, 3), 210, np.uint8)
    ends = landmarks[list(mesh.EYE_CORNERS), :2].reshape(2, 2, 2)
    for middle in ends.mean(axis=1):
        cv2.circle(image, tuple(int(v) for v in middle.round()), 4, (10, 10, 10), -1, cv2.LINE_AA)
    memory = TextureMemory.build([(image, landmarks, read_gaze(landmarks, ends.mean(axis=1)))], 512)
    torch.manual_seed(0)
    network = build_model(TINY)
    parts = {f"memory_{name}": memory.arrays() for name in SHADES}
    checkpoint = save_model(
        Checkpoint(tmp_path / "m", TINY, "m", 1, 1.0, None), {"weights": network.state_dict(), **parts}
    )
    swap = ModelSwapper(checkpoint, device="cpu")
    face = face_at(Pose(0, 0, 0), 9.0, 150, 150)
    assert face.landmarks is not None
    corners = face.landmarks[list(mesh.EYE_CORNERS), :2].reshape(2, 2, 2)
    places = []
    for across in (0.0, 0.15):
        irises = corners.mean(axis=1) + across * (corners[:, 1] - corners[:, 0])
        (swapped,) = swap([frame_of()], [replace(face, iris=irises.astype(np.float32))])
        inside = align.apply(swapped.frame_to_crop, corners[0]).round().astype(int)
        row = swapped.image[inside[:, 1].min() - 2 : inside[:, 1].max() + 3, inside[0, 0] + 3 : inside[1, 0] - 2]
        dark = np.clip(190 - row.astype(float).mean(axis=2), 0, None)
        width = float(inside[1, 0] - inside[0, 0])
        places.append(float((dark * np.arange(row.shape[1])).sum() / dark.sum()) / width)
    assert 0.07 < places[1] - places[0] < 0.2
    side = swapped.image.shape[0]
    assert swap._memory(0, side).size == side < 512, "texels between the pixels of the crop would shimmer"


@pytest.mark.parametrize("identity", [0, TARGET])
def test_what_the_network_makes_up_on_skin_is_bounded(model: Checkpoint, identity: int) -> None:
    """A network that paints everything white: the source's skin is hardly changed, mouth and eyes are. The target's picture has a
    truth to be held to, so it is left alone."""

    class White:
        device = None

        def __call__(self, inputs: Mapping[str, Floats]) -> tuple[Floats, Floats]:
            return np.ones_like(inputs["image"]), np.ones_like(inputs["reference_mask"])

    face = face_at(Pose(0, 0, 0), 6.0, 150, 145)
    (swapped,) = ModelSwapper(model, device="cpu", network=White(), identity=identity)([frame_of()], [face])
    assert face.landmarks is not None
    points = align.apply(swapped.frame_to_crop, face.landmarks)
    cheek, lips = (points[[k], :2].mean(axis=0).round().astype(int) for k in (50, 13))
    shade = np.array(SHADES["target" if identity else "source"])
    assert swapped.image[lips[1], lips[0]].min() > 240
    rise = swapped.image[cheek[1], cheek[0]] - shade
    if identity:
        assert swapped.image[cheek[1], cheek[0]].min() > 240
    else:
        assert (rise > 5).all() and (rise <= 17).all()
