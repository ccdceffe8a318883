"""Small facesets of made-up persons."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "faceset"))

from faceset_maker import make_record, posed_landmarks

from lib_vitface.faceset.writer import FacesetWriter, Progress
from lib_vitface.types import Pose

SIDE = 96


def write_faceset(folder: Path, seed: int, count: int = 16) -> Path:
    """A person: one smooth picture that moves with the head, at several angles."""
    random = np.random.default_rng(seed)
    coarse = random.integers(40, 210, (8, 8, 3)).astype(np.uint8)
    picture = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    faceset = FacesetWriter.create(folder, {"size": SIDE})
    source = faceset.add_input(f"/{folder.name}.mp4", "1")
    records = []
    for k in range(count):
        pose = Pose(float(random.uniform(-20, 20)), float(random.uniform(-10, 10)), 0.0)
        shift = np.float32([[1, 0, pose.yaw_deg / 10], [0, 1, pose.pitch_deg / 10]])
        name = f"{k:08d}.png"
        faceset.save_crop(name, cv2.warpAffine(picture, shift, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT), 95)
        records.append(
            make_record(
                k,
                pose=pose,
                landmarks=posed_landmarks(pose, SIDE),
                size=SIDE,
                time=Fraction(k, 2),
                image=name,
                kept=True,
                reason="",
                cluster=0,
            )
        )
    faceset.add(source, records, Progress(count, frames=count, found=count, done=True))
    faceset.note("finished", True)
    faceset.close()
    return folder
