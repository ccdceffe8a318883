"""Between YUV planes and RGB pictures, by the matrix and range the video is tagged with, in both directions.

swscale does the work through a filter graph, because `VideoFrame.reformat` reads its colour arguments differently from one
PyAV version to the next. Measured: bicubic with accurate rounding and full chroma takes an 8-bit 4:2:0 picture to RGB and back
within 0.1 grey levels (mean); swscale's defaults lose 1 to 2 levels each time. Chroma is taken to sit where H.264, H.265, VP9
and AV1 put it when they say nothing: on the left pixel, between two lines.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
from av.filter import Graph

from lib_vitface.types import Image, VideoInfo

log = logging.getLogger("vitface")

RGB, BT709, UNSPECIFIED, SMPTE170M = 0, 1, 2, 6  # ITU-T H.273 matrix coefficients
LIMITED, FULL = 1, 2
# H.273 code -> swscale's name; constant-luminance BT.2020 (10) is treated as the usual kind.
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt470", 6: "smpte170m", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
# The weights (red, blue) of luma, ITU-T H.273 table 4.
_WEIGHTS = {
    "bt709": (0.2126, 0.0722),
    "fcc": (0.30, 0.11),
    "bt470": (0.299, 0.114),
    "smpte170m": (0.299, 0.114),
    "smpte240m": (0.212, 0.087),
    "bt2020": (0.2627, 0.0593),
}
_FLAGS = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
_GIF = "palettegen=stats_mode=single:reserve_transparent=1"


def matrix_of(color_space: int, width: int, height: int) -> tuple[str, int]:
    """swscale's name and the H.273 code of the matrix a picture of this tag and size (pixels) is converted with.

    Without a usable tag the size decides, as in mpv (`mp_csp_guess`): wider than 1279 or higher than 576 is BT.709.
    """
    if color_space in _MATRICES:
        return _MATRICES[color_space], color_space
    code = BT709 if width >= 1280 or height > 576 else SMPTE170M
    if color_space not in {RGB, UNSPECIFIED}:
        log.warning("Colour matrix %d is not known here; %s is used instead.", color_space, _MATRICES[code])
    return _MATRICES[code], code


def is_rgb(pixel_format: str) -> bool:
    """Whether a pixel format holds RGB (palettes do) and so has no matrix."""
    return pixel_format.startswith("pal") or bool(av.VideoFormat(pixel_format, 16, 16).is_rgb)


def output_tags(info: VideoInfo, pixel_format: str) -> tuple[int, int]:
    """`(color_space, color_range)` tags to write: the source's own, except where the kind of format changes.

    An unspecified tag of YUV footage stays unspecified: the same rule of size read it and writes it.
    """
    if is_rgb(pixel_format):
        return RGB, FULL
    if info.color_space == RGB:
        return matrix_of(RGB, info.width, info.height)[1], LIMITED
    known = info.color_space in _MATRICES or info.color_space == UNSPECIFIED
    space = info.color_space if known else matrix_of(info.color_space, info.width, info.height)[1]
    return space, info.color_range


def _graph(width: int, height: int, pixel_format: str, scale: str, target: str) -> Graph:
    """A graph of one scale filter; frames go in as `pixel_format` and come out as `target`."""
    graph = Graph()
    source = graph.add_buffer(
        width=width, height=height, format=av.VideoFormat(pixel_format, width, height), time_base=Fraction(1, 1000)
    )
    chain = [source, graph.add("scale", scale), graph.add("format", f"pix_fmts={target}"), graph.add("buffersink")]
    for before, after in itertools.pairwise(chain):
        before.link_to(after)
    graph.configure()
    return graph


class RgbReader:
    """Decoded frames to RGB arrays.

    `width`, `height` are the coded size; a frame of another size (some streams change it) is scaled to it.
    `centred` is for JPEG video, whose chroma sits in the middle of four pixels.
    """

    def __init__(self, matrix: str, full: bool, width: int, height: int, alpha: bool, centred: bool = False) -> None:
        position = 128 if centred else 0
        chroma = f"in_h_chr_pos={position}:in_v_chr_pos=128"
        span = "pc" if full else "tv"
        self._scale = f"w={width}:h={height}:in_color_matrix={matrix}:in_range={span}:out_range=pc:{chroma}:{_FLAGS}"
        self._rgb_scale = f"w={width}:h={height}:in_range=pc:out_range=pc:{_FLAGS}"
        self._alpha = alpha
        self._key: tuple[int, int, str] | None = None
        self._graph: Any = None
        self._count = 0

    def __call__(self, frame: Any) -> tuple[Image, Image | None]:
        """RGB uint8 `[H, W, 3]` and, if asked for, opacity uint8 `[H, W]`; both own their memory."""
        key = (frame.width, frame.height, frame.format.name)
        if key != self._key:
            scale = self._rgb_scale if is_rgb(key[2]) else self._scale
            self._graph = _graph(*key, scale, "rgba" if self._alpha else "rgb24")
            self._key = key
        self._count += 1
        neutral(frame, self._count)
        self._graph.push(frame)
        array = self._graph.pull().to_ndarray()
        if not self._alpha:
            return np.array(array, order="C"), None
        return np.array(array[..., :3], order="C"), np.array(array[..., 3], order="C")


def neutral(frame: Any, pts: int) -> None:
    """Numbers a frame and takes its colour tags off, so that no filter acts on them beside what it was told."""
    frame.pts, frame.time_base = pts, Fraction(1, 1000)
    for name, value in (("colorspace", 2), ("color_range", 0), ("color_trc", 2), ("color_primaries", 2)):
        if hasattr(frame, name):  # the last two came with PyAV 17
            setattr(frame, name, value)


class RgbWriter:
    """RGB arrays to frames in the encoder's pixel format, by the matrix and range of `info`'s tags.

    Full range goes through an own matrix product: swscale of FFmpeg 8 puts full-range chroma half a level too low.
    """

    def __init__(self, info: VideoInfo, pixel_format: str, alpha: bool) -> None:
        self._info, self._target, self._alpha = info, pixel_format, alpha
        space, span = output_tags(info, pixel_format)
        self._matrix, _ = matrix_of(space, info.width, info.height)
        self._full = span == FULL and not is_rgb(pixel_format)
        self._count = 0
        if pixel_format == "pal8":
            self._graph = _palette_graph(info.width, info.height)
        else:
            self._graph = self._make_graph()

    def _make_graph(self) -> Graph:
        chroma = "out_h_chr_pos=0:out_v_chr_pos=128"
        if is_rgb(self._target):
            entry, scale = "rgba" if self._alpha else "rgb24", f"in_range=pc:out_range=pc:{_FLAGS}"
        elif self._full:
            entry = "yuva444p" if self._alpha else "yuv444p"
            scale = f"in_range=pc:out_range=pc:in_h_chr_pos=0:{chroma}:{_FLAGS}"
        else:
            entry = "rgba" if self._alpha else "rgb24"
            scale = f"in_range=pc:out_range=tv:out_color_matrix={self._matrix}:{chroma}:{_FLAGS}"
        return _graph(self._info.width, self._info.height, entry, scale, self._target)

    def __call__(self, image: Image, alpha: Image | None) -> Iterator[Any]:
        """Frames that are ready to encode: one for each call, in order, but some of them late (see `flush`)."""
        self._count += 1
        frame = self._full_range(image, alpha) if self._full else self._rgb(image, alpha)
        neutral(frame, self._count)
        self._graph.push(frame)
        yield from self._drain()

    def flush(self) -> Iterator[Any]:
        """What the palette search still held back."""
        self._graph.push(None)
        yield from self._drain()

    def _drain(self) -> Iterator[Any]:
        while True:
            try:
                yield self._graph.pull()
            except (BlockingIOError, EOFError):
                return

    def _rgb(self, image: Image, alpha: Image | None) -> Any:
        if not self._alpha and self._target != "pal8":
            return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        opaque = np.full(image.shape[:2], 255, np.uint8) if alpha is None or not self._alpha else alpha
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(np.dstack([image, opaque])), format="rgba")

    def _full_range(self, image: Image, alpha: Image | None) -> Any:
        planes = list(cv2.split(full_range_yuv(image, self._matrix)))
        if self._alpha:
            planes.append(np.full(image.shape[:2], 255, np.uint8) if alpha is None else alpha)
        height, width = image.shape[:2]
        frame = av.VideoFrame(width, height, "yuva444p" if self._alpha else "yuv444p")
        for plane, values in zip(frame.planes, planes, strict=True):
            rows = np.zeros((plane.height, plane.line_size), np.uint8)
            rows[:, :width] = values
            plane.update(rows.tobytes())
        return frame


def full_range_yuv(image: Image, matrix: str) -> Image:
    """RGB uint8 `[H, W, 3]` to full-range YUV uint8 `[H, W, 3]`, rounded to nearest (ITU-T H.273, 8.3)."""
    red, blue = _WEIGHTS[matrix]
    green = 1 - red - blue
    luma = np.array([red, green, blue])
    rows = [luma, (np.array([0, 0, 1]) - luma) / (2 * (1 - blue)), (np.array([1, 0, 0]) - luma) / (2 * (1 - red))]
    weights = np.hstack([np.array(rows), [[0.0], [128.0], [128.0]]]).astype(np.float32)
    exact = cv2.transform(image.astype(np.float32), weights)
    return np.clip(np.rint(exact), 0, 255).astype(np.uint8)


def _palette_graph(width: int, height: int) -> Graph:
    """RGBA in, palette frames out; each frame gets its own best 256 colours (GIF allows a palette per frame)."""
    graph = Graph()
    source = graph.add_buffer(
        width=width, height=height, format=av.VideoFormat("rgba", width, height), time_base=Fraction(1, 1000)
    )
    split, generate = graph.add("split"), graph.add("palettegen", _GIF.partition("=")[2])
    use, sink = graph.add("paletteuse", "new=1:dither=sierra2_4a"), graph.add("buffersink")
    source.link_to(split)
    split.link_to(generate, 1, 0)
    split.link_to(use, 0, 0)
    generate.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph
