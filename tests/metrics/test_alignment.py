"""Frames of target and result side by side, by time; on clips whose frames show their own number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lib_vitface.assets import locate
from lib_vitface.errors import InputError
from lib_vitface.media import EncodeSettings, FrameWriter, probe
from lib_vitface.metrics.alignment import open_footage, paired_frames
from lib_vitface.types import Frame

Clip = Callable[..., Path]


@pytest.fixture()
def clip(tmp_path: Path) -> Clip:
    """A clip with a frame at each of `times` (ms), as bright as its time in hundredths of a second."""
    info = probe(locate("sample_source"))

    def write(name: str, times: list[int], size: tuple[int, int] = (48, 32)) -> Path:
        shape = replace(info, width=size[0], height=size[1], fps=Fraction(25), time_base=Fraction(1, 1000))
        with FrameWriter(tmp_path / name, shape, EncodeSettings(codec="ffv1")) as writer:
            for index, time in enumerate(times):
                image = np.full((size[1], size[0], 3), time // 10, dtype=np.uint8)
                writer.write(Frame(index, Fraction(time, 1000), image))
        return tmp_path / name

    return write


def shown(target: Path, result: Path, **part: float) -> list[tuple[int, int, int]]:
    """Index, and the times in ms that target and result show, of every pair."""
    pairs = paired_frames(open_footage(target, result, **part))
    return [(p.index, 10 * round(float(p.target.mean())), 10 * round(float(p.result.mean()))) for p in pairs]


def test_equal_times_pair_one_to_one(clip: Clip) -> None:
    times = [0, 40, 80, 120, 160, 200]
    assert shown(clip("a.mkv", times), clip("b.mkv", times)) == [(i, t, t) for i, t in enumerate(times)]


def test_uneven_times_pair_by_time_and_not_by_number(clip: Clip) -> None:
    target = [0, 40, 80, 120, 200, 240, 280, 400]
    result = [0, 40, 120, 200, 240, 280, 400]  # one frame is missing
    found = shown(clip("a.mkv", target), clip("b.mkv", result))
    assert found == [(i, t, t) for i, t in enumerate(target) if t in result]


def test_a_faster_result_is_thinned_out(clip: Clip) -> None:
    found = shown(clip("a.mkv", list(range(0, 400, 40))), clip("b.mkv", list(range(0, 400, 20))))
    assert [(t, r) for _, t, r in found] == [(t, t) for t in range(0, 400, 40)]


def test_a_part_counts_from_its_own_start(clip: Clip) -> None:
    target, result = clip("a.mkv", list(range(0, 2000, 40))), clip("b.mkv", list(range(0, 400, 40)))
    found = shown(target, result, start_s=1.0, end_s=1.4)
    assert found == [(i, 1000 + 40 * i, 40 * i) for i in range(10)]


def test_what_does_not_fit_is_told(clip: Clip) -> None:
    target = clip("a.mkv", list(range(0, 2000, 40)))
    with pytest.raises(InputError, match=r"0\.40 s long and what it is compared with 2\.00 s"):
        open_footage(target, clip("b.mkv", list(range(0, 400, 40))))
    with pytest.raises(InputError, match="start before that"):
        open_footage(target, target, start_s=3.0)
    with pytest.raises(InputError, match="48x48 is not that of the target, 48x32"):
        open_footage(target, clip("c.mkv", list(range(0, 2000, 40)), (48, 48)))
    sparse = clip("d.mkv", [*range(0, 2000, 160), 1960])
    with pytest.raises(InputError, match=r"only 1[34] of 50 frames"):
        shown(target, sparse)


def test_another_size_is_scaled(clip: Clip) -> None:
    times = list(range(0, 200, 40))
    pairs = list(paired_frames(open_footage(clip("a.mkv", times), clip("b.mkv", times, (96, 64)))))
    assert {p.result.shape for p in pairs} == {(32, 48, 3)} and len(pairs) == 5
