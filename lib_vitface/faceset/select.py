"""Which faces to keep: no near-duplicates, and as wide a spread over pose, expression and light as the number allows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lib_vitface.types import Floats

YAW_EDGES = (-90.0, -50.0, -30.0, -12.0, 12.0, 30.0, 50.0, 90.0)
PITCH_EDGES = (-60.0, -25.0, -10.0, 10.0, 25.0, 60.0)

# One unit of a feature is a difference a viewer clearly sees. Roll is left out: crops are upright.
_POSE = np.array([15.0, 12.0])
_EXPRESSION = np.array([0.25, 0.2, 0.1, 0.08, 0.08, 0.04, 0.04])
_LIGHT = np.array([0.12, 0.2, 0.2, 0.1])
_LIMIT = 6.0  # a face farther out than this is a failed measurement rather than a rare view
_FULL_SHARPNESS = 0.45


def features(pose: NDArray[np.floating], expression: Floats, light: Floats) -> Floats:
    """`[N, 13]` in which the distance of two faces is how different they look.

    `pose` [N, 2 or 3] yaw and pitch in degrees, `expression` [N, 7] and `light` [N, 4] as in `quality`.
    """
    parts = [pose[:, :2] / _POSE, expression / _EXPRESSION / np.sqrt(3), light / _LIGHT / np.sqrt(2)]
    joined = np.concatenate(parts, axis=1)
    middle = np.median(joined, axis=0) if len(joined) else 0.0
    return np.clip(joined - middle, -_LIMIT, _LIMIT).astype(np.float32)


def worth(
    sharpness: NDArray[np.floating],
    exposure: NDArray[np.floating],
    occlusion: NDArray[np.floating],
    face_px: NDArray[np.floating],
    size: int,
) -> NDArray[np.float64]:
    """How good each picture is, 0.01..1: sharp, well exposed, uncovered, and not enlarged. All `[N]`."""
    sharp = np.clip(np.asarray(sharpness) / _FULL_SHARPNESS, 0, 1)
    large = np.clip(np.asarray(face_px) / (size * 0.5), 0.3, 1)
    return np.clip(sharp * np.asarray(exposure) * (1 - np.asarray(occlusion)) * large, 0.01, 1.0)


def spread_out(points: Floats, weights: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Indices of `count` points, most telling first: each next one is farthest from those chosen (Gonzalez 1985, at most
    twice the best possible covering radius), its distance weighted by `weights` `[N]`. Same input, same answer.
    """
    if not len(points) or count <= 0:
        return np.zeros(0, dtype=np.int64)
    centre = np.median(points, axis=0)
    first = int(np.argmax(weights / (1 + np.linalg.norm(points - centre, axis=1))))
    chosen = [first]
    nearest = ((points - points[first]) ** 2).sum(axis=1)
    nearest[first] = -1.0
    while len(chosen) < min(count, len(points)):
        best = int(np.argmax(np.where(nearest < 0, -1.0, np.sqrt(np.maximum(nearest, 0)) * weights)))
        chosen.append(best)
        nearest = np.minimum(nearest, ((points - points[best]) ** 2).sum(axis=1))
        nearest[best] = -1.0
    return np.array(chosen, dtype=np.int64)


def duplicates(
    landmarks: Floats, fingerprints: NDArray[np.uint64], weights: NDArray[np.floating], size: int, min_change: float
) -> NDArray[np.int64]:
    """For each of N crops the index of the better one it merely repeats, or its own.

    A repeat has eyes, lips and mesh within `min_change` percent of the edge (as `quality.change`) and a fingerprint that
    differs in few bits. `landmarks` are `[N, 468, 2 or 3]` in crop pixels. Better ones are looked at first, so that of a
    chain of small changes every other member stays. 0 keeps everything.
    """
    from scipy.spatial import cKDTree

    from lib_vitface.faceset.quality import PARTS

    stands_for = np.arange(len(landmarks))
    if min_change <= 0 or len(landmarks) < 2:
        return stands_for
    flat = np.asarray(landmarks[:, :, :2], dtype=np.float32)
    # Each part's centroid moves at most as far as the part's RMS, so their joint distance bounds the search.
    low = np.concatenate([flat[:, list(part)].mean(axis=1) for part in PARTS], axis=1)
    reach = min_change / 100 * size
    tree = cKDTree(low)
    dropped = np.zeros(len(flat), dtype=bool)
    for i in np.argsort(-np.asarray(weights), kind="stable"):
        if dropped[i]:
            continue
        near = np.array(tree.query_ball_point(low[i], reach * np.sqrt(len(PARTS))), dtype=np.int64)
        near = near[~dropped[near] & (near != i) & (stands_for[near] == near)]
        near = near[bits_apart(fingerprints[near], fingerprints[i]) <= SAME_BITS]  # first: landmarks cost far more
        if not len(near):
            continue
        squared = ((flat[near] - flat[i]) ** 2).sum(axis=2)
        moved = np.sqrt(np.max([squared[:, list(part)].mean(axis=1) for part in PARTS], axis=0))
        same = near[moved < reach]
        dropped[same] = True
        stands_for[same] = i
    return stands_for


SAME_BITS = 4
"""Fingerprints of one view of one face under one light differ in at most this many of 64 bits (neighbouring frames of four
clips: median 1, 95 % at most 3 to 7)."""


def bits_apart(a: NDArray[np.uint64], b: np.uint64 | NDArray[np.uint64]) -> NDArray[np.int64]:
    """Number of differing bits of 64-bit fingerprints `[N]`."""
    differing = np.bitwise_xor(np.asarray(a, dtype=np.uint64), np.asarray(b, dtype=np.uint64))
    return np.unpackbits(differing.reshape(-1, 1).view(np.uint8), axis=1).sum(axis=1).astype(np.int64)


def spread(points: Floats, chosen: NDArray[np.int64], pose: NDArray[np.floating]) -> dict[str, float]:
    """How well the chosen faces stand for all of them.

    `radius` the largest, `gap` the mean distance from any face to the nearest chosen one (units of `features`); `variety` the
    mean distance from a chosen face to its nearest fellow; `views` the share of occupied yaw x pitch cells that still are;
    `evenness` the entropy of the chosen faces over those cells, 1 when all are filled alike.
    """
    from scipy.spatial import cKDTree

    if not len(chosen):
        return {"radius": 0.0, "gap": 0.0, "variety": 0.0, "views": 0.0, "evenness": 0.0}
    tree = cKDTree(points[chosen])
    away = tree.query(points)[0]
    fellow = tree.query(points[chosen], k=2)[0][:, 1] if len(chosen) > 1 else np.zeros(1)
    before, after = histogram(pose), histogram(pose[chosen])
    share = after[after > 0] / max(after.sum(), 1)
    cells = int((before > 0).sum())
    even = float(-(share * np.log(share)).sum() / np.log(cells)) if cells > 1 else 1.0
    views = float((after > 0).sum() / max(cells, 1))
    found = {"radius": away.max(), "gap": away.mean(), "variety": fellow.mean(), "views": views, "evenness": even}
    return {name: round(float(value), 4) for name, value in found.items()}


def histogram(pose: NDArray[np.floating]) -> NDArray[np.int64]:
    """Number of faces per pitch x yaw cell, `[len(PITCH_EDGES) - 1, len(YAW_EDGES) - 1]`; beyond the edges counts as at them."""
    yaw = np.clip(pose[:, 0], YAW_EDGES[0], YAW_EDGES[-1] - 1e-6)
    pitch = np.clip(pose[:, 1], PITCH_EDGES[0], PITCH_EDGES[-1] - 1e-6)
    return np.histogram2d(pitch, yaw, bins=(PITCH_EDGES, YAW_EDGES))[0].astype(np.int64)
