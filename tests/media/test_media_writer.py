"""What is written comes back: every pixel where the codec is lossless, every time, size and tag always."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lib_vitface.errors import InputError, OutputError
from lib_vitface.media import EncodeSettings, FrameWriter, probe, read_frames
from lib_vitface.media.writer import exact_tick
from lib_vitface.types import Frame, VideoInfo

MakeFrame = Callable[[int, int, int], np.ndarray]
NTSC = Fraction(30000, 1001)


def info_of(width: int = 64, height: int = 48, **changes: object) -> VideoInfo:
    values: dict[str, object] = {
        "path": Path("x"), "width": width, "height": height, "fps": NTSC, "frame_count": None, "duration": Fraction(1),
        "rotation_deg": 0, "codec": "h264", "pixel_format": "yuv420p", "bit_depth": 8, "has_alpha": False, "color_range": 1,
        "color_space": 1, "color_primaries": 1, "color_transfer": 1, "time_base": 1 / NTSC, **changes,
    }  # fmt: skip
    return VideoInfo(**values)  # type: ignore[arg-type]


def write(
    path: Path, pictures: list[np.ndarray], info: VideoInfo, times: list[Fraction] | None = None, **settings: object
) -> Path:
    with FrameWriter(path, info, EncodeSettings(**settings)) as writer:  # type: ignore[arg-type]
        for k, picture in enumerate(pictures):
            alpha = picture[..., 3] if picture.shape[2] == 4 else None
            writer.write(Frame(k, k / info.fps if times is None else times[k], picture[..., :3], alpha))
    return path


@pytest.mark.parametrize("size", [(64, 48), (65, 49), (16, 200)])
def test_lossless_video_is_lossless(tmp_path: Path, make_frame: MakeFrame, size: tuple[int, int]) -> None:
    pictures = [make_frame(k, *size) for k in range(6)]
    path = write(tmp_path / "a.mkv", pictures, info_of(*size), codec="ffv1")
    for frame, picture in zip(read_frames(path), pictures, strict=True):
        np.testing.assert_array_equal(frame.image, picture)
    noise = [np.random.default_rng(k).integers(0, 256, (*size[::-1], 4)).astype(np.uint8) for k in range(3)]
    path = write(tmp_path / "b.mkv", noise, info_of(*size, has_alpha=True), codec="ffv1")
    for frame, picture in zip(read_frames(path), noise, strict=True):
        np.testing.assert_array_equal(np.dstack([frame.image, frame.alpha]), picture)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "h264"), ("a.mp4", "h265"), ("a.webm", "vp9"), ("a.mov", "prores")]
)
def test_lossy_video_is_near_and_keeps_its_times(tmp_path: Path, make_frame: MakeFrame, name: str, codec: str) -> None:
    """Frames with gaps between them; the exact times must come back (WebM counts in milliseconds)."""
    ticks = [0, 1, 2, 5, 6, 7, 11, 12]
    times = [t / NTSC for t in ticks]
    pictures = [make_frame(t, 64, 48) for t in ticks]
    path = write(tmp_path / name, pictures, info_of(), times, codec=codec)
    frames = list(read_frames(path))
    assert len(frames) == len(ticks)
    for frame, time, picture in zip(frames, times, pictures, strict=True):
        assert abs(frame.time - time) <= (Fraction(1, 2000) if name.endswith("webm") else 0)
        gap = frame.image.astype(int) - picture
        assert np.abs(gap).mean() < 8 and abs(gap.mean()) < 1
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stamps = [packet.dts for packet in container.demux(stream) if packet.size]
        assert stamps == sorted(set(stamps))
        assert (stream.width, stream.height) == (64, 48)


def test_the_same_frames_give_the_same_bytes(tmp_path: Path, make_frame: MakeFrame) -> None:
    pictures = [make_frame(k, 64, 48) for k in range(8)]
    for codec, suffix in (("h264", "mp4"), ("ffv1", "mkv")):
        a, b = (write(tmp_path / f"{n}.{suffix}", pictures, info_of(), codec=codec).read_bytes() for n in "ab")
        assert a == b


def test_odd_pixels_and_tags_go_along(tmp_path: Path, make_frame: MakeFrame) -> None:
    wide = info_of(sample_aspect=Fraction(4, 3))
    with FrameWriter(tmp_path / "a.mp4", wide, metadata={"comment": "made by a machine", "vitface": "1"}) as writer:
        for k in range(3):
            writer.write(Frame(k, k / NTSC, make_frame(k, 64, 48)))
    assert probe(tmp_path / "a.mp4").sample_aspect == Fraction(4, 3)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.metadata["comment"] == "made by a machine" and container.metadata["vitface"] == "1"


def test_folders_hold_numbered_pictures(tmp_path: Path, make_frame: MakeFrame) -> None:
    pictures = [make_frame(k, 64, 48) for k in range(3)]
    write(tmp_path / "frames", pictures, info_of())
    assert [p.name for p in sorted((tmp_path / "frames").iterdir())] == ["000001.png", "000002.png", "000003.png"]
    for frame, picture in zip(read_frames(tmp_path / "frames"), pictures, strict=True):
        np.testing.assert_array_equal(frame.image, picture)


@pytest.mark.parametrize("name", ["a.mp4", "frames"])
def test_an_error_leaves_nothing_and_keeps_the_old(tmp_path: Path, make_frame: MakeFrame, name: str) -> None:
    path = tmp_path / name
    if name == "a.mp4":
        path.write_bytes(b"old")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyError), FrameWriter(path, info_of()) as writer:
        writer.write(Frame(0, Fraction(0), make_frame(0, 64, 48)))
        raise KeyError
    with pytest.raises(OutputError, match="no frame was written"), FrameWriter(path, info_of()):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_what_does_not_fit_is_refused(tmp_path: Path, make_frame: MakeFrame) -> None:
    with (
        pytest.raises(InputError, match="frame 0 is 32x48 pixels"),
        FrameWriter(tmp_path / "a.mp4", info_of()) as writer,
    ):
        writer.write(Frame(0, Fraction(0), make_frame(0, 32, 48)))
    with pytest.raises(InputError, match="not later"), FrameWriter(tmp_path / "a.mp4", info_of()) as writer:
        for k in range(2):
            writer.write(Frame(k, Fraction(1), make_frame(0, 64, 48)))
    with pytest.raises(OutputError, match="not open"):
        FrameWriter(tmp_path / "a.mp4", info_of()).write(Frame(0, Fraction(0), make_frame(0, 64, 48)))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError), FrameWriter(tmp_path / "file" / "a.mp4", info_of()):
        pass


def test_ticks_divide_every_time() -> None:
    for base in (Fraction(1, 90000), Fraction(1001, 30000), Fraction(3, 7)):
        assert (base / exact_tick(base)).denominator == 1 and exact_tick(base).numerator == 1
    assert exact_tick(Fraction(1, 2**40)) == Fraction(1, 90000)
