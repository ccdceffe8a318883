"""What the benchmark of long videos says of memory over chunks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import long_video


def test_growth_is_that_of_a_line_without_the_first_chunks(tmp_path: Path) -> None:
    watch = long_video.Watch(tmp_path, 0)
    watch.most["looking"] = dict.fromkeys(range(30), 500.0) | {0: 9000.0}
    watch.most["swapping"] = {number: 700.0 + 3 * number + (-1) ** number for number in range(4, 44)}
    found = watch.grows()
    assert found["looking"] == {"first_mb": 500, "last_mb": 500, "mb_a_chunk": 0}
    assert found["swapping"]["mb_a_chunk"] == pytest.approx(3, abs=0.02)
    assert (found["swapping"]["first_mb"], found["swapping"]["last_mb"]) == (726, 816)


def test_passes_and_chunks_are_told_apart_by_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = iter((100.0, 150.0, 200.0, 180.0, 190.0))
    monkeypatch.setattr(long_video, "memory", lambda pid: next(held))
    job = tmp_path / "work" / "jobs" / "1"
    job.mkdir(parents=True)
    watch = long_video.Watch(tmp_path, 0)
    for name in ("analysis-00000.npz", "plan.npz", "video-00000.mp4", "x"):
        (job / name).write_bytes(b"x" * 5000)
        watch.look()
    assert watch.most == {"looking": {1: 100.0}, "swapping": {0: 150.0, 1: 200.0}}
    assert watch.disk >= 4 * 5000
    (job / "video-00000.mp4").unlink()  # it lies in the output now
    assert watch.look() == 0 and watch.most["swapping"] == {0: 150.0, 1: 200.0}
