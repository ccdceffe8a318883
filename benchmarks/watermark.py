"""How long the invisible mark lasts: attacks on video and pictures, what the mark costs, false alarms, other methods beside it.

    python benchmarks/watermark.py --clips a.mp4 b.mp4 … --log mark.jsonl [--pictures FILES …] [--unmarked FILES …] [--show DIR]

Every stretch of a clip, every picture and every 200 unmarked frames is a line of `--log`, and what stands there is not measured
again: a run that was ended goes on, `--minutes` ends one in time, `--report` only prints the tables. The other methods see some
of the stretches and pictures, evenly spread; the tables compare on those.

A clip counts as read when the record's id and the keyed code come out right; a method of `invisible-watermark` when all of its 32 bits
do (majority over frames), `blind-watermark` (pictures only) likewise. Time is of the processor, of one thread.
`--show` writes marked and unmarked frames with their difference, amplified 20 times.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import watermark_attacks as attacks
import watermark_material as material

from lib_vitface import media
from lib_vitface.provenance.reading import read
from lib_vitface.provenance.watermark import SAMPLES, Watermark
from lib_vitface.types import Image, VideoInfo

KEY, RECORD = bytes(range(32)), "5ca1ab1e" * 4
BITS = [int(b) for b in f"{0x5CA1AB1E:032b}"]
READ = 24  # frames that are voted together
GAIN = 20  # of the difference that is shown
CHUNK = 200  # unmarked frames to a line of the log
NAMES = ("vitface", "dwtDct", "dwtDctSvd", "rivaGan", "blind-watermark")
Frames = Sequence[Image]


class TimeIsUpError(Exception):
    """The minutes that were given are over."""


# ------------------------------------------------------------------------------------------------------------- methods


class Ours:
    """`strength` is a grey level for video, None for a still."""

    name = "vitface"

    def __init__(self) -> None:
        self._mark = Watermark(RECORD, KEY)

    def strength(self, frames: Frames) -> float:
        return self._mark.strength(_spread(frames, SAMPLES))

    def embed(self, image: Image, strength: float | None) -> Image:
        return self._mark.embed(image, strength)

    def reads(self, images: Sequence[Image]) -> bool:
        found = read(_spread(images, READ), KEY)
        return (found.record_id == RECORD[:8] and bool(found.authentic)) or RECORD[:8] in found.others


class Invisible:
    """`invisible-watermark`: 32 bits in every frame."""

    def __init__(self, name: str) -> None:
        from imwatermark import WatermarkDecoder, WatermarkEncoder

        self.name = name
        self._encoder, self._decoder = WatermarkEncoder(), WatermarkDecoder("bits", 32)
        self._encoder.set_watermark("bits", BITS)
        if name == "rivaGan":
            WatermarkEncoder.loadModel()

    def strength(self, frames: Frames) -> None:
        """It has one only."""

    def embed(self, image: Image, strength: float | None) -> Image:
        marked = self._encoder.encode(np.ascontiguousarray(image[..., ::-1]), self.name)
        return np.ascontiguousarray(np.clip(marked, 0, 255).astype(np.uint8)[..., ::-1])

    def reads(self, images: Sequence[Image]) -> bool:
        votes = np.zeros(32)
        for image in _spread(images, 8):
            try:
                votes += (
                    2.0 * np.array(self._decoder.decode(np.ascontiguousarray(image[..., ::-1]), self.name), float) - 1
                )
            except (RuntimeError, ValueError, cv2.error):  # a picture too small for the method
                return False
        return bool(np.array_equal(votes > 0, np.array(BITS) > 0))


class Blind:
    """`blind-watermark` (DWT-DCT-SVD with passwords); it wants the size the picture had, so a change of size is undone first."""

    name = "blind-watermark"

    def __init__(self) -> None:
        from blind_watermark import WaterMark, bw_notes

        bw_notes.close()
        self._make: Callable[[], Any] = lambda: WaterMark(password_img=1, password_wm=1)
        self._shape: tuple[int, ...] = ()

    def embed(self, image: Image, strength: float | None) -> Image:
        work = self._make()
        work.read_img(img=np.ascontiguousarray(image[..., ::-1]))
        work.read_wm([bool(b) for b in BITS], mode="bit")
        self._shape = image.shape
        return np.ascontiguousarray(np.clip(work.embed(), 0, 255).astype(np.uint8)[..., ::-1])

    def reads(self, images: Sequence[Image]) -> bool:
        image = cv2.resize(images[0], self._shape[1::-1]) if images[0].shape != self._shape else images[0]
        found = self._make().extract(embed_img=np.ascontiguousarray(image[..., ::-1]), wm_shape=32, mode="bit")
        return bool(np.array_equal(np.array(found) > 0.5, np.array(BITS) > 0))


def make_method(name: str) -> Any:
    """Raises `ImportError` where its package is missing."""
    return Ours() if name == "vitface" else Blind() if name == "blind-watermark" else Invisible(name)


def _spread(images: Sequence[Image], count: int) -> list[Image]:
    return [images[int(k)] for k in np.unique(np.linspace(0, len(images) - 1, count).astype(int))]


# ------------------------------------------------------------------------------------------------------------ measuring


class Log:
    """One JSON object a line, told apart by `what`, `method` and `name`. A line that was cut off is measured again."""

    def __init__(self, path: Path, minutes: float) -> None:
        self._path, self._end = path, time.monotonic() + 60 * minutes
        self.lines: list[dict[str, Any]] = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    self.lines.append(json.loads(line))
                except ValueError:
                    continue
        self._known = {(line["what"], line["method"], line["name"]) for line in self.lines}

    def has(self, what: str, method: str, name: str) -> bool:
        return (what, method, name) in self._known

    def add(self, what: str, method: str, name: str, found: dict[str, Any]) -> None:
        """Writes a line; raises `TimeIsUpError` after it where time is up."""
        line = {"what": what, "method": method, "name": name, **found}
        # A new line first: the last one may have been cut off.
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write("\n" + json.dumps(line))
        self.lines.append(line)
        self._known.add((what, method, name))
        print(
            f"{what}, {method}: {name}: not read after {[k for k, v in found.get('read', {}).items() if not v]}",
            flush=True,
        )
        if time.monotonic() > self._end:
            raise TimeIsUpError

    def of(self, what: str, method: str) -> dict[str, dict[str, Any]]:
        return {line["name"]: line for line in self.lines if line["what"] == what and line["method"] == method}


def quality(before: Frames, after: Frames) -> dict[str, float]:
    """PSNR (dB, of the mean error) and SSIM (scikit-image's, of four frames at most) of marked against unmarked."""
    from skimage.metrics import structural_similarity

    error = float(np.mean([np.mean((a.astype(np.float32) - b) ** 2) for a, b in zip(after, before, strict=True)]))
    some = list(zip(before, after, strict=True))[:: max(len(before) // 4, 1)]
    ssim = [structural_similarity(a, b, channel_axis=2) for a, b in some]
    return {"psnr_db": round(10 * np.log10(255**2 / max(error, 1e-9)), 2), "ssim": round(float(np.mean(ssim)), 4)}


def tried(method: Any, frames: Frames, moving: bool, changes: dict[str, Callable[[Frames], Frames]]) -> Any:
    """A log's line: size, time of marking one frame and of finding a video's strength, likeness, and what was read after each
    change."""
    times = [time.process_time()]
    strength = method.strength(frames) if moving else None
    times.append(time.process_time())
    marked = [method.embed(image, strength) for image in frames]
    times.append(time.process_time())
    return {
        "size": frames[0].shape[1::-1],
        "strength": strength,
        "strength_ms": round(1000 * (times[1] - times[0]), 1),
        "ms": round(1000 * (times[2] - times[1]) / len(frames), 2),
        **quality(frames, marked),
        "read": {name: bool(method.reads(change(marked))) for name, change in changes.items()},
    }


def on_video(frames: Frames, info: VideoInfo) -> dict[str, Callable[[Frames], Frames]]:
    changes = {**attacks.VIDEO, **attacks.STRONG_VIDEO}
    return {name: lambda marked, change=change: change(marked, info) for name, change in changes.items()}


def on_picture(number: int) -> dict[str, Callable[[Frames], Frames]]:
    slow = attacks.SLOW_PICTURES if number % 8 == 0 else {}
    changes = {**attacks.PICTURES, **attacks.STRONG_PICTURES, **slow}
    return {name: lambda marked, change=change: [change(marked[0])] for name, change in changes.items()}


def thinned(names: Sequence[str], most: int) -> set[str]:
    return set(names) if most >= len(names) else {names[int(k)] for k in np.linspace(0, len(names) - 1, most).round()}


def measure(method: Any, given: argparse.Namespace, log: Log) -> None:
    """Pictures, then stretches of clips; ours all of them, the others some."""
    ours = method.name == "vitface"
    wanted = None if ours else thinned(list(log.of("picture", "vitface")), given.others_pictures)
    for number, (name, image) in enumerate(material.pictures(given.clips, given.pictures, given.frames, given.drawn)):
        if not log.has("picture", method.name, name) and (wanted is None or name in wanted):
            log.add("picture", method.name, name, tried(method, [image], False, on_picture(number)))
    if method.name == "blind-watermark":
        return
    wanted = None if ours else thinned(list(log.of("video", "vitface")), given.others_stretches)
    for name, frames, info in material.stretches(given.clips, given.seconds, given.stretches):
        if not log.has("video", method.name, name) and (wanted is None or name in wanted):
            log.add("video", method.name, name, tried(method, frames, True, on_video(frames, info)))


def false_alarms(given: argparse.Namespace, log: Log) -> None:
    """Single unmarked frames in which a mark is seen, without search; the first of each line with it, too."""
    frames = itertools.islice(material.unmarked(given.unmarked), given.most_unmarked)
    for number in itertools.count():
        name, plain, searched = f"frames from {number * CHUNK}", [], []
        known, over = log.has("unmarked", "vitface", name), True
        for place, (_, image) in enumerate(itertools.islice(frames, CHUNK)):
            over = False
            if not known:
                plain.append(read([image], KEY, search=False))
                searched += [read([image], KEY)] if place == 0 else []
        if over:
            return
        if known:
            continue
        found = {
            "frames": len(plain),
            "seen": sum(r.present for r in plain),
            "least": min(r.false_alarm for r in plain),
            "score": max(r.score for r in plain),
            "searched": len(searched),
            "searched_seen": sum(r.present for r in searched),
            "searched_least": min(r.false_alarm for r in searched),
        }
        log.add("unmarked", "vitface", name, found)


# -------------------------------------------------------------------------------------------------------------- telling


def table(log: Log, what: str, methods: Sequence[str], names: Iterable[str]) -> str:
    """Markdown: what of these stretches or pictures was read after each change, and how alike and quick the marking was."""
    chosen = set(names)
    found = {m: [line for name, line in log.of(what, m).items() if name in chosen] for m in methods}
    found = {m: lines for m, lines in found.items() if lines}
    if not found:
        return ""
    rows = [["", *found], ["---"] * (len(found) + 1)]
    for change in dict.fromkeys(change for line in found[next(iter(found))] for change in line["read"]):
        tries = [[line["read"][change] for line in lines if change in line["read"]] for lines in found.values()]
        rows.append([change, *(f"{sum(one)} of {len(one)}" for one in tries)])
    for label, key, form, pick in (
        ("PSNR, least", "psnr_db", "{:.1f} dB", min),
        ("PSNR, median", "psnr_db", "{:.1f} dB", np.median),
        ("SSIM, least", "ssim", "{:.4f}", min),
        ("SSIM, median", "ssim", "{:.4f}", np.median),
        ("time of a frame, median", "ms", "{:.0f} ms", np.median),
    ):
        rows.append([label, *(form.format(pick([line[key] for line in lines])) for lines in found.values())])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def report(log: Log) -> str:
    parts = []
    for what in ("video", "picture"):
        ours = log.of(what, "vitface")
        parts.append(f"## {what}: vitface\n\n{table(log, what, ['vitface'], ours)}")
        others = [m for m in NAMES[1:] if log.of(what, m)]
        if others:
            shared = set(ours).intersection(*(log.of(what, m) for m in others))
            parts.append(f"## {what}: the same {len(shared)} for all\n\n{table(log, what, NAMES, shared)}")
    lines = list(log.of("unmarked", "vitface").values())
    if lines:
        parts.append(
            f"## unmarked\n\n{sum(line['frames'] for line in lines)} frames, {sum(line['seen'] for line in lines)} seen as marked, "
            f"highest score {max(line['score'] for line in lines):.2f}, smallest bound on chance "
            f"{min(line['least'] for line in lines):.3g}; with search {sum(line['searched'] for line in lines)} frames, "
            f"{sum(line['searched_seen'] for line in lines)} seen, smallest bound {min(line['searched_least'] for line in lines):.3g}"
        )
    return "\n\n".join(parts)


def show(given: argparse.Namespace) -> None:
    """Unmarked, marked, and their difference amplified, side by side."""
    given.show.mkdir(parents=True, exist_ok=True)
    mark = Watermark(RECORD, KEY)
    for name, frames, _ in material.stretches(given.clips, given.seconds, 1):
        before = frames[0]
        for kind, strength in (("video", mark.strength(_spread(frames, SAMPLES))), ("picture", None)):
            after = mark.embed(before, strength)
            gap = np.clip((after.astype(int) - before) * GAIN + 128, 0, 255).astype(np.uint8)
            media.write_image(given.show / f"{name} {kind}.png", np.concatenate([before, after, gap], axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="*", type=Path, default=[])
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument(
        "--pictures", nargs="*", type=Path, default=[], help="files and folders, besides frames and drawn ones"
    )
    parser.add_argument("--unmarked", nargs="*", type=Path, default=[])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--stretches", type=int, default=2, help="of each clip")
    parser.add_argument("--frames", type=int, default=20, help="of each clip, as pictures")
    parser.add_argument("--drawn", type=int, default=12, help="pictures that are drawn here")
    parser.add_argument("--others-stretches", type=int, default=3, help="that the other methods see")
    parser.add_argument("--others-pictures", type=int, default=12)
    parser.add_argument("--most-unmarked", type=int, default=10_000)
    parser.add_argument("--minutes", type=float, default=1e6, help="end after so many; the log goes on next time")
    parser.add_argument("--methods", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--show", type=Path)
    parser.add_argument("--report", action="store_true", help="measure nothing, print what the log holds")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    cv2.setNumThreads(1)
    log = Log(given.log, given.minutes)
    try:
        for name in () if given.report else sorted(given.methods, key=NAMES.index):
            try:
                measure(make_method(name), given, log)
            except ImportError as error:
                print(f"{name} is left out: {error}", file=sys.stderr)
            if name == "vitface" and given.unmarked:
                false_alarms(given, log)
    except TimeIsUpError:
        print("time is up; the same command goes on", file=sys.stderr)
    if given.show:
        show(given)
    print(report(log))


if __name__ == "__main__":
    main()
