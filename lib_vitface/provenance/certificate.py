"""Who signs content credentials: the user's own certificate where there is one, else one that is made on this machine.

`keys/c2pa.pem` is the user's: private key, certificate and its issuers, one after the other. Without it `keys/c2pa-local.pem` is made:
an Ed25519 key under a root that exists for this one certificate. C2PA asks for a certificate that did not sign itself.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lib_vitface.errors import InputError
from lib_vitface.provenance.keys import make_once

OWN, LOCAL = "c2pa.pem", "c2pa-local.pem"
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----\n?", re.DOTALL)
_YEARS = 10
_WHO = "ViTFace on this machine"


@dataclass(frozen=True)
class Signer:
    """`chain` and `key` are PEM, `algorithm` is C2PA's name of it; `own` says that it is the user's certificate."""

    path: Path
    chain: bytes
    key: bytes
    algorithm: str
    own: bool


def open_signer(workspace: Path) -> Signer:
    """The workspace's signer; the local one is made when first asked for. Raises `InputError`, `OutputError`."""
    own = workspace / "keys" / OWN
    if own.exists():
        return _load(own, own=True)
    local = workspace / "keys" / LOCAL
    make_once(local, _local)
    return _load(local, own=False)


def _load(path: Path, own: bool) -> Signer:
    try:
        blocks = [(found.group(1), found.group()) for found in _BLOCK.finditer(path.read_bytes())]
        keys = [block for kind, block in blocks if kind.endswith(b"PRIVATE KEY")]
        chain = b"".join(
            block if block.endswith(b"\n") else block + b"\n" for kind, block in blocks if kind == b"CERTIFICATE"
        )
        if len(keys) != 1 or not chain:
            raise ValueError("it must hold one private key and its certificates")
        private = serialization.load_pem_private_key(keys[0], None)
        leaf = x509.load_pem_x509_certificates(chain)[0]
        if leaf.public_key() != private.public_key():
            raise ValueError("the first certificate is of another key")
        algorithm = _algorithm(private)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: the certificate cannot be used ({error}); mend the file, or remove it.") from None
    key = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Signer(path, chain, key, algorithm, own)


def _algorithm(key: object) -> str:
    """C2PA's name of the signature a key makes."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, ec.EllipticCurvePrivateKey):
        names = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
        if key.curve.name in names:
            return names[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    raise ValueError("its key is none of Ed25519, P-256, P-384, P-521 and RSA")


def _local() -> bytes:
    """Key, certificate and root as PEM. The root's key is forgotten: it signs this one certificate only."""
    root_key, key = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    root_name, name = _name("root"), _name("signer")
    root = _certificate(root_name, root_name, root_key.public_key(), authority=True)
    root = root.add_extension(_usage(sign_certificates=True), critical=True)
    leaf = _certificate(name, root_name, key.public_key(), authority=False)
    leaf = leaf.add_extension(_usage(sign_certificates=False), critical=True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private + leaf.sign(root_key, None).public_bytes(pem) + root.sign(root_key, None).public_bytes(pem)


def _name(role: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"ViTFace local {role}, trusted by nobody"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _WHO),
        ]
    )


def _certificate(
    name: x509.Name, issuer: x509.Name, key: ed25519.Ed25519PublicKey, authority: bool
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(authority, 0 if authority else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
