"""Stand-ins for a diffusion pipeline: one that draws texture as a pipeline does, new for every picture, and one that destroys."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import cv2
import numpy as np

from lib_vitface.types import Image, Redraw


class Grain:
    """Adds texture that depends on seed and picture to the last bit, so neighbouring frames get unlike ones, and darkens all.

    `amplitude` is its standard deviation in grey levels.
    """

    name = "grain"

    def __init__(self, amplitude: float = 14.0, shift: float = -30.0) -> None:
        self.amplitude, self.shift = amplitude, shift
        self.asked: list[Redraw] = []
        self.calls = 0

    @property
    def steps(self) -> int:
        """How often a U-Net would have been called."""
        return sum(asked.steps for asked in self.asked)

    def __call__(self, asked: Sequence[Redraw]) -> list[Image]:
        self.calls += 1
        self.asked += asked
        return [self.draw(one) for one in asked]

    def draw(self, asked: Redraw) -> Image:
        digest = hashlib.sha256(asked.image.tobytes() + asked.seed.to_bytes(4, "big")).digest()
        noise = np.random.default_rng(int.from_bytes(digest[:8], "big")).normal(size=asked.image.shape[:2])
        fine = cv2.GaussianBlur(noise, (0, 0), 1.2)
        fine *= self.amplitude / fine.std()
        return np.clip(asked.image + self.shift + fine[..., None], 0, 255).round().astype(np.uint8)


class Melt(Grain):
    """Turns the face upside down: nobody would know it again."""

    name = "melt"

    def draw(self, asked: Redraw) -> Image:
        return np.ascontiguousarray(asked.image[::-1])
