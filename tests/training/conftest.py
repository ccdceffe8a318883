"""Two small facesets of made-up persons."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_faceset import write_faceset

from lib_vitface.faceset.store import Faceset
from lib_vitface.models.config import PRESETS, EncoderConfig, SAEHDConfig, ViTSwapperConfig
from lib_vitface.training import trainer
from lib_vitface.training.data import Person, load_person


@pytest.fixture(scope="session")
def facesets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a source and a target."""
    root = tmp_path_factory.mktemp("facesets")
    return write_faceset(root / "source", 1), write_faceset(root / "target", 2)


@pytest.fixture(scope="module")
def persons(facesets: tuple[Path, Path]) -> list[Person]:
    """The two in memory, at 64 px with six views each."""
    found = []
    for path in facesets:
        with Faceset.open(path) as faceset:
            found.append(load_person(faceset, 64, 6))
    return found


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preset cpu and saehd become networks that train in a moment; `models/test_models.py` knows the real sizes."""
    config = ViTSwapperConfig(64, EncoderConfig(32, 8, 32, 2, 2), (8, 16, 24, 32), 8)
    monkeypatch.setitem(PRESETS, "cpu", config)
    monkeypatch.setattr(trainer, "saehd_config", lambda kind, size: SAEHDConfig(kind, size, "ud", 32, 16, 16, 8))
