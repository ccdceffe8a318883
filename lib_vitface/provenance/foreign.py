"""Marks of other generators: what Stable Diffusion's own programs put into their pictures, read by `invisible-watermark`.

The reference code of Stable Diffusion 1 and 2 writes the bytes `StableDiffusionV1` or `SDV2`, that of SDXL a word of 48 bits, all
by the package's `dwtDct` method (Stability-AI/stablediffusion `scripts/txt2img.py`, Stability-AI/generative-models
`sgm/inference/helpers.py`, diffusers `StableDiffusionXLWatermarker`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.types import Image

Reader = Callable[[Image, int], NDArray[np.uint8]]

_LEAST_PIXELS = 256 * 256  # what the method needs
# Word and share of wrong bits up to which it counts as read; the chance of that without a mark is below 1e-8 for each.
_WORDS = {
    "Stable Diffusion 1": (b"StableDiffusionV1", 0.15),
    "Stable Diffusion 2": (b"SDV2", 0.035),
    "Stable Diffusion XL": (0b101100111110110010010000011110111011000110011110.to_bytes(6, "big"), 0.065),
}


def generator_of(image: Image) -> str | None:
    """Name of the generator whose mark RGB uint8 `[H, W, 3]` bears, or None (also where the package is not there)."""
    if image.shape[0] * image.shape[1] < _LEAST_PIXELS:
        return None
    read = _reader()
    if read is None:
        return None
    blue_first = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    for name, (word, wrong) in _WORDS.items():
        expected = np.unpackbits(np.frombuffer(word, np.uint8))
        seen = read(blue_first, len(expected))
        if np.mean(seen != expected) <= wrong:
            return name
    return None


@functools.lru_cache(maxsize=1)
def _reader() -> Reader | None:
    try:
        from imwatermark import WatermarkDecoder
    except ImportError:
        return None

    def read(image: Image, length: int) -> NDArray[np.uint8]:
        found = WatermarkDecoder("bits", length).decode(image, "dwtDct")
        return np.asarray(found, np.float64).round().astype(np.uint8)

    return read
