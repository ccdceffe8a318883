"""Model folders: whole at every moment, read without running anything, and refused with the reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lib_vitface.errors import CheckpointError, OutputError
from lib_vitface.models import checkpoint as folders
from lib_vitface.models.checkpoint import INDEX, Checkpoint, back_up, open_model, save_model
from lib_vitface.models.config import EncoderConfig, ViTSwapperConfig

TINY = ViTSwapperConfig(64, EncoderConfig(32, 8, 32, 2, 2), (8, 16, 24, 32), 8)


def saved(folder: Path, step: int = 3) -> Checkpoint:
    fresh = Checkpoint(folder, TINY, "m1", step, 1.5, "c1", {"note": [1, 2]})
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2], dtype=torch.int64)}
    return save_model(fresh, {"weights": weights, "memory": {"x": np.arange(4, dtype=np.uint8)}})


def test_a_model_comes_back(tmp_path: Path) -> None:
    saved(tmp_path / "m")
    found = open_model(tmp_path / "m")
    assert (found.config, found.model_id, found.step, found.elapsed_s, found.consent_id) == (TINY, "m1", 3, 1.5, "c1")
    assert found.notes == {"note": [1, 2]}
    assert torch.equal(found.tensors("weights")["a"], torch.arange(6.0).reshape(2, 3))
    assert found.tensors("weights")["b"].dtype == torch.int64
    np.testing.assert_array_equal(found.arrays("memory")["x"], np.arange(4))


def test_a_later_save_keeps_other_parts_and_sweeps_old_files(tmp_path: Path) -> None:
    first = saved(tmp_path / "m")
    (tmp_path / "m" / ".weights.1.tmp").touch()
    save_model(replace(first, step=9), {"weights": {"a": torch.ones(1)}})
    found = open_model(tmp_path / "m")
    assert found.step == 9 and found.files["memory"] == "memory-00000003.safetensors"
    assert torch.equal(found.tensors("weights")["a"], torch.ones(1)) and len(found.arrays("memory")["x"]) == 4
    names = sorted(p.name for p in (tmp_path / "m").iterdir())
    assert names == ["memory-00000003.safetensors", INDEX, "weights-00000009.safetensors"]


@pytest.mark.parametrize("dies", ["weights-00000009.safetensors", INDEX])
def test_a_save_that_fails_leaves_the_old_model_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: str
) -> None:
    first = saved(tmp_path / "m")
    real = folders._replace

    def full(path: Path, data: bytes) -> None:
        if path.name == dies:
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(folders, "_replace", full)
    with pytest.raises(OutputError, match=r"No space left.*the last save is kept"):
        save_model(replace(first, step=9), {"weights": {"a": torch.ones(1)}})
    assert open_model(tmp_path / "m").step == 3
    assert torch.equal(open_model(tmp_path / "m").tensors("weights")["a"], torch.arange(6.0).reshape(2, 3))


def test_what_is_no_model_or_damaged_is_named(tmp_path: Path) -> None:
    made = saved(tmp_path / "m")
    index = json.loads((tmp_path / "m" / INDEX).read_text())
    cases = {
        "is not a ViTFace model": {**index, "format": "other"},
        "format version 99": {**index, "version": 99},
        "damaged": {k: v for k, v in index.items() if k != "step"},
        "unknown kind": {**index, "config": {"kind": "gan"}},
        "outside its folder": {**index, "files": {"weights": "../weights.safetensors"}},
    }
    for words, values in cases.items():
        (tmp_path / "m" / INDEX).write_text(json.dumps(values))
        with pytest.raises(CheckpointError, match=words):
            open_model(tmp_path / "m")
    with pytest.raises(CheckpointError, match="holds no model"):
        open_model(tmp_path / "gone")
    path = tmp_path / "m" / made.files["weights"]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for read in (made.tensors, made.arrays):
        with pytest.raises(CheckpointError, match="checksum is wrong"):
            read("weights")
    path.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        made.tensors("weights")
    with pytest.raises(CheckpointError, match="no 'best'"):
        made.tensors("best")


def test_backups_are_models(tmp_path: Path) -> None:
    made = saved(tmp_path / "m")
    (tmp_path / "m" / "backups" / ".step-00000003").mkdir(parents=True)  # of a backup that was cut short
    place = back_up(made)
    assert place.name == "step-00000003" and back_up(made) == place
    assert torch.equal(open_model(place).tensors("weights")["b"], torch.tensor([1, 2]))
    assert [p.name for p in place.parent.iterdir()] == ["step-00000003"]
