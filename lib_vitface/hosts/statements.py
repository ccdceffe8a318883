"""The statement in picture files that the WebUI has written: it puts XMP into PNG files only."""

from __future__ import annotations

import io
from collections.abc import Iterator

_XMP_FLAG, _ALPHA_FLAG = 0x04, 0x10  # of VP8X


def with_statement(data: bytes, xmp: bytes) -> bytes:
    """A JPEG or WebP file with the packet in it; others stay as they are."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data, xmp)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data, xmp)
    return data


def _jpeg(data: bytes, xmp: bytes) -> bytes:
    """As an application segment right after the start (XMP specification part 3, 1.1.3)."""
    body = b"http://ns.adobe.com/xap/1.0/\x00" + xmp
    return data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


def _webp(data: bytes, xmp: bytes) -> bytes:
    """As the last chunk of an extended file (RFC 9649, 2.7); a simple file becomes an extended one."""
    chunks = [(name, body) for name, body in _chunks(data) if name != b"XMP "]
    if not chunks or chunks[0][0] != b"VP8X":
        chunks.insert(0, (b"VP8X", _extended(data)))
    head = chunks[0][1]
    chunks[0] = b"VP8X", bytes([head[0] | _XMP_FLAG]) + head[1:]
    body = b"WEBP" + b"".join(_chunk(name, part) for name, part in [*chunks, (b"XMP ", xmp)])
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and contents of a RIFF file's chunks."""
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        yield data[at : at + 4], data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2)


def _extended(data: bytes) -> bytes:
    """The header a simple file lacks: flags and the canvas's size."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        flags = _ALPHA_FLAG if picture.mode == "RGBA" else 0
        sides = b"".join((edge - 1).to_bytes(3, "little") for edge in picture.size)
    return bytes([flags, 0, 0, 0]) + sides
