"""Faces made up for the tests of the faceset."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from lib_vitface.faces import align, mesh
from lib_vitface.faceset.record import Record
from lib_vitface.types import Floats, Image, Pose

SIZE = 128


def unit_vector(seed: int, dimensions: int = 128) -> Floats:
    vector = np.random.default_rng(seed).normal(size=dimensions)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def posed_landmarks(pose: Pose, size: int = SIZE, points: Floats | None = None) -> Floats:
    """The canonical face (or `points` in its axes) at a pose, in the middle of a crop."""
    shape = mesh.vertices() if points is None else points
    turned = (shape * np.array([1.0, -1.0, -1.0])) @ align.rotation_of(pose).T
    return (turned * (size / 28) + np.array([size / 2, size / 2, 0])).astype(np.float32)


def make_record(number: int, **changes: object) -> Record:
    """A record with its own random measures; `changes` replace fields."""
    rng = np.random.default_rng(number)
    pose = Pose(*rng.uniform(-30, 30, 3).tolist())
    values: dict[str, object] = {
        "source": "clip.mp4",
        "frame": number,
        "time": Fraction(number * 1001, 24000),
        "image": f"{number:08d}.png",
        "size": SIZE,
        "face_px": 200.0,
        "pose": pose,
        "sharpness": 0.5,
        "exposure": 0.99,
        "occlusion": 0.01,
        "frame_to_crop": rng.normal(size=(2, 3)),
        "landmarks": posed_landmarks(pose),
        "embedding": unit_vector(number),
        "expression": rng.normal(size=7).astype(np.float32),
        "light": rng.normal(size=4).astype(np.float32),
        "fingerprint": int(rng.integers(0, 2**63)) * 2 + number % 2,
    }
    return Record(**{**values, **changes})  # type: ignore[arg-type]


def noise_image(seed: int, size: int = SIZE) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)
