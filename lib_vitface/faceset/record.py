"""One face of a faceset, and how it stands in the SQLite index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from lib_vitface.types import Floats, Matrix, Pose

PENDING = "pending"
"""`reason` of a face that no selection has looked at yet."""

KEPT = ""
"""`reason` of a face that is kept."""

NOVEL = "novel view"
"""`source` of a face that was rendered from the others (see `novel`); it is `synthetic`, too."""


def _none() -> Floats:
    return np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Record:
    """A face found in an input, its crop and what was measured on it.

    `source` is the name of the file (or of the frame another tool noted), `frame` and `time` its place there, `number`
    its place among the faces of that frame, best first; `image` the crop's file name in `images/`, `size` its edge in
    pixels, `face_px` the width of the face in the frame. `landmarks` are `[468, 3]` in crop pixels, `embedding` `[D]`
    of unit length, `expression` as `quality.EXPRESSION`, `light` as `quality.LIGHT`, `fingerprint` 64 bits of
    `quality.fingerprint`. `sharpness`, `exposure` and `occlusion` are 0..1. `cluster` is the identity number, -1 before
    it is known. `seen` counts the sightings it stands for (itself and the near-duplicates dropped for it). Where a
    stranger's biometric data was erased, the arrays are empty.
    """

    source: str
    frame: int
    time: Fraction
    image: str
    size: int
    face_px: float
    pose: Pose
    sharpness: float
    exposure: float
    occlusion: float
    frame_to_crop: Matrix
    landmarks: Floats = field(default_factory=_none)
    embedding: Floats = field(default_factory=_none)
    expression: Floats = field(default_factory=_none)
    light: Floats = field(default_factory=_none)
    fingerprint: int = 0
    number: int = 0
    cluster: int = -1
    kept: bool = False
    reason: str = PENDING
    synthetic: bool = False
    seen: int = 1
    id: int = 0

    @property
    def novel(self) -> bool:
        """Whether it was rendered from the faceset's other faces."""
        return self.synthetic and self.source == NOVEL


COLUMNS = (
    *("id", "input", "source", "frame", "number", "time_num", "time_den", "image", "size", "face_px"),
    *("yaw_deg", "pitch_deg", "roll_deg", "sharpness", "exposure", "occlusion"),
    *("fingerprint", "cluster", "kept", "reason", "synthetic", "seen"),
)
"""Of table `faces`: narrow rows, so that listing a million of them does not touch the arrays."""

ARRAYS = ("matrix", "landmarks", "embedding", "expression", "light")
"""Of table `arrays`: little-endian blobs, float64 for the matrix and float32 for the others."""

NUMBERS = tuple(name for name in COLUMNS if name not in {"source", "image", "reason"})


def to_row(record: Record, input_id: int) -> tuple[Any, ...]:
    """Values of `COLUMNS` without `id`."""
    return (
        *(input_id, record.source, record.frame, record.number, record.time.numerator, record.time.denominator),
        *(record.image, record.size, float(record.face_px), *(float(a) for a in record.pose)),
        *(float(record.sharpness), float(record.exposure), float(record.occlusion)),
        *(_signed(record.fingerprint), record.cluster, int(record.kept), record.reason),
        *(int(record.synthetic), record.seen),
    )


def to_blobs(record: Record) -> tuple[bytes, ...]:
    """Values of `ARRAYS`."""
    floats = (record.landmarks, record.embedding, record.expression, record.light)
    return (np.asarray(record.frame_to_crop, dtype="<f8").tobytes(), *(as_blob(f) for f in floats))


def as_blob(values: Floats) -> bytes:
    """Little-endian float32 of an array."""
    return np.ascontiguousarray(values, dtype="<f4").tobytes()


def from_blob(blob: bytes | None) -> Floats:
    """Float32 `[N]` (a copy that may be written to); empty for NULL."""
    return np.frombuffer(blob or b"", dtype="<f4").astype(np.float32)


def from_row(row: Sequence[Any]) -> Record:
    """A record of `COLUMNS` followed by `ARRAYS`."""
    value = dict(zip((*COLUMNS, *ARRAYS), row, strict=True))
    matrix = np.frombuffer(value["matrix"] or bytes(48), dtype="<f8").astype(np.float64).reshape(2, 3)
    return Record(
        source=value["source"],
        frame=value["frame"],
        time=Fraction(value["time_num"], value["time_den"]),
        image=value["image"],
        size=value["size"],
        face_px=value["face_px"],
        pose=Pose(value["yaw_deg"], value["pitch_deg"], value["roll_deg"]),
        sharpness=value["sharpness"],
        exposure=value["exposure"],
        occlusion=value["occlusion"],
        frame_to_crop=matrix,
        landmarks=from_blob(value["landmarks"]).reshape(-1, 3),
        embedding=from_blob(value["embedding"]),
        expression=from_blob(value["expression"]),
        light=from_blob(value["light"]),
        fingerprint=value["fingerprint"] & 0xFFFFFFFFFFFFFFFF,
        number=value["number"],
        cluster=value["cluster"],
        kept=bool(value["kept"]),
        reason=value["reason"],
        synthetic=bool(value["synthetic"]),
        seen=value["seen"],
        id=value["id"],
    )


def _signed(bits: int) -> int:
    """64 unsigned bits as SQLite's signed integer."""
    return bits - (1 << 64) if bits >= 1 << 63 else bits
