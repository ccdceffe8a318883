"""What is measured on one crop beside its sharpness: exposure, light, expression, and a fingerprint against duplicates.

All of it is made independent of the crop's size and, as far as that goes, of who is in it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.faces import align, mesh
from lib_vitface.types import Floats, Image, Mask

EXPRESSION = ("mouth_open", "mouth_width", "smile", "eye_right", "eye_left", "brow_right", "brow_left")
"""Of `expression`. Widths and heights as shares of the canonical mouth's width (mouth) or eye distance (brows), 0 for the
canonical face; eye openness as lid gap over the eye's own width. Right and left are the person's own."""

LIGHT = ("level", "side", "above", "warmth")
"""Of `light`: mean luma 0..1; how much more light comes from the viewer's right and from above (share of the level, about
-1..1); red against blue (-1..1)."""

_CRUSHED, _BURNT = 16, 250
_RIDGE = 0.02
_LIGHT_PX = 64
_GLANCE_PX = 32
_LIDS = {"right": (159, 145), "left": (386, 374)}


def share(part: Mask, whole: Mask) -> float:
    """How much of `whole` lies in `part`, 0..1; both `[size, size]`. Of hands and face: the covered share."""
    total = float(whole.sum())
    return float((part * whole).sum() / total) if total > 0 else 0.0


def exposure(crop: Image, hull: Mask) -> float:
    """Share of the face's pixels that are neither crushed to black nor burnt out, 0..1."""
    inside = cv2.compare(hull, 0.5, cv2.CMP_GT)
    total = cv2.countNonZero(inside)
    if not total:
        return 0.0
    light = cv2.inRange(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), _CRUSHED, 255)
    good = cv2.bitwise_and(light, cv2.inRange(crop, (0, 0, 0), (_BURNT, _BURNT, _BURNT)), mask=inside)
    return cv2.countNonZero(good) / total


def light(crop: Image, landmarks: Floats) -> Floats:
    """Values of `LIGHT`: luma at the mesh points fitted by a constant and the surface normal (first-order spherical
    harmonics, Ramamoorthi & Hanrahan 2001), over the points that face the viewer."""
    size = crop.shape[0]
    soft = cv2.resize(crop, (_LIGHT_PX, _LIGHT_PX), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    at = np.clip(np.rint((landmarks[:, :2] + 0.5) * _LIGHT_PX / size - 0.5), 0, _LIGHT_PX - 1).astype(int)
    colour = soft[at[:, 1], at[:, 0]]
    normal = vertex_normals(landmarks)
    seen = normal[:, 2] < -0.15
    if seen.sum() < 20:
        seen = np.ones(len(normal), dtype=bool)
    luma = colour[seen] @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    level = float(luma.mean())
    base = np.c_[np.ones(int(seen.sum())), normal[seen, 0], -normal[seen, 1], -normal[seen, 2]]
    base[:, 1:] -= base[:, 1:].mean(axis=0)
    gram = base.T @ base / len(base) + _RIDGE * np.diag([0.0, 1.0, 1.0, 1.0])
    _, side, above, _ = np.linalg.solve(gram, base.T @ luma / len(base))
    red, _, blue = colour[seen].mean(axis=0)
    warmth = (red - blue) / max(red + blue, 1e-3)
    share = max(level, 0.02)
    return np.array([level, np.clip(side / share, -2, 2), np.clip(above / share, -2, 2), warmth], dtype=np.float32)


def vertex_normals(landmarks: Floats) -> NDArray[np.float64]:
    """Unit normals `[468, 3]` of the mesh in frame axes; z < 0 faces the viewer."""
    points = np.asarray(landmarks, dtype=np.float64)
    corners = points[mesh.triangles()]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = np.zeros_like(points)
    for corner in range(3):
        np.add.at(normals, mesh.triangles()[:, corner], face_normals)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    # The list's winding is a matter of its axes; what counts is that the nose tip faces the viewer at rest.
    fit = align.fit_head(landmarks)
    forward = fit.rotation @ np.array([0.0, 0.0, -1.0])
    return normals if normals[mesh.NOSE_TIP] @ forward > 0 else -normals


def canonical_points(landmarks: Floats) -> Floats:
    """Landmarks `[468, 3]` with the head's position, size and rotation taken out: cm in canonical axes."""
    return align.fit_head(landmarks).canonical(landmarks).astype(np.float32)


def expression(landmarks: Floats) -> Floats:
    """Values of `EXPRESSION` for landmarks `[468, 3]` of any position, size and rotation."""
    points, rest = canonical_points(landmarks), mesh.vertices()
    wide, _ = _mouth(rest)
    width, smile = _mouth(points)
    corners = list(mesh.EYE_CORNERS)
    eyes = float(np.linalg.norm(rest[corners[:2]].mean(axis=0) - rest[corners[2:]].mean(axis=0)))
    gap = _length(points, 13, 14) - _length(rest, 13, 14)
    values = [gap / wide, width / wide - 1, (smile - _mouth(rest)[1]) / wide]
    values += [_openness(points, "right", *corners[:2]), _openness(points, "left", *corners[2:])]
    for brow, eye in ((mesh.RIGHT_BROW, corners[:2]), (mesh.LEFT_BROW, corners[2:])):
        values.append((_above(points, brow, eye) - _above(rest, brow, eye)) / eyes)
    return np.array(values, dtype=np.float32)


def _length(points: Floats, a: int, b: int) -> float:
    return float(np.linalg.norm(points[a] - points[b]))


def _mouth(points: Floats) -> tuple[float, float]:
    """Width, and height of the corners over the middle of the lips."""
    corners = list(mesh.MOUTH_CORNERS)
    return _length(points, *corners), float(points[corners, 1].mean() - points[[0, 17], 1].mean())


def _openness(points: Floats, side: str, outer: int, inner: int) -> float:
    return _length(points, *_LIDS[side]) / max(_length(points, outer, inner), 1e-6)


def _above(points: Floats, brow: tuple[int, ...], eye: list[int]) -> float:
    return float(points[list(brow), 1].mean() - points[eye, 1].mean())


def fingerprint(crop: Image) -> int:
    """64 bits: whether brightness rises from left to right between the cells of a 9 x 8 grid over the inner crop
    (the "difference hash", Krawetz 2013). Pictures that look alike differ in few bits."""
    size = crop.shape[0]
    edge = size // 6
    grey = cv2.cvtColor(np.ascontiguousarray(crop[edge : size - edge, edge : size - edge]), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def glance(crop: Image) -> Floats:
    """The middle half of a crop in grey at 32 px, less its mean and at length one, `[1024]`: the product of two, -1..1, says how
    alike they look, whatever the exposure."""
    size = crop.shape[0]
    middle = np.ascontiguousarray(crop[size // 4 : size - size // 4, size // 4 : size - size // 4])
    small = cv2.resize(middle, (_GLANCE_PX, _GLANCE_PX), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32).ravel()
    grey -= grey.mean()
    return grey / max(float(np.linalg.norm(grey)), 1e-6)


def change(a: Floats, b: Floats, size: int) -> float:
    """How far a face moved between two crops of `size` px, in percent of the edge: RMS shift of eyes, of lips, or of the
    whole mesh, whichever is largest (a blink moves little of the mesh). Landmarks are `[468, 2 or 3]`."""
    squared = ((a[:, :2] - b[:, :2]) ** 2).sum(axis=1)
    return 100 / size * float(np.sqrt(max(squared[list(part)].mean() for part in PARTS)))


PARTS = (mesh.RIGHT_EYE + mesh.LEFT_EYE, mesh.LIPS_OUTER + mesh.LIPS_INNER, tuple(range(mesh.POINT_COUNT)))
