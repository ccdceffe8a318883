"""Where the eyes look, in the texture memory's own space, and views whose irises are moved there.

The gaze of an eye is the place of its iris in the atlas (parts of the atlas' side, from its upper left corner): it goes
with the lids, not with the head, and means the same in every view. Views of one expression seldom look the same way; blended
as they are, their irises blur, and the drawn face looks where the source happened to look. So each view's iris is slid to the
wanted place first, within the opening of the lids: a slide that fades towards the corners, lids and skin stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.faces import mesh
from lib_vitface.faces.align import fit_head
from lib_vitface.faces.landmarks import AWAY_DEG, NO_IRISES, SHUT, EyeNet, with_landmarks
from lib_vitface.faceset import atlas
from lib_vitface.types import Face, Floats, Image, Mask

EYES = (mesh.RIGHT_EYE, mesh.LEFT_EYE)
UNKNOWN = NO_IRISES
_CORNERS = (mesh.EYE_CORNERS[:2], mesh.EYE_CORNERS[2:])
_LIDS = ((159, 145), (386, 374))
_OPEN = (SHUT, 0.20)  # lid gap, in widths of the eye, below which there is no gaze, and from which it counts fully
_FARTHEST = (0.22, 0.2)  # slide across and down at most, in widths and heights of the opening
_OUTSIDE = 0.6  # barycentric distance from the opening beyond which an iris is not believed


class GazeReader:
    """Gaze of faces with landmarks. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._eyes = EyeNet()

    def __call__(self, image: Image, landmarks: Floats) -> Floats:
        """Gaze `[2, 2]` (right eye, left eye; x, y) of landmarks `[468, 3]` in the image's pixels; NaN for an eye that is closed
        or turned away."""
        nobody = Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32))
        face = with_landmarks(nobody, landmarks)
        return read_gaze(landmarks, self._eyes.irises(image, face)[:, 0])


def read_gaze(landmarks: Floats, irises: Floats) -> Floats:
    """Gaze as `GazeReader` gives it of landmarks `[468, 3]` and centres of irises `[2, 2]` in the same picture's pixels."""
    gaze = UNKNOWN.copy()
    yaw = fit_head(landmarks).pose.yaw_deg
    for eye, away in enumerate((-yaw, yaw)):
        if openness(landmarks, eye) > _OPEN[0] and away < AWAY_DEG and np.isfinite(irises[eye]).all():
            gaze[eye] = _place(landmarks, eye, irises[eye])
    return gaze


def openness(landmarks: Floats, eye: int) -> float:
    """Gap of the lids in widths of the eye; about 0.3 for an open eye. `landmarks` `[468, 2 or 3]` in any unit."""
    upper, lower = (landmarks[k, :2] for k in _LIDS[eye])
    outer, inner = (landmarks[k, :2] for k in _CORNERS[eye])
    return float(np.linalg.norm(upper - lower) / max(float(np.linalg.norm(outer - inner)), 1e-6))


@lru_cache(maxsize=2)
def _opening_triangles(eye: int) -> NDArray[np.int32]:
    """The mesh's triangles between the lids."""
    triangles = mesh.triangles()
    return triangles[np.isin(triangles, EYES[eye]).all(axis=1)]


def _place(landmarks: Floats, eye: int, iris: NDArray[np.floating]) -> Floats:
    """Where a point of a picture lies in the atlas, 0..1; NaN where it is not within the opening or close to it."""
    triangles = _opening_triangles(eye)
    corners = landmarks[triangles][:, :, :2].astype(np.float64)
    system = np.concatenate([corners, np.ones((len(triangles), 3, 1))], axis=2).transpose(0, 2, 1)
    right = np.broadcast_to(np.array([*iris, 1.0])[None, :, None], (len(triangles), 3, 1))
    weights = np.linalg.solve(system + 1e-6 * np.eye(3), right)[..., 0]
    best = int(weights.min(axis=1).argmax())
    if weights[best].min() < -_OUTSIDE:
        return UNKNOWN[0]
    return (weights[best] @ atlas.places(1025)[triangles[best]] / 1024).astype(np.float32)


@dataclass(frozen=True)
class _Opening:
    """Of one eye in an atlas: how far a slide across and a slide down go at each texel of an area, and the farthest slide."""

    across: Mask
    down: Mask
    farthest: Floats


@lru_cache(maxsize=8)
def _opening(size: int, eye: int, top: int, left: int, height: int, width: int) -> _Opening:
    loop = atlas.places(size)[list(EYES[eye])]
    outer, inner = (atlas.places(size)[k] for k in _CORNERS[eye])
    upper, lower = (atlas.places(size)[k] for k in _LIDS[eye])
    long, high = float(np.linalg.norm(outer - inner)), float(np.linalg.norm(upper - lower))
    rows, columns = np.mgrid[top : top + height, left : left + width].astype(np.float32)
    centre = (outer + inner) / 2
    u = np.abs(columns - centre[0]) / (long / 2)
    v = np.abs(rows - (upper + lower)[1] / 2) / (high / 2)
    inside = np.zeros((size, size), np.float32)
    cv2.fillPoly(inside, [np.round(loop * (1 << atlas.SHIFT)).astype(np.int32)], 1.0, cv2.LINE_AA, atlas.SHIFT)
    inside = cv2.GaussianBlur(inside, (0, 0), max(high / 12, 0.5))[top : top + height, left : left + width]
    corners = np.clip((1 - u) / 0.5, 0, 1)
    farthest = np.array([_FARTHEST[0] * long, _FARTHEST[1] * high], np.float32)
    # Fades no steeper than the farthest slide is long: nothing folds over.
    return _Opening(corners * inside, corners * inside * np.clip((1 - v) / 0.4, 0, 1), farthest)


def unlike(views: Floats, wanted: Floats, eye: int, lids: float) -> NDArray[np.float64]:
    """Squared distance of gazes `[N, 2, 2]` to the wanted one `[2, 2]` in quarters of the eye's width; 0 where unknown.

    It counts as far as the `lids` that are drawn are open (their `openness`): what is asked of an eye must not jump as it shuts.
    """
    outer, inner = (atlas.places(1025)[k] / 1024 for k in _CORNERS[eye])
    gap = (views[:, eye] - wanted[eye]) / (0.25 * float(np.linalg.norm(outer - inner)))
    return _shown(lids) * np.nan_to_num((gap.astype(np.float64) ** 2).sum(axis=1))


def _shown(lids: float) -> float:
    """How far there is a gaze to speak of, 0..1."""
    return float(np.clip((lids - _OPEN[0]) / (_OPEN[1] - _OPEN[0]), 0, 1))


def slid(
    texture: NDArray[np.uint8], area: tuple[slice, slice], given: Floats, wanted: Floats, eye: int, lids: float
) -> Image:
    """The `area` of an atlas `[U, U, 3]` with the iris at `wanted` instead of `given` (`[2]`, parts of the side).

    `lids` is the `openness` that is drawn: between closed lids nothing is moved.
    """
    size = len(texture)
    slide = (wanted - given) * (size - 1) * _shown(lids)
    patch = texture[area]
    if not np.isfinite(slide).all() or not slide.any():
        return patch
    height, width = patch.shape[:2]
    opening = _opening(size, eye, area[0].start, area[1].start, height, width)
    x, y = np.clip(slide, -opening.farthest, opening.farthest)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return np.asarray(
        cv2.remap(
            patch,
            (columns - x * opening.across).astype(np.float32),
            (rows - y * opening.down).astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ),
        np.uint8,
    )
