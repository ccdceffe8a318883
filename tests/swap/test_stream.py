"""Clips with neighbours on both sides: which frames a swapper sees, whenever it begins."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_frame import face_at
from tint import AtOnce

from lib_vitface.options import build
from lib_vitface.swap.plan import Plan
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.swap.stream import FrameStream
from lib_vitface.types import Face, Frame, Image, Neighbours, Pose, SwappedFace

COUNT, CLIP, CONTEXT = 23, 4, 3
FACE = face_at(Pose(0, 0, 0), 2.5, 50, 48)
SHOT = np.array([0] * 13 + [1] * 10, np.int32)
STRENGTH = np.array([0, 0] + [1] * 19 + [0] + [1], np.float32)  # runs: 2..12, 13..20, 22


class Reader:
    def __getitem__(self, index: int) -> Any:
        return type("Seen", (), {"faces": (FACE,), "hands": (), "time_s": index / 10})()


class Watching(AtOnce):
    """Remembers the frames of every call; draws a shade that depends on all of them."""

    clip_length, context = CLIP, CONTEXT

    def __init__(self) -> None:
        self.windows: list[list[int]] = []
        self.nearby: dict[int, list[int]] = {}

    def swap(
        self,
        frames: Sequence[Image],
        faces: Sequence[Face],
        times: Sequence[float] | None = None,
        nearby: Sequence[Neighbours] | None = None,
    ) -> list[SwappedFace]:
        seen = [int(f[0, 0, 0]) for f in frames]
        assert times is not None and np.allclose(times, [k / 10 for k in seen])
        self.windows.append(seen)
        assert nearby is not None
        for k, others in zip(seen, nearby, strict=True):
            self.nearby[k] = sorted(k + round(apart * 10) for _, apart in others)
        matrix = np.array([[1.0, 0, -2], [0, 1, 0]])
        shades = [(sum(seen) * 7 + k * 5) % 120 + 110 for k in seen]
        return [SwappedFace(np.full((96, 96, 3), s, np.uint8), np.ones((96, 96), np.float32), matrix) for s in shades]


def run(tmp_path: Path, start: int, radius: int) -> tuple[Watching, dict[int, Image], int]:
    options = build(
        SwapOptions,
        {
            "model": tmp_path,
            "input": tmp_path,
            "output": tmp_path,
            "color_frames": radius,
            "blend": "alpha",
            "color": "none",
            "relight": 0,
            "occlusion": False,
        },
    )
    swapper = Watching()
    stream = FrameStream(options, swapper, Plan(STRENGTH, SHOT, Reader(), 1), COUNT, start)  # type: ignore[arg-type]
    made: dict[int, Image] = {}
    for index in range(stream.begin, COUNT):
        image = np.full((96, 100, 3), 90, np.uint8)
        image[0, 0] = index
        for frame in stream(Frame(index, Fraction(index, 10), image)):
            made[frame.index] = frame.image
    return swapper, made, stream.begin


@pytest.mark.parametrize("radius", [0, 2, 8])
def test_clips_see_their_neighbours_within_the_shot(tmp_path: Path, radius: int) -> None:
    swapper, made, _ = run(tmp_path, 0, radius)
    assert swapper.windows == [
        list(range(2, 9)), list(range(3, 13)), list(range(7, 13)),
        list(range(13, 20)), list(range(14, 21)), [22],
    ]  # fmt: skip
    # a quarter of a second at ten frames a second, and never beyond the shot
    assert swapper.nearby[2] == [3, 4] and swapper.nearby[8] == [6, 7, 9, 10]
    assert swapper.nearby[12] == [10, 11] and swapper.nearby[13] == [14, 15] and swapper.nearby[22] == []
    assert sorted(made) == list(range(COUNT))
    assert all((made[k][40:60, 40:60] == 90).all() == (STRENGTH[k] == 0) for k in made)


@pytest.mark.parametrize("radius", [0, 2, 8])
@pytest.mark.parametrize("start", range(0, COUNT, 3))
def test_beginning_anywhere_gives_the_same_frames(tmp_path: Path, start: int, radius: int) -> None:
    _, whole, _ = run(tmp_path, 0, radius)
    swapper, made, begin = run(tmp_path, start, radius)
    assert sorted(made) == list(range(start, COUNT))
    assert all(np.array_equal(made[k], whole[k]) for k in made)
    assert start - begin <= radius + CLIP + CONTEXT
    assert max(map(len, swapper.windows)) <= CLIP + 2 * CONTEXT
