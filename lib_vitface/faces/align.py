"""Where a face lies in a frame: 3D fit of the canonical head, upright crops, the five-point chip.

A crop follows the skull, not the expression: its centre, size and roll come from a 3D similarity fit of the canonical mesh
to points that expressions hardly move, so the crop stays still when the mouth opens and when the head turns.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.faces import mesh
from lib_vitface.types import Crop, Face, Floats, Image, Matrix, Pose

COVERAGE = 1.5
"""Side of a crop, in heights of the canonical face (forehead to chin)."""

HEIGHT_CM = 17.665
"""Height of the canonical face, top of the forehead to the chin."""

MIDDLE = np.array([0.0, -1.0, 0.5])
"""Middle of crops and of face space on the canonical head, in cm; it keeps turned heads and open mouths in the middle."""

AXES = np.array([1.0, -1.0, -1.0])  # canonical (y up, z to the viewer) to frame axes (y down, z away)
_MAX_SUPERSAMPLING = 8
_HALF_CM = HEIGHT_CM * COVERAGE / 2  # half a crop, and half the cube of face space

ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    dtype=np.float32,
)
"""Eyes, nose tip and mouth corners in a 112 px chip (ArcFace, Deng et al. 2019, arXiv:1801.07698)."""


@dataclass(frozen=True)
class HeadFit:
    """Similarity from the canonical head (cm) to frame pixels: `frame = scale * rotation @ canonical + shift`.

    `rotation` [3, 3] is in frame axes (x right, y down, z away) after the canonical axes were turned into them, so the
    identity looks straight into the camera. `scale` is in pixels per centimetre, `shift` [3] in pixels.
    """

    scale: float
    rotation: NDArray[np.float64]
    shift: NDArray[np.float64]

    def project(self, points_cm: NDArray[np.floating]) -> NDArray[np.float64]:
        """Canonical points `[N, 3]` in cm to frame pixels `[N, 3]`."""
        return self.scale * (np.asarray(points_cm, dtype=np.float64) * AXES) @ self.rotation.T + self.shift

    def canonical(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """The opposite of `project`: points `[N, 3]` in frame pixels as they would lie on a head at rest, in cm."""
        return ((np.asarray(points, dtype=np.float64) - self.shift) @ self.rotation) / self.scale * AXES

    @property
    def pose(self) -> Pose:
        """Angles of `rotation = Rz(roll) @ Rx(-pitch) @ Ry(-yaw)`: roll is in the picture plane, so yaw and pitch are what
        an upright crop shows. No singularity before the head looks straight up or down."""
        r = self.rotation
        roll = np.arctan2(-r[0, 1], r[1, 1])
        pitch = -np.arcsin(np.clip(r[2, 1], -1.0, 1.0))
        yaw = np.arctan2(r[2, 0], r[2, 2])
        return Pose(*(float(np.degrees(a)) for a in (yaw, pitch, roll)))


def rotation_of(pose: Pose) -> NDArray[np.float64]:
    """Rotation `[3, 3]` in frame axes of a pose; the inverse of `HeadFit.pose`."""
    yaw, pitch, roll = np.radians([-pose.yaw_deg, -pose.pitch_deg, pose.roll_deg])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    lean = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return lean @ nod @ turn


def similarity(
    a: NDArray[np.floating], b: NDArray[np.floating], weights: NDArray[np.floating] | None = None
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Scale, rotation `[D, D]` and shift `[D]` with least squared `|scale * rotation @ a + shift - b|`. No reflection.

    `a`, `b` are `[N, D]`, `weights` `[N]`. Umeyama, "Least-squares estimation of transformation parameters between two
    point patterns", PAMI 1991. Raises ValueError where `a` has no extent.
    """
    source, target = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    weight = np.ones(len(source)) if weights is None else np.asarray(weights, dtype=np.float64)
    weight = weight[:, None] / weight.sum()
    source_mean, target_mean = (weight * source).sum(axis=0), (weight * target).sum(axis=0)
    source, target = source - source_mean, target - target_mean
    spread = float((weight * source**2).sum())
    if not spread > 0:
        raise ValueError("points without extent have no similarity")
    left, values, right = np.linalg.svd((weight * target).T @ source)
    sign = np.ones(len(values))
    sign[-1] = np.sign(np.linalg.det(left @ right)) or 1.0
    rotation = (left * sign) @ right
    scale = float((values * sign).sum() / spread)
    return scale, rotation, target_mean - scale * rotation @ source_mean


def similarity_matrix(a: NDArray[np.floating], b: NDArray[np.floating]) -> Matrix:
    """`a_to_b` 2x3 of the best similarity between 2D points `[N, 2]`."""
    scale, rotation, shift = similarity(a, b)
    return np.hstack([scale * rotation, shift[:, None]])


def fit_head(landmarks: Floats) -> HeadFit:
    """Fit the canonical head to landmarks `[468, 3]` by the points that expressions hardly move."""
    index = list(mesh.STABLE)
    return HeadFit(*similarity(mesh.vertices()[index] * AXES, landmarks[index]))


def crop_head(pose: Pose, size: int) -> HeadFit:
    """Where a head at a pose lies in a `size` px crop, as `crop_matrix` would cut it."""
    scale = size / (HEIGHT_CM * COVERAGE)
    rotation = rotation_of(pose)
    middle = HeadFit(scale, rotation, np.zeros(3)).project(MIDDLE[None])[0]
    return HeadFit(scale, rotation, np.array([(size - 1) / 2 - middle[0], (size - 1) / 2 - middle[1], 0.0]))


def picture_to_face(fit: HeadFit, size: int) -> Floats:
    """`[3, 4]` from picture coordinates of a `size` px crop (-1..1 over its width and height, z alike and 0 at the head's middle) to
    face space: the cube about the head that is as large as a crop, -1..1, axes as in a frame but turned with the head."""
    unit = size / 2  # picture coordinate u -> pixel (u + 1) * unit - 0.5
    middle = fit.project(MIDDLE[None])[0, 2]
    start = np.array([unit - 0.5, unit - 0.5, middle]) - fit.shift
    factor = 1 / (fit.scale * _HALF_CM)
    turned = fit.rotation.T * factor
    return np.hstack([turned * unit, (turned @ start - MIDDLE * AXES / _HALF_CM)[:, None]]).astype(np.float32)


def crop_matrix(face: Face, size: int, *, coverage: float = COVERAGE) -> Matrix:
    """`frame_to_crop` of an upright `size` px crop that holds the whole face with room for blending."""
    if face.landmarks is None:
        raise ValueError("the face has no landmarks yet: run a landmarker first")
    fit = fit_head(face.landmarks)
    centre = fit.project(MIDDLE[None])[0, :2]
    factor = size / (fit.scale * HEIGHT_CM * coverage)
    return square_matrix(centre, factor, fit.pose.roll_deg, size)


def square_matrix(centre: NDArray[np.floating], factor: float, roll_deg: float, size: int) -> Matrix:
    """`frame_to_crop` of a `size` px square about `centre` (x, y): `factor` crop pixels per frame pixel, `roll_deg` undone."""
    angle = np.radians(roll_deg)
    linear = factor * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.hstack([linear, ((size - 1) / 2 - linear @ np.asarray(centre, dtype=np.float64))[:, None]])


def take_crop(image: Image, face: Face, size: int, *, coverage: float = COVERAGE) -> Crop:
    """Upright square picture of a face with landmarks; beyond the frame its edge is reflected."""
    matrix = crop_matrix(face, size, coverage=coverage)
    return Crop(warp(image, matrix, size), matrix)


def warp(image: Image, frame_to_crop: Matrix, size: int, *, border: int = cv2.BORDER_REFLECT_101) -> Image:
    """A `size` px square cut from an image. Shrinking averages (no aliasing), enlarging is bicubic.

    Strong shrinking samples a whole multiple of `size` and averages blocks of it.
    """
    factor = np.sqrt(abs(np.linalg.det(frame_to_crop[:, :2])))
    times = int(np.clip(round(1 / factor), 1, _MAX_SUPERSAMPLING))
    fine = times * frame_to_crop
    fine[:, 2] += (times - 1) / 2
    side = size * times
    method = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_LINEAR
    picture = cv2.warpAffine(image, fine, (side, side), flags=method, borderMode=border)
    return picture if times == 1 else cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)


def shrunk(image: Image, long_side: int) -> tuple[Image, Floats]:
    """The image with its longer side at most `long_side` px, and the ratio `[2]` (x, y) that leads back:
    `frame = (small + 0.5) * ratio - 0.5`."""
    height, width = image.shape[:2]
    scale = min(1.0, long_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
    return small, np.array([width / size[0], height / size[1]], dtype=np.float32)


def apply(matrix: Matrix, points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Points `[N, 2]` or `[N, 3]` through a 2x3 matrix; z is scaled alike."""
    points = np.asarray(points, dtype=np.float64)
    flat = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    if points.shape[1] == 2:
        return flat
    depth = points[:, 2:] * np.sqrt(abs(np.linalg.det(matrix[:, :2])))
    return np.hstack([flat, depth])


def scale_points(points: Floats, before: int, after: int) -> Floats:
    """Landmarks `[N, 2]` or `[N, 3]` of a square picture of `before` px after it was resized to `after` px."""
    scale = after / before
    shift = 0.5 * scale - 0.5
    return apply(np.array([[scale, 0, shift], [0, scale, shift]]), points).astype(np.float32)


def invert(matrix: Matrix) -> Matrix:
    """`b_to_a` of an `a_to_b`."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.hstack([linear, -(linear @ matrix[:, 2])[:, None]])


def five_point_chip(image: Image, points: Floats, size: int = 112) -> Image:
    """Face chip as embedding networks expect it: five points `[5, 2]` on the ArcFace template, scaled to `size` px."""
    scale = size / 112
    template = (ARCFACE_TEMPLATE + 0.5) * scale - 0.5 if size != 112 else ARCFACE_TEMPLATE
    return warp(image, similarity_matrix(points, template), size, border=cv2.BORDER_CONSTANT)
