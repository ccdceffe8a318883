"""What runs the small networks of `assets` on a processor: OpenVINO where it is installed, else OpenCV.

Both read the same files in float32 and agree within 1e-3 px and a cosine of 0.99999; a machine with another set of packages may differ
from this one by that much. OpenVINO took from a fifth (palms) to two thirds (face mesh) of OpenCV's time where it was measured.
"""

from __future__ import annotations

import importlib
import threading
from functools import lru_cache
from importlib import util
from typing import Any, Protocol

import cv2
import numpy as np

from lib_vitface.assets import locate
from lib_vitface.faces.graphs import unpacked_onnx
from lib_vitface.types import Floats, Image


class Network(Protocol):
    """A picture RGB `[H, W, 3]` of the network's own size to its outputs, in no order that can be relied on. For one thread."""

    def __call__(self, picture: Image) -> list[Floats]: ...


def network(name: str, scale: float) -> Network:
    """The network of an asset; it sees the picture's values times `scale`."""
    return OpenVinoNetwork(name, scale) if util.find_spec("openvino") else OpenCvNetwork(name, scale)


class OpenCvNetwork:
    """By OpenCV, with as many threads as it likes."""

    def __init__(self, name: str, scale: float) -> None:
        path, self._scale = locate(name), scale
        self._net = (cv2.dnn.readNetFromONNX if path.suffix == ".onnx" else cv2.dnn.readNetFromTFLite)(str(path))
        self._outputs = self._net.getUnconnectedOutLayersNames()

    def __call__(self, picture: Image) -> list[Floats]:
        self._net.setInput(cv2.dnn.blobFromImage(picture, self._scale))
        return [np.asarray(one, dtype=np.float32) for one in self._net.forward(self._outputs)]


class OpenVinoNetwork:
    """By OpenVINO, in the caller's thread: several networks run side by side better than one does on several cores."""

    def __init__(self, name: str, scale: float) -> None:
        self._request, self._scale = _compiled(name).create_infer_request(), np.float32(scale)
        self._first = locate(name).suffix == ".onnx"  # channels
        self._alone = threading.Lock()  # a request that is busy refuses a second thread

    def __call__(self, picture: Image) -> list[Floats]:
        values = (picture.transpose(2, 0, 1) if self._first else picture)[None]
        values = np.ascontiguousarray(np.multiply(values, self._scale, dtype=np.float32))
        with self._alone:
            return list(self._request.infer({0: values}, share_inputs=True).values())


@lru_cache(maxsize=8)
def _compiled(name: str) -> Any:
    """One copy of the weights, however many use them at once."""
    openvino: Any = importlib.import_module("openvino")
    path, core = locate(name), openvino.Core()
    model = core.read_model(unpacked_onnx(path), b"") if path.suffix == ".onnx" else core.read_model(str(path))
    # Threads that are bound to a core would all be bound to the first one.
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
    return core.compile_model(model, "CPU", settings)
