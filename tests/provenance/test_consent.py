"""Consent records: written and read back, proof against change, expiring, revocable, of one person."""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib_vitface.errors import ConsentError, InputError, OutputError
from lib_vitface.provenance import audit, consent
from lib_vitface.provenance.consent import ConsentRecord, load_record, make_record, save_record
from lib_vitface.provenance.keys import Keys, open_keys

DAY = datetime.timedelta(days=1)
TODAY = datetime.date.today()
TOMORROW = (TODAY + DAY).isoformat()


_OTHER: dict[str, Any] = {
    "kind": "material",
    "expires": "2999-12-31",
    "starts": "2001-01-01",
    "uses": ["video"],
    "adult": False,
    "licence": "CC0",
    "proof": "live",
}
"""Other values that a record could well have."""


def look(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=128)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return open_keys(tmp_path / "space")


@pytest.fixture
def record(keys: Keys) -> ConsentRecord:
    return make_record(keys, "Zoë Müller 山田花子", "I agree. 同意します。", look(1), expires=TOMORROW)


@pytest.fixture
def file(record: ConsentRecord, tmp_path: Path) -> Path:
    path = tmp_path / "同意 record.json"
    save_record(record, path)
    return path


def signed_again(keys: Keys, **changes: Any) -> dict[str, Any]:
    """A record as somebody would forge it who has a key of their own and knows the format."""
    body = {k: v for k, v in asdict(make_record(keys, "a", "b", look(1))).items() if k not in {"id", "signature"}}
    body = {**body, **changes}
    data = json.dumps({"format": consent.FORMAT, "version": 1, **body}, sort_keys=True, ensure_ascii=False).encode()
    ends = {"id": hashlib.sha256(data).hexdigest()[:32], "signature": keys.sign(data)}
    return {"format": consent.FORMAT, "version": 1, **body, **ends}


def test_round_trip(record: ConsentRecord, file: Path, tmp_path: Path) -> None:
    again = load_record(file)
    assert again == record
    assert (again.who, again.kind, again.created) == ("Zoë Müller 山田花子", "record", TODAY.isoformat())
    assert "山田花子" in file.read_text(encoding="utf-8"), "a person can read it"
    consent.check(again, tmp_path / "space")
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".part")] == []


def test_the_id_is_that_of_the_content(keys: Keys) -> None:
    a, b = (make_record(keys, who, "yes", look(1)) for who in ("Ann", "Bob"))
    assert a.id != b.id and a == make_record(keys, "Ann", "yes", look(1))
    assert len(a.id) == 32 and int(a.id, 16) >= 0


@pytest.mark.parametrize(
    "field",
    [
        *("kind", "who", "statement", "created", "expires", "reference", "public_key", "signature", "id"),
        *("starts", "uses", "adult", "licence", "proof"),
    ],
)
def test_a_change_of_any_field_is_noticed(file: Path, field: str) -> None:
    values = json.loads(file.read_text(encoding="utf-8"))
    old = values[field]
    if field == "reference":
        values[field] = [*old[:-1], old[-1] + 1e-6]
    elif field in _OTHER:
        values[field] = _OTHER[field]
    else:
        values[field] = ("1" if old[0] == "0" else "0") + old[1:]
    file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ConsentError, match=r"record\.json: .*changed after it was signed; use an unchanged copy"):
        load_record(file)


@pytest.mark.parametrize("field", ["who", "signature", "reference", "id", "expires"])
def test_a_missing_field_is_noticed(file: Path, field: str) -> None:
    values = json.loads(file.read_text(encoding="utf-8"))
    del values[field]
    file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ConsentError, match=r"record\.json"):
        load_record(file)


def test_a_further_field_is_noticed(file: Path) -> None:
    values = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**values, "more": 1}), encoding="utf-8")
    with pytest.raises(ConsentError, match=r"record\.json"):
        load_record(file)


@pytest.mark.parametrize(
    "changes",
    [
        {"who": 5}, {"public_key": 7}, {"expires": 20300101}, {"expires": None}, {"expires": "20300101"}, {"expires": "never"},
        {"reference": [1, 2]}, {"reference": "abc"}, {"kind": "permission"}, {"uses": ["everything"]}, {"adult": "yes"},
        {"starts": "soon"}, {"reference": [float("nan")] * 128}, {"reference": ["a"] * 128},
    ],
)  # fmt: skip
def test_well_signed_nonsense_is_refused(tmp_path: Path, keys: Keys, changes: dict[str, Any]) -> None:
    """Anybody can sign; what is signed must still be a record."""
    path = tmp_path / "forged.json"
    path.write_text(json.dumps(signed_again(keys)), encoding="utf-8")
    assert load_record(path).who == "a", "the forger's tool is right"
    path.write_text(json.dumps(signed_again(keys, **changes)), encoding="utf-8")
    with pytest.raises(ConsentError, match=r"forged\.json"):
        load_record(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "5", "null", '{"format": "other"}', "\udcff"])
def test_other_files_are_no_record(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConsentError, match=r"x\.json: .*(write one|undamaged copy)"):
        load_record(path)


def test_a_missing_record_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConsentError, match="there is no consent record; write one"):
        load_record(tmp_path / "none.json")
    with pytest.raises(ConsentError, match="cannot be read"):
        load_record(tmp_path)


def test_another_version_is_said(file: Path) -> None:
    values = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**values, "version": 3}), encoding="utf-8")
    with pytest.raises(ConsentError, match="another version; write a new one"):
        load_record(file)


def test_it_ends(record: ConsentRecord, tmp_path: Path) -> None:
    consent.check(replace(record, expires=TODAY.isoformat()), tmp_path)
    consent.check(replace(record, expires=""), tmp_path)
    yesterday = (TODAY - DAY).isoformat()
    with pytest.raises(ConsentError, match=f"山田花子 ended on {yesterday}; ask for a new record"):
        consent.check(replace(record, expires=yesterday), tmp_path)


@pytest.mark.parametrize("text", ["tomorrow", "2030-13-01", "01.02.2030", "2030-1-1"])
def test_a_day_that_is_none_is_refused(keys: Keys, text: str) -> None:
    with pytest.raises(InputError, match="YYYY-MM-DD"):
        make_record(keys, "a", "b", look(1), expires=text)


def test_a_past_day_is_refused(keys: Keys) -> None:
    with pytest.raises(InputError, match="is past"):
        make_record(keys, "a", "b", look(1), expires="2001-01-01")


def test_a_day_in_another_spelling_ends_on_that_day(keys: Keys) -> None:
    """Python 3.11 reads 20300102 as a date too; compared as text with 2030-… it would never end."""
    try:
        record = make_record(keys, "a", "b", look(1), expires="20300102")
    except InputError:
        return
    assert record.expires == "2030-01-02"


@pytest.mark.parametrize(("who", "statement"), [("", "yes"), ("  ", "yes"), ("Ann", " \n")])
def test_name_and_statement_are_needed(keys: Keys, who: str, statement: str) -> None:
    with pytest.raises(InputError, match=r"--who|--statement"):
        make_record(keys, who, statement, look(1))


def test_revoked(record: ConsentRecord, keys: Keys, tmp_path: Path) -> None:
    space = tmp_path / "space"
    consent.revoke(record, keys, space)
    with pytest.raises(ConsentError, match=rf"record {record.id[:8]}\) was revoked"):
        consent.check(record, space)
    consent.check(record, tmp_path / "another workspace")
    noted = json.loads((space / "consent" / f"{record.id}.revoked.json").read_text())
    assert noted["revoked"] == TODAY.isoformat() and noted["signature"]


def test_another_person_is_refused(record: ConsentRecord) -> None:
    consent.check_person(record, look(1), Path("same"))
    assert record.likeness(look(1)) == pytest.approx(1, abs=1e-4)
    assert abs(record.likeness(look(2))) < consent.SAME_PERSON
    with pytest.raises(ConsentError, match=r"other: shows somebody else .* own clips"):
        consent.check_person(record, look(2), Path("other"))
    with pytest.raises(ConsentError):
        consent.check_person(record, np.zeros(128, np.float32), Path("nobody"))


def test_the_workspace_keeps_copies(record: ConsentRecord, keys: Keys, tmp_path: Path) -> None:
    space = tmp_path / "space"
    assert list(consent.kept(space)) == []
    place = consent.keep(record, space)
    assert consent.keep(record, space) == place
    (space / "consent" / "damaged.json").write_text("{")
    assert list(consent.kept(space)) == [record]
    consent.revoke(record, keys, space)
    assert list(consent.kept(space)) == [] and not place.exists()


def test_a_place_that_cannot_be_written(record: ConsentRecord, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match=r"r\.json: it cannot be written .*; choose another place"):
        save_record(record, tmp_path / "file" / "r.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(OutputError, match=r"folder\.json"):
        save_record(record, tmp_path / "folder.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.json", "space"]


def test_a_record_of_version_1_is_still_read(tmp_path: Path, keys: Keys) -> None:
    """As it was signed then: without uses, start, age and proof; and written as it came."""
    old = ("kind", "who", "statement", "created", "expires", "reference", "public_key")
    body = {k: v for k, v in asdict(make_record(keys, "a", "b", look(1))).items() if k in old}
    data = json.dumps({"format": consent.FORMAT, "version": 1, **body}, sort_keys=True, ensure_ascii=False).encode()
    values = {
        "format": consent.FORMAT,
        "version": 1,
        "id": hashlib.sha256(data).hexdigest()[:32],
        **body,
        "signature": keys.sign(data),
    }
    path = tmp_path / "old.json"
    path.write_text(json.dumps(values), encoding="utf-8")
    record = load_record(path)
    assert (record.version, record.uses, record.adult) == (1, consent.USES, False)
    save_record(record, tmp_path / "copy.json")
    assert load_record(tmp_path / "copy.json") == record
    path.write_text(json.dumps({**values, "uses": ["video"]}), encoding="utf-8")
    with pytest.raises(ConsentError, match="fields are those of another version"):
        load_record(path)
    path.write_text(json.dumps({**values, "version": 2}), encoding="utf-8")
    with pytest.raises(ConsentError, match="fields are those of another version"):
        load_record(path)


def test_it_begins(record: ConsentRecord, keys: Keys, tmp_path: Path) -> None:
    consent.check(replace(record, starts=TODAY.isoformat()), tmp_path)
    with pytest.raises(ConsentError, match=f"begins on {TOMORROW}; wait until then"):
        consent.check(replace(record, starts=TOMORROW), tmp_path)
    with pytest.raises(InputError, match=r"--expires: .* before it begins"):
        make_record(keys, "a", "b", look(1), starts="2999-01-02", expires="2999-01-01")


def test_it_covers_what_it_says(keys: Keys) -> None:
    record = make_record(keys, "Ann", "yes", look(1), uses=["video"])
    consent.check_use(record, "video")
    with pytest.raises(ConsentError, match="The consent of Ann covers video, not pictures; ask for a record that does"):
        consent.check_use(record, "pictures")
    with pytest.raises(InputError, match="--uses: name what may be made"):
        make_record(keys, "Ann", "yes", look(1), uses=[])


def test_no_record_of_minors_and_no_material_without_licence(keys: Keys) -> None:
    with pytest.raises(InputError, match="--adult: say that the person is 18 or older"):
        make_record(keys, "Ann", "yes", look(1), adult=False)
    with pytest.raises(InputError, match="--licence: name the licence"):
        make_record(keys, "Ann", "yes", look(1), kind="material")
    assert make_record(keys, "Ann", "yes", look(1), kind="material", licence="CC0 1.0, archive.example").licence


def test_a_clock_that_was_set_back_is_not_believed(
    record: ConsentRecord, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = tmp_path / "space"
    audit.note(space, "swapped", record=record.id)
    gone = replace(record, expires=(TODAY - DAY).isoformat())
    real = datetime.date

    class Back(datetime.date):
        @classmethod
        def today(cls) -> datetime.date:
            return real(2020, 1, 1)

    monkeypatch.setattr(datetime, "date", Back)
    consent.check(replace(record, expires=real.today().isoformat()), space)
    with pytest.raises(ConsentError, match=r"ended on .*, and the clock is behind the audit log, which goes to"):
        consent.check(gone, space)


def test_a_note_of_revocation_that_is_deleted_brings_nothing_back(
    record: ConsentRecord, keys: Keys, tmp_path: Path
) -> None:
    space = tmp_path / "space"
    consent.keep(record, space)
    consent.revoke(record, keys, space)
    assert consent.kept(space) == []
    consent.revocation(space, record.id).unlink()
    with pytest.raises(ConsentError, match="was revoked"):
        consent.check(record, space)


@pytest.mark.parametrize(("own", "strange", "good"), [(10, 0, True), (9, 1, True), (7, 3, False), (0, 10, False)])
def test_too_few_faces_of_the_person(keys: Keys, tmp_path: Path, own: int, strange: int, good: bool) -> None:
    record = make_record(keys, "Ann", "yes", look(1))
    looks = np.stack([look(1)] * own + [look(2)] * strange)
    if good:
        consent.check_share(record, looks, tmp_path)
    else:
        with pytest.raises(ConsentError, match=f"only {own * 10}% of its faces show Ann.*needed 80%"):
            consent.check_share(record, looks, tmp_path)
