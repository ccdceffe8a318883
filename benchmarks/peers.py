"""Extraction and training beside faceswap and DeepFaceLab: the same frames, the same batch, in turns on this machine.

    python benchmarks/peers.py --clip me.mp4 --folder DIR --faceswap CHECKOUT --faceswap-python PYTHON
    python benchmarks/peers.py --clip me.mp4 --folder DIR --deepfacelab CHECKOUT --deepfacelab-python PYTHON

The person has the checkouts, with what they need installed for the Python that is named; nothing of them is fetched here, and
faceswap fetches its own weights when it extracts. Every tool is started once, makes its first pieces, and is then held (SIGSTOP);
from there on one works at a time, in turns, so that starting, loading and first saves are left out for all alike and what else
the machine does falls on all. One JSON object comes out: for each tool frames (extraction) or pictures (training) a second of
every turn, and the ratios of the medians; and the same for each second that a core worked for it (Linux), which is worth more
where others use the machine. Threads wait for each other by working, so set OMP_NUM_THREADS=1 for that figure.

- Extraction: each clip by itself, read by each tool as it can: ours and faceswap take the video, DeepFaceLab PNG files of it. What
  is counted are frames of which a face was written, so the clips should show one face in each frame; how many frames of the whole
  clip each tool found it in is told as `found`.
- Training, on the first `--frames` frames of the first clip: ours with each `--ours` (none: as it comes); faceswap with each
  `--faceswap-trainer` (original learns 64 px, dfl-h128 128 px); DeepFaceLab's SAEHD, df-ud with its usual sizes, at
  `--deepfacelab-side`. `--batch` counts the pictures of a step, both persons together. The others are given our crops in their own
  formats, so that they need not extract. How well they learn is not judged.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
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
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2

from lib_vitface import media
from lib_vitface.device import child_environment, cpu_name
from lib_vitface.faceset.record import Record
from lib_vitface.faceset.store import Faceset
from lib_vitface.types import Floats

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
    """A tool's command. `count` says from what it wrote on its output how many pieces of `size` frames or pictures are done."""

    tool: str
    command: Sequence[object]
    count: Callable[[Path], int]
    output: Path
    size: int = 1
    cwd: Path = ROOT
    environment: dict[str, str] = field(default_factory=child_environment)
    typed: str = ""


class Working:
    """A tool at work: it is started by `with`, works in its turns only, and is ended with all it started."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def __enter__(self) -> Working:
        shutil.rmtree(self.run.output, ignore_errors=True)
        self.run.output.parent.mkdir(parents=True, exist_ok=True)
        self._said = tempfile.NamedTemporaryFile()
        self._process = subprocess.Popen(
            [str(part) for part in self.run.command],
            cwd=self.run.cwd,
            env={**self.run.environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=self._said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(self.run.typed.encode())
        self._process.stdin.flush()
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGCONT, signal.SIGKILL):
            self._tell(number)
            if number != signal.SIGTERM:
                try:
                    self._process.wait(20)
                except subprocess.TimeoutExpired:
                    continue
        self._said.close()

    def turn(self, pieces: int) -> dict[str, Any]:
        """Let it work until it has made `pieces` more than the first of this turn, whose beginning may lie in the turn before."""
        self._tell(signal.SIGCONT)
        before = self.done()
        seen: list[tuple[float, int, float]] = []
        while self._process.poll() is None and (not seen or seen[-1][1] < seen[0][1] + pieces):
            time.sleep(_POLL_S)
            done = self.done()
            if done > (seen[-1][1] if seen else before):
                seen.append((time.monotonic(), done, self.worked_s()))
        self._tell(signal.SIGSTOP)
        if len(seen) < 2:
            return {"failed": self.said_last() or f"exit code {self._process.returncode}"}
        seconds, made = seen[-1][0] - seen[0][0], seen[-1][1] - seen[0][1]
        worked, pictures = seen[-1][2] - seen[0][2], made * self.run.size
        rates = {"per_s": round(pictures / seconds, 2), "pieces": made, "seconds": round(seconds, 1)}
        return {**rates, "per_processor_s": round(pictures / worked, 2)} if worked else rates

    def worked_s(self) -> float:
        """Processor time that the tool and what it started took so far, in seconds; 0 where the system does not tell."""
        total = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                # from the state on: the name before it may hold anything
                values = stat.read_text().rpartition(")")[2].split()
                if int(values[2]) == self._process.pid:
                    total += sum(int(value) for value in values[11:15])  # its own, and its ended children's
        return total / os.sysconf("SC_CLK_TCK")

    def finish(self) -> int:
        """Let it work to its own end. Returns all pieces that it made."""
        self._tell(signal.SIGCONT)
        self._process.wait()
        return self.done()

    def done(self) -> int:
        return self.run.count(Path(self._said.name))

    def said_last(self) -> str:
        said = Path(self._said.name).read_text(errors="replace").replace("\r", "\n")
        return " | ".join([line for line in said.splitlines() if line.strip()][-3:])[-300:]

    def _tell(self, number: int) -> None:
        """A signal for the tool and those it started (its session is its own)."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def frames_in(folder: Path, suffix: str) -> Callable[[Path], int]:
    """Counts the frames of which there is a face in a folder, named by all but the last part of its name (`0001_0.png`)."""
    return lambda _: len({path.stem.rpartition("_")[0] for path in folder.rglob(f"*{suffix}")})


def lines_of(path: Path) -> Callable[[Path], int]:
    """Counts the lines of a log."""
    return lambda _: path.read_bytes().count(b"\n") if path.exists() else 0


def iterations(said: Path) -> int:
    """The last iteration that faceswap or DeepFaceLab told of on its output."""
    found = _ITERATION.findall(said.read_bytes()[-4000:])
    return int(found[-1]) if found else 0


def write_frames(clip: Path, folder: Path, count: int | None = None) -> list[Path]:
    """The first frames of a clip, or all, as PNG files. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number, frame in enumerate(islice(media.read_frames(clip), count), 1):
        made.append(folder / f"{clip.stem}-{number:06}.png")
        cv2.imwrite(str(made[-1]), cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR))
    return made


def points68(record: Record) -> Floats:
    """iBUG's 68 points of a face in pixels of its crop."""
    return record.landmarks[_POINTS68, :2]


def for_faceswap(faceset: Path, folder: Path) -> Path:
    """Crops of a faceset as PNG files with the note that faceswap writes: an iTXt chunk "faceswap" that holds a Python literal."""
    folder.mkdir(parents=True, exist_ok=True)
    with Faceset.open(faceset) as opened:
        for record in opened.records():
            picture = cv2.cvtColor(opened.image(record), cv2.COLOR_RGB2BGR)
            points = points68(record)
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


def for_deepfacelab(faceset: Path, folder: Path) -> Path:
    """Crops of a faceset as JPEG files with the note that DeepFaceLab writes and reads: a pickled dict in segment APP15."""
    folder.mkdir(parents=True, exist_ok=True)
    with Faceset.open(faceset) as opened:
        for record in opened.records():
            picture = cv2.cvtColor(opened.image(record), cv2.COLOR_RGB2BGR)
            name = f"{Path(record.image).stem}.jpg"
            note = {"face_type": "whole_face", "landmarks": points68(record).tolist(), "source_filename": name}
            body = pickle.dumps({**note, "source_landmarks": note["landmarks"]}, protocol=4)
            jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
            (folder / name).write_bytes(jpeg[:2] + b"\xff\xef" + struct.pack(">H", len(body) + 2) + body + jpeg[2:])
    return folder


def alone(**more: str) -> dict[str, str]:
    """The environment of a tool that is not ours."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | more


def extractions(given: argparse.Namespace, clip: Path) -> list[Run]:
    """Every tool that extracts the faces of the clip."""
    ours, own = given.folder / "ours-faces", given.folder / "work"
    few = ("--min-change", "0", "--min-sharpness", "0", "--max-faces", "100000", "--workspace", own, "--quiet")
    command = [sys.executable, "-m", "lib_vitface", "faceset", "--input", clip, "--output", ours, *few]
    runs = [Run("ours", command, frames_in(ours / "images", ".jpg"), ours)]
    if given.faceswap:
        theirs, note = given.folder / "faceswap-faces", given.folder / "faceswap.fsa"
        words = ("extract", "-i", clip, "-o", theirs, "-p", note, *given.faceswap_extract.split())
        runs.append(faceswap(given, "faceswap", words, frames_in(theirs, ".png"), theirs))
    if given.deepfacelab:
        theirs, frames = given.folder / "deepfacelab-faces", given.folder / "deepfacelab-frames"
        shutil.rmtree(frames, ignore_errors=True)
        write_frames(clip, frames)
        command = [given.deepfacelab_python, "main.py", "extract", "--input-dir", frames, "--output-dir", theirs]
        command += [
            "--detector",
            "s3fd",
            "--face-type",
            "whole_face",
            "--max-faces-from-image",
            "1",
            "--image-size",
            "512",
        ]
        command += ["--jpeg-quality", "96", "--no-output-debug", *given.deepfacelab_device.split()]
        runs.append(Run("deepfacelab", command, frames_in(theirs, ".jpg"), theirs, 1, given.deepfacelab, alone()))
    return runs


def trainings(given: argparse.Namespace, faceset: Path) -> list[Run]:
    """Every tool that trains on the crops, the person with themselves, for longer than it will be let."""
    runs, each = [], given.batch // 2
    for number, options in enumerate(given.ours or [""]):
        model, workspace = (given.folder / f"ours-{part}-{number}" for part in ("model", "work"))
        # Of its own: one that is stopped while it writes to the job store would keep the others out.
        if (given.folder / "work").is_dir():
            shutil.copytree(given.folder / "work", workspace, dirs_exist_ok=True)
        command = [sys.executable, "-m", "lib_vitface", "train", "--source", faceset, "--target", faceset]
        command += [
            "--model",
            model,
            "--batch",
            2 * each,
            "--steps",
            1_000_000,
            "--preview-steps",
            0,
            "--save-minutes",
            60,
        ]
        command += ["--quiet", "--workspace", workspace, *options.split()]
        runs.append(Run(f"ours {options}".strip(), command, lines_of(model / "loss.jsonl"), model, 2 * each))
    if given.faceswap:
        faces = for_faceswap(faceset, given.folder / "for-faceswap")
        for trainer in given.faceswap_trainer or ["original"]:
            model = given.folder / f"faceswap-{trainer}"
            # a step of faceswap learns a batch of each person
            words = ("train", "-A", faces, "-B", faces, "-m", model, "-t", trainer, "-b", each, "-i", 1_000_000)
            runs.append(faceswap(given, f"faceswap {trainer}", words, iterations, model, 2 * each))
    if given.deepfacelab:
        model, faces = given.folder / "deepfacelab-model", for_deepfacelab(faceset, given.folder / "for-deepfacelab")
        command = [given.deepfacelab_python, "main.py", "train", "--training-data-src-dir", faces]
        command += ["--training-data-dst-dir", faces, "--model-dir", model, "--model", "SAEHD", "--no-preview"]
        command += ["--force-model-name", "benchmark", *given.deepfacelab_device.split()]
        # what it asks, in its order: five things of which its proposals are taken (empty lines), then the batch of each person,
        # the side, how much of the head, the design and its sizes; the rest as proposed
        typed = "\n" * 5 + f"{each}\n{given.deepfacelab_side}\nwf\ndf-ud\n128\n64\n64\n22\n" + "\n" * 40
        runs.append(
            Run("deepfacelab SAEHD", command, iterations, model, 2 * each, given.deepfacelab, alone(), typed=typed)
        )
    return runs


def faceswap(
    given: argparse.Namespace,
    tool: str,
    words: Sequence[object],
    count: Callable[[Path], int],
    output: Path,
    size: int = 1,
) -> Run:
    command = [str(word) for word in (given.faceswap_python, "faceswap.py", *words)]
    own = alone(FACESWAP_BACKEND=given.faceswap_backend, KERAS_BACKEND="torch")
    return Run(tool, command, count, output, size, given.faceswap, own)


def compared(runs: Sequence[Run], rounds: int, pieces: int, warm_up: int, *, finish: bool = False) -> dict[str, Any]:
    """All runs in turns of so many pieces, every other round in the opposite order; medians, and ours over theirs.

    `finish` lets each go on to its own end afterwards and tells how many pieces it made in all.
    """
    found: dict[str, Any] = {run.tool: [] for run in runs}
    ended: dict[str, int] = {}
    with ExitStack() as stack:
        at_work = []
        for run in runs:
            one = stack.enter_context(Working(run))
            first = one.turn(warm_up)
            print(run.tool, "begins", first, file=sys.stderr, flush=True)
            if "failed" in first:
                found[run.tool].append(first)
            else:
                at_work.append(one)
        for number in range(rounds):
            for one in at_work[:: -1 if number % 2 else 1]:
                found[one.run.tool].append(one.turn(pieces))
                print(one.run.tool, found[one.run.tool][-1], file=sys.stderr, flush=True)
        if finish:
            ended = {one.run.tool: one.finish() for one in at_work}
    return {
        "rounds": found,
        **_medians(found, "per_s", "median_per_s", "ours_over_theirs"),
        **_medians(found, "per_processor_s", "median_per_processor_s", "ours_over_theirs_by_processor"),
        **({"found": ended} if finish else {}),
    }


def _medians(found: dict[str, Any], rate: str, median: str, ratio: str) -> dict[str, Any]:
    """Each tool's median of one of the rates, and ours over theirs."""
    medians = {
        tool: statistics.median(values)
        for tool, results in found.items()
        if (values := [one[rate] for one in results if rate in one])
    }
    theirs = [tool for tool in medians if not _is_ours(tool)]
    return {
        median: medians,
        ratio: {
            ours: {their: round(medians[ours] / medians[their], 2) for their in theirs}
            for ours in medians
            if _is_ours(ours)
        },
    }


def _is_ours(tool: str) -> bool:
    return tool.split()[0] == "ours"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    made.add_argument("--clip", type=Path, nargs="+", required=True)
    made.add_argument("--folder", type=Path, required=True, help="Everything is made in here.")
    made.add_argument("--what", choices=("both", "extract", "train"), default="both")
    made.add_argument("--frames", type=int, default=120, help="Of the first clip, to train on.")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--pieces", type=int, default=10, help="Frames or steps of a turn.")
    made.add_argument("--warm-up", type=int, default=3, help="Frames or steps before the first turn.")
    made.add_argument("--batch", type=int, default=16, help="Pictures of a step, both persons together.")
    made.add_argument("--ours", action="append", help="Further options of our train, in one string; several times.")
    made.add_argument("--faceswap", type=Path, help="A checkout of faceswap.")
    made.add_argument("--faceswap-python", default=sys.executable)
    made.add_argument("--faceswap-backend", default="cpu")
    made.add_argument("--faceswap-trainer", action="append", help="One of its models (original); several times.")
    made.add_argument("--faceswap-extract", default="", help="Further options of its extract, in one string.")
    made.add_argument("--deepfacelab", type=Path, help="A checkout of DeepFaceLab.")
    made.add_argument("--deepfacelab-python", default=sys.executable)
    made.add_argument("--deepfacelab-device", default="--cpu-only")
    made.add_argument("--deepfacelab-side", type=int, default=128)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no tool works on behind one's back
    given.folder = given.folder.resolve()
    found: dict[str, Any] = {"machine": cpu_name(), "cores": os.cpu_count()}
    turns = given.rounds, given.pieces, given.warm_up
    if given.what != "train":
        found["extraction"] = {
            clip.name: {
                "frames": sum(1 for _ in media.read_frames(clip)),
                **compared(extractions(given, clip.resolve()), *turns, finish=True),
            }
            for clip in given.clip
        }
    if given.what != "extract":
        faceset, frames = given.folder / "faceset", write_frames(given.clip[0], given.folder / "frames", given.frames)
        command = [
            sys.executable,
            "-m",
            "lib_vitface",
            "faceset",
            "--input",
            *frames,
            "--output",
            faceset,
            "--quiet",
        ]
        command += ["--workspace", given.folder / "work", "--min-change", "0"]
        subprocess.run([str(part) for part in command], env=child_environment(), check=True, stdout=subprocess.DEVNULL)
        found["training"] = {"batch": given.batch // 2 * 2, **compared(trainings(given, faceset), *turns)}
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
