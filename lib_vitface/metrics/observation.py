"""What is measured on one pair of frames, and on two or three neighbouring ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.faces import align
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.landmarks import NO_IRISES
from lib_vitface.faces.parse import outline_mask
from lib_vitface.faces.sharpness import sharpness
from lib_vitface.faces.track import overlap
from lib_vitface.metrics import geometry, image, temporal
from lib_vitface.metrics.alignment import FramePair
from lib_vitface.metrics.distribution import Features
from lib_vitface.types import Embedder, Face, Floats, Image, Pose

FACE_PX = 256
"""Likeness and sharpness are measured on an upright crop of this size, so they do not depend on the frame's."""

_SAME_PLACE = 0.3  # least overlap (IoU) of a target face and the result's face at its place
_CHANGE = 0.5  # grey levels: against codec noise the size of a face decides, against a swap the change


@dataclass(frozen=True)
class Sighting:
    """A pair of frames with the replaced face in both; `result` is None where no face is found at its place."""

    pair: FramePair
    target: Face
    result: Face | None


@dataclass(frozen=True)
class FrameScores:
    """Figures of one frame. Embeddings and features are the result's and the target's; pixels are of the face crop."""

    index: int
    time_s: float
    pose: Pose
    landmark_distance: float
    pose_error_deg: float
    gaze_distance: float | None  # in widths of the eye; None where no eye is open in both
    expression: tuple[NDArray[np.float64], NDArray[np.float64]]
    sharpness: tuple[float, float]
    outside_error: float  # mean squared, beyond the crop a swapper may touch
    embeddings: tuple[Floats, Floats]
    features: Mapping[str, tuple[Floats, Floats]] = field(default_factory=dict)
    face_error: float | None = None  # mean squared, inside the face outline
    face_ssim: float | None = None
    face_ms_ssim: float | None = None
    face_lpips: float | None = None


class Observer:
    """Looks at frames with a set of measuring networks."""

    def __init__(
        self,
        analyser: Analyser,
        embedder: Embedder,
        features: Mapping[str, Features],
        *,
        same_person: bool = False,
        lpips: Callable[[Image, Image], float] | None = None,
    ) -> None:
        self.analyser = analyser
        self.embedder = embedder
        self.features = features
        self.same_person = same_person
        self.lpips = lpips

    def look(self, pair: FramePair) -> Sighting | None:
        """The replaced face; None where the target shows no face."""
        found = [face for face in self.analyser(pair.target) if face.landmarks is not None]
        if not found:
            return None
        target = replaced_face(found, pair.target, pair.result)
        at_place = [f for f in self.analyser(pair.result) if overlap(f.box, target.box) >= _SAME_PLACE]
        result = max(at_place, key=lambda f: overlap(f.box, target.box), default=None)
        return Sighting(pair, target, result)

    def score(self, seen: Sighting) -> FrameScores:
        """All figures of a single frame. `seen.result` must be there."""
        target, result, pair = seen.target, seen.result, seen.pair
        if result is None or result.landmarks is None or target.landmarks is None:
            raise ValueError("scores need landmarks of target and result")
        matrix = align.crop_matrix(target, FACE_PX)
        crops = [align.warp(picture, matrix, FACE_PX) for picture in (pair.result, pair.target)]
        points = align.apply(matrix, target.landmarks).astype(np.float32)
        both = ((pair.result, result), (pair.target, target))
        target_pose, result_pose = (
            f.pose or align.fit_head(f.landmarks).pose for f in (target, result) if f.landmarks is not None
        )
        likeness = self._likeness(crops[0], crops[1], points) if self.same_person else (None, None, None, None)
        return FrameScores(
            index=pair.index,
            time_s=float(pair.time),
            pose=target_pose,
            landmark_distance=geometry.landmark_distance(result.landmarks, target.landmarks),
            pose_error_deg=geometry.pose_error(result_pose, target_pose),
            gaze_distance=geometry.gaze_distance(
                geometry.gaze(_irises(result), result.landmarks, result_pose.yaw_deg),
                geometry.gaze(_irises(target), target.landmarks, target_pose.yaw_deg),
            ),
            expression=(geometry.expression(result.landmarks), geometry.expression(target.landmarks)),
            sharpness=(sharpness(crops[0], points), sharpness(crops[1], points)),
            outside_error=outside_error(pair, matrix),
            embeddings=(self.embedder(*both[0]), self.embedder(*both[1])),
            features={name: (see(*both[0]), see(*both[1])) for name, see in self.features.items()},
            face_error=likeness[0],
            face_ssim=likeness[1],
            face_ms_ssim=likeness[2],
            face_lpips=likeness[3],
        )

    def _likeness(self, result: Image, target: Image, points: Floats) -> tuple[float, float, float, float | None]:
        hull = outline_mask(points, result.shape[:2])
        return (
            image.squared_error(result, target, hull),
            image.ssim(result, target, hull),
            image.ms_ssim(result, target, hull),
            self.lpips(np.where(hull[..., None] > 0, result, target), target) if self.lpips is not None else None,
        )


def replaced_face(faces: Sequence[Face], target: Image, result: Image) -> Face:
    """Of several faces in a target frame the one whose pixels the result changed most; the largest where none was changed."""
    if len(faces) == 1:
        return faces[0]
    change = cv2.absdiff(target, result).mean(axis=2)
    height, width = change.shape

    def changed(face: Face) -> float:
        x0, y0, x1, y1 = np.clip(np.rint(face.box), 0, (width, height, width, height)).astype(int)
        return float((change[y0:y1, x0:x1] + _CHANGE).sum())

    return max(faces, key=changed)


def outside_error(pair: FramePair, frame_to_crop: align.Matrix) -> float:
    """Mean squared difference of the pixels outside the face crop; 0 where the crop holds the whole frame."""
    side = FACE_PX - 0.5
    corners = align.apply(
        align.invert(frame_to_crop), np.array([[-0.5, -0.5], [side, -0.5], [side, side], [-0.5, side]])
    )
    outside = np.ones(pair.target.shape[:2], dtype=np.uint8)
    cv2.fillConvexPoly(outside, np.rint(corners).astype(np.int32), 0)
    count = int(outside.sum())
    return cv2.norm(pair.target, pair.result, cv2.NORM_L2SQR, outside) / (3 * count) if count else 0.0


def _irises(face: Face) -> Floats:
    """Centres `[2, 1, 2]`, NaN where the landmarker gave none."""
    return (NO_IRISES if face.iris is None else face.iris)[:, None]


def pair_flicker(first: Sighting, second: Sighting) -> temporal.PairFlicker | None:
    """Flicker between two neighbouring pairs of frames."""
    return temporal.face_flicker(
        (first.pair.target, second.pair.target), (first.pair.result, second.pair.result), first.target
    )


def triple_jitter(seen: Sequence[Sighting]) -> temporal.Jitter | None:
    """Jitter over three neighbouring sightings; None where a face is lost in one."""
    result = [s.result.landmarks for s in seen if s.result is not None and s.result.landmarks is not None]
    target = [s.target.landmarks for s in seen if s.target.landmarks is not None]
    if len(result) < 3 or len(target) < 3:
        return None
    return temporal.landmark_jitter(np.stack(result), np.stack(target))
