"""Parts joined are the whole: the same pictures, times and sound as if nothing had been interrupted."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lib_vitface.errors import InputError
from lib_vitface.media import EncodeSettings, FrameWriter, join_segments, probe, read_frames, segment_settings
from lib_vitface.media.audio import copies
from lib_vitface.types import VideoInfo

MakeVideo = Callable[..., Path]


def parts_of(
    folder: Path, source: Path, output: Path, settings: EncodeSettings, sizes: list[int], **trim: float
) -> list[Path]:
    """The source's frames in segments of the given lengths, as a job writes them."""
    info: VideoInfo = probe(source)
    ready, suffix = segment_settings(settings, info, output)
    frames = read_frames(source, trim.get("start_s"), trim.get("end_s"))
    made = []
    for number, size in enumerate(sizes):
        made.append(folder / f"part-{number}{suffix}")
        with FrameWriter(made[-1], info, ready) as writer:
            for _ in range(size):
                writer.write(next(frames))
    assert next(frames, None) is None
    return made


def sound_of(path: Path) -> tuple[np.ndarray, float]:
    """Samples (mono) and when they begin, in seconds after the first picture."""
    with av.open(str(path)) as container:
        pictures = min(p.pts * p.time_base for p in container.demux(container.streams.video[0]) if p.size)
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    begin = float(frames[0].pts * frames[0].time_base - pictures)
    samples = np.concatenate(
        [f.to_ndarray().astype(np.float64).reshape(-1) if f.format.is_packed else f.to_ndarray()[0] for f in frames]
    )
    return samples, begin


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("o.mp4", "h264"),
        ("o.mp4", "h265"),
        ("o.mov", "prores"),
        ("o.webm", "vp9"),
        ("o.mkv", "ffv1"),
        ("o.gif", "gif"),
        ("o", "images"),
    ],
)
def test_joined_parts_are_the_whole(tmp_path: Path, make_video: MakeVideo, name: str, codec: str) -> None:
    source = make_video(tmp_path / "s.mp4", 20, Fraction(30000, 1001), options={"g": "5"})
    settings = EncodeSettings(codec)
    join_segments(
        parts_of(tmp_path, source, tmp_path / name, settings, [7, 7, 6]),
        tmp_path / name,
        source=source,
        settings=settings,
    )
    joined, original = list(read_frames(tmp_path / name)), list(read_frames(source))
    assert len(joined) == 20
    tolerance = {"vp9": Fraction(1, 1000), "ffv1": Fraction(1, 1000), "gif": Fraction(1, 100), "images": Fraction(1)}
    for a, b in zip(joined, original, strict=True):
        assert abs(a.time - b.time) <= tolerance.get(codec, 0)
        assert np.abs(a.image.astype(int) - b.image).mean() < (14 if codec == "gif" else 6)
        if codec in {"ffv1", "images"}:
            np.testing.assert_array_equal(a.image, b.image)
    if codec not in {"gif", "images"}:
        with av.open(str(tmp_path / name)) as container:
            stamps = [p.dts for p in container.demux(container.streams.video[0]) if p.size]
        assert stamps == sorted(set(stamps))


@pytest.mark.parametrize(
    ("source_name", "audio", "name", "codec", "kept"),
    [
        ("s.mp4", "aac", "o.mp4", "h264", "aac"),
        ("s.mkv", "libopus", "o.webm", "vp9", "opus"),
        ("s.mov", "pcm_s16le", "o.mov", "h264", "pcm_s16le"),
        ("s.mov", "pcm_s16le", "o.mp4", "h264", "aac"),
        ("s.mp4", "aac", "o.webm", "vp9", "opus"),
        ("s.mp4", "aac", "o.mkv", "ffv1", "aac"),
    ],
)
def test_the_sound_comes_along_in_time(
    tmp_path: Path, make_video: MakeVideo, source_name: str, audio: str, name: str, codec: str, kept: str
) -> None:
    source = make_video(tmp_path / source_name, 50, 25, audio=audio, audio_start_s=0.5, audio_seconds=1.2)
    parts = parts_of(tmp_path, source, tmp_path / name, EncodeSettings(codec), [25, 25])
    join_segments(parts, tmp_path / name, source=source, settings=EncodeSettings(codec))
    assert probe(tmp_path / name).audio_codecs == (kept,)
    before, after = sound_of(source), sound_of(tmp_path / name)
    onset = []
    for samples, begin in (before, after):
        loud = np.abs(samples) > 0.1 * np.abs(samples).max()
        step = 2 if (audio == "pcm_s16le" and samples is before[0]) or kept == "pcm_s16le" else 1  # packed stereo
        onset.append(begin + int(np.argmax(loud)) / step / 48000)
    assert onset[1] == pytest.approx(onset[0], abs=0.03)


def test_copied_sound_is_the_same_packets(tmp_path: Path, make_video: MakeVideo) -> None:
    source = make_video(tmp_path / "s.mp4", 30, 25, audio="aac", audio_streams=2)
    parts = parts_of(tmp_path, source, tmp_path / "o.mp4", EncodeSettings("h264"), [12, 18])
    join_segments(parts, tmp_path / "o.mp4", source=source, settings=EncodeSettings("h264"))
    for stream in (0, 1):
        data = []
        for path in (source, tmp_path / "o.mp4"):
            with av.open(str(path)) as container:
                data.append([bytes(p) for p in container.demux(container.streams.audio[stream]) if p.size])
        assert data[0] == data[1]


def test_a_trim_cuts_the_sound_too(tmp_path: Path, make_video: MakeVideo) -> None:
    source = make_video(tmp_path / "s.mp4", 75, 25, audio="aac")
    settings = EncodeSettings("h264")
    parts = parts_of(tmp_path, source, tmp_path / "o.mp4", settings, [25], start_s=1.0, end_s=2.0)
    join_segments(parts, tmp_path / "o.mp4", source=source, settings=settings, start_s=1.0, end_s=2.0)
    frames = list(read_frames(tmp_path / "o.mp4"))
    assert [f.time for f in frames] == [Fraction(k, 25) for k in range(25)]
    samples, begin = sound_of(tmp_path / "o.mp4")
    assert abs(begin) < 0.03 and len(samples) / 48000 == pytest.approx(1.0, abs=0.06)


def test_the_same_parts_give_the_same_bytes(tmp_path: Path, make_video: MakeVideo) -> None:
    """A job that was resumed cuts where one that was not does. Four times over: x264 once differed in one of some ten."""
    source = make_video(tmp_path / "s.mp4", 16, 25, audio="aac")
    made = []
    for k in range(4):
        folder = tmp_path / str(k)
        folder.mkdir()
        parts = parts_of(folder, source, tmp_path / "o.mp4", EncodeSettings("h264"), [8, 8])
        join_segments(parts, tmp_path / "o.mp4", source=source, settings=EncodeSettings("h264"))
        made.append((tmp_path / "o.mp4").read_bytes())
    assert len(set(made)) == 1


def test_parts_that_do_not_belong_together(tmp_path: Path, make_video: MakeVideo) -> None:
    source = make_video(tmp_path / "s.mp4", 12, 25)
    other = make_video(tmp_path / "t.mp4", 12, 25, size=(80, 48))
    settings, output = EncodeSettings("h264"), tmp_path / "o.mp4"
    first, second = parts_of(tmp_path, source, output, settings, [6, 6])
    (tmp_path / "x").mkdir()
    (strange,) = parts_of(tmp_path / "x", other, output, settings, [12])
    cases: list[tuple[list[Path], str]] = [
        ([], "no segments"),
        ([second, first], "does not follow"),
        ([first, strange], "encoded otherwise"),
        ([first, tmp_path / "gone.nut"], "no such file"),
    ]
    for parts, words in cases:
        with pytest.raises(InputError, match=words):
            join_segments(parts, output, source=source, settings=settings)
    with pytest.raises(InputError, match=r"holds h264, not (hevc|h265)"):
        join_segments([first, second], output, source=source, settings=EncodeSettings("h265"))
    assert not output.exists()


@pytest.mark.parametrize(
    ("muxer", "codec", "expected"),
    [("mp4", "aac", True), ("mp4", "pcm_s16le", False), ("mp4", "vorbis", False), ("mov", "pcm_s24le", True),
     ("mov", "opus", False), ("webm", "opus", True), ("webm", "aac", False), ("matroska", "pcm_s16le", True)],
)  # fmt: skip
def test_which_sound_is_copied(muxer: str, codec: str, expected: bool) -> None:
    assert copies(muxer, codec) is expected
