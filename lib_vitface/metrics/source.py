"""The source's faces as the scorer sees them: an even sample of a faceset, or of clips and photos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np

from lib_vitface.errors import NoFaceError
from lib_vitface.faces import align
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.landmarks import five_points
from lib_vitface.media import is_video, list_media, probe, read_frames, read_image
from lib_vitface.metrics.distribution import Features
from lib_vitface.types import Embedder, Face, Floats, Image, Pose, Tick

THUMBNAIL_PX = 192


@dataclass(frozen=True)
class SourceFace:
    """A source face as measured: unit embedding, features by space, pose, and an upright picture of it."""

    embedding: Floats
    features: dict[str, Floats]
    pose: Pose
    thumbnail: Image


def measure_source(
    faces: Iterable[tuple[Image, Floats]], limit: int, embedder: Embedder, features: Mapping[str, Features], tick: Tick
) -> list[SourceFace]:
    """Measures an even sample of at most `limit` pairs of RGB image and landmarks `[468, 3]`. Raises NoFaceError for none."""
    chosen = even_sample(faces, limit)
    found = []
    for number, (image, landmarks) in enumerate(chosen):
        tick(number, len(chosen), "Measuring source faces")
        face = face_from(landmarks)
        found.append(
            SourceFace(
                embedding=embedder(image, face),
                features={name: see(image, face) for name, see in features.items()},
                pose=face.pose or Pose(0, 0, 0),
                thumbnail=align.take_crop(image, face, THUMBNAIL_PX).image,
            )
        )
    return found


def even_sample(faces: Iterable[tuple[Image, Floats]], limit: int) -> list[tuple[Image, Floats]]:
    """At most `limit` items evenly spread over a stream of unknown length; holds `2 * limit` of them at most."""
    kept: list[tuple[Image, Floats]] = []
    step = 1
    for number, item in enumerate(faces):
        if number % step:
            continue
        kept.append(item)
        if len(kept) >= 2 * limit:
            kept, step = kept[::2], 2 * step
    count = min(limit, len(kept))
    return [kept[number * len(kept) // count] for number in range(count)]


def face_from(landmarks: Floats) -> Face:
    """A `Face` of landmarks `[468, 3]` alone."""
    flat = landmarks[:, :2]
    box = np.concatenate([flat.min(axis=0), flat.max(axis=0)]).astype(np.float32)
    pose = align.fit_head(landmarks).pose
    return Face(box=box, score=1.0, points=five_points(landmarks), landmarks=landmarks, presence=1.0, pose=pose)


def faces_in_media(path: Path, analyser: Analyser, limit: int, tick: Tick) -> Iterator[tuple[Image, Floats]]:
    """The largest face of pictures and of evenly spaced frames of videos, each cut out with its landmarks.

    Raises NoFaceError when there is none in any of them.
    """
    media = list_media([path])
    count = 0
    for number, file in enumerate(media):
        for image in sample_pictures(file, ceil(limit / len(media))):
            tick(number, len(media), f"Looking for the source's face in {file.name}")
            found = [f for f in analyser(image) if f.landmarks is not None]
            if found:
                count += 1
                cut, face = portrait(image, max(found, key=lambda f: float(np.prod(f.box[2:] - f.box[:2]))))
                assert face.landmarks is not None
                yield cut, face.landmarks
    if not count:
        raise NoFaceError(f"{path}: no face was found in it; name a clip or photos of the source person.")


def sample_pictures(file: Path, wanted: int) -> Iterator[Image]:
    """The picture itself, or about `wanted` evenly spaced frames of a video."""
    if not is_video(file):
        yield read_image(file)
        return
    info = probe(file)
    step = max(1, int(info.duration * info.fps) // wanted)
    yield from (frame.image for frame in read_frames(file) if frame.index % step == 0)


def portrait(image: Image, face: Face) -> tuple[Image, Face]:
    """The face with room around it, so that a sample of large frames stays small; never enlarged. And the face in that picture."""
    if face.landmarks is None:
        raise ValueError("the face has no landmarks yet: run a landmarker first")
    side = min(384, max(64, round(2.2 * float((face.box[2:] - face.box[:2]).max()))))
    crop = align.take_crop(image, face, side)
    return crop.image, face_from(align.apply(crop.frame_to_crop, face.landmarks).astype(np.float32))
