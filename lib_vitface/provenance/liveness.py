"""Whether a clip shows one living person doing what was asked, in that order: turned heads, blinking, a moving mouth.

The clip is looked at once (`watch`); what happened in it (`events`) is then held against what was asked for (`check`). Blinks are
dips of the eye aspect ratio (Soukupová and Čech 2016, "Real-Time Eye Blink Detection using Facial Landmarks"), taken with the head's
rotation undone. Of reading aloud only the mouth's movement is seen; what is said is not heard.

It shows that the clip was made after the prompts were, not who the person is; a face that is synthesised while it is filmed can do
all of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib_vitface import media
from lib_vitface.assets import digest
from lib_vitface.errors import ConsentError, InputError, NoFaceError
from lib_vitface.faces import align
from lib_vitface.faces.analyse import MIN_PRESENCE, Analyser
from lib_vitface.faces.embed import unit
from lib_vitface.faces.track import SAME_PERSON
from lib_vitface.provenance.challenge import HEADS, Challenge, Prompt
from lib_vitface.types import Embedder, Face, Floats, Frame, Image, Tick

Doubles = NDArray[np.float64]

SHORTEST_S, LONGEST_S = 4.0, 60.0
LEAST_RATE = 10.0  # frames a second; a blink lasts 0.1 to 0.4 s
_RATE = 20.0  # frames a second that are looked at
_LOOK_S = 0.4  # between looks at who it is, and whether somebody else is there
_PAUSE_S = 0.6  # frames further apart: the clip was cut, or the face lost
_JUMP = 0.6  # of the face's size from one frame to the next
_JUMP_DEG = 40.0  # likewise; a head turns by up to 300 degrees a second
_OTHER_SIZE = 0.3  # of the person's face, from which another face counts
_TURN_DEG, _NOD_DEG = 20.0, 12.0  # from where the head is mostly, from which a turn counts as one
_STRAIGHT = 0.5  # of that, below which the head looks straight again
_SHORTEST_TURN_S = 0.15
_SHUT, _OPEN = 0.65, 0.8  # of the open eyes' ratio: shut below the first, open again above the second
_LONGEST_BLINK_S = 0.9
_BURST_S = 1.2  # between blinks, or openings of the mouth, that belong together
_OPENING_CM = 0.2  # by which the mouth opens and shuts as one speaks
_LEAST_OPENINGS = 3
_LONGEST_WAIT_S = 15.0  # between one prompt's end and the next one's beginning
_SLACK_S = 0.25  # by which neighbours may overlap
_SIDE_DEG, _SAME_SIDE = 30.0, 0.2  # yaw from which a face is less like itself, and the least cosine there
_STILL_DEG, _STILL_LIDS, _STILL_CM = 4.0, 0.07, 0.2  # range within which nothing moved

_EYES = ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380))
"""Mesh points of the paper's p1 to p6: outer or inner corner, two of the upper lid, the other corner, two of the lower lid."""
_LIPS = (13, 14)


@dataclass(frozen=True)
class Watched:
    """One face over a clip. `times` [N] seconds, `yaw` and `pitch` [N] degrees (see `Pose`), `lids` [N] eye aspect ratio, `mouth` [N]
    gap of the lips in cm, `place` [N, 3] middle and size of the face in px; `looks` [M, 128] embeddings and `look_times` [M];
    `others` is how often somebody else was there, too."""

    times: Doubles
    yaw: Doubles
    pitch: Doubles
    lids: Doubles
    mouth: Doubles
    place: Doubles
    looks: Floats
    look_times: Doubles
    others: int = 0


@dataclass(frozen=True)
class Event:
    """Something the face did from `start` to `end` (seconds): one of `HEADS`, "blink" or "read"; `count` blinks or openings."""

    kind: str
    start: float
    end: float
    count: int = 1


def length_of(path: Path) -> float:
    """How many seconds a clip lasts. Raises `InputError` for what is no clip, `ConsentError` for one too short or too long."""
    if not path.is_file() or not media.is_video(path):
        raise InputError(f"{path}: is no video; film the prompts, a picture cannot show them.")
    length = float(media.probe(path).duration)
    if not SHORTEST_S <= length <= LONGEST_S:
        raise ConsentError(
            f"{path}: lasts {length:.1f} s, and what is asked for takes {SHORTEST_S:.0f} to {LONGEST_S:.0f} s; film all of it at once."
        )
    return length


def watch(path: Path, analyser: Analyser, embedder: Embedder, tick: Tick) -> Watched:
    """Follows the largest face through a clip. `analyser` needs no embedder of its own.

    Raises as `length_of` does, `NoFaceError` where the face is not there all the time, `ConsentError` for too few frames.
    """
    length = length_of(path)
    seen = _Seen(path, analyser, embedder)
    count = 0
    for frame in media.read_frames(path):
        count += 1
        tick(min(float(frame.time), length), length, f"Looking at {path.name}")
        seen.add(frame)
    if (count - 1) / max(seen.last, 1e-3) < LEAST_RATE:
        raise ConsentError(f"{path}: has too few frames for blinks to show; film at {LEAST_RATE:.0f} a second or more.")
    return seen.all()


class _Seen:
    """Gathers what `Watched` holds, frame by frame."""

    def __init__(self, path: Path, analyser: Analyser, embedder: Embedder) -> None:
        self.path, self.analyser, self.embedder = path, analyser, embedder
        self.rows: list[list[float]] = []
        self.looks: list[Floats] = []
        self.look_times: list[float] = []
        self.others = 0
        self.last = 0.0
        self._face: Face | None = None
        self._due = self._look_due = 0.0

    def add(self, frame: Frame) -> None:
        time = self.last = float(frame.time)
        if time < self._due:
            return
        self._due = max(self._due + 1 / _RATE, time)
        looking = time >= self._look_due
        face = self._find(frame.image, looking)
        if face is None:
            return
        self._face = face
        self.rows.append([time, *_measured(face)])
        if looking:
            self._look_due = time + _LOOK_S
            self.looks.append(self.embedder(frame.image, face))
            self.look_times.append(time)

    def _find(self, image: Image, looking: bool) -> Face | None:
        """The face followed from the frame before. Where `looking`, all faces are searched for and strangers counted."""
        before = self._face
        followed = self.analyser.follow(image, [before]) if before is not None else self.analyser(image)
        if not followed:
            self._face = None
            return None
        face = max(followed, key=_size)
        if looking:
            self.others += any(self._is_stranger(image, other, face) for other in self.analyser.detector(image))
        return face

    def _is_stranger(self, image: Image, other: Face, face: Face) -> bool:
        if _size(other) < _OTHER_SIZE * _size(face) or not _apart(other, face):
            return False
        return (self.analyser.landmarker(image, other).presence or 0) >= MIN_PRESENCE

    def all(self) -> Watched:
        if len(self.rows) < 2 or len(self.looks) < 2:
            raise NoFaceError(
                f"{self.path}: no face was found that stays; film your face from the front, in good light."
            )
        values = np.array(self.rows)
        gaps = np.diff(np.append(values[:, 0], self.last))
        if values[0, 0] > _PAUSE_S or gaps.max() > _PAUSE_S:
            at = 0.0 if values[0, 0] > _PAUSE_S else float(values[gaps.argmax(), 0])
            raise NoFaceError(
                f"{self.path}: from {at:.1f} s on no face is seen for a while; keep the whole face in view, and turn less far."
            )
        times, yaw, pitch, lids, mouth = values[:, :5].T
        looks, look_times = np.stack(self.looks), np.array(self.look_times)
        return Watched(times, yaw, pitch, lids, mouth, values[:, 5:], looks, look_times, self.others)


def _size(face: Face) -> float:
    return float((face.box[2:] - face.box[:2]).max())


def _apart(one: Face, other: Face) -> bool:
    """Whether two boxes are of two faces: neither's middle lies in the other."""
    middles = [(face.box[:2] + face.box[2:]) / 2 for face in (one, other)]
    inside = [
        bool((m >= f.box[:2]).all() and (m <= f.box[2:]).all()) for m, f in zip(middles, (other, one), strict=True)
    ]
    return not any(inside)


def _measured(face: Face) -> list[float]:
    """Yaw, pitch, lids, mouth, and the place, as `Watched` has them."""
    if face.landmarks is None:
        raise ValueError("the face has no landmarks yet: run a landmarker first")
    fit = align.fit_head(face.landmarks)
    points = fit.canonical(face.landmarks)[:, :2]
    lids = float(np.mean([eye_ratio(points[list(eye)]) for eye in _EYES]))
    mouth = float(np.linalg.norm(points[_LIPS[0]] - points[_LIPS[1]]))
    middle = fit.shift[:2]
    return [fit.pose.yaw_deg, fit.pose.pitch_deg, lids, mouth, *middle, fit.scale * align.HEIGHT_CM]


def eye_ratio(points: Doubles) -> float:
    """The eye aspect ratio of p1 to p6 `[6, 2]`: mean height of the opening by its width."""
    p1, p2, p3, p4, p5, p6 = points
    heights = np.linalg.norm(p2 - p6) + np.linalg.norm(p3 - p5)
    return float(heights / max(2 * float(np.linalg.norm(p1 - p4)), 1e-9))


# ----------------------------------------------------------------------------------------------------- what happened


def events(watched: Watched) -> list[Event]:
    """Movements of the head, bursts of blinks and runs of openings of the mouth, in order of their beginning."""
    away = _away(watched)
    found = [*_turns(watched.times, *away), *_blinks(watched, away), *_openings(watched)]
    return sorted(found, key=lambda event: event.start)


def _away(watched: Watched) -> tuple[Doubles, Doubles]:
    """Yaw and pitch from where the head mostly is, as parts of what counts as a turn; single outliers taken out."""
    yaw, pitch = (_median3(angle - np.median(angle)) for angle in (watched.yaw, watched.pitch))
    return yaw / _TURN_DEG, pitch / _NOD_DEG


def _median3(values: Doubles) -> Doubles:
    padded = np.pad(values, 1, mode="edge")
    return np.asarray(np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0))


def _turns(times: Doubles, yaw: Doubles, pitch: Doubles) -> list[Event]:
    """Each time the head goes away and to one side; a swing through the middle to another side counts as two."""
    found: list[Event] = []
    size = np.maximum(np.abs(yaw), np.abs(pitch))
    for begin, end in _runs(size > _STRAIGHT):
        side = [
            _side(y, p) if s >= 1 else ""
            for y, p, s in zip(yaw[begin:end], pitch[begin:end], size[begin:end], strict=True)
        ]
        parts = [(kind, list(group)) for kind, group in itertools.groupby(range(end - begin), lambda k: side[k])]  # noqa: B023
        lobes = [(kind, begin + g[0], begin + g[-1]) for kind, g in parts if kind]
        for kind, first, last in lobes:
            if found and found[-1].kind == kind and found[-1].end >= times[begin]:
                found[-1] = Event(kind, found[-1].start, float(times[last]))
            else:
                found.append(Event(kind, float(times[first]), float(times[last])))
    return [event for event in found if event.end - event.start >= _SHORTEST_TURN_S]


def _side(yaw: float, pitch: float) -> str:
    """The person's own side: towards the viewer's right is their left."""
    if abs(yaw) >= abs(pitch):
        return "left" if yaw > 0 else "right"
    return "up" if pitch > 0 else "down"


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Begin and end (one past the last) of each run of true values."""
    steps = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    return list(zip(np.flatnonzero(steps == 1).tolist(), np.flatnonzero(steps == -1).tolist(), strict=True))


def _blinks(watched: Watched, away: tuple[Doubles, Doubles]) -> list[Event]:
    """Bursts of blinks while the head looks straight."""
    straight = np.maximum(np.abs(away[0]), np.abs(away[1])) < 1
    if not straight.any():
        return []
    lids = watched.lids / max(float(np.percentile(watched.lids[straight], 80)), 1e-6)
    single: list[Event] = []
    begin: int | None = None
    for k, (ratio, counts) in enumerate(zip(lids, straight, strict=True)):
        if not counts or (ratio > _OPEN and begin is not None):
            if counts and begin is not None and watched.times[k] - watched.times[begin] <= _LONGEST_BLINK_S:
                single.append(Event("blink", float(watched.times[begin]), float(watched.times[k])))
            begin = None
        elif ratio < _SHUT and begin is None:
            begin = k
    return _together(single)


def _openings(watched: Watched) -> list[Event]:
    """Runs of openings of the mouth, as speech has them."""
    from scipy.signal import find_peaks

    peaks, _ = find_peaks(_median3(watched.mouth), prominence=_OPENING_CM)
    single = [Event("read", float(watched.times[k]), float(watched.times[k])) for k in peaks]
    return [event for event in _together(single) if event.count >= _LEAST_OPENINGS]


def _together(single: Sequence[Event]) -> list[Event]:
    """Neighbours that follow each other closely as one."""
    found: list[Event] = []
    for event in single:
        if found and event.start - found[-1].end <= _BURST_S:
            found[-1] = Event(event.kind, found[-1].start, event.end, found[-1].count + event.count)
        else:
            found.append(event)
    return found


# ------------------------------------------------------------------------------------------------------------ checking


def check(prompts: Sequence[Prompt], watched: Watched, path: Path) -> list[Event]:
    """What answers each prompt, in order. Raises `ConsentError` in one sentence where something does not."""
    _check_one_take(watched, path)
    _check_one_person(watched, path)
    _check_moving(watched, path)
    found = events(watched)
    _check_turns([p.kind for p in prompts if p.kind in HEADS], [e.kind for e in found if e.kind in HEADS], path)
    return _answers(prompts, found, path)


def told(challenge: Challenge, answers: Sequence[Event], path: Path) -> str:
    """What a record says of it: the challenge, what was asked for and when in the clip it was done, and the clip's SHA-256."""
    done = "; ".join(
        f"{number}. {prompt.text} ({event.start:.1f} to {event.end:.1f} s)"
        for number, (prompt, event) in enumerate(zip(challenge.prompts, answers, strict=True), 1)
    )
    asked = f"challenge {challenge.id} of {challenge.issued_text}"
    return f"live: {asked}; {done}; of reading only the mouth is seen; clip {digest(path)}"


def reference(watched: Watched) -> Floats:
    """Unit mean embedding [128] of the face as it looks straight; of all looks where it seldom does.

    Where there are several people, of the one seen most: a mean of two would be like both.
    """
    yaw, pitch = (np.abs(np.interp(watched.look_times, watched.times, part)) for part in _away(watched))
    straight = np.maximum(yaw, pitch) < _STRAIGHT
    looks = watched.looks[straight] if straight.sum() >= 3 else watched.looks
    alike = looks @ looks.T >= SAME_PERSON
    return unit(looks[alike[int(alike.sum(axis=1).argmax())]].mean(axis=0))


def _check_one_take(watched: Watched, path: Path) -> None:
    size = watched.place[:-1, 2]
    moved = np.linalg.norm(np.diff(watched.place[:, :2], axis=0), axis=1) / size
    grown = np.abs(np.diff(watched.place[:, 2])) / size
    turned = np.maximum(np.abs(np.diff(watched.yaw)), np.abs(np.diff(watched.pitch))) / _JUMP_DEG
    jump = np.maximum(np.maximum(moved, grown) / _JUMP, turned)
    if jump.max() > 1:
        at = float(watched.times[int((jump > 1).argmax()) + 1])
        raise ConsentError(
            f"{path}: the face jumps at {at:.1f} s; film it in one take, without a cut, and move calmly."
        )


def _check_one_person(watched: Watched, path: Path) -> None:
    if watched.others >= 2:
        raise ConsentError(f"{path}: somebody else is in the picture, too; be alone before the camera.")
    yaw = np.interp(watched.look_times, watched.times, np.abs(watched.yaw))
    alike = watched.looks @ reference(watched) >= np.where(yaw < _SIDE_DEG, SAME_PERSON, _SAME_SIDE)
    strange = _runs(~alike)
    if any(end - begin >= 2 for begin, end in strange):
        at = float(watched.look_times[next(begin for begin, end in strange if end - begin >= 2)])
        raise ConsentError(f"{path}: from {at:.1f} s on it is another face; one person does all that is asked for.")


def _check_moving(watched: Watched, path: Path) -> None:
    spreads = [float(np.ptp(_median3(v))) for v in (watched.yaw, watched.pitch, watched.lids, watched.mouth)]
    limits = (_STILL_DEG, _STILL_DEG, _STILL_LIDS, _STILL_CM)
    if all(spread < limit for spread, limit in zip(spreads, limits, strict=True)):
        raise ConsentError(
            f"{path}: shows a face that does not move, as a photograph would; film yourself doing what is asked."
        )


def _check_turns(asked: list[str], seen: list[str], path: Path) -> None:
    """The movements of the head must be those that were asked for, and no others: a clip of all of them answers nothing."""
    if seen == asked:
        return
    other = {"left": "right", "right": "left", "up": "up", "down": "down"}
    if [other[kind] for kind in seen] == asked:
        raise ConsentError(
            f"{path}: every turn is to the other side; left is your own left, and the clip must not be mirrored."
        )
    if sorted(seen) == sorted(asked):
        raise ConsentError(f"{path}: the head moved {_said(seen)}, and asked for was {_said(asked)}; keep the order.")
    missing = [kind for kind in HEADS if seen.count(kind) < asked.count(kind)]
    if missing:
        raise ConsentError(
            f"{path}: the head moved {_said(seen)}, and asked for was {_said(asked)}; turn further, and stay there a moment."
        )
    raise ConsentError(
        f"{path}: the head moved {_said(seen)}, and asked for was only {_said(asked)}; leave out the rest."
    )


def _said(kinds: Sequence[str]) -> str:
    return ", ".join(kinds) or "nowhere"


def _answers(prompts: Sequence[Prompt], found: Sequence[Event], path: Path) -> list[Event]:
    """One event per prompt, each after the one before; every turn is one of them, so what is between turns stays there."""
    answers: list[Event] = []
    turns = iter([event for event in found if event.kind in HEADS])
    limits = _limits(prompts, [event for event in found if event.kind in HEADS])
    for number, (prompt, before) in enumerate(zip(prompts, limits, strict=True), 1):
        after = answers[-1].end if answers else -_SLACK_S
        if prompt.kind in HEADS:
            event: Event | None = next(turns)
        else:
            there = (e for e in found if e.start >= after - _SLACK_S and e.end <= before + _SLACK_S)
            event = next((e for e in there if fits(prompt, e)), None)
        if event is None:
            raise ConsentError(
                f"{path}: “{prompt.text}” (prompt {number}) is not seen in its place; {_REMEDIES[prompt.kind]}."
            )
        if answers and event.start - after > _LONGEST_WAIT_S:
            raise ConsentError(
                f"{path}: “{prompt.text}” (prompt {number}) came {event.start - after:.0f} s after the one before; "
                f"go on within {_LONGEST_WAIT_S:.0f} s."
            )
        answers.append(event)
    return answers


_REMEDIES = {
    "blink": "look straight, and shut and open both eyes that often, no more",
    "read": "open the mouth clearly as you read, looking straight, and be silent otherwise",
}


def _limits(prompts: Sequence[Prompt], turns: Sequence[Event]) -> list[float]:
    """For each prompt when the next turn of the head begins, in seconds."""
    limits, left = [], list(turns)
    for prompt in prompts:
        if prompt.kind in HEADS:
            left = left[1:]
        limits.append(left[0].start if left else np.inf)
    return limits


def fits(prompt: Prompt, event: Event) -> bool:
    """Whether an event is what a prompt asks for, wherever it is; of blinks the number counts."""
    return event.kind == prompt.kind and (prompt.kind != "blink" or event.count == int(prompt.detail))
