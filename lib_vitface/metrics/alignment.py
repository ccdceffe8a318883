"""Target and result side by side: frames paired by time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2

from lib_vitface.errors import InputError
from lib_vitface.media import is_image, probe, read_frames, read_image
from lib_vitface.types import Frame, Image

_SLACK_S = Fraction(1, 5)
_SLACK_FRAMES = 3
_MIN_PAIRED = 0.5


@dataclass(frozen=True)
class FramePair:
    """The same moment of target and result, in the target's size. `index` counts the target's frames, `time` is seconds from the
    first of them."""

    index: int
    time: Fraction
    target: Image
    result: Image


@dataclass(frozen=True)
class Footage:
    """A target (or the part of it from `start` to `end`) and its result. `duration` and `period` (of a frame) in seconds."""

    target: Path
    result: Path
    start: Fraction | None
    end: Fraction | None
    duration: Fraction
    period: Fraction
    moving: bool


def open_footage(target: Path, result: Path, start_s: float | None = None, end_s: float | None = None) -> Footage:
    """Checks that the two fit together. Raises InputError for files that cannot be read, of other length or shape."""
    moving = _moves(target)
    if moving != _moves(result):
        raise InputError(
            f"{result} and {target}: one is a picture and the other a video; give a target and its own result."
        )
    if not moving:
        return Footage(target, result, None, None, Fraction(0), Fraction(1), False)
    of_target, of_result = probe(target), probe(result)
    start = None if start_s is None else Fraction(str(start_s))
    end = None if end_s is None else Fraction(str(end_s))
    part = min(of_target.duration, end or of_target.duration) - (start or 0)
    if part <= 0:
        raise InputError(
            f"{target}: it is {float(of_target.duration):.2f} s long; start before that and end after the start."
        )
    period = 1 / max(of_target.fps, of_result.fps)
    if abs(part - of_result.duration) > max(_SLACK_S, _SLACK_FRAMES * period):
        raise InputError(
            f"{result}: it is {float(of_result.duration):.2f} s long and what it is compared with {float(part):.2f} s; give the "
            f"result of {target}, or say by start and end which part of it was swapped."
        )
    _check_shape((of_target.width, of_target.height), (of_result.width, of_result.height), result)
    return Footage(target, result, start, end, part, period, True)


def paired_frames(footage: Footage) -> Iterator[FramePair]:
    """Every target frame with the result frame nearest in time, where one lies within half a frame; streaming.

    A result of another size is scaled to the target's. Raises InputError at the end if most frames found no partner.
    """
    if not footage.moving:
        target, result = read_image(footage.target), read_image(footage.result)
        _check_shape(target.shape[1::-1], result.shape[1::-1], footage.result)
        yield FramePair(0, Fraction(0), target, _as_large_as(result, target))
        return
    frames = _Nearest(read_frames(footage.result))
    origin: Fraction | None = None
    seen = paired = 0
    for frame in read_frames(footage.target, footage.start, footage.end):
        origin = frame.time if origin is None else origin
        partner = frames.at(frame.time - origin, footage.period / 2)
        if partner is not None:
            paired += 1
            image = _as_large_as(partner.image, frame.image)
            yield FramePair(seen, frame.time - origin, frame.image, image)
        seen += 1
    if paired < _MIN_PAIRED * seen:
        raise InputError(
            f"{footage.result}: only {paired} of {seen} frames of {footage.target} have a frame at the same time in it; give "
            "a result that keeps the frame rate."
        )


class _Nearest:
    """The frame of a stream that is nearest to each of a rising row of times. Times count from the stream's first frame."""

    def __init__(self, frames: Iterator[Frame]) -> None:
        self._frames = frames
        self._current = next(frames, None)
        self._following = next(frames, None)
        self._origin = self._current.time if self._current is not None else Fraction(0)

    def at(self, time: Fraction, slack: Fraction) -> Frame | None:
        """The nearest frame, or None where it is more than `slack` seconds away."""
        while self._following is not None and self._gap(self._following, time) <= self._gap(self._current, time):
            self._current, self._following = self._following, next(self._frames, None)
        return self._current if self._current is not None and self._gap(self._current, time) <= slack else None

    def _gap(self, frame: Frame | None, time: Fraction) -> Fraction:
        return abs(frame.time - self._origin - time) if frame is not None else Fraction(10**9)


def _moves(path: Path) -> bool:
    """Whether a path is a video (or a folder of frames) and not a single picture."""
    return path.is_dir() or not is_image(path)


def _check_shape(target: tuple[int, ...], result: tuple[int, ...], path: Path) -> None:
    """Sizes (width, height) must be the same up to scale, within two pixels of rounding."""
    scale = result[0] / target[0]
    if abs(result[1] - target[1] * scale) > 2 * max(1.0, scale):
        raise InputError(
            f"{path}: its shape {result[0]}x{result[1]} is not that of the target, {target[0]}x{target[1]}; give the "
            "result of this target, uncropped."
        )


def _as_large_as(image: Image, other: Image) -> Image:
    height, width = other.shape[:2]
    if image.shape[:2] == (height, width):
        return image
    method = cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=method).astype(image.dtype, copy=False)
