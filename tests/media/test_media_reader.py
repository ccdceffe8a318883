"""What is said of a file, and its frames: order, times, sizes, trim, skip, orientation."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lib_vitface.errors import InputError
from lib_vitface.media import probe, read_frames, write_image
from lib_vitface.media.reader import turn_of, turned

MakeVideo = Callable[..., Path]
MakeFrame = Callable[[int, int, int], np.ndarray]
EXACT = {"codec": "ffv1", "pixel_format": "bgr0"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"audio": "aac"}),
        ("a.mov", {"audio": "pcm_s16le"}),
        ("a.mkv", {"audio": "libopus"}),
        ("a.webm", {"audio": "libopus"}),
        ("a.avi", {"codec": "mpeg4"}),
        ("a.gif", {"pixel_format": "rgb8"}),
        ("a.mkv", EXACT),
    ],
)
def test_every_container_is_read_in_order(
    tmp_path: Path, make_video: MakeVideo, make_frame: MakeFrame, name: str, options: dict[str, str]
) -> None:
    path = make_video(tmp_path / name, 12, 25, **options)
    info = probe(path)
    assert (info.width, info.height, info.fps, info.rotation_deg, info.bit_depth) == (64, 48, 25, 0, 8)
    assert abs(info.duration - Fraction(12, 25)) <= Fraction(1, 25)
    assert info.audio_codecs == (
        {"aac": ("aac",), "pcm_s16le": ("pcm_s16le",), "libopus": ("opus",)}.get(options.get("audio", ""), ())
    )
    frames = list(read_frames(path))
    assert [frame.index for frame in frames] == list(range(12))
    assert all(abs(frame.time - Fraction(i, 25)) <= Fraction(1, 2000) for i, frame in enumerate(frames))
    for frame in frames:
        assert frame.image.shape == (48, 64, 3)
        assert frame.image.dtype == np.uint8
        assert frame.alpha is None
        differences = [np.abs(frame.image.astype(int) - make_frame(i, 64, 48)).mean() for i in range(12)]
        assert int(np.argmin(differences)) == frame.index
        assert differences[frame.index] < (25 if name.endswith("gif") else 12)


def test_rgb_comes_back_bit_for_bit(tmp_path: Path, make_video: MakeVideo, make_frame: MakeFrame) -> None:
    path = make_video(tmp_path / "a.mkv", 5, 25, **EXACT)
    for frame in read_frames(path):
        assert np.array_equal(frame.image, make_frame(frame.index, 64, 48))


@pytest.mark.parametrize("size", [(65, 48), (64, 49), (65, 49), (1, 1), (2, 3)])
def test_odd_sizes_keep_every_pixel(
    tmp_path: Path, make_video: MakeVideo, make_frame: MakeFrame, size: tuple[int, int]
) -> None:
    path = make_video(tmp_path / "a.mkv", 3, 25, size=size, **EXACT)
    for frame in read_frames(path):
        assert np.array_equal(frame.image, make_frame(frame.index, *size))


def test_variable_frame_rate_times_are_exact(tmp_path: Path, make_video: MakeVideo) -> None:
    ticks = [0, 1, 4, 500, 501, 1601, 90000, 90001, 95000]
    times = [Fraction(tick, 90000) for tick in ticks]
    path = make_video(
        tmp_path / "vfr.mp4", len(times), 25, times=times, container_options={"video_track_timescale": "90000"}
    )
    assert [frame.time for frame in read_frames(path)] == times
    assert probe(path).time_base == Fraction(1, 90000)


def test_ntsc_times_are_fractions(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "ntsc.mp4", 7, Fraction(24000, 1001))
    assert [frame.time for frame in read_frames(path)] == [Fraction(1001 * i, 24000) for i in range(7)]
    assert probe(path).fps == Fraction(24000, 1001)


def test_times_count_from_the_first_frame(tmp_path: Path, make_video: MakeVideo) -> None:
    """A stream that starts late in its container (here by half a second) has its first frame at 0 all the same."""
    times = [Fraction(1, 2) + Fraction(i, 25) for i in range(5)]
    path = make_video(tmp_path / "late.mkv", 5, 25, times=times)
    assert [frame.time for frame in read_frames(path)] == [Fraction(i, 25) for i in range(5)]


def _stored(clockwise_deg: int, image: np.ndarray) -> np.ndarray:
    """The picture as a camera stores it that notes "turn by `clockwise_deg` to show"."""
    return np.ascontiguousarray(np.rot90(image, clockwise_deg // 90))  # counter-clockwise: undone by the note


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation_notes_are_followed(
    tmp_path: Path, make_video: MakeVideo, make_frame: MakeFrame, degrees: int
) -> None:
    shown = [make_frame(i, 64, 48) for i in range(3)]
    path = make_video(
        tmp_path / "r.mp4",
        [_stored(degrees, image) for image in shown],
        25,
        rotation_deg=degrees,
        pixel_format="yuv444p",
        options={"crf": "4"},
        sample_aspect=Fraction(4, 3),
    )
    info = probe(path)
    assert (info.width, info.height, info.rotation_deg) == (64, 48, degrees)
    assert info.sample_aspect == (Fraction(4, 3) if degrees == 180 else Fraction(3, 4)), (
        "the pixel turns with the picture"
    )
    for frame in read_frames(path):
        assert np.abs(frame.image.astype(int) - shown[frame.index]).mean() < 4


def test_display_matrices_with_mirrors() -> None:
    """x' = a x + c y, y' = b x + d y (ISO 14496-12): checked point by point on a small picture."""
    image = np.arange(6).reshape(2, 3)
    for a, b, c, d in [
        (1, 0, 0, 1),
        (-1, 0, 0, 1),
        (1, 0, 0, -1),
        (0, 1, 1, 0),
        (0, 1, -1, 0),
        (0, -1, 1, 0),
        (0, -1, -1, 0),
    ]:
        matrix = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 14], np.int32) << 16
        corners = np.array([(a * x + c * y, b * x + d * y) for x in (0, 2) for y in (0, 1)])
        low = corners.min(0)
        high = corners.max(0) - low
        wanted = np.zeros((high[1] + 1, high[0] + 1), int)
        for y in range(2):
            for x in range(3):
                wanted[b * x + d * y - low[1], a * x + c * y - low[0]] = image[y, x]
        assert np.array_equal(turned(image, turn_of(matrix.tobytes())), wanted), (a, b, c, d)


def test_trim_takes_start_and_leaves_end(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mp4", 100, 10, options={"g": "12"})
    for start, end, first, last in [
        (1, 2, 10, 19),
        (0.1, 0.3, 1, 2),
        (7.05, None, 71, 99),
        (None, 0.1, 0, 0),
        (9.9, 99, 99, 99),
    ]:
        frames = list(read_frames(path, start_s=start, end_s=end))
        assert [frame.time for frame in frames] == [Fraction(i, 10) for i in range(first, last + 1)]
        assert [frame.index for frame in frames] == list(range(last - first + 1))


def test_seeking_gives_the_same_pixels_as_decoding(tmp_path: Path, make_video: MakeVideo) -> None:
    for name in ("a.mp4", "a.mkv", "a.avi", "a.webm"):
        codec = {"codec": "mpeg4"} if name == "a.avi" else {}
        path = make_video(tmp_path / name, 100, 20, options={"g": "30"}, **codec)
        everything = {frame.time: frame.image for frame in read_frames(path)}
        part = list(read_frames(path, start_s=3.3, end_s=3.6))
        assert len(part) == 6
        assert all(np.array_equal(frame.image, everything[frame.time]) for frame in part)


def test_skip_goes_on_where_a_job_stopped(tmp_path: Path, make_video: MakeVideo) -> None:
    path = make_video(tmp_path / "a.mp4", 20, 25)
    whole = list(read_frames(path, start_s=0.2))
    rest = list(read_frames(path, start_s=0.2, skip=7))
    assert [(f.index, f.time) for f in rest] == [(f.index, f.time) for f in whole[7:]]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(rest, whole[7:], strict=True))
    assert list(read_frames(path, skip=20)) == [], "a job that had finished reading has nothing left"


def test_alpha_is_read(tmp_path: Path, make_video: MakeVideo, make_frame: MakeFrame) -> None:
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))
    rgba = [np.dstack([make_frame(i, 64, 48), ramp]) for i in range(3)]
    cases = {
        "a.mkv": ({"codec": "ffv1", "pixel_format": "bgra"}, 0),
        "a.mov": ({"codec": "prores_ks", "pixel_format": "yuva444p10le", "options": {"profile": "4444"}}, 2),
        "a.webm": ({"pixel_format": "yuva420p", "options": {"crf": "4", "b": "0", "auto-alt-ref": "0"}}, 12),
    }
    for name, (options, tolerance) in cases.items():
        path = make_video(tmp_path / name, rgba, 25, **options)
        assert probe(path).has_alpha, name
        for frame in read_frames(path):
            assert frame.alpha is not None
            assert np.abs(frame.alpha.astype(int) - ramp).max() <= tolerance, name


def test_a_folder_of_pictures_is_a_video(tmp_path: Path, make_frame: MakeFrame) -> None:
    for i in (1, 2, 10):
        write_image(tmp_path / f"shot {i}.png", make_frame(i, 40, 30))
    (tmp_path / "notes.txt").write_text("not a picture")
    info = probe(tmp_path)
    assert (info.frame_count, info.width, info.height, info.fps, info.duration) == (3, 40, 30, 25, Fraction(3, 25))
    frames = list(read_frames(tmp_path))
    assert [frame.time for frame in frames] == [Fraction(i, 25) for i in range(3)]
    for frame, i in zip(frames, (1, 2, 10), strict=True):
        assert np.array_equal(frame.image, make_frame(i, 40, 30))
    write_image(tmp_path / "shot 11.png", make_frame(0, 41, 30))
    with pytest.raises(InputError, match=r"shot 11.png: it is 41x30 pixels and the first picture.*40x30"):
        list(read_frames(tmp_path))


def test_reading_stops_when_the_reader_is_dropped(tmp_path: Path, make_video: MakeVideo) -> None:
    """A generator that is closed lets go of its file (it could not be removed on Windows otherwise)."""
    path = make_video(tmp_path / "a.mp4", 20, 25)
    frames = read_frames(path)
    next(frames)
    frames.close()  # type: ignore[attr-defined]
    with pytest.raises(StopIteration):
        next(frames)


def test_real_clip_has_the_frames_its_header_tells(tmp_path: Path) -> None:
    clip = Path("/work/shared/clips/d19.mp4")
    if not clip.exists():
        pytest.skip("the clips of the development machine are not here")
    info = probe(clip)
    with av.open(str(clip)) as container:
        times = sorted(p.pts * p.time_base for p in container.demux(video=0) if p.size)
    frames = [(frame.time, frame.image.mean()) for frame in read_frames(clip, end_s=1)]
    assert [time for time, _ in frames] == [t for t in times if t < 1]
    assert info.frame_count == len(times)
    assert info.duration == Fraction(250, 30)
