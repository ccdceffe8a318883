"""Reading video: what a file says of itself, and its frames as a stream with exact times."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from lib_vitface.errors import InputError
from lib_vitface.media.color import FULL, RGB, UNSPECIFIED, RgbReader, has_alpha, is_rgb, matrix_of
from lib_vitface.media.container import FFmpegError, codec_name, open_input, video_stream
from lib_vitface.media.images import folder_images, read_picture
from lib_vitface.types import Frame, Image, VideoInfo

log = logging.getLogger("vitface")

FOLDER_FPS = Fraction(25)  # pictures in a folder have no times of their own
_SEEK_FROM_S = 2  # a nearer start is reached sooner by decoding than by seeking
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # the native decoders leave the alpha out

Seconds = float | Fraction
Picture = tuple[Image, Image | None]
Timed = Iterator[tuple[Fraction, Callable[[], Picture]]]  # a time, and what converts the picture once it is wanted


@dataclass(frozen=True)
class Source:
    """A video as found by looking at its first frame.

    `start` is that frame's time on the container's own clock, which the audio shares. `turn` says how the decoded picture
    becomes the shown one: (swap axes, then flip rows, then flip columns). `coded_size` is width, height before that.
    """

    info: VideoInfo
    start: Fraction
    turn: tuple[bool, bool, bool]
    coded_size: tuple[int, int]


def probe(path: Path) -> VideoInfo:
    """What a video file, or a folder of pictures, says of itself; decodes one frame.

    Raises `InputError` when there is nothing to decode.
    """
    return inspect(Path(path)).info


def read_frames(
    path: Path, start_s: Seconds | None = None, end_s: Seconds | None = None, skip: int = 0
) -> Iterator[Frame]:
    """Frames with `start_s <= time < end_s`, upright, one at a time; memory does not grow with length.

    `Frame.time` counts from the video's first frame whatever the trim; `Frame.index` counts from 0 at the first frame of the
    trim. `skip` leaves out that many frames (to go on where a job stopped); indices stay what they would have been.
    A file that ends early, or has damaged frames, gives what can be read, and a warning.
    Raises `InputError` at once for a bad file or range, and at the end when no frame lies in the range.
    """
    path = Path(path)
    source = inspect(path)
    start, end = trim_range(source.info, start_s, end_s)
    pictures = _folder_pictures(source.info) if path.is_dir() else timed_pictures(source, start)
    return _trimmed(pictures, path, start, end, skip)


def trim_range(info: VideoInfo, start_s: Seconds | None, end_s: Seconds | None) -> tuple[Fraction, Fraction | None]:
    """The trim as exact numbers; decimal figures are taken as written (0.1 is a tenth). Raises `InputError`."""
    start = Fraction(0) if start_s is None else Fraction(str(start_s))
    end = None if end_s is None else Fraction(str(end_s))
    if start < 0 or (end is not None and end <= start):
        raise InputError(f"{info.path}: the part from {start_s} s to {end_s} s is empty; give an end after the start.")
    if start and start >= info.duration > 0:
        raise InputError(f"{info.path}: it is {float(info.duration):.2f} s long; start before that.")
    return start, end


def _trimmed(pictures: Timed, path: Path, start: Fraction, end: Fraction | None, skip: int) -> Iterator[Frame]:
    index = 0
    try:
        for time, picture in pictures:
            if end is not None and time >= end:
                break
            if time < start:
                continue
            if index >= skip:
                yield Frame(index, time, *picture())
            index += 1
    finally:
        pictures.close()  # type: ignore[attr-defined]
    if index == 0:
        raise InputError(f"{path}: no frame could be read from {float(start):g} s on; the file may be cut off.")


def _folder_pictures(info: VideoInfo) -> Timed:
    """The pictures of a folder in natural order of their names; all must have the first one's size."""

    def load(path: Path) -> Picture:
        image, alpha = read_picture(path)
        if image.shape[:2] != (info.height, info.width):
            raise InputError(
                f"{path}: it is {image.shape[1]}x{image.shape[0]} pixels and the first picture of the folder is "
                f"{info.width}x{info.height}; give pictures of one size."
            )
        return image, alpha

    for index, path in enumerate(folder_images(info.path)):
        yield index / info.fps, lambda path=path: load(path)  # type: ignore[misc]


def timed_pictures(source: Source, start: Fraction = Fraction(0)) -> Timed:
    """All frames of a file from somewhere before `start` (seconds from the first frame) on, each with its time."""
    if start > _SEEK_FROM_S:
        frames = _frames(source, start)
        first = next(frames, None)
        if first is not None and first[0] <= start:
            yield first
            yield from frames
            return
        frames.close()  # type: ignore[attr-defined]  # the container seeks badly: decode from the beginning
    yield from _frames(source, None)


def _frames(source: Source, seek_to: Fraction | None) -> Timed:
    """Decoded frames in order of display; times strictly rise even where the file's do not."""
    info, tick = source.info, source.info.time_base
    step = max(tick, round(1 / info.fps / tick) * tick)
    convert = _converter(source)
    with open_input(info.path) as container:
        stream = video_stream(container, info.path)
        stream.thread_type = "AUTO"
        if seek_to is not None:
            try:
                container.seek(int((source.start + seek_to) / tick), stream=stream)
            except FFmpegError:
                return
        last = -step
        for frame in _decode(container, stream, info.path, info.frame_count if seek_to is None else None):
            time = last + step if frame.pts is None else frame.pts * tick - source.start
            if time <= last:
                time = last + tick
            last = time
            yield time, lambda frame=frame: convert(frame)  # type: ignore[misc]


def _decode(container: Any, stream: Any, path: Path, expected: int | None = None) -> Iterator[Any]:
    """Frames of a stream; damaged parts are left out and told of once, at the end, like a file shorter than `expected`."""
    decoder = _decoder(stream)
    damaged = packets = 0
    demuxed = container.demux(stream)
    while True:
        try:
            packet = next(demuxed, None)
        except (FFmpegError, OSError) as error:
            log.warning("%s: reading stopped early (%s); what was there is used.", path, error)
            packet = None
        frames = []
        try:
            frames = decoder.decode(packet)
        except EOFError:  # flushed before
            pass
        except (FFmpegError, ValueError):
            damaged += 1
        yield from frames
        if packet is None or not packet.size:  # an empty packet flushes the decoder: it is the last one
            break
        packets += 1
    if damaged:
        log.warning("%s: %d damaged parts could not be decoded and were left out.", path, damaged)
    if expected and packets < expected:
        log.warning("%s: the file ends early; %d of its %d frames are there.", path, packets, expected)


def _decoder(stream: Any) -> Any:
    """The stream's own decoder, or the one that also reads the alpha of WebM."""
    tags = {key.lower(): value for key, value in stream.metadata.items()}
    name = _ALPHA_DECODERS.get(codec_name(stream)) if tags.get("alpha_mode") == "1" else None
    if name is None:
        return stream.codec_context
    try:
        decoder = av.CodecContext.create(name, "r")
    except ValueError:
        log.warning("This build of PyAV has no %s; the alpha channel is left out.", name)
        return stream.codec_context
    decoder.extradata = stream.codec_context.extradata
    return decoder


def _converter(source: Source) -> Callable[[Any], Picture]:
    """Decoded frame -> upright RGB (and alpha, where the source has it)."""
    info, (width, height) = source.info, source.coded_size
    matrix, _ = matrix_of(info.color_space, width, height)
    full = info.color_range == FULL
    to_rgb = RgbReader(matrix, full, width, height, info.has_alpha, centred=info.codec == "mjpeg")

    def convert(frame: Any) -> Picture:
        image, alpha = to_rgb(frame)
        return turned(image, source.turn), None if alpha is None else turned(alpha, source.turn)

    return convert


def turned(image: Image, turn: tuple[bool, bool, bool]) -> Image:
    """An array `[H, W, ...]` with its axes swapped, then its rows, then its columns reversed, as `turn` says."""
    swap, rows, columns = turn
    image = image.swapaxes(0, 1) if swap else image
    return np.ascontiguousarray(image[:: -1 if rows else 1, :: -1 if columns else 1])


def turn_of(matrix: bytes) -> tuple[bool, bool, bool]:
    """Display matrix (nine native 32-bit integers; x' = a x + c y, y' = b x + d y) -> what `turned` takes."""
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32)[:9].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def _rotation_deg(turn: tuple[bool, bool, bool]) -> int:
    """Clockwise degrees by which the stored picture is turned to be shown; a mirror image counts as unturned."""
    return {(True, False, True): 90, (False, True, True): 180, (True, True, False): 270}.get(turn, 0)


def inspect(path: Path) -> Source:
    """Opens a video or folder of pictures and decodes its first frame. Raises `InputError`."""
    if path.is_dir():
        return _inspect_folder(path)
    with open_input(path) as container:
        stream = video_stream(container, path)
        frame = next(_decode(container, stream, path), None)
        if frame is None:
            raise InputError(f"{path}: not one frame can be decoded; the file is damaged or cut off.")
        turn = (False, False, False)
        for data in frame.side_data:
            if data.type.name == "DISPLAYMATRIX":
                turn = turn_of(bytes(data))
        start = (frame.pts or 0) * stream.time_base
        info = _describe(path, container, stream, frame, turn)
    if info.duration <= 0:
        info = replace(info, duration=_scan_duration(path, info, start))
    return Source(info, start, turn, (frame.width, frame.height))


def _describe(path: Path, container: Any, stream: Any, frame: Any, turn: tuple[bool, bool, bool]) -> VideoInfo:
    context, pixel_format = stream.codec_context, frame.format.name
    size = (frame.height, frame.width) if turn[0] else (frame.width, frame.height)
    aspect = Fraction(context.sample_aspect_ratio or 1)
    duration = Fraction(0)
    if stream.duration:
        duration = stream.duration * stream.time_base
    elif container.duration:
        duration = Fraction(container.duration, av.time_base)
    rgb = is_rgb(pixel_format)
    alpha = has_alpha(pixel_format)
    if alpha and codec_name(stream) == "gif":  # every GIF decodes with alpha; few have any
        alpha = bool((frame.to_ndarray(format="rgba")[..., 3] < 255).any())
    full = rgb or pixel_format.startswith("yuvj")
    return VideoInfo(
        path=path,
        width=size[0],
        height=size[1],
        fps=Fraction(stream.average_rate or stream.guessed_rate or FOLDER_FPS),
        frame_count=stream.frames or None,
        duration=duration,
        rotation_deg=_rotation_deg(turn),
        codec=codec_name(stream),
        pixel_format=pixel_format,
        bit_depth=max(part.bits for part in frame.format.components),
        has_alpha=alpha,
        color_range=FULL if full else int(context.color_range or 0),
        color_space=RGB if rgb else int(context.colorspace) or UNSPECIFIED,  # YUV that calls itself RGB is mistagged
        color_primaries=int(context.color_primaries),
        color_transfer=int(context.color_trc),
        audio_codecs=tuple(codec_name(audio) for audio in container.streams.audio),
        time_base=Fraction(stream.time_base),
        sample_aspect=(1 / aspect if turn[0] else aspect) if aspect > 0 else Fraction(1),
    )


def _scan_duration(path: Path, info: VideoInfo, start: Fraction) -> Fraction:
    """The end of the last packet, for files whose header names no duration (raw streams, cut recordings)."""
    last = Fraction(0)
    with open_input(path) as container, contextlib.suppress(FFmpegError):
        for packet in container.demux(video_stream(container, path)):
            if packet.pts is not None:
                last = max(last, packet.pts * info.time_base - start)
    return last + 1 / info.fps


def _inspect_folder(path: Path) -> Source:
    names = folder_images(path)
    image, alpha = read_picture(names[0])
    height, width = image.shape[:2]
    info = VideoInfo(
        path=path,
        width=width,
        height=height,
        fps=FOLDER_FPS,
        frame_count=len(names),
        duration=len(names) / FOLDER_FPS,
        rotation_deg=0,
        codec="images",
        pixel_format="rgb24" if alpha is None else "rgba",
        bit_depth=8,
        has_alpha=alpha is not None,
        color_range=FULL,
        color_space=RGB,
        color_primaries=UNSPECIFIED,
        color_transfer=UNSPECIFIED,
        time_base=1 / FOLDER_FPS,
    )
    return Source(info, Fraction(0), (False, False, False), (width, height))
