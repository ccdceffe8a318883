"""Writing video: frames in, one finished file (or folder of pictures) out, or nothing at all."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av

from lib_vitface.errors import InputError, OutputError
from lib_vitface.media.color import RgbWriter, output_tags
from lib_vitface.media.container import FFmpegError, beside, encoder_names, location, writing
from lib_vitface.media.images import write_image
from lib_vitface.media.settings import EncoderPlan, EncodeSettings, plan_encoding
from lib_vitface.types import Frame, VideoInfo

log = logging.getLogger("vitface")

_MAX_TIMESCALE = 2**31 - 1
# Tags that MP4 and MOV keep in the place every player reads; others need a second kind of box.
_CLASSIC_TAGS = frozenset(
    "title artist album_artist album comment date genre copyright description synopsis encoder".split()  # noqa: SIM905
)


class FrameWriter:
    """Writes frames to a video file or, for a path without suffix, to a folder of numbered PNG files.

    A context manager: the file appears under its name only when the block ends without an error, otherwise nothing is left.
    The picture size is `info.width` x `info.height`; times are kept exactly as multiples of `info.time_base` where the
    container can (MP4, MOV, NUT; Matroska and WebM round to 1 ms, GIF to 10 ms). Colour tags, sample aspect ratio and, where
    the codec can, alpha are the source's (`info`); the rotation is not, frames are upright already. 8-bit pictures come in, so a
    10-bit source loses depth. `metadata` are tags of the container, `finish` is called with the complete temporary file
    before it takes its name, `xmp` goes into the pictures of a folder.

    Raises `InputError` for settings that do not go together or a frame of another size, `OutputError` when writing fails.
    """

    def __init__(
        self,
        path: Path,
        info: VideoInfo,
        settings: EncodeSettings | None = None,
        *,
        metadata: Mapping[str, str] | None = None,
        finish: Callable[[Path], None] | None = None,
        xmp: bytes | None = None,
    ) -> None:
        self.path = Path(path)
        self.info = info
        self.plan = plan_encoding(settings or EncodeSettings(), info, self.path, encoder_names())
        self.frames = 0
        self._metadata = dict(metadata or {})
        self._finish = finish
        self._xmp = xmp
        self._last: Fraction | None = None
        self._session: ExitStack = ExitStack()
        self._sink: _FileSink | _FolderSink | None = None

    def __enter__(self) -> FrameWriter:
        if self.info.has_alpha and not self.plan.keeps_alpha:
            log.warning("%s: %s holds no alpha; the source's is left out.", self.path, self.plan.codec)
        if self.info.bit_depth > 8:
            log.info("%s: the %d-bit source is worked on in 8 bits.", self.path, self.info.bit_depth)
        self._sink = self._session.enter_context(self._open())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sink = None
        self._session.__exit__(kind, error, trace)

    @contextlib.contextmanager
    def _open(self) -> Iterator[_FileSink | _FolderSink]:
        """A sink on a temporary path; closing it well gives the path its name."""
        with beside(self.path, self._finish) as temporary:
            sink: _FileSink | _FolderSink
            with writing(self.path):
                if self.plan.codec == "images":
                    sink = _FolderSink(temporary, self._xmp)
                else:
                    sink = _FileSink(temporary, self.info, self.plan, self._metadata)
            try:
                yield sink
                if not self.frames:
                    raise OutputError(f"{self.path}: no frame was written, so there is no video.")
                with writing(self.path):
                    sink.close()
            except BaseException:
                sink.abort()
                raise

    def write(self, frame: Frame) -> None:
        """Adds a frame; times must rise."""
        if self._sink is None:
            raise OutputError(f"{self.path}: the writer is not open; use it in a `with` block.")
        if frame.image.shape != (self.info.height, self.info.width, 3):
            raise InputError(
                f"{self.path}: frame {frame.index} is {frame.image.shape[1]}x{frame.image.shape[0]} pixels, "
                f"but the video is {self.info.width}x{self.info.height}."
            )
        if self._last is not None and frame.time <= self._last:
            raise InputError(f"{self.path}: frame {frame.index} is not later than the one before it.")
        self._last = frame.time
        with writing(self.path):
            self._sink.write(frame)
        self.frames += 1


class _FolderSink:
    """Numbered PNG files; the numbers start at 1."""

    def __init__(self, folder: Path, xmp: bytes | None) -> None:
        folder.mkdir()
        self._folder, self._xmp, self._count = folder, xmp, 0

    def write(self, frame: Frame) -> None:
        self._count += 1
        write_image(self._folder / f"{self._count:06d}.png", frame.image, xmp=self._xmp, alpha=frame.alpha)

    def close(self) -> None:
        """Nothing is held back."""

    def abort(self) -> None:
        """The folder is removed by whoever made its path."""


class _FileSink:
    """One encoder and one muxer."""

    def __init__(self, temporary: Path, info: VideoInfo, plan: EncoderPlan, metadata: Mapping[str, str]) -> None:
        self._info, self._plan = info, plan
        self._tick = Fraction(1, 100) if plan.codec == "gif" else exact_tick(info.time_base)
        self._colors = RgbWriter(info, plan.pixel_format, plan.keeps_alpha, plan.codec)
        self._times: deque[Fraction] = deque()
        self._pts = -1
        self._first: int | None = None
        self._dts: int | None = None
        temporary.touch()  # tells at once whether the place can be written to
        options = muxer_options(plan.muxer, self._tick, metadata)
        self._container = av.open(location(temporary), "w", format=plan.muxer, container_options=options)
        self._container.metadata.update(metadata)
        self._stream = self._add_stream()

    def _add_stream(self) -> Any:
        info, plan = self._info, self._plan
        if plan.encoder == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # errors only; it writes to the console by itself
        stream: Any = self._container.add_stream(plan.encoder, rate=info.fps, options=dict(plan.options))
        stream.width, stream.height, stream.pix_fmt = info.width, info.height, plan.pixel_format
        context: Any = stream.codec_context
        context.time_base = self._tick
        context.bit_rate = 0  # constant quality; some PyAV versions ask for 1 Mbit/s by default
        context.thread_count, context.thread_type = plan.threads, "AUTO"
        context.sample_aspect_ratio = info.sample_aspect
        context.colorspace, context.color_range = output_tags(info, plan.pixel_format, plan.codec)
        context.color_primaries, context.color_trc = info.color_primaries, info.color_transfer
        if plan.tag is not None:
            context.codec_tag = plan.tag
        if plan.keeps_alpha and plan.codec == "vp9":
            stream.metadata["alpha_mode"] = "1"
        return stream

    def write(self, frame: Frame) -> None:
        self._times.append(frame.time)
        self._encode(self._colors(frame.image, frame.alpha))

    def _encode(self, pictures: Iterable[Any]) -> None:
        for picture in pictures:
            self._pts = max(self._pts + 1, round(self._times.popleft() / self._tick))
            picture.pts, picture.time_base = self._pts, self._tick
            try:
                self._mux(self._stream.encode(picture))
            except (FFmpegError, ValueError) as error:
                if self._stream.codec_context.is_open:
                    raise
                size = f"{self._info.width}x{self._info.height}"
                raise InputError(
                    f"{self._plan.encoder} cannot encode {size} pixels as {self._plan.pixel_format} ({error}); "
                    "choose another codec."
                ) from error

    def _mux(self, packets: Iterable[Any]) -> None:
        """Hands packets on. x265 leaves the decoding times of clips shorter than its look-ahead uninitialised: mended here."""
        for packet in packets:
            self._first = packet.pts if self._first is None else self._first
            low = self._first - (self._pts - self._first)  # a real delay is never longer than what was sent so far
            if packet.dts is None or not low <= packet.dts <= packet.pts:
                packet.dts = min(packet.pts, low if self._dts is None else max(low, self._dts + 1))
            self._dts = packet.dts
            self._container.mux_one(packet)

    def close(self) -> None:
        self._encode(self._colors.flush())
        self._mux(self._stream.encode(None))
        self._container.close()

    def abort(self) -> None:
        with contextlib.suppress(FFmpegError, OSError):
            self._container.close()


def exact_tick(time_base: Fraction) -> Fraction:
    """A time base with numerator 1 of which every multiple of `time_base` is a multiple, if it fits 31 bits."""
    return Fraction(1, time_base.denominator) if time_base.denominator <= _MAX_TIMESCALE else Fraction(1, 90000)


def muxer_options(muxer: str, tick: Fraction, metadata: Mapping[str, str]) -> dict[str, str]:
    """Options of a container: the same input gives the same bytes, times stay exact, players can start at once."""
    # bitexact: no random identifiers, no version strings. Decoding times before 0 must not move the display times.
    options = {"fflags": "+bitexact", "avoid_negative_ts": "disabled"}
    if muxer in {"mp4", "mov"}:
        scale = tick.denominator * math.ceil(1000 / tick.denominator)
        # The movie's own clock counts edit-list offsets; its default of 1 ms would round them.
        options |= {"video_track_timescale": str(scale), "movie_timescale": str(scale)}
        options["movflags"] = "+faststart" if set(metadata) <= _CLASSIC_TAGS else "+faststart+use_metadata_tags"
    return options
