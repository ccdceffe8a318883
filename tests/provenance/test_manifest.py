"""The statement in a file: written through the door, found again, read from others, never made up."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from marking import CONSENT
from PIL import Image as Pictures

from lib_vitface import __version__, media
from lib_vitface.errors import InputError
from lib_vitface.provenance import manifest
from lib_vitface.provenance.manifest import COMPOSITE, Statement, add_xmp, read_statement, statement, xmp_packet
from lib_vitface.provenance.publish import Publisher

TERMS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
OURS = Statement(COMPOSITE, f"ViTFace {__version__}", "feedc0de", CONSENT)
HEAD = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
TAIL = "</rdf:RDF></x:xmpmeta>"
EXT = 'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'


def packet(inside: str) -> bytes:
    return (HEAD + inside + TAIL).encode()


def said_in(path: Path, data: bytes) -> Statement | None:
    path.write_bytes(b"\x00leading\xff" + data + b"trailing\x00")
    return read_statement(path)


def published_video(publisher: Publisher, path: Path, source: Path, frames: int = 6) -> Path:
    info, settings = media.probe(source), media.EncodeSettings(preset="fast")
    ready, suffix = media.segment_settings(settings, info, path)
    part = path.parent / f"part{suffix}"
    with publisher.segment(part, info, ready) as sink:
        for frame in media.read_frames(source):
            if frame.index < frames:
                sink.write(frame)
    publisher.join([part], path, source=source, settings=settings)
    return path


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_pictures(publisher: Publisher, frames: list[np.ndarray], tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"写真 1{suffix}"
    publisher.image(path, frames[0])
    assert read_statement(path) == OURS and OURS.is_synthetic
    with Pictures.open(path) as picture:  # where other programs look for it
        picture.load()
        found = picture.info.get("xmp") or picture.info.get("XML:com.adobe.xmp")
    assert "compositeWithTrainedAlgorithmicMedia" in (found if isinstance(found, str) else found.decode())


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v", ".mkv", ".webm", ".gif"])
def test_videos(publisher: Publisher, make_video, tmp_path: Path, suffix: str) -> None:  # type: ignore[no-untyped-def]
    source = make_video(tmp_path / "source.mp4", 6, audio="aac")
    path = published_video(publisher, tmp_path / f"動画{suffix}", source)
    assert read_statement(path) == OURS
    assert len(list(media.read_frames(path))) == 6, "still a whole video"


def test_a_folder_of_pictures(publisher: Publisher, make_video, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    source = make_video(tmp_path / "source.mp4", 3)
    folder = published_video(publisher, tmp_path / "pictures", source, 3)
    assert [read_statement(path) for path in sorted(folder.iterdir())] == [OURS] * 3


def test_the_packet_is_xml_and_escapes() -> None:
    said = Statement(COMPOSITE, 'Tool "&<>"', "m<1>", "c&c")
    text = xmp_packet(said).decode()
    ElementTree.fromstring(text[text.index("<x:") : text.rindex("<?")])
    assert manifest._parse(text[text.index("<x:") : text.rindex("<?")].encode()) == said


def test_foreign_packet_as_attribute(tmp_path: Path) -> None:
    value = TERMS + "trainedAlgorithmicMedia"
    said = said_in(tmp_path / "x", packet(f'<rdf:Description {EXT} Iptc4xmpExt:DigitalSourceType="{value}"/>'))
    assert said == Statement(value, "", "", "") and said.is_synthetic


@pytest.mark.parametrize(
    "element", ["<E:DigitalSourceType>{}</E:DigitalSourceType>", '<E:DigitalSourceType rdf:resource="{}"/>']
)
def test_foreign_packet_as_element(tmp_path: Path, element: str) -> None:
    """The same property in the other two spellings of RDF, with another prefix, other properties around, and line breaks."""
    value = TERMS + "algorithmicMedia"
    inside = f"""
      <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">
        <dc:title><rdf:Alt><rdf:li xml:lang="x-default">title</rdf:li></rdf:Alt></dc:title>
      </rdf:Description>
      <rdf:Description rdf:about="" {EXT.replace("Iptc4xmpExt=", "E=")} xmlns:xmp="http://ns.adobe.com/xap/1.0/">
        {element.format(value)}
        <xmp:CreatorTool>Other &amp; Co</xmp:CreatorTool>
      </rdf:Description>"""
    assert said_in(tmp_path / "x", packet(inside)) == Statement(value, "Other & Co", "", "")


@pytest.mark.parametrize(
    ("term", "synthetic"),
    [
        ("trainedAlgorithmicMedia", True), ("compositeWithTrainedAlgorithmicMedia", True), ("algorithmicMedia", True),
        ("compositeSynthetic", True), ("digitalCapture", False), ("negativeFilm", False), ("humanEdits", False),
        ("composite", False), ("computationalCapture", False),
    ],
)  # fmt: skip
def test_which_terms_mean_synthetic(term: str, synthetic: bool) -> None:
    assert Statement(TERMS + term, "", "", "").is_synthetic is synthetic


def test_a_packet_without_the_property_is_passed_over(tmp_path: Path) -> None:
    other = packet('<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="Camera"/>')
    assert said_in(tmp_path / "a", other) is None
    assert said_in(tmp_path / "b", other + b"\x00" * 10 + xmp_packet(OURS)) == OURS


@pytest.mark.parametrize(
    "data",
    [
        b"<x:xmpmeta", b"<x:xmpmeta></x:xmpmeta>", b"<x:xmpmeta><broken></x:xmpmeta>", b"</x:xmpmeta><x:xmpmeta>",
        b"compositeWithTrainedAlgorithmicMedia DigitalSourceType", b"<x:xmpmeta>\xff\xfe</x:xmpmeta>",
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/">{TERMS}trainedAlgorithmicMedia</x:xmpmeta>'.encode(),
    ],
)  # fmt: skip
def test_nothing_is_made_up(tmp_path: Path, data: bytes) -> None:
    assert said_in(tmp_path / "x", data) is None


def test_a_document_type_is_refused(tmp_path: Path) -> None:
    """Entities that grow without end, or read other files."""
    whole = xmp_packet(OURS).decode()
    body = whole[whole.index("<x:xmpmeta") : whole.rindex("<?")]
    evil = body.replace("<rdf:RDF", '<!DOCTYPE r [<!ENTITY a "b">]><rdf:RDF', 1)
    assert said_in(tmp_path / "x", evil.encode()) is None
    bomb = "".join(f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 12))
    bomb = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><!DOCTYPE r [<!ENTITY a0 "ha">{bomb}]>&a11;</x:xmpmeta>'
    assert said_in(tmp_path / "y", bomb.encode()) is None


def test_an_oversized_packet_is_passed_over(tmp_path: Path) -> None:
    big = packet(f'<rdf:Description {EXT} Iptc4xmpExt:DigitalSourceType="{TERMS}algorithmicMedia"/>' + " " * (1 << 20))
    assert said_in(tmp_path / "x", big) is None


def test_empty_missing_and_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert read_statement(tmp_path / "empty") is None
    with pytest.raises(InputError, match="none: it cannot be read"):
        read_statement(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read"):
        read_statement(tmp_path)


def test_unmarked_files_say_nothing(make_video, clip: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert read_statement(clip) is None
    for suffix, pixels in ((".mp4", "yuv420p"), (".mkv", "yuv420p"), (".gif", "rgb8")):
        assert read_statement(make_video(tmp_path / f"v{suffix}", 3, pixel_format=pixels)) is None


def test_a_large_file_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 << 20)
        file.seek(60 << 20)
        file.write(xmp_packet(OURS))
    tracemalloc.start()
    try:
        assert read_statement(path) == OURS
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_boxes_are_well_formed(publisher: Publisher, make_video, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The `uuid` box comes after the others of an MP4, and its length is right."""
    source = make_video(tmp_path / "source.mp4", 4)
    data = published_video(publisher, tmp_path / "o.mp4", source, 4).read_bytes()
    at, kinds = 0, []
    while at < len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        kinds.append(kind)
        assert 8 <= size <= len(data) - at
        at += size
    assert kinds[0] == b"ftyp" and kinds.count(b"uuid") == 1 and kinds[-1] == b"uuid"
    assert kinds.index(b"moov") < kinds.index(b"mdat"), "players can start at once"


def test_a_broken_gif_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gif"
    path.write_bytes(b"GIF89a")
    with pytest.raises(InputError, match="no complete GIF"):
        add_xmp(path, xmp_packet(OURS), ".gif")


def test_statement_and_tags() -> None:
    assert statement("feedc0de", CONSENT) == OURS
    assert "compositeWithTrainedAlgorithmicMedia" in manifest.container_tags(OURS, ".mp4")["comment"]
    assert set(manifest.container_tags(OURS, ".MKV")) == {"comment", "XMP"}
