"""One new face finished into its frame: mask, colour, sharpness, movement, seam, in the way the options ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib_vitface.faces import align, mesh
from lib_vitface.faces.parse import Hand, hand_mask, hull_mask
from lib_vitface.swap import blend
from lib_vitface.swap.color import ColorStatistics, fit
from lib_vitface.swap.light import light_map, relit, skin_mask
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.types import Face, Floats, Image, Mask, SwappedFace


@dataclass(frozen=True)
class Measured:
    """A new face with its mask `[S, S]` and what was measured in it: the footage's light against its own (see `light`), its own
    colours under that light, and the footage's at the same place."""

    swapped: SwappedFace
    mask: Mask
    light: Floats
    own: ColorStatistics
    target: ColorStatistics


class Finisher:
    """Knows the options; holds no state of a video."""

    def __init__(self, options: SwapOptions) -> None:
        self.options = options

    def measure(self, image: Image, face: Face, swapped: SwappedFace, hands: Sequence[Hand] = ()) -> Measured:
        """What later frames need to know of this one. `image` is the whole frame, `hands` those that may be before it."""
        assert face.landmarks is not None
        size = swapped.image.shape[0]
        footage = align.warp(image, swapped.frame_to_crop, size)
        landmarks = align.apply(swapped.frame_to_crop, face.landmarks).astype(np.float32)
        height = face_height(landmarks)
        outline, free = self._outline(swapped.mask, landmarks, height)
        if self.options.occlusion and hands:
            free = free * (1 - hand_mask(hands, free.shape, swapped.frame_to_crop, soft_px=max(size / 160, 0.7)))
        step = max(size // 192, 1)  # a part of the pixels is enough
        new, under = (np.ascontiguousarray(a[::step, ::step]) for a in (swapped.image, footage))
        clear = blend.combine(outline, free)[::step, ::step]
        # Skin tells light and colour; brows, eyes and hair differ between people.
        skin = skin_mask(landmarks / np.float32(step), (len(clear), len(clear))) * clear
        light = light_map(new, under, skin)
        own = ColorStatistics.measure(relit(new, light, self.options.relight), skin)
        target = ColorStatistics.measure(under, skin)
        return Measured(swapped, blend.combine(self._soft(outline, height), free), light, own, target)

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
        light = sum(w * one.light for w, one in zip(weights, around, strict=True)) / sum(weights)
        face = relit(swapped.image, np.asarray(light, np.float32), options.relight)
        if options.color != "none":
            own = ColorStatistics.smooth([one.own for one in around], weights)
            target = ColorStatistics.smooth([one.target for one in around], weights)
            face = fit(options.color, own, target.near(own)).on_image(face)
        face = blend.sharpen(face, options.sharpen)
        if options.motion_blur > 0:
            moved = swapped.frame_to_crop[:, :2] @ (options.motion_blur * np.asarray(movement_px, np.float64))
            face = blend.motion_blur(face, (float(moved[0]), float(moved[1])))
        return blend.paste(image, face, measured.mask, swapped.frame_to_crop, mode=options.blend, opacity=opacity)

    def _outline(self, learned: Mask, landmarks: Floats, height: float) -> tuple[Mask, Mask]:
        """Where a face ends, which is softened and moved as the options say, and where nothing lies before it, which is softened a
        quarter as much: beside a finger the face begins at once, or a nose and lips would be the footage's."""
        if self.options.mask == "learned" and self.options.occlusion:
            return learned, np.ones_like(learned)
        hull = hull_mask(landmarks, (learned.shape[0], learned.shape[1]), feather_px=2.0)
        alone = self.options.mask == "hull" or not self.options.occlusion
        return hull, np.ones_like(hull) if alone else blend.feather(learned, self.options.feather / 100 * height / 4)

    def _soft(self, mask: Mask, height: float) -> Mask:
        """The mask grown or shrunk and with a soft edge; it ends before the crop does."""
        grown = blend.grow(mask, -self.options.erode / 100 * height)
        soft = blend.feather(grown, self.options.feather / 100 * height)
        return blend.combine(soft, blend.border_ramp(mask.shape[0], 2.0))


def face_height(landmarks: Floats) -> float:
    """Height of the face in pixels, forehead to chin, as if it looked straight at the viewer."""
    return align.fit_head(landmarks).scale * float(np.ptp(mesh.vertices()[:, 1]))
