"""Detectors and an embedder of packages the person may install: facexlib and insightface (see requirements-optional.txt).

Neither package is imported, and none of their weights is fetched, before one of these classes is made.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import zipfile
from typing import Any

import cv2
import numpy as np

from lib_vitface import device as devices
from lib_vitface.errors import MissingDependencyError
from lib_vitface.faces import align
from lib_vitface.types import Face, Floats, Image

_PACK = "buffalo_l"
_REFUSALS = (OSError, RuntimeError, AssertionError, zipfile.BadZipFile)  # what the packages raise without their weights


class FacexlibDetector:
    """RetinaFace on ResNet-50 (Deng et al. 2020, arXiv:1905.00641) through facexlib."""

    def __init__(self, min_score: float = 0.6, long_side: int = 1280) -> None:
        self.min_score, self.long_side = min_score, long_side
        detection = _package("facexlib.detection")
        try:
            with _quiet():
                device = str(devices.nvidia_or_cpu())
                self._net: Any = detection.init_detection_model("retinaface_resnet50", device=device)
        except _REFUSALS as error:
            raise MissingDependencyError(
                f"facexlib's detector cannot be loaded ({_first_line(error)}); go online once, or put "
                "detection_Resnet50_Final.pth into the folder facexlib/weights of the installed package."
            ) from error

    def __call__(self, image: Image) -> list[Face]:
        """Faces of an RGB image, best score first."""
        import torch

        small, ratio = align.shrunk(image, self.long_side)
        with torch.no_grad():
            found = self._net.detect_faces(cv2.cvtColor(small, cv2.COLOR_RGB2BGR), self.min_score)
        rows = np.asarray(found, dtype=np.float32).reshape(-1, 15)
        return _faces(rows[:, :5], rows[:, 5:].reshape(-1, 5, 2), ratio)


class InsightFaceDetector:
    """SCRFD (Guo et al. 2021, arXiv:2105.04714) of insightface's pack buffalo_l."""

    def __init__(self, min_score: float = 0.6) -> None:
        self._net: Any = _pack("detection", min_score).models["detection"]

    def __call__(self, image: Image) -> list[Face]:
        """Faces of an RGB image, best score first."""
        boxes, points = self._net.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return _faces(np.asarray(boxes).reshape(-1, 5), np.asarray(points).reshape(-1, 5, 2), np.ones(2, np.float32))


class InsightFaceEmbedder:
    """ArcFace on ResNet-50 (Deng et al. 2019, arXiv:1801.07698), 512 numbers, of insightface's pack buffalo_l."""

    def __init__(self) -> None:
        models = _pack("recognition", 0.5).models
        if "recognition" not in models:
            raise _no_pack("the pack holds no recognition model")
        self._net: Any = models["recognition"]

    def __call__(self, image: Image, face: Face) -> Floats:
        chip = align.five_point_chip(image, face.points)
        found = np.asarray(self._net.get_feat(cv2.cvtColor(chip, cv2.COLOR_RGB2BGR)), dtype=np.float32).ravel()
        return (found / max(float(np.linalg.norm(found)), 1e-12)).astype(np.float32)


def _pack(part: str, min_score: float) -> Any:
    """insightface's models with `part` ready; it insists on its detector being among them."""
    app = _package("insightface.app")
    _package("onnxruntime")
    providers = devices.onnx_providers("auto")
    try:
        with _quiet():
            models = app.FaceAnalysis(_PACK, allowed_modules=sorted({"detection", part}), providers=providers)
            models.prepare(0 if len(providers) > 1 else -1, det_thresh=min_score, det_size=(640, 640))
    except _REFUSALS as error:
        raise _no_pack(_first_line(error)) from error
    return models


def _no_pack(reason: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"insightface's models cannot be loaded ({reason}); go online once, or unpack {_PACK}.zip of its releases into "
        f"~/.insightface/models/{_PACK}."
    )


def _package(module: str) -> Any:
    name = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"The package {name} is missing or cannot be imported ({_first_line(error)}): pip install {name}."
        ) from error


def _quiet() -> contextlib.AbstractContextManager[Any]:
    """Both packages talk on stdout, which belongs to the command's own result."""
    return contextlib.redirect_stdout(sys.stderr)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _faces(boxes: Floats, points: Floats, ratio: Floats) -> list[Face]:
    """Boxes with scores `[N, 5]` and points `[N, 5, 2]` of a picture shrunk by `ratio` (x, y) as faces, best first."""
    whole = [
        Face(
            ((box[:4].reshape(2, 2) + 0.5) * ratio - 0.5).ravel().astype(np.float32),
            float(box[4]),
            ((five + 0.5) * ratio - 0.5).astype(np.float32),
        )
        for box, five in zip(boxes, points, strict=True)
    ]
    return sorted(whole, key=lambda face: -face.score)
