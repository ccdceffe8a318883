"""Memory and disk of swapping 4K videos of several lengths: neither may grow faster than the output does.

    python benchmarks/long_video.py --folder DIR [--seconds 10 30 90] [--fps 4]

Each video is made up: a sample frame with a face, enlarged to 3840 x 2160, in the first second, and frames without one after it,
which drift so that they cost the encoder something. It is swapped in a process of its own, with a stand-in that tints the face in the
place of a model (tests/swap/tint.py), so that what is measured is reading, analysis, encoding and joining. While it runs, what lies
on the disk (chunks, analysis, output; not the input) is added up every 20 ms. One JSON object comes out: for each length the peak
memory of the process, and the most that was on the disk over the size of the output.
"""

from __future__ import annotations

import argparse
import json
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


def make(path: Path, seconds: float, fps: Fraction) -> None:
    """Writes a clip unless it is there, frame by frame."""
    if path.exists():
        return
    beside = path.with_name(f"unfinished-{path.name}")
    face, street = (cv2.resize(images(name, 1)[0], SIZE) for name in ("sample_target", "sample_no_face"))
    with av.open(str(beside), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "20", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(round(seconds * fps)):
            image = face if number < max(2, fps) else np.ascontiguousarray(np.roll(street, 4 * number, axis=1))
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


def measured(clip: Path, folder: Path, chunk_frames: int) -> dict[str, Any]:
    """One swap."""
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "out.mp4"
    output.unlink(missing_ok=True)
    values = {"input": clip, "output": output, "codec": "h264", "encode_speed": "fast", "chunk_frames": chunk_frames,
              "color": "none", "occlusion": False, "sharpen": 0}  # fmt: skip
    pairs = [f"{key}={value}" for key, value in values.items()]
    run = subprocess.Popen([sys.executable, PROGRAM, folder, "0", *pairs], stdout=subprocess.PIPE, text=True)
    most = 0
    while run.poll() is None:
        most = max(most, used(folder))
        time.sleep(0.02)
    said = run.communicate()[0]
    if run.returncode:
        sys.exit(f"{clip}: the swap failed with {run.returncode}: {said}")
    result, size = json.loads(said), output.stat().st_size
    return {
        "frames": result["frames"], "chunks": -(-result["frames"] // chunk_frames), "peak_memory_mb": round(result["peak_kb"] / 1024),
        "output_mb": round(size / 2**20, 1), "most_on_disk_mb": round(most / 2**20, 1), "disk_over_output": round(most / size, 3),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 30, 90])
    parser.add_argument("--fps", type=Fraction, default=Fraction(4))
    parser.add_argument("--chunk-frames", type=int, default=8)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for seconds in given.seconds:
        clip = given.folder / f"{seconds:g}s-{given.fps.numerator}-{given.fps.denominator}.mp4"
        make(clip, seconds, given.fps)
        found[f"{seconds:g} s"] = measured(clip, given.folder / f"run {seconds:g}", given.chunk_frames)
        print(seconds, found[f"{seconds:g} s"], file=sys.stderr, flush=True)
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
