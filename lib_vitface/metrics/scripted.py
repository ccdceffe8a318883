"""Measuring networks that are files of TorchScript by NVIDIA, not shipped and never fetched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lib_vitface.errors import MissingDependencyError
from lib_vitface.types import Image

if TYPE_CHECKING:
    import torch

URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"


def load(path: Path, what: str, url: str, use: Callable[[Any], Any]) -> Any:
    """What `use` makes of the network in a file. Raises `MissingDependencyError` where it is not `what` it should be."""
    import torch

    try:
        return use(torch.jit.load(str(path), map_location="cpu").eval())
    except (RuntimeError, AttributeError, TypeError) as error:
        raise MissingDependencyError(f"{path} is not {what}; get it again: {url}") from error


def pixels(image: Image) -> torch.Tensor:
    """RGB uint8 `[H, W, 3]` as float32 `[1, 3, H, W]` 0..255."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
