"""Random changes of one training sample: placement, light, distortion of the driving face, covers painted over it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.types import Floats, Image, Mask


@dataclass(frozen=True)
class Augmentation:
    """How strong each change is; 0 turns it off. `covers` and `flip` are shares 0..1 of the pictures."""

    warp: float = 1.0
    color: float = 1.0
    covers: float = 0.5
    flip: float = 0.5


def placement(random: np.random.Generator, size: int, strength: float) -> NDArray[np.float64]:
    """A small random similarity `before_to_after` 2x3 about the centre: rotation, scale, shift."""
    angle = random.normal(0, 4) * strength
    scale = float(np.exp(random.normal(0, 0.035) * strength))
    matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), angle, scale)
    matrix[:, 2] += random.normal(0, 0.015, 2) * size * strength
    return matrix


def distort(image: Image, random: np.random.Generator, strength: float) -> Image:
    """Random smooth distortion: a coarse grid of offsets, interpolated (the "random warp" of the deepfakes family)."""
    size = image.shape[0]
    offsets = random.normal(0, 0.012 * strength * size, (2, 5, 5)).astype(np.float32)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    across, down = (cv2.resize(o, (size, size), interpolation=cv2.INTER_CUBIC) for o in offsets)
    return cv2.remap(image, columns + across, rows + down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class ColorChange:
    """Gain, offset and gamma per channel on 0..255 values."""

    gain: Floats
    offset: Floats
    gamma: float

    @classmethod
    def draw(cls, random: np.random.Generator, strength: float) -> ColorChange:
        """Random light: brightness and contrast common to the channels, a small tint, gamma."""
        gain = np.exp(random.normal(0, 0.12) * strength + random.normal(0, 0.05, 3) * strength)
        offset = (random.normal(0, 8) + random.normal(0, 3, 3)) * strength
        return cls(gain.astype(np.float32), offset.astype(np.float32), float(np.exp(random.normal(0, 0.12) * strength)))

    def apply(self, image: Image) -> Image:
        """The changed picture, uint8, by one look-up table."""
        levels = np.arange(256, dtype=np.float32)[:, None] * self.gain + self.offset
        table = 255 * (np.clip(levels, 0, 255) / 255) ** self.gamma
        return cv2.LUT(image, table.round().astype(np.uint8)[:, None, :])


def paint_cover(image: Image, donor: Image, random: np.random.Generator) -> tuple[Image, Mask]:
    """The picture with something in front of it, and where (`[H, W]` 0..1).

    Shapes are fingers (parallel strokes with round ends), discs and cards; their surface is skin-coloured, a piece of `donor`
    or plain, with a shading gradient, so that neither colour nor texture alone gives a cover away.
    """
    size = image.shape[0]
    shape = np.zeros((size, size), np.uint8)
    centre = random.uniform(0.2, 0.8, 2) * size
    kind = random.integers(3)
    if kind == 0:
        _fingers(shape, centre, random)
    elif kind == 1:
        axes = tuple(int(a) for a in random.uniform(0.06, 0.22, 2) * size)
        cv2.ellipse(shape, (int(centre[0]), int(centre[1])), axes, random.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
    else:
        corners = random.uniform(-0.25, 0.25, (4, 2)) * size + centre
        cv2.fillConvexPoly(shape, cv2.convexHull(corners.astype(np.int32)), 255, cv2.LINE_AA)
    mask = cv2.GaussianBlur(shape, (0, 0), random.uniform(0.4, 1.5)).astype(np.float32) / 255
    surface = _surface(image, donor, random)
    mixed = image + (surface - image) * mask[..., None]
    return np.clip(mixed, 0, 255).astype(np.uint8), mask


def _fingers(shape: Mask | Image, centre: NDArray[np.float64], random: np.random.Generator) -> None:
    size = shape.shape[0]
    angle = random.uniform(0, 2 * np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    width = random.uniform(0.05, 0.10) * size
    for finger in range(int(random.integers(1, 5))):
        tip = centre + across * finger * width * random.uniform(0.95, 1.25) + along * random.normal(0, 0.04) * size
        bend = tip + along * size * 0.3 + across * random.normal(0, 0.05) * size
        points = np.array([tip, bend, bend + along * size]).astype(np.int32)
        cv2.polylines(shape, [points], False, 255, max(2, int(width)), cv2.LINE_AA)


def _surface(image: Image, donor: Image, random: np.random.Generator) -> Floats:
    size = image.shape[0]
    kind = random.integers(3)
    if kind == 0:  # skin: the face's own middle colour, lighter or darker
        skin = np.median(image[size // 3 : size * 2 // 3, size // 3 : size * 2 // 3].reshape(-1, 3), axis=0)
        surface = np.broadcast_to(skin * random.uniform(0.6, 1.25) + random.normal(0, 6, 3), image.shape).astype(
            np.float32
        )
    elif kind == 1:
        matrix = cv2.getRotationMatrix2D((size / 2, size / 2), random.uniform(0, 360), random.uniform(1.0, 2.5))
        matrix[:, 2] += random.uniform(-0.3, 0.3, 2) * size
        surface = cv2.warpAffine(donor, matrix, (size, size), borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
    else:
        surface = np.broadcast_to(random.uniform(0, 255, 3), image.shape).astype(np.float32)
    slope = np.linspace(-1, 1, size, dtype=np.float32) * random.normal(0, 0.18)
    shade = 1 + slope[:, None] + np.linspace(-1, 1, size, dtype=np.float32)[None] * random.normal(0, 0.18)
    grain = random.normal(0, 3, (size // 4, size // 4)).astype(np.float32)
    return surface * shade[..., None] + cv2.resize(grain, (size, size))[..., None]
