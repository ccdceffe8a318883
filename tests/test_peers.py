"""The comparison with other tools, with stand-ins for them whose speed is known."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib_vitface.faceset import interop

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parent / "training"))
import peers
from made_faceset import write_faceset

STANDS_IN = """
import pathlib, sys, time
words = sys.argv[1:]
if "extract" in words:
    out = pathlib.Path(words[words.index("-o") + 1]); out.mkdir(parents=True)
    time.sleep(1.0)  # starting is not counted
    for k in range(12):
        time.sleep(0.25)
        for face in range(1 + k % 2):
            (out / f"a-{k}_{face}.png").write_bytes(b"x")
elif words[0] == "train":
    for k in range(1, 100):
        time.sleep(0.25); print(f"[12:00:00] [#{k:05}] Loss A: 0.1", end="\\r")
else:
    sys.exit("weights cannot be fetched")
"""
ASKS = """
import os, sys
print("typed", [input() for _ in range(13)], end="\\r")
for k in range(1, 100):
    print(f"[12:00:00][#{k:06d}][0250ms][0.1]", end="\\r"); import time; time.sleep(0.25)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "faceswap"
    folder.mkdir()
    (folder / "faceswap.py").write_text(STANDS_IN)
    return folder


def given(checkout: Path, *more: str) -> argparse.Namespace:
    words = ["--clip", "x.mp4", "--folder", str(checkout.parent / "out"), "--faceswap", str(checkout), "--batch", "8"]
    return peers.parser().parse_args([*words, *more])


def only(runs: list[peers.Run], tool: str) -> peers.Run:
    (run,) = [run for run in runs if run.tool == tool]
    return run


def test_rates_leave_out_the_start_and_all_pieces_are_told(checkout: Path) -> None:
    """Sleeping takes at least as long as it says; on a busy machine it takes longer. Frames count once, however many faces."""
    run = only(peers.extractions(given(checkout), checkout.parent / "x.mp4"), "faceswap")
    found = peers.compared([run], 1, 5, 1, finish=True)
    (turn,) = found["rounds"]["faceswap"]
    assert turn["pieces"] >= 5 and 1.0 < turn["per_s"] < 4.6
    assert found["found"] == {"faceswap": 12}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell")
def test_processor_time_is_that_of_the_tool_and_what_it_starts(tmp_path: Path) -> None:
    child = "import time; t = time.process_time()\nwhile time.process_time() < t + 1.0: pass"
    words = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {child!r}]); print(1, flush=True); time.sleep(60)"
    run = peers.Run("tool", [sys.executable, "-c", words], lambda said: said.stat().st_size // 2, tmp_path / "x" / "y")
    with peers.Working(run) as working:
        until = time.monotonic() + 120
        while not working.done() and time.monotonic() < until:
            time.sleep(0.05)
        assert working.done() and 0.9 < working.worked_s() < 10


def test_a_step_of_faceswap_counts_the_pictures_of_both_persons(checkout: Path, tmp_path: Path) -> None:
    faceset = write_faceset(tmp_path / "faces", 1, 4)
    runs = peers.trainings(given(checkout, "--faceswap-trainer", "original", "--faceswap-trainer", "dfaker"), faceset)
    run = only(runs, "faceswap dfaker")
    assert run.command[run.command.index("-b") + 1] == "4" and run.command[run.command.index("-t") + 1] == "dfaker"
    with peers.Working(run) as working:
        turn = working.turn(4)
    assert 4 <= turn["pieces"] <= 10 and 4 < turn["per_s"] < 4.6 * 8
    ours = only(runs, "ours")
    assert ours.size == 8 and ours.command[ours.command.index("--batch") + 1] == 8


def test_a_tool_rests_outside_its_turn(checkout: Path, tmp_path: Path) -> None:
    runs = peers.trainings(given(checkout), write_faceset(tmp_path / "faces", 1, 4))
    with peers.Working(only(runs, "faceswap original")) as working:
        working.turn(1)
        before = working.done()
        time.sleep(1.2)
        assert working.done() <= before + 1  # what it had written when it was held may be read late
        working.turn(1)
        assert working.done() >= before + 1
        process = working._process
    assert process.poll() is not None


def test_what_a_tool_said_last_is_told(checkout: Path) -> None:
    run = peers.Run(
        "faceswap", [sys.executable, "faceswap.py", "nothing"], lambda _: 0, checkout.parent / "o", cwd=checkout
    )
    assert peers.compared([run], 2, 5, 1)["rounds"] == {"faceswap": [{"failed": "weights cannot be fetched"}]}


def test_tools_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order = []

    class Working:
        def __init__(self, run: peers.Run) -> None:
            self.run = run

        def __enter__(self) -> Working:
            return self

        def __exit__(self, *_: object) -> None:
            order.append("end")

        def turn(self, pieces: int) -> dict[str, float]:
            order.append(f"{self.run.tool} {pieces}")
            return {"per_s": {"ours --a": 6.0, "ours": 3.0, "other": 2.0}[self.run.tool]}

    monkeypatch.setattr(peers, "Working", Working)
    runs = [peers.Run(tool, [], lambda _: 0, Path()) for tool in ("ours", "ours --a", "other")]
    found = peers.compared(runs, 2, 10, 3)
    turns = ["ours 10", "ours --a 10", "other 10"]
    assert order == ["ours 3", "ours --a 3", "other 3", *turns, *turns[::-1], "end", "end", "end"]
    assert found["ours_over_theirs"] == {"ours": {"other": 1.5}, "ours --a": {"other": 3.0}}


def test_deepfacelab_is_answered_what_it_asks(checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "deepfacelab"
    folder.mkdir()
    (folder / "main.py").write_text(ASKS)
    told = given(checkout, "--deepfacelab", str(folder), "--deepfacelab-side", "96")
    run = only(peers.trainings(told, write_faceset(tmp_path / "faces", 1, 2)), "deepfacelab SAEHD")
    with peers.Working(run) as working:
        working.turn(2)
        said = Path(working._said.name).read_text()
    answers = ["", "", "", "", "", "4", "96", "wf", "df-ud", "128", "64", "64", "22"]
    assert said.startswith(f"typed {answers}")


def test_others_do_not_see_our_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    assert "PYTHONPATH" not in peers.alone() and peers.alone(A="b")["A"] == "b"


def test_crops_carry_the_note_that_deepfacelab_writes(tmp_path: Path) -> None:
    folder = peers.for_deepfacelab(write_faceset(tmp_path / "faces", 1, 3), tmp_path / "out")
    files = sorted(folder.iterdir())
    assert len(files) == 3
    note = interop.read_note(files[0])
    assert note is not None and (note.tool, note.source) == ("deepfacelab", "00000000.jpg")
    assert cv2.imread(str(files[0])) is not None


def test_crops_carry_the_note_that_faceswap_writes(tmp_path: Path) -> None:
    folder = peers.for_faceswap(write_faceset(tmp_path / "faces", 1, 3), tmp_path / "out")
    files = sorted(folder.iterdir())
    assert len(files) == 3
    assert interop.read_note(files[0]) == interop.Note("faceswap", "00000000.png", None)
    assert len(peers._POINTS68) == 68 and max(peers._POINTS68) < 468


def test_frames_are_those_of_the_clip(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    pictures = [np.full((48, 64, 3), 20 * k, np.uint8) for k in range(6)]
    clip = make_video(tmp_path / "a.mkv", pictures, codec="ffv1", pixel_format="bgr0")
    assert len(peers.write_frames(clip, tmp_path / "all")) == 6
    made = peers.write_frames(clip, tmp_path / "frames", 4)
    assert sorted((tmp_path / "frames").iterdir()) == made
    assert [path.name for path in made] == [f"a-{k:06}.png" for k in range(1, 5)]
