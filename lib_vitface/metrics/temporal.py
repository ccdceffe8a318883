"""Steadiness over time: flicker of the picture inside the face, jitter of the landmarks.

Flicker is the warping error of Lai et al. 2018, "Learning Blind Video Temporal Consistency" (arXiv:1808.00449): the following
frame is warped onto the one before it by optical flow, and what remains different where nothing was occluded is counted. The
flow is found on the target clip and used for target and result alike, so that a result can neither hide its flicker
from the flow nor be blamed for motion the flow missed in both. What the result has and the target has not (spectacles, say)
moves otherwise than that flow, though, and counts as flicker; so the result's error along its own flow is given as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.faces import align
from lib_vitface.faces.parse import outline_mask
from lib_vitface.metrics.geometry import eye_distance
from lib_vitface.types import Face, Floats, Image, Mask

FLICKER_PX = 256
"""Flicker is measured on a crop of this size around the face, so it does not depend on the size of the frame."""

_MIN_VISIBLE_PX = 64


@dataclass(frozen=True)
class Motion:
    """`flow` `[H, W, 2]`: where a pixel of a frame lies in the following one, less its own place. `visible` `[H, W]`
    0 or 1: it lies inside that frame and is not hidden there."""

    flow: Floats
    visible: Mask


@dataclass(frozen=True)
class Flicker:
    """Mean absolute (`mean`, grey levels 0..255) and mean squared (`squared`, colours 0..1, Lai et al.'s unit) difference."""

    mean: float
    squared: float


@dataclass(frozen=True)
class PairFlicker:
    """Flicker of result and target between the same two frames over the same pixels; `visible` is their share of the face.
    `own` is the result's along its own flow, over what that flow sees; None where it sees too little."""

    result: Flicker
    target: Flicker
    visible: float
    own: Flicker | None


@dataclass(frozen=True)
class Jitter:
    """Mean length of the second difference over time of all landmarks, in distances between the eyes: of the `result`, of the
    `target`, and of the result's landmarks less the target's (`added`), in which wanted motion cancels out."""

    result: float
    target: float
    added: float


def motion(before: Image, after: Image) -> Motion:
    """Dense optical flow from one RGB picture to the next (DIS, Kroeger et al. 2016, arXiv:1603.03590) and what it can see.

    A pixel is occluded where the flow back does not return to it: `|f + b|^2 > 0.01 (|f|^2 + |b|^2) + 0.5`
    (Sundaram et al. 2010, as used by Ruder et al. 2016 and Lai et al. 2018).
    """
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (before, after)]
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    start = np.zeros((*grey[0].shape, 2), dtype=np.float32)
    forward = np.asarray(finder.calc(grey[0], grey[1], start.copy()), dtype=np.float32)
    backward = np.asarray(finder.calc(grey[1], grey[0], start), dtype=np.float32)
    back = warp_back(backward, forward)
    closed = ((forward + back) ** 2).sum(axis=2)
    slack = 0.01 * ((forward**2).sum(axis=2) + (back**2).sum(axis=2)) + 0.5
    height, width = grey[0].shape
    x, y = _places(forward)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return Motion(forward, ((closed <= slack) & inside).astype(np.float32))


def _places(flow: Floats) -> tuple[Floats, Floats]:
    """Where each pixel lies in the following frame, x and y `[H, W]`."""
    height, width = flow.shape[:2]
    x = flow[..., 0] + np.arange(width, dtype=np.float32)
    y = flow[..., 1] + np.arange(height, dtype=np.float32)[:, None]
    return x.astype(np.float32, copy=False), y.astype(np.float32, copy=False)


def warp_back(after: NDArray[np.generic], flow: Floats) -> Floats:
    """The following frame `[H, W, C]` as seen from the frame before; float32, bilinear."""
    x, y = _places(flow)
    seen = cv2.remap(after.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(seen, dtype=np.float32)


def flicker(before: Image, after: Image, way: Motion, region: Mask) -> Flicker | None:
    """What differs inside `region` `[H, W]` 0..1 after motion is made up for; None where too little of it is visible."""
    weight = way.visible * region
    total = float(weight.sum())
    if total < _MIN_VISIBLE_PX:
        return None
    gap = before.astype(np.float32) - warp_back(after, way.flow)
    mean = float((np.abs(gap).mean(axis=2) * weight).sum()) / total
    squared = float(((gap / 255) ** 2).mean(axis=2).ravel() @ weight.ravel()) / total
    return Flicker(mean, squared)


def face_flicker(target: tuple[Image, Image], result: tuple[Image, Image], face: Face) -> PairFlicker | None:
    """Flicker inside the face between two neighbouring frames of target and of result; frames RGB of one size.

    `face` is the target's in the first frame. Both frames are cut by the same matrix, so all motion stays in. None where
    too little of the face stays visible.
    """
    if face.landmarks is None:
        raise ValueError("the face has no landmarks yet: run a landmarker first")
    matrix = align.crop_matrix(face, FLICKER_PX)
    crops = [align.warp(image, matrix, FLICKER_PX) for image in (*target, *result)]
    region = outline_mask(align.apply(matrix, face.landmarks).astype(np.float32), (FLICKER_PX, FLICKER_PX))
    way = motion(crops[0], crops[1])
    of_target, of_result = flicker(crops[0], crops[1], way, region), flicker(crops[2], crops[3], way, region)
    if of_target is None or of_result is None:
        return None
    own = flicker(crops[2], crops[3], motion(crops[2], crops[3]), region)
    return PairFlicker(of_result, of_target, float((way.visible * region).sum() / region.sum()), own)


def landmark_jitter(result: Floats, target: Floats) -> Jitter:
    """Jitter of three successive frames of landmarks `[3, 468, 3]`, in the picture plane."""
    norm = max(eye_distance(target[1]), 1e-6)

    def second(points: Floats) -> float:
        bend = points[0, :, :2] - 2 * points[1, :, :2] + points[2, :, :2]
        return float(np.linalg.norm(bend, axis=1).mean()) / norm

    return Jitter(second(result), second(target), second(result - target))
