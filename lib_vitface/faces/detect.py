"""Face detectors: boxes, scores and five points."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from lib_vitface.assets import locate
from lib_vitface.errors import InputError
from lib_vitface.faces import align
from lib_vitface.faces.blazeface import BlazeFaceDetector
from lib_vitface.faces.outside import FacexlibDetector, InsightFaceDetector
from lib_vitface.types import Detector, Face, Floats, Image

_CELL = 32  # YuNet's coarsest step in px


class YuNetDetector:
    """YuNet (Wu et al. 2023) through OpenCV; embedded default."""

    def __init__(self, min_score: float = 0.6, long_side: int = 640) -> None:
        self.long_side = long_side
        self._net = cv2.FaceDetectorYN.create(str(locate("yunet")), "", (320, 320), min_score, 0.3, 200)

    def __call__(self, image: Image) -> list[Face]:
        """Faces of an RGB image, best score first."""
        return sorted(self._detect(image, self.long_side), key=lambda face: -face.score)

    def _detect(self, image: Image, long_side: int) -> list[Face]:
        small, ratio = align.shrunk(image, long_side)
        # OpenCV fills up to whole cells by itself, but of a picture one cell high the network then reads memory nobody wrote.
        below, beside = (max(-(-side // _CELL), 2) * _CELL - side for side in small.shape[:2])
        small = cv2.copyMakeBorder(small, 0, below, 0, beside, cv2.BORDER_CONSTANT)
        self._net.setInputSize(small.shape[1::-1])
        _, found = self._net.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        return [_face(row, ratio) for row in found] if found is not None else []


def _face(row: Floats, ratio: Floats) -> Face:
    """A row of YuNet (x, y, w, h, five points, score) of a shrunk image as a `Face` in frame pixels."""
    corners = np.array([row[:2], row[:2] + row[2:4]], dtype=np.float32)
    box = ((corners + 0.5) * ratio - 0.5).ravel()
    points = (row[4:14].reshape(5, 2) + 0.5) * ratio - 0.5
    return Face(box=box.astype(np.float32), score=float(row[14]), points=points.astype(np.float32))


DETECTORS: dict[str, Callable[[float], Detector]] = {
    "auto": YuNetDetector,
    "yunet": YuNetDetector,
    "blazeface": BlazeFaceDetector,
    "insightface": InsightFaceDetector,
    "facexlib": FacexlibDetector,
}


def make_detector(name: str = "auto", min_score: float = 0.6) -> Detector:
    """Detector by name. Raises InputError for an unknown name, MissingDependencyError for an absent package."""
    if name not in DETECTORS:
        raise InputError(f"There is no face detector called {name!r}; choose one of {', '.join(DETECTORS)}.")
    return DETECTORS[name](min_score)
