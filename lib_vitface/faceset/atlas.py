"""The atlas: the face mesh unrolled into one square, and the ways between it and a picture of the face."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.faces import align, mesh
from lib_vitface.faces.parse import box_of
from lib_vitface.types import Floats, Mask

SHIFT = 4  # fractional bits of polygon coordinates
_REACH_PX = 2.0  # how far beyond its triangle a pixel may be sampled


@lru_cache(maxsize=4)
def places(size: int) -> NDArray[np.float64]:
    """Atlas position `[468, 2]` of each mesh point: a cylinder about the head, unrolled."""
    points = mesh.vertices().astype(np.float64)
    angle = np.arctan2(points[:, 0], points[:, 2] + 4.0)
    across = angle / np.abs(angle).max() * 0.5 + 0.5
    down = (points[:, 1].max() - points[:, 1]) / np.ptp(points[:, 1])
    return (np.stack([across, down], axis=1) * 0.94 + 0.03) * (size - 1)


def draw_triangles(points: NDArray[np.floating], size: int, *, depth: bool) -> NDArray[np.int32]:
    """Index of the triangle seen at each pixel `[size, size]`, -1 where there is none.

    With `depth` the triangles that face away are left out and near ones are drawn over far ones.
    """
    triangles = mesh.triangles()
    picture = np.full((size, size), -1, np.int32)
    corners = np.round(points[:, :2] * (1 << SHIFT)).astype(np.int32)[triangles]
    order: NDArray[np.intp] = np.arange(len(triangles))
    if depth:
        a, b, c = (points[triangles[:, k]] for k in range(3))
        facing = np.cross(b - a, c - a)[:, 2]
        order = np.argsort(-points[triangles, 2].mean(axis=1), kind="stable")
        order = order[facing[order] * _front_sign() > 0]
    for index in order:
        cv2.fillConvexPoly(picture, corners[index], int(index), lineType=cv2.LINE_8, shift=SHIFT)
    return picture


@lru_cache(maxsize=1)
def _front_sign() -> float:
    """Sign of a frontal triangle's normal z in pixel axes; a fact of the triangle list's winding."""
    points, triangles = mesh.vertices() * align.AXES, mesh.triangles()
    a, b, c = (points[triangles[:, k]] for k in range(3))
    return float(np.sign(np.median(np.cross(b - a, c - a)[:, 2])))


@lru_cache(maxsize=4)
def triangle_map(size: int) -> NDArray[np.int32]:
    return draw_triangles(places(size), size, depth=False)


@lru_cache(maxsize=4)
def nearest_triangle_map(size: int) -> NDArray[np.int32]:
    """As `triangle_map`, with the nearest triangle where there is none: a picture sampled at the mesh's very edge then
    finds skin that goes on, not the colour of nowhere."""
    seen = triangle_map(size)
    _, label = cv2.distanceTransformWithLabels(
        (seen < 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    order = np.zeros(int(label.max()) + 1, np.int32)
    order[label[seen >= 0]] = seen[seen >= 0]
    return order[label]


def pixel_map(
    seen: NDArray[np.int32], wanted: NDArray[np.floating], given: NDArray[np.floating]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """For each pixel of a picture whose mesh lies at `wanted`, where it lies in one whose mesh lies at `given`; (0, 0) for one beyond
    the mesh (-1 in `seen`)."""
    triangles = mesh.triangles()
    corners = np.concatenate([wanted[triangles][:, :, :2], np.ones((len(triangles), 3, 1))], axis=2)
    corners = corners + 1e-6 * np.eye(3)  # a triangle seen edge-on has no area
    shape = given[triangles][:, :, :2].astype(np.float64)
    affine = np.linalg.solve(corners, shape)
    place = np.zeros((2, *seen.shape), np.float32)
    box = box_of((seen >= 0).astype(np.uint8))
    picked = np.ascontiguousarray(seen[box])
    covered = picked >= 0
    np.maximum(picked, 0, out=picked)
    rows, columns = (np.arange(side.start, side.stop, dtype=np.float32) for side in box)
    part = np.empty(picked.shape, np.float32)
    for axis in range(2):
        across, down, offset = np.ascontiguousarray(affine[:, :, axis].T, dtype=np.float32)
        low = (shape[..., axis].min(axis=1) - _REACH_PX).astype(np.float32)
        high = (shape[..., axis].max(axis=1) + _REACH_PX).astype(np.float32)
        found = across.take(picked)
        found *= columns
        found += np.multiply(down.take(picked, out=part, mode="clip"), rows[:, None], out=part)
        found += offset.take(picked, out=part, mode="clip")
        # A triangle seen nearly edge-on stretches the little rounding of its border to any length.
        np.maximum(found, low.take(picked, out=part, mode="clip"), out=found)
        np.minimum(found, high.take(picked, out=part, mode="clip"), out=found)
        np.multiply(found, covered, out=place[axis][box])
    return place[0], place[1]


def depth_map(landmarks: Floats, size: int) -> tuple[Floats, Mask]:
    """Depth of the mesh's nearest surface `[size, size]` in landmark units (pixels, larger is farther), and where it is seen (0 or
    1), for landmarks `[468, 3]` of a crop of that size."""
    seen = draw_triangles(landmarks, size, depth=True)
    corners = landmarks[mesh.triangles()].astype(np.float64)
    flat = np.concatenate([corners[..., :2], np.ones((len(corners), 3, 1))], axis=2) + 1e-6 * np.eye(3)
    plane = np.linalg.solve(flat, corners[..., 2:])[..., 0]
    rows, columns = np.mgrid[:size, :size]
    picked = plane[np.maximum(seen, 0)]
    depth = picked[..., 0] * columns + picked[..., 1] * rows + picked[..., 2]
    low, high = corners[..., 2].min(axis=1)[seen], corners[..., 2].max(axis=1)[seen]
    covered = seen >= 0
    return np.where(covered, np.clip(depth, low, high), 0).astype(np.float32), covered.astype(np.float32)


def facing(landmarks: Floats) -> Floats:
    """How much each mesh point `[468]` faces the camera, 0..1."""
    triangles = mesh.triangles()
    points = landmarks[triangles].astype(np.float64)
    normal = np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    total = np.zeros((mesh.POINT_COUNT, 3))
    for corner in range(3):
        np.add.at(total, triangles[:, corner], normal)
    length = np.linalg.norm(total, axis=1) + 1e-9
    return np.clip(total[:, 2] / length * _front_sign(), 0, 1).astype(np.float32)


def soft_box(points: Sequence[int], size: int, growth: float) -> Mask:
    """An ellipse about atlas points that fades from 1 to 0 towards its border."""
    place = places(size)[list(points)]
    low, high = place.min(axis=0), place.max(axis=0)
    centre, radius = (low + high) / 2, (high - low) / 2 * growth
    rows, columns = np.mgrid[:size, :size]
    distance = np.hypot((columns - centre[0]) / radius[0], (rows - centre[1]) / (radius[1] * 1.3))
    return np.clip((1.6 - distance) / 0.6, 0, 1)
