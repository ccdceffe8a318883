"""C2PA manifests, read back by the package's own reader: whole, telling what was done, and proof against change."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from marking import CONSENT

from lib_vitface import media
from lib_vitface.errors import InputError, OutputError
from lib_vitface.provenance import certificate, credentials
from lib_vitface.provenance.inspect import inspect, is_marked
from lib_vitface.provenance.keys import open_keys
from lib_vitface.provenance.label import place
from lib_vitface.provenance.publish import Publisher
from lib_vitface.provenance.sealing import open_seal
from lib_vitface.provenance.settings import InspectOptions

c2pa = pytest.importorskip("c2pa", reason="c2pa-python is not installed: pip install c2pa-python")
pytestmark = pytest.mark.optional
COUNT = 10


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("space")


@pytest.fixture(scope="module")
def door(space: Path) -> Publisher:
    return Publisher(CONSENT, "feedc0de", open_keys(space).mark, open_seal(space))


@pytest.fixture(scope="module")
def footage(frames: list[np.ndarray], space: Path) -> Path:
    media.write_image(space / "footage.jpg", frames[0])
    return space / "footage.jpg"


def told(path: Path, mime: str) -> tuple[dict[str, Any], str]:
    """The reader's own words: all manifests, and the state."""
    with path.open("rb") as file, c2pa.Reader(mime, file) as reader:
        return json.loads(reader.json()), reader.get_validation_state()


def active(said: dict[str, Any]) -> dict[str, Any]:
    return said["manifests"][said["active_manifest"]]


def check(path: Path, mime: str, footage: str) -> None:
    """Structure, ingredient, actions and who signed."""
    said, state = told(path, mime)
    assert state == "Valid", "whole, and signed by somebody whom nobody trusts"
    assert [s["code"] for s in said["validation_status"]] == ["signingCredential.untrusted"]
    manifest = active(said)
    (ingredient,) = manifest["ingredients"]
    assert (ingredient["relationship"], ingredient["title"]) == ("parentOf", footage)
    actions = next(a for a in manifest["assertions"] if a["label"].startswith("c2pa.actions"))["data"]["actions"]
    assert [a["action"] for a in actions] == ["c2pa.opened", "c2pa.edited"]
    edited = actions[1]
    assert edited["digitalSourceType"].endswith("/compositeWithTrainedAlgorithmicMedia")
    assert edited["softwareAgent"]["name"] == "ViTFace"
    assert edited["parameters"]["org.vitface.model"] == "feedc0de"
    assert edited["parameters"]["org.vitface.consent"] == CONSENT
    assert "trusted by nobody" in manifest["signature_info"]["common_name"]


def picture(door: Publisher, frames: list[np.ndarray], footage: Path, path: Path) -> Path:
    door.image(path, frames[0], parent=footage)
    return path


@pytest.mark.parametrize(("suffix", "mime"), [(".png", "image/png"), (".jpg", "image/jpeg"), (".webp", "image/webp")])
def test_pictures(
    door: Publisher, frames: list[np.ndarray], footage: Path, space: Path, tmp_path: Path, suffix: str, mime: str
) -> None:
    path = picture(door, frames, footage, tmp_path / f"x{suffix}")
    check(path, mime, "footage.jpg")
    (said,) = inspect(InspectOptions([path], search=False), space)["files"]
    assert said["mark"]["authentic"] and said["statement"]["consent_id"] == CONSENT, "all three are there"
    assert said["manifest"]["state"] == "valid" and said["manifest"]["model_id"] == "feedc0de"
    assert said["manifest"]["ingredients"] == (("parentOf", "footage.jpg"),)
    assert "signingCredential.untrusted" in said["manifest"]["problems"][0]


@pytest.mark.parametrize(
    ("suffix", "mime"), [(".mp4", "video/mp4"), (".mov", "video/quicktime"), (".gif", "image/gif")]
)
def test_videos(door: Publisher, clip: Path, space: Path, tmp_path: Path, suffix: str, mime: str) -> None:
    info, settings, path = media.probe(clip), media.EncodeSettings(preset="fast"), tmp_path / f"x{suffix}"
    ready, kind = media.segment_settings(settings, info, path)
    with door.segment(tmp_path / f"part{kind}", info, ready) as sink:
        for frame in itertools.islice(media.read_frames(clip), COUNT):
            sink.write(frame)
    labelled = door.labelled(place((info.height, info.width)))
    labelled.join([tmp_path / f"part{kind}"], path, source=clip, settings=settings, end_s=float(COUNT / info.fps))
    check(path, mime, clip.name)
    assert len(list(media.read_frames(path))) == COUNT, "it can still be played"
    (said,) = inspect(InspectOptions([path], search=False, frames=6), space)["files"]
    assert said["mark"]["present"] and said["manifest"]["state"] == "valid" and said["statement"]["label_box"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([f"part{kind}", path.name]), "nothing else is left"


def test_one_changed_byte_is_detected(
    door: Publisher, frames: list[np.ndarray], footage: Path, space: Path, tmp_path: Path
) -> None:
    """Anywhere: in the picture, in the statement, in the manifest itself."""
    path = picture(door, frames, footage, tmp_path / "x.jpg")
    data = path.read_bytes()
    manifest = data.index(b"c2pa.actions")
    for place_ in (len(data) // 2, len(data) - 200, data.index(b"digitalsourcetype"), manifest + 200):
        changed = bytearray(data)
        changed[place_] ^= 1
        bad = tmp_path / "bad.jpg"
        bad.write_bytes(changed)
        said = credentials.read(bad)
        assert said is not None and said.state == "invalid" and said.problems, place_
        assert not said.is_synthetic, "what a changed manifest says does not count"
    assert credentials.read(path).state == "valid"  # type: ignore[union-attr]


def test_an_incoming_manifest_is_kept(door: Publisher, frames: list[np.ndarray], footage: Path, tmp_path: Path) -> None:
    first = picture(door, frames, footage, tmp_path / "first.png")
    picture(door, frames, first, tmp_path / "second.png")
    before, after = told(first, "image/png")[0], told(tmp_path / "second.png", "image/png")[0]
    assert set(before["manifests"]) < set(after["manifests"]) and len(after["manifests"]) == 2
    assert active(after)["ingredients"][0]["active_manifest"] == before["active_manifest"]


def test_the_manifest_alone_is_enough(
    door: Publisher, frames: list[np.ndarray], footage: Path, space: Path, tmp_path: Path
) -> None:
    media.write_image(tmp_path / "x.png", frames[0])
    (tmp_path / "x.png").write_bytes(door.sealed((tmp_path / "x.png").read_bytes(), ".png", footage.read_bytes()))
    (said,) = inspect(InspectOptions([tmp_path / "x.png"], search=False), space)["files"]
    assert said["synthetic"] and not said["mark"]["present"] and said["statement"] is None
    assert is_marked(tmp_path / "x.png")


@pytest.mark.parametrize("content", ["matroska", b"", b"\xff\xd8 no picture", b"\x89PNG nor this"])
def test_footage_that_holds_no_manifest_is_still_named(
    door: Publisher, frames: list[np.ndarray], tmp_path: Path, make_video: Any, content: str | bytes
) -> None:
    odd = tmp_path / "odd.mkv"
    if isinstance(content, bytes):
        odd.write_bytes(content)
    else:
        make_video(odd, 3)
    picture(door, frames, odd, tmp_path / "x.png")
    check(tmp_path / "x.png", "image/png", "odd.mkv")


def test_what_was_made_from_nothing_says_so(door: Publisher, frames: list[np.ndarray], tmp_path: Path) -> None:
    door.image(tmp_path / "x.png", frames[0])
    manifest = active(told(tmp_path / "x.png", "image/png")[0])
    assert manifest.get("ingredients", []) == []
    assert credentials.read(tmp_path / "x.png").actions == ("c2pa.created",)  # type: ignore[union-attr]


def test_a_reason_for_no_label_is_told(
    door: Publisher, frames: list[np.ndarray], footage: Path, tmp_path: Path
) -> None:
    picture(door.labelled(None, "a film: said in its credits"), frames, footage, tmp_path / "x.png")
    actions = active(told(tmp_path / "x.png", "image/png")[0])["assertions"][0]["data"]["actions"]
    assert actions[1]["parameters"]["org.vitface.no_label"] == "a film: said in its credits"


def test_an_own_certificate_is_used(frames: list[np.ndarray], footage: Path, tmp_path: Path) -> None:
    """A user's, here of P-256 under a root of their own; where the reader knows the root, it is trusted."""
    (tmp_path / "keys").mkdir()
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root, chain = certificates(root_key, key)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    (tmp_path / "keys" / certificate.OWN).write_bytes(pem + chain)
    seal = open_seal(tmp_path)
    assert seal.signer is not None and seal.signer.own and seal.signer.algorithm == "es256"
    assert not (tmp_path / "keys" / certificate.LOCAL).exists(), "none is made beside it"
    path = picture(Publisher(CONSENT, "m", seal.keys.mark, seal), frames, footage, tmp_path / "x.png")
    assert credentials.read(path).signer == "Anna Example / Anna's studio"  # type: ignore[union-attr]
    trust = {"trust": {"user_anchors": root.decode()}, "verify": {"verify_trust": True}}
    with path.open("rb") as file:
        reader = c2pa.Reader("image/png", file, context=c2pa.Context(c2pa.Settings.from_dict(trust)))
        assert reader.get_validation_state() == "Trusted"


def certificates(root_key: Any, key: Any) -> tuple[bytes, bytes]:
    """A root and a chain with it, made by the tool's own means but for other names."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common: str) -> Any:
        names = ((NameOID.COMMON_NAME, common), (NameOID.ORGANIZATION_NAME, "Anna's studio"))
        return x509.Name([x509.NameAttribute(oid, text) for oid, text in names])

    root = certificate._certificate(name("Root"), name("Root"), root_key.public_key(), authority=True)
    root = root.add_extension(certificate._usage(True), critical=True).sign(root_key, hashes.SHA256())
    leaf = certificate._certificate(name("Anna Example"), name("Root"), key.public_key(), authority=False)
    leaf = leaf.add_extension(certificate._usage(False), critical=True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), False)
    signed = leaf.sign(root_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    return root.public_bytes(pem), signed.public_bytes(pem) + root.public_bytes(pem)


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_bad_certificate_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / certificate.OWN).write_bytes(content)
    with pytest.raises(InputError, match=r"c2pa\.pem: the certificate cannot be used.*; mend the file, or remove it"):
        open_seal(tmp_path)


def test_a_certificate_c2pa_does_not_take_is_named(frames: list[np.ndarray], tmp_path: Path) -> None:
    """One that signed itself."""
    (tmp_path / "keys").mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    root, _ = certificates(key, key)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "keys" / certificate.OWN).write_bytes(pem + root)
    seal = open_seal(tmp_path)
    with pytest.raises(OutputError, match=r"manifest cannot be made .*c2pa\.pem"):
        Publisher(CONSENT, "m", seal.keys.mark, seal).image(tmp_path / "x.png", frames[0])
    assert [p.name for p in tmp_path.iterdir()] == ["keys"], "nothing half-written is left"


def test_no_network_is_asked(door: Publisher, frames: list[np.ndarray], footage: Path, tmp_path: Path) -> None:
    """Signing and reading work where no connection can be made at all."""
    path = picture(door, frames, footage, tmp_path / "x.png")
    program = (
        "import socket, sys; from pathlib import Path\n"
        "def no(*a, **k): raise AssertionError('a connection was made')\n"
        "socket.socket.connect = no\n"
        "from lib_vitface.provenance import credentials\n"
        "print(credentials.read(Path(sys.argv[1])).state)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True,
        cwd=Path(__file__).resolve().parents[2], env={"HTTPS_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1"},
    )  # fmt: skip
    assert done.stdout.strip() == "valid"


def test_without_the_package_it_is_said_that_one_is_there(
    door: Publisher, frames: list[np.ndarray], footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in (".png", ".jpg", ".webp"):
        path = picture(door, frames, footage, tmp_path / f"x{suffix}")
        with monkeypatch.context() as patch:
            patch.setattr(credentials, "is_there", lambda: False)
            assert credentials.read(path) == credentials.Credentials("unread")
            assert credentials.read(footage) is None
            assert open_seal(tmp_path / "w").signer is None
