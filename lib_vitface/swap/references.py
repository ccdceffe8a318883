"""Further views of the source for a model that remembers views."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import NoFaceError
from lib_vitface.faces import align
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.embed import make_embedder
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.faceset.store import INDEX, Faceset
from lib_vitface.faceset.texture import read_expression, spread_views
from lib_vitface.metrics.source import face_from, faces_in_media
from lib_vitface.provenance.consent import MEASURED_YAW_DEG, undecided
from lib_vitface.types import Floats, Image, Tick, no_tick

MOST = 24  # views of one file or folder
_LOOKED_AT = 96


def reference_views(path: Path, size: int, tick: Tick = no_tick) -> tuple[NDArray[np.uint8], Floats]:
    """At most `MOST` crops `[V, size, size, 3]` of a clip, of photos or of a faceset, spread over pose and expression, and the
    mean identity vector `[128]` of the faces of which one tells whose they are. Raises `NoFaceError` where there is none."""
    embed = make_embedder("sface")
    crops, expressions, looks = [], [], []
    for image, landmarks in _faces(path, tick):
        face = face_from(landmarks)
        crops.append(align.take_crop(image, face, size).image)
        expressions.append(read_expression(landmarks))
        if face.pose is not None and abs(face.pose.yaw_deg) <= MEASURED_YAW_DEG:
            looks.append(embed(image, face))
    if not looks:
        raise NoFaceError(undecided(path))
    chosen = spread_views(expressions, [1.0] * len(crops), MOST)
    mean = np.mean(looks, axis=0)
    return np.stack([crops[k] for k in chosen]), (mean / max(float(np.linalg.norm(mean)), 1e-9)).astype(np.float32)


def _faces(path: Path, tick: Tick) -> Iterator[tuple[Image, Floats]]:
    if not (path / INDEX).is_file():
        yield from faces_in_media(path, Analyser(make_detector(), MeshLandmarker()), _LOOKED_AT, tick)
        return
    with Faceset.open(path) as faceset:
        records = list(faceset.records(novel=False))
        for record in records[:: max(1, len(records) // _LOOKED_AT)]:
            yield faceset.image(record), record.landmarks
