"""The rows of the ablation are settings that exist, and its differences are those of equal seeds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from lib_vitface.options import build
from lib_vitface.training.settings import TrainOptions
from lib_vitface.training.trainer import make_config

PATH = Path(__file__).resolve().parent.parent / "benchmarks" / "ablation.py"
spec = importlib.util.spec_from_file_location("ablation", PATH)
assert spec is not None and spec.loader is not None
ablation: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ablation)


def test_every_row_is_a_setting_of_its_own(tmp_path: Path) -> None:
    made = []
    for row in ablation.ROWS.values():
        options = build(TrainOptions, {"source": tmp_path, "target": tmp_path, "model": tmp_path, **row})
        make_config(options)
        made.append(options)
    assert len(set(map(repr, made))) == len(made)
    assert set(ablation.make_parser().parse_args(["--source", "a", "--target", "b", "--output", "c"]).rows) == set(
        ablation.ROWS
    )


def row(psnr: float, identity: float | None = 0.9) -> dict[str, Any]:
    return {
        "training": {"step": 10, "parameters": 5},
        "redrawn": {"figures": {"held out PSNR dB": psnr}},
        "swapped": {"figures": {"identity (dlib)": identity}},
    }


def test_differences_are_those_of_equal_seeds() -> None:
    rows = {"vit#0": row(30), "+views#0": row(31), "vit#1": row(34), "+views#1": row(34.5, None), "saehd-df#0": row(25)}
    found = ablation.summary(rows)
    views = found["+views"]["held out PSNR dB"]
    assert (views["mean"], views["difference"]) == (pytest.approx(32.75), pytest.approx(0.75))
    assert views["spread"] == pytest.approx(0.3536, abs=1e-3)
    assert found["vit"]["held out PSNR dB"] == {"mean": 32, "difference": None, "spread": None}
    assert found["saehd-df"]["held out PSNR dB"] == {"mean": 25, "difference": -5, "spread": None}
    assert found["+views"]["identity (dlib)"]["mean"] == 0.9 and found["+views"]["SSIM"]["mean"] is None
    lines = ablation.table(found).splitlines()
    assert len(lines) == 5 and "32.75 (+0.75 ± 0.4)" in lines[3]


def test_figures_are_picked_out_of_an_evaluation() -> None:
    bands = [
        {"yaw_deg": [0, 15], "frames": 50, "source_cosine": 0.9},
        {"yaw_deg": [30, 45], "frames": 3, "source_cosine": 0.8},
        {"yaw_deg": [45, 60], "frames": 1, "source_cosine": 0.4},
    ]
    measured = {"identity": {"by_yaw": bands}, "geometry": {"pose_error_deg": {"median": 2}}}
    assert ablation.pick(measured, ("identity", "by_yaw")) == pytest.approx(0.7)
    assert ablation.pick({"identity": {"by_yaw": bands[:1]}}, ("identity", "by_yaw")) is None
    assert ablation.pick(measured, ("geometry", "pose_error_deg", "median")) == 2
    assert ablation.pick(measured, ("likeness", "face_psnr_db", "median")) is None
