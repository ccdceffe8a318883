"""Identity embeddings: unit vectors that are close for pictures of one person."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from lib_vitface.assets import locate
from lib_vitface.errors import InputError, MissingDependencyError
from lib_vitface.faces import align
from lib_vitface.faces.engines import network
from lib_vitface.faces.outside import InsightFaceEmbedder
from lib_vitface.types import Embedder, Face, Floats, Image

DLIB_POINTS = (263, 362, 33, 133, 2)
"""Face-mesh points that stand for dlib's five: viewer's right eye outer and inner corner, left eye likewise, base of the nose."""

_DLIB_SHAPE = np.array(
    [
        [0.8595675, 0.2134982],
        [0.6460605, 0.2289674],
        [0.1205751, 0.2137275],
        [0.3340851, 0.2290642],
        [0.4901123, 0.6277975],
    ]
)
_DLIB_SIZE = 150
_DLIB_PADDING = 0.25


class SFaceEmbedder:
    """SFace (Zhong et al. 2021, arXiv:2205.12010), 128 numbers. Used for selection."""

    def __init__(self) -> None:
        self._net = network("sface", 1.0)

    def __call__(self, image: Image, face: Face) -> Floats:
        (look,) = self._net(align.five_point_chip(image, face.points))
        return unit(look.ravel())


class DlibEmbedder:
    """dlib's ResNet (King 2017, CC0), 128 numbers. Unrelated to SFace, so it can score what SFace selected."""

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError as error:
            raise MissingDependencyError("Scoring by dlib needs the package dlib-bin: pip install dlib-bin.") from error
        self._net: Any = dlib.face_recognition_model_v1(str(locate("dlib_embedder")))

    def __call__(self, image: Image, face: Face) -> Floats:
        if face.landmarks is None:
            raise ValueError("dlib's chip needs landmarks: run a landmarker first")
        return unit(np.array(self._net.compute_face_descriptor(dlib_chip(image, face.landmarks))))


def dlib_chip(image: Image, landmarks: Floats) -> Image:
    """The 150 px chip dlib's network was trained on, from landmarks `[468, 3]`."""
    template = (_DLIB_SHAPE + _DLIB_PADDING) / (1 + 2 * _DLIB_PADDING) * _DLIB_SIZE
    matrix = align.similarity_matrix(landmarks[list(DLIB_POINTS), :2], template)
    return align.warp(image, matrix, _DLIB_SIZE, border=cv2.BORDER_CONSTANT)


def unit(vector: Floats) -> Floats:
    """The vector at length one, float32."""
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)


def cosine(a: Floats, b: Floats) -> float:
    """Cosine of the angle between two vectors, -1..1."""
    return float(np.dot(unit(a), unit(b)))


def make_embedder(name: str = "sface") -> Embedder:
    """Embedder by name. Raises InputError for an unknown name, MissingDependencyError for an absent backend."""
    makers: dict[str, Callable[[], Embedder]] = {
        "sface": SFaceEmbedder,
        "dlib": DlibEmbedder,
        "insightface": InsightFaceEmbedder,
    }
    if name not in makers:
        raise InputError(f"There is no face embedder called {name!r}; choose one of {', '.join(makers)}.")
    return makers[name]()
