"""Consent, declarations and the door a model gets, without any learning."""

from __future__ import annotations

import getpass
import shutil
from pathlib import Path

import numpy as np
import pytest

from lib_vitface import media
from lib_vitface.errors import ConsentError, InputError, NoFaceError
from lib_vitface.options import build
from lib_vitface.provenance import consent as records
from lib_vitface.provenance.keys import open_keys
from lib_vitface.provenance.settings import STATEMENT, ConsentOptions
from lib_vitface.tasks import steps
from lib_vitface.tasks.records import consent
from lib_vitface.types import Host


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of one person and two of another."""
    from small_clone import images

    folder = tmp_path_factory.mktemp("photos")
    for k, image in enumerate([*images("sample_source", 6, every=10), *images("sample_target", 2, every=100)]):
        media.write_image(folder / f"{k}.png", image)
    return folder


def asked(record: Path, **more: object) -> ConsentOptions:
    return build(ConsentOptions, {"record": record, **more})


def test_write_show_revoke(photos: Path, tmp_path: Path) -> None:
    host, path = Host(tmp_path / "space"), tmp_path / "記録.json"
    written = consent(asked(path, action="write", adult=True, who="山田", source=[photos], expires="2999-12-31"), host)
    assert (written["state"], written["who"], written["expires"], written["kind"]) == (
        "valid",
        "山田",
        "2999-12-31",
        "record",
    )
    assert written["statement"] == STATEMENT
    record = records.load_record(path)
    assert [r.id for r in records.kept(host.workspace)] == [record.id] == [written["id"]]
    assert consent(asked(path), host) == written
    revoked = consent(asked(path, action="revoke"), host)
    assert "was revoked" in revoked["state"] and (revoked.pop("deleted"), revoked.pop("left")) == ([], [])
    assert consent(asked(path), host) == revoked
    assert records.kept(host.workspace) == [], "the workspace's copy held the person's reference"
    assert records.names(host.workspace)[record.id[:8]].startswith("山田 (revoked on ")
    assert consent(asked(path), Host(tmp_path / "another"))["state"] == "valid", "it is this workspace that was told"


def test_the_person_seen_most_is_meant_or_the_one_on_the_picture(photos: Path, tmp_path: Path) -> None:
    host = Host(tmp_path / "space")
    consent(asked(tmp_path / "a.json", action="write", adult=True, who="A", source=[photos]), host)
    consent(
        asked(tmp_path / "b.json", action="write", adult=True, who="B", source=[photos], person=photos / "7.png"), host
    )
    consent(asked(tmp_path / "c.json", action="write", adult=True, who="C", source=[photos / "0.png"]), host)
    a, b, c = (np.asarray(records.load_record(tmp_path / f"{n}.json").reference) for n in "abc")
    assert a @ c > 0.8 and b @ c < records.SAME_PERSON
    assert np.linalg.norm(a) == pytest.approx(1, abs=1e-3)


def test_what_cannot_be_written(photos: Path, tmp_path: Path) -> None:
    host, path = Host(tmp_path / "space"), tmp_path / "r.json"
    with pytest.raises(InputError, match="--source"):
        consent(asked(path, action="write", adult=True, who="A"), host)
    with pytest.raises(InputError, match="--who"):
        consent(asked(path, action="write", adult=True, source=[photos]), host)
    media.write_image(tmp_path / "blank.png", np.zeros((200, 200, 3), np.uint8))
    with pytest.raises(NoFaceError, match="blank"):
        consent(asked(path, action="write", adult=True, who="A", source=[tmp_path / "blank.png"]), host)
    with pytest.raises(NoFaceError, match="blank"):
        consent(asked(path, action="write", adult=True, who="A", source=[photos], person=tmp_path / "blank.png"), host)
    with pytest.raises(ConsentError, match="no consent record"):
        consent(asked(path, action="revoke"), host)
    assert not path.exists()


def test_a_declaration_is_signed_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = np.full(128, 128**-0.5, np.float32)
    record = steps.declare(tmp_path, look, "山田")
    assert (record.kind, record.who, record.statement) == ("declaration", "山田", STATEMENT)
    assert records.load_record(tmp_path / "consent" / f"{record.id}.json") == record

    def nobody() -> str:
        raise KeyError("no name for this user id")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert steps.declare(tmp_path, look).who == "the user of this machine"


def test_a_door_only_where_the_record_holds(tmp_path: Path) -> None:
    look = np.full(128, 128**-0.5, np.float32)
    record = steps.declare(tmp_path / "space", look, "A")
    model = tmp_path / "model"
    records.save_record(record, model / records.FILE)
    assert steps.model_record(model, record.id, tmp_path / "space") == record
    with pytest.raises(ConsentError, match="not the one it was trained under"):
        steps.model_record(model, "0" * 32, tmp_path / "space")
    with pytest.raises(ConsentError, match="not the one it was trained under"):
        steps.model_record(model, None, tmp_path / "space")
    records.revoke(record, open_keys(tmp_path / "space"), tmp_path / "space")
    with pytest.raises(ConsentError, match="revoked"):
        steps.model_record(model, record.id, tmp_path / "space")
    shutil.rmtree(model)
    with pytest.raises(ConsentError, match="there is no consent record"):
        steps.model_record(model, record.id, tmp_path / "space")
