"""The signed record beside a video whose container can hold no manifest, and in a folder of pictures."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from marking import CONSENT

from lib_vitface import media
from lib_vitface.assets import digest
from lib_vitface.provenance.inspect import inspect
from lib_vitface.provenance.keys import open_keys
from lib_vitface.provenance.publish import Publisher
from lib_vitface.provenance.sealing import FOLDER, Seal, beside, read_beside, read_folder
from lib_vitface.provenance.settings import InspectOptions


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("space")


@pytest.fixture(scope="module", params=[".mkv", ".webm"])
def video(request: pytest.FixtureRequest, clip: Path, space: Path) -> Path:
    keys = open_keys(space)
    door = Publisher(CONSENT, "feedc0de", keys.mark, Seal(keys, None)).labelled(None, "said in the credits")
    info, path = media.probe(clip), space / f"x{request.param}"
    settings = media.EncodeSettings(preset="fast")
    ready, kind = media.segment_settings(settings, info, path)
    with door.segment(space / f"part{kind}", info, ready) as sink:
        for frame in itertools.islice(media.read_frames(clip), 6):
            sink.write(frame)
    door.join([space / f"part{kind}"], path, source=clip, settings=settings, end_s=float(6 / info.fps))
    return path


def test_it_says_what_the_file_is(video: Path, clip: Path, space: Path) -> None:
    said = read_beside(video, open_keys(space).public)
    assert said is not None and (said["state"], said["own_key"]) == ("valid", True)
    assert said["statement"]["consent_id"] == CONSENT and said["statement"]["no_label"] == "said in the credits"
    assert said["made_from"] == {"file": clip.name, "sha256": digest(clip)}
    (seen,) = inspect(InspectOptions([video], search=False, frames=6), space)["files"]
    assert seen["signed_record"] == said and seen["statement"]["no_label"] == "said in the credits"


def test_one_changed_byte_is_detected(video: Path, tmp_path: Path) -> None:
    path = tmp_path / video.name
    data = bytearray(video.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    beside(path).write_bytes(beside(video).read_bytes())
    assert read_beside(path)["state"] == "changed"  # type: ignore[index]
    path.write_bytes(video.read_bytes())
    assert read_beside(path)["state"] == "valid"  # type: ignore[index]
    values = json.loads(beside(path).read_text(encoding="utf-8"))
    values["statement"]["consent_id"] = "f" * 32
    beside(path).write_text(json.dumps(values), encoding="utf-8")
    assert read_beside(path)["state"] == "changed"  # type: ignore[index]
    beside(path).write_text("{", encoding="utf-8")
    assert read_beside(path)["state"] == "damaged"  # type: ignore[index]


def test_another_workspace_signed_it(video: Path, tmp_path: Path) -> None:
    assert read_beside(video)["own_key"] is None  # type: ignore[index]
    assert read_beside(video, open_keys(tmp_path).public)["own_key"] is False  # type: ignore[index]
    assert read_beside(tmp_path / "none.mkv") is None


@pytest.fixture
def pictures(space: Path, frames: list[np.ndarray], tmp_path: Path) -> Path:
    """Three published pictures, one of them deeper, with their record."""
    folder, keys = tmp_path / "pictures", open_keys(space)
    door = Publisher(CONSENT, "feedc0de", keys.mark, Seal(keys, None))
    paths = [folder / name for name in ("a.png", "b.jpg", "deep/c.webp")]
    for path, image in zip(paths, frames, strict=False):
        door.image(path, image)
    door.folder(folder, paths, tmp_path)
    return folder


def test_a_folder_is_told_by_one_record(pictures: Path, space: Path) -> None:
    own = open_keys(space).public
    said = inspect(InspectOptions([pictures.parent], search=False, detector=False), space)
    assert (
        said["synthetic"]
        and [f["statement"]["source_type"].rsplit("/")[-1] for f in said["files"]]
        == ["compositeWithTrainedAlgorithmicMedia"] * 3
    )
    (record,) = said["folders"]
    assert record == read_folder(pictures, own)
    assert (record["state"], record["own_key"], record["files"]) == ("valid", True, 3)
    assert record["changed"] == record["missing"] == record["added"] == []
    assert record["statement"]["consent_id"] == CONSENT and record["made_from"] == {"folder": pictures.parent.name}
    listed = json.loads((pictures / FOLDER).read_text(encoding="utf-8"))["files"]
    assert listed == {
        n: hashlib.sha256((pictures / n).read_bytes()).hexdigest() for n in ("a.png", "b.jpg", "deep/c.webp")
    }


def test_it_names_what_was_changed_taken_and_added(pictures: Path) -> None:
    data = bytearray((pictures / "b.jpg").read_bytes())
    data[-3] ^= 1
    (pictures / "b.jpg").write_bytes(data)
    (pictures / "deep" / "c.webp").rename(pictures / "d.webp")
    (pictures / "notes.txt").write_text("no picture")
    record = read_folder(pictures)
    assert record is not None and (record["state"], record["signed"]) == ("changed", True)
    assert (record["changed"], record["missing"], record["added"]) == (["b.jpg"], ["deep/c.webp"], ["d.webp"])


@pytest.mark.parametrize("other", ["f" * 64, None])
def test_a_record_that_was_edited_counts_for_nothing(pictures: Path, space: Path, other: str | None) -> None:
    """Another hash for a file, or a file struck from the list."""
    values = json.loads((pictures / FOLDER).read_text(encoding="utf-8"))
    if other is None:
        del values["files"]["a.png"]
        (pictures / "a.png").unlink()
    else:
        values["files"]["a.png"] = other
    (pictures / FOLDER).write_text(json.dumps(values), encoding="utf-8")
    record = read_folder(pictures, open_keys(space).public)
    assert record is not None and (record["state"], record["signed"], record["own_key"]) == ("changed", False, None)


@pytest.mark.parametrize(
    "edit",
    [{"files": {"../pictures/a.png": "0"}}, {"files": {"/etc/hostname": "0"}}, {"files": 3}, {"format": "x"}, None],
)
def test_what_is_no_record_is_damaged(pictures: Path, edit: dict[str, object] | None) -> None:
    values = json.loads((pictures / FOLDER).read_text(encoding="utf-8"))
    (pictures / FOLDER).write_text("{" if edit is None else json.dumps(values | edit), encoding="utf-8")
    assert read_folder(pictures)["state"] == "damaged"  # type: ignore[index]
    (pictures / FOLDER).unlink()
    assert read_folder(pictures) is None
