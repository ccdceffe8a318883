"""Ways round the gates of consent, tried at every door: each is refused in a sentence, and noted in the audit log."""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_clone import TINY, TRAINING, SmallClone, images, run

from lib_vitface import media
from lib_vitface.errors import ConsentError
from lib_vitface.faceset.store import Faceset
from lib_vitface.faceset.writer import FacesetWriter
from lib_vitface.models import config as model_config
from lib_vitface.provenance import audit, consent
from lib_vitface.provenance.keys import open_keys
from lib_vitface.ui.runner import Runner
from lib_vitface.ui.site import Site
from lib_vitface.ui.studio import Studio

pytestmark = pytest.mark.slow


@pytest.fixture
def site(clone_files: SmallClone, tmp_path: Path) -> Site:
    """A workspace of its own with the keys of the made clone, its model and its facesets."""
    workspace = tmp_path / "workspace"
    (workspace / "keys").mkdir(parents=True)
    shutil.copy(clone_files.workspace / "keys" / "signing.key", workspace / "keys")
    shutil.copytree(clone_files.workspace / "consent", workspace / "consent")
    shutil.copytree(clone_files.model, workspace / "models" / "me")
    for name in ("source", "target"):
        shutil.copytree(getattr(clone_files, name), workspace / "facesets" / name)
    return Site(workspace, tmp_path / "outputs")


def command_line(site: Site, model: str, clone: SmallClone, capsys: pytest.CaptureFixture[str]) -> str:
    output = site.outputs / "x.mp4"
    swap = ("swap", "--model", site.models / model, "--input", clone.clip, "--output", output, "--end-s", 0.3)
    code, said, err = run(capsys, site.workspace, *swap)
    assert code == 4 and "Traceback" not in err and not output.exists(), err
    return str(said["error"]["message"])


def tab(site: Site, model: str, clone: SmallClone, capsys: pytest.CaptureFixture[str]) -> str:
    """The preview of the page, and what the script in txt2img and img2img calls."""
    with pytest.raises(ConsentError) as caught:
        Studio(site).swap(images("sample_target", 1)[0], {"model": model})
    return str(caught.value)


def api(site: Site, model: str, clone: SmallClone, capsys: pytest.CaptureFixture[str]) -> str:
    fastapi = pytest.importorskip("fastapi", reason="fastapi is not installed")
    pytest.importorskip("httpx", reason="httpx is not installed")
    from fastapi.testclient import TestClient

    from lib_vitface.hosts import api as routes

    app = fastapi.FastAPI()
    routes.mount(app, routes.Api(Runner(site), Studio(site)), ())
    from PIL import Image as Pillow

    buffer = io.BytesIO()
    Pillow.fromarray(images("sample_target", 1)[0]).save(buffer, "PNG")
    body = {"image": base64.b64encode(buffer.getvalue()).decode(), "options": {"model": model}}
    answer = TestClient(app).post("/vitface/v1/picture", json=body)
    assert answer.status_code == 403 and answer.json()["kind"] == "ConsentError"
    return str(answer.json()["error"])


DOORS = pytest.mark.parametrize("door", [command_line, tab, api])


def other_record(site: Site, seed: int = 3, **more: Any) -> consent.ConsentRecord:
    """A sound record of somebody who is not in the model."""
    look = np.random.default_rng(seed).normal(size=128)
    return consent.make_record(open_keys(site.workspace), "Bob", "yes", look / np.linalg.norm(look), **more)


def index(site: Site, **changes: Any) -> None:
    """Edits `model.json`."""
    path = site.models / "me" / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def remove(site: Site) -> None:
    (site.models / "me" / consent.FILE).unlink()


def prolong(site: Site) -> None:
    """Another last day in the record."""
    path = site.models / "me" / consent.FILE
    path.write_text(
        json.dumps({**json.loads(path.read_text(encoding="utf-8")), "expires": "2999-12-31"}), encoding="utf-8"
    )


def exchange(site: Site) -> None:
    """The record of somebody else beside the model."""
    consent.save_record(other_record(site), site.models / "me" / consent.FILE)


def exchange_both(site: Site) -> None:
    """And its id in the model's index: only the face that comes out tells."""
    record = other_record(site)
    consent.save_record(record, site.models / "me" / consent.FILE)
    index(site, consent_id=record.id)


def forget(site: Site) -> None:
    """No record in the model's index."""
    index(site, consent_id=None)


def expired(site: Site) -> None:
    """A record that ended yesterday, signed by a workspace's own key."""
    yesterday = (datetime.date.today() - datetime.timedelta(days=1)).isoformat()
    old = consent.load_record(site.models / "me" / consent.FILE)
    body = {k: v for k, v in asdict(replace(old, expires=yesterday)).items() if k not in {"id", "signature"}}
    data = consent._signed_bytes(body)
    identity = hashlib.sha256(data).hexdigest()[:32]
    record = replace(old, expires=yesterday, id=identity, signature=open_keys(site.workspace).sign(data))
    consent.save_record(record, site.models / "me" / consent.FILE)
    index(site, consent_id=record.id)


def revoked(site: Site) -> None:
    """Revoked, and the note of it deleted."""
    record = consent.load_record(site.models / "me" / consent.FILE)
    consent.revoke(record, open_keys(site.workspace), site.workspace)
    consent.revocation(site.workspace, record.id).unlink()


@DOORS
@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (remove, "there is no consent record"), (prolong, "was changed after it was signed"),
        (exchange, "not the one it was trained under"), (forget, "not the one it was trained under"),
        (exchange_both, "neither that of Bob, who agreed, nor that of the footage"), (expired, "ended on"),
        (revoked, "was revoked"),
    ],
)  # fmt: skip
def test_edited_files(
    site: Site, clone_files: SmallClone, capsys: pytest.CaptureFixture[str], door: Any, attempt: Any, words: str
) -> None:
    attempt(site)
    assert words in door(site, "me", clone_files, capsys)
    assert words in audit.entries(site.workspace, "refused")[-1]["reason"]
    assert audit.verify(site.workspace)["sound"]


@DOORS
def test_a_renamed_model(site: Site, clone_files: SmallClone, capsys: pytest.CaptureFixture[str], door: Any) -> None:
    revoked(site)
    (site.models / "me").rename(site.models / "holiday pictures")
    assert "was revoked" in door(site, "holiday pictures", clone_files, capsys)


@pytest.mark.parametrize(("uses", "door"), [("video", tab), ("video", api), ("pictures", command_line)])
def test_what_the_record_does_not_cover(
    site: Site, clone_files: SmallClone, capsys: pytest.CaptureFixture[str], uses: str, door: Any
) -> None:
    old = consent.load_record(site.models / "me" / consent.FILE)
    look = np.asarray(old.reference, np.float32)
    record = consent.make_record(open_keys(site.workspace), "Ann", "yes", look, uses=[uses])
    consent.save_record(record, site.models / "me" / consent.FILE)
    index(site, consent_id=record.id)
    assert f"The consent of Ann covers {uses}, not" in door(site, "me", clone_files, capsys)


def training(site: Site) -> tuple[object, ...]:
    folder = site.facesets
    return (
        "train", "--source", folder / "source", "--target", folder / "target", "--model", site.models / "new", "--steps", 1,
        *TRAINING,
    )  # fmt: skip


def test_pictures_of_somebody_else_put_into_a_faceset(
    site: Site, clone_files: SmallClone, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the old names: the index still tells of the person, the pixels do not."""
    folder = site.facesets
    with Faceset.open(folder / "target") as target:
        strange = [target.image(one) for one in target.records()]
    with FacesetWriter.open(folder / "source") as source:
        for number, one in enumerate(source.records()):
            source.save_crop(one.image, strange[number % len(strange)], 95)
    code, said, _ = run(capsys, site.workspace, *training(site))
    assert code == 4 and "of its faces show" in said["error"]["message"] and not (site.models / "new").exists()
    assert "of its faces show" in audit.entries(site.workspace, "refused")[-1]["reason"]


def test_a_photo_is_no_source(site: Site, clone_files: SmallClone, capsys: pytest.CaptureFixture[str]) -> None:
    """A face comes from a model only, and a model from a faceset."""
    photo = site.workspace / "photo.png"
    media.write_image(photo, images("sample_source", 1)[0])
    model = list(training(site))
    model[2] = photo
    assert run(capsys, site.workspace, *model)[0] == 2
    swap = ("swap", "--model", photo, "--input", clone_files.clip, "--output", site.outputs / "x.mp4")
    assert run(capsys, site.workspace, *swap)[0] == 7


def test_strangers_are_dropped_and_counted(
    site: Site, clone_files: SmallClone, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Clips of two people under one person's record, the other one seen more often."""
    record, output = tmp_path / "r.json", site.facesets / "mixed"
    write = (
        "consent",
        "--action",
        "write",
        "--adult",
        "--record",
        record,
        "--who",
        "Ann",
        "--source",
        clone_files.person,
    )
    assert run(capsys, site.workspace, *write)[0] == 0
    code, said, err = run(
        capsys, site.workspace, "faceset", "--input", clone_files.person, clone_files.clip, "--output", output, "--size", 128,
        "--min-change", 0, "--consent", record,
    )  # fmt: skip
    assert code == 0, err
    dropped = sum(n for why, n in said["dropped"].items() if why in {"stranger", "unlike the consent record's person"})
    assert said["faces"] > 0 and dropped >= 10
    with Faceset.open(output) as made:
        reference = np.asarray(consent.load_record(record).reference, np.float32)
        assert (made.embeddings() @ reference >= consent.SAME_FACE).all()
        assert len(made.embeddings(kept=None)) == said["faces"], "nothing is kept of the others"
    noted = audit.entries(site.workspace, "faceset built")[-1]
    assert noted["record"] == said["consent_record"] and noted["dropped"] == said["dropped"]


def test_revoking_deletes_what_the_person_is_in(
    site: Site,
    clone_files: SmallClone,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From upload to model, also what lies outside the workspace; and not what belongs to others."""
    monkeypatch.setitem(model_config.PRESETS, "cpu", TINY)
    upload = site.uploads / "abc" / "me.mp4"
    upload.parent.mkdir(parents=True)
    shutil.copy(clone_files.person, upload)
    record, outside = tmp_path / "r.json", tmp_path / "elsewhere"
    write = ("consent", "--action", "write", "--adult", "--record", record, "--who", "Ann", "--source", upload)
    assert run(capsys, site.workspace, *write)[0] == 0
    few = ("--size", 128, "--min-change", 0, "--consent", record)
    for folder in (site.facesets / "ann", outside):
        assert run(capsys, site.workspace, "faceset", "--input", upload, "--output", folder, *few)[0] == 0
    train = list(training(site))
    train[2] = site.facesets / "ann"
    code, said, err = run(capsys, site.workspace, *train, "--preview-steps", 1)
    assert code == 0, err
    assert (site.models / "new" / "previews").is_dir()
    before = {p for p in site.workspace.rglob("*") if p.is_file()}
    code, said, _ = run(capsys, site.workspace, "consent", "--action", "revoke", "--record", record)
    assert code == 0 and said["left"] == []
    assert {(one["kind"], Path(one["path"]).name) for one in said["deleted"]} >= {
        ("faceset", "ann"), ("faceset", "elsewhere"), ("model", "new"), ("upload", "me.mp4"),
    }  # fmt: skip
    after = {p for p in site.workspace.rglob("*") if p.is_file()}
    assert not outside.exists() and not upload.exists() and record.exists(), "the record itself is the person's"
    gone = {p.relative_to(site.workspace).parts[:2] for p in before - after}
    assert gone == {("facesets", "ann"), ("models", "new"), ("uploads", "abc"), ("consent", f"{said['id']}.json")}
    assert (site.models / "me").is_dir() and (site.facesets / "source").is_dir()
    for path in (p for p in after if p.suffix == ".json"):
        values = json.loads(path.read_text(encoding="utf-8"))
        assert values.get("id") != said["id"] or "reference" not in values, path
    erased = audit.entries(site.workspace, "erased")[-1]
    assert erased["record"] == said["id"] and len(erased["deleted"]) == len(said["deleted"])
    assert audit.verify(site.workspace)["sound"]
