"""The diffusion pass over a video without flicker: few frames are redrawn, and what that added is carried to the others.

Redrawn frame by frame, a face shimmers: each frame gets texture of its own. Here only key frames are redrawn, all with one
noise, in a square that follows the head, so that the noise stays with the face. Of each the difference the pass made is kept
(see `denoise.py`), and every frame between two keys takes it from both along the optical flow, weighted by how near they are,
where a forward-backward check finds that the same point is seen (as Ruder et al. 2016, "Artistic style transfer for videos",
arXiv:1604.08610; to carry keys along motion, Jamriska et al. 2019, "Stylizing Video by Example"). A key starts warm from what
its predecessor brings along, and keeps a part of that; keys that are drawn together start from the last one before them. The
picture itself is never filtered over time, only the difference.

Frames stream: those between two keys wait, nothing else. What a frame gets depends on its two keys and, through the warm start,
on earlier ones; so with each chunk the differences that are needed further on are kept on disk, and a resumed job goes on to the
same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.metrics.temporal import motion
from lib_vitface.swap.analysis import load_arrays, save_arrays
from lib_vitface.swap.denoise import Guard, Kept, Redrawer, Region
from lib_vitface.swap.plan import Plan, fade
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.types import Floats, Frame, Image, Mask

_FLOW_SIDE = 256
_SOFT_PX = 2.0  # standard deviation of the edge of what is hidden, at that side
_MOST_GAIN = 1.4  # two unlike textures mixed half and half lose 1 / sqrt(2) of their contrast
_FADE = 4  # frames over which the guard's restraint comes and goes


@dataclass
class Counts:
    """For the job's report: frames redrawn by the pipeline, frames the pass reached, and what the guard did."""

    key_frames: int = 0
    frames: int = 0
    held_back: int = 0  # kept less of the pass
    left_out: int = 0  # kept nothing of it
    least_likeness: float | None = None
    largest_drift: float | None = None

    def note(self, kept: Kept, is_key: bool) -> None:
        self.key_frames += int(is_key)
        self.frames += 1
        self.held_back += kept.amount < 1
        self.left_out += kept.amount <= 0
        if kept.likeness is not None:
            self.least_likeness = min([kept.likeness, *_known(self.least_likeness)])
        if kept.drift is not None:
            self.largest_drift = max([kept.drift, *_known(self.largest_drift)])


def _known(value: float | None) -> list[float]:
    return [] if value is None else [value]


@dataclass(frozen=True)
class _Key:
    """A redrawn frame: what the pass added [S, S, 3] float16, and where."""

    index: int
    added: NDArray[np.float16]
    region: Region


@dataclass(frozen=True)
class State:
    """What goes on from chunk to chunk: what the keys added that are needed further on, by frame, and the counts so far."""

    added: dict[int, NDArray[np.float16]]
    counts: Counts

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        numbers = [np.nan if value is None else float(value) for value in asdict(self.counts).values()]
        added = np.stack([*self.added.values()]) if self.added else np.zeros(0, np.float16)
        keys = np.array([*self.added], np.int64)
        save_arrays(path, {"keys": keys, "added": added, "counts": np.array(numbers, np.float64)})

    @staticmethod
    def load(path: Path) -> State:
        """Raises `CheckpointError` where it is damaged."""
        data = load_arrays(path)
        whole, rest = data["counts"][:4], [None if np.isnan(v) else float(v) for v in data["counts"][4:]]
        counts = Counts(*(int(v) for v in whole), *rest)
        return State(dict(zip(data["keys"].tolist(), data["added"], strict=True)), counts)


def key_frames(run: range, every: int) -> list[int]:
    """Frames of a stretch that are redrawn: the first, the last, and evenly between, no further apart than `every`."""
    steps = -(-(len(run) - 1) // every)
    return [run.start] if not steps else [run.start + round(k * (len(run) - 1) / steps) for k in range(steps + 1)]


class SteadyRedraw:
    """Finished frames with their swapped faces in, redrawn ones out, in order, some frames later.

    `start` is the first frame wanted, the first of a chunk; it must be given the frames from `begin` on. `folder` keeps the
    states between chunks.
    """

    def __init__(
        self, options: SwapOptions, redrawer: Redrawer, guard: Guard, plan: Plan, folder: Path, start: int = 0
    ) -> None:
        self._options, self._redrawer, self._guard, self._plan = options, redrawer, guard, plan
        self._folder, self._start = folder, start
        self._before = np.full(len(plan.strength), -1, np.int32)
        self._draw_at: set[int] = set()  # the last key of those that are drawn together
        self._last: set[int] = set()  # the last key of a stretch
        for run in plan.runs():
            keys = key_frames(run, options.denoise_every)
            for first, last in zip(keys, [*keys[1:], keys[-1] + 1], strict=True):
                self._before[first:last] = first
            # the first alone: those after it start warm from it
            self._draw_at |= {*keys[:: options.denoise_batch], keys[-1]}
            self._last.add(keys[-1])
        state = State.load(self._file(start)) if start else State({}, Counts())
        self.counts = state.counts
        self.begin = min(state.added, default=start)
        self._known = state.added
        self._key: _Key | None = None  # the last that was drawn
        self._undrawn: list[tuple[Frame, Region]] = []
        self._waiting: list[Frame] = []

    def _file(self, start: int) -> Path:
        """Where the state at the beginning of a chunk is kept; one that is not full counts as its successor's beginning."""
        return self._folder / f"denoise-{-(-start // self._options.chunk_frames):05}.npz"

    def __call__(self, frames: Sequence[Frame]) -> list[Frame]:
        """Takes the next frames; returns those that are finished by that."""
        done: list[Frame] = []
        for frame in frames:
            if self._before[frame.index] < 0:
                done += self._finished(frame, None)
                continue
            self._waiting.append(frame)
            if self._before[frame.index] == frame.index:
                self._undrawn.append((frame, self._region(frame)))
                if frame.index in self._draw_at:
                    done += self._draw()
        return done

    def _draw(self) -> list[Frame]:
        """Draws the keys that wait: everything before the last of them, and that one too where nothing follows it."""
        keys = ([self._key] if self._key else []) + self._redraw(self._undrawn)
        self._undrawn, self._key = [], keys[-1]
        pairs = list(pairwise(keys))
        if self._key.index in self._last:
            pairs.append((self._key, self._key))
            self._key = None
        done: list[Frame] = []
        for number, (first, last) in enumerate(pairs):
            there = [frame for frame in self._waiting if self._before[frame.index] == first.index]
            done += self._stretch(there, first, last, keys[number:])
        self._waiting = [] if self._key is None else self._waiting[-1:]
        return done

    def _finished(self, frame: Frame, kept: Kept | None, keys: Sequence[_Key] = ()) -> list[Frame]:
        """The frame if it is wanted; where a chunk ends with it, what the next one needs is kept first."""
        if frame.index < self._start:
            return []
        if kept is not None:
            self.counts.note(kept, bool(self._before[frame.index] == frame.index))
        following, count = frame.index + 1, len(self._before)
        if following == count or following % self._options.chunk_frames == 0:
            wanted = self._before[following] if following < count else -1
            added = {key.index: key.added for key in keys if 0 <= wanted <= key.index}
            State(added, self.counts).save(self._file(following))
        return [frame]

    # ---------------------------------------------------------------------------------------------- key frames

    def _region(self, frame: Frame) -> Region:
        face = self._plan.face(frame.index)
        assert face is not None
        hands = self._plan.hands(frame.index) if self._options.occlusion else ()
        return self._redrawer.region(frame.image, face, hands)

    def _redraw(self, work: Sequence[tuple[Frame, Region]]) -> list[_Key]:
        """The keys that are drawn together, unless they were before the job was resumed."""
        if all(frame.index in self._known for frame, _ in work):
            return [_Key(frame.index, self._known[frame.index], region) for frame, region in work]
        share, before = self._options.denoise_carry, self._key
        if before is None or share <= 0:
            found = self._redrawer.differences([(region, None) for _, region in work])
        else:
            brought = [carried(before.added, before.region.crop, region.crop) for _, region in work]
            starts = [share * added * visible[..., None] for added, visible in brought]
            regions = [region for _, region in work]
            drawn = self._redrawer.differences(list(zip(regions, starts, strict=True)))
            found = [
                mixed(added, own, visible, np.ones_like(visible), 1 - share, region.mask)
                for (added, visible), own, region in zip(brought, drawn, regions, strict=True)
            ]
        # in the precision it is kept with, so that a resumed job goes on from the same numbers
        return [
            _Key(frame.index, added.astype(np.float16), region)
            for added, (frame, region) in zip(found, work, strict=True)
        ]

    # ------------------------------------------------------------------------------------------ frames between

    def _stretch(self, frames: Sequence[Frame], first: _Key, last: _Key, keys: Sequence[_Key]) -> list[Frame]:
        """The frames from key `first` to before key `last`; `keys` are those drawn so far, from `first` on."""
        work = [(frame, *self._added(frame, first, last)) for frame in frames]
        kept = [self._keep(*one) for one in work]
        amounts = np.array([found.amount for _, found in kept])
        # the restraint comes and goes over some frames
        limits = fade(amounts, np.zeros(len(amounts), np.int32), _FADE)
        done = []
        for one, (image, found), most in zip(work, kept, limits, strict=True):
            if most < found.amount:
                image, found = self._keep(*one, float(most))
            done += self._finished(replace(one[0], image=image), found, keys)
        return done

    def _keep(self, frame: Frame, region: Region, added: Floats, most: float = 1.0) -> tuple[Image, Kept]:
        face = self._plan.face(frame.index)
        assert face is not None
        strength = float(self._plan.strength[frame.index]) * self._options.opacity
        return self._guard.keep(frame.image, face, region, added, strength, most)

    def _added(self, frame: Frame, first: _Key, last: _Key) -> tuple[Region, Floats]:
        if frame.index == first.index:
            return first.region, first.added.astype(np.float32)
        region = self._region(frame)
        share = (frame.index - first.index) / (last.index - first.index)
        (one, seen_one), (other, seen_other) = (carried(k.added, k.region.crop, region.crop) for k in (first, last))
        added = mixed(one, other, seen_one, seen_other, share, region.mask)
        sharp = [fineness(part) for part in (region, first.region, last.region)]
        usual = (1 - share) * sharp[1] + share * sharp[2]
        return region, added * np.float32(min(1.0, sharp[0] / max(usual, 1e-6)))


def carried(added: NDArray[Any], key: Image, crop: Image) -> tuple[Floats, Mask]:
    """What was added to `key` [S, S, 3] as it lies in `crop`, and where in it that point of the face is seen [S, S] 0..1."""
    size = crop.shape[0]
    side = min(_FLOW_SIDE, size)
    small = [cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA) for image in (crop, key)]
    way = motion(np.asarray(small[0]), np.asarray(small[1]))
    flow = cv2.resize(way.flow, (size, size), interpolation=cv2.INTER_LINEAR) * np.float32(size / side)
    visible = cv2.resize(cv2.GaussianBlur(way.visible, (0, 0), _SOFT_PX), (size, size), interpolation=cv2.INTER_LINEAR)
    grid = np.arange(size, dtype=np.float32)
    x, y = flow[..., 0] + grid, flow[..., 1] + grid[:, None]
    # Lanczos: at half pixels a linear one would lose the very detail this is about
    moved = cv2.remap(added.astype(np.float32), x, y, cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.float32), np.asarray(visible, np.float32)


def mixed(one: Floats, other: Floats, seen_one: Mask, seen_other: Mask, share: float, mask: Mask) -> Floats:
    """Two differences [S, S, 3] mixed, `share` 0..1 of the other, each where it is seen; nothing where neither is.

    The contrast is kept: unlike textures lose some in a mean, and a face whose texture fades and comes back pulses.
    """
    weight_one, weight_other = (1 - share) * seen_one, share * seen_other
    both = np.maximum(weight_one + weight_other, 1e-4)
    mean = (weight_one[..., None] * one + weight_other[..., None] * other) / both[..., None]
    there = mask * np.maximum(seen_one, seen_other)
    power = [float((there * (part**2).mean(axis=2)).sum()) for part in (one, other, mean)]
    part_one = float((there * weight_one / both).sum()) / max(float(there.sum()), 1e-6)
    wanted = part_one * power[0] + (1 - part_one) * power[1]
    gain = float(np.clip(np.sqrt(wanted / max(power[2], 1e-6)), 1.0, _MOST_GAIN))
    return np.asarray(mean * (gain * np.maximum(seen_one, seen_other))[..., None], np.float32)


def fineness(region: Region) -> float:
    """How much fine detail the face shows: a blurred frame must not get the texture of a sharp one."""
    grey = cv2.cvtColor(region.crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float((np.abs(cv2.Laplacian(grey, cv2.CV_32F)) * region.mask).sum()) / max(float(region.mask.sum()), 1.0)
