"""Who is who over a clip, which face is meant, and landmarks that stand still when the face does.

Three independent parts: `Tracker` and `follow` give every face a track number; `FaceChoice` names one face or track;
`landmark_motion` and `smooth_window` steady the landmarks of one track without lag.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from lib_vitface.errors import InputError, NoFaceError
from lib_vitface.faces import align, mesh
from lib_vitface.types import Face, Floats, Image, Pose

Item = TypeVar("Item")
Doubles = NDArray[np.float64]

SAME_PERSON = 0.363
"""Cosine of two SFace embeddings from which they count as one person (the model's published threshold)."""

# ---------------------------------------------------------------------------------------------------- tracking

_IDENTITY_WEIGHT = 2.5  # a full identity match outweighs a full overlap, so people who cross keep their numbers
_ACCEPT = 0.1  # least affinity of a match: a stranger at the same place stays below it
_REACH = 0.4  # distance in face sizes at which the place says nothing more
_EXEMPLARS = 8
_NEW_EXEMPLAR = 0.8  # below this cosine to all kept looks, a look is worth keeping
_YOUNG = 24  # frames within which a new track may still turn out to be somebody known
_SURE = 0.1  # cosine above the threshold that this takes
_CROWDED = 0.1  # overlap with another face from which a look may be mixed


@dataclass
class _Person:
    """What the tracker remembers of one track."""

    track: int
    face: Face
    velocity: Doubles  # [2] px per frame
    missed: int = 0
    seen: int = 1
    looks: list[Floats] = field(default_factory=list)
    last_look: Floats | None = None

    def predicted(self) -> Doubles:
        """Box `[4]` expected in the next frame; after misses the motion is believed less and less."""
        steps = sum(0.7**k for k in range(self.missed + 1))
        return self.face.box.astype(np.float64) + np.tile(self.velocity * steps, 2)

    def likeness(self, look: Floats | None) -> float | None:
        """Best cosine to the kept looks and to the one just before (which follows a slow turn or a hand)."""
        known = self.looks if self.last_look is None else [*self.looks, self.last_look]
        if look is None or not known:
            return None
        return float(max(np.dot(look, other) for other in known))


class Tracker:
    """Gives every face a track number, frame by frame (streaming, constant memory).

    Affinity is overlap and distance from the expected place, plus the identity cosine where embeddings are there; the
    best total assignment is found by the Hungarian method (`scipy.optimize.linear_sum_assignment`). A person who was
    hidden or left gets the old number back when the embedding says so; where that becomes clear only a little later (the
    face was half hidden at first), `renamed` says after an update which new number became which old one.
    `same_person` belongs to the embedder in use; `memory` is how many frames a place is remembered, `people` how many
    persons are (those seen longest are kept).
    """

    def __init__(self, *, same_person: float = SAME_PERSON, memory: int = 24, people: int = 64) -> None:
        self.same_person = same_person
        self.memory = memory
        self.people = people
        self.renamed: dict[int, int] = {}
        self._persons: list[_Person] = []
        self._next = 0

    def update(self, faces: Sequence[Face]) -> list[Face]:
        """The faces of the next frame with `track` set, in their order."""
        pairs = self._match(faces)
        result = []
        self.renamed = {}
        for column, face in enumerate(faces):
            crowded = any(overlap(face.box, other.box) > _CROWDED for other in faces if other is not face)
            person = pairs.get(column)
            if person is None:
                person = _Person(self._next, face, np.zeros(2))
                self._next += 1
                self._persons.append(person)
                _learn(person, face, crowded=False, same_person=-1.0)
            else:
                person = person if crowded else self._recognise(person, face)
                _advance(person, face)
                _learn(person, face, crowded, self.same_person)
            result.append(replace(face, track=person.track))
        self._forget({face.track for face in result})
        return result

    def _match(self, faces: Sequence[Face]) -> dict[int, _Person]:
        """Column (face) to person, for every pair of the best assignment that is good enough."""
        if not faces or not self._persons:
            return {}
        score = np.array([[self._affinity(person, face) for face in faces] for person in self._persons])
        rows, columns = linear_sum_assignment(np.maximum(score, 0), maximize=True)
        return {int(c): self._persons[r] for r, c in zip(rows, columns, strict=True) if score[r, c] > _ACCEPT}

    def _recognise(self, young: _Person, face: Face) -> _Person:
        """The absent person whom a new track turns out to be, now that the face is clear; else the track's own."""
        absent = [p for p in self._persons if p.missed and p.track < young.track]
        if young.seen > _YOUNG or not absent:
            return young
        alike = [p.likeness(face.embedding) or -1.0 for p in absent]
        best = int(np.argmax(alike))
        if alike[best] < self.same_person + _SURE:
            return young
        self._persons.remove(young)
        self.renamed[young.track] = absent[best].track
        return absent[best]

    def _affinity(self, person: _Person, face: Face) -> float:
        place = _nearness(person, face) if person.missed <= self.memory else 0.0
        cosine = person.likeness(face.embedding)
        if cosine is None:
            return place
        return place + _IDENTITY_WEIGHT * (cosine - self.same_person) / (1 - self.same_person)

    def _forget(self, present: set[int | None]) -> None:
        """Count the misses; people without a look end with their place, and only the longest seen are kept."""
        for person in self._persons:
            if person.track not in present:
                person.missed += 1
        kept = [p for p in self._persons if p.missed <= self.memory or p.looks]
        away = sorted((p for p in kept if p.missed), key=lambda p: -p.seen)[: self.people]
        names = {p.track for p in away}
        self._persons = [p for p in kept if not p.missed or p.track in names]


def _nearness(person: _Person, face: Face) -> float:
    """0..1 from the overlap with the expected box and the distance of the points from where they are expected."""
    expected = person.predicted()
    size = float(np.sqrt(_area(expected)))
    shift = _centre(expected) - _centre(person.face.box)
    gap = np.linalg.norm(face.points - (person.face.points + shift), axis=1).mean() / max(size, 1e-6)
    reach = _REACH * (1 + 0.1 * person.missed)
    return 0.5 * overlap(expected, face.box) + 0.5 * float(np.exp(-((gap / reach) ** 2)))


def _advance(person: _Person, face: Face) -> None:
    step = (_centre(face.box) - _centre(person.face.box)) / (person.missed + 1)
    near = person.missed == 0 or overlap(person.predicted(), face.box) > 0
    person.velocity = 0.5 * person.velocity + 0.5 * step if near else np.zeros(2)
    person.face, person.missed, person.seen = face, 0, person.seen + 1


def _learn(person: _Person, face: Face, crowded: bool, same_person: float) -> None:
    """Keep a look that is clean (nobody else near), surely this person, and new."""
    look = face.embedding
    if look is None:
        return
    known = max((float(np.dot(look, other)) for other in person.looks), default=1.0)
    if not crowded:
        person.last_look = look
    if not person.looks or (not crowded and same_person <= known < _NEW_EXEMPLAR):
        person.looks.append(look)
        if len(person.looks) > _EXEMPLARS:
            del person.looks[1]  # the first look started the track and stays


def _area(box: NDArray[np.floating]) -> float:
    return float(max(box[2] - box[0], 0) * max(box[3] - box[1], 0))


def _centre(box: NDArray[np.floating]) -> Doubles:
    return np.array([box[0] + box[2], box[1] + box[3]], dtype=np.float64) / 2


def overlap(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Intersection over union of two boxes `[4]`, 0..1."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    common = float(np.prod(np.maximum(high - low, 0)))
    union = _area(a) + _area(b) - common
    return common / union if union > 0 else 0.0


def follow(
    frames: Iterable[tuple[Item, Sequence[Face]]],
    tracker: Tracker | None = None,
    *,
    fill: int = 8,
    confirm: Callable[[Item, Face], Face | None] | None = None,
) -> Iterator[tuple[Item, list[Face]]]:
    """Tracked faces of every frame, in order, with misses of up to `fill` frames filled in by interpolation.

    A filled face has half the lower score of its two neighbours, no embedding and presence 0. `confirm(item, face)` may
    look again at the frame (e.g. a landmarker at the interpolated place) and return a better face, or None to reject it.
    At most `fill` + 1 frames are held back.
    """
    tracker = tracker or Tracker()
    waiting: deque[tuple[Item, list[Face]]] = deque()
    last: dict[int, tuple[int, Face]] = {}
    for index, (item, faces) in enumerate(frames):
        tracked = tracker.update(faces)
        waiting.append((item, tracked))
        for young, old in tracker.renamed.items():
            _rename(waiting, young, old)
            last[old] = last.pop(young, last.get(old, (index, tracked[0])))
        for face in tracked:
            assert face.track is not None
            before = last.get(face.track)
            if before is not None and 1 < index - before[0] <= fill + 1:
                _fill(waiting, index, before, face, confirm)
            last[face.track] = (index, face)
        last = {track: seen for track, seen in last.items() if index - seen[0] <= fill}
        if len(waiting) > fill + 1:
            yield waiting.popleft()
    yield from waiting


def _rename(waiting: deque[tuple[Item, list[Face]]], young: int, old: int) -> None:
    for _, faces in waiting:
        faces[:] = [replace(face, track=old) if face.track == young else face for face in faces]


def _fill(
    waiting: deque[tuple[Item, list[Face]]],
    index: int,
    before: tuple[int, Face],
    after: Face,
    confirm: Callable[[Item, Face], Face | None] | None,
) -> None:
    start, first = before
    for missing in range(start + 1, index):
        item, faces = waiting[len(waiting) - 1 - (index - missing)]
        guess: Face | None = between(first, after, (missing - start) / (index - start))
        if confirm is not None and guess is not None:
            guess = confirm(item, guess)
        if guess is not None:
            faces.append(replace(guess, track=after.track))


def between(a: Face, b: Face, part: float) -> Face:
    """The face `part` (0..1) of the way from `a` to `b`; half the lower score, presence 0, no embedding."""

    def mix(x: Floats, y: Floats) -> Floats:
        return ((1 - part) * x + part * y).astype(np.float32)

    both = a.landmarks is not None and b.landmarks is not None
    landmarks = mix(a.landmarks, b.landmarks) if both else None  # type: ignore[arg-type]
    pose = (
        Pose(*((1 - part) * x + part * y for x, y in zip(a.pose, b.pose, strict=True))) if a.pose and b.pose else None
    )
    return Face(
        box=mix(a.box, b.box),
        score=0.5 * min(a.score, b.score),
        points=mix(a.points, b.points),
        landmarks=landmarks,
        presence=0.0,
        pose=pose,
        track=a.track,
    )


# ------------------------------------------------------------------------------------------------ which face is meant


@dataclass(frozen=True)
class TrackSummary:
    """What is known of one track over a clip. `presence_px` is the sum of its box areas over the frames, `x` and `y` the
    mean centre, `embedding` [D] the mean look, unit length."""

    track: int
    frames: int
    presence_px: float
    x: float
    y: float
    embedding: Floats | None


def summarise(frames: Iterable[Sequence[Face]]) -> list[TrackSummary]:
    """One summary per track of tracked frames, in order of appearance."""
    sums: dict[int, tuple[int, float, Doubles, Floats | None]] = {}
    for faces in frames:
        for face in faces:
            if face.track is None:
                raise ValueError("the faces have no tracks yet: run a Tracker first")
            count, area, centre, look = sums.get(face.track, (0, 0.0, np.zeros(2), None))
            if face.embedding is not None:
                look = face.embedding if look is None else look + face.embedding
            sums[face.track] = (count + 1, area + _area(face.box), centre + _centre(face.box), look)
    return [
        TrackSummary(
            track, n, area, float(c[0] / n), float(c[1] / n), None if look is None else look / np.linalg.norm(look)
        )
        for track, (n, area, c, look) in sums.items()
    ]


CHOICES = ("largest", "left", "right", "top", "bottom", "reference", "track")


@dataclass(frozen=True)
class FaceChoice:
    """Names one face. `by` is one of `CHOICES`; `index` counts from 0 along that order ("left", 1 is the second from the
    left; "track", 3 is track 3); `reference` is a unit-length embedding `[D]` for "reference", where faces below the
    cosine `same_person` are nobody."""

    by: str = "largest"
    index: int = 0
    reference: Floats | None = None
    same_person: float = SAME_PERSON

    def __post_init__(self) -> None:
        if self.by not in CHOICES:
            raise InputError(f"A face cannot be chosen by {self.by!r}; choose one of {', '.join(CHOICES)}.")
        if self.by == "reference" and self.reference is None:
            raise InputError("Choosing a face by reference needs a reference picture of that face.")
        if self.index < 0:
            raise InputError(f"The index of the face to choose is {self.index}; it counts from 0.")

    def pick(self, faces: Sequence[Face]) -> Face | None:
        """The face meant in one picture, or None where it is not there."""
        rows = [_face_row(face) for face in faces]
        order = self._order(rows)
        return faces[order[0]] if order else None

    def pick_tracks(self, tracks: Sequence[TrackSummary]) -> frozenset[int]:
        """The tracks meant in a whole clip: one, or for "reference" every track of that person.

        Size means area times duration, so a face that leans into the picture for a second does not win. Raises
        NoFaceError where no track fits.
        """
        order = self._order([_Row(t.track, t.presence_px, t.x, t.y, t.embedding) for t in tracks])
        if not order:
            raise NoFaceError(
                f"No face of the clip fits the choice {self.by} {self.index}; {len(tracks)} were followed."
            )
        wanted = order if self.by == "reference" else order[:1]
        return frozenset(tracks[i].track for i in wanted)

    def _order(self, rows: Sequence[_Row]) -> list[int]:
        """Row numbers that fit, best first."""
        if self.by == "track":
            return [i for i, row in enumerate(rows) if row.track == self.index]
        if self.reference is not None and self.by == "reference":
            wanted = self.reference
            looks = [-1.0 if row.look is None else float(np.dot(row.look, wanted)) for row in rows]
            order = sorted(range(len(rows)), key=lambda i: -looks[i])
            return [i for i in order if looks[i] >= self.same_person][self.index :]
        keys = {
            "largest": lambda i: -rows[i].size,
            "left": lambda i: rows[i].x,
            "right": lambda i: -rows[i].x,
            "top": lambda i: rows[i].y,
            "bottom": lambda i: -rows[i].y,
        }
        return sorted(range(len(rows)), key=keys[self.by])[self.index :]


class _Row(NamedTuple):
    """A face or a track as a choice sees it."""

    track: int | None
    size: float
    x: float
    y: float
    look: Floats | None


def _face_row(face: Face) -> _Row:
    x, y = _centre(face.box)
    return _Row(face.track, _area(face.box), float(x), float(y), face.embedding)


# ------------------------------------------------------------------------------------------------ steady landmarks

_SPAN_S = 0.085  # standard deviation of the temporal weight
_RANGE_CM = 0.12  # how far a neighbour may differ (after motion was taken out) and still count: 4 to 5 times the noise
_HEAD_RANGE_CM = 0.08  # the same for the rigid motion, where no pixel motion is known
_FLOW_PX_PER_CM = 9.0
_FLOW_WINDOW = 11
_TURN_BACK_PX = 0.3
_DISAGREE_CM = 0.15  # pixel motion this far from the landmarks' own belongs to something else (hand, hair)
_LEAST_POINTS = 60
_HEAD_CORNERS_CM = np.array([[-7, 0, 0, 1], [7, 0, 0, 1], [0, 9, 0, 1], [0, -9, 0, 1], [0, 0, -5, 1]], dtype=np.float64)


def landmark_motion(before: Image, after: Image, landmarks_before: Floats, landmarks_after: Floats) -> Floats:
    """How far the pixels under each landmark move from one frame to the next: `[468, 2]` px, NaN where nothing can be said.

    Pyramidal Lucas-Kanade, started at the landmarks' own displacement, forwards and backwards (Kalal et al. 2010,
    "Forward-backward error"). Points without texture, or that follow something in front of the face, get the motion of
    the whole head: a linear model of displacement over (x, y, z), fitted with Tukey weights to the others.
    """
    a, b = np.asarray(landmarks_before, np.float64), np.asarray(landmarks_after, np.float64)
    scale = align.fit_head(landmarks_before).scale
    flow, sure = _pixel_flow(before, after, a[:, :2], b[:, :2], scale)
    own = b[:, :2] - a[:, :2]
    sure &= np.linalg.norm(flow - own, axis=1) < _DISAGREE_CM * scale
    if sure.sum() < _LEAST_POINTS:
        return np.full((len(a), 2), np.nan, dtype=np.float32)
    model = _head_flow(a, flow, sure, scale)
    return np.where(sure[:, None], flow, model).astype(np.float32)


def _pixel_flow(before: Image, after: Image, a: Doubles, b: Doubles, scale: float) -> tuple[Doubles, NDArray[np.bool_]]:
    """Displacement `[468, 2]` in px and whether it can be trusted, seen in a small grey crop about the face."""
    factor = min(1.0, _FLOW_PX_PER_CM / scale)
    both = np.concatenate([a, b])
    low, high = both.min(axis=0) - 3 * scale, both.max(axis=0) + 3 * scale
    size = np.ceil((high - low) * factor).astype(int)
    matrix = np.array([[factor, 0, -low[0] * factor], [0, factor, -low[1] * factor]])
    grey = [cv2.cvtColor(_cut(image, matrix, size), cv2.COLOR_RGB2GRAY) for image in (before, after)]
    start, guess = (((p - low) * factor).astype(np.float32)[:, None] for p in (a, b))
    settings: dict[str, Any] = {
        "winSize": (_FLOW_WINDOW, _FLOW_WINDOW),
        "maxLevel": 1,
        "criteria": (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 20, 0.01),
        "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
    }
    there, good, _ = cv2.calcOpticalFlowPyrLK(grey[0], grey[1], start, guess.copy(), **settings)
    back, good_back, _ = cv2.calcOpticalFlowPyrLK(grey[1], grey[0], there, start.copy(), **settings)
    returned = np.linalg.norm((back - start)[:, 0], axis=1) < _TURN_BACK_PX
    return (there - start)[:, 0].astype(np.float64) / factor, (good[:, 0] > 0) & (good_back[:, 0] > 0) & returned


def _cut(image: Image, matrix: Doubles, size: NDArray[np.int_]) -> Image:
    shape = (int(size[0]), int(size[1]))
    return cv2.warpAffine(image, matrix, shape, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)


def _head_flow(landmarks: Doubles, flow: Doubles, sure: NDArray[np.bool_], scale: float) -> Doubles:
    """Displacement `[468, 2]` of all landmarks by the robust linear model of the sure ones."""
    rows = np.concatenate([(landmarks - landmarks.mean(axis=0)) / scale, np.ones((len(landmarks), 1))], axis=1)
    weight = np.ones(int(sure.sum()))
    x, y = rows[sure], flow[sure]
    for _ in range(4):
        root = np.sqrt(weight)[:, None]
        model = np.linalg.lstsq(x * root, y * root, rcond=None)[0]
        miss = np.linalg.norm(y - x @ model, axis=1)
        limit = 4.7 * max(1.48 * float(np.median(miss)), 0.002 * scale)
        weight = np.clip(1 - (miss / limit) ** 2, 1e-3, None) ** 2
    return rows @ model


def smooth_window(
    landmarks: NDArray[np.floating],
    times: NDArray[np.floating],
    visible: NDArray[np.bool_],
    motion: NDArray[np.floating] | None = None,
) -> Floats:
    """Steady landmarks `[468, 3]` of the middle frame of a window.

    `landmarks` [2R+1, 468, 3] px, `times` [2R+1] seconds, `visible` [2R+1]; `motion` [2R, 468, 2] px as `landmark_motion`
    gives it for each step. Neighbours are first carried to the middle frame (by the pixel motion, or without it by the
    head fit), then averaged with weights that fall with time and with the remaining difference of each point, so a
    blink or a closing mouth, which the carrying does not explain, is left as it was seen. No lag: the window is centred.
    """
    middle = len(landmarks) // 2
    if not visible[middle]:
        return np.asarray(landmarks[middle], dtype=np.float32)
    points = np.where(visible[:, None, None], landmarks, landmarks[middle]).astype(np.float64)
    near = np.exp(-0.5 * ((np.asarray(times, np.float64) - float(times[middle])) / _SPAN_S) ** 2)
    near = np.where(visible, near, 0.0)
    scale = align.fit_head(points[middle].astype(np.float32)).scale
    if motion is not None:
        return _by_motion(points, near, np.asarray(motion, np.float64), scale)
    return _by_head(points, near, scale)


def _by_motion(points: Doubles, near: Doubles, motion: Doubles, scale: float) -> Floats:
    """Average of the neighbours after the pixel motion carried them to the middle frame."""
    middle = len(points) // 2
    carried = points.copy()
    for side, sign in ((range(middle - 1, -1, -1), 1), (range(middle + 1, len(points)), -1)):
        total = np.zeros((points.shape[1], 2))
        known = True
        for k in side:
            step = motion[k if sign > 0 else k - 1]
            known = known and near[k] > 0 and bool(np.isfinite(step).all())
            near[k] *= known
            if known:
                total += sign * step
                carried[k, :, :2] += total
    return _average(carried, near, scale).astype(np.float32)


def _by_head(points: Doubles, near: Doubles, scale: float) -> Floats:
    """Rigid motion and expression averaged apart; fast rigid motion is hardly touched."""
    middle = len(points) // 2
    fits = [align.fit_head(frame.astype(np.float32)) for frame in points]
    heads = np.stack([np.hstack([fit.scale * fit.rotation, fit.shift[:, None]]) for fit in fits])
    places = np.stack([_HEAD_CORNERS_CM @ head.T for head in heads])
    gap = np.sqrt(((places - places[middle]) ** 2).sum(axis=2).mean(axis=1)) / scale
    weight = near * np.exp(-0.5 * (gap / _HEAD_RANGE_CM) ** 2)
    head = (heads * (weight / weight.sum())[:, None, None]).sum(axis=0)
    local = np.stack([(p - fit.shift) @ fit.rotation / fit.scale for p, fit in zip(points, fits, strict=True)])
    shape = _average(local, near, 1.0)
    return (shape @ head[:, :3].T + head[:, 3]).astype(np.float32)


def _average(frames: Doubles, near: Doubles, unit: float) -> Doubles:
    """Weighted mean `[468, 3]` of `[2R+1, 468, 3]`; `unit` is how long a centimetre is.

    The weight of a point falls with how far its surroundings differ from the middle frame in the picture plane, and near
    the eyes and the mouth also with how differently wide these are open, which head motion cannot change.
    """
    middle = len(frames) // 2
    gap = ((frames[:, :, :2] - frames[middle, :, :2]) ** 2).sum(axis=2)
    doubt = gap[:, _surroundings()].mean(axis=2) / (_RANGE_CM * unit) ** 2
    for organ in _ORGANS:
        pairs = frames[:, organ.upper, :2] - frames[:, organ.lower, :2]
        width = np.sqrt((pairs**2).sum(axis=2)).mean(axis=1)
        doubt[:, organ.region()] += (((width - width[middle]) / (organ.reach_cm * unit)) ** 2)[:, None]
    weight = near[:, None] * np.exp(-0.5 * doubt)
    return (frames * weight[:, :, None]).sum(axis=0) / weight.sum(axis=0)[:, None]


@dataclass(frozen=True)
class _Organ:
    """Something that opens: mean distance between `upper` and `lower` points, and the mesh points about `loop` it moves.
    `reach_cm` is 4 to 5 times the noise of that distance on the sample clips."""

    upper: tuple[int, ...]
    lower: tuple[int, ...]
    loop: tuple[int, ...]
    reach_cm: float

    @lru_cache(maxsize=8)  # noqa: B019 - a handful of module-level values
    def region(self) -> NDArray[np.intp]:
        points = mesh.vertices().astype(np.float64)
        distance = np.sqrt(((points[:, None] - points[list(self.loop)]) ** 2).sum(axis=2)).min(axis=1)
        return np.flatnonzero(distance < _ORGAN_REGION_CM)


_ORGAN_REGION_CM = 0.8
_ORGANS = (
    _Organ((158, 159, 160), (153, 145, 144), mesh.RIGHT_EYE, 0.045),
    _Organ((385, 386, 387), (380, 374, 373), mesh.LEFT_EYE, 0.045),
    _Organ((82, 13, 312), (87, 14, 317), mesh.LIPS_OUTER, 0.06),
    _Organ((61,), (291,), mesh.LIPS_OUTER, 0.12),
)


@lru_cache(maxsize=1)
def _surroundings() -> NDArray[np.intp]:
    """The nearest mesh points of each point (itself first) `[468, 6]`."""
    points = mesh.vertices().astype(np.float64)
    return np.argsort(((points[:, None] - points[None]) ** 2).sum(axis=2), axis=1, kind="stable")[:, :6]
