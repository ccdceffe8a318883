"""Ways round the gates of consent, tried at every door: each is refused in a sentence, and noted in the audit log."""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import json
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from age_model import age_model
from small_clone import TINY, TRAINING, SmallClone, images, run

from lib_vitface import media
from lib_vitface.errors import CheckpointError, ConsentError, InputError
from lib_vitface.faceset.store import Faceset
from lib_vitface.faceset.writer import FacesetWriter
from lib_vitface.models import config as model_config
from lib_vitface.provenance import audit, consent
from lib_vitface.provenance.keys import open_keys
from lib_vitface.tasks import steps
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


def log_deleted(site: Site) -> None:
    """With the note and the log of it deleted, nothing tells of the revocation any more."""
    revoked(site)
    (site.workspace / audit.FILE).unlink()


def log_edited(site: Site, *statements: str) -> None:
    """As somebody would who has the file: without the triggers."""
    with closing(sqlite3.connect(site.workspace / audit.FILE)) as log:
        for name in ("kept", "kept_unchanged"):
            log.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            log.execute(statement)
        log.commit()


def entry_struck(site: Site) -> None:
    """The revocation taken out of the log, which goes on after it."""
    revoked(site)
    audit.note(site.workspace, "swapped")
    log_edited(site, "DELETE FROM entries WHERE body LIKE '%revoked%'")


def entry_cut_off(site: Site) -> None:
    """The revocation taken off the log's end, and others added behind."""
    audit.note(site.workspace, "swapped")
    revoked(site)
    log_edited(site, "DELETE FROM entries WHERE body LIKE '%revoked%'")
    for _ in range(3):
        audit.note(site.workspace, "swapped")


def entry_changed(site: Site) -> None:
    """The revocation is made one of another record."""
    revoked(site)
    record = consent.load_record(site.models / "me" / consent.FILE).id
    log_edited(site, f"UPDATE entries SET body = replace(body, '{record}', '{'0' * 32}')")


@DOORS
@pytest.mark.parametrize("attempt", [log_deleted, entry_struck, entry_cut_off, entry_changed])
def test_an_edited_log(
    site: Site, clone_files: SmallClone, capsys: pytest.CaptureFixture[str], door: Any, attempt: Any
) -> None:
    """Twice: what the refusal itself notes must not mend the log."""
    attempt(site)
    for _ in range(2):
        assert "the audit log was tampered with" in door(site, "me", clone_files, capsys)


def clock_at(monkeypatch: pytest.MonkeyPatch, day: datetime.date) -> None:
    """The machine's clock shows noon of another day."""

    class Day(datetime.date):
        @classmethod
        def today(cls) -> datetime.date:
            return day

    class Time(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return datetime.datetime(day.year, day.month, day.day, 12, tzinfo=tz)

    clock = SimpleNamespace(date=Day, datetime=Time, timedelta=datetime.timedelta, timezone=datetime.timezone)
    monkeypatch.setattr(consent, "datetime", clock)
    monkeypatch.setattr(audit, "datetime", clock)


@DOORS
def test_a_clock_set_back(
    site: Site, clone_files: SmallClone, capsys: pytest.CaptureFixture[str], door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To before the record's last day; the log knows better. And with the log's days set back as well."""
    audit.note(site.workspace, "swapped")
    expired(site)
    clock_at(monkeypatch, datetime.date.today() - datetime.timedelta(days=40))
    assert "the clock is behind the audit log" in door(site, "me", clone_files, capsys)
    log_edited(site, "UPDATE entries SET day = '2000-01-01'")
    assert "the audit log was tampered with" in door(site, "me", clone_files, capsys)


def test_an_exported_model_is_asked_as_any(
    site: Site, clone_files: SmallClone, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exported before, renamed, and its record revoked or taken away."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    export = ("export", "--model", site.models / "me", "--output", site.models / "light")
    code, _, err = run(capsys, site.workspace, *export)
    assert code == 0, err
    revoked(site)
    (site.models / "light").rename(site.models / "portable")
    for door in (command_line, tab, api):
        assert "was revoked" in door(site, "portable", clone_files, capsys)
    (site.models / "portable" / consent.FILE).unlink()
    for door in (command_line, tab, api):
        assert "there is no consent record" in door(site, "portable", clone_files, capsys)
    assert run(capsys, site.workspace, *export[:-1], site.models / "again")[0] == 4


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


def test_strangers_that_are_said_to_look_away(
    site: Site, clone_files: SmallClone, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a face turned far nobody can tell whose it is; that it is turned must be seen, not written."""
    folder = site.facesets
    with Faceset.open(folder / "target") as target:
        strange = [target.image(one) for one in target.records()]
    with FacesetWriter.open(folder / "source") as source:
        for number, one in enumerate(list(source.records())[1:]):
            source.save_crop(one.image, strange[number % len(strange)], 95)
        with source.transaction() as db:
            db.execute("UPDATE faces SET yaw_deg = 80 WHERE id > (SELECT MIN(id) FROM faces WHERE kept = 1)")
        looks = steps.sampled_looks(source)
    assert len(looks) > 3, "the others are looked at all the same"
    code, said, _ = run(capsys, site.workspace, *training(site))
    assert code == 4 and "of its faces show" in said["error"]["message"] and not (site.models / "new").exists()


def test_a_set_of_faces_turned_away_is_nobodys(
    site: Site,
    clone_files: SmallClone,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """At every step, with a limit that no face of the clip is within."""
    record = tmp_path / "r.json"
    write = ("consent", "--action", "write", "--adult", "--who", "Ann", "--source", clone_files.person, "--record")
    assert run(capsys, site.workspace, *write, record)[0] == 0
    monkeypatch.setattr(consent, "MEASURED_YAW_DEG", -1.0)
    build = (
        "faceset",
        "--input",
        clone_files.person,
        "--output",
        site.facesets / "new",
        "--size",
        128,
        "--min-change",
        0,
    )
    code, said, _ = run(capsys, site.workspace, *build, "--consent", record)
    assert code == 4 and "turned too far to tell whose they are" in said["error"]["message"]
    assert not list((site.facesets / "new" / "images").iterdir())
    for attempt, number in ((training(site), 4), ((*write, tmp_path / "s.json"), 3)):
        code, said, _ = run(capsys, site.workspace, *attempt)
        assert code == number and "shows faces only that are turned by more than" in said["error"]["message"]


def others_record_in_the_faceset(site: Site) -> str:
    consent.save_record(other_record(site), site.facesets / "source" / consent.FILE)
    return "shows somebody else than the consent record of Bob"


def edited_record_in_the_faceset(site: Site) -> str:
    path = site.facesets / "source" / consent.FILE
    shutil.copy(site.models / "me" / consent.FILE, path)
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**values, "who": "Somebody who agreed"}), encoding="utf-8")
    return "was changed after it was signed"


def revoked_record_in_the_faceset(site: Site) -> str:
    shutil.copy(site.models / "me" / consent.FILE, site.facesets / "source")
    revoked(site)
    return "was revoked"


@pytest.mark.parametrize(
    "attempt",
    [others_record_in_the_faceset, edited_record_in_the_faceset, revoked_record_in_the_faceset],
)
def test_training_by_a_wrong_record(
    site: Site, clone_files: SmallClone, capsys: pytest.CaptureFixture[str], attempt: Any
) -> None:
    words = attempt(site)
    code, said, _ = run(capsys, site.workspace, *training(site))
    assert code == 4 and words in said["error"]["message"] and not (site.models / "new" / "model.json").exists()
    assert words in audit.entries(site.workspace, "refused")[-1]["reason"]


def test_a_job_of_page_and_api_is_refused_alike(site: Site, clone_files: SmallClone) -> None:
    """Both submit the same job, which runs in a process of its own."""
    words, runner = others_record_in_the_faceset(site), Runner(site)
    names = {"source": "source", "target": "target", "model": "new", "steps": 1, "device": "cpu"}
    job, deadline = runner.submit("train", names), time.monotonic() + 900
    while (job := runner.get(job.id)).state not in {"failed", "done"} and time.monotonic() < deadline:
        time.sleep(0.5)
    assert job.state == "failed" and words in (job.error or "") and not (site.models / "new" / "model.json").exists()
    failure = runner.failure(job)
    assert failure is not None and (failure["kind"], failure["exit_code"]) == ("ConsentError", 4)
    assert words in audit.entries(site.workspace, "refused")[-1]["reason"]


def test_a_photo_is_no_source(site: Site, clone_files: SmallClone, capsys: pytest.CaptureFixture[str]) -> None:
    """A face comes from a model only, and a model from a faceset."""
    photo = site.workspace.parent / "photo.png"
    media.write_image(photo, images("sample_source", 1)[0])
    model = list(training(site))
    model[2] = photo
    assert run(capsys, site.workspace, *model)[0] == 2
    swap = ("swap", "--model", photo, "--input", clone_files.clip, "--output", site.outputs / "x.mp4")
    assert run(capsys, site.workspace, *swap)[0] == 7
    shutil.copy(photo, site.models / "photo.png")
    with pytest.raises(CheckpointError, match=r"photo\.png"):
        Studio(site).swap(images("sample_target", 1)[0], {"model": "photo.png"})
    with pytest.raises(InputError, match="outside the folders"):
        Studio(site).swap(images("sample_target", 1)[0], {"model": str(photo)})
    other = ("--references", clone_files.clip)  # of somebody else, beside a sound model
    model = ("swap", "--model", site.models / "me", "--input", clone_files.clip, "--output", site.outputs / "x.mp4")
    code, said, _ = run(capsys, site.workspace, *model, *other)
    assert code == 4 and "shows somebody else than the consent record" in said["error"]["message"]
    assert not site.outputs.exists() or not list(site.outputs.iterdir())


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


@DOORS
def test_a_face_that_may_be_a_minors_comes_out_of_no_model(
    site: Site, clone_files: SmallClone, capsys: pytest.CaptureFixture[str], door: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The model was made before there was an estimator, and the record says that the person is an adult."""
    age_model(tmp_path / "insightface", monkeypatch, 0.1)
    said = door(site, "me", clone_files, capsys)
    assert said.startswith("The new face: shows somebody who may be a minor (insightface's genderage says ")
    assert audit.entries(site.workspace, "refused")[-1]["reason"] == said


def test_somebody_who_may_be_a_minor_is_not_learned(
    site: Site,
    clone_files: SmallClone,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By record, by faceset with and without a record, by training on a set from before, by clone; --adult does not help."""
    record, output = tmp_path / "r.json", site.facesets / "new"
    write = ("consent", "--action", "write", "--adult", "--who", "Ann", "--source", clone_files.person, "--record")
    assert run(capsys, site.workspace, *write, record)[0] == 0
    age_model(tmp_path / "insightface", monkeypatch, 0.1)
    build = ("faceset", "--input", clone_files.person, "--output", output, "--size", 128, "--min-change", 0)
    clone = ("clone", "--source", clone_files.person, "--target", clone_files.clip, "--output", site.outputs / "x.mp4")
    tries = (
        (*write, tmp_path / "another.json"), build, (*build, "--consent", record), training(site),
        (*clone, "--work", tmp_path / "work", "--steps", 1), (*clone, "--work", tmp_path / "w", "--consent", record),
    )  # fmt: skip
    for attempt in tries:
        code, said, err = run(capsys, site.workspace, *attempt)
        assert code == 4 and "may be a minor" in said["error"]["message"] and "Traceback" not in err, attempt
        assert "may be a minor" in audit.entries(site.workspace, "refused")[-1]["reason"]
        assert not (tmp_path / "another.json").exists() and not (site.models / "new").exists()
        left = [p for d in (output, tmp_path / "work", tmp_path / "w") for p in d.rglob("*.jpg")]
        assert left == [], "no picture of the person is kept"
    age_model(tmp_path / "insightface", monkeypatch, 1.0)
    code, said, err = run(capsys, site.workspace, *build)
    assert code == 0, err
    estimate = said["apparent_age"]
    assert 25.5 <= estimate["years"] <= 100 and estimate["faces"] > 3 and estimate["error_years"] == 7.5


def test_one_of_many_who_may_be_a_minor_is_found(
    site: Site,
    clone_files: SmallClone,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a set of several people each counts by itself: the median of all would hide one."""
    age_model(tmp_path / "insightface", monkeypatch)
    folder = site.facesets / "many"
    build = (
        "faceset", "--input", clone_files.person, clone_files.clip, "--output", folder, "--size", 128, "--keep-strangers",
    )  # fmt: skip
    code, said, err = run(capsys, site.workspace, *build)
    assert code == 0 and said["identities"] > 1, err
    with FacesetWriter.open(folder) as made:
        few = min((list(made.records(ids=list(own))) for own in clusters(made)), key=len)
        for one in few:
            made.save_crop(one.image, np.full_like(made.image(one), 20), 95)
    with pytest.raises(ConsentError, match="may be a minor"):
        steps.adults_only(folder, site.workspace)
    assert not (folder / "images").exists() and not (folder / "faceset.sqlite").exists()


def clusters(faceset: Faceset) -> list[list[int]]:
    """Numbers of the faces of each person."""
    found = faceset.columns("id", "cluster")
    return [[int(k) for k in found["id"][found["cluster"] == one]] for one in np.unique(found["cluster"])]
