"""Content credentials: a signed C2PA manifest inside the file, by the optional package `c2pa-python`, and its reader.

What was changed is told as C2PA 2 wants it (https://spec.c2pa.org): the footage is the ingredient a file is made of (`parentOf`),
`c2pa.opened` and `c2pa.edited` are what was done with it. A manifest the footage has stays inside as the ingredient's own.
Without a certificate of the user's the signature is made by one of this machine: it proves that a file was not changed since,
and not who made it; every reader calls it untrusted, and so does ours.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any, BinaryIO

from lib_vitface import __version__
from lib_vitface.errors import InputError, OutputError
from lib_vitface.provenance.certificate import Signer
from lib_vitface.provenance.manifest import Statement

MIME = {
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
    ".mp4": "video/mp4", ".m4v": "video/x-m4v", ".mov": "video/quicktime",
}  # fmt: skip
"""Kinds of files that can hold a manifest, of those that are written here."""

OURS = "org.vitface.model"
_TARGET, _ANYTHING = "target", "application/octet-stream"
# No pictures of the footage inside, nothing fetched from anywhere; signing checks nothing, the reader does.
_SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False},
}


@dataclass(frozen=True)
class Credentials:
    """What a file's manifest says.

    `state` is `trusted` (signed under a known authority), `valid` (whole, but the signer is known to nobody), `invalid`
    (changed since it was signed, see `problems`), or `unread` (there is one, and `c2pa-python` is not installed).
    `actions` are names as `c2pa.edited`, `ingredients` (relationship, title), `manifests` how many are in the file.
    """

    state: str
    signer: str = ""
    source_type: str = ""
    actions: tuple[str, ...] = ()
    ingredients: tuple[tuple[str, str], ...] = ()
    model_id: str = ""
    consent_id: str = ""
    manifests: int = 1
    problems: tuple[str, ...] = ()

    @property
    def is_synthetic(self) -> bool:
        term = self.source_type.lower()
        return self.state in {"trusted", "valid"} and ("algorithmicmedia" in term or "compositesynthetic" in term)


def is_there() -> bool:
    """Whether `c2pa-python` is installed."""
    return util.find_spec("c2pa") is not None


def sign(
    source: BinaryIO, target: BinaryIO, suffix: str, said: Statement, signer: Signer, parent: Path | bytes | None = None
) -> None:
    """Copies a finished file of kind `suffix` with a signed manifest in it. `parent` is the footage, or the bytes of it as PNG.

    Raises `OutputError` where the package refuses it (a certificate that it does not take, for example).
    """
    import c2pa

    builder = c2pa.Builder(_manifest(said, parent), context=_context())
    try:
        if parent is not None:
            _add_parent(builder, parent)
        info = c2pa.C2paSignerInfo(signer.algorithm.encode(), signer.chain, signer.key, None)
        builder.sign(c2pa.Signer.from_info(info), MIME[suffix.lower()], source, target)
    except c2pa.C2paError as error:
        raise OutputError(
            f"The C2PA manifest cannot be made ({error}); put another certificate into {signer.path}, or remove that file."
        ) from None


def _context() -> Any:
    import c2pa

    return c2pa.Context(c2pa.Settings.from_dict(_SETTINGS))


def _manifest(said: Statement, parent: Path | bytes | None) -> dict[str, Any]:
    agent = {"name": "ViTFace", "version": __version__}
    about = {OURS: said.model_id, "org.vitface.consent": said.consent_id}
    if said.no_label:
        about["org.vitface.no_label"] = said.no_label
    done = {
        "action": "c2pa.edited" if parent is not None else "c2pa.created",
        "digitalSourceType": said.source_type,
        "softwareAgent": agent,
        "description": "A face was replaced by one that a trained model drew; the person agreed by the consent record named.",
        "parameters": about,
    }
    opened = {"action": "c2pa.opened", "parameters": {"ingredientIds": [_TARGET]}}
    actions = [done] if parent is None else [opened, done]
    return {
        "claim_generator_info": [agent],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": actions, "allActionsIncluded": False}}],
    }


def _add_parent(builder: Any, parent: Path | bytes) -> None:
    """The footage, with the manifest it may have. What cannot be taken apart (Matroska, a damaged file) is named without one."""
    import c2pa

    about = {"title": parent.name if isinstance(parent, Path) else "picture"}
    about |= {"relationship": "parentOf", "instance_id": _TARGET}
    with io.BytesIO(parent) if isinstance(parent, bytes) else parent.open("rb") as stream:
        try:
            builder.add_ingredient(about, kind_of(stream), stream)
        except c2pa.C2paError:
            stream.seek(0)
            builder.add_ingredient(about, _ANYTHING, stream)


def read(path: Path) -> Credentials | None:
    """The manifest of a file; None where it has none. Raises `InputError` where the file cannot be opened."""
    if not is_there():
        return Credentials("unread") if _seems_there(path) else None
    import c2pa

    try:
        with path.open("rb") as file:
            mime = kind_of(file)
            reader = None if mime == _ANYTHING else c2pa.Reader.try_create(mime, file, context=_context())
            if reader is None:
                return None
            found, state = json.loads(reader.json()), reader.get_validation_state()
    except c2pa.C2paError as error:
        # a manifest so damaged that it cannot be taken apart; or a damaged file without one
        return Credentials("invalid", problems=(str(error),)) if _seems_there(path) else None
    except OSError as error:
        raise InputError(f"{path}: it cannot be read ({error.strerror}).") from None
    return _told(found, str(state).lower())


def _told(found: Mapping[str, Any], state: str) -> Credentials:
    """The active manifest of a reader's answer."""
    active = found["manifests"][found["active_manifest"]]
    actions = [
        action
        for assertion in active.get("assertions", [])
        if str(assertion.get("label", "")).startswith("c2pa.actions")
        for action in assertion["data"].get("actions", [])
    ]
    types = [str(action["digitalSourceType"]) for action in actions if action.get("digitalSourceType")]
    about: dict[str, Any] = {}
    for action in actions:
        about |= action.get("parameters") or {}
    signed = active.get("signature_info", {})
    failures = found.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
    return Credentials(
        state,
        " / ".join(str(signed[k]) for k in ("common_name", "issuer") if signed.get(k)),
        types[-1] if types else "",
        tuple(str(action.get("action", "")) for action in actions),
        tuple((str(i.get("relationship", "")), str(i.get("title", ""))) for i in active.get("ingredients", [])),
        str(about.get(OURS, "")),
        str(about.get("org.vitface.consent", "")),
        len(found["manifests"]),
        tuple(f"{one.get('code')}: {one.get('explanation', '')}" for one in failures),
    )


def kind_of(stream: BinaryIO) -> str:
    """The MIME type by what a file begins with (names lie); the stream is left at its beginning."""
    head = stream.read(12)
    stream.seek(0)
    for start, mime in ((b"\x89PNG", "image/png"), (b"\xff\xd8", "image/jpeg"), (b"GIF8", "image/gif")):
        if head.startswith(start):
            return mime
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return "image/webp"
    if head[4:8] == b"ftyp":
        return "video/quicktime" if head[8:] == b"qt  " else "video/mp4"
    return _ANYTHING


_MARKS = (b"jumdc2pa", b"caBX")


def _seems_there(path: Path) -> bool:
    """Whether a file holds what a manifest store begins with (JUMBF's `jumd` box of kind `c2pa`)."""
    import mmap

    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return any(data.find(mark) >= 0 for mark in _MARKS)
    except (OSError, ValueError):
        return False
