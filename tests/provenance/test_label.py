"""The visible label: readable on anything, in a corner without faces, on every frame of a video and not before the door."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from lib_vitface import media
from lib_vitface.provenance.label import CORNERS, place
from lib_vitface.provenance.publish import Publisher

SIZES = [(360, 640), (1080, 1920), (1920, 1080), (512, 512), (120, 160), (48, 64)]


def luminance(grey: float) -> float:
    """Relative luminance of sRGB grey (WCAG 2.1)."""
    value = grey / 255
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("corner", CORNERS)
def test_it_lies_inside_and_is_small(size: tuple[int, int], corner: str) -> None:
    height, width = size
    blocks = [box_of(size, other) for other in CORNERS if other != corner]
    label = place(size, blocks)
    assert label.corner == corner
    x0, y0, x1, y1 = label.box
    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    assert (x1 - x0) / width <= 0.45 and (y1 - y0) / height <= 0.2
    assert ((x0 + x1) / 2 < width / 2) == corner.endswith("left")
    assert ((y0 + y1) / 2 < height / 2) == corner.startswith("top")
    image = np.full((height, width, 3), 128, np.uint8)
    drawn = label.draw(image)
    changed = (drawn != image).any(axis=2)
    assert changed[y0:y1, x0:x1].mean() > 0.9
    changed[y0:y1, x0:x1] = False
    assert not changed.any(), "nothing else is touched"


def box_of(size: tuple[int, int], corner: str) -> np.ndarray:
    """A face in a corner."""
    height, width = size
    side = min(size) / 6
    x = 0 if corner.endswith("left") else width - side
    y = 0 if corner.startswith("top") else height - side
    return np.array([x, y, x + side, y + side], np.float32)


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_it_can_be_read_on_anything(grey: int) -> None:
    label = place((360, 640))
    drawn = label.draw(np.full((360, 640, 3), grey, np.uint8))[label.box[1] : label.box[3], label.box[0] : label.box[2]]
    bright, dark = luminance(float(drawn.max())), luminance(float(np.median(drawn)))
    assert (bright + 0.05) / (dark + 0.05) >= 4.5
    assert label.box[3] - label.box[1] >= 14


def test_it_keeps_off_faces_over_the_whole_video() -> None:
    size = (360, 640)
    assert place(size).corner == "bottom left", "without faces"
    often = [np.array([0, 200, 200, 360], np.float32)] * 50
    now_and_then = [np.array([440, 200, 640, 360], np.float32)] * 3
    assert place(size, often).corner == "bottom right"
    assert place(size, [*often, *now_and_then]).corner == "top left"
    everywhere = [np.array([0, 0, 640, 360], np.float32)]
    assert place(size, everywhere).corner == "bottom left", "a close-up: there is no better place"


def test_every_frame_of_a_segment_has_it(publisher: Publisher, clip: Path, tmp_path: Path) -> None:
    """Also those without a face; and the mark is over it, not under it."""
    info = media.probe(clip)
    label = place((info.height, info.width))
    labelled = publisher.labelled(label)
    assert labelled.said.label_box == label.box and publisher.said.label_box is None, "the first door stays as it was"
    frames = list(itertools.islice(media.read_frames(clip), 5))
    with labelled.segment(tmp_path / "p.mkv", info, media.EncodeSettings("ffv1")) as sink:
        for frame in frames:
            sink.write(frame)
    for before, after in zip(frames, media.read_frames(tmp_path / "p.mkv"), strict=True):
        gap = np.abs(after.image.astype(int) - label.draw(before.image))
        assert gap.max() <= 16 and 0.3 < np.sqrt((gap**2).mean()) < 1.5, "label and mark, and nothing else"


def test_the_same_each_time() -> None:
    label = place((100, 100), [])
    image = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    assert np.array_equal(label.draw(image), label.draw(image.copy()))
