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
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lib_vitface.errors import ConsentError, InputError, OutputError
from lib_vitface.provenance.keys import Keys, is_signed
from lib_vitface.types import Floats

FORMAT = "vitface-consent"
VERSION = 1
FILE = "consent.json"
_DIMENSIONS = 128
SAME_PERSON = 0.363
"""Least cosine of SFace embeddings (a face set's mean against a record's reference) that counts as the same person."""


@dataclass(frozen=True)
class ConsentRecord:
    """`kind` is "record" (made by the consent task) or "declaration" (made by a task that was given no record).

    `reference` is the unit mean SFace embedding [128] of the person; `created` and `expires` are ISO dates, `expires` empty where it
    does not end. `public_key` and `signature` are hex.
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

    def likeness(self, embedding: Floats) -> float:
        """Cosine -1..1 of an embedding to the reference."""
        reference = np.asarray(self.reference, np.float32)
        length = float(np.linalg.norm(reference) * np.linalg.norm(embedding))
        return float(reference @ embedding) / max(length, 1e-12)


def make_record(
    keys: Keys, who: str, statement: str, reference: Floats, *, expires: str = "", kind: str = "record"
) -> ConsentRecord:
    """A signed record of today. Raises `InputError` for an empty name or statement, or a date that is none or past."""
    if not who.strip():
        raise InputError("--who: name the person whose face it is.")
    if not statement.strip():
        raise InputError("--statement: say what the person agrees to.")
    today = datetime.date.today().isoformat()
    expires = _day(expires) if expires else ""
    if expires and expires < today:
        raise InputError(f"--expires: {expires} is past; give a later day or none.")
    values = tuple(round(float(v), 6) for v in reference)
    body = {
        "kind": kind, "who": who.strip(), "statement": statement.strip(), "created": today, "expires": expires,
        "reference": values, "public_key": keys.public,
    }  # fmt: skip
    data = _signed_bytes(body)
    return ConsentRecord(hashlib.sha256(data).hexdigest()[:32], **body, signature=keys.sign(data))  # type: ignore[arg-type]


def _day(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise InputError(f"--expires: {text!r} is not a day; write it as YYYY-MM-DD.") from None


def _signed_bytes(body: dict[str, Any]) -> bytes:
    text = json.dumps({"format": FORMAT, "version": VERSION, **body}, sort_keys=True, ensure_ascii=False)
    return text.encode()


def save_record(record: ConsentRecord, path: Path) -> None:
    """Writes the record, whole or not at all. Raises `OutputError`."""
    _save(path, {"format": FORMAT, "version": VERSION, **asdict(record)})


def _save(path: Path, values: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another place.") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def load_record(path: Path) -> ConsentRecord:
    """A record whose signature and id are right. Raises `ConsentError` where it is missing, damaged or was changed."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ConsentError(f"{path}: is no consent record; write one with `consent --action write`.")
        if values.pop("version", None) != VERSION:
            raise ConsentError(f"{path}: is a consent record of another version; write a new one with this version.")
        record = _record_of(values)
    except FileNotFoundError:
        raise ConsentError(f"{path}: there is no consent record; write one with `consent --action write`.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConsentError(f"{path}: the consent record cannot be read ({error}); use an undamaged copy.") from None
    body = {k: v for k, v in asdict(record).items() if k not in {"id", "signature"}}
    data = _signed_bytes(body)
    if record.id != hashlib.sha256(data).hexdigest()[:32] or not is_signed(record.public_key, data, record.signature):
        raise ConsentError(f"{path}: the consent record was changed after it was signed; use an unchanged copy.")
    return record


def _record_of(values: dict[str, Any]) -> ConsentRecord:
    """Raises ValueError, KeyError or TypeError for values that are none of a record, however well they may be signed."""
    numbers = tuple(values["reference"])
    if len(numbers) != _DIMENSIONS or not all(isinstance(v, float) and math.isfinite(v) for v in numbers):
        raise ValueError("its reference is no embedding")
    record = ConsentRecord(**{**values, "reference": numbers})
    if not all(isinstance(v, str) for k, v in asdict(record).items() if k != "reference"):
        raise ValueError("a text is missing")
    if record.expires and datetime.date.fromisoformat(record.expires).isoformat() != record.expires:
        raise ValueError("its last day is not written as YYYY-MM-DD")
    return record


def check(record: ConsentRecord, workspace: Path) -> None:
    """Raises `ConsentError` where the record has expired or was revoked in this workspace."""
    if record.expires and record.expires < datetime.date.today().isoformat():
        raise ConsentError(f"The consent of {record.who} ended on {record.expires}; ask for a new record.")
    if _revocation(workspace, record.id).exists():
        raise ConsentError(
            f"The consent of {record.who} (record {record.id[:8]}) was revoked; its models may not be used."
        )


def check_person(record: ConsentRecord, embedding: Floats, what: Path) -> None:
    """Raises `ConsentError` where a face set's mean `embedding` [128] is not the record's person."""
    likeness = record.likeness(embedding)
    if likeness < SAME_PERSON:
        raise ConsentError(
            f"{what}: shows somebody else than the consent record of {record.who} (likeness {likeness:.2f}, needed "
            f"{SAME_PERSON:.2f}); use that person's own clips or the record of the person in them."
        )


def revoke(record: ConsentRecord, keys: Keys, workspace: Path) -> None:
    """Notes, signed, that the record no longer holds."""
    body = {"id": record.id, "revoked": datetime.date.today().isoformat(), "public_key": keys.public}
    data = json.dumps(body, sort_keys=True).encode()
    _save(_revocation(workspace, record.id), {**body, "signature": keys.sign(data)})


def _revocation(workspace: Path, record_id: str) -> Path:
    return workspace / "consent" / f"{record_id}.revoked.json"


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
