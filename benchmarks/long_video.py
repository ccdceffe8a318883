"""Memory and disk of swapping 4K videos of several lengths: neither may grow faster than the output does.

    python benchmarks/long_video.py --folder DIR [--seconds 10 30 90] [--fps 4] [--no-faces]

Each video is made up: a sample frame with a face, enlarged to 3840 x 2160, which sways; with `--no-faces` only in the first
second, and frames without one after it, which drift so that they cost the encoder something. It is swapped in a process of its
own, with a stand-in that tints the face in the place of a model (tests/swap/tint.py), so that what is measured is reading,
analysis, encoding and joining. While it runs, what lies on the disk (chunks, analysis, output; not the input) is added up every 20
ms, and the process's memory is read. One JSON object comes out: for each length the peak memory of the process; for each of both
passes its median memory over the first and the last quarter of the chunks, and how much it grows from chunk to chunk (slope of a
line through each chunk's most, by least squares, without the first `_WARM` chunks); and the most that was on the disk over the
size of the output. The shortest one is swapped once more, killed when half of its chunks are there, and gone on with: `resumed`
says how many chunks were taken over, and whether the file is the same. Memory over chunks is read from `/proc`, so it is there on
Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from small_clone import images  # noqa: E402

SIZE = (3840, 2160)
PROGRAM = ROOT / "tests" / "swap" / "tint.py"
_WARM = 4  # chunks of a pass in which queues and the allocator's arenas still fill


def make(path: Path, seconds: float, fps: Fraction, faces: bool) -> None:
    """Writes a clip unless it is there, frame by frame, with a face in all frames or in those of the first second."""
    if path.exists():
        return
    beside = path.with_name(f"unfinished-{path.name}")
    face, street = (cv2.resize(images(name, 1)[0], SIZE) for name in ("sample_target", "sample_no_face"))
    with av.open(str(beside), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "20", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(round(seconds * fps)):
            with_face = faces or number < max(2, fps)
            shift = round(40 * np.sin(number / 5)) if with_face else 4 * number
            image = np.ascontiguousarray(np.roll(face if with_face else street, shift, axis=1))
            picture = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = number, 1 / fps
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    beside.replace(path)


def used(folder: Path) -> int:
    """Bytes of the files below a folder, as the disk counts them."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512 if path.is_file() else 0
        except OSError:  # gone since
            continue
    return total


def memory(pid: int) -> float:
    """What a process holds now, in MB; 0 where that cannot be read."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, ValueError, IndexError):
        return 0.0


class Watch:
    """What is seen of a running swap: the most on the disk, and the most memory by pass and by chunks that were there."""

    def __init__(self, folder: Path, pid: int) -> None:
        self.folder, self.pid, self.disk = folder, pid, 0
        self.most: dict[str, dict[int, float]] = {"looking": {}, "swapping": {}}

    def look(self) -> int:
        """How many chunks of the second pass there are."""
        self.disk = max(self.disk, used(self.folder))
        names = [path.name for path in self.folder.glob("work/jobs/*/*")]
        looked, swapped = (sum(name.startswith(begin) for name in names) for begin in ("analysis-", "video-"))
        if swapped >= max(self.most["swapping"], default=0):  # fewer: they are being joined
            done = self.most["swapping" if "plan.npz" in names else "looking"]
            number = swapped if "plan.npz" in names else looked
            done[number] = max(done.get(number, 0.0), memory(self.pid))
        return swapped

    def grows(self) -> dict[str, Any]:
        """Of each pass: memory at its beginning and end in MB, and its slope in MB a chunk."""
        found = {}
        for name, most in self.most.items():
            pairs = [(number, value) for number, value in sorted(most.items()) if number >= _WARM and value]
            if len(pairs) > _WARM:
                values = [value for _, value in pairs]
                quarter = max(len(values) // 4, 1)
                found[name] = {
                    "first_mb": round(float(np.median(values[:quarter]))),
                    "last_mb": round(float(np.median(values[-quarter:]))),
                    "mb_a_chunk": round(float(np.polyfit(*zip(*pairs, strict=True), 1)[0]), 2),
                }
        return found


def start(clip: Path, folder: Path, chunk_frames: int) -> subprocess.Popen[str]:
    """A swap into `folder/out.mp4`."""
    values = {"input": clip, "output": folder / "out.mp4", "codec": "h264", "encode_speed": "fast", "chunk_frames": chunk_frames,
              "color": "none", "occlusion": False, "sharpen": 0}  # fmt: skip
    pairs = [f"{key}={value}" for key, value in values.items()]
    return subprocess.Popen([sys.executable, PROGRAM, folder, "0", *pairs], stdout=subprocess.PIPE, text=True)


def measured(clip: Path, folder: Path, chunk_frames: int) -> dict[str, Any]:
    """One swap."""
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "out.mp4"
    output.unlink(missing_ok=True)
    began = time.monotonic()
    run = start(clip, folder, chunk_frames)
    watch = Watch(folder, run.pid)
    while run.poll() is None:
        watch.look()
        time.sleep(0.02)
    result, size = _said(run), output.stat().st_size
    return {
        "frames": result["frames"], "chunks": -(-result["frames"] // chunk_frames), "seconds": round(time.monotonic() - began),
        "peak_memory_mb": round(result["peak_kb"] / 1024), "memory_over_chunks": watch.grows(),
        "output_mb": round(size / 2**20, 1), "most_on_disk_mb": round(watch.disk / 2**20, 1),
        "disk_over_output": round(watch.disk / size, 3),
    }  # fmt: skip


def resumed(clip: Path, folder: Path, chunk_frames: int, chunks: int) -> dict[str, Any]:
    """The swap of `measured` once more beside its output, killed half-way through the second pass, and gone on with."""
    again = folder / "again"
    again.mkdir(parents=True, exist_ok=True)
    (again / "out.mp4").unlink(missing_ok=True)
    run = start(clip, again, chunk_frames)
    watch = Watch(again, run.pid)
    while run.poll() is None and watch.look() < chunks // 2:
        time.sleep(0.02)
    run.kill()
    run.communicate()
    result = _said(start(clip, again, chunk_frames))
    same = (again / "out.mp4").read_bytes() == (folder / "out.mp4").read_bytes()
    return {"killed_with": run.returncode, "chunks_taken_over": result["resumed_chunks"], "same_file": same}


def _said(run: subprocess.Popen[str]) -> dict[str, Any]:
    said = run.communicate()[0]
    if run.returncode:
        sys.exit(f"The swap failed with {run.returncode}: {said}")
    return dict(json.loads(said))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 30, 90])
    parser.add_argument("--fps", type=Fraction, default=Fraction(4))
    parser.add_argument("--chunk-frames", type=int, default=8)
    parser.add_argument("--faces", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    found = {}

    def clip_of(seconds: float) -> Path:
        name = f"{seconds:g}s-{given.fps.numerator}-{given.fps.denominator}{'-faces' * given.faces}.mp4"
        return Path(given.folder / name)

    for seconds in given.seconds:
        clip = clip_of(seconds)
        make(clip, seconds, given.fps, given.faces)
        found[f"{seconds:g} s"] = measured(clip, given.folder / f"run {seconds:g}", given.chunk_frames)
        print(seconds, found[f"{seconds:g} s"], file=sys.stderr, flush=True)
    shortest = min(given.seconds)
    chunks = found[f"{shortest:g} s"]["chunks"]
    found["resumed"] = resumed(clip_of(shortest), given.folder / f"run {shortest:g}", given.chunk_frames, chunks)
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
