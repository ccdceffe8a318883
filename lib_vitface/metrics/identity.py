"""Whose face it is: a result's identity embeddings against those of the source and of the target.

The embedder that makes them must be one that was used neither in training nor in selecting (dlib here). Embeddings are unit vectors
`[N, D]`; likeness is their cosine, distance is `1 - cosine`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib_vitface.types import Floats

NEAREST = 5
YAW_EDGES_DEG = (0, 15, 30, 45, 60, 90)

Values = NDArray[np.float64]


@dataclass(frozen=True)
class IdentityScores:
    """Per frame `[N]`: cosine of the result with ...

    `source`, `target`: the mean face of either set; `source_nearest`, `target_nearest`: the mean of the five most alike
    faces of either set (target faces are of the same clip, the frame's own among them: the same pose, light and
    expression, so this comparison leans towards the target); `source_first`: its most alike face of all is the source's.
    `ceiling`: the mean cosine of source faces with the mean of the others; `floor`: that of target faces with it.
    """

    source: Values
    target: Values
    source_nearest: Values
    target_nearest: Values
    source_first: NDArray[np.bool_]
    ceiling: float
    floor: float

    @property
    def nearer(self) -> NDArray[np.bool_]:
        """Whether the frame is nearer to the mean source face than to the mean target face."""
        return self.source > self.target


def score_identity(result: Floats, source: Floats, target: Floats, nearest: int = NEAREST) -> IdentityScores:
    """Scores of result embeddings `[N, D]` against source `[M, D]` and target `[K, D]`, M and K at least 1."""
    result_, source_, target_ = (_unit(np.asarray(x, dtype=np.float64)) for x in (result, source, target))
    if min(len(result_), len(source_), len(target_)) < 1:
        raise ValueError("each of result, source and target needs at least one embedding")
    to_source, to_target = result_ @ source_.T, result_ @ target_.T
    return IdentityScores(
        source=result_ @ template(source_),
        target=result_ @ template(target_),
        source_nearest=_top(to_source, nearest),
        target_nearest=_top(to_target, nearest),
        source_first=to_source.max(axis=1) > to_target.max(axis=1),
        ceiling=_leave_one_out(source_),
        floor=float((target_ @ template(source_)).mean()),
    )


def template(embeddings: NDArray[np.floating]) -> Values:
    """Unit mean `[D]` of unit embeddings `[N, D]`."""
    mean: Values = _unit(np.asarray(embeddings, dtype=np.float64).mean(axis=0, keepdims=True))[0]
    return mean


def _unit(x: Values) -> Values:
    unit: Values = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    return unit


def _top(cosines: Values, count: int) -> Values:
    """Mean of the `count` greatest of each row."""
    count = min(count, cosines.shape[1])
    top: Values = np.partition(cosines, -count, axis=1)[:, -count:].mean(axis=1)
    return top


def _leave_one_out(embeddings: Values) -> float:
    """Mean cosine of each embedding with the mean of the others; NaN for a single one."""
    if len(embeddings) < 2:
        return math.nan
    others = _unit(embeddings.sum(axis=0) - embeddings)
    return float((embeddings * others).sum(axis=1).mean())


def summary(scores: IdentityScores, yaw_deg: Sequence[float]) -> dict[str, Any]:
    """Means and shares of the scores, overall and by |yaw|; JSON-ready.

    `attained` puts the mean cosine between floor (0: the target's own likeness to the source) and ceiling (1: what the
    source's own faces reach among themselves); None where both are the same.
    """
    span = scores.ceiling - scores.floor
    turned = np.abs(np.asarray(yaw_deg, dtype=np.float64))
    return {
        "frames": len(scores.source),
        "source_cosine": float(scores.source.mean()),
        "source_cosine_p5": float(np.percentile(scores.source, 5)),
        "source_cosine_nearest": float(scores.source_nearest.mean()),
        "source_distance": float(1 - scores.source.mean()),
        "target_cosine": float(scores.target.mean()),
        "ceiling": scores.ceiling if math.isfinite(scores.ceiling) else None,
        "floor": scores.floor,
        "attained": float((scores.source.mean() - scores.floor) / span) if abs(span) > 1e-3 else None,
        "share_nearer_source": float(scores.nearer.mean()),
        "share_nearer_source_nearest": float((scores.source_nearest > scores.target_nearest).mean()),
        "retrieval_rank1": float(scores.source_first.mean()),
        "by_yaw": [_bin(scores, turned, low, high) for low, high in pairwise(YAW_EDGES_DEG)],
    }


def _bin(scores: IdentityScores, turned: Values, low: int, high: int) -> dict[str, Any]:
    """One bin of |yaw|, its upper edge left out except in the last."""
    inside = (turned >= low) & ((turned < high) | (high == YAW_EDGES_DEG[-1]))
    count = int(inside.sum())
    return {
        "yaw_deg": [low, high],
        "frames": count,
        "source_cosine": float(scores.source[inside].mean()) if count else None,
        "target_cosine": float(scores.target[inside].mean()) if count else None,
        "share_nearer_source": float(scores.nearer[inside].mean()) if count else None,
    }
