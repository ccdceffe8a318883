"""From what was measured on frames to the figures of a clip, JSON-ready: finite numbers or None."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lib_vitface.metrics import distribution, geometry, identity, image
from lib_vitface.metrics.identity import IdentityScores
from lib_vitface.metrics.observation import FrameScores
from lib_vitface.metrics.settings import EvaluateOptions
from lib_vitface.metrics.source import SourceFace
from lib_vitface.metrics.temporal import Jitter, PairFlicker

PSNR_CAP_DB = 100.0
"""Stands for equal pictures, whose PSNR is infinite and would spoil means and JSON."""

AIM_NEARER_SOURCE, AIM_LANDMARKS, AIM_FLICKER = 0.95, 0.03, 1.2


@dataclass
class Record:
    """What was measured on a clip. `flicker` and `jitter` carry the index of the frame they end or centre on; `lost` the
    times at which the target shows a face and the result none; `untouched` errors of frames without a face."""

    frames: list[FrameScores] = field(default_factory=list)
    flicker: list[tuple[int, PairFlicker]] = field(default_factory=list)
    jitter: list[tuple[int, Jitter]] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)
    untouched: list[float] = field(default_factory=list)
    paired: int = 0


def summarise(record: Record, source: Sequence[SourceFace], options: EvaluateOptions) -> dict[str, Any]:
    """Every figure of a clip; needs at least one scored frame."""
    found: dict[str, Any] = {
        "mode": "self-reenactment" if options.self_reenactment else "swap",
        "source": str(options.source),
        "target": str(options.target),
        "result": str(options.result),
        "scorer": options.scorer,
        "frames": _frames(record, options),
        "identity": _identity(record, source, options.self_reenactment),
        "geometry": _geometry(record),
        "temporal": _temporal(record),
        "likeness": _likeness(record) if options.self_reenactment else None,
        "sharpness": _sharpness(record),
        "outside_face": _outside(record),
        "distribution": _distribution(record, source),
    }
    found["aims"] = aims(found)
    return found


def aims(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures a good swap is judged by, each with its aim and whether it is met (None: not measured)."""
    rows = [
        ("share_nearer_source", found["identity"].get("share_nearer_source"), ">=", AIM_NEARER_SOURCE),
        ("landmark_distance_median", found["geometry"]["landmark_distance"]["median"], "<=", AIM_LANDMARKS),
        ("flicker_ratio", found["temporal"]["flicker"]["ratio"], "<=", AIM_FLICKER),
    ]
    return [
        {
            "name": name,
            "value": value,
            "aim": f"{sign} {aim:g}",
            "met": None if value is None else (value >= aim if sign == ">=" else value <= aim),
        }
        for name, value, sign, aim in rows
        if value is not None or name != "share_nearer_source"
    ]


def _frames(record: Record, options: EvaluateOptions) -> dict[str, Any]:
    with_face = len(record.frames) + len(record.lost)
    return {
        "paired": record.paired,
        "every": options.every,
        "scored": len(record.frames),
        "without_face_in_target": len(record.untouched),
        "face_lost_in_result": len(record.lost),
        "share_face_found": len(record.frames) / with_face,
    }


def identity_scores(record: Record, source: Sequence[SourceFace]) -> IdentityScores:
    """Scores of every frame of the record."""
    return identity.score_identity(
        np.stack([f.embeddings[0] for f in record.frames]),
        np.stack([face.embedding for face in source]),
        np.stack([f.embeddings[1] for f in record.frames]),
    )


def _identity(record: Record, source: Sequence[SourceFace], same_person: bool) -> dict[str, Any]:
    found = identity.summary(identity_scores(record, source), [f.pose.yaw_deg for f in record.frames])
    found["source_faces"] = len(source)
    own = [float(f.embeddings[0] @ f.embeddings[1]) for f in record.frames]
    found["same_frame_target_cosine"] = float(np.mean(own))
    if same_person:  # who is nearer to oneself is no question
        for name in ("share_nearer_source", "share_nearer_source_nearest", "retrieval_rank1", "attained", "floor"):
            del found[name]
        for part in found["by_yaw"]:
            del part["share_nearer_source"]
    return found


def _geometry(record: Record) -> dict[str, Any]:
    frames = record.frames
    return {
        "landmark_distance": spread([f.landmark_distance for f in frames]),
        "pose_error_deg": spread([f.pose_error_deg for f in frames]),
        "gaze_distance": spread(gazes) if (gazes := _known([f.gaze_distance for f in frames])) else None,
        "expression": geometry.expression_scores(
            np.stack([f.expression[0] for f in frames]), np.stack([f.expression[1] for f in frames])
        ),
    }


def _temporal(record: Record) -> dict[str, Any]:
    pairs, jitter = [p for _, p in record.flicker], [j for _, j in record.jitter]
    own = [(p.own.squared, p.target.squared) for p in pairs if p.own is not None]
    return {
        "pairs": len(pairs),
        "flicker": _against([p.result.mean for p in pairs], [p.target.mean for p in pairs]),
        "warping_error": _against([p.result.squared for p in pairs], [p.target.squared for p in pairs]),
        "warping_error_own_flow": _against([r for r, _ in own], [t for _, t in own]),
        "landmark_jitter": {
            **_against([j.result for j in jitter], [j.target for j in jitter]),
            "added": _mean([j.added for j in jitter]),
        },
    }


def _against(result: Sequence[float], target: Sequence[float]) -> dict[str, float | None]:
    """Means of result and target, and their ratio (None where the target's is 0 or nothing was measured)."""
    mean_r, mean_t = _mean(result), _mean(target)
    return {"result": mean_r, "target": mean_t, "ratio": mean_r / mean_t if mean_r is not None and mean_t else None}


def _likeness(record: Record) -> dict[str, Any]:
    """Result against truth inside the face outline. PSNR is the mean over frames, as is usual for video."""
    return {
        "face_psnr_db": spread([capped_psnr(f.face_error) for f in record.frames if f.face_error is not None]),
        "face_ssim": spread([f.face_ssim for f in record.frames if f.face_ssim is not None]),
        "face_ms_ssim": spread([f.face_ms_ssim for f in record.frames if f.face_ms_ssim is not None]),
        **({"face_lpips": spread(lpips)} if (lpips := _known([f.face_lpips for f in record.frames])) else {}),
    }


def capped_psnr(error: float) -> float:
    """PSNR in dB of a mean squared error, at most `PSNR_CAP_DB`."""
    return min(PSNR_CAP_DB, image.psnr_of(error))


def _sharpness(record: Record) -> dict[str, float | None]:
    return _against([f.sharpness[0] for f in record.frames], [f.sharpness[1] for f in record.frames])


def _outside(record: Record) -> dict[str, Any]:
    """How well the rest of the picture was kept; includes what encoding and watermark change."""
    return {
        "psnr_db": spread([capped_psnr(f.outside_error) for f in record.frames]),
        "frames_without_face_psnr_db": spread([capped_psnr(e) for e in record.untouched]) if record.untouched else None,
    }


def _distribution(record: Record, source: Sequence[SourceFace]) -> dict[str, Any]:
    """Distances between the sets of result, source and target faces in every feature space, by their honest names."""
    found: dict[str, Any] = {}
    for space in record.frames[0].features:
        result = np.stack([f.features[space][0] for f in record.frames])
        target = np.stack([f.features[space][1] for f in record.frames])
        own = np.stack([face.features[space] for face in source])
        counts = {"frames": len(result), "source_faces": len(own), "dimensions": result.shape[1]}
        # Embeddings are unit vectors: at this length the kernel is (cosine + 1)^3; unscaled it would see the means only.
        length = 1.0 if space == "inception" else math.sqrt(result.shape[1])
        for kind, measure, by in (
            ("frechet", distribution.feature_frechet, 1.0),
            ("kernel", distribution.kernel_distance, length),
        ):
            enough = min(len(result), len(own)) >= 2
            found[f"{kind}_{space}"] = {
                "result_to_source": measure(by * result, by * own) if enough else None,
                "target_to_source": measure(by * target, by * own) if enough else None,
                "result_to_target": measure(by * result, by * target) if enough else None,
                **counts,
            }
    return found


def per_frame(record: Record, source: Sequence[SourceFace]) -> dict[str, list[Any]]:
    """Columns over the scored frames; flicker and jitter have their own `flicker_frame` and `jitter_frame`."""
    scores = identity_scores(record, source)
    frames = record.frames
    return {
        "frame": [f.index for f in frames],
        "time_s": [round(f.time_s, 4) for f in frames],
        "yaw_deg": _column([f.pose.yaw_deg for f in frames]),
        "pitch_deg": _column([f.pose.pitch_deg for f in frames]),
        "source_cosine": _column(scores.source),
        "target_cosine": _column(scores.target),
        "landmark_distance": _column([f.landmark_distance for f in frames]),
        "pose_error_deg": _column([f.pose_error_deg for f in frames]),
        "gaze_distance": _column([math.nan if f.gaze_distance is None else f.gaze_distance for f in frames]),
        "sharpness_result": _column([f.sharpness[0] for f in frames]),
        "sharpness_target": _column([f.sharpness[1] for f in frames]),
        "flicker_frame": [index for index, _ in record.flicker],
        "flicker_result": _column([p.result.mean for _, p in record.flicker]),
        "flicker_target": _column([p.target.mean for _, p in record.flicker]),
        "jitter_frame": [index for index, _ in record.jitter],
        "jitter_added": _column([j.added for _, j in record.jitter]),
        "lost_s": [round(t, 4) for t in record.lost],
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, mean, 5th and 95th percentile."""
    data = np.asarray(values, dtype=np.float64)
    low, median, high = (float(v) for v in np.percentile(data, (5, 50, 95)))
    return {"median": median, "mean": float(data.mean()), "p5": low, "p95": high}


def _known(values: Sequence[float | None]) -> list[float]:
    return [v for v in values if v is not None]


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _column(values: Any) -> list[float | None]:
    return [round(float(v), 5) if math.isfinite(v) else None for v in values]
