"""Face detectors: boxes, scores and five points."""

from __future__ import annotations

import cv2
import numpy as np

from lib_vitface.assets import locate
from lib_vitface.errors import InputError
from lib_vitface.types import Detector, Face, Floats, Image


class YuNetDetector:
    """YuNet (Wu et al. 2023) through OpenCV; embedded default."""

    def __init__(self, min_score: float = 0.6, long_side: int = 640) -> None:
        self.long_side = long_side
        self._net = cv2.FaceDetectorYN.create(str(locate("yunet")), "", (320, 320), min_score, 0.3, 200)

    def __call__(self, image: Image) -> list[Face]:
        """Faces of an RGB image, best score first."""
        return sorted(self._detect(image, self.long_side), key=lambda face: -face.score)

    def _detect(self, image: Image, long_side: int) -> list[Face]:
        height, width = image.shape[:2]
        scale = min(1.0, long_side / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
        self._net.setInputSize(size)
        _, found = self._net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        ratio = np.array([width / size[0], height / size[1]], dtype=np.float32)
        return [_face(row, ratio) for row in found] if found is not None else []


def _face(row: Floats, ratio: Floats) -> Face:
    """A row of YuNet (x, y, w, h, five points, score) of a shrunk image as a `Face` in frame pixels."""
    corners = np.array([row[:2], row[:2] + row[2:4]], dtype=np.float32)
    box = ((corners + 0.5) * ratio - 0.5).ravel()
    points = (row[4:14].reshape(5, 2) + 0.5) * ratio - 0.5
    return Face(box=box.astype(np.float32), score=float(row[14]), points=points.astype(np.float32))


def make_detector(name: str = "auto", min_score: float = 0.6) -> Detector:
    """Detector by name. Raises InputError for an unknown name."""
    if name in {"auto", "yunet"}:
        return YuNetDetector(min_score)
    raise InputError(f"There is no face detector called {name!r}; choose yunet.")
