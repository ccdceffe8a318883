"""What happens to marked videos and pictures: what the mark has to survive, and what is only told."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as Pillow

from lib_vitface import media
from lib_vitface.provenance.watermark import Watermark
from lib_vitface.types import Frame, Image, VideoInfo

SECOND = 1.4  # strength of the second mark, grey levels: twice a video's, about a still's
Frames = Sequence[Image]
Still = Callable[[Image], Image]
Moving = Callable[[Frames, VideoInfo], Frames]


def encoded(codec: str, quality: int | None, times: int = 1, suffix: str = ".mp4") -> Moving:
    """Through an encoder and back, `times` over."""

    def attack(frames: Frames, info: VideoInfo) -> Frames:
        for _ in range(times):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, f"x{suffix}")
                height, width = frames[0].shape[:2]
                fit = replace(info, width=width, height=height, has_alpha=False)
                with media.FrameWriter(path, fit, media.EncodeSettings(codec, quality, "fast")) as writer:
                    for k, image in enumerate(frames):
                        writer.write(Frame(k, Fraction(k) / info.fps, image))
                frames = [frame.image for frame in media.read_frames(path)]
        return frames

    return attack


def then(change: Still) -> Moving:
    """A change of every frame, and H.264 at CRF 23 after it."""
    return lambda frames, info: encoded("h264", 23)([change(image) for image in frames], info)


def resized(scale: float) -> Still:
    def change(image: Image) -> Image:
        size = tuple(round(n * scale / 2) * 2 for n in image.shape[1::-1])
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))

    return change


def cropped(share: float) -> Still:
    """A part that is so wide and high, off the middle."""

    def change(image: Image) -> Image:
        height, width = (int(n * share) // 2 * 2 for n in image.shape[:2])
        top, left = (image.shape[0] - height) // 3, (image.shape[1] - width) * 2 // 3
        return np.ascontiguousarray(image[top : top + height, left : left + width])

    return change


def graded(gain: float, offset: float) -> Still:
    return lambda image: np.clip(image.astype(np.float32) * gain + offset, 0, 255).astype(np.uint8)


def packed(kind: str, quality: int) -> Still:
    def change(image: Image) -> Image:
        buffer = io.BytesIO()
        Pillow.fromarray(image).save(buffer, kind, quality=quality)
        return np.array(Pillow.open(buffer).convert("RGB"))

    return change


def slower(frames: Frames, info: VideoInfo) -> Frames:
    """24 or 30 frames a second to 15: the nearest frame of each new time."""
    step = float(info.fps) / 15
    chosen = [frames[min(round(k * step), len(frames) - 1)] for k in range(int(len(frames) / step))]
    return encoded("h264", 23)(chosen, replace(info, fps=Fraction(15)))


def noisy(deviation: float) -> Still:
    def change(image: Image) -> Image:
        random = np.random.default_rng(int(image[::16, ::16].sum()) % 2**32)
        return np.clip(image + random.normal(0, deviation, image.shape), 0, 255).astype(np.uint8)

    return change


def blurred(image: Image) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 2.0))


def redrawn(image: Image) -> Image:
    """Noise of 20 grey levels, and what non-local means makes of it: a stand-in for drawing the picture anew."""
    return np.asarray(cv2.fastNlMeansDenoisingColored(noisy(20)(image), None, 20, 20, 5, 11))


def second_mark(image: Image) -> Image:
    return Watermark("f" * 32, b"another").embed(image, SECOND)


VIDEO: dict[str, Moving] = {
    "H.264 CRF 18": encoded("h264", 18),
    "H.264 CRF 23": encoded("h264", 23),
    "H.264 CRF 28": encoded("h264", 28),
    "H.265 CRF 28": encoded("h265", 28),
    "0.5 x": then(resized(0.5)),
    "0.75 x": then(resized(0.75)),
    "crop to 0.9": then(cropped(0.9)),
    "15 frames a second": slower,
    "encoded twice": encoded("h264", 23, times=2),
    "GIF": encoded("gif", None, suffix=".gif"),
}
PICTURES: dict[str, Still] = {
    **{f"JPEG {q}": packed("JPEG", q) for q in (95, 75, 50)},
    "PNG": packed("PNG", 95),
    "WebP 80": packed("WEBP", 80),
    "0.5 x": resized(0.5),
    "2 x": resized(2.0),
    "crop to 0.9": cropped(0.9),
    "brightness + 5 %": graded(1, 12.75),
    "brightness - 5 %": graded(1, -12.75),
    "contrast + 5 %": graded(1.05, -6.4),
    "contrast - 5 %": graded(0.95, 6.4),
}
# Not asked to survive; told as they are.
_STRONG: dict[str, Still] = {"blur of 2 px": blurred, "noise of 8": noisy(8), "a second mark": second_mark}
STRONG_VIDEO: dict[str, Moving] = {name: then(change) for name, change in _STRONG.items()}
STRONG_PICTURES: dict[str, Still] = dict(_STRONG)
# On every eighth picture: looking everywhere for a mark that is gone takes longest.
SLOW_PICTURES: dict[str, Still] = {"JPEG 20": packed("JPEG", 20), "noise of 20, denoised": redrawn}
