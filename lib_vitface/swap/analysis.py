"""First look at a video: every face of every frame, and how its pixels move, in one file per chunk of frames.

Each frame needs only itself and the frame before, so the work can stop after any chunk and go on later with the same
result to the last bit. Who is who is not asked here (see `plan.py`): that needs the whole video and is quick.
"""

from __future__ import annotations

import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import CheckpointError
from lib_vitface.faces import mesh
from lib_vitface.faces.landmarks import NO_IRISES
from lib_vitface.faces.parse import Hand, HandFinder
from lib_vitface.faces.track import landmark_motion, overlap
from lib_vitface.media.container import beside, writing
from lib_vitface.types import Embedder, Face, Floats, Frame, Image, Landmarker, Pose

THUMB = (32, 18)
_MAX_FACES = 16
# SFace takes longer than finding the face; one look a half second is enough unless people are close to each other.
_LOOK_EVERY, _LOOK_EVERY_AMONG_MANY = 12, 3
# A face that the detector misses is followed by its landmarks; each frame of that is believed less.
_FOLLOW_DECAY, _LEAST_SCORE, _LEAST_PRESENCE = 0.9, 0.2, 0.5
_SAME_FACE = 0.3


@dataclass(frozen=True)
class Seen:
    """What was found in one frame. `before[k]` is the place of face k among the faces of the frame before, or -1, and
    `motion[k]` [468, 2] how far its landmarks moved since (px, NaN where unknown). `thumb` is a tiny grey picture. `hands` are
    those near a face, where they were looked for."""

    time_s: float
    thumb: Image
    faces: tuple[Face, ...]
    before: tuple[int, ...]
    motion: Floats
    hands: tuple[Hand, ...] = ()


class HandWatch(HandFinder):
    """Hands near the faces of a video, one frame after the other, and from any frame on."""

    def watch(self, image: Image, index: int, faces: Sequence[Face], known: Sequence[Hand]) -> tuple[Hand, ...]:
        """Hands of frame `index`, given those of the frame before. Several faces take turns in being searched about."""
        if not faces:
            return ()
        self._hands, self._count = list(known), index
        return tuple(self(image, faces[index // self.every % len(faces)].box))


class Observer:
    """Looks at the frames of a video in order. `analyse` gives faces with landmarks, `landmarker` looks at a known place,
    `hands` (if given) for hands."""

    def __init__(
        self,
        analyse: Callable[[Image], list[Face]],
        landmarker: Landmarker,
        embedder: Embedder,
        hands: HandWatch | None = None,
    ) -> None:
        self._analyse = analyse
        self._landmarker = landmarker
        self._embedder = embedder
        self._hands = hands
        self._image: Image | None = None
        self._last: Seen | None = None

    def go_on_from(self, image: Image, seen: Seen) -> None:
        """Continue after a frame that was analysed before."""
        self._image, self._last = image, seen

    def __call__(self, frame: Frame) -> Seen:
        image = frame.image
        known = () if self._last is None else self._last.faces
        faces = self._analyse(image)[:_MAX_FACES]
        faces += self._followed(image, known, faces)
        before = tuple(_link(known, faces))
        faces = [self._with_look(image, frame.index, k, faces, before) for k in range(len(faces))]
        motion = np.full((len(faces), mesh.POINT_COUNT, 2), np.nan, np.float32)
        for k, j in enumerate(before):
            a, b = (None, None) if j < 0 else (known[j].landmarks, faces[k].landmarks)
            if self._image is not None and a is not None and b is not None:
                motion[k] = landmark_motion(self._image, image, a, b)
        thumb = np.asarray(
            cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), THUMB, interpolation=cv2.INTER_AREA), np.uint8
        )
        held = () if self._last is None else self._last.hands
        hands = () if self._hands is None else self._hands.watch(image, frame.index, faces, held)
        self._image = image
        self._last = Seen(float(frame.time), thumb, tuple(faces), before, motion, hands)
        return self._last

    def _followed(self, image: Image, known: Sequence[Face], found: Sequence[Face]) -> list[Face]:
        """Faces of the frame before that the detector misses but the landmarker still sees at their place."""
        result: list[Face] = []
        for face in known:
            if any(overlap(face.box, other.box) > _SAME_FACE for other in [*found, *result]):
                continue
            score = face.score * _FOLLOW_DECAY
            if score < _LEAST_SCORE or len(found) + len(result) >= _MAX_FACES:
                continue
            again = self._landmarker(image, replace(face, embedding=None))
            near = overlap(face.box, again.box) > _SAME_FACE
            if near and (again.presence or 0.0) >= _LEAST_PRESENCE and not _covers(again, found):
                result.append(replace(again, score=score))
        return result

    def _with_look(self, image: Image, index: int, k: int, faces: Sequence[Face], before: Sequence[int]) -> Face:
        crowd = any(overlap(_wide(faces[k]), _wide(other)) > 0 for j, other in enumerate(faces) if j != k)
        every = 1 if crowd or before[k] < 0 else _LOOK_EVERY if len(faces) == 1 else _LOOK_EVERY_AMONG_MANY
        if index % every:
            return replace(faces[k], embedding=None)
        return replace(faces[k], embedding=self._embedder(image, faces[k]))


def _covers(face: Face, found: Sequence[Face]) -> bool:
    return any(overlap(face.box, other.box) > _SAME_FACE for other in found)


def _wide(face: Face) -> Floats:
    size = face.box[2:] - face.box[:2]
    return np.concatenate([face.box[:2] - 0.25 * size, face.box[2:] + 0.25 * size])


def _link(known: Sequence[Face], faces: Sequence[Face]) -> list[int]:
    """For each face the best overlapping one of the frame before, each of those once, best pairs first; else -1."""
    pairs = [(overlap(a.box, b.box), j, k) for j, a in enumerate(known) for k, b in enumerate(faces)]
    result, used = [-1] * len(faces), set()
    for score, j, k in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
        if score > _SAME_FACE and result[k] < 0 and j not in used:
            result[k] = j
            used.add(j)
    return result


# ---------------------------------------------------------------------------------------------------------- on disk


def save_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """One `.npz`, whole or not at all. Raises `OutputError` when the disk is full."""
    with beside(path) as temporary, writing(path), temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def save_seen(path: Path, frames: Sequence[Seen]) -> None:
    """A chunk of analysed frames. Written atomically."""
    faces = [face for seen in frames for face in seen.faces]
    size = next((len(face.embedding) for face in faces if face.embedding is not None), 0)
    arrays: dict[str, NDArray[Any]] = {
        "count": np.array([len(seen.faces) for seen in frames], np.int16),
        "time_s": np.array([seen.time_s for seen in frames], np.float64),
        "thumb": np.stack([seen.thumb for seen in frames]),
        "before": np.array([j for seen in frames for j in seen.before], np.int16),
        "motion": np.concatenate([seen.motion for seen in frames]).astype(np.float16),
        "box": _stack([face.box for face in faces], (4,)),
        "score": np.array([face.score for face in faces], np.float64),
        "points": _stack([face.points for face in faces], (5, 2)),
        "landmarks": _stack([face.landmarks for face in faces], (mesh.POINT_COUNT, 3)),
        "iris": _stack([NO_IRISES if face.iris is None else face.iris for face in faces], (2, 2)),
        "presence": np.array([face.presence for face in faces], np.float64),
        "pose": np.array([face.pose for face in faces], np.float64).reshape(-1, 3),
        "looked": np.array([face.embedding is not None for face in faces], np.bool_),
        "embedding": _stack([face.embedding for face in faces if face.embedding is not None], (size,)),
        "hand_count": np.array([len(seen.hands) for seen in frames], np.int16),
        "hand_points": _stack([hand.points for seen in frames for hand in seen.hands], (21, 2)),
        "hand_presence": np.array([hand.presence for seen in frames for hand in seen.hands], np.float64),
    }
    save_arrays(path, arrays)


def _stack(rows: Sequence[Floats | None], shape: tuple[int, ...]) -> Floats:
    return np.array(rows, np.float32).reshape(len(rows), *shape)


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz`. Raises `CheckpointError` when it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: is damaged ({error}); run again with --no-resume.") from None


def load_seen(path: Path) -> list[Seen]:
    """A chunk as `save_seen` wrote it; numbers come back to the last bit, except that motion was rounded to half floats."""
    data = load_arrays(path)
    looks = iter(data["embedding"])
    faces = [
        Face(
            box=data["box"][k],
            score=float(data["score"][k]),
            points=data["points"][k],
            landmarks=data["landmarks"][k],
            iris=data["iris"][k],
            presence=float(data["presence"][k]),
            pose=Pose(*(float(angle) for angle in data["pose"][k])),
            embedding=next(looks) if data["looked"][k] else None,
        )
        for k in range(len(data["score"]))
    ]
    hands = [Hand(p, float(q)) for p, q in zip(data["hand_points"], data["hand_presence"], strict=True)]
    held = _parts(data["hand_count"])
    return [
        Seen(
            float(data["time_s"][i]),
            data["thumb"][i],
            tuple(faces[part]),
            tuple(int(j) for j in data["before"][part]),
            data["motion"][part].astype(np.float32),
            tuple(hands[held[i]]),
        )
        for i, part in enumerate(_parts(data["count"]))
    ]


def _parts(counts: NDArray[np.int16]) -> list[slice]:
    """Where the things of each frame lie in an array that holds those of all frames."""
    ends = np.cumsum(counts)
    return [slice(int(end - count), int(end)) for end, count in zip(ends, counts, strict=True)]


class ChunkReader:
    """Random access to things kept in files of `chunk` frames each, with the last few files in memory. For several threads."""

    def __init__(
        self, name: Callable[[int], Path], load: Callable[[Path], Sequence[Any]], chunk: int, keep: int = 3
    ) -> None:
        self._name, self._load, self._chunk, self._keep = name, load, chunk, keep
        self._loaded: OrderedDict[int, Sequence[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> Any:
        number = index // self._chunk
        with self._lock:
            if number not in self._loaded:
                self._loaded[number] = self._load(self._name(number))
                while len(self._loaded) > self._keep:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(number)
            return self._loaded[number][index % self._chunk]

    def run(self, count: int) -> Iterator[Any]:
        """The first `count` items in order."""
        for index in range(count):
            yield self[index]
