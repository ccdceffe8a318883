"""Single pictures: which options, what is redrawn, and that the mark comes last."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib_vitface.errors import InputError
from lib_vitface.faces import mesh
from lib_vitface.types import Face, Image
from lib_vitface.ui import studio as studios
from lib_vitface.ui.site import Site
from lib_vitface.ui.studio import Studio, denoise_region, picture_items, picture_schema, read_picture_options


def test_only_what_means_something_for_a_picture() -> None:
    names = [item.name for item in picture_items()]
    assert {"model", "face", "opacity", "mask", "erode", "denoise"} <= set(names)
    assert not {"input", "output", "codec", "smooth", "fade_frames", "start_s", "chunk_frames"} & set(names)
    assert len(names) == len(set(names))
    assert list(picture_schema()["properties"]) == names


def test_values_are_split_and_checked() -> None:
    swap, redraw = read_picture_options({"model": "m", "opacity": "0.5", "denoise": 0.25})
    assert swap.opacity == 0.5
    assert redraw.denoise == 0.25
    for bad in ({"model": "m", "codec": "h264"}, {"model": "m", "denoise": 2}, {"model": "m", "opacity": "x"}, {}):
        with pytest.raises(InputError):
            read_picture_options(bad)


def face_at(x: float, y: float, width: float) -> Face:
    flat = mesh.vertices()[:, :3].astype(np.float32)
    flat = (flat - flat.mean(0)) / np.ptp(flat[:, 0]) * width
    flat[:, 1] *= -1
    points = flat + np.float32([x, y, 0])
    box = np.float32([*points.min(0)[:2], *points.max(0)[:2]])
    return Face(box, 1.0, np.zeros((5, 2), np.float32), points, 1.0)


def test_the_region_lies_about_the_face_and_inside_the_picture() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    for x, y in ((150, 100), (20, 30), (290, 190)):
        part, mask = denoise_region(image, face_at(x, y, 80))
        assert image[part].shape[:2] == mask.shape
        assert mask.max() <= 1
        assert mask[0].max() == 0 or part[0].start == 0
    part, mask = denoise_region(image, face_at(150, 100, 80))
    assert mask[100 - part[0].start, 150 - part[1].start] == 1, "the middle of the face is redrawn wholly"


class Marker:
    xmp = b""

    def mark(self, image: Image) -> Image:
        marked = image.copy()
        marked[0, 0] = (1, 2, 3)
        return marked


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    made = Studio(Site(tmp_path, tmp_path / "out"))
    face = face_at(60, 60, 60)
    monkeypatch.setattr(made, "_find", lambda image, options: face)
    monkeypatch.setattr(made, "_load", lambda options: studios._Loaded("", None, Marker()))  # type: ignore[arg-type]
    monkeypatch.setattr(made, "_one", lambda image, face, options, loaded: image // 2)
    return made


def test_redrawn_inside_the_face_only_and_marked_last(studio: Studio) -> None:
    image = np.full((120, 120, 3), 100, np.uint8)
    asked: list[Any] = []

    def denoiser(part: Image, mask: Any, seed: int) -> Image:
        asked.append(seed)
        return np.full_like(part, 255)

    result = studio.swap(image, {"model": "m", "denoise": 0.3, "denoise_seed": 7}, denoiser=denoiser).image
    assert asked == [7]
    assert result[60, 60].tolist() == [255, 255, 255]
    assert result[119, 119].tolist() == [50, 50, 50]
    assert result[0, 0].tolist() == [1, 2, 3], "the mark is put in last"
    plain = studio.swap(image, {"model": "m"}, denoiser=denoiser).image
    assert plain[60, 60].tolist() == [50, 50, 50]
    assert asked == [7], "not redrawn unless asked"
    with pytest.raises(InputError, match="--denoise"):
        studio.swap(image, {"model": "m", "denoise": 0.3})


def test_pictures_that_are_too_large_or_small(studio: Studio) -> None:
    for shape in ((8, 100, 3), (100, 9000, 3), (50, 50), (50, 50, 4)):
        with pytest.raises(InputError, match="pixels"):
            studio.swap(np.zeros(shape, np.uint8), {"model": "m"})


def test_the_host_lock_is_taken_before_the_own_one(
    tmp_path: Path, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The WebUI calls with its lock held, the tabs without: taken in another order the two would wait for each other."""
    host = threading.Lock()

    @contextmanager
    def exclusive() -> Iterator[None]:
        with host:
            yield

    studio.site = Site(tmp_path, tmp_path / "out", exclusive=exclusive)
    image = np.full((120, 120, 3), 9, np.uint8)
    ended = threading.Event()

    def tab() -> None:
        studio.swap(image, {"model": "m"})
        ended.set()

    with host:
        thread = threading.Thread(target=tab, daemon=True)
        thread.start()
        thread.join(0.1)
        studio.swap(image, {"model": "m"}, alone=True)  # the generation goes on although the tab waits
    assert ended.wait(5)
