"""What a file says of itself: an XMP packet with the IPTC digital source type, in every container that is written.

`digitalSourceType` is IPTC's vocabulary (https://cv.iptc.org/newscodes/digitalsourcetype/). Where the packet lies in a file
follows the XMP specification part 3: a `uuid` box in MP4 and MOV, an application extension in GIF; PNG, JPEG and WebP are
written with it by `media`. Matroska and WebM have no place for it, there it is a tag.
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from lib_vitface import __version__
from lib_vitface.errors import InputError

_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
COMPOSITE = _SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_OWN = "https://vitface.example/ns/1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")  # XMP specification part 3, 1.2.7
_GIF_HEAD = b"\x21\xff\x0bXMP DataXMP"
_GIF_TAIL = b"\x01" + bytes(range(255, -1, -1)) + b"\x00"
_PACKET = re.compile(rb"<x:xmpmeta\b.*?</x:xmpmeta>", re.DOTALL)
_LARGEST_PACKET = 1 << 20


@dataclass(frozen=True)
class Statement:
    """What is said: `source_type` a term of IPTC, `tool` name and version, ids of model and consent record.

    Of a video also where the visible label stands (`label_box`: x0, y0, x1, y1 in pixels) or why there is none (`no_label`).
    """

    source_type: str
    tool: str
    model_id: str
    consent_id: str
    label_box: tuple[int, int, int, int] | None = None
    no_label: str = ""

    @property
    def is_synthetic(self) -> bool:
        term = self.source_type.lower()
        return "algorithmicmedia" in term or "compositesynthetic" in term


def statement(model_id: str, consent_id: str) -> Statement:
    """Of a picture or video into which a trained face was put."""
    return Statement(COMPOSITE, f"ViTFace {__version__}", model_id, consent_id)


def xmp_packet(said: Statement) -> bytes:
    """The XMP packet, UTF-8."""
    attributes = {
        "Iptc4xmpExt:DigitalSourceType": said.source_type,
        "xmp:CreatorTool": said.tool,
        "vitface:ModelId": said.model_id,
        "vitface:ConsentId": said.consent_id,
    }
    if said.label_box is not None:
        attributes["vitface:Label"] = " ".join(map(str, said.label_box))
    if said.no_label:
        attributes["vitface:NoLabel"] = said.no_label
    inside = " ".join(f"{name}={quoteattr(value)}" for name, value in attributes.items())
    spaces = f'xmlns:Iptc4xmpExt="{_EXT}" xmlns:xmp="{_XMP}" xmlns:vitface="{_OWN}"'
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">'
        f'<rdf:Description rdf:about="" {spaces} {inside}/>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def container_tags(said: Statement, suffix: str) -> dict[str, str]:
    """Tags for a video container; every player shows the comment."""
    tags = {"comment": f"Synthetic: a face was put in by {said.tool} ({said.source_type.rsplit('/', 1)[1]})."}
    if suffix.lower() in {".mkv", ".webm"}:
        tags["XMP"] = xmp_packet(said).decode()
    return tags


def add_xmp(path: Path, packet: bytes, suffix: str) -> None:
    """Puts the packet into a finished video file of kind `suffix` that `media` cannot give it; other kinds stay as they are."""
    if suffix.lower() in {".mp4", ".m4v", ".mov"}:
        body = _UUID + packet
        with path.open("ab") as file:
            file.write((len(body) + 8).to_bytes(4, "big") + b"uuid" + body)
    elif suffix.lower() == ".gif":
        data = path.read_bytes()
        if not data.endswith(b"\x3b"):
            raise InputError(f"{path}: is no complete GIF.")
        path.write_bytes(data[:-1] + _GIF_HEAD + packet + _GIF_TAIL + b"\x3b")


def read_statement(path: Path) -> Statement | None:
    """The first statement about the digital source in a file, ours or another tool's; None where there is none.

    Raises `InputError` where the file cannot be read. Packets are found by scanning, as XMP is meant to be.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for match in _PACKET.finditer(data):
                packet = match.group()
                if len(packet) <= _LARGEST_PACKET and (said := _parse(packet)) is not None:
                    return said
    except ValueError:  # an empty file cannot be mapped
        return None
    except OSError as error:
        raise InputError(f"{path}: it cannot be read ({error.strerror}).") from None
    return None


def _parse(packet: bytes) -> Statement | None:
    if b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        return None
    try:
        root = ElementTree.fromstring(packet)
    except ElementTree.ParseError:
        return None
    known: dict[str, str] = {}
    for element in root.iter():
        known.update(element.attrib)
        if element.text and element.text.strip():
            known.setdefault(element.tag, element.text.strip())
        resource = element.attrib.get(f"{{{_RDF}}}resource")
        if resource:
            known.setdefault(element.tag, resource)
    source = known.get(f"{{{_EXT}}}DigitalSourceType")
    if source is None:
        return None
    return Statement(
        source,
        known.get(f"{{{_XMP}}}CreatorTool", ""),
        known.get(f"{{{_OWN}}}ModelId", ""),
        known.get(f"{{{_OWN}}}ConsentId", ""),
        _box(known.get(f"{{{_OWN}}}Label", "")),
        known.get(f"{{{_OWN}}}NoLabel", ""),
    )


def _box(text: str) -> tuple[int, int, int, int] | None:
    numbers = text.split()
    if len(numbers) != 4 or not all(n.isascii() and n.isdecimal() and len(n) < 7 for n in numbers):
        return None
    x0, y0, x1, y1 = map(int, numbers)
    return x0, y0, x1, y1
