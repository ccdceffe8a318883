"""The joined tasks: what can be known at once, names of work folders, and the contact sheet."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib_vitface.errors import InputError, OutputError
from lib_vitface.options import build
from lib_vitface.tasks.settings import CloneOptions
from lib_vitface.tasks.whole import _Clone, _name_of, contact_sheet
from lib_vitface.types import Host

MakeVideo = Callable[..., Path]


def options(source: Path, target: Path, **more: Any) -> CloneOptions:
    return build(CloneOptions, {"source": [source], "target": target, "output": target.with_name("out.mp4"), **more})


@pytest.mark.parametrize(("frames", "fps"), [(1, 25), (2, 25), (8, 8), (30, 30)])
def test_contact_sheet_of_clips_of_any_length(make_video: MakeVideo, tmp_path: Path, frames: int, fps: int) -> None:
    """The last moment lies within the last frame of a short clip."""
    target, result = (make_video(tmp_path / name, frames, fps, size=(96, 64)) for name in ("t.mp4", "r.mp4"))
    assert contact_sheet(target, result).shape == (4 * 240, 6 * 240, 3)


def test_contact_sheet_of_a_long_last_frame(make_video: MakeVideo, tmp_path: Path) -> None:
    times = [Fraction(0), Fraction(1, 10), Fraction(2, 10)]
    clip = make_video(tmp_path / "t.mp4", 3, 10, times=times, audio="aac", audio_seconds=5)
    assert contact_sheet(clip, clip).any()


def test_contact_sheet_shows_the_same_moment_of_both(make_video: MakeVideo, tmp_path: Path) -> None:
    grey = [np.full((64, 96, 3), 10 * k, np.uint8) for k in range(24)]
    target = make_video(tmp_path / "t.mp4", grey, 12)
    result = make_video(tmp_path / "r.mp4", grey[12:], 12)  # the part from 1 s on
    sheet = contact_sheet(target, result, start_s=1.0).astype(int)
    middle = sheet[120, 120::240, 0], sheet[360, 120::240, 0]
    assert np.abs(middle[0] - middle[1]).max() <= 3 and (np.diff(middle[0]) > 5).all()


def test_the_same_people_get_the_same_folder(tmp_path: Path) -> None:
    first = options(tmp_path / "a.mp4", tmp_path / "t.mp4")
    assert _name_of(first) == _name_of(options(tmp_path / "x" / ".." / "a.mp4", tmp_path / "t.mp4", steps=7, minutes=3))
    others = (
        options(tmp_path / "b.mp4", tmp_path / "t.mp4"),
        options(tmp_path / "a.mp4", tmp_path / "u.mp4"),
        options(tmp_path / "a.mp4", tmp_path / "t.mp4", preset="small"),
    )
    assert len({_name_of(o) for o in (first, *others)}) == 4


def test_clone_checks_before_it_works(make_video: MakeVideo, tmp_path: Path) -> None:
    clip = make_video(tmp_path / "t.mp4", 3)

    def refused(words: str, kind: type[Exception] = InputError, **more: Any) -> None:
        values = {"source": [clip], "target": clip, "output": tmp_path / "out.mp4", "work": tmp_path / "work", **more}
        with pytest.raises(kind, match=words):
            _Clone(build(CloneOptions, values), Host(tmp_path / "space")).check()

    refused("no such file", source=[tmp_path / "none.mp4"])
    (tmp_path / "a.png").write_bytes(b"x")
    refused("is no video", target=tmp_path / "a.png")
    refused("cannot be written; end the name", output=tmp_path / "o.avi")
    (tmp_path / "there.mp4").touch()
    refused("is there already", output=tmp_path / "there.mp4")
    refused("o.mp4: it may not be written; choose another", OutputError, output=tmp_path / "a.png" / "deep" / "o.mp4")
    assert not (tmp_path / "work").exists() and not (tmp_path / "space").exists()


def test_a_part_of_the_bar_for_every_step(make_video: MakeVideo, tmp_path: Path) -> None:
    source, target = (make_video(tmp_path / name, frames, 25) for name, frames in (("a.mp4", 50), ("t.mp4", 25)))
    ticks: list[tuple[float, float, str]] = []
    run = _Clone(options(source, target), Host(tmp_path, tick=lambda *a: ticks.append(a)))
    run.expect(600, every=1)
    for name in ("source", "target", "train", "swap", "evaluate", "sheet"):
        with run.part(name):
            tick = run._host(name).tick
            tick(0, 0, "nothing known")
            tick(1, 2, "half")
            tick(2, 2, "whole")
    shares = [done / total for done, total, _ in ticks]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == pytest.approx(1)
    assert ticks[1][2] == "source: half"
    assert set(run.seconds) == {"source", "target", "train", "swap", "evaluate", "sheet"}


def test_the_bar_is_shared_out_by_what_each_part_will_take(make_video: MakeVideo, tmp_path: Path) -> None:
    source, target = (make_video(tmp_path / name, frames, 25) for name, frames in (("a.mp4", 50), ("t.mp4", 25)))
    run = _Clone(options(source, target), Host(tmp_path))
    run.expect(6000, every=1)
    assert run._shares["train"] > 0.95 and run._shares["source"] == pytest.approx(2 * run._shares["target"])
    run.seconds = {"source": 2000.0, "target": 1000.0}  # slower than thought: 40 s a frame
    after = run.expect(6000, every=1)
    assert run._done == pytest.approx(3000 / (9000 + after))
    assert run._shares["train"] == pytest.approx(6000 / (9000 + after))
    assert run._shares["swap"] == pytest.approx(25 * 40 * 3.2 / (9000 + after))
    unscored = _Clone(options(source, target, evaluate=False), Host(tmp_path))
    unscored.expect(None, every=1)
    assert "evaluate" not in unscored._shares
    assert unscored._shares["train"] == pytest.approx(0.5), "of unknown length: as long as all the rest"
