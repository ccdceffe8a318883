"""`doctor`: tells what is missing and how to get it, changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lib_vitface import assets
from lib_vitface.errors import MissingDependencyError
from lib_vitface.tasks import facts
from lib_vitface.tasks.settings import DoctorOptions
from lib_vitface.types import Host


def test_all_is_well_here(tmp_path: Path) -> None:
    found = facts.doctor(DoctorOptions(), Host(tmp_path / "space", "cpu"))
    json.dumps(found)
    assert found["problems"] == [] and found["exit_code"] == 0
    assert not (tmp_path / "space").exists(), "nothing is made"
    assert found["machine"]["device"] == "cpu" and found["machine"]["dtype"] in {"float32", "bfloat16"}
    assert found["codecs"]["h264"] and set(found["packages"]) == {*facts.NEEDED, *facts.OPTIONAL}
    for weight in found["weights"]:
        assert weight["licence"] and weight["source"] and weight["used_for"], weight["name"]


def test_what_is_missing_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = facts.util.find_spec
    gone = {"cv2", "cryptography", "insightface"}
    monkeypatch.setattr(facts.util, "find_spec", lambda name: None if name in gone else real(name))
    monkeypatch.setattr(facts.media, "encoders", lambda: {"h264": False})
    found = facts.doctor(DoctorOptions(), Host(tmp_path, "cpu"))
    assert found["exit_code"] == MissingDependencyError.exit_code == 5
    assert found["packages"]["cv2"] == "missing" and "insightface" in found["optional"]
    text = "\n".join(found["problems"])
    for words in ("pip install opencv-python", "pip install cryptography", "H.264", "pip install --force-reinstall av"):
        assert words in text
    assert "insightface" not in text, "what is optional is no problem"


def test_weights_are_fetched_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def locate(name: str) -> Path:
        asked.append(name)
        raise MissingDependencyError(f"{name} cannot be had.")

    monkeypatch.setattr(assets, "find", lambda name: None)
    monkeypatch.setattr(assets, "locate", locate)
    found = facts.doctor(DoctorOptions(), Host(tmp_path, "cpu"))
    assert asked == [] and found["exit_code"] == 0
    assert {weight["state"] for weight in found["weights"]} == {"fetched when first needed"}
    found = facts.doctor(DoctorOptions(fetch=True), Host(tmp_path, "cpu"))
    assert asked and found["exit_code"] == 5 and "yunet cannot be had." in found["problems"]


def test_a_build_of_another_name_is_told_by_it() -> None:
    """As onnxruntime-openvino, which is imported as onnxruntime."""
    assert facts._version("_pytest") == f"{pytest.__version__} (pytest)"
