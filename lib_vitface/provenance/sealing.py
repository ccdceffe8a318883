"""Signatures of finished files: a C2PA manifest inside where the file can hold one, a signed record beside it where it cannot.

Matroska and WebM have no place for a manifest and only a tag for the statement, which everybody can change; beside such a video
lies `NAME.vitface.json`, with the file's hash and the statement, signed with the workspace's key (Ed25519). A folder of pictures has
one such record in it, `vitface.json`, that lists all of them: no picture can tell by itself that another one is gone.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lib_vitface import media
from lib_vitface.assets import digest
from lib_vitface.errors import InputError
from lib_vitface.media.container import beside as unseen
from lib_vitface.media.container import writing
from lib_vitface.provenance import credentials
from lib_vitface.provenance.certificate import Signer, open_signer
from lib_vitface.provenance.keys import Keys, is_signed, open_keys
from lib_vitface.provenance.manifest import Statement

FORMAT = "vitface-output"
VERSION = 1
SUFFIX = ".vitface.json"
BESIDE = (".mkv", ".webm")
FOLDER = "vitface.json"
_FOLDER_FORMAT = "vitface-folder"


@dataclass(frozen=True)
class Seal:
    """`signer` is None where `c2pa-python` is not installed."""

    keys: Keys
    signer: Signer | None

    def inside(self, data: bytes, suffix: str, said: Statement, parent: Path | bytes | None = None) -> bytes:
        """The file with a manifest in it, or as it is where none can be put in."""
        if self.signer is None or suffix.lower() not in credentials.MIME:
            return data
        signed = io.BytesIO()
        credentials.sign(io.BytesIO(data), signed, suffix, said, self.signer, parent)
        return signed.getvalue()

    def file(self, temporary: Path, output: Path, said: Statement, parent: Path | None = None) -> None:
        """Seals a finished file that lies at `temporary` and will be called `output`."""
        suffix = output.suffix.lower()
        if temporary.is_file() and self.signer is not None and suffix in credentials.MIME:
            parent = parent if parent is not None and parent.is_file() else None
            signed = temporary.with_name(f"{temporary.stem}-signed.part")  # a name that `media.sweep` knows
            try:
                with temporary.open("rb") as source, signed.open("w+b") as target:
                    credentials.sign(source, target, suffix, said, self.signer, parent)
                signed.replace(temporary)
            finally:
                signed.unlink(missing_ok=True)
        elif temporary.is_file() and suffix in BESIDE:
            self._beside(temporary, output, said, parent)

    def _beside(self, temporary: Path, output: Path, said: Statement, parent: Path | None) -> None:
        facts = {"format": FORMAT, "file": output.name, "sha256": digest(temporary)}
        self._write(beside(output), facts, said, parent)

    def folder(self, folder: Path, files: Iterable[Path], said: Statement, parent: Path | None = None) -> None:
        """Writes the record of a folder: these files in it, each with its hash. `parent` is the file or folder they were made
        from. Raises `OutputError`."""
        listed = {path.relative_to(folder).as_posix(): digest(path) for path in sorted(files)}
        self._write(folder / FOLDER, {"format": _FOLDER_FORMAT, "files": listed}, said, parent)

    def _write(self, record: Path, facts: dict[str, Any], said: Statement, parent: Path | None) -> None:
        body = {
            **facts,
            "version": VERSION,
            "statement": asdict(said),
            "made_from": None,
            "public_key": self.keys.public,
        }
        if parent is not None and parent.is_file():
            body["made_from"] = {"file": parent.name, "sha256": digest(parent)}
        elif parent is not None and parent.is_dir():
            body["made_from"] = {"folder": parent.resolve().name}
        text = json.dumps({**body, "signature": self.keys.sign(_signed_bytes(body))}, indent=1, ensure_ascii=False)
        with unseen(record) as temporary, writing(record):
            temporary.write_text(text + "\n", encoding="utf-8")


def open_seal(workspace: Path) -> Seal:
    """The workspace's keys, and its certificate where manifests can be made."""
    return Seal(open_keys(workspace), open_signer(workspace) if credentials.is_there() else None)


def beside(path: Path) -> Path:
    """Where the signed record of a file lies."""
    return path.with_name(path.name + SUFFIX)


def _signed_bytes(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, ensure_ascii=False).encode()


def read_beside(path: Path, own: str | None = None) -> dict[str, Any] | None:
    """What the record beside a file says; None where there is none.

    `state` is `valid` (signed, and of this very file), `changed` (file or record was changed since), `damaged`. `own_key` says
    whether it was signed with the key `own` (hex): anybody has a key. None where that is not known.
    """
    record = beside(path)
    try:
        values, whole = _read(record, FORMAT)
        good = whole and values["sha256"] == digest(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"file": str(record), "state": "damaged", "own_key": None}
    return {
        "file": str(record),
        "state": "valid" if good else "changed",
        "own_key": None if own is None or not whole else values["public_key"] == own,
        "statement": values["statement"],
        "made_from": values["made_from"],
    }


def _read(record: Path, kind: str) -> tuple[dict[str, Any], bool]:
    """What a record says, and whether its signature is of that. Raises OSError, or what its values are not as expected by."""
    values = json.loads(record.read_text(encoding="utf-8"))
    signature = values.pop("signature")
    if values["format"] != kind or not isinstance(values["statement"], dict):
        raise ValueError("of another kind")
    return values, is_signed(values["public_key"], _signed_bytes(values), signature)


def read_folder(folder: Path, own: str | None = None) -> dict[str, Any] | None:
    """What the record in a folder says, and what became of its files; None where there is no record.

    `state` is `valid` (signed, and the folder holds exactly these files), `changed` (files or the record are not what they were),
    `damaged`. `changed`, `missing` and `added` name files in the folder; `added` are pictures and videos that are not in the list.
    `own_key` as in `read_beside`.
    """
    record = folder / FOLDER
    try:
        values, whole = _read(record, _FOLDER_FORMAT)
        listed = {str(name): str(value) for name, value in values["files"].items()}
        if any(PurePosixPath(name).is_absolute() or {"..", ""} & set(name.split("/")) for name in listed):
            raise ValueError("names what lies elsewhere")
        there = {path.relative_to(folder).as_posix() for path in _media_in(folder)}
        missing = [name for name in listed if not (folder / name).is_file()]
        changed = [n for n, value in listed.items() if n not in missing and digest(folder / n) != value]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"folder": str(folder), "file": str(record), "state": "damaged", "own_key": None}
    added = sorted(there - set(listed))
    return {
        "folder": str(folder),
        "file": str(record),
        "state": "valid" if whole and not (missing or changed or added) else "changed",
        "own_key": None if own is None or not whole else values["public_key"] == own,
        "signed": whole,
        "files": len(listed),
        "changed": changed,
        "missing": missing,
        "added": added,
        "statement": values["statement"],
        "made_from": values["made_from"],
    }


def _media_in(folder: Path) -> list[Path]:
    """Pictures and videos in a folder and below it; none is no error here."""
    try:
        return media.list_media([folder])
    except InputError:
        return []
