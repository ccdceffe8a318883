"""Pictures: reading any common kind as RGB, writing PNG, JPEG and WebP with XMP, and listing media files."""

from __future__ import annotations

import io
import logging
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image as Pictures
from PIL import ImageCms, ImageOps, PngImagePlugin, UnidentifiedImageError

from lib_vitface.errors import InputError, MissingDependencyError
from lib_vitface.media.container import beside, check_readable, writing
from lib_vitface.types import Image

log = logging.getLogger("vitface")

IMAGE_SUFFIXES = frozenset(".png .jpg .jpeg .jfif .webp .bmp .tif .tiff .avif .heic .heif .ppm .pgm".split())  # noqa: SIM905
VIDEO_SUFFIXES = frozenset(
    ".mp4 .m4v .mov .mkv .webm .gif .avi .mpg .mpeg .ts .m2ts .mts .flv .ogv .wmv .asf .3gp .mxf .nut".split()  # noqa: SIM905
)
_XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\x00"
_WRITERS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def is_video(path: Path) -> bool:
    """Whether the name ends like a video's (GIF counts as one). The file is not opened."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def is_image(path: Path) -> bool:
    """Whether the name ends like a still picture's. The file is not opened."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def list_media(paths: Iterable[Path]) -> list[Path]:
    """Videos and pictures among files and (recursively) folders, in natural order of names, each once.

    A file that is named is taken even if its suffix is unknown to us; in folders unknown suffixes and hidden files are left
    out. Raises `InputError` for a missing path, a folder that may not be read, or when nothing is found.
    """
    found: dict[Path, None] = {}
    given = [Path(path) for path in paths]
    for path in given:
        check_readable(path)
        for each in _walk(path) if path.is_dir() else [path]:
            found[each] = None
    if not found:
        raise InputError(
            f"{', '.join(map(str, given)) or 'The list'}: no video or picture is there; name another path."
        )
    return list(found)


def _walk(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: the folder may not be read; change its permissions.") from error

    for base, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural)
        for name in sorted(files, key=natural):
            path = Path(base, name)
            if not name.startswith(".") and (is_video(path) or is_image(path)):
                yield path


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts `2` before `10`."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in re.split(r"(\d+)", name) if part
    ]


def folder_images(folder: Path) -> list[Path]:
    """The still pictures directly in a folder, in natural order. Raises `InputError` when there are none."""
    check_readable(folder)
    names = sorted(
        (p for p in folder.iterdir() if is_image(p) and not p.name.startswith(".")), key=lambda p: natural(p.name)
    )
    if not names:
        raise InputError(f"{folder}: the folder holds no pictures; give PNG, JPEG or WebP files, or a video.")
    return names


def read_image(path: Path) -> Image:
    """A picture as RGB uint8 `[H, W, 3]`, upright by its EXIF, in sRGB where it carries a colour profile.

    16-bit pictures are rounded to 8 bits, grey ones spread to three channels, see-through ones laid on white.
    Raises `InputError` for what cannot be read.
    """
    image, alpha = read_picture(path)
    if alpha is None:
        return image
    weight = alpha[..., None].astype(np.float32) / 255
    return np.rint(image * weight + 255 * (1 - weight)).astype(np.uint8)


def read_picture(path: Path) -> tuple[Image, Image | None]:
    """Like `read_image`, but with the opacity uint8 `[H, W]` beside the untouched colours (None where all is opaque)."""
    path = Path(path)
    check_readable(path)
    if path.suffix.lower() in {".heic", ".heif"}:
        _register_heif(path)
    try:
        with Pictures.open(path) as picture:
            picture.load()
            return _arrays(ImageOps.exif_transpose(picture))
    except UnidentifiedImageError:
        return _by_opencv(path), None
    except (OSError, ValueError, SyntaxError, struct.error, Pictures.DecompressionBombError) as error:
        raise InputError(
            f"{path}: the picture is damaged or too large ({error}); save it again as PNG or JPEG."
        ) from None


def _register_heif(path: Path) -> None:
    try:
        import pillow_heif  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise MissingDependencyError(
            f"{path}: HEIC pictures need a package that is not there; pip install pillow-heif, or save it as JPEG."
        ) from None
    pillow_heif.register_heif_opener()


def _by_opencv(path: Path) -> Image:
    """Kinds Pillow does not know (16-bit colour TIFF among them)."""
    data = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if data is None or data.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: it is not a picture that can be read; give a PNG, JPEG or WebP file.")
    if data.dtype == np.uint16:
        data = np.rint(data / 257.0).astype(np.uint8)
    return np.ascontiguousarray(data[..., ::-1])


def _arrays(picture: Any) -> tuple[Image, Image | None]:
    """A loaded Pillow picture of any mode as RGB and opacity."""
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it
        grey = np.rint(np.clip(np.asarray(picture, np.float64), 0, 65535) / 257).astype(np.uint8)
        return np.dstack([grey] * 3), None
    if picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture, np.float64))
        grey = np.clip(np.rint(values * (255 if values.max() <= 1 else 1)), 0, 255).astype(np.uint8)
        return np.dstack([grey] * 3), None
    alpha = None
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        alpha = np.array(picture.getchannel("A"))
        alpha = None if (alpha == 255).all() else alpha
    return np.array(_to_srgb(picture)), alpha


def _to_srgb(picture: Any) -> Any:
    """RGB in sRGB. Phones write wide-gamut photographs; an sRGB profile itself changes nothing."""
    data = picture.info.get("icc_profile")
    if data and picture.mode in {"RGB", "RGBA", "CMYK"}:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
            if "srgb" not in ImageCms.getProfileDescription(profile).lower():
                base = picture.convert("RGB") if picture.mode == "RGBA" else picture
                return ImageCms.profileToProfile(base, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            log.warning("The colour profile of a picture cannot be used (%s); its values are taken as sRGB.", error)
    return picture.convert("RGB")


def write_image(
    path: Path,
    image: Image,
    *,
    quality: int = 95,
    xmp: bytes | None = None,
    alpha: Image | None = None,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Writes RGB uint8 `[H, W, 3]` as PNG, JPEG or WebP by suffix, atomically, with an XMP packet inside if given.

    `quality` 1..100 is for JPEG (4:4:4, no chroma loss from 90 up) and WebP (100: lossless); PNG is always lossless.
    `alpha` uint8 `[H, W]` is kept by PNG and WebP; JPEG has none. `finish` is called with the complete temporary file.
    Raises `InputError` for the suffix or quality,
    `OutputError` when it cannot be written.
    """
    path = Path(path)
    kind = _WRITERS.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"{path}: {path.suffix!r} pictures cannot be written; end the name with .png, .jpg or .webp.")
    if not 1 <= quality <= 100:
        raise InputError(f"Picture quality {quality} is outside 1 to 100.")
    if alpha is not None and kind == "JPEG":
        log.info("%s: JPEG has no alpha; it is left out.", path)
        alpha = None
    data = _encode(np.ascontiguousarray(image if alpha is None else np.dstack([image, alpha])), kind, quality, xmp)
    with beside(path, finish) as temporary, writing(path):
        temporary.write_bytes(data)


def _encode(pixels: Image, kind: str, quality: int, xmp: bytes | None) -> bytes:
    options: dict[str, Any] = {}
    if kind == "PNG":
        options = {"compress_level": 4}
        if xmp is not None:
            options["pnginfo"] = PngImagePlugin.PngInfo()
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8"))
    elif kind == "JPEG":
        options = {"quality": quality, "subsampling": 0 if quality >= 90 else 2}
    else:
        options = {"quality": quality, "lossless": quality == 100, "exact": True}
        options |= {"xmp": xmp} if xmp is not None else {}
    buffer = io.BytesIO()
    Pictures.fromarray(pixels).save(buffer, kind, **options)
    data = buffer.getvalue()
    return _with_app1(data, xmp) if kind == "JPEG" and xmp is not None else data


def _with_app1(jpeg: bytes, xmp: bytes) -> bytes:
    """A JPEG with the XMP packet as its own APP1 segment after the JFIF header (XMP specification part 3, 1.1.3).

    By hand because Pillow takes `xmp=` for JPEG only from 11.0 on.
    """
    body = _XMP_HEADER + xmp
    if len(body) + 2 > 0xFFFF:
        raise InputError(f"The XMP packet has {len(xmp)} bytes; JPEG holds at most {0xFFFF - 2 - len(_XMP_HEADER)}.")
    at = 2 + 2 + int.from_bytes(jpeg[4:6], "big") if jpeg[2:4] == b"\xff\xe0" else 2
    return jpeg[:at] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[at:]
