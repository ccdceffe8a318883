"""YUV and RGB against the formulas of ITU-T H.273, computed here in double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from lib_vitface.media import EncodeSettings, FrameWriter, color, probe, read_frames
from lib_vitface.media.color import RgbReader, RgbWriter, full_range_yuv, matrix_of, output_tags
from lib_vitface.types import Frame, VideoInfo

WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}  # red, blue (H.273, table 4)
BASE = VideoInfo(
    path=Path("x.mp4"),
    width=96,
    height=64,
    fps=Fraction(25),
    frame_count=1,
    duration=Fraction(1, 25),
    rotation_deg=0,
    codec="h264",
    pixel_format="yuv420p",
    bit_depth=8,
    has_alpha=False,
    color_range=1,
    color_space=1,
    color_primaries=1,
    color_transfer=1,
    time_base=Fraction(1, 25),
)


def picture(seed: int = 0, width: int = 96, height: int = 64) -> np.ndarray:
    """A smooth colourful picture (white noise would only measure chroma subsampling)."""
    coarse = np.random.default_rng(seed).integers(20, 236, (8, 12, 3), dtype=np.uint8)
    return np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)


def yuv(rgb: np.ndarray, code: int, full: bool) -> np.ndarray:
    """Exact YUV `[3, H, W]` on the 8-bit scale."""
    red, blue = WEIGHTS[code]
    r, g, b = (rgb[..., i] / 255.0 for i in range(3))
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    return np.stack([255 * y, 255 * u + 128, 255 * v + 128] if full else [219 * y + 16, 224 * u + 128, 224 * v + 128])


def rgb_of(planes: np.ndarray, code: int, full: bool) -> np.ndarray:
    """Exact RGB `[H, W, 3]` of YUV planes."""
    red, blue = WEIGHTS[code]
    y, u, v = planes.astype(np.float64)
    y, u, v = (
        (y / 255, (u - 128) / 255, (v - 128) / 255) if full else ((y - 16) / 219, (u - 128) / 224, (v - 128) / 224)
    )
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.clip(255 * np.dstack([r, g, b]), 0, 255)


def frame_of(planes: list[np.ndarray], pixel_format: str) -> av.VideoFrame:
    frame = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], pixel_format)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size // values.itemsize), values.dtype)
        rows[:, : values.shape[1]] = values
        plane.update(rows.tobytes())
    return frame


def planes_of(frame: av.VideoFrame) -> list[np.ndarray]:
    return [
        np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in frame.planes
    ]


@pytest.mark.parametrize("code", WEIGHTS)
@pytest.mark.parametrize("full", [False, True])
def test_both_directions_follow_the_tagged_matrix_and_range(code: int, full: bool) -> None:
    image = picture()
    info = replace(BASE, color_space=code, color_range=2 if full else 1)
    (frame,) = RgbWriter(info, "yuv444p", False)(image, None)
    exact = yuv(image, code, full)
    error = np.stack(planes_of(frame)) - exact
    assert np.abs(error).max() < 0.6
    assert np.abs(error.mean((1, 2))).max() < 0.03, "a bias would shift the colours a little at every generation"

    planes = np.rint(exact).astype(np.uint8)
    name, _ = matrix_of(code, 96, 64)
    back, alpha = RgbReader(name, full, 96, 64, alpha=False)(frame_of(list(planes), "yuv444p"))
    assert alpha is None
    assert np.abs(back - rgb_of(planes, code, full)).max() < 0.6


@pytest.mark.parametrize("full", [False, True])
def test_twenty_generations_of_420_do_not_drift(full: bool) -> None:
    """Reading and writing use the same chroma position and rounding, so a frame stays what it is."""
    info = replace(BASE, color_range=2 if full else 1)
    write, read = RgbWriter(info, "yuv420p", False), RgbReader("bt709", full, 96, 64, alpha=False)
    image = first = picture(3)
    for _ in range(20):
        (frame,) = write(image, None)
        image, _ = read(frame)
    assert np.abs(image.mean((0, 1)) - first.mean((0, 1))).max() < 0.5
    assert 10 * np.log10(255**2 / np.mean((image.astype(float) - first) ** 2)) > 36


def test_chroma_sits_on_the_left_pixel_between_two_lines() -> None:
    """A ramp in chroma comes out where H.264 (annex E, chroma sample location type 0) puts it."""
    ramp = np.tile(np.arange(32, dtype=np.uint8) * 4 + 64, (32, 1))
    for axis, wanted in ((1, 0.0), (0, 0.5)):
        blue = ramp if axis == 1 else np.ascontiguousarray(ramp.T)
        frame = frame_of([np.full((64, 64), 128, np.uint8), blue, np.full((32, 32), 128, np.uint8)], "yuv420p")
        image, _ = RgbReader("bt709", False, 64, 64, alpha=False)(frame)
        line = image[32, :, 2] if axis == 1 else image[:, 32, 2]
        chroma = (line / 255 - (128 - 16) / 219) / (2 * (1 - 0.0722)) * 224 + 128
        place = np.arange(64) - (chroma - 64) / 2
        assert abs(place[16:48].mean() - wanted) < 0.03


def test_full_range_product_rounds_to_nearest() -> None:
    image = np.random.default_rng(1).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    for name, code in (("bt709", 1), ("smpte170m", 6)):
        assert np.abs(full_range_yuv(image, name).transpose(2, 0, 1) - yuv(image, code, True)).max() <= 0.5 + 1e-3
    grey = np.full((2, 2, 3), 77, np.uint8)
    assert full_range_yuv(grey, "bt709").tolist() == [[[77, 128, 128]] * 2] * 2


@pytest.mark.parametrize(
    ("tag", "width", "height", "name", "code"),
    [
        (2, 640, 480, "smpte170m", 6),
        (2, 720, 576, "smpte170m", 6),
        (2, 1280, 720, "bt709", 1),
        (2, 1280, 536, "bt709", 1),
        (2, 608, 1080, "bt709", 1),
        (1, 64, 64, "bt709", 1),
        (5, 1920, 1080, "bt470", 5),
        (9, 64, 64, "bt2020", 9),
        (14, 1920, 1080, "bt709", 1),
    ],
)
def test_without_a_tag_the_size_decides(tag: int, width: int, height: int, name: str, code: int) -> None:
    assert matrix_of(tag, width, height) == (name, code)


def test_tags_to_write() -> None:
    assert output_tags(replace(BASE, color_space=9, color_range=2), "yuv420p") == (9, 2)
    assert output_tags(replace(BASE, color_space=2, color_range=0), "yuv420p") == (2, 0)
    assert output_tags(replace(BASE, color_space=0, color_range=2), "yuv420p") == (6, 1), "RGB becomes YUV: say which"
    assert output_tags(replace(BASE, color_space=0, color_range=2, width=1920), "yuv420p") == (1, 1)
    assert output_tags(BASE, "bgr0") == (0, 2)
    assert output_tags(replace(BASE, color_space=14), "yuv420p") == (6, 1), "an unknown matrix is replaced and named"
    assert output_tags(replace(BASE, color_range=2), "yuv422p10le", "prores") == (1, 1), "ProRes has no full range"


@pytest.mark.parametrize("tags", [(1, 1, 1, 1), (2, 6, 6, 6), (1, 9, 9, 16), (0, 2, 2, 2)])
def test_tags_and_colours_survive_a_file(
    tmp_path: Path, make_video: Callable[..., Path], tags: tuple[int, ...]
) -> None:
    """The planes of a tagged file mean what the tags say, and a file written from it says and means the same."""
    space, full = tags[1], tags[0] == 2
    code = 6 if space == 2 else space  # 96x64 without a tag
    image = picture(5)
    planes = np.rint(yuv(image, code, full)).astype(np.uint8)
    path = make_video(
        tmp_path / "in.mp4",
        [frame_of(list(planes), "yuv444p")],
        pixel_format="yuv444p",
        tags=tags,
        options={"qp": "0"},
    )
    info = probe(path)
    assert (info.color_range, info.color_space, info.color_primaries, info.color_transfer) == tags
    (frame,) = read_frames(path)
    assert np.abs(frame.image - rgb_of(planes, code, full)).max() < 0.6

    for name, codec in (("out.mp4", "h264"), ("out.mkv", "h265"), ("out.webm", "vp9"), ("out.mov", "prores")):
        with FrameWriter(
            tmp_path / name, info, EncodeSettings(codec, quality=None if codec == "prores" else 4)
        ) as writer:
            writer.write(frame)
        again = probe(tmp_path / name)
        assert again.color_space == tags[1], name
        if codec != "prores" or int(av.__version__.split(".")[0]) >= 17:  # earlier, no way to tell its encoder
            assert (again.color_primaries, again.color_transfer) == tags[2:], name
        span = 1 if codec == "prores" else tags[0]  # ProRes has no full range
        assert again.color_range == span or (again.color_range in {0, 1} and span in {0, 1}), name
        (back,) = read_frames(tmp_path / name)
        error = np.abs(back.image.astype(float) - image)
        assert error.mean() < 2.5, name
        assert np.abs((back.image.astype(float) - image).mean((0, 1))).max() < 1.2, name


def test_10_bit_is_rounded_to_nearest(tmp_path: Path, make_video: Callable[..., Path]) -> None:
    image = picture(7)
    planes = np.rint(yuv(image, 1, False) * 4).astype(np.uint16)
    frame = frame_of(list(planes), "yuv444p10le")
    path = make_video(
        tmp_path / "ten.mkv",
        [frame],
        codec="ffv1",
        pixel_format="yuv444p10le",
        tags=(1, 1, 1, 1),
        options={"level": "3"},
    )
    info = probe(path)
    assert (info.bit_depth, info.pixel_format) == (10, "yuv444p10le")
    (read,) = read_frames(path)
    assert np.abs(read.image - rgb_of(planes / 4, 1, False)).max() < 0.75


def test_a_frame_of_another_size_or_kind_in_the_stream_is_fitted() -> None:
    read = RgbReader("bt709", False, 96, 64, alpha=False)
    small = picture(2, 48, 32)
    for rgb, kind in ((picture(2), "yuv444p"), (small, "yuv444p"), (picture(2), "yuv444p")):
        image, _ = read(frame_of(list(np.rint(yuv(rgb, 1, False)).astype(np.uint8)), kind))
        assert image.shape == (64, 96, 3)
        assert np.abs(image.astype(float) - picture(2)).mean() < 9


def test_what_is_read_belongs_to_the_reader() -> None:
    """Arrays own their memory: a kept frame is not overwritten when the decoder goes on."""
    read = RgbReader("bt709", False, 96, 64, alpha=False)
    write = RgbWriter(BASE, "yuv420p", False)
    kept = [read(next(iter(write(picture(seed), None))))[0] for seed in range(6)]
    copies = [image.copy() for image in kept]
    for seed in range(6, 30):
        read(next(iter(write(picture(seed), None))))
    assert all(np.array_equal(a, b) for a, b in zip(kept, copies, strict=True))
    assert all(image.flags.owndata and image.flags.writeable and image.flags.c_contiguous for image in kept)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("kind", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p", "nv12", "gray", "yuva420p"])
def test_planes_hold_what_pixels_hold(kind: str, full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = av.VideoFrame.from_ndarray(picture(4, 100, 70), format="rgb24").reformat(format=kind)
    asked, quicker = [], color._planes_are_quicker

    def read() -> np.ndarray:
        return RgbReader("bt709", full, 100, 70, alpha=False)(frame)[0]

    monkeypatch.setattr(color, "_planes_are_quicker", lambda name: asked.append(name) or quicker(name))
    by_planes = read()
    assert asked == [kind] and quicker(kind) and not quicker("rgb24") and not quicker("yuv420p10le")
    monkeypatch.setattr(color, "_planes_are_quicker", lambda name: False)
    assert np.abs(by_planes.astype(int) - read()).max() <= 1  # 0 with FFmpeg 8


def test_alpha_goes_through_with_the_colours() -> None:
    image, alpha = picture(9), np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1))
    for full in (False, True):
        info = replace(BASE, color_range=2 if full else 1, has_alpha=True)
        (frame,) = RgbWriter(info, "yuva444p", True)(image, alpha)
        back, opacity = RgbReader("bt709", full, 96, 64, alpha=True)(frame)
        assert opacity is not None
        assert np.array_equal(opacity, alpha)
        assert np.abs(back.astype(int) - image).max() <= 2


def test_frame_keeps_its_alpha_when_the_picture_is_replaced() -> None:
    frame = Frame(0, Fraction(0), picture(), np.zeros((64, 96), np.uint8))
    assert replace(frame, image=picture(1)).alpha is frame.alpha
