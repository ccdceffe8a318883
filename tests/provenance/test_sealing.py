"""The signed record beside a video whose container can hold no manifest."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from marking import CONSENT

from lib_vitface import media
from lib_vitface.provenance.inspect import inspect
from lib_vitface.provenance.keys import open_keys
from lib_vitface.provenance.publish import Publisher
from lib_vitface.provenance.sealing import Seal, beside, digest, read_beside
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
