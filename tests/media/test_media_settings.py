"""What is asked of encoders, without encoding."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from lib_vitface.errors import InputError, MissingDependencyError
from lib_vitface.media.settings import CONTAINERS, EncodeSettings, plan_encoding, segment_settings
from lib_vitface.types import VideoInfo

INFO = VideoInfo(
    path=Path("a.mp4"),
    width=640,
    height=360,
    fps=Fraction(30),
    frame_count=10,
    duration=Fraction(1, 3),
    rotation_deg=0,
    codec="h264",
    pixel_format="yuv420p",
    bit_depth=8,
    has_alpha=False,
    color_range=1,
    color_space=1,
    color_primaries=1,
    color_transfer=1,
)


@pytest.mark.parametrize(
    ("name", "codec", "muxer", "pixel_format"),
    [
        ("a.mp4", "h264", "mp4", "yuv420p"),
        ("a.MP4", "h264", "mp4", "yuv420p"),
        ("a.mov", "h264", "mov", "yuv420p"),
        ("a.mkv", "h264", "matroska", "yuv420p"),
        ("a.webm", "vp9", "webm", "yuv420p"),
        ("a.gif", "gif", "gif", "pal8"),
        ("folder", "images", "images", "rgb24"),
    ],
)
def test_auto_takes_what_suits_the_suffix(name: str, codec: str, muxer: str, pixel_format: str) -> None:
    plan = plan_encoding(EncodeSettings(), INFO, Path(name))
    assert (plan.codec, plan.muxer, plan.pixel_format, plan.keeps_alpha) == (codec, muxer, pixel_format, False)


@pytest.mark.parametrize(
    ("codec", "name", "pixel_format"),
    [
        ("prores", "a.mov", "yuva444p10le"),
        ("vp9", "a.webm", "yuva420p"),
        ("ffv1", "a.mkv", "bgra"),
        ("h264", "a.mp4", "yuv420p"),
    ],
)
def test_alpha_is_kept_where_the_codec_can(codec: str, name: str, pixel_format: str) -> None:
    plan = plan_encoding(EncodeSettings(codec), replace(INFO, has_alpha=True), Path(name))
    assert plan.pixel_format == pixel_format
    assert plan.keeps_alpha == (codec != "h264")
    assert plan_encoding(EncodeSettings(), replace(INFO, has_alpha=True), Path("a.mov")).codec == "prores"


@pytest.mark.parametrize("size", [(641, 360), (640, 361), (641, 361)])
def test_an_odd_size_is_kept_by_full_chroma(size: tuple[int, int]) -> None:
    odd = replace(INFO, width=size[0], height=size[1])
    assert plan_encoding(EncodeSettings("h264"), odd, Path("a.mp4")).pixel_format == "yuv444p"
    assert plan_encoding(EncodeSettings("h265"), odd, Path("a.mp4")).pixel_format == "yuv444p"
    assert plan_encoding(EncodeSettings("vp9"), odd, Path("a.webm")).pixel_format == "yuv420p"


def test_a_10_bit_source_is_written_in_10_bits_where_that_plays() -> None:
    deep = replace(INFO, bit_depth=10)
    wanted = {"h264": "yuv420p", "h265": "yuv420p10le", "av1": "yuv420p10le"}
    for codec, pixel_format in wanted.items():
        assert plan_encoding(EncodeSettings(codec), deep, Path("a.mp4")).pixel_format == pixel_format


def test_options_follow_quality_and_preset() -> None:
    plan = plan_encoding(EncodeSettings("h264", quality=23, preset="slow"), INFO, Path("a.mp4"))
    assert plan.options["crf"] == "23"
    assert plan.options["preset"] == "slow"
    assert plan_encoding(EncodeSettings("h264"), INFO, Path("a.mp4")).options["crf"] == "16"
    speeds = {p: plan_encoding(EncodeSettings("vp9", preset=p), INFO, Path("a.webm")).options for p in ("fast", "slow")}
    assert speeds["fast"]["cpu-used"] > speeds["slow"]["cpu-used"]
    assert plan_encoding(EncodeSettings("h265"), INFO, Path("a.mp4")).tag == "hvc1"
    assert plan_encoding(EncodeSettings("h265"), INFO, Path("a.mkv")).tag is None
    assert plan_encoding(EncodeSettings("h265", threads=3), INFO, Path("a.mkv")).threads == 3


def test_the_next_library_is_taken_when_the_first_is_missing() -> None:
    plan = plan_encoding(EncodeSettings("av1"), INFO, Path("a.mp4"), available={"libaom-av1"})
    assert plan.encoder == "libaom-av1"
    with pytest.raises(MissingDependencyError, match=r"libx265.*pip install av"):
        plan_encoding(EncodeSettings("h265"), INFO, Path("a.mp4"), available={"libx264"})


@pytest.mark.parametrize(
    ("settings", "name", "words"),
    [
        (EncodeSettings("vp9"), "a.mov", "cannot hold vp9; take h264 or h265 or prores"),
        (EncodeSettings("gif"), "a.mp4", "cannot hold gif"),
        (EncodeSettings("h264"), "folder", "folder output cannot hold h264"),
        (EncodeSettings(), "a.xyz", "'.xyz' cannot be written; end the name with one of .mp4"),
        (EncodeSettings("mpeg2"), "a.mp4", "'mpeg2' is not a known codec"),
        (EncodeSettings("h264", quality=52), "a.mp4", "Quality 52 is outside 0 to 51"),
        (EncodeSettings("vp9", quality=-1), "a.webm", "Quality -1 is outside 0 to 63"),
        (EncodeSettings("ffv1", quality=5), "a.mkv", "ffv1 has no quality"),
        (EncodeSettings(preset="placebo"), "a.mp4", "'placebo' is not a known preset"),
        (EncodeSettings(threads=0), "a.mp4", "0 encoder threads"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: EncodeSettings, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words.replace(".", r"\.")):
        plan_encoding(settings, INFO, Path(name))


def test_segments_hold_the_final_codec_except_for_gif_and_pictures() -> None:
    alpha = replace(INFO, has_alpha=True)
    wanted = [
        ("h264", INFO, "a.mp4", "h264", ".nut"),
        ("vp9", INFO, "a.webm", "vp9", ".nut"),
        ("vp9", alpha, "a.webm", "vp9", ".segment.mkv"),
        ("prores", INFO, "a.mov", "prores", ".segment.mov"),
        ("gif", INFO, "a.gif", "ffv1", ".nut"),
        ("images", alpha, "folder", "ffv1", ".nut"),
    ]
    for codec, info, name, inside, suffix in wanted:
        settings, ending = segment_settings(EncodeSettings(codec), info, Path(name))
        assert (settings.codec, ending) == (inside, suffix), codec
        plan = plan_encoding(settings, info, Path("part" + ending))
        assert plan.codec == inside


def test_every_container_can_be_planned_with_each_of_its_codecs() -> None:
    for suffix, (muxer, codecs) in CONTAINERS.items():
        for codec in codecs:
            plan = plan_encoding(EncodeSettings(codec), INFO, Path("out" + suffix))
            assert (plan.codec, plan.muxer) == (codec, muxer)
