"""Facesets of other tools, written here byte by byte as those tools write them."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from faceset_maker import noise_image

from lib_vitface.errors import InputError
from lib_vitface.faceset import interop

POINTS = (np.random.default_rng(0).random((68, 2)) * 200).astype(np.float32)


def encoded(suffix: str, seed: int = 0) -> bytes:
    return cv2.imencode(suffix, noise_image(seed, 64))[1].tobytes()


def deepfacelab_jpeg(note: Any, protocol: int = 4, seed: int = 0) -> bytes:
    """A JPEG whose last application segment, before the tables, is APP15 with a pickle, as DFLJPG.dump writes it."""
    jpeg = encoded(".jpg", seed)
    length = struct.unpack(">H", jpeg[4:6])[0]  # APP0 follows SOI
    data = pickle.dumps(note, protocol)
    return jpeg[: 4 + length] + b"\xff\xef" + struct.pack(">H", len(data) + 2) + data + jpeg[4 + length :]


def png_with_text(key: str, text: str, seed: int = 0) -> bytes:
    """A PNG with an uncompressed iTXt chunk before its image data, as faceswap's png_write_meta writes it."""
    png = encoded(".png", seed)
    split = png.find(b"IDAT") - 4
    chunk = key.encode("latin-1") + b"\0\0\0\0\0" + text.encode("utf-8")
    crc = struct.pack(">I", zlib.crc32(chunk, zlib.crc32(b"iTXt")))
    return png[:split] + struct.pack(">I", len(chunk)) + b"iTXt" + chunk + crc + png[split:]


def deepfacelab_note(**changes: Any) -> dict[str, Any]:
    note: dict[str, Any] = {
        "face_type": "whole_face",
        "landmarks": POINTS.tolist(),
        "source_filename": "00042.png",
        "source_rect": [1, 2, 3, 4],
        "source_landmarks": POINTS,
        "image_to_face_mat": np.eye(2, 3),
        "xseg_mask": np.arange(90, dtype=np.uint8).reshape(-1, 1),
    }
    return {**note, **changes}


@pytest.mark.parametrize("protocol", range(6))
def test_deepfacelab_jpeg(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "00042_0.jpg"
    path.write_bytes(deepfacelab_jpeg(deepfacelab_note(), protocol))
    note = interop.read_note(path)
    assert note is not None and (note.tool, note.source) == ("deepfacelab", "00042.png")
    assert note.points68 is not None
    np.testing.assert_array_equal(note.points68, POINTS)
    assert cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), 1).shape == (64, 64, 3)


def test_deepfacelab_mve_png() -> None:
    note = deepfacelab_note(source_landmarks=None, image_to_face_mat=None, xseg_mask={"b64npz": "UEsDB"})
    found = interop.read_note(png_with_text("dflabmve", json.dumps(note)))
    assert found is not None and found.source == "00042.png"
    np.testing.assert_array_equal(found.points68, POINTS)


def test_faceswap_png() -> None:
    header = {
        "alignments": {"x": 1, "w": 2, "y": 3, "h": 4, "landmarks_xy": POINTS.tolist(), "mask": {}},
        "source": {
            "alignments_version": 2.3,
            "face_index": 0,
            "source_filename": "clip_000007.png",
            "source_is_video": True,
        },
    }
    found = interop.read_note(png_with_text("faceswap", str(header)))
    assert found == interop.Note("faceswap", "clip_000007.png", None)


def test_pictures_without_a_note(tmp_path: Path) -> None:
    for name, data in (("a.png", encoded(".png")), ("b.jpg", encoded(".jpg")), ("c.jpg", b"text"), ("d.jpg", b"")):
        (tmp_path / name).write_bytes(data)
        assert interop.read_note(tmp_path / name) is None
    assert interop.read_note(png_with_text("Comment", "{'source': 1}")) is None


class Command:
    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.target,)


def test_a_hostile_jpeg_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    path = tmp_path / "hostile.jpg"
    path.write_bytes(deepfacelab_jpeg(deepfacelab_note(landmarks=Command(tmp_path / "ran"))))
    with pytest.raises(InputError, match=r"hostile\.jpg: its metadata holds a call of (posix|nt)\.mkdir"):
        interop.read_note(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (deepfacelab_jpeg({"face_type": "head"}), "lacks 'landmarks'"),
        (deepfacelab_jpeg([1, 2]), "lacks 'landmarks'"),
        (deepfacelab_jpeg(deepfacelab_note(landmarks=[[1, 2]])), "no 68 landmarks"),
        (deepfacelab_jpeg(deepfacelab_note(landmarks=(POINTS * np.nan).tolist())), "no 68 landmarks"),
        (png_with_text("faceswap", "{'source': __import__('os').getcwd()}"), "damaged"),
        (png_with_text("faceswap", "(" * 5000), "damaged"),
        (png_with_text("dflabmve", "{"), "damaged"),
    ],
)
def test_damaged_notes_are_named(data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=rf"f\.x: .*{words}"):
        interop.read_note(data, "f.x")


def alignments(path: Path, frames: dict[str, list[Any]], version: float = 2.4, protocol: int = 4) -> Path:
    """A faceswap alignments file as its "compressed" serializer writes it."""
    content = {
        name: {
            "faces": [
                {"x": 1, "w": 2, "y": 3, "h": 4, "landmarks_xy": p, "mask": {}, "thumb": np.zeros(9, np.uint8)}
                for p in faces
            ]
        }
        for name, faces in frames.items()
    }
    path.write_bytes(zlib.compress(pickle.dumps({"__meta__": {"version": version}, "__data__": content}, protocol)))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_faceswap_alignments_of_a_video(tmp_path: Path, protocol: int) -> None:
    frames = {"clip_000001.png": [POINTS], "clip_000002.png": [], "clip_000004.png": [(POINTS + 5).tolist(), POINTS]}
    alignments(tmp_path / "clip_alignments.fsa", frames, protocol=protocol)
    found = interop.alignments_of(tmp_path / "clip.mp4")
    assert found is not None
    numbered = found.by_number()
    assert {number: len(faces) for number, faces in numbered.items()} == {0: 1, 1: 0, 3: 2}
    assert found.faces("clip_000002.png") == [] and found.faces("clip_000003.png") is None
    face = numbered[3][0]
    np.testing.assert_allclose(face.points[2], POINTS[30] + 5)
    np.testing.assert_allclose(face.points[0], POINTS[36:42].mean(axis=0) + 5, rtol=1e-5)
    assert face.box[1] < POINTS[:, 1].min() + 5 and face.box[3] == POINTS[:, 1].max() + 5


def test_faceswap_alignments_of_a_folder(tmp_path: Path) -> None:
    alignments(tmp_path / "alignments.fsa", {"a.png": [POINTS]})
    found = interop.alignments_of(tmp_path)
    assert found is not None and len(found.faces("a.png") or []) == 1
    assert interop.alignments_of(tmp_path / "other.mp4") is None


def test_bad_alignments_are_named(tmp_path: Path) -> None:
    path = alignments(tmp_path / "alignments.fsa", {"a.png": [POINTS]})
    whole = path.read_bytes()
    for data, words in (
        (whole[:-20], "cut short"),
        (b"text", "cannot be read"),
        (zlib.compress(pickle.dumps([1])), "holds no faceswap alignments"),
        (zlib.compress(pickle.dumps({"__data__": {"a": {"faces": [Command(tmp_path / "ran")]}}})), "a call of"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"alignments\.fsa.*{words}"):
            interop.read_alignments(path)
    alignments(path, {"a.png": [POINTS[:51]]})
    with pytest.raises(InputError, match=r"a face of a\.png has no 68 landmarks"):
        interop.read_alignments(path)
    assert not (tmp_path / "ran").exists()


def write_pak(path: Path, pictures: list[bytes]) -> None:
    """As PackedFaceset.pack writes it: the last of the offsets is the length of the file, the others count from the data."""
    configs = pickle.dumps(
        [{"filename": f"{i}.jpg", "sample": Command(path.parent / "ran")} for i in range(len(pictures))], 4
    )
    table = 16 + len(configs) + 8 * (len(pictures) + 1)
    offsets = [sum(map(len, pictures[:i])) for i in range(len(pictures))] + [table + sum(map(len, pictures))]
    head = struct.pack("<QQ", 1, len(configs)) + configs + b"".join(struct.pack("<Q", o) for o in offsets)
    path.write_bytes(head + b"".join(pictures))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_deepfacelab_pack(tmp_path: Path, count: int) -> None:
    pictures = [deepfacelab_jpeg(deepfacelab_note(source_filename=f"{i:05d}.png"), seed=i) for i in range(count)]
    write_pak(tmp_path / "faceset.pak", pictures)
    found = list(interop.pack_pictures(tmp_path / "faceset.pak"))
    assert [data for _, data in found] == pictures
    assert [interop.read_note(data).source for _, data in found] == [f"{i:05d}.png" for i in range(count)]  # type: ignore[union-attr]
    assert not (tmp_path / "ran").exists()


def test_damaged_packs_are_named(tmp_path: Path) -> None:
    path = tmp_path / "faceset.pak"
    write_pak(path, [encoded(".jpg")] * 3)
    whole = path.read_bytes()
    for data in (whole[:-5], whole[:40], b"", struct.pack("<QQ", 1, 2**60), struct.pack("<Q", 2) + whole[8:]):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"faceset\.pak is not a whole"):
            list(interop.pack_pictures(path))
    (tmp_path / "faceset.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"faceset\.zip is not a whole zip"):
        list(interop.pack_pictures(tmp_path / "faceset.zip"))


def test_zipped_pack(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "faceset.zip", "w") as archive:
        archive.writestr("config.pak", pickle.dumps(Command(tmp_path / "ran")))
        archive.writestr("00001_0.jpg", deepfacelab_jpeg(deepfacelab_note()))
    ((name, data),) = interop.pack_pictures(tmp_path / "faceset.zip")
    assert name == "00001_0.jpg" and interop.read_note(data) is not None
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "person"),
    [
        ("dev/mp4/id00012/21Uxsk56VDQ/00001.mp4", "id00012"),
        ("id10001/1zcIwhmdeo4/00001/0000425.jpg", "id10001"),
        ("anna/1.png", "anna"),
        ("00000/00017.png", None),
        ("1.png", None),
    ],
)
def test_who_is_in_a_file_by_its_folder(name: str, person: str | None) -> None:
    assert interop.person_of(Path("/data") / name, Path("/data")) == person


def test_folders_say_who_is_who_only_where_there_are_several() -> None:
    root = Path("/data")
    two = [root / "anna/1.png", root / "bert/2.png", root / "3.png"]
    assert list(interop.persons(two, root).values()) == ["anna", "bert", None]
    assert set(interop.persons(two[:1], root).values()) == {None}
    ffhq = [root / f"{i:02d}000/{i:02d}123.png" for i in range(3)]
    assert set(interop.persons(ffhq, root).values()) == {None}
