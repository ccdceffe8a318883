"""Extraction and training beside faceswap and DeepFaceLab: the same frames, the same batch, in turns on this machine.

    python benchmarks/peers.py --clip me.mp4 --folder DIR --faceswap CHECKOUT --faceswap-python PYTHON
    python benchmarks/peers.py --clip me.mp4 --folder DIR --deepfacelab CHECKOUT --deepfacelab-python PYTHON

The person has the checkouts, with what they need installed for the Python that is named; nothing of them is fetched here, and
faceswap fetches its own weights when it extracts. One JSON object comes out: for each tool and round frames (extraction) or pictures
(training) a second, counted from the first one that is done, so that starting and loading are left out for all alike; and the
ratios of the medians.

- Extraction: frames are written as PNG first. What is counted are files of faces, so the clip should show one face in each frame.
- Training: ours is preset cpu (or what `--ours` says) at `--side`; faceswap's is `--faceswap-trainer`, whose side is its own
  (original: 64 px); DeepFaceLab's is its Quick96 unless `--deepfacelab-model` says otherwise. faceswap is given our crops in its own
  format, so that it need not extract; DeepFaceLab must have extracted. How well they learn is not judged.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2

from lib_vitface import media
from lib_vitface.device import child_environment, cpu_name
from lib_vitface.faceset.store import Faceset

ROOT = Path(__file__).resolve().parents[1]
_POLL_S = 0.05
_ITERATION = re.compile(rb"#(\d+)\]")
# iBUG's 68 points (Sagonas et al. 2013) among those of the MediaPipe face mesh
_POINTS68 = [
    *(127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356),
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 6, 195, 4, 98, 97, 2, 326, 327),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87),
]


@dataclass(frozen=True)
class Run:
    """A tool at work: `count` says how many pieces of `size` frames or pictures are done; it is stopped when `enough` are."""

    tool: str
    command: Sequence[str | Path]
    count: Callable[[Path], int]
    enough: int
    output: Path
    size: int = 1
    cwd: Path = ROOT
    environment: dict[str, str] = field(default_factory=dict)
    typed: str = ""


def rate(run: Run) -> dict[str, Any]:
    """Frames or pictures a second between the first piece and the last, or what the tool said last where it made no two."""
    shutil.rmtree(run.output, ignore_errors=True)
    run.output.parent.mkdir(parents=True, exist_ok=True)
    seen: list[tuple[float, int]] = []
    with tempfile.NamedTemporaryFile() as said:
        process = subprocess.Popen(
            [str(part) for part in run.command],
            cwd=run.cwd,
            env={**child_environment(), **run.environment},
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(run.typed.encode())
        process.stdin.flush()
        try:
            while process.poll() is None and (not seen or seen[-1][1] < run.enough):
                time.sleep(_POLL_S)
                done = run.count(Path(said.name))
                if done and (not seen or done > seen[-1][1]):
                    seen.append((time.monotonic(), done))
        finally:
            _end(process)
        last = [
            line
            for line in Path(said.name).read_text(errors="replace").replace("\r", "\n").splitlines()
            if line.strip()
        ]
    if len(seen) < 2:
        return {"failed": " | ".join(last[-3:])[-300:] or f"exit code {process.returncode}"}
    seconds, pieces = seen[-1][0] - seen[0][0], seen[-1][1] - seen[0][1]
    return {"per_s": round(pieces * run.size / seconds, 2), "pieces": pieces, "seconds": round(seconds, 1)}


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and those it started (its session is its own)."""
    if process.poll() is None:
        for number in (15, 9):
            try:
                os.killpg(process.pid, number)
                process.wait(20)
                return
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                return


def files_in(folder: Path, *suffixes: str) -> Callable[[Path], int]:
    """Counts the pictures in a folder, wherever the tool puts them below it."""
    return lambda _: sum(path.suffix in suffixes for path in folder.rglob("*")) if folder.exists() else 0


def lines_of(path: Path) -> Callable[[Path], int]:
    """Counts the lines of a log."""
    return lambda _: path.read_bytes().count(b"\n") if path.exists() else 0


def iterations(said: Path) -> int:
    """The last iteration that faceswap or DeepFaceLab told of on its output."""
    found = _ITERATION.findall(said.read_bytes()[-4000:])
    return int(found[-1]) if found else 0


def write_frames(clip: Path, folder: Path, count: int) -> int:
    """The first frames of a clip as PNG files. Returns how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    made = 0
    for made, frame in enumerate(islice(media.read_frames(clip), count), 1):
        cv2.imwrite(str(folder / f"{made:06}.png"), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
    return made


def for_faceswap(faceset: Path, folder: Path) -> Path:
    """Crops of a faceset as PNG files with the note that faceswap writes: an iTXt chunk "faceswap" that holds a Python literal."""
    folder.mkdir(parents=True, exist_ok=True)
    with Faceset.open(faceset) as opened:
        for record in opened.records():
            picture = cv2.cvtColor(opened.image(record), cv2.COLOR_RGB2BGR)
            points = record.landmarks[_POINTS68, :2]
            (left, top), (right, bottom) = points.min(axis=0).astype(int), points.max(axis=0).astype(int)
            name = f"{Path(record.image).stem}_0.png"
            box = {"x": int(left), "y": int(top), "w": int(right - left), "h": int(bottom - top)}
            note = {
                "alignments": {**box, "landmarks_xy": points.tolist(), "mask": {}, "identity": {}},
                "source": {
                    "alignments_version": 2.4,
                    "original_filename": name,
                    "face_index": 0,
                    "source_filename": f"{Path(record.image).stem}.png",
                    "source_is_video": False,
                    "source_frame_dims": picture.shape[:2],
                },
            }
            (folder / name).write_bytes(with_chunk(cv2.imencode(".png", picture)[1].tobytes(), str(note)))
    return folder


def with_chunk(png: bytes, text: str) -> bytes:
    """A PNG with an iTXt chunk "faceswap" after its header (33 bytes: signature and IHDR)."""
    body = b"iTXt" + b"faceswap\0\0\0\0\0" + text.encode()
    return png[:33] + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body)) + png[33:]


def extractions(given: argparse.Namespace, frames: Path, count: int) -> list[Run]:
    """Every tool that extracts the faces of the frames."""
    ours, own = given.folder / "ours-faces", given.folder / "work"
    few = ("--min-change", "0", "--min-sharpness", "0", "--max-faces", "100000", "--workspace", own, "--quiet")
    command = [sys.executable, "-m", "lib_vitface", "faceset", "--input", frames, "--output", ours, *few]
    runs = [Run("ours", command, files_in(ours / "images", ".jpg"), count, ours)]
    if given.faceswap:
        theirs = given.folder / "faceswap-faces"
        command = [
            given.faceswap_python,
            "faceswap.py",
            "extract",
            "-i",
            frames,
            "-o",
            theirs,
            *given.faceswap_extract.split(),
        ]
        alone = {"FACESWAP_BACKEND": given.faceswap_backend, "KERAS_BACKEND": "torch"}
        runs.append(
            Run("faceswap", command, files_in(theirs, ".png"), count, theirs, cwd=given.faceswap, environment=alone)
        )
    if given.deepfacelab:
        theirs = given.folder / "deepfacelab-faces"
        options = (
            "--detector",
            "s3fd",
            "--face-type",
            "whole_face",
            "--max-faces-from-image",
            "1",
            "--image-size",
            "512",
        )
        command = [
            given.deepfacelab_python,
            "main.py",
            "extract",
            "--input-dir",
            frames,
            "--output-dir",
            theirs,
            *options,
        ]
        command += ["--jpeg-quality", "96", "--no-output-debug", *given.deepfacelab_device.split()]
        runs.append(Run("deepfacelab", command, files_in(theirs, ".jpg"), count, theirs, cwd=given.deepfacelab))
    return runs


def trainings(given: argparse.Namespace, faceset: Path) -> list[Run]:
    """Every tool that trains on the crops, the person with themselves."""
    model = given.folder / "ours-model"
    command = [sys.executable, "-m", "lib_vitface", "train", "--source", faceset, "--target", faceset, "--model", model]
    command += [
        "--batch",
        given.batch,
        "--steps",
        given.steps,
        "--resolution",
        given.side,
        "--preview-steps",
        "0",
        "--quiet",
    ]
    command += ["--workspace", given.folder / "work", *given.ours.split()]
    runs = [Run("ours", command, lines_of(model / "loss.jsonl"), given.steps, model, given.batch)]
    if given.faceswap:
        model, faces = given.folder / "faceswap-model", for_faceswap(faceset, given.folder / "for-faceswap")
        command = [given.faceswap_python, "faceswap.py", "train", "-A", faces, "-B", faces, "-m", model]
        command += ["-t", given.faceswap_trainer, "-b", given.batch, "-i", given.steps]
        alone = {"FACESWAP_BACKEND": given.faceswap_backend, "KERAS_BACKEND": "torch"}
        # a step of faceswap learns a batch of each person
        runs.append(Run("faceswap", command, iterations, given.steps, model, 2 * given.batch, given.faceswap, alone))
    if given.deepfacelab:
        model, faces = given.folder / "deepfacelab-model", given.folder / "deepfacelab-faces"
        command = [
            given.deepfacelab_python,
            "main.py",
            "train",
            "--training-data-src-dir",
            faces,
            "--training-data-dst-dir",
            faces,
        ]
        command += [
            "--model-dir",
            model,
            "--model",
            given.deepfacelab_model,
            "--no-preview",
            *given.deepfacelab_device.split(),
        ]
        # it asks for a name and then for options; empty lines take what it proposes. Quick96 learns 4 of each person a step
        typed = "benchmark\n" + "\n" * 60
        size = 2 * given.deepfacelab_batch
        runs.append(Run("deepfacelab", command, iterations, given.steps, model, size, given.deepfacelab, typed=typed))
    return runs


def compared(runs: Sequence[Run], rounds: int) -> dict[str, Any]:
    """All runs in turns, every other round in the opposite order; medians, and their ratios to ours."""
    found: dict[str, Any] = {run.tool: [] for run in runs}
    for number in range(rounds):
        for run in runs[:: -1 if number % 2 else 1]:
            found[run.tool].append(rate(run))
            print(run.tool, found[run.tool][-1], file=sys.stderr, flush=True)
    medians = {
        tool: statistics.median(values)
        for tool, results in found.items()
        if (values := [one["per_s"] for one in results if "per_s" in one])
    }
    ratios = {
        tool: round(medians["ours"] / value, 2)
        for tool, value in medians.items()
        if "ours" in medians and tool != "ours"
    }
    return {"rounds": found, "median_per_s": medians, "ours_over_theirs": ratios}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    made.add_argument("--clip", type=Path, required=True)
    made.add_argument("--folder", type=Path, required=True, help="Everything is made in here.")
    made.add_argument("--what", choices=("both", "extract", "train"), default="both")
    made.add_argument("--frames", type=int, default=120)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--batch", type=int, default=16)
    made.add_argument("--steps", type=int, default=40)
    made.add_argument("--side", type=int, default=64)
    made.add_argument("--ours", default="", help="Further options of our train, in one string.")
    made.add_argument("--faceswap", type=Path, help="A checkout of faceswap.")
    made.add_argument("--faceswap-python", default=sys.executable)
    made.add_argument("--faceswap-backend", default="cpu")
    made.add_argument("--faceswap-trainer", default="original")
    made.add_argument("--faceswap-extract", default="", help="Further options of its extract, in one string.")
    made.add_argument("--deepfacelab", type=Path, help="A checkout of DeepFaceLab.")
    made.add_argument("--deepfacelab-python", default=sys.executable)
    made.add_argument("--deepfacelab-device", default="--cpu-only")
    made.add_argument("--deepfacelab-model", default="Quick96")
    made.add_argument(
        "--deepfacelab-batch", type=int, default=4, help="Pictures of each person a step, as its model is set."
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no tool works on behind one's back
    given.folder = given.folder.resolve()
    count = write_frames(given.clip, given.folder / "frames", given.frames)
    found: dict[str, Any] = {"machine": cpu_name(), "cores": os.cpu_count(), "frames": count, "batch": given.batch}
    if given.what != "train":
        found["extraction"] = compared(extractions(given, given.folder / "frames", count), given.rounds)
    if given.what != "extract":
        faceset = given.folder / "faceset"
        command = [
            sys.executable,
            "-m",
            "lib_vitface",
            "faceset",
            "--input",
            given.folder / "frames",
            "--output",
            faceset,
            "--quiet",
        ]
        few = ("--workspace", given.folder / "work", "--min-change", "0")
        subprocess.run(
            [str(part) for part in (*command, *few)], env=child_environment(), check=True, stdout=subprocess.DEVNULL
        )
        found["training"] = compared(trainings(given, faceset), given.rounds)
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
