"""The packet in files as the WebUI writes them: read back by our reader and by Pillow, pixels untouched."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lib_vitface.hosts.statements import with_statement
from lib_vitface.provenance.manifest import read_statement, statement, xmp_packet

SAID = statement("model", "c" * 32)


def saved(kind: str, mode: str = "RGB", **values: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (33, 47, len(mode)), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, kind, **values)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "mode", "values"),
    [
        ("JPEG", "RGB", {}),
        ("WEBP", "RGB", {}),  # simple, lossy
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGBA", {}),
        ("WEBP", "RGB", {"exif": b"Exif\x00\x00II*\x00\x08\x00\x00\x00\x00\x00"}),  # extended already
    ],
)
def test_the_packet_is_found_and_pixels_stay(tmp_path: Path, kind: str, mode: str, values: dict[str, Any]) -> None:
    before = saved(kind, mode, **values)
    after = with_statement(with_statement(before, b"an older one") if kind == "WEBP" else before, xmp_packet(SAID))
    path = tmp_path / "picture"
    path.write_bytes(after)
    assert read_statement(path) == SAID
    first, second = (Image.open(io.BytesIO(data)) for data in (before, after))
    assert second.mode == first.mode
    assert np.array_equal(np.asarray(first), np.asarray(second))
    assert second.info.get("xmp") == xmp_packet(SAID), "other programs find it, too"
    assert b"an older one" not in after
    assert second.getexif() == first.getexif()


def test_other_files_stay_as_they_are() -> None:
    for data in (saved("PNG"), b"", b"RIFF", b"no picture"):
        assert with_statement(data, b"x") == data
