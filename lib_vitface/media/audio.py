"""The sound of a source carried into a result: packets as they are where the container takes them, else encoded anew."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from lib_vitface.media.container import FFmpegError, codec_name

log = logging.getLogger("vitface")

# What players really play in these containers; FFmpeg would also write more. Matroska takes everything.
_COPIED = {
    "mp4": {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac"},
    "webm": {"opus", "vorbis"},
}
_ENCODER = {"mp4": "aac", "mov": "aac", "webm": "libopus", "matroska": "flac"}
_OPUS_RATES = (48000, 24000, 16000, 12000, 8000)
_INTERLEAVE_S = 5  # streams of a file lie at most about this far apart
_NO_EDIT_LISTS = {"matroska", "webm"}


@dataclass
class Track:
    """One sound stream on its way; `encoder` is None where packets are copied."""

    source: Any
    target: Any
    encoder: Any = None
    resampler: Any = None
    last_dts: int | None = None


def copies(muxer: str, codec: str) -> bool:
    """Whether a container takes the packets of an audio codec as they are."""
    return (
        codec.startswith("pcm_")
        if muxer == "mov" and codec.startswith("pcm_")
        else codec in _COPIED.get(muxer, {codec})
    )


def add_tracks(output: Any, source: Any, muxer: str) -> list[Track]:
    """One output stream for every sound stream of `source`. A stream that cannot even be decoded is left out, and told of."""
    tracks = []
    for stream in source.streams.audio:
        if stream.codec_context is None:
            log.warning("Sound stream %d is of a kind that is not known here; it is left out.", stream.index)
            continue
        name = codec_name(stream)
        track = None
        if copies(muxer, name):
            with contextlib.suppress(ValueError):  # the muxer refuses this codec after all
                track = Track(stream, add_copy(output, stream))
        if track is None:
            track = _encoded(output, stream, muxer)
            log.info("Sound stream %d (%s) is encoded anew for %s.", stream.index, name, muxer)
        for key in ("language", "title"):
            if stream.metadata.get(key):
                track.target.metadata[key] = stream.metadata[key]
        tracks.append(track)
    return tracks


def add_copy(output: Any, stream: Any) -> Any:
    """A stream of `output` that takes the packets of `stream` as they are."""
    if hasattr(output, "add_stream_from_template"):  # PyAV 14 on
        return output.add_stream_from_template(stream, opaque=True)
    return output.add_stream(template=stream)


def _encoded(output: Any, stream: Any, muxer: str) -> Track:
    """A track that is decoded and encoded by the codec the container is known to play."""
    name = _ENCODER[muxer]
    rate = stream.codec_context.sample_rate
    if name == "libopus" and rate not in _OPUS_RATES:
        rate = 48000
    target = output.add_stream(name, rate=rate)
    context = target.codec_context
    channels = len(stream.codec_context.layout.channels)
    layout = stream.codec_context.layout.name if 1 <= channels <= 8 and channels != 7 else "stereo"
    with contextlib.suppress(ValueError, FFmpegError):
        context.layout = layout
    if name != "flac":
        context.bit_rate = 96000 * len(context.layout.channels)
    context.time_base = Fraction(1, rate)
    resampler = av.AudioResampler(format=context.format, layout=context.layout, rate=rate)
    return Track(stream, target, context, resampler)


def sound_packets(
    source: Any, tracks: list[Track], base: Fraction, start: Fraction | None, end: Fraction | None, muxer: str
) -> Iterator[tuple[Fraction, Any]]:
    """Packets ready to be muxed, each with its time, in the order of the file.

    `base` is the time on the source's clock that becomes 0; sound from `start` until `end` (same clock, None: all) is kept.
    Containers without edit lists cannot mark the encoder's run-in before 0, so it is left out there, except Opus, whose run-in
    Matroska has its own field for.
    """
    by_index = {track.source.index: track for track in tracks}
    begin = base if start is None and muxer in _NO_EDIT_LISTS else start
    if start is not None:
        with contextlib.suppress(FFmpegError):
            source.seek(int((start - 1) * av.time_base))
    try:
        for packet in source.demux(*[track.source for track in tracks]):
            track = by_index[packet.stream.index]
            if not packet.size or packet.pts is None:
                continue
            time = packet.pts * packet.time_base
            if end is not None and time >= end:
                if time > end + _INTERLEAVE_S:
                    break
                continue
            if begin is not None and time < begin and not (start is None and codec_name(track.source) == "opus"):
                continue
            if track.encoder is None:
                yield time - base, _copied(packet, track, base)
            else:
                yield from _recoded(packet, track, base)
    except FFmpegError as error:
        log.warning("The sound ends early: %s.", error)
    for track in tracks:
        if track.encoder is not None:
            yield from _recoded(None, track, base)


def _copied(packet: Any, track: Track, base: Fraction) -> Any:
    """The packet itself, moved in time; decoding times are made to rise where the source's do not."""
    tick = Fraction(packet.time_base)
    shift = round(base / tick)
    dts = packet.pts if packet.dts is None else packet.dts
    dts -= shift
    if track.last_dts is not None and dts <= track.last_dts:
        dts = track.last_dts + 1
    track.last_dts = dts
    packet.pts = max(packet.pts - shift, dts)
    packet.dts = dts
    packet.stream = track.target
    return packet


def _recoded(packet: Any, track: Track, base: Fraction) -> Iterator[tuple[Fraction, Any]]:
    """Decode, resample, encode; `None` flushes."""
    frames: list[Any] = []
    try:
        frames = list(track.source.codec_context.decode(packet))
    except EOFError:
        pass
    except FFmpegError as error:
        log.warning("A damaged part of the sound was left out: %s.", error)
    pieces = [piece for frame in frames for piece in track.resampler.resample(frame)]
    if packet is None:
        pieces += track.resampler.resample(None)
    tick = Fraction(1, track.encoder.sample_rate)
    for piece in [*pieces, None] if packet is None else pieces:
        if piece is not None and piece.pts is not None:
            piece.pts = round((piece.pts * piece.time_base - base) / tick)
            piece.time_base = tick
        for done in track.encoder.encode(piece):
            done.stream = track.target
            done_tick = Fraction(done.time_base or tick)
            yield (done.dts or 0) * done_tick, done
