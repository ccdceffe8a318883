"""Single pictures: which options, what is redrawn, and that the mark comes last."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lib_vitface.errors import InputError
from lib_vitface.faces import mesh
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.types import Face, Image, Redraw
from lib_vitface.ui import studio as studios
from lib_vitface.ui.site import Site
from lib_vitface.ui.studio import Studio, picture_items, picture_schema, read_picture_options


def test_only_what_means_something_for_a_picture() -> None:
    names = [item.name for item in picture_items()]
    assert {"model", "face", "opacity", "mask", "erode", "denoise"} <= set(names)
    assert {"weights", "also", "reference", "references", "network_size", "backend"} <= set(names)
    assert not {"input", "output", "codec", "smooth", "fade_frames", "start_s", "chunk_frames", "workers"} & set(names)
    assert len(names) == len(set(names))
    assert list(picture_schema()["properties"]) == names


def test_values_are_split_and_checked() -> None:
    found = read_picture_options({"model": "m", "opacity": "0.5", "denoise": 0.25, "denoise_prompt": "x"})
    assert (found.opacity, found.denoise, found.denoise_prompt) == (0.5, 0.25, "x")
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


class White:
    """Paints all white, and keeps what it was asked for."""

    name = "white"

    def __init__(self) -> None:
        self.asked: list[Redraw] = []

    def __call__(self, asked: Sequence[Redraw]) -> list[Image]:
        self.asked += asked
        return [np.full_like(one.image, 255) for one in asked]


FREE = {"denoise_likeness": 0, "denoise_drift": 100, "denoise_light": 1, "occlusion": False}


def test_a_picture_is_swapped_with_what_a_video_would_be(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further models and clips by their names, and the host's device where the form leaves it open."""
    asked: list[SwapOptions] = []

    def load(options: SwapOptions) -> studios._Loaded:
        asked.append(options)
        return studios._Loaded("", None, Marker())  # type: ignore[arg-type]

    monkeypatch.setattr(studio, "_load", load)
    studio.site = replace(studio.site, device="cuda:1")
    values = {"model": "m", "also": ["n"], "references": "a.mp4\nb.png", "weights": "best", "network_size": "128"}
    for device in ({}, {"device": "auto"}, {"device": "cpu"}):
        studio.swap(np.full((120, 120, 3), 100, np.uint8), {**values, **device})
    found = asked[0]
    assert [path.name for path in (found.model, *found.also)] == ["m", "n"]
    assert {path.parent for path in (found.model, *found.also)} == {studio.site.models.resolve()}
    assert found.references == [studio.site.uploads.resolve() / name for name in ("a.mp4", "b.png")]
    assert (found.weights, found.network_size) == ("best", 128)
    assert [one.device for one in asked] == ["cuda:1", "cuda:1", "cpu"]
    with pytest.raises(InputError, match="outside the folders"):
        studio.swap(np.full((120, 120, 3), 100, np.uint8), {**values, "references": ["/etc/passwd"]})


def test_redrawn_inside_the_face_only_and_marked_last(studio: Studio) -> None:
    image = np.full((120, 120, 3), 100, np.uint8)
    white = White()
    values = {"model": "m", "denoise": 0.3, "denoise_seed": 7, **FREE}
    result = studio.swap(image, values, denoiser=white, words=("a hat", "")).image
    assert [(asked.seed, asked.strength) for asked in white.asked] == [(7, 0.3)]
    assert white.asked[0].prompt.startswith("a hat, ")
    assert result[60, 60].tolist() == [255, 255, 255]
    assert result[119, 119].tolist() == [50, 50, 50]
    assert result[0, 0].tolist() == [1, 2, 3], "the mark is put in last"
    plain = studio.swap(image, {"model": "m"}, denoiser=white).image
    assert plain[60, 60].tolist() == [50, 50, 50]
    assert len(white.asked) == 1, "not redrawn unless asked"
    with pytest.raises(InputError, match="--denoise"):
        studio.swap(image, values)


def test_the_hosts_checkpoint_draws_where_none_is_named(studio: Studio, tmp_path: Path) -> None:
    """In the tab, which has no generation to take one from; a named checkpoint goes before it."""
    white = White()
    studio.site = Site(tmp_path, tmp_path / "out", denoiser=white)
    image, values = np.full((120, 120, 3), 100, np.uint8), {"model": "m", "denoise": 0.3, **FREE}
    assert studio.swap(image, values).image[60, 60].tolist() == [255, 255, 255]
    with pytest.raises(InputError, match="nothing there"):
        studio.swap(image, {**values, "denoise_checkpoint": "nothing there"}, denoiser=white)
    with pytest.raises(InputError, match="outside the folders"):
        studio.swap(image, {**values, "denoise_checkpoint": "/etc/x.safetensors"}, denoiser=white)
    assert len(white.asked) == 1


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
