"""What is to be done in every frame: which face, where exactly, how strongly, and with which neighbours.

Made from the finished analysis (see `analysis.py`) in a few quick sweeps over its files; memory grows by some twenty bytes a
frame. The face of each frame is written back to disk with its landmarks smoothed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import NoFaceError
from lib_vitface.faces import align, mesh
from lib_vitface.faces.landmarks import NO_IRISES, five_points
from lib_vitface.faces.parse import Hand
from lib_vitface.faces.track import FaceChoice, Tracker, follow, smooth_window, summarise
from lib_vitface.metrics.geometry import gaze
from lib_vitface.swap.analysis import ChunkReader, Seen, load_arrays, load_seen, save_arrays, save_seen
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.types import Face, Floats

# A new shot: the tiny pictures differ by this much (of 255), and by so much more than around it (a fast pan does not).
_CUT, _CUT_RATIO, _CUT_AROUND = 18.0, 3.0, 6
_HAND_GAP = 4  # frames before and after in which a missed hand may have been seen
_SAME_HAND = 0.6  # in hand sizes
_FILL = 2  # frames without the face that are bridged; a longer gap is a face that is hidden
_YAW_RAMP, _PITCH_RAMP = 10.0, 8.0  # degrees before the limit over which the swap fades
_PRESENCE = (0.5, 0.8)  # the landmarker's own confidence between which the swap fades in
_FILLED_PRESENCE = 0.7
_IRIS_FRAMES, _GLANCE = 2.0, 0.06  # standard deviations of the irises' filter: frames, and widths of the eye


@dataclass(frozen=True)
class Plan:
    """`strength` [N] 0..1 (0: leave the frame), `shot` [N] number of the shot, `face` gives the face of a frame (None where
    there is none), `people` how many were followed."""

    strength: Floats
    shot: NDArray[np.int32]
    faces: ChunkReader
    people: int

    def face(self, index: int) -> Face | None:
        """The chosen face with smoothed landmarks and pose."""
        seen: Seen = self.faces[index]
        return seen.faces[0] if seen.faces else None

    def time_s(self, index: int) -> float:
        """When the frame is shown, in seconds."""
        return float(self.faces[index].time_s)

    def hands(self, index: int) -> tuple[Hand, ...]:
        """Hands near the face, those missed for a few frames bridged."""
        seen: Seen = self.faces[index]
        return seen.hands

    def clips(self, length: int) -> NDArray[np.int32]:
        """For every frame the first frame of its clip, -1 where nothing is swapped [N].

        A clip holds at most `length` neighbouring frames of one shot. It depends on the plan alone, so a resumed job
        gives the model the same clips.
        """
        starts = np.full(len(self.strength), -1, np.int32)
        for run in self.runs():
            for index in run:
                starts[index] = index - (index - run.start) % length
        return starts

    def runs(self) -> list[range]:
        """Stretches of neighbouring frames of one shot that are swapped."""
        return _stretches(self.strength > 0, self.shot)


def _stretches(wanted: NDArray[np.bool_], shot: NDArray[np.int32]) -> list[range]:
    found, start = [], None
    for index in range(len(wanted) + 1):
        goes_on = start is not None and index < len(wanted) and wanted[index] and shot[index] == shot[start]
        if start is not None and not goes_on:
            found.append(range(start, index))
            start = None
        if start is None and index < len(wanted) and wanted[index]:
            start = index
    return found


def make_plan(
    folder: Path, count: int, options: SwapOptions, reference: Floats | None, check: Callable[[], None]
) -> Plan:
    """The plan for `count` analysed frames in `folder`. `reference` is the embedding of `options.face_picture`.

    Raises `NoFaceError` where no face, or not the wanted one, is there; whatever `check` raises (asked often).
    """
    seen = ChunkReader(lambda n: folder / f"analysis-{n:05}.npz", load_seen, options.chunk_frames)
    tracker = lambda: Tracker(same_person=options.likeness)  # noqa: E731

    def sweep() -> Iterator[tuple[Seen, list[Face]]]:
        for index, pair in enumerate(follow(((s, s.faces) for s in seen.run(count)), tracker(), fill=_FILL)):
            if index % 256 == 0:
                check()
            yield pair

    tracks = summarise(faces for _, faces in sweep())
    if not tracks:
        raise NoFaceError(f"{options.input}: no face was found in it; give a video in which a face can be seen.")
    wanted = choice(options, reference).pick_tracks(tracks)
    facts = _Facts(count)
    _write(folder, "chosen", options.chunk_frames, _chosen(sweep(), wanted, facts))
    shot = np.cumsum(_cuts(facts.change)).astype(np.int32)
    chosen = ChunkReader(lambda n: folder / f"chosen-{n:05}.npz", load_seen, options.chunk_frames)
    _write(folder, "face", options.chunk_frames, _smoothed(chosen, facts, shot, options, check))
    strength = _strength(facts, shot, options)
    save_arrays(folder / "plan.npz", {"strength": strength, "shot": shot, "people": np.array(len(tracks))})
    return read_plan(folder, options.chunk_frames)


def read_plan(folder: Path, chunk_frames: int) -> Plan:
    """A plan that was made before."""
    data = load_arrays(folder / "plan.npz")
    faces = ChunkReader(lambda n: folder / f"face-{n:05}.npz", load_seen, chunk_frames)
    return Plan(data["strength"], data["shot"], faces, int(data["people"]))


def choice(options: SwapOptions, reference: Floats | None) -> FaceChoice:
    """Whom the options mean. `reference` is the embedding of `options.face_picture`."""
    by = {"largest": "largest", "leftmost": "left", "rightmost": "right", "index": "left", "picture": "reference"}
    index = options.face_index if options.face == "index" else 0
    return FaceChoice(by[options.face], index, reference, options.likeness)


class _Facts:
    """A few numbers of the chosen face per frame [N]: what strength and shots are decided by."""

    def __init__(self, count: int) -> None:
        self.time_s = np.zeros(count, np.float64)
        self.change = np.zeros(count, np.float32)  # difference to the picture before, 0..255
        self.present = np.zeros(count, np.bool_)
        self.presence = np.zeros(count, np.float32)
        self.yaw_deg = np.zeros(count, np.float32)
        self.pitch_deg = np.zeros(count, np.float32)
        self.width_px = np.zeros(count, np.float32)

    def note(self, index: int, face: Face) -> None:
        self.present[index] = True
        self.presence[index] = face.presence or _FILLED_PRESENCE
        self.width_px[index] = face.box[2] - face.box[0]


def _chosen(frames: Iterable[tuple[Seen, list[Face]]], wanted: frozenset[int], facts: _Facts) -> Iterator[Seen]:
    """The frames with nothing but the chosen face; `before` is 0 where its motion since the frame before is known."""
    last_place, last_thumb = -1, None
    for index, (seen, faces) in enumerate(frames):
        facts.time_s[index] = seen.time_s
        if last_thumb is not None:
            facts.change[index] = np.abs(seen.thumb.astype(np.float32) - last_thumb).mean()
        last_thumb = seen.thumb
        places = [k for k, face in enumerate(faces) if face.track in wanted and face.landmarks is not None]
        if not places:
            last_place = -1
            nothing = np.zeros((0, mesh.POINT_COUNT, 2), np.float32)
            yield replace(seen, faces=(), before=(), motion=nothing)
            continue
        place = max(places, key=lambda k: faces[k].score)
        known = place < len(seen.before) and last_place >= 0 and seen.before[place] == last_place
        motion = seen.motion[place] if known else np.full((mesh.POINT_COUNT, 2), np.nan, np.float32)
        # A filled face stands behind the seen ones and has no place the next frame could refer to.
        last_place = place if place < len(seen.before) else -1
        facts.note(index, faces[place])
        yield replace(seen, faces=(faces[place],), before=(0 if known else -1,), motion=motion[None])


def _write(folder: Path, name: str, chunk: int, frames: Iterable[Seen]) -> None:
    part: list[Seen] = []
    number = 0
    for seen in frames:
        part.append(seen)
        if len(part) == chunk:
            save_seen(folder / f"{name}-{number:05}.npz", part)
            part, number = [], number + 1
    if part:
        save_seen(folder / f"{name}-{number:05}.npz", part)


def _cuts(change: Floats) -> NDArray[np.bool_]:
    """Frames [N] that begin a new shot: a change that is large, and larger than anything around it."""
    cuts = np.zeros(len(change), np.bool_)
    for index in np.flatnonzero(change > _CUT):
        around = np.concatenate(
            [change[max(index - _CUT_AROUND, 0) : index], change[index + 1 : index + 1 + _CUT_AROUND]]
        )
        cuts[index] = not len(around) or change[index] > _CUT_RATIO * float(np.median(around)) + 1.0
    return cuts


def _smoothed(
    chosen: ChunkReader, facts: _Facts, shot: NDArray[np.int32], options: SwapOptions, check: Callable[[], None]
) -> Iterator[Seen]:
    """The chosen faces with landmarks that stand still when the face does. A window never reaches into another shot."""
    count, radius = len(shot), options.smooth
    for index in range(count):
        check()
        seen: Seen = chosen[index]
        if not seen.faces:
            yield seen
            continue
        places = range(index - radius, index + radius + 1)
        window = [chosen[k] if 0 <= k < count and shot[k] == shot[index] else None for k in places]
        face = _steady(window, facts, index)
        near = [k for k in range(index - _HAND_GAP, index + _HAND_GAP + 1) if 0 <= k < count and shot[k] == shot[index]]
        hands = bridged_hands([chosen[k].hands for k in near], near.index(index))
        if face.pose is not None:
            facts.yaw_deg[index], facts.pitch_deg[index] = face.pose.yaw_deg, face.pose.pitch_deg
        yield replace(seen, faces=(face,), hands=hands)


def _steady(window: Sequence[Seen | None], facts: _Facts, index: int) -> Face:
    middle = len(window) // 2
    seen = window[middle]
    assert seen is not None
    face = seen.faces[0]
    assert face.landmarks is not None
    if not middle:
        return face
    # A bridged face is a guess: it is steadied by its neighbours but steadies none of them.
    visible = [one is not None and bool(one.faces) and (k == middle or _is_seen(one)) for k, one in enumerate(window)]
    points = np.stack(
        [one.faces[0].landmarks if ok and one else face.landmarks for one, ok in zip(window, visible, strict=True)]  # type: ignore[misc]
    )
    times = np.array([facts.time_s[index] if one is None else one.time_s for one in window])
    unknown = np.full((mesh.POINT_COUNT, 2), np.nan, np.float32)
    motion = np.stack([one.motion[0] if one is not None and one.faces else unknown for one in window[1:]])
    landmarks = smooth_window(points, times, np.array(visible), motion)
    irises = [
        NO_IRISES if one is None or not ok else one.faces[0].iris for one, ok in zip(window, visible, strict=True)
    ]
    iris = steady_irises(points, irises, landmarks)
    pose = align.fit_head(landmarks).pose
    return replace(face, landmarks=landmarks, points=five_points(landmarks), pose=pose, iris=iris)


def steady_irises(points: Floats, irises: Sequence[Floats | None], steady: Floats) -> Floats:
    """Irises `[2, 2]` of the middle frame of a window, without the jitter of single frames, where `steady` landmarks have them.

    `points` `[W, 468, 3]` and `irises` `[W]` of `[2, 2]` px (NaN or None where unknown). A glance is quick and large, jitter is
    small: frames that look elsewhere do not count (bilateral filter, Tomasi and Manduchi 1998).
    """
    seen = [NO_IRISES if one is None else one for one in irises]
    offsets = np.stack([gaze(one[:, None], landmarks) for one, landmarks in zip(seen, points, strict=True)])
    apart = (np.arange(len(seen)) - len(seen) // 2) / _IRIS_FRAMES
    unlike = ((offsets - offsets[len(seen) // 2]) ** 2).sum(axis=2) / _GLANCE**2
    weight = np.exp(-0.5 * (apart[:, None] ** 2 + unlike))
    known = np.isfinite(unlike)
    sums = np.where(known, weight, 0).sum(axis=0)
    mean = np.where(known[..., None], weight[..., None] * offsets, 0).sum(axis=0) / np.maximum(sums, 1e-9)[:, None]
    mean[sums == 0] = np.nan
    ends = steady[list(mesh.EYE_CORNERS), :2].astype(np.float64).reshape(2, 2, 2)
    along = ends[:, 1] - ends[:, 0]
    down = np.stack([-along[:, 1], along[:, 0]], axis=1)
    return np.asarray(ends.mean(axis=1) + mean[:, :1] * along + mean[:, 1:] * down, np.float32)


def bridged_hands(window: Sequence[Sequence[Hand]], middle: int) -> tuple[Hand, ...]:
    """The hands of frame `middle` of a window, and those seen before and after it that were missed in it.

    A hand that comes and goes for single frames would let the face flash through it.
    """
    hands = list(window[middle])
    before = next((w for w in reversed(window[:middle]) if w), ())
    after = next((w for w in window[middle + 1 :] if w), ())
    for a in before:
        for b in after:
            guess = Hand(((a.points + b.points) / 2).astype(np.float32), min(a.presence, b.presence))
            near = _apart(a, b) < _SAME_HAND
            if near and all(_apart(guess, other) >= _SAME_HAND for other in hands):
                hands.append(guess)
    return tuple(hands)


def _apart(a: Hand, b: Hand) -> float:
    """Distance of two hands in hand sizes."""
    return float(np.linalg.norm(a.points.mean(axis=0) - b.points.mean(axis=0))) / max(a.size, b.size, 1e-6)


def _is_seen(seen: Seen) -> bool:
    return bool(seen.faces) and (seen.faces[0].presence or 0.0) > 0


def _strength(facts: _Facts, shot: NDArray[np.int32], options: SwapOptions) -> Floats:
    """How strongly to swap [N]: nothing beyond the limits, and no faster change than the fade allows.

    Where a shot begins or ends (or the video), there is nothing to fade from or to.
    """
    good = facts.present.astype(np.float64)
    for run in _stretches(facts.present, shot):
        part = slice(run.start, run.stop)
        presence = _mean_around(facts.presence[part], options.fade_frames)
        width = _mean_around(facts.width_px[part], options.fade_frames)
        good[part] *= limits(options, presence, facts.yaw_deg[part], facts.pitch_deg[part], width)
    return fade(good, shot, options.fade_frames).astype(np.float32)


def limits(options: SwapOptions, presence: Any, yaw_deg: Any, pitch_deg: Any, width_px: Any) -> Any:
    """0..1 (numbers or arrays): 1 well within the limits of the options, falling to 0 where one is reached."""
    result = _ramp(presence, *_PRESENCE)
    result = result * _ramp(options.max_yaw_deg - np.abs(yaw_deg), 0.0, _YAW_RAMP)
    result = result * _ramp(options.max_pitch_deg - np.abs(pitch_deg), 0.0, _PITCH_RAMP)
    return result * (np.asarray(width_px) >= options.min_face_px)


def fade(good: NDArray[np.floating], shot: NDArray[np.int32], frames: int) -> NDArray[np.float64]:
    """The largest curve [N] that is nowhere above `good` and within a shot changes by at most 1 / `frames` a frame.

    A step from nothing to all passes through `frames` - 1 frames between.
    """
    result = np.asarray(good, np.float64).copy()
    for order in (range(1, len(result)), range(len(result) - 2, -1, -1)):
        step = 1 if order.step > 0 else -1
        for index in order:
            if shot[index] == shot[index - step]:
                result[index] = min(result[index], result[index - step] + 1.0 / frames)
    return result


def _ramp(value: Any, low: float, high: float) -> Any:
    return np.clip((value - low) / (high - low), 0.0, 1.0)


def _mean_around(values: Floats, radius: int) -> NDArray[np.float64]:
    """Moving average [N] over `radius` frames on either side, of those that are there."""
    sums = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    index = np.arange(len(values))
    low, high = np.maximum(index - radius, 0), np.minimum(index + radius + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)
