"""The reader that tells what a file is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from marking import CONSENT

from lib_vitface import media
from lib_vitface.errors import InputError
from lib_vitface.provenance import consent
from lib_vitface.provenance.inspect import inspect, is_marked
from lib_vitface.provenance.keys import open_keys
from lib_vitface.provenance.publish import Publisher
from lib_vitface.provenance.settings import InspectOptions
from lib_vitface.types import Frame


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with one record."""
    folder = tmp_path_factory.mktemp("space")
    record = consent.make_record(open_keys(folder), "山田花子", "yes", np.full(128, 0.1, np.float32))
    consent.keep(record, folder)
    return folder


@pytest.fixture(scope="module")
def record(space: Path) -> consent.ConsentRecord:
    return consent.kept(space)[0]


@pytest.fixture(scope="module")
def door(space: Path, record: consent.ConsentRecord) -> Publisher:
    return Publisher(record.id, "feedc0de", open_keys(space).mark)


@pytest.fixture(scope="module")
def picture(door: Publisher, frames: list[np.ndarray], space: Path) -> Path:
    door.image(space / "picture.png", frames[0])
    return space / "picture.png"


def one(path: Path, space: Path, **more: object) -> dict:  # type: ignore[type-arg]
    found = inspect(InspectOptions([path], **more), space)  # type: ignore[arg-type]
    json.dumps(found, allow_nan=False)
    assert found["synthetic"] == found["files"][0]["synthetic"]
    return found["files"][0]


def test_a_picture_of_ours(picture: Path, record: consent.ConsentRecord, space: Path) -> None:
    said = one(picture, space)
    assert said["synthetic"] and said["consent_of"] == "山田花子" and said["file"] == str(picture)
    assert (said["mark"]["record_id"], said["mark"]["authentic"]) == (record.id[:8], True)
    assert (said["statement"]["consent_id"], said["statement"]["model_id"]) == (record.id, "feedc0de")
    assert is_marked(picture)


def test_the_mark_alone_is_enough(picture: Path, space: Path, tmp_path: Path) -> None:
    """Saved anew by a program that drops metadata."""
    media.write_image(tmp_path / "x.jpg", media.read_image(picture), quality=85)
    said = one(tmp_path / "x.jpg", space)
    assert said["statement"] is None and said["synthetic"] and said["consent_of"] == "山田花子"
    assert is_marked(tmp_path / "x.jpg")


def test_the_statement_alone_is_enough(door: Publisher, frames: list[np.ndarray], space: Path, tmp_path: Path) -> None:
    """Of another tool, or after the pixels were redrawn."""
    media.write_image(tmp_path / "x.png", frames[0], xmp=door.xmp)
    said = one(tmp_path / "x.png", space)
    assert said["synthetic"] and not said["mark"]["present"] and said["consent_of"] == "山田花子"
    assert is_marked(tmp_path / "x.png")


def test_an_unmarked_picture_and_video(frames: list[np.ndarray], clip: Path, space: Path, tmp_path: Path) -> None:
    media.write_image(tmp_path / "x.png", frames[0])
    for path in (tmp_path / "x.png", clip):
        said = one(path, space, frames=6, search=path != clip)
        assert not said["synthetic"] and said["statement"] is None and said["consent_of"] is None
        assert not is_marked(path)


def test_elsewhere_the_mark_is_seen_but_not_whose(picture: Path, tmp_path: Path) -> None:
    said = one(picture, tmp_path / "other")
    assert said["synthetic"] and said["consent_of"] is None and said["mark"]["authentic"] is None
    assert not (tmp_path / "other").exists(), "reading makes no keys"


def test_a_copied_mark_is_not_genuine(
    frames: list[np.ndarray], record: consent.ConsentRecord, space: Path, tmp_path: Path
) -> None:
    Publisher(record.id, "m", b"guessed").image(tmp_path / "x.png", frames[0])
    assert one(tmp_path / "x.png", space)["mark"]["authentic"] is False


@pytest.mark.parametrize("count", [30, 60])
def test_videos_short_and_long(
    door: Publisher, frames: list[np.ndarray], clip: Path, space: Path, tmp_path: Path, count: int
) -> None:
    info = media.probe(clip)
    path = tmp_path / "x.mp4"
    with door.segment(path, info, media.EncodeSettings("h264", 23, "fast")) as sink:
        for k in range(count):
            sink.write(Frame(k, k / info.fps, frames[k % 3]))
    said = one(path, space)
    assert said["mark"]["authentic"] and said["statement"] is None and 20 <= said["mark"]["frames_used"] <= 24
    assert one(path, space, frames=3)["mark"]["frames_used"] == 3
    assert is_marked(path)


def test_a_video_of_one_frame(
    door: Publisher, frames: list[np.ndarray], clip: Path, space: Path, tmp_path: Path
) -> None:
    info = media.probe(clip)
    with door.segment(tmp_path / "x.mp4", info, media.EncodeSettings("h264", 18, "fast")) as sink:
        sink.write(Frame(0, 0 / info.fps, frames[0]))
    assert one(tmp_path / "x.mp4", space)["mark"]["authentic"]


def test_a_folder_is_synthetic_when_all_of_it_is(
    picture: Path, frames: list[np.ndarray], space: Path, tmp_path: Path
) -> None:
    shutil.copy(picture, tmp_path / "a.png")
    ticks = []
    options = InspectOptions([tmp_path], search=False)
    assert inspect(options, space, lambda *a: ticks.append(a[0]))["synthetic"]
    assert ticks[0] == 0 and ticks[-1] == 1
    media.write_image(tmp_path / "b.png", frames[1])
    found = inspect(options, space)
    assert not found["synthetic"] and [f["synthetic"] for f in found["files"]] == [True, False]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.mp4", b"text", "not a video"), ("x.png", b"text", "not a picture|damaged"), ("x.mp4", b"", "zero bytes"),
        ("x", b"text", "not a picture"), ("none.png", None, "no such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(
    space: Path, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        inspect(InspectOptions([path]), space)
    assert name in str(caught.value)
    assert not is_marked(path), "whoever reads it whole says what is wrong"


def test_a_damaged_record_names_nobody(
    picture: Path, space: Path, record: consent.ConsentRecord, tmp_path: Path
) -> None:
    shutil.copytree(space / "keys", tmp_path / "keys")
    (tmp_path / "consent").mkdir()
    (tmp_path / "consent" / f"{record.id}.json").write_text("{")
    said = one(picture, tmp_path)
    assert said["mark"]["authentic"] and said["consent_of"] is None
    assert record.id != CONSENT
