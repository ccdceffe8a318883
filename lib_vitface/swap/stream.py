"""The second pass over a video: frames in, frames with the new face out, one clip at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from lib_vitface.swap.finish import Finisher, Measured
from lib_vitface.swap.plan import Plan
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.types import Clip, Face, Frame, Neighbours, SwapModel

_NEAR_S = 0.25  # frames that are no farther apart are shown to the model as neighbours


class _Stretch(NamedTuple):
    """Frames from `start` to before `stop`, in a `window` with their context; `inside` is the model's own."""

    start: int
    stop: int
    window: list[tuple[Frame, Face]]
    inside: Any


class Gathered(NamedTuple):
    """A frame (None beyond the video's end) and the clips that it completed."""

    frame: Frame | None
    clips: list[_Stretch]


class FrameStream:
    """Frames in, finished frames out, in order, some frames later: neighbours on both sides are needed for steady colours.

    `begin` is the first frame it must be given so that frame `start` comes out as it would in an uninterrupted run. A frame goes
    through `gather`, `draw` and `finish`, which may run in three threads, since none touches what another one keeps.
    """

    def __init__(self, options: SwapOptions, swapper: SwapModel, plan: Plan, count: int, start: int = 0) -> None:
        self._swapper, self._plan, self._options = swapper, plan, options
        self._finisher = Finisher(options)
        self._clip_of = plan.clips(swapper.clip_length)
        self._run_start, self._run_stop = np.zeros(count, np.int32), np.zeros(count, np.int32)
        for run in plan.runs():
            self._run_start[run.start : run.stop], self._run_stop[run.start : run.stop] = run.start, run.stop
        self._radius = options.color_frames
        self._start = start
        self._context = swapper.context
        self.begin = self._next = start
        if self._clip_of[start] >= 0:
            self._next = int(self._clip_of[max(start - self._radius, self._run_start[start])])
            self.begin = max(self._next - self._context, int(self._run_start[start]))
        # Of `gather`, as `_next` is: what is still needed of the present run.
        self._run: deque[tuple[Frame, Face]] = deque()
        # Of `finish`.
        self._waiting: deque[Frame] = deque()
        self._measured: dict[int, Measured] = {}

    def __call__(self, frame: Frame) -> list[Frame]:
        """Takes the next frame; returns those that are finished by that."""
        return self.finish(self.draw(self.gather(frame)))

    def gather(self, frame: Frame) -> Gathered:
        """The next frame, and the clips that are complete with it, ready for the network."""
        index, clips = frame.index, list[_Stretch]()
        if index >= len(self._clip_of):
            return Gathered(None, clips)
        if self._clip_of[index] >= 0:
            face = self._plan.face(index)
            assert face is not None
            if index == self._run_start[index]:
                self._run.clear()
            self._run.append((frame, face))
            self._next = max(self._next, int(self._run_start[index]))
            clips += self._complete(index, int(self._run_stop[index]))
        return Gathered(frame, clips)

    def draw(self, gathered: Gathered) -> Gathered:
        """The same with what the network drew."""
        clips = [clip._replace(inside=self._swapper.draw(clip.inside)) for clip in gathered.clips]
        return Gathered(gathered.frame, clips)

    def finish(self, drawn: Gathered) -> list[Frame]:
        """The frames that are finished by that."""
        if drawn.frame is None:
            return []
        self._waiting.append(drawn.frame)
        for clip in drawn.clips:
            for (frame, face), one in zip(clip.window, self._swapper.finish(clip.inside), strict=True):
                if clip.start <= frame.index < clip.stop:
                    hands = self._plan.hands(frame.index)
                    self._measured[frame.index] = self._finisher.measure(frame.image, face, one, hands)
        return list(self._ready())

    def _complete(self, index: int, run_stop: int) -> Iterator[_Stretch]:
        """The clips of the present run whose frames and following context are there, `index` being the last."""
        while self._next < run_stop:
            stop = min(int(self._clip_of[self._next]) + self._swapper.clip_length, run_stop)
            until = min(stop + self._context, run_stop)
            if index + 1 < until:
                return
            window = [(f, face) for f, face in self._run if self._next - self._context <= f.index < until]
            clip = Clip(
                [f.image for f, _ in window],
                [face for _, face in window],
                [float(f.time) for f, _ in window],
                [self._nearby(f.index) for f, _ in window],
            )
            yield _Stretch(self._next, stop, window, self._swapper.prepare(clip))
            self._next = stop
            while self._run and self._run[0][0].index < stop - self._context:
                self._run.popleft()

    def _nearby(self, index: int) -> Neighbours:
        """The faces of the frames of this run around one, with how many seconds they are apart from it."""
        now, found = self._plan.time_s(index), list[tuple[Face, float]]()
        for step in (-1, 1):
            other = index + step
            while self._run_start[index] <= other < self._run_stop[index]:
                apart, face = self._plan.time_s(other) - now, self._plan.face(other)
                if abs(apart) > _NEAR_S:
                    break
                if face is not None:
                    found.append((face, apart))
                other += step
        return found

    def _ready(self) -> Iterator[Frame]:
        while self._waiting:
            index = self._waiting[0].index
            if index < self._start:  # was only needed for what comes after it
                frame = None
                self._waiting.popleft()
                if self._clip_of[index] >= 0 and index + 1 == self._run_stop[index]:
                    self._measured.clear()
            elif self._clip_of[index] >= 0:
                last = min(index + self._radius, int(self._run_stop[index]) - 1)
                if last not in self._measured:
                    return
                frame = self._finished(self._waiting.popleft(), last)
                for old in [k for k in self._measured if k <= index - self._radius]:
                    del self._measured[old]
                if index + 1 == self._run_stop[index]:
                    self._measured.clear()
            else:
                frame = self._waiting.popleft()
            if frame is not None:
                yield frame

    def _finished(self, frame: Frame, last: int) -> Frame:
        index = frame.index
        places = range(max(index - self._radius, int(self._run_start[index])), last + 1)
        spread = max(self._radius / 2, 0.5)
        weights = [float(np.exp(-0.5 * ((k - index) / spread) ** 2)) for k in places]
        image = self._finisher.finish(
            frame.image,
            self._measured[index],
            [self._measured[k] for k in places],
            weights,
            float(self._plan.strength[index]),
            self._movement(index),
        )
        return replace(frame, image=image)

    def _movement(self, index: int) -> tuple[float, float]:
        """How far the face moves in the frame (x, y px) while this frame is shown."""
        if self._options.motion_blur <= 0:
            return 0.0, 0.0
        first, last = max(index - 1, int(self._run_start[index])), min(index + 1, int(self._run_stop[index]) - 1)
        a, b = self._plan.face(first), self._plan.face(last)
        if first == last or a is None or b is None or a.landmarks is None or b.landmarks is None:
            return 0.0, 0.0
        step = (b.landmarks[:, :2].mean(axis=0) - a.landmarks[:, :2].mean(axis=0)) / (last - first)
        return float(step[0]), float(step[1])
