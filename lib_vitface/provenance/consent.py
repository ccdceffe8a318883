"""Consent records: whose face it is, what was agreed to, until when, what the face looks like; signed, and revocable.

A record is one JSON file. Its id is the hash of what it says, its signature an Ed25519 one of the workspace it was made in. The
workspace keeps a copy of every record and revocation in `consent/`; a model folder carries its record along.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib_vitface.errors import ConsentError, InputError
from lib_vitface.provenance import audit
from lib_vitface.provenance.keys import Keys, is_signed
from lib_vitface.types import Floats

FORMAT = "vitface-consent"
VERSION = 2
FILE = "consent.json"
_DIMENSIONS = 128
SAME_PERSON = 0.363
"""Least cosine of SFace embeddings (a face set's mean against a record's reference) that counts as the same person."""
SAME_FACE = 0.3
"""Least cosine of one face to a record's reference."""
LEAST_SHARE = 0.8
"""Least share of a face set's faces that must be so alike."""
MEASURED_YAW_DEG = 30.0
"""Yaw up to which these thresholds were measured (the footage goes to 28; docs/consent.md has the table). Of a face that is turned
further they cannot tell whose it is: it counts neither as the person's nor as a stranger's."""


KINDS = ("record", "declaration", "material")
USES = ("video", "pictures")


@dataclass(frozen=True)
class ConsentRecord:
    """`kind` is "record" (made by the consent task), "declaration" (made by a task that was given no record), or "material"
    (footage whose licence allows it; `licence` names that).

    `reference` is the unit mean SFace embedding [128] of the person; `created`, `starts` and `expires` are ISO dates, the last two
    empty where there is no such limit. `uses` says what may be made. `adult`: it was stated that the person is one. `proof` says
    what the reference was taken from ("clips", or "live" with what was asked for). `public_key` and `signature` are hex.
    Version 1, before there were uses, start and proof, is still read.
    """

    id: str
    kind: str
    who: str
    statement: str
    created: str
    expires: str
    reference: tuple[float, ...]
    public_key: str
    signature: str
    starts: str = ""
    uses: tuple[str, ...] = USES
    adult: bool = False
    licence: str = ""
    proof: str = ""
    version: int = VERSION

    def likeness(self, embedding: Floats) -> float:
        """Cosine -1..1 of an embedding to the reference."""
        reference = np.asarray(self.reference, np.float32)
        length = float(np.linalg.norm(reference) * np.linalg.norm(embedding))
        return float(reference @ embedding) / max(length, 1e-12)


_SINCE_2 = {"starts", "uses", "adult", "licence", "proof"}


def make_record(
    keys: Keys,
    who: str,
    statement: str,
    reference: Floats,
    *,
    expires: str = "",
    kind: str = "record",
    starts: str = "",
    uses: Sequence[str] = USES,
    adult: bool = True,
    licence: str = "",
    proof: str = "clips",
) -> ConsentRecord:
    """A signed record of today. Raises `InputError` for an empty name or statement, a date that is none or past, no use, a person
    who is not said to be an adult, or material without a licence."""
    check_words(who, statement, adult=adult, uses=uses, kind=kind, licence=licence)
    expires, starts = check_days(expires, starts)
    today = datetime.date.today().isoformat()
    values = tuple(round(float(v), 6) for v in reference)
    body = {
        "kind": kind, "who": who.strip(), "statement": statement.strip(), "created": today, "expires": expires,
        "reference": values, "public_key": keys.public, "starts": starts, "uses": tuple(u for u in USES if u in uses),
        "adult": adult, "licence": licence.strip(), "proof": proof, "version": VERSION,
    }  # fmt: skip
    data = _signed_bytes(body)
    return ConsentRecord(hashlib.sha256(data).hexdigest()[:32], **body, signature=keys.sign(data))  # type: ignore[arg-type]


def check_words(who: str, statement: str, *, adult: bool, uses: Sequence[str], kind: str, licence: str) -> None:
    """Raises `InputError` as `make_record` does, before there is a reference."""
    if not who.strip():
        raise InputError("--who: name the person whose face it is.")
    if not statement.strip():
        raise InputError("--statement: say what the person agrees to.")
    if not adult:
        raise InputError("--adult: say that the person is 18 or older; there are no records of minors.")
    if not uses:
        raise InputError(f"--uses: name what may be made; one or more of {', '.join(USES)}.")
    if kind == "material" and not licence.strip():
        raise InputError("--licence: name the licence that allows it, and where it is stated.")


def check_days(expires: str, starts: str) -> tuple[str, str]:
    """Both as ISO dates, empty where there is none. Raises `InputError` as `make_record` does."""
    today = datetime.date.today().isoformat()
    expires, starts = (
        _day(text, flag) if text else "" for text, flag in ((expires, "--expires"), (starts, "--starts"))
    )
    if expires and expires < max(today, starts):
        raise InputError(f"--expires: {expires} is past, or before it begins; give a later day or none.")
    return expires, starts


def _day(text: str, flag: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise InputError(f"{flag}: {text!r} is not a day; write it as YYYY-MM-DD.") from None


def _signed_bytes(body: dict[str, Any]) -> bytes:
    return json.dumps({"format": FORMAT, **body}, sort_keys=True, ensure_ascii=False).encode()


def _body(record: ConsentRecord) -> dict[str, Any]:
    """What of a record stands in its file, in the words of its own version."""
    return {k: v for k, v in asdict(record).items() if record.version > 1 or k not in _SINCE_2}


def save_record(record: ConsentRecord, path: Path) -> None:
    """Writes the record, whole or not at all. Raises `OutputError`."""
    _save(path, {"format": FORMAT, **_body(record)})


def _save(path: Path, values: dict[str, Any]) -> None:
    from lib_vitface.media.container import beside, writing  # late: with it comes PyAV

    with beside(path) as temporary, writing(path):
        temporary.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def load_record(path: Path) -> ConsentRecord:
    """A record whose signature and id are right. Raises `ConsentError` where it is missing, damaged or was changed."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ConsentError(f"{path}: is no consent record; write one with `consent --action write`.")
        if values.get("version") not in (1, VERSION):
            raise ConsentError(f"{path}: is a consent record of another version; write a new one with this version.")
        record = _record_of(values)
    except FileNotFoundError:
        raise ConsentError(f"{path}: there is no consent record; write one with `consent --action write`.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConsentError(f"{path}: the consent record cannot be read ({error}); use an undamaged copy.") from None
    body = {k: v for k, v in _body(record).items() if k not in {"id", "signature"}}
    data = _signed_bytes(body)
    if record.id != hashlib.sha256(data).hexdigest()[:32] or not is_signed(record.public_key, data, record.signature):
        raise ConsentError(f"{path}: the consent record was changed after it was signed; use an unchanged copy.")
    return record


def _record_of(values: dict[str, Any]) -> ConsentRecord:
    """Raises ValueError, KeyError or TypeError for values that are none of a record, however well they may be signed."""
    numbers = tuple(values["reference"])
    if len(numbers) != _DIMENSIONS or not all(isinstance(v, float) and math.isfinite(v) for v in numbers):
        raise ValueError("its reference is no embedding")
    if (values["version"] == 1) != (not _SINCE_2 & set(values)):
        raise ValueError("its fields are those of another version")
    record = ConsentRecord(**{**values, "reference": numbers, "uses": tuple(values.get("uses", USES))})
    others = {"reference", "uses", "adult", "version"}
    if not all(isinstance(v, str) for k, v in asdict(record).items() if k not in others):
        raise ValueError("a text is missing")
    if record.kind not in KINDS or not set(record.uses) <= set(USES) or not isinstance(record.adult, bool):
        raise ValueError("its kind, uses or statement of age are none")
    for day in (record.expires, record.starts):
        if day and datetime.date.fromisoformat(day).isoformat() != day:
            raise ValueError("a day is not written as YYYY-MM-DD")
    return record


def check(record: ConsentRecord, workspace: Path) -> None:
    """Raises `ConsentError` where the record does not hold yet, has expired, or was revoked in this workspace.

    A clock that was set back does not help: no day before the last entry of the audit log is believed. Neither does a log that was
    deleted or edited: where its chain is broken, no record holds.
    """
    if problem := audit.fault(workspace):
        raise ConsentError(problem)
    today, noted = datetime.date.today().isoformat(), audit.latest_day(workspace)
    behind, today = noted > today, max(today, noted)
    if record.starts and record.starts > today:
        raise ConsentError(f"The consent of {record.who} begins on {record.starts}; wait until then.")
    if record.expires and record.expires < today and behind:
        raise ConsentError(
            f"The consent of {record.who} ended on {record.expires}, and the clock is behind the audit log, which goes to {noted}; "
            "ask for a new record."
        )
    if record.expires and record.expires < today:
        raise ConsentError(f"The consent of {record.who} ended on {record.expires}; ask for a new record.")
    if is_revoked(workspace, record.id):
        raise ConsentError(
            f"The consent of {record.who} (record {record.id[:8]}) was revoked; its models may not be used."
        )


def check_use(record: ConsentRecord, use: str) -> None:
    """Raises `ConsentError` where the record does not cover a use (one of `USES`)."""
    if use not in record.uses:
        raise ConsentError(
            f"The consent of {record.who} covers {' and '.join(record.uses)}, not {use}; ask for a record that does."
        )


def check_person(record: ConsentRecord, embedding: Floats, what: Path) -> None:
    """Raises `ConsentError` where a face set's mean `embedding` [128] is not the record's person."""
    likeness = record.likeness(embedding)
    if likeness < SAME_PERSON:
        raise ConsentError(
            f"{what}: shows somebody else than the consent record of {record.who} (likeness {likeness:.2f}, needed "
            f"{SAME_PERSON:.2f}); use that person's own clips or the record of the person in them."
        )


def check_share(record: ConsentRecord, looks: Floats, what: Path) -> None:
    """Raises `ConsentError` where too few of a face set's faces (embeddings `[N, 128]` of those within `MEASURED_YAW_DEG`) are the
    record's person."""
    if not len(looks):
        raise ConsentError(undecided(what))
    share = float(np.mean([record.likeness(look) >= SAME_FACE for look in looks]))
    if share < LEAST_SHARE:
        raise ConsentError(
            f"{what}: only {share:.0%} of its faces show {record.who}, whose consent record it carries (needed "
            f"{LEAST_SHARE:.0%}); build it again from that person's own clips."
        )


def undecided(what: Path) -> str:
    """The sentence for material of which nobody can tell whose it is."""
    return (
        f"{what}: shows faces only that are turned by more than {MEASURED_YAW_DEG:.0f} degrees, and whose those are cannot be told; "
        "add footage from the front."
    )


def revoke(record: ConsentRecord, keys: Keys, workspace: Path) -> None:
    """Notes, signed, that the record no longer holds; the copy with the person's reference goes."""
    body = {
        "id": record.id,
        "who": record.who,
        "revoked": datetime.date.today().isoformat(),
        "public_key": keys.public,
    }
    data = json.dumps(body, sort_keys=True).encode()
    _save(revocation(workspace, record.id), {**body, "signature": keys.sign(data)})
    audit.note(workspace, "revoked", record=record.id, who=record.who)
    with contextlib.suppress(OSError):
        (workspace / "consent" / f"{record.id}.json").unlink(missing_ok=True)


def revocation(workspace: Path, record_id: str) -> Path:
    """Where the note lies that a record was revoked."""
    return workspace / "consent" / f"{record_id}.revoked.json"


def is_revoked(workspace: Path, record_id: str) -> bool:
    """Whether note or audit log say so: deleting the note brings no record back."""
    if revocation(workspace, record_id).exists():
        return True
    return any(one.get("record") == record_id for one in audit.entries(workspace, "revoked"))


def names(workspace: Path) -> dict[str, str]:
    """Whose face: name by the first 8 digits of the id, of all sound records of the workspace and of those that were revoked."""
    found = {}
    for path in sorted((workspace / "consent").glob("*.revoked.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            values = json.loads(path.read_text(encoding="utf-8"))
            found[str(values["id"])[:8]] = f"{values['who']} (revoked on {values['revoked']})"
    return {**{record.id[:8]: record.who for record in kept(workspace)}, **found}


def keep(record: ConsentRecord, workspace: Path) -> Path:
    """The workspace's copy, by which a mark read later is told whose it is."""
    path = workspace / "consent" / f"{record.id}.json"
    if not path.exists():
        save_record(record, path)
    return path


def kept(workspace: Path) -> Sequence[ConsentRecord]:
    """All sound records of the workspace."""
    found = []
    for path in sorted((workspace / "consent").glob("*.json")):
        if path.name.endswith(".revoked.json"):
            continue
        try:
            found.append(load_record(path))
        except ConsentError:
            continue  # a damaged copy names nobody
    return found
