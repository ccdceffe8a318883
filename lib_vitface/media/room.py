"""Joining in little room: a segment goes once all its packets are found in the joined file, and can be brought back from there.

So the disk holds the joined file and what is not in it yet, instead of everything twice. Nothing is taken on trust: a segment
is deleted only after each of its packets was read again from the joined file. What a container changes otherwise than it is
known here is not found there, and its segments simply stay.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import av

from lib_vitface.media.audio import add_copy
from lib_vitface.media.container import FFmpegError, beside, codec_name, location, open_input, video_stream

_NEAR, _FAR = 1 << 20, 1 << 25  # bytes between two packets of the picture: sound and headers
_START = re.compile(b"\0\0\1")


@dataclass(frozen=True)
class Place:
    """Where the packets of a segment lie in a joined file: (offset, bytes, pts, dts, whether a key frame) of each, in decoding
    order, times in the segment's own ticks (dts may be None). `nal` says that lengths stand there before their units instead of
    start codes; `crc` is over all of their bytes."""

    packets: list[tuple[int, int, int, int | None, bool]]
    nal: bool
    crc: int

    def to_json(self) -> dict[str, Any]:
        return {"packets": [list(one) for one in self.packets], "nal": self.nal, "crc": self.crc}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Place:
        packets = [(int(a), int(b), int(c), d, bool(e)) for a, b, c, d, e in values["packets"]]
        return cls(packets, bool(values["nal"]), int(values["crc"]))


class Room:
    """Deletes the segments of one join behind it. The first one stays: it is the pattern the others are brought back by."""

    def __init__(self, segments: Sequence[Path], joined: Path, taken: Callable[[int, Path, Place], None]) -> None:
        """`taken` notes where a segment lies, in a way that survives a kill; only then the segment is deleted."""
        self._segments, self._joined, self._taken = segments, joined, taken
        self._next, self._from = 0, 0
        self._form: Callable[[bytes], bytes] | None = None
        self._places: dict[int, Place] = {}

    def passed(self, number: int) -> None:
        """Segments before `number` were handed to the muxer; those that have arrived are deleted."""
        while self._next < number:
            place = self._found(self._segments[self._next])
            if place is None:
                return
            if self._next:
                self._taken(self._next, self._joined, place)
                self._places[self._next] = place
                self._segments[self._next].unlink(missing_ok=True)
            offset, size = place.packets[-1][:2]
            self._next, self._from = self._next + 1, offset + size

    def give_back(self) -> None:
        """After a failure: the segments as they were, and the joined file cut off behind what is needed no more."""
        bring_back(self._segments, self._joined, self._places)

    def _found(self, segment: Path) -> Place | None:
        """Where a segment's packets are in the joined file; None where one is not, or not yet."""
        at, crc, packets = self._from, 0, []
        with self._joined.open("rb") as file, open_input(segment) as container:
            stream = video_stream(container, segment)
            forms = _forms(codec_name(stream))
            for packet in container.demux(stream):
                if not packet.size or packet.pts is None:
                    continue
                for form in forms if self._form is None else [self._form]:
                    data = form(bytes(packet))
                    offset = _find(file, data, at)
                    if offset is not None:
                        break
                else:
                    return None
                assert offset is not None
                self._form = form
                packets.append((offset, len(data), packet.pts, packet.dts, bool(packet.is_keyframe)))
                at, crc = offset + len(data), zlib.crc32(data, crc)
            os.fsync(file.fileno())
        return Place(packets, self._form is not bytes, crc)


def bring_back(segments: Sequence[Path], joined: Path, places: Mapping[int, Place]) -> list[int]:
    """Writes deleted segments again from where they lie in a joined file that was not finished; numbers of those it has.

    From the last one on, the file being cut off behind each, so that no more room is needed than for one segment. What is not
    there as it was noted is left out: it has to be made again.
    """
    back: list[int] = []
    for number in sorted(places, reverse=True):
        if segments[number].is_file():
            continue
        try:
            _write(segments[number], segments[0], joined, places[number])
        except (OSError, ValueError, FFmpegError):
            continue
        back.append(number)
        os.truncate(joined, places[number].packets[0][0])
    return back


def _write(path: Path, pattern: Path, joined: Path, place: Place) -> None:
    """One segment. Raises `ValueError` where the joined file does not hold it."""
    if _crc(joined, place) != place.crc:
        raise ValueError(f"{joined} does not hold {path.name}")
    with beside(path) as temporary, joined.open("rb") as file, open_input(pattern) as container:
        first = video_stream(container, pattern)
        kind = container.format.name.split(",")[0]
        options = {"fflags": "+bitexact"}
        with av.open(location(temporary), "w", format=kind, container_options=options) as target:
            stream = add_copy(target, first)
            for offset, size, pts, dts, key in place.packets:
                file.seek(offset)
                data = file.read(size)
                packet = av.Packet(_with_start_codes(data) if place.nal else data)
                packet.stream, packet.time_base = stream, first.time_base
                packet.pts, packet.dts, packet.is_keyframe = pts, dts, key
                target.mux_one(packet)


def _crc(joined: Path, place: Place) -> int:
    crc = 0
    with joined.open("rb") as file:
        for offset, size, *_ in place.packets:
            file.seek(offset)
            crc = zlib.crc32(file.read(size), crc)
    return crc


def _find(file: BinaryIO, data: bytes, start: int) -> int | None:
    """Where `data` stands in a file, not far behind `start`."""
    reach = _NEAR
    while True:
        file.seek(start)
        block = file.read(reach + len(data))
        at = block.find(data)
        if at >= 0:
            return start + at
        if len(block) < reach + len(data) or reach >= _FAR:
            return None
        reach *= 8


def _forms(codec: str) -> list[Callable[[bytes], bytes]]:
    """What containers may make of a packet: nothing, or lengths in the place of start codes, also without parameter sets."""
    if codec == "h264":
        return [_with_lengths, bytes]
    if codec == "hevc":
        return [_without_parameters, _with_lengths, bytes]
    return [bytes]


def _units(data: bytes) -> Iterator[bytes]:
    """NAL units of a packet with start codes (ITU-T H.264, annex B)."""
    starts = [m.end() for m in _START.finditer(data)]
    for start, after in zip(starts, [*(s - 3 for s in starts[1:]), len(data)], strict=True):
        end = after - 1 if after < len(data) and data[after - 1] == 0 else after
        yield data[start:end]


def _with_lengths(data: bytes) -> bytes:
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in _units(data))


def _without_parameters(data: bytes) -> bytes:
    """Likewise, without the parameter sets of H.265 (unit types 32 to 34), which stand in the file's header."""
    kept = [unit for unit in _units(data) if unit and not 32 <= unit[0] >> 1 & 63 <= 34]
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in kept)


def _with_start_codes(data: bytes) -> bytes:
    parts, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        parts.append(b"\0\0\0\1" + data[at + 4 : at + 4 + size])
        at += 4 + size
    return b"".join(parts)
