"""Pictures of every common kind come in as what they show and go out as what they were."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pictures
from PIL import ImageCms

from lib_vitface.errors import InputError, OutputError
from lib_vitface.media import images
from lib_vitface.media.images import list_media, natural, read_image, read_picture, write_image


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.dstack([x * 4, y * 6, 255 - x * 2]).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (40, 61)])
def test_pictures_come_back(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    image = gradient(*size)
    path = tmp_path / f"ünï cödé{suffix}"
    write_image(path, image, quality=100)
    back, alpha = read_picture(path)
    assert alpha is None and back.shape == image.shape and back.flags.writeable
    gap = np.abs(back.astype(int) - image).max()
    assert gap <= (3 if suffix == ".jpg" else 0)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # nothing is left beside it


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_opacity_is_kept_and_colours_under_it_too(tmp_path: Path, suffix: str) -> None:
    image, alpha = gradient(), np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1))
    write_image(tmp_path / f"a{suffix}", image, quality=100, alpha=alpha)
    back, seen = read_picture(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(back, image)
    np.testing.assert_array_equal(seen, alpha)
    flat = read_image(tmp_path / f"a{suffix}")
    expected = image * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255)
    assert np.abs(flat - expected).max() <= 0.51
    write_image(tmp_path / "a.jpg", image, alpha=alpha)
    assert read_picture(tmp_path / "a.jpg")[1] is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_xmp_is_found_by_pillow(tmp_path: Path, suffix: str) -> None:
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>\xc3\xbc</x:xmpmeta>"
    write_image(tmp_path / f"a{suffix}", gradient(), xmp=packet)
    with Pictures.open(tmp_path / f"a{suffix}") as picture:
        picture.load()
        found = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp")
    assert (found.encode() if isinstance(found, str) else found) == packet
    assert cv2.imread(str(tmp_path / f"a{suffix}")) is not None
    if suffix == ".jpg":
        with pytest.raises(InputError, match="JPEG holds at most"):
            write_image(tmp_path / "b.jpg", gradient(), xmp=b"x" * 65536)


def test_exif_turns_the_picture_upright(tmp_path: Path) -> None:
    image = gradient()
    for orientation, turn in ((1, 0), (6, -1), (3, 2), (8, 1)):
        picture = Pictures.fromarray(np.ascontiguousarray(np.rot90(image, -turn)))
        exif = picture.getexif()
        exif[0x0112] = orientation
        picture.save(tmp_path / "a.png", exif=exif)
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), image)


def test_grey_palette_and_deep_pictures(tmp_path: Path) -> None:
    grey = gradient()[..., 0]
    Pictures.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.dstack([grey] * 3))
    deep = grey.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.png"), np.dstack([grey] * 3))
    cv2.imwrite(str(tmp_path / "deep.tif"), gradient()[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "deep.tif"), gradient())
    flat = np.zeros((8, 8, 3), np.uint8)
    flat[:, 4:] = (200, 30, 90)
    Pictures.fromarray(flat).convert("P", palette=Pictures.Palette.ADAPTIVE).save(tmp_path / "p.gif")
    np.testing.assert_array_equal(read_image(tmp_path / "p.gif"), flat)
    Pictures.fromarray(gradient()).convert("CMYK").save(tmp_path / "c.jpg", quality=100)
    assert np.abs(read_image(tmp_path / "c.jpg").astype(int) - gradient()).mean() < 3


def test_srgb_itself_and_a_broken_profile_change_nothing(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Pictures.fromarray(gradient()).save(tmp_path / "s.png", icc_profile=srgb)
    np.testing.assert_array_equal(read_image(tmp_path / "s.png"), gradient())
    Pictures.fromarray(gradient()).save(tmp_path / "broken.png", icc_profile=b"no profile")
    np.testing.assert_array_equal(read_image(tmp_path / "broken.png"), gradient())


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\nrubbish", b"just text", None])
def test_what_is_no_picture_is_named(tmp_path: Path, data: bytes | None) -> None:
    path = tmp_path / "x.png"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=r"x\.png"):
        read_image(path)
    cut = tmp_path / "cut.png"
    write_image(cut, np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8))
    cut.write_bytes(cut.read_bytes()[:3000])
    with pytest.raises(InputError, match="damaged"):
        read_image(cut)


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'\.bmp' pictures cannot be written"):
        write_image(tmp_path / "a.bmp", gradient())
    with pytest.raises(InputError, match="outside 1 to 100"):
        write_image(tmp_path / "a.png", gradient(), quality=0)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        write_image(tmp_path / "file" / "a.png", gradient())


def test_lists_are_natural_and_hold_media_only(tmp_path: Path) -> None:
    for name in ("10.png", "2.png", "b/1.MP4", "b/.hidden.png", ".git/x.png", "notes.txt", "odd.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = [p.relative_to(tmp_path).as_posix() for p in list_media([tmp_path, tmp_path / "2.png"])]
    assert found == ["2.png", "10.png", "b/1.MP4"]
    assert list_media([tmp_path / "odd.bin"]) == [tmp_path / "odd.bin"]  # named on purpose
    assert [p.name for p in images.folder_images(tmp_path)] == ["2.png", "10.png"]
    with pytest.raises(InputError, match="no such file"):
        list_media([tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    for ask in (lambda: list_media([tmp_path / "empty"]), lambda: images.folder_images(tmp_path / "empty")):
        with pytest.raises(InputError):
            ask()


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=20), st.text("abc-_ ", max_size=4))
@settings(max_examples=50, deadline=None)
def test_numbers_sort_as_numbers(numbers: list[int], stem: str) -> None:
    names = sorted((f"{stem}{n}.png" for n in numbers), key=natural)
    assert names == [f"{stem}{n}.png" for n in sorted(numbers)]
