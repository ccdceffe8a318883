"""Everything known of the faces in a picture, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lib_vitface.types import Detector, Embedder, Face, Image, Landmarker

MIN_PRESENCE = 0.5


class Analyser:
    """Detector, landmarker and (optional) embedder one after the other."""

    def __init__(self, detector: Detector, landmarker: Landmarker, embedder: Embedder | None = None) -> None:
        self.detector = detector
        self.landmarker = landmarker
        self.embedder = embedder

    def __call__(self, image: Image) -> list[Face]:
        """Faces of an RGB image, best score first, with landmarks, pose and (given an embedder) embedding."""
        faces = [self.landmarker(image, face) for face in self.detector(image) if _has_extent(face)]
        return [self._embed(image, face) for face in faces if (face.presence or 0) >= MIN_PRESENCE]

    def follow(self, image: Image, previous: Sequence[Face]) -> list[Face]:
        """Faces of the next frame from those of the frame before, without detecting; detects when one is lost."""
        faces = [self.landmarker(image, face) for face in previous]
        if not faces or any((face.presence or 0) < MIN_PRESENCE for face in faces):
            return self(image)
        return [self._embed(image, face) for face in faces]

    def _embed(self, image: Image, face: Face) -> Face:
        return face if self.embedder is None else replace(face, embedding=self.embedder(image, face))


def _has_extent(face: Face) -> bool:
    """Detectors regress logarithms of sizes: on noise they may answer with boxes of no size, or of an endless one."""
    values = np.concatenate([face.box, face.points.ravel()])
    return bool(np.isfinite(values).all() and (face.box[2:] - face.box[:2]).min() >= 1)
