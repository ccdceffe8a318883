"""What the mark is measured on: stretches of clips, pictures of many kinds and sizes, and frames without a mark."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from lib_vitface import media
from lib_vitface.errors import InputError
from lib_vitface.types import Image, VideoInfo

SMALLEST = 128  # px, short side of a picture that is worth a mark
LARGEST, SMALLER = 768, 512  # short sides: larger pictures are brought down, or they would take most of the time

Named = Iterator[tuple[str, Image]]


def stretches(clips: Sequence[Path], seconds: float, most: int) -> Iterator[tuple[str, Sequence[Image], VideoInfo]]:
    """Stretches of clips, one after another without overlap, at most so many of each; named by clip and number."""
    for clip in media.list_media(clips) if clips else ():
        info = media.probe(clip)
        count = round(seconds * float(info.fps))
        stream = (frame.image for frame in media.read_frames(clip))
        for number in range(most):
            frames = list(itertools.islice(stream, count))
            if len(frames) == count:
                yield f"{clip.stem} {number}", frames, info


def sized(image: Image, short: int) -> Image:
    """The picture with so long a short side."""
    scale = short / min(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))


def part(image: Image, share: float, down: float, right: float) -> Image:
    """A part so wide and high as `share` of the picture; `down` and `right` of 0..1 say where."""
    height, width = (round(n * share) for n in image.shape[:2])
    top, left = round((image.shape[0] - height) * down), round((image.shape[1] - width) * right)
    return np.ascontiguousarray(image[top : top + height, left : left + width])


TREATMENTS = {
    "whole": lambda image: image,
    "part of 0.7": lambda image: part(image, 0.7, 0.2, 0.5),
    "short side 768": lambda image: sized(image, 768),
    "part of 0.6, short side 512": lambda image: sized(part(image, 0.6, 0.4, 0.8), 512),
    "short side 288": lambda image: sized(image, 288),
}


def frames_as_pictures(clips: Sequence[Path], each: int) -> Named:
    """So many frames of each clip, evenly spread, each cut and scaled in the next of five ways."""
    for clip in media.list_media(clips) if each and clips else ():
        wanted = set(np.linspace(0, media.probe(clip).frame_count - 1, each).astype(int).tolist())
        chosen = (frame for frame in media.read_frames(clip) if frame.index in wanted)
        for frame, (name, change) in zip(chosen, itertools.cycle(TREATMENTS.items()), strict=False):
            yield f"{clip.stem} {frame.index}, {name}", change(frame.image)


def stored(paths: Sequence[Path]) -> Named:
    """Pictures from files and folders, once each, without those that are too small, large ones scaled."""
    seen = set()
    for path in media.list_media(paths):
        if not media.is_image(path):
            continue
        try:
            image = media.read_image(path)[..., :3]
        except InputError:  # sample data of packages holds odd kinds of TIFF
            continue
        known = hashlib.sha256(image.tobytes()).digest()
        if min(image.shape[:2]) >= SMALLEST and known not in seen:
            seen.add(known)
            # Many are called `1920x1080.jpg`.
            name = f"{path.name} {known.hex()[:6]}"
            yield name, sized(image, SMALLER) if min(image.shape[:2]) > LARGEST else np.ascontiguousarray(image)


def rendered(count: int) -> Named:
    """Drawn pictures, softly shaded, with discs, lines and letters; every third is a page with sharp edges on one plain colour."""
    for number in range(count):
        random = np.random.default_rng(number)
        height, width = (int(n) for n in random.integers(320, 900, 2))
        down, right = np.mgrid[0 : 1 : 1j * height, 0 : 1 : 1j * width]
        ends = random.integers(20, 235, (3, 3))
        shade = ends[0] + down[..., None] * (ends[1] - ends[0]) + right[..., None] * (ends[2] - ends[0])
        image = (
            np.clip(shade, 0, 255).astype(np.uint8) if number % 3 else np.full((height, width, 3), ends[0], np.uint8)
        )
        for _ in range(14):
            colour = tuple(int(n) for n in random.integers(0, 256, 3))
            here, there = ((int(random.integers(width)), int(random.integers(height))) for _ in range(2))
            cv2.circle(image, here, int(random.integers(8, 120)), colour, -1, cv2.LINE_AA)
            cv2.line(image, here, there, colour, int(random.integers(1, 6)), cv2.LINE_AA)
            cv2.putText(image, f"Drawn {number}", there, cv2.FONT_HERSHEY_SIMPLEX, 1.2, colour, 2, cv2.LINE_AA)
        if number % 3 == 1:
            image = cv2.GaussianBlur(image, (0, 0), 1.5)
        yield f"drawn {number}", image


def pictures(clips: Sequence[Path], paths: Sequence[Path], frames: int, drawn: int) -> Named:
    """Stored ones, drawn ones, and so many frames of each clip."""
    return itertools.chain(stored(paths) if paths else (), rendered(drawn), frames_as_pictures(clips, frames))


UNMARKED = {
    "whole": lambda image: image,
    "part of 0.8": lambda image: part(image, 0.8, 0.1, 0.9),
    "part of 0.6": lambda image: part(image, 0.6, 0.9, 0.3),
    "0.7 x": lambda image: sized(image, round(min(image.shape[:2]) * 0.7)),
    "turned part of 0.5": lambda image: np.ascontiguousarray(np.rot90(part(image, 0.5, 0.5, 0.1))),
    "mirrored part of 0.7": lambda image: np.ascontiguousarray(part(image, 0.7, 0.4, 0.6)[:, ::-1]),
}


def unmarked(paths: Sequence[Path]) -> Named:
    """Every frame and picture in six ways, each of which is another picture to the reader."""
    for path in media.list_media(paths):
        stream: Iterable[Image] = (
            (frame.image for frame in media.read_frames(path))
            if media.is_video(path)
            else [np.ascontiguousarray(media.read_image(path)[..., :3])]
        )
        for number, image in enumerate(stream):
            for name, change in UNMARKED.items():
                yield f"{path.stem} {number}, {name}", change(image)
