"""Signatures of finished files: a C2PA manifest inside where the file can hold one, a signed record beside it where it cannot.

Matroska and WebM have no place for a manifest and only a tag for the statement, which everybody can change; beside such a video
lies `NAME.vitface.json`, with the file's hash and the statement, signed with the workspace's key (Ed25519).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib_vitface.errors import OutputError
from lib_vitface.provenance import credentials
from lib_vitface.provenance.certificate import Signer, open_signer
from lib_vitface.provenance.keys import Keys, is_signed, open_keys
from lib_vitface.provenance.manifest import Statement

FORMAT = "vitface-output"
VERSION = 1
SUFFIX = ".vitface.json"
BESIDE = (".mkv", ".webm")
_BLOCK = 1 << 20


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
        """Seals a finished file that lies at `temporary` and will be called `output`. A folder stays as it is."""
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
        body: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "file": output.name,
            "sha256": digest(temporary),
            "statement": asdict(said),
            "made_from": None,
            "public_key": self.keys.public,
        }
        if parent is not None and parent.is_file():
            body["made_from"] = {"file": parent.name, "sha256": digest(parent)}
        text = json.dumps({**body, "signature": self.keys.sign(_signed_bytes(body))}, indent=1, ensure_ascii=False)
        from lib_vitface.media.container import beside as whole  # late: with it comes PyAV

        record = beside(output)
        try:
            with whole(record) as unfinished:
                unfinished.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{record}: cannot be written ({error.strerror}); choose another place.") from None


def open_seal(workspace: Path) -> Seal:
    """The workspace's keys, and its certificate where manifests can be made."""
    return Seal(open_keys(workspace), open_signer(workspace) if credentials.is_there() else None)


def beside(path: Path) -> Path:
    """Where the signed record of a file lies."""
    return path.with_name(path.name + SUFFIX)


def digest(path: Path) -> str:
    """SHA-256 of a file, hex."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            total.update(block)
    return total.hexdigest()


def _signed_bytes(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, ensure_ascii=False).encode()


def read_beside(path: Path, own: str | None = None) -> dict[str, Any] | None:
    """What the record beside a file says; None where there is none.

    `state` is `valid` (signed, and of this very file), `changed` (file or record was changed since), `damaged`. `own_key` says
    whether it was signed with the key `own` (hex): anybody has a key. None where that is not known.
    """
    record = beside(path)
    try:
        values = json.loads(record.read_text(encoding="utf-8"))
        signature, said = values.pop("signature"), values["statement"]
        if values["format"] != FORMAT or not isinstance(said, dict):
            raise ValueError("of another kind")
        whole = is_signed(values["public_key"], _signed_bytes(values), signature)
        good = whole and values["sha256"] == digest(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"file": str(record), "state": "damaged", "own_key": None}
    return {
        "file": str(record),
        "state": "valid" if good else "changed",
        "own_key": None if own is None or not whole else values["public_key"] == own,
        "statement": said,
        "made_from": values["made_from"],
    }
