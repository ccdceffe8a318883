"""The base that comes with the program: its card tells the truth, and a training of its preset begins with it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from lib_vitface.models.config import PRESETS
from lib_vitface.models.swapper import build_model
from lib_vitface.options import build
from lib_vitface.training import trainer
from lib_vitface.training.base import shipped_base
from lib_vitface.training.settings import TrainOptions

ROOT = Path(__file__).resolve().parents[2]
CARD = (ROOT / "models" / "base.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def base() -> Path:
    path = shipped_base("cpu")
    assert path == ROOT / "models" / "base-cpu.safetensors"
    return path


def test_its_card_names_it_and_it_is_small(base: Path) -> None:
    assert hashlib.sha256(base.read_bytes()).hexdigest() in CARD
    assert base.stat().st_size <= 40e6
    with safe_open(base, "pt") as file:
        values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    assert {v.dtype for v in values.values() if v.is_floating_point()} == {torch.float16}
    assert all(torch.isfinite(v.float()).all() for v in values.values())
    assert shipped_base("standard") is None


@pytest.mark.parametrize("resolution", [None, 128])
def test_a_training_of_its_preset_begins_with_it(base: Path, tmp_path: Path, resolution: int | None) -> None:
    values = {"source": tmp_path, "target": tmp_path, "model": tmp_path / "m", "resolution": resolution}
    options = build(TrainOptions, values)
    model = build_model(trainer.make_config(options))
    facts = trainer._start(options, model)
    assert facts is not None and facts["file"] == str(base) and facts["share"] == 1
    for fact in (f"{facts['step']} steps", facts["licence"], f"{facts['held_out_loss']:.3f}"):
        assert fact in CARD
    assert facts["people"] == 5 and options.preset == facts["preset"] == "cpu"
    assert model.config.widths == PRESETS["cpu"].widths
    with safe_open(base, "pt") as file:
        name = "decoder.tell.0.table.weight"
        assert torch.equal(model.state_dict()[name][1], file.get_tensor(name)[0].float())  # both persons alike
