"""Shape, pose and expression of a result's face against the target's, over the 468 mesh landmarks.

Landmarks are `[468, 3]` in frame pixels (or any common scale); distances are in units of the distance between the eyes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib_vitface.faces import mesh
from lib_vitface.faces.landmarks import AWAY_DEG, SHUT
from lib_vitface.types import Floats, Pose

EXPRESSION = ("eye_right", "eye_left", "mouth_open", "mouth_width", "brow_right", "brow_left")
"""Eye openness as lid gap over the eye's width (Soukupová and Čech 2016); the others over the distance between the eyes."""

_LID_PAIRS = {"right": ((160, 144), (159, 145), (158, 153)), "left": ((385, 380), (386, 374), (387, 373))}
_LID_CORNERS = {"right": (33, 133), "left": (362, 263)}
_LIPS_GAP = (13, 14)
_BROW_EYE = {"right": (105, 159), "left": (334, 386)}
_MOVES = 0.01  # a measure of the target that varies less than this shows no expression to correlate with

Values = NDArray[np.float64]


def eye_distance(landmarks: Floats) -> float:
    """Distance between the two eye centres in the picture plane, in pixels: the usual norm of landmark errors."""
    centres = [landmarks[list(loop), :2].mean(axis=0) for loop in (mesh.RIGHT_EYE, mesh.LEFT_EYE)]
    return float(np.linalg.norm(centres[0] - centres[1]))


def landmark_distance(result: Floats, target: Floats) -> float:
    """Mean distance of corresponding points in the picture plane, over the target's distance between the eyes."""
    gaps = np.linalg.norm(result[:, :2] - target[:, :2], axis=1)
    return float(gaps.mean()) / max(eye_distance(target), 1e-6)


def pose_error(result: Pose, target: Pose) -> float:
    """Mean absolute difference of yaw, pitch and roll in degrees."""
    gaps = (np.asarray(result) - np.asarray(target) + 180) % 360 - 180
    return float(np.abs(gaps).mean())


def gaze(irises: Floats, landmarks: Floats, yaw_deg: float = 0.0) -> Values:
    """Where each eye looks `[2, 2]`, the person's right eye first: the iris from the middle between its corners, along their line
    and across it, in widths of the eye; NaN for an eye that is closed or turned away. `irises` `[2, N, 2]`, centres first.
    """
    found = np.full((2, 2), np.nan)
    for eye, side in enumerate(("right", "left")):
        corners = landmarks[list(_LID_CORNERS[side]), :2].astype(np.float64)
        along = corners[1] - corners[0]
        width = float(np.linalg.norm(along))
        lids = [np.linalg.norm(landmarks[a, :2] - landmarks[b, :2]) for a, b in _LID_PAIRS[side]]
        away = -yaw_deg if side == "right" else yaw_deg
        if width < 1 or float(np.mean(lids)) < SHUT * width or away > AWAY_DEG:
            continue
        along /= width
        offset = irises[eye, 0] - corners.mean(axis=0)
        found[eye] = np.array([offset @ along, offset @ np.array([-along[1], along[0]])]) / width
    return found


def gaze_distance(result: Values, target: Values) -> float | None:
    """Mean distance of the gazes `[2, 2]` of the eyes that are seen in both, in widths of the eye; None where there is none."""
    gaps = np.linalg.norm(result - target, axis=1)
    known = gaps[np.isfinite(gaps)]
    return float(known.mean()) if len(known) else None


def expression(landmarks: Floats) -> Values:
    """Values of `EXPRESSION` `[6]`, from distances in 3D, so that turning the head does not change them."""
    points = np.asarray(landmarks, dtype=np.float64)

    def gap(pair: tuple[int, int]) -> float:
        return float(np.linalg.norm(points[pair[0]] - points[pair[1]]))

    centres = [points[list(loop)].mean(axis=0) for loop in (mesh.RIGHT_EYE, mesh.LEFT_EYE)]
    between = max(float(np.linalg.norm(centres[0] - centres[1])), 1e-6)
    eyes = [
        float(np.mean([gap(p) for p in _LID_PAIRS[side]])) / max(gap(_LID_CORNERS[side]), 1e-6)
        for side in ("right", "left")
    ]
    mouth = [gap(_LIPS_GAP) / between, gap((mesh.MOUTH_CORNERS[0], mesh.MOUTH_CORNERS[1])) / between]
    return np.array([*eyes, *mouth, *(gap(_BROW_EYE[side]) / between for side in ("right", "left"))])


def expression_scores(result: Values, target: Values) -> dict[str, Any]:
    """How well expressions `[N, 6]` follow those of the target `[N, 6]`; JSON-ready.

    `error`: mean absolute difference after each clip's own median was taken off, since eyes and mouths differ from person to
    person at rest. `correlation` over time per measure; None where the target's hardly varies.
    """
    result, target = np.asarray(result, dtype=np.float64), np.asarray(target, dtype=np.float64)
    moved_r, moved_t = result - np.median(result, axis=0), target - np.median(target, axis=0)
    found: dict[str, float | None] = {}
    for place, name in enumerate(EXPRESSION):
        a, b = moved_r[:, place], moved_t[:, place]
        flat = len(a) < 3 or b.std() < _MOVES
        # A result that does not move at all follows nothing: 0, where numpy would give NaN.
        found[name] = None if flat else float(np.corrcoef(a, b)[0, 1]) if a.std() > 1e-9 else 0.0
    known = [v for v in found.values() if v is not None]
    return {
        "error": float(np.abs(moved_r - moved_t).mean()),
        "correlation": found,
        "correlation_mean": float(np.mean(known)) if known else None,
    }
