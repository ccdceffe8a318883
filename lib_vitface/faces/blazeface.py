"""The MediaPipe short-range face detector, run by OpenCV's own network engine."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.assets import locate
from lib_vitface.faces import align
from lib_vitface.faces.track import overlap
from lib_vitface.types import Face, Floats, Image

_SIZE = 128
_GRIDS = ((16, 2), (8, 6))  # cells a side, and anchors in each cell
_SAME_FACE = 0.3  # overlap from which two answers are about one face
_CORNER = 0.453  # half the width of a mouth in distances between the eyes, in the ArcFace template

Doubles = NDArray[np.float64]


class BlazeFaceDetector:
    """BlazeFace (Bazarevsky et al. 2019, arXiv:1907.05047). Sees the whole picture at 128 px, so faces must be near: from about
    a tenth of its longer side. Of the mouth it knows only the middle; the corners are put where a frontal face has them.
    """

    def __init__(self, min_score: float = 0.6) -> None:
        self.min_score = min_score
        self._net = cv2.dnn.readNetFromTFLite(str(locate("blazeface_short")))
        self._outputs = self._net.getUnconnectedOutLayersNames()
        self._anchors = _anchors()

    def __call__(self, image: Image) -> list[Face]:
        """Faces of an RGB image, best score first."""
        height, width = image.shape[:2]
        centre = np.array([(width - 1) / 2, (height - 1) / 2])
        matrix = align.square_matrix(centre, _SIZE / max(height, width), 0.0, _SIZE)
        picture = align.warp(image, matrix, _SIZE, border=cv2.BORDER_CONSTANT)
        self._net.setInput(cv2.dnn.blobFromImage(picture, 1 / 127.5, mean=(127.5, 127.5, 127.5)))
        results = self._net.forward(self._outputs)
        logits = next(r for r in results if r.shape[-1] == 1).ravel().astype(np.float64)
        raw = next(r for r in results if r.shape[-1] == 16).reshape(-1, 16).astype(np.float64)
        scores = 1 / (1 + np.exp(-np.clip(logits, -100, 100)))
        sure = np.flatnonzero(scores >= self.min_score)
        boxes, points = _decoded(raw[sure], self._anchors[sure])
        back = align.invert(matrix)
        faces = []
        for score, box, seen in _merged(scores[sure], boxes, points):
            corners, four = (align.apply(back, p - 0.5) for p in (box.reshape(2, 2), seen[:4]))
            faces.append(Face(corners.ravel().astype(np.float32), float(score), five_of_four(four)))
        return faces


def _anchors() -> Doubles:
    """Centres `[896, 2]` of the anchors in px of the network's picture, edges at 0 and 128."""
    parts = []
    for count, repeat in _GRIDS:
        ticks = (np.arange(count) + 0.5) * _SIZE / count
        x, y = np.meshgrid(ticks, ticks)
        parts.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), repeat, axis=0))
    return np.concatenate(parts)


def _decoded(raw: Doubles, anchors: Doubles) -> tuple[Doubles, Doubles]:
    """Boxes `[N, 4]` (corners) and points `[N, 6, 2]` (eyes, nose tip, mouth, ears) of raw answers `[N, 16]`."""
    centre, half = anchors + raw[:, :2], raw[:, 2:4] / 2
    return np.hstack([centre - half, centre + half]), anchors[:, None] + raw[:, 4:].reshape(-1, 6, 2)


def _merged(scores: Doubles, boxes: Doubles, points: Doubles) -> list[tuple[float, Doubles, Doubles]]:
    """One (score, box, points) a face, best first: overlapping answers are averaged by their scores, as the paper has it."""
    left = list(np.argsort(-scores, kind="stable"))
    found = []
    while left:
        best = left[0]
        own = [k for k in left if k == best or overlap(boxes[best], boxes[k]) > _SAME_FACE]
        left = [k for k in left if k not in own]
        weights = scores[own] / scores[own].sum()
        found.append((float(scores[best]), weights @ boxes[own], np.tensordot(weights, points[own], axes=1)))
    return found


def five_of_four(four: NDArray[np.floating]) -> Floats:
    """Eyes, nose tip and both mouth corners `[5, 2]` of eyes, nose tip and the middle of the mouth `[4, 2]`."""
    half = _CORNER * (four[1] - four[0])
    return np.stack([*four[:3], four[3] - half, four[3] + half]).astype(np.float32)
