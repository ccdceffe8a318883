"""LPIPS: how far apart two pictures are to a network's eye (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a
Perceptual Metric", arXiv:1801.03924)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lib_vitface.assets import models_folder
from lib_vitface.errors import MissingDependencyError
from lib_vitface.types import Image

LPIPS_FILE = "vgg16.pt"
_URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/" + LPIPS_FILE


class Lpips:
    """LPIPS with VGG-16 and its learned weights, 0 or more; equal pictures have 0.

    Its file (TorchScript, NVIDIA's conversion: features whose squared difference is the distance) is 553 MB, is not shipped and
    never fetched.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Raises `MissingDependencyError` where the file is not there, or is another one."""
        import torch

        path = path or models_folder() / LPIPS_FILE
        if not path.is_file():
            raise MissingDependencyError(
                f"--lpips needs {LPIPS_FILE} (553 MB): put it into {path.parent} from {_URL}, or leave --lpips out."
            )
        wrong = f"{path} is not the network of LPIPS; get it again: {_URL}"
        try:
            self._net: Any = torch.jit.load(str(path), map_location="cpu").eval()
            self._features(np.zeros((64, 64, 3), np.uint8))
        except (RuntimeError, AttributeError, TypeError) as error:
            raise MissingDependencyError(wrong) from error

    def __call__(self, a: Image, b: Image) -> float:
        """Distance of two RGB uint8 pictures of one size, 64 px or larger a side."""
        if a.shape != b.shape:
            raise ValueError(f"pictures of one size are compared, got {a.shape} and {b.shape}")
        return float(((self._features(a) - self._features(b)) ** 2).sum())

    def _features(self, image: Image) -> Any:
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
            return self._net(pixels, resize_images=False, return_lpips=True)
