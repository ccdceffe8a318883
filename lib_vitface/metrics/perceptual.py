"""LPIPS: how far apart two pictures are to a network's eye (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", arXiv:1801.03924)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lib_vitface.assets import models_folder
from lib_vitface.errors import MissingDependencyError
from lib_vitface.metrics import scripted
from lib_vitface.types import Image

LPIPS_FILE = "vgg16.pt"
_URL = scripted.URL + LPIPS_FILE


class Lpips:
    """LPIPS with VGG-16 and its learned weights, 0 or more; equal pictures have 0.

    Its file (TorchScript, NVIDIA's conversion: features whose squared difference is the distance) is 553 MB, is not shipped and
    never fetched.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Raises `MissingDependencyError` where the file is not there, or is another one."""
        path = path or models_folder() / LPIPS_FILE
        if not path.is_file():
            raise MissingDependencyError(
                f"--lpips needs {LPIPS_FILE} (553 MB): put it into {path.parent} from {_URL}, or leave --lpips out."
            )

        def tried(net: Any) -> Any:
            _features(net, np.zeros((64, 64, 3), np.uint8))
            return net

        self._net = scripted.load(path, "the network of LPIPS", _URL, tried)

    def __call__(self, a: Image, b: Image) -> float:
        """Distance of two RGB uint8 pictures of one size, 64 px or larger a side."""
        if a.shape != b.shape:
            raise ValueError(f"pictures of one size are compared, got {a.shape} and {b.shape}")
        return float(((_features(self._net, a) - _features(self._net, b)) ** 2).sum())


def _features(net: Any, image: Image) -> Any:
    import torch

    with torch.inference_mode():
        return net(scripted.pixels(image), resize_images=False, return_lpips=True)
