"""A diffusion pass over one swapped face: which square, what is asked for, what of the answer is taken, and how much.

Whatever draws (the WebUI's loaded checkpoint, diffusers, a stand-in) is a `Denoiser`; this knows none of them. Only the
difference that the pass makes is used, added to the frame: its fine part (texture, sharpness) as it is, its coarse part (light,
colour) as far as the options say. So a frame that is finer than the square keeps its own detail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from lib_vitface.faces import align
from lib_vitface.faces.embed import cosine, make_embedder
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.faces.parse import Hand, hand_mask, hull_mask
from lib_vitface.metrics.geometry import eye_distance
from lib_vitface.swap import blend
from lib_vitface.swap.denoise_settings import DenoiseOptions
from lib_vitface.types import Denoiser, Embedder, Face, Floats, Image, Landmarker, Mask, Matrix, Pose, Redraw

_VIEWS = ((20.0, "front view"), (50.0, "three-quarter view"), (math.inf, "side view"))  # up to which turn, degrees
_COARSE = 32  # light and colour: what is larger than the square's side divided by this (standard deviation of a blur)
_EDGE = 12  # the mask's soft edge, as a part of the face's height
_HALVINGS = 6


@dataclass(frozen=True)
class Region:
    """The square about a face: `crop` [S, S, 3], `mask` [S, S] 0..1 of what may change in it, `frame_to_crop` 2x3, and the
    face's landmarks `[468, 3]` and pose in it."""

    crop: Image
    mask: Mask
    frame_to_crop: Matrix
    landmarks: Floats
    pose: Pose | None


class Redrawer:
    """Asks for the pass. `words` are prompt and negative prompt of the picture that is being generated, if one is."""

    def __init__(self, options: DenoiseOptions, denoiser: Denoiser, words: tuple[str, str] = ("", "")) -> None:
        self.options, self._denoiser, self._words = options, denoiser, words
        self.size = max(64, round(options.denoise_size / 64) * 64)

    def region(self, image: Image, face: Face, hands: Sequence[Hand] = ()) -> Region:
        """The upright square that follows the head; what hands cover stays."""
        assert face.landmarks is not None
        size = self.size
        matrix = align.crop_matrix(face, size, coverage=1 + 2 * self.options.denoise_padding / 100)
        landmarks = align.apply(matrix, face.landmarks).astype(np.float32)
        height = align.fit_head(landmarks).scale * align.HEIGHT_CM
        mask = hull_mask(landmarks, (size, size), feather_px=height / _EDGE)
        if hands:
            mask = blend.combine(mask, 1 - hand_mask(hands, (size, size), matrix, soft_px=size / 160))
        mask = blend.combine(mask, blend.border_ramp(size, size / 64))
        return Region(align.warp(image, matrix, size), mask, matrix, landmarks, face.pose)

    def difference(self, region: Region) -> Floats:
        """What the pass adds to `region.crop` [S, S, 3], grey levels."""
        return self.differences([(region, None)])[0]

    def differences(self, work: Sequence[tuple[Region, Floats | None]]) -> list[Floats]:
        """The same of regions that are drawn together, each with what is added before it is drawn (a warm start)."""
        drawn = self._denoiser([self._asked(region, start) for region, start in work])
        return [
            self._taken(image.astype(np.float32) - region.crop) for image, (region, _) in zip(drawn, work, strict=True)
        ]

    def _taken(self, added: Floats) -> Floats:
        """The fine part, and as much of the coarse one as the options say."""
        coarse = cv2.GaussianBlur(added, (0, 0), self.size / _COARSE)
        return np.asarray(added - (1 - self.options.denoise_light) * coarse, np.float32)

    def _asked(self, region: Region, start: Floats | None) -> Redraw:
        options = self.options
        return Redraw(
            region.crop if start is None else as_picture(region.crop + start),
            region.mask,
            options.denoise,
            options.denoise_steps,
            options.denoise_seed,
            filled(options.denoise_prompt, prompt=self._words[0], view=view_of(region.pose)),
            filled(options.denoise_negative, negative=self._words[1]),
            options.denoise_guidance,
            options.denoise_sampler,
            options.denoise_schedule,
            region.landmarks,
            options.denoise_control,
            options.denoise_attention,
        )

    @staticmethod
    def compose(image: Image, region: Region, added: Floats, amount: float = 1.0) -> Image:
        """A new frame with `amount` 0..1 of the difference in it; the frame itself where that is nothing."""
        box = blend.mask_box(region.mask, region.frame_to_crop, image.shape[1], image.shape[0])
        if box is None or amount <= 0:
            return image
        change, mask = blend.warp_back(added, region.mask, region.frame_to_crop, box)
        result = image.copy()
        part = np.s_[box.y0 : box.y1, box.x0 : box.x1]
        result[part] = as_picture(image[part] + np.float32(amount) * mask[..., None] * change)
        return result


def as_picture(values: Floats) -> Image:
    """Rounded and kept in 0..255."""
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def view_of(pose: Pose | None) -> str:
    """The direction a face is seen from, in words of a prompt."""
    turn = 0.0 if pose is None else abs(pose.yaw_deg)
    return next(words for limit, words in _VIEWS if turn < limit)


def filled(template: str, **words: str) -> str:
    """The template with `{name}` replaced; parts between commas that come out empty are left out."""
    for name, word in words.items():
        template = template.replace("{" + name + "}", word)
    return ", ".join(part.strip() for part in template.split(",") if part.strip())


@dataclass(frozen=True)
class Kept:
    """How much of the pass was kept, 0..1, and what was measured of that: identity cosine to the face before the pass, and
    mean landmark movement in % of the distance between the eyes (None where not asked)."""

    amount: float
    likeness: float | None = None
    drift: float | None = None


class Guard:
    """Keeps identity and expression: takes back as much of the pass as its bounds demand."""

    def __init__(
        self, options: DenoiseOptions, embedder: Embedder | None = None, landmarker: Landmarker | None = None
    ) -> None:
        self._likeness, self._drift = options.denoise_likeness, options.denoise_drift
        self._embedder = (embedder or make_embedder("sface")) if self._likeness > 0 else None
        self._landmarker = (landmarker or MeshLandmarker()) if self._drift < 100 else None

    def keep(
        self, image: Image, face: Face, region: Region, added: Floats, strength: float = 1.0, most: float = 1.0
    ) -> tuple[Image, Kept]:
        """The frame with as much of `strength * added` as the bounds allow (and at most `most` of it), and how much that is.

        The largest amount within the bounds is found by halving, to 1/64; nothing is always within them.
        """
        drawn = Redrawer.compose(image, region, added, strength * most)
        if self._embedder is None and self._landmarker is None:
            return drawn, Kept(most)
        before = self._look(image, face)
        best, found = drawn, self._compare(before, drawn, face, most)
        if self._within(found):
            return best, found
        low, high = 0.0, most
        best, found = image, Kept(0.0, 1.0 if self._embedder else None, 0.0 if self._landmarker else None)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            drawn = Redrawer.compose(image, region, added, strength * middle)
            tried = self._compare(before, drawn, face, middle)
            if self._within(tried):
                low, best, found = middle, drawn, tried
            else:
                high = middle
        return best, found

    def _look(self, image: Image, face: Face) -> tuple[Floats | None, Floats | None]:
        seen = None if self._landmarker is None else self._landmarker(image, replace(face, embedding=None)).landmarks
        return None if self._embedder is None else self._embedder(image, face), seen

    def _compare(self, before: tuple[Floats | None, Floats | None], drawn: Image, face: Face, amount: float) -> Kept:
        after = self._look(drawn, face)
        likeness = drift = None
        if before[0] is not None and after[0] is not None:
            likeness = cosine(before[0], after[0])
        if before[1] is not None and after[1] is not None:
            moved = float(np.linalg.norm(after[1][:, :2] - before[1][:, :2], axis=1).mean())
            drift = 100 * moved / max(eye_distance(before[1]), 1e-6)
        return Kept(amount, likeness, drift)

    def _within(self, found: Kept) -> bool:
        alike = found.likeness is None or found.likeness >= self._likeness
        return alike and (found.drift is None or found.drift <= self._drift)


def redrawn(
    image: Image, face: Face, redrawer: Redrawer, guard: Guard, hands: Sequence[Hand] = (), strength: float = 1.0
) -> tuple[Image, Kept]:
    """One picture with a swapped face, redrawn."""
    region = redrawer.region(image, face, hands)
    return guard.keep(image, face, region, redrawer.difference(region), strength)


__all__ = ["Guard", "Kept", "Redrawer", "Region", "as_picture", "filled", "redrawn", "view_of"]
