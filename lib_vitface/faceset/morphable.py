"""A morphable face on the 468 points of the mesh: shape and expression as a few numbers, fitted jointly over the frames of a clip.

No morphable model comes with ViTFace. This one is made from what is at hand (`build`): the mean is the canonical mesh of
MediaPipe (Apache-2.0); its shape axes are the smoothest mirror-symmetric ways in which that mesh can bend, the low eigenvectors
of its graph Laplacian (spectral mesh processing, Taubin 1995), without those that only move, turn or scale it; its expression axes
are the principal components of how the people of the facesets at hand move away from their own resting shape. The shape axes
were not learned from people: they describe a face well, but how likely a face is they do not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import CheckpointError
from lib_vitface.faces import align, mesh
from lib_vitface.faceset.texture import Expression
from lib_vitface.types import Floats

SHAPES, EXPRESSIONS = 12, 16
COEFFICIENTS = EXPRESSIONS + 2 + SHAPES
"""Numbers a network is told of a frame: expression, yaw and pitch, and the drawn person's shape."""

_NOISE_CM = 0.08  # of a landmark, against which coefficients are held back
_DEPTH = 0.35  # what z counts: a landmark network only guesses it
_ROUNDS = 8
_SHAPE_CM = 0.35  # size of the first shape axis for a coefficient of one
_ANGLE_DEG = 30.0
_LEAST_CM = 1e-4


@dataclass(frozen=True)
class Fit:
    """Of F frames: `shape` [SHAPES], `expression` [F, EXPRESSIONS], `heads` where each head is and looks (see `align.HeadFit`)."""

    shape: Floats
    expression: Floats
    heads: tuple[align.HeadFit, ...]


@dataclass(frozen=True)
class Morphable:
    """`mean` [468, 3] cm in canonical axes; `shape` [SHAPES, 468, 3], `expression` [EXPRESSIONS, 468, 3] for a coefficient of one."""

    mean: Floats
    shape: Floats
    expression: Floats

    @classmethod
    def build(cls, persons: Sequence[tuple[Sequence[Expression], Floats]]) -> Morphable:
        """From the frames of persons and their resting shapes `[468, 3]`."""
        moved = [np.stack([e.points for e in frames]) - rest for frames, rest in persons]
        away = np.concatenate(moved).astype(np.float64)
        away = np.concatenate([away, _mirrored(away)]).reshape(-1, mesh.POINT_COUNT * 3)
        _, sizes, axes = np.linalg.svd(away, full_matrices=False)
        found = np.zeros((EXPRESSIONS, mesh.POINT_COUNT * 3))
        count = min(EXPRESSIONS, len(axes))
        found[:count] = axes[:count] * (sizes[:count] / np.sqrt(len(away)))[:, None]
        expression = found.reshape(EXPRESSIONS, mesh.POINT_COUNT, 3).astype(np.float32)
        return cls(mesh.vertices().copy(), shape_axes().astype(np.float32), expression)

    def points(self, shape: Floats, expression: Floats) -> Floats:
        """The face `[468, 3]` cm, or `[F, 468, 3]` for `expression` `[F, EXPRESSIONS]`."""
        bent = np.tensordot(shape, self.shape, 1) + np.tensordot(expression, self.expression, 1)
        return (self.mean + bent).astype(np.float32)

    def fit(self, landmarks: Floats, shape: Floats | None = None) -> Fit:
        """Coefficients and heads of landmarks `[F, 468, 3]` px of one person, whose `shape` may be known.

        Pose and coefficients in turn, each the best for the others (alternating least squares); coefficients are held back by a
        normal prior (MAP).
        """
        points = np.asarray(landmarks, np.float64)
        heads = [align.fit_head(p) for p in points]
        known = np.zeros(SHAPES) if shape is None else np.asarray(shape, np.float64)
        expression = np.zeros((len(points), EXPRESSIONS))
        for _ in range(_ROUNDS):
            placed = np.stack([h.canonical(p) for p, h in zip(points, heads, strict=True)]) - self.mean
            expression = _ridge(placed - np.tensordot(known, self.shape, 1), self.expression)
            if shape is None:
                rest = (placed - np.tensordot(expression, self.expression, 1)).mean(axis=0)
                known = _ridge(rest[None], self.shape, len(points))[0]
            faces = self.points(known.astype(np.float32), expression.astype(np.float32)).astype(np.float64)
            heads = [align.HeadFit(*align.similarity(f * align.AXES, p)) for f, p in zip(faces, points, strict=True)]
        return Fit(known.astype(np.float32), expression.astype(np.float32), tuple(heads))

    def arrays(self) -> dict[str, Floats]:
        """Everything as named arrays, for a safetensors file."""
        return {"mean": self.mean, "shape": self.shape, "expression": self.expression}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> Morphable:
        """The opposite of `arrays`. Raises `CheckpointError` where something is missing."""
        try:
            return cls(*(arrays[name].astype(np.float32) for name in ("mean", "shape", "expression")))
        except KeyError as error:
            raise CheckpointError(f"The morphable model lacks {error}; train the model again.") from None


def coefficients(fit: Fit, shape: Floats) -> Floats:
    """What a network is told of the frames of a fit, `[F, COEFFICIENTS]`, drawing a person of `shape` [SHAPES]."""
    angles = np.array([[h.pose.yaw_deg, h.pose.pitch_deg] for h in fit.heads], np.float32) / _ANGLE_DEG
    same = np.broadcast_to(shape, (len(angles), SHAPES))
    return np.concatenate([fit.expression, angles, same], axis=1).astype(np.float32)


def mirrored_landmarks(landmarks: Floats, size: int) -> Floats:
    """Landmarks `[F, 468, 3]` of the mirrored pictures, `size` px wide."""
    flipped = landmarks[:, mesh.mirror_order()] * np.array([-1, 1, 1], np.float32)
    return (flipped + np.array([size - 1, 0, 0], np.float32)).astype(np.float32)


def _ridge(away: NDArray[np.floating], axes: Floats, seen: int = 1) -> NDArray[np.float64]:
    """Coefficients `[F, K]` of displacements `[F, 468, 3]` cm; an axis of no size gets 0. `seen`: how often each was measured."""
    weight = np.sqrt(np.array([1.0, 1.0, _DEPTH]))
    basis = (axes.astype(np.float64) * weight).reshape(len(axes), -1)
    prior = np.eye(len(axes)) * (_NOISE_CM**2 / seen)
    return np.linalg.solve(basis @ basis.T + prior, basis @ (away * weight).reshape(len(away), -1).T).T


def _mirrored(away: NDArray[np.float64]) -> NDArray[np.float64]:
    """Displacements `[..., 468, 3]` of the mirrored face."""
    return away[..., mesh.mirror_order(), :] * np.array([-1.0, 1.0, 1.0])


@lru_cache(maxsize=1)
def shape_axes() -> NDArray[np.float64]:
    """The shape axes `[SHAPES, 468, 3]` cm, smoothest first, mirror-symmetric and free of rigid motion and scale."""
    points = mesh.vertices().astype(np.float64)
    edges = np.concatenate([mesh.triangles()[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    laplacian = np.zeros((mesh.POINT_COUNT,) * 2)
    laplacian[edges[:, 0], edges[:, 1]] = laplacian[edges[:, 1], edges[:, 0]] = -1
    np.fill_diagonal(laplacian, -laplacian.sum(axis=1))
    _, modes = np.linalg.eigh(laplacian)
    centred = points - points.mean(axis=0)
    turns = [np.cross(np.eye(3)[k], centred) for k in range(3)]
    taken = [np.tile(np.eye(3)[k], (mesh.POINT_COUNT, 1)) for k in range(3)] + turns + [centred]
    directions: list[NDArray[np.float64]] = []
    for field in taken:
        _take(directions, field)
    rigid = len(directions)
    for mode in range(1, mesh.POINT_COUNT):
        for axis in range(3):
            field = np.zeros_like(points)
            field[:, axis] = modes[:, mode]
            _take(directions, (field + _mirrored(field)) / 2)
            if len(directions) == rigid + SHAPES:
                size = _SHAPE_CM * np.sqrt(mesh.POINT_COUNT) / (1 + 0.25 * np.arange(SHAPES))
                return np.stack(directions[rigid:]) * size[:, None, None]
    raise ValueError("the mesh has too few points")


def _take(directions: list[NDArray[np.float64]], field: NDArray[np.float64]) -> None:
    """Adds what of a field no direction has yet, at length one, if that is anything (Gram and Schmidt)."""
    for _ in range(2):
        for other in directions:
            field = field - other * float((field * other).sum())
    length = float(np.linalg.norm(field))
    if length > _LEAST_CM:
        directions.append(field / length)
