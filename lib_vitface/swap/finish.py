"""One new face finished into its frame: mask, colour, sharpness, movement, seam, in the way the options ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lib_vitface.faces import align, mesh
from lib_vitface.swap import blend
from lib_vitface.swap.color import ColorStatistics, fit
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.types import Face, Floats, Image, Mask

if TYPE_CHECKING:  # the module behind it loads torch
    from lib_vitface.swap.frame import SwappedFace

Uncovered = Callable[[Image, Floats], Mask]
"""A crop [S, S, 3] and its landmarks [468, 3] in crop pixels -> [S, S], 1 where the face itself is seen, 0 where a hand, hair
or a thing is before it."""


@dataclass(frozen=True)
class Measured:
    """A new face with its mask `[S, S]` and the colours measured in it: its own, and the footage's at the same place."""

    swapped: SwappedFace
    mask: Mask
    own: ColorStatistics
    target: ColorStatistics


class Finisher:
    """Knows the options; holds no state of a video. `uncovered` is asked when `options.occlusion` is set."""

    def __init__(self, options: SwapOptions, uncovered: Uncovered | None = None) -> None:
        self.options = options
        self._uncovered = uncovered

    def measure(self, image: Image, face: Face, swapped: SwappedFace) -> Measured:
        """What later frames need to know of this one. `image` is the whole frame."""
        assert face.landmarks is not None
        size = swapped.image.shape[0]
        footage = align.warp(image, swapped.frame_to_crop, size)
        landmarks = align.apply(swapped.frame_to_crop, face.landmarks).astype(np.float32)
        shown = self._shown(swapped.mask, landmarks)
        free = self._uncovered(footage, landmarks) if self._uncovered is not None else np.ones_like(shown)
        step = max(size // 192, 1)  # colours are known well enough from a part of the pixels
        part = np.s_[::step, ::step]
        skin = blend.combine(shown, free)[part]
        own = ColorStatistics.measure(np.ascontiguousarray(swapped.image[part]), skin)
        target = ColorStatistics.measure(np.ascontiguousarray(footage[part]), skin)
        return Measured(swapped, blend.combine(self._soft(shown, landmarks), free), own, target)

    def finish(
        self,
        image: Image,
        measured: Measured,
        around: Sequence[Measured],
        weights: Sequence[float],
        strength: float,
        movement_px: tuple[float, float],
    ) -> Image:
        """The frame with the face in it.

        `around` are the measurements of the neighbouring frames and this one, with their `weights`; `strength` 0..1;
        `movement_px` (x, y) is how far the face moves in the frame while one frame lasts.
        """
        options, swapped = self.options, measured.swapped
        opacity = strength * options.opacity
        if opacity <= 0:
            return image
        face = swapped.image
        if options.color != "none":
            own = ColorStatistics.smooth([one.own for one in around], weights)
            target = ColorStatistics.smooth([one.target for one in around], weights)
            face = fit(options.color, own, target).on_image(face)
        face = blend.sharpen(face, options.sharpen)
        if options.motion_blur > 0:
            moved = swapped.frame_to_crop[:, :2] @ (options.motion_blur * np.asarray(movement_px, np.float64))
            face = blend.motion_blur(face, (float(moved[0]), float(moved[1])))
        return blend.paste(image, face, measured.mask, swapped.frame_to_crop, mode=options.blend, opacity=opacity)

    def _shown(self, learned: Mask, landmarks: Floats) -> Mask:
        if self.options.mask == "learned":
            return learned
        hull = outline(landmarks, learned.shape[0])
        return hull if self.options.mask == "hull" else blend.combine(learned, hull)

    def _soft(self, mask: Mask, landmarks: Floats) -> Mask:
        """The mask grown or shrunk and with a soft edge; it ends before the crop does."""
        height = face_height(landmarks)
        grown = blend.grow(mask, -self.options.erode / 100 * height)
        soft = blend.feather(grown, self.options.feather / 100 * height)
        return blend.combine(soft, blend.border_ramp(mask.shape[0], 2.0))


def face_height(landmarks: Floats) -> float:
    """Height of the face in pixels, forehead to chin, as if it looked straight at the viewer."""
    return align.fit_head(landmarks).scale * float(np.ptp(mesh.vertices()[:, 1]))


def outline(landmarks: Floats, size: int) -> Mask:
    """[size, size] mask of everything within the face's outline."""
    canvas = np.zeros((size, size), np.uint8)
    points = cv2.convexHull(np.rint(landmarks[:, :2] * 16).astype(np.int32))
    cv2.fillConvexPoly(canvas, points, 255, lineType=cv2.LINE_AA, shift=4)
    return canvas.astype(np.float32) / np.float32(255)
