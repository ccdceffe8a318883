"""The workspace's own keys: one signs consent records, one makes the keyed code in the mark. They never leave the machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lib_vitface.errors import ConsentError, OutputError
from lib_vitface.media.container import sweep, unfinished

_NAME = "signing.key"
_LENGTH = 32


@dataclass(frozen=True)
class Keys:
    """`signing` is an Ed25519 key (RFC 8032); `mark` 32 bytes derived from it (HKDF, RFC 5869) for the watermark's code."""

    signing: Ed25519PrivateKey

    @property
    def mark(self) -> bytes:
        return HKDF(hashes.SHA256(), _LENGTH, salt=None, info=b"vitface mark").derive(self._raw)

    @property
    def public(self) -> str:
        """The public key, 64 hex digits."""
        raw = self.signing.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return raw.hex()

    @property
    def _raw(self) -> bytes:
        return self.signing.private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )

    def sign(self, data: bytes) -> str:
        """Signature as 128 hex digits."""
        return self.signing.sign(data).hex()


def open_keys(workspace: Path) -> Keys:
    """The keys in `<workspace>/keys`, made when first asked for (readable by their owner only).

    Raises `ConsentError` where the file is damaged, `OutputError` where it cannot be made.
    """
    path = workspace / "keys" / _NAME
    make_once(path, lambda: Keys(Ed25519PrivateKey.generate())._raw)
    try:
        return Keys(Ed25519PrivateKey.from_private_bytes(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise ConsentError(f"{path}: the signing key cannot be used ({error}); restore it from a backup.") from None


def known_keys(workspace: Path) -> Keys | None:
    """The keys where this workspace has them already; asking makes none."""
    return open_keys(workspace) if (workspace / "keys" / _NAME).exists() else None


def known_mark_key(workspace: Path) -> bytes | None:
    """The key of the mark's code where this workspace has one already."""
    keys = known_keys(workspace)
    return None if keys is None else keys.mark


def make_once(path: Path, make: Callable[[], bytes]) -> None:
    """A file of keys that appears whole, for its owner only; one that is there already stays. Copies that killed processes left beside
    it go. Raises `OutputError`."""
    sweep(path, dead_only=True)
    if path.exists():
        return
    temporary, data = unfinished(path), make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_new(temporary, data)
        with contextlib.suppress(FileExistsError):  # another process or thread was quicker: its key counts
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise
            except OSError:  # a disk without hard links
                _write_new(path, data)
    except OSError as error:
        raise OutputError(f"{path}: the key cannot be written ({error.strerror}); choose another workspace.") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_new(path: Path, data: bytes) -> None:
    """A file that was not there, for its owner only."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def is_signed(public: str, data: bytes, signature: str) -> bool:
    """Whether `signature` (hex) over `data` was made with the private key of `public` (hex)."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), data)
    except (InvalidSignature, ValueError):
        return False
    return True
