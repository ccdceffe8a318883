"""Segments that go while they are joined: the disk holds little more than the result, and they come back as they were."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lib_vitface.errors import OutputError
from lib_vitface.media import (
    EncodeSettings,
    FrameWriter,
    Place,
    bring_back,
    join_segments,
    probe,
    read_frames,
    segment_settings,
)

SEGMENTS, FRAMES = 12, 2
MakeVideo = Callable[..., Path]


@pytest.fixture(scope="module")
def source(
    tmp_path_factory: pytest.TempPathFactory, make_video: MakeVideo, make_frame: Callable[..., np.ndarray]
) -> Path:
    """Noise, so that a segment is larger than what a muxer holds back; with sound."""
    draw = np.random.default_rng(0)
    frames = [
        np.clip(make_frame(i, 320, 240).astype(int) + draw.integers(-60, 60, (240, 320, 1)), 0, 255)
        for i in range(SEGMENTS * FRAMES)
    ]
    path = tmp_path_factory.mktemp("room") / "s.mp4"
    options = {"crf": "8", "preset": "ultrafast"}
    return make_video(path, [f.astype(np.uint8) for f in frames], Fraction(30000, 1001), audio="aac", options=options)


def segments(folder: Path, source: Path, output: Path, settings: EncodeSettings) -> list[Path]:
    ready, suffix = segment_settings(settings, probe(source), output)
    frames, made = read_frames(source), []
    for number in range(SEGMENTS):
        made.append(folder / f"part-{number}{suffix}")
        with FrameWriter(made[-1], probe(source), ready) as writer:
            for _ in range(FRAMES):
                writer.write(next(frames))
    assert next(frames, None) is None
    return made


CASES = [
    ("o.mp4", "h264"),
    ("o.mkv", "h264"),
    ("o.mp4", "h265"),
    ("o.mkv", "h265"),
    ("o.webm", "vp9"),
    ("o.mkv", "ffv1"),
]


@pytest.mark.parametrize(("name", "codec"), CASES)
def test_the_disk_holds_little_more_than_the_result_and_segments_come_back(
    tmp_path: Path, source: Path, name: str, codec: str
) -> None:
    output, settings = tmp_path / name, EncodeSettings(codec, None if codec == "ffv1" else 8, preset="fast")
    parts = segments(tmp_path, source, output, settings)
    before = {part: part.read_bytes() for part in parts}
    largest = max(len(data) for data in before.values())
    shutil.copytree(tmp_path, tmp_path / "copy")
    used: list[int] = []
    places: dict[int, Place] = {}
    half = tmp_path / "half.part"

    def taken(number: int, joined: Path, place: Place) -> None:
        assert parts[number].is_file(), "noted first, then deleted"
        places[number] = Place.from_json(place.to_json())
        used.append(joined.stat().st_size + sum(part.stat().st_size for part in parts if part.is_file()))
        if number == SEGMENTS // 2:
            shutil.copy(joined, half)

    join_segments(parts, output, source=source, settings=settings, taken=taken)
    gone = [part for part in parts if not part.is_file()]
    assert len(gone) >= SEGMENTS - 5 and parts[0].is_file() and set(places) == {parts.index(part) for part in gone}
    assert max(used) < output.stat().st_size + 5 * largest < 2 * output.stat().st_size
    plain = tmp_path / f"plain{output.suffix}"
    join_segments([tmp_path / "copy" / part.name for part in parts], plain, source=source, settings=settings)
    for a, b in zip(read_frames(output), read_frames(plain), strict=True):
        assert a.time == b.time and np.array_equal(a.image, b.image)
    # killed in the middle: what had arrived comes back from the file that was not finished, the rest was never deleted
    for number in range(SEGMENTS // 2 + 1, SEGMENTS):
        shutil.copy(tmp_path / "copy" / parts[number].name, parts[number])
    early = {number: place for number, place in places.items() if number <= SEGMENTS // 2}
    assert sorted(bring_back(parts, half, early)) == sorted(early)
    assert half.stat().st_size == early[1].packets[0][0], "cut off behind what is still needed of it"
    again = tmp_path / f"again{output.suffix}"
    join_segments(parts, again, source=source, settings=settings, taken=lambda *_: None)
    assert again.read_bytes() == output.read_bytes()


def test_after_an_error_all_segments_are_there(tmp_path: Path, source: Path) -> None:
    output, settings = tmp_path / "o.mp4", EncodeSettings("h264", preset="fast")
    parts = segments(tmp_path, source, output, settings)

    def full(path: Path) -> None:
        assert not all(part.is_file() for part in parts)
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="the disk is full"):
        join_segments(parts, output, source=source, settings=settings, finish=full, taken=lambda *_: None)
    assert all(part.is_file() for part in parts) and {p.suffix for p in tmp_path.iterdir()} == {".nut"}
    join_segments(parts, output, source=source, settings=settings)
    assert len(list(read_frames(output))) == SEGMENTS * FRAMES


def test_a_joined_file_of_other_content_brings_nothing_back(tmp_path: Path, source: Path) -> None:
    output, settings = tmp_path / "o.mkv", EncodeSettings("ffv1")
    parts, places = segments(tmp_path, source, output, settings), {}
    join_segments(parts, output, source=source, settings=settings, taken=lambda n, _, place: places.update({n: place}))
    data = bytearray(output.read_bytes())
    data[places[2].packets[0][0] + 5] ^= 1
    output.write_bytes(data)
    assert 2 not in bring_back(parts, output, places) and not parts[2].is_file()


def test_the_header_lies_before_the_data(tmp_path: Path, source: Path) -> None:
    """A player can start at once, as without `taken`."""
    output, settings = tmp_path / "o.mp4", EncodeSettings("h264", preset="fast")
    join_segments(
        segments(tmp_path, source, output, settings), output, source=source, settings=settings, taken=lambda *_: None
    )
    data = output.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
