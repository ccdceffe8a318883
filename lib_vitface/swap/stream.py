"""The second pass over a video: frames in, frames with the new face out, one clip at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lib_vitface.swap.finish import Finisher, Measured
from lib_vitface.swap.plan import Plan
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.types import Face, Frame

if TYPE_CHECKING:
    from lib_vitface.swap.frame import ClipSwapper


class FrameStream:
    """Frames in, finished frames out, in order, some frames later: neighbours on both sides are needed for steady colours.

    `begin` is the first frame it must be given so that frame `start` comes out as it would in an uninterrupted run.
    """

    def __init__(self, options: SwapOptions, swapper: ClipSwapper, plan: Plan, count: int, start: int = 0) -> None:
        self._swapper, self._plan, self._options = swapper, plan, options
        self._finisher = Finisher(options)
        self._clip_of = plan.clips(swapper.clip_length)
        self._run_start, self._run_stop = np.zeros(count, np.int32), np.zeros(count, np.int32)
        for run in plan.runs():
            self._run_start[run.start : run.stop], self._run_stop[run.start : run.stop] = run.start, run.stop
        self._radius = options.color_frames
        self._start = start
        self.begin = start
        if self._clip_of[start] >= 0:
            self.begin = int(self._clip_of[max(start - self._radius, self._run_start[start])])
        self._clip: list[tuple[Frame, Face]] = []
        self._waiting: deque[Frame] = deque()
        self._measured: dict[int, Measured] = {}

    def __call__(self, frame: Frame) -> list[Frame]:
        """Takes the next frame; returns those that are finished by that."""
        index = frame.index
        if index >= len(self._clip_of):
            return []
        self._waiting.append(frame)
        if self._clip_of[index] >= 0:
            face = self._plan.face(index)
            assert face is not None
            self._clip.append((frame, face))
            if index + 1 == self._run_stop[index] or self._clip_of[index + 1] != self._clip_of[index]:
                self._swap_clip()
        return list(self._ready())

    def _swap_clip(self) -> None:
        faces = self._swapper([frame.image for frame, _ in self._clip], [face for _, face in self._clip])
        for (frame, face), swapped in zip(self._clip, faces, strict=True):
            hands = self._plan.hands(frame.index)
            self._measured[frame.index] = self._finisher.measure(frame.image, face, swapped, hands)
        self._clip.clear()

    def _ready(self) -> Iterator[Frame]:
        while self._waiting:
            index = self._waiting[0].index
            if self._clip_of[index] >= 0:
                last = min(index + self._radius, int(self._run_stop[index]) - 1)
                if last not in self._measured:
                    return
                frame = self._finished(self._waiting.popleft(), last) if index >= self._start else None
                if frame is None:
                    self._waiting.popleft()
                self._measured.pop(index - self._radius, None)
                if index + 1 == self._run_stop[index]:
                    self._measured.clear()
            else:
                frame = self._waiting.popleft()
            if frame is not None and index >= self._start:
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
