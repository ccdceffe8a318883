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
from numpy.typing import NDArray

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
_NAMED_POSITIONS = av.library_versions["libavfilter"] >= (10, 4)  # FFmpeg 7.1 names them and frowns upon the numbers
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


def output_tags(info: VideoInfo, pixel_format: str, codec: str = "") -> tuple[int, int]:
    """`(color_space, color_range)` tags to write: the source's own, except where the kind of format changes.

    An unspecified tag of YUV footage stays unspecified: the same rule of size read it and writes it. ProRes has no full range.
    """
    if is_rgb(pixel_format):
        return RGB, FULL
    if info.color_space == RGB:
        return matrix_of(RGB, info.width, info.height)[1], LIMITED
    known = info.color_space in _MATRICES or info.color_space == UNSPECIFIED
    space = info.color_space if known else matrix_of(info.color_space, info.width, info.height)[1]
    return space, LIMITED if codec == "prores" else info.color_range


def _graph(width: int, height: int, pixel_format: str, filters: list[tuple[str, str]]) -> Graph:
    """A chain of filters (name, arguments) that frames of `pixel_format` go through."""
    graph = Graph()
    chain = [
        graph.add_buffer(
            width=width, height=height, format=av.VideoFormat(pixel_format, width, height), time_base=Fraction(1, 1000)
        )
    ]
    chain += [graph.add(name, arguments) for name, arguments in [*filters, ("buffersink", "")]]
    for before, after in itertools.pairwise(chain):
        before.link_to(after)
    graph.configure()
    return graph


def _chroma(side: str, pixel_format: str, centred: bool = False) -> str:
    """Where the chroma of a subsampled format sits, for the `in` or the `out` side of a scale filter."""
    kind = av.VideoFormat(pixel_format, 16, 16)
    if _NAMED_POSITIONS:
        return f":{side}_chroma_loc={'center' if centred else 'left'}" if kind.chroma_width(16) < 16 else ""
    across = f":{side}_h_chr_pos={128 if centred else 0}" if kind.chroma_width(16) < 16 else ""  # 256 = one pixel
    return across + (f":{side}_v_chr_pos=128" if kind.chroma_height(16) < 16 else "")


class RgbReader:
    """Decoded frames to RGB arrays.

    `width`, `height` are the coded size; a frame of another size (some streams change it) is scaled to it.
    `centred` is for JPEG video, whose chroma sits in the middle of four pixels.
    """

    def __init__(self, matrix: str, full: bool, width: int, height: int, alpha: bool, centred: bool = False) -> None:
        self._size = f"w={width}:h={height}"
        self._tags = f"in_color_matrix={matrix}:in_range={'pc' if full else 'tv'}"
        self._centred = centred
        self._wants_alpha = alpha
        self._key: tuple[int, int, str] | None = None
        self._color: Any = None
        self._alpha: Any = None
        self._count = 0

    def __call__(self, frame: Any) -> tuple[Image, Image | None]:
        """RGB uint8 `[H, W, 3]` and, if asked for, opacity uint8 `[H, W]`; both own their memory."""
        key = (frame.width, frame.height, frame.format.name)
        if key != self._key:
            self._build(*key)
            self._key = key
        self._count += 1
        neutral(frame, self._count)
        self._color.push(frame)
        image = _rgb(self._color.pull())
        if self._alpha is None:
            return image, np.full(image.shape[:2], 255, np.uint8) if self._wants_alpha else None
        self._alpha.push(frame)
        return image, np.array(self._alpha.pull().to_ndarray(), order="C")

    def _build(self, width: int, height: int, pixel_format: str) -> None:
        tags = "in_range=pc" if is_rgb(pixel_format) else self._tags + _chroma("in", pixel_format, self._centred)
        scale = f"{self._size}:{tags}:out_range=pc:{_FLAGS}"
        target = "gbrp" if _planes_are_quicker(pixel_format) else "rgb24"
        self._color = _graph(width, height, pixel_format, [("scale", scale), ("format", f"pix_fmts={target}")])
        self._alpha = None
        if self._wants_alpha and has_alpha(pixel_format):  # on its own: the colour conversion would round it
            filters = [("alphaextract", ""), ("scale", f"{self._size}:flags=bicubic"), ("format", "pix_fmts=gray")]
            self._alpha = _graph(width, height, pixel_format, filters)


def _planes_are_quicker(pixel_format: str) -> bool:
    """Of 8-bit YUV swscale writes planes in a third of the time that pixels take it, with the same values: measured for FFmpeg 8."""
    kind = av.VideoFormat(pixel_format, 16, 16)
    return not is_rgb(pixel_format) and kind.components[0].bits == 8


def _rgb(frame: Any) -> Image:
    """RGB `[H, W, 3]` of a frame in `gbrp` or `rgb24`; it owns its memory."""
    if frame.format.name == "rgb24":
        return np.array(frame.to_ndarray(), order="C")
    green, blue, red = (np.frombuffer(p, np.uint8).reshape(p.height, p.line_size)[:, : p.width] for p in frame.planes)
    return np.asarray(cv2.merge([red, green, blue]), np.uint8)


def has_alpha(pixel_format: str) -> bool:
    """Whether a pixel format has an opacity channel (a palette's is not counted)."""
    return any(part.is_alpha for part in av.VideoFormat(pixel_format, 16, 16).components)


def neutral(frame: Any, pts: int) -> None:
    """Numbers a frame and takes its colour tags off, so that no filter acts on them beside what it was told."""
    frame.pts, frame.time_base = pts, Fraction(1, 1000)
    set_tags(frame, UNSPECIFIED, 0, UNSPECIFIED, UNSPECIFIED)


def set_tags(frame: Any, space: int, span: int, primaries: int, transfer: int) -> None:
    """Colour tags of a frame; PyAV before 17 has no way to set the last two."""
    frame.colorspace, frame.color_range = space, span
    if hasattr(frame, "color_primaries"):
        frame.color_primaries, frame.color_trc = primaries, transfer


class RgbWriter:
    """RGB arrays to frames in the encoder's pixel format, by the matrix and range of `info`'s tags.

    Full range goes through an own matrix product: swscale of FFmpeg 8 puts full-range chroma half a level too low. Opacity is
    copied past the conversion, so it is exact.
    """

    def __init__(self, info: VideoInfo, pixel_format: str, alpha: bool, codec: str = "") -> None:
        self._info, self._target, self._alpha = info, pixel_format, alpha
        self._tags = output_tags(info, pixel_format, codec)
        self._matrix, _ = matrix_of(self._tags[0], info.width, info.height)
        self._full = self._tags[1] == FULL and not is_rgb(pixel_format)
        self._planar_alpha = pixel_format.startswith("yuva")
        self._count = 0
        if pixel_format == "pal8":
            self._graph = _palette_graph(info.width, info.height)
        else:
            self._graph = self._conversion(pixel_format.replace("yuva", "yuv"))

    def _conversion(self, target: str) -> Graph:
        entry, tags = "rgb24", f"out_range=tv:out_color_matrix={self._matrix}" + _chroma("out", target)
        if is_rgb(target):
            entry, tags = "rgba" if self._alpha else "rgb24", "out_range=pc"
        elif self._full:
            entry, tags = "yuv444p", "out_range=pc" + _chroma("out", target)
        filters = [("scale", f"in_range=pc:{tags}:{_FLAGS}"), ("format", f"pix_fmts={target}")]
        return _graph(self._info.width, self._info.height, entry, filters)

    def __call__(self, image: Image, alpha: Image | None) -> Iterator[Any]:
        """Frames that are ready to encode: one for each call, in order, but some of them late (see `flush`)."""
        self._count += 1
        opaque = np.full(image.shape[:2], 255, np.uint8) if alpha is None or not self._alpha else alpha
        if self._full:
            frame = planar_frame(list(cv2.split(full_range_yuv(image, self._matrix))), "yuv444p")
        elif self._target == "pal8" or (self._alpha and not self._planar_alpha):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.dstack([image, opaque])), format="rgba")
        else:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        neutral(frame, self._count)
        self._graph.push(frame)
        for done in self._drain():
            yield self._tagged(self._with_alpha(done, opaque) if self._planar_alpha else done)

    def flush(self) -> Iterator[Any]:
        """What the palette search still held back."""
        self._graph.push(None)
        yield from map(self._tagged, self._drain())

    def _tagged(self, frame: Any) -> Any:
        """The frame with the output's tags on it; ProRes writes them from here, not from the encoder's settings."""
        set_tags(frame, *self._tags, self._info.color_primaries, self._info.color_transfer)
        return frame

    def _drain(self) -> Iterator[Any]:
        while True:
            try:
                yield self._graph.pull()
            except (BlockingIOError, EOFError):
                return

    def _with_alpha(self, frame: Any, alpha: Image) -> Any:
        """The same planes and the opacity (scaled to the format's depth) as the fourth."""
        merged = av.VideoFrame(frame.width, frame.height, self._target)
        for target, source in zip(merged.planes, frame.planes, strict=False):
            rows = np.frombuffer(source, np.uint8).reshape(source.height, source.line_size)
            _fill(target, rows[:, : min(source.line_size, target.line_size)])
        extra = merged.format.components[3].bits - 8
        deep = alpha.astype(np.uint16)
        _fill(merged.planes[3], (deep << extra) | (deep >> (8 - extra)) if extra else alpha)
        return merged


def planar_frame(planes: list[NDArray[Any]], pixel_format: str) -> Any:
    """A frame of the given planes, each `[h, w]` of the format's sample type."""
    frame = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], pixel_format)
    for plane, values in zip(frame.planes, planes, strict=True):
        _fill(plane, values)
    return frame


def _fill(plane: Any, values: NDArray[Any]) -> None:
    """Copies `[h, w]` values into a plane whose rows may be padded."""
    rows = np.zeros((plane.height, plane.line_size // values.itemsize), values.dtype)
    rows[:, : values.shape[1]] = values
    plane.update(rows.tobytes())


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
