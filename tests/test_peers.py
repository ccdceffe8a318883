"""The comparison with other tools, with stand-ins for them whose speed is known."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

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
    for k in range(8):
        time.sleep(0.25); (out / f"{k}.png").write_bytes(b"x")
elif words[0] == "train":
    for k in range(1, 100):
        time.sleep(0.25); print(f"[12:00:00] [#{k:05}] Loss A: 0.1", end="\\r", flush=True)
sys.exit("weights cannot be fetched")
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "faceswap"
    folder.mkdir()
    (folder / "faceswap.py").write_text(STANDS_IN)
    return folder


def given(checkout: Path, *more: str) -> argparse.Namespace:
    words = [
        "--clip",
        "x.mp4",
        "--folder",
        str(checkout.parent / "out"),
        "--faceswap",
        str(checkout),
        "--steps",
        "6",
        "--batch",
        "4",
    ]
    return peers.parser().parse_args([*words, *more])


def test_rates_leave_out_the_start(checkout: Path) -> None:
    """Sleeping takes at least as long as it says; on a busy machine it takes longer."""
    (run,) = [r for r in peers.extractions(given(checkout), checkout.parent / "frames", 8) if r.tool == "faceswap"]
    found = peers.rate(run)
    assert found["pieces"] >= 5 and 1.0 < found["per_s"] < 4.6


def test_a_training_is_stopped_when_it_has_made_its_steps(checkout: Path, tmp_path: Path) -> None:
    faceset = write_faceset(tmp_path / "faces", 1, 4)
    (run,) = [r for r in peers.trainings(given(checkout), faceset) if r.tool == "faceswap"]
    found = peers.rate(run)
    assert 4 <= found["pieces"] <= 12 and found["per_s"] < 4.6 * 8  # a batch of 4 of each person


def test_what_a_tool_said_last_is_told(checkout: Path) -> None:
    run = peers.Run(
        "faceswap", [sys.executable, "faceswap.py", "nothing"], lambda _: 0, 5, checkout.parent / "o", cwd=checkout
    )
    assert peers.rate(run) == {"failed": "weights cannot be fetched"}


def test_tools_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order = []

    def rate(run: peers.Run) -> dict[str, float]:
        order.append(run.tool)
        return {"per_s": {"ours": 6.0, "other": 2.0}[run.tool]}

    monkeypatch.setattr(peers, "rate", rate)
    runs = [peers.Run(tool, [], lambda _: 0, 1, Path()) for tool in ("ours", "other")]
    found = peers.compared(runs, 3)
    assert order == ["ours", "other", "other", "ours", "ours", "other"]
    assert found["ours_over_theirs"] == {"other": 3.0}


def test_crops_carry_the_note_that_faceswap_writes(tmp_path: Path) -> None:
    folder = peers.for_faceswap(write_faceset(tmp_path / "faces", 1, 3), tmp_path / "out")
    files = sorted(folder.iterdir())
    assert len(files) == 3
    assert interop.read_note(files[0]) == interop.Note("faceswap", "00000000.png", None)
    assert len(peers._POINTS68) == 68 and max(peers._POINTS68) < 468


def test_frames_are_those_of_the_clip(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    pictures = [np.full((48, 64, 3), 20 * k, np.uint8) for k in range(6)]
    clip = make_video(tmp_path / "a.mkv", pictures, codec="ffv1", pixel_format="bgr0")
    assert peers.write_frames(clip, tmp_path / "frames", 4) == 4
    assert [p.name for p in sorted((tmp_path / "frames").iterdir())] == [f"{k:06}.png" for k in range(1, 5)]
