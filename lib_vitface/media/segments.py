"""Joining the segments of a resumable job into the final file, with the source's sound, without encoding again."""

from __future__ import annotations

import heapq
import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from lib_vitface.errors import InputError
from lib_vitface.media.audio import add_copy, add_tracks, sound_packets
from lib_vitface.media.color import UNSPECIFIED
from lib_vitface.media.container import beside, codec_name, encoder_names, location, open_input, video_stream, writing
from lib_vitface.media.reader import Seconds, Source, inspect, timed_pictures
from lib_vitface.media.room import Place, Room
from lib_vitface.media.settings import SEGMENT_SUFFIX, EncodeSettings, plan_encoding
from lib_vitface.media.writer import FrameWriter, exact_tick, muxer_options
from lib_vitface.types import Frame, VideoInfo

log = logging.getLogger("vitface")


@dataclass(frozen=True)
class _Part:
    """A segment: packet times in decoding order, and what must be the same in all segments of a video."""

    path: Path
    times: list[Fraction]
    kind: tuple[Any, ...]


def join_segments(
    segments: Sequence[Path],
    output: Path,
    *,
    source: Path | None = None,
    settings: EncodeSettings | None = None,
    start_s: Seconds | None = None,
    end_s: Seconds | None = None,
    metadata: Mapping[str, str] | None = None,
    finish: Callable[[Path], None] | None = None,
    xmp: bytes | None = None,
    taken: Callable[[int, Path, Place], None] | None = None,
) -> None:
    """Writes `output` from segment files made by `FrameWriter` (settings of `segment_settings`), in order.

    Packets are copied; only GIF and picture folders are encoded here, from lossless segments. Frame times are those that were
    written, counted from the first frame; with a trim the first frame is at 0. All sound streams of `source` come along, copied where
    the container allows, with their offset to the picture kept; `start_s` and `end_s` are the trim the frames were read with,
    and cut the sound to it. `metadata`, `finish`, `xmp` as in `FrameWriter`. The same input gives the same bytes.

    With `taken` each segment but the first is deleted as soon as it lies in the file that is being written, after `taken` was
    told where (number, file, place): what `room.bring_back` needs after a kill. After an error they are there again. Only segments
    in NUT, that is, neither ProRes nor the alpha of VP9, and only where they are not encoded anew.

    Raises `InputError` when segments are missing, damaged or do not belong together, `OutputError` when writing fails.
    """
    output = Path(output)
    settings = settings or EncodeSettings()
    if not segments:
        raise InputError(f"{output}: there are no segments to join.")
    parts = [_look(Path(path)) for path in segments]
    _check(parts)
    info = inspect(parts[0].path).info
    origin = None if source is None or Path(source).is_dir() else inspect(Path(source))
    times = sorted(time for part in parts for time in part.times)
    plan = plan_encoding(replace(settings, pixel_format=None), info, output, encoder_names())
    if plan.codec in {"gif", "images"}:
        if origin is not None and origin.info.audio_codecs:
            log.warning("%s: %s holds no sound; the source's is left out.", output, plan.codec)
        _render(parts, output, info, settings, times[0], metadata, finish, xmp)
        return
    if parts[0].kind[0] != {"h265": "hevc"}.get(plan.codec, plan.codec):
        raise InputError(
            f"{parts[0].path}: it holds {parts[0].kind[0]}, not {plan.codec}; delete the segments and start anew."
        )
    last = _last_duration(times, origin if end_s is None else None, info)
    room: Room | None = None
    with (
        beside(output, finish, lambda: None if room is None else room.give_back()) as temporary,
        writing(output),
        ExitStack() as stack,
    ):
        if taken is not None and parts[0].path.name.endswith(SEGMENT_SUFFIX):
            room = Room([part.path for part in parts], temporary, taken)
        options = muxer_options(plan.muxer, exact_tick(info.time_base), metadata or {})
        if room is not None and "movflags" in options:
            options["movflags"] = options["movflags"].replace("+faststart", "+write_colr")  # which is the default
            options["moov_size"] = str(_header_room(len(times), origin))
        target = stack.enter_context(av.open(location(temporary), "w", format=plan.muxer, container_options=options))
        target.metadata.update(metadata or {})
        first = stack.enter_context(open_input(parts[0].path))
        stream = add_copy(target, video_stream(first, parts[0].path))
        if origin is not None:  # NUT keeps only those colour tags that stand in the codec's own stream
            _tag(stream.codec_context, origin.info)
        if plan.tag is not None:
            stream.codec_context.codec_tag = plan.tag
        if plan.keeps_alpha and plan.codec == "vp9":
            stream.metadata["alpha_mode"] = "1"
        offset = -times[0]
        sound: Iterator[tuple[Fraction, Any]] = iter(())
        if origin is not None and origin.info.audio_codecs:
            end = None if end_s is None else times[-1] + last
            offset, sound = _sound(stack, target, origin, times[0], end, plan.muxer)
        picture = _picture_packets(
            parts, times, last, offset, stream, plan.muxer, None if room is None else room.passed
        )
        for _, packet in heapq.merge(picture, sound, key=lambda item: item[0]):
            target.mux_one(packet)


def _tag(context: Any, info: VideoInfo) -> None:
    """Fills in colour primaries and transfer where they are not specified."""
    if int(context.color_primaries) == UNSPECIFIED:
        context.color_primaries = info.color_primaries
    if int(context.color_trc) == UNSPECIFIED:
        context.color_trc = info.color_transfer


def _sound(
    stack: ExitStack, target: Any, origin: Source, first: Fraction, end: Fraction | None, muxer: str
) -> tuple[Fraction, Iterator[tuple[Fraction, Any]]]:
    """What is added to the picture's times, and the packets of the sound from the `first` frame to the `end` (None: all)."""
    container = stack.enter_context(open_input(origin.info.path))
    tracks = add_tracks(target, container, muxer)
    if not tracks:
        return -first, iter(())
    until = None if end is None else origin.start + end
    if first > 0:
        begin = origin.start + first
        return -first, sound_packets(container, tracks, begin, begin, until, muxer)
    starts = [
        track.source.start_time * track.source.time_base for track in tracks if track.source.start_time is not None
    ]
    base = min([origin.start, *starts])
    if origin.start - base < Fraction(1, 20):  # an encoder's run-in, not an intended lead of the sound
        base = origin.start
    return origin.start - base, sound_packets(container, tracks, base, None, until, muxer)


_HEADER_B, _PACKET_B = 1 << 15, 48  # what a header may need at most: by itself, and for each packet
_SHORTEST_S = 0.0025  # of a packet of sound (Opus), where the source does not tell how many it has


def _header_room(frames: int, origin: Source | None) -> int:
    """Bytes that MP4 and MOV leave for their header before the data, in the place of moving all data at the end: what was found in
    the file must stay where it is."""
    packets = float(frames)
    if origin is not None and origin.info.audio_codecs:
        with open_input(origin.info.path) as container:
            for stream in container.streams.audio:
                packets += max(float(origin.info.duration) / _SHORTEST_S, stream.frames or 0)
    return _HEADER_B + math.ceil(packets) * _PACKET_B


def _look(path: Path) -> _Part:
    """Times and kind of a segment, without decoding it."""
    with open_input(path) as container:
        stream = video_stream(container, path)
        context = stream.codec_context
        tick = Fraction(stream.time_base)
        times = [packet.pts * tick for packet in container.demux(stream) if packet.size and packet.pts is not None]
        kind = (
            codec_name(stream),
            context.width,
            context.height,
            context.pix_fmt,
            tick,
            bytes(context.extradata or b""),
        )
    if not times:
        raise InputError(f"{path}: the segment holds no frame; delete it and run the job again.")
    return _Part(path, times, kind)


def _check(parts: list[_Part]) -> None:
    """Segments of one video: the same kind, following one another in time."""
    for before, after in itertools.pairwise(parts):
        if after.kind != before.kind:
            raise InputError(
                f"{after.path}: encoded otherwise than {before.path.name}; delete the segments and start anew."
            )
        if min(after.times) <= max(before.times):
            raise InputError(
                f"{after.path}: does not follow {before.path.name} in time; delete it and run the job again."
            )


def _last_duration(times: list[Fraction], origin: Source | None, info: VideoInfo) -> Fraction:
    """How long the last frame is shown: as in the source where that is known, else like the one before."""
    usual = times[-1] - times[-2] if len(times) > 1 else 1 / info.fps
    if origin is not None:
        rest = origin.info.duration - times[-1]
        if 0 < rest <= 2 * usual or (rest > 0 and len(times) == 1):
            return rest
    return usual


def _picture_packets(
    parts: list[_Part],
    times: list[Fraction],
    last: Fraction,
    offset: Fraction,
    stream: Any,
    muxer: str,
    passed: Callable[[int], None] | None = None,
) -> Iterator[tuple[Fraction, Any]]:
    """Packets of all segments with exact display times and decoding times that rise across the joins. `passed` is told how many
    segments are used up.

    Each segment was encoded as if it were alone, so its decoding times start before its first frame and would run into the segment
    before. They are made anew: the i-th packet is decoded at the display time of the frame `delay` places earlier.
    """
    tick = exact_tick(parts[0].kind[4])
    clock = Fraction(1, 1000) if muxer in {"matroska", "webm"} else tick
    offset = round(offset / clock) * clock  # one shift for all, so that rounding to the container's clock stays even
    rank = {time: place for place, time in enumerate(times)}
    order = [time for part in parts for time in part.times]
    delay = max(index - rank[time] for index, time in enumerate(order))
    step = times[1] - times[0] if len(times) > 1 else last
    index = 0
    for number, part in enumerate(parts):
        if passed is not None:
            passed(number)
        with open_input(part.path) as container:
            for packet in container.demux(video_stream(container, part.path)):
                if not packet.size or packet.pts is None:
                    continue
                place = rank[order[index]]
                early = index - delay
                decode = times[early] if early >= 0 else times[0] + early * step
                until = times[place + 1] if place + 1 < len(times) else times[place] + last
                packet.time_base = tick
                packet.pts = round((times[place] + offset) / tick)
                packet.dts = round((decode + offset) / tick)
                packet.duration = round((until - times[place]) / tick)
                packet.stream = stream
                index += 1
                yield decode + offset, packet


def _render(
    parts: list[_Part],
    output: Path,
    info: VideoInfo,
    settings: EncodeSettings,
    first: Fraction,
    metadata: Mapping[str, str] | None,
    finish: Callable[[Path], None] | None,
    xmp: bytes | None,
) -> None:
    """GIF or picture folder from lossless segments."""
    with FrameWriter(output, info, settings, metadata=metadata, finish=finish, xmp=xmp) as writer:
        for part in parts:
            source = inspect(part.path)
            for time, picture in timed_pictures(source):
                writer.write(Frame(writer.frames, source.start + time - first, *picture()))
