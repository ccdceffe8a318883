"""The visible label in video: a few small words in a corner away from the faces, the same one over the whole video."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from lib_vitface.types import Floats, Image, Mask

WORDS = "SYNTHETIC FACE (AI)"
CORNERS = ("bottom left", "bottom right", "top left", "top right")
"""In order of preference where none is nearer to a face: subtitles stand in the middle, logos of stations at the top."""

_HEIGHT, _LEAST_PX = (
    0.026,
    9.0,
)  # of capital letters: share of the frame's short side, and pixels below which nobody reads them
_WIDEST = 0.4  # of the frame
_PLATE = (
    0.68  # opacity of the dark plate behind the letters: white on it is readable (contrast 4.5 : 1) before anything
)
_DARK, _LIGHT = 16.0, 245.0
_FINE = 4  # letters are drawn so much larger and brought down, which smooths them
_AROUND = 0.25  # of a face's size: how near a label may come before it counts as on the face


@dataclass(frozen=True)
class Label:
    """`box` is x0, y0, x1, y1 in pixels of a frame of `size` (height, width)."""

    corner: str
    box: tuple[int, int, int, int]
    size: tuple[int, int]

    def draw(self, image: Image) -> Image:
        """A copy of RGB uint8 `[H, W, 3]` with the label on it; the same bytes each time."""
        x0, y0, x1, y1 = self.box
        letters = _letters(self.size)[..., None]
        result = image.copy()
        under = result[y0:y1, x0:x1].astype(np.float32)
        plate = under * (1 - _PLATE) + _DARK * _PLATE
        result[y0:y1, x0:x1] = np.rint(plate + (_LIGHT - plate) * letters).astype(np.uint8)
        return result


def place(size: tuple[int, int], faces: Iterable[Floats] = ()) -> Label:
    """The label for frames of `size` (height, width), in the corner that faces come least upon.

    `faces` are boxes `[4]` of all frames. A corner costs what of the label faces cover, summed over the frames.
    """
    boxes = {corner: _box(size, corner) for corner in CORNERS}
    costs = dict.fromkeys(CORNERS, 0.0)
    for face in faces:
        grow = _AROUND * max(float(face[2] - face[0]), float(face[3] - face[1]))
        wide = (face[0] - grow, face[1] - grow, face[2] + grow, face[3] + grow)
        for corner, box in boxes.items():
            width = min(box[2], wide[2]) - max(box[0], wide[0])
            height = min(box[3], wide[3]) - max(box[1], wide[1])
            costs[corner] += max(float(width), 0.0) * max(float(height), 0.0)
    best = min(CORNERS, key=lambda corner: costs[corner])
    return Label(best, boxes[best], size)


def _box(size: tuple[int, int], corner: str) -> tuple[int, int, int, int]:
    height, width = _letters(size).shape
    margin = max(min(size) // 50, 1)
    x = margin if corner.endswith("left") else size[1] - margin - width
    y = margin if corner.startswith("top") else size[0] - margin - height
    return x, y, x + width, y + height


@functools.lru_cache(maxsize=4)
def _letters(size: tuple[int, int]) -> Mask:
    """Opacity 0..1 `[h, w]` of the letters on their plate, for frames of `size`."""
    font = cv2.FONT_HERSHEY_DUPLEX
    (wide, tall), _ = cv2.getTextSize(WORDS, font, 1.0, 1)
    cap = max(_HEIGHT * min(size), _LEAST_PX)
    cap = min(cap, _WIDEST * size[1] * tall / (wide + 2 * tall), size[0] / 4)
    scale = _FINE * cap / tall
    thick = max(1, round(1.3 * scale))
    pad = round(0.6 * cap * _FINE)
    canvas = np.zeros((round(tall * scale) + 2 * pad, round(wide * scale) + 2 * pad), np.uint8)
    cv2.putText(canvas, WORDS, (pad, canvas.shape[0] - pad), font, scale, 255, thick, cv2.LINE_AA)
    target = (max(canvas.shape[1] // _FINE, 1), max(canvas.shape[0] // _FINE, 1))
    small = cv2.resize(canvas, target, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(255)
