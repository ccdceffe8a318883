"""The rows of the ablation are settings that exist, and its differences are those of equal seeds."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from lib_vitface.errors import InputError
from lib_vitface.options import build
from lib_vitface.tasks.settings import BenchmarkOptions
from lib_vitface.training.settings import TrainOptions
from lib_vitface.training.trainer import make_config
from lib_vitface.types import Host

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
    rows = ablation.make_parser().parse_args(["--source", "a", "--target", "b", "--output", "c"]).rows
    assert set(rows) <= set(ablation.ROWS) and rows[0] == ablation.JUDGE and rows[-1] == "all"


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


def test_time_to_a_quality_is_read_from_the_saves() -> None:
    saves = [(10.0, 20.0), (20.0, 24.0), (30.0, 23.0), (40.0, 30.0)]
    assert ablation.seconds_to(saves, 22) == pytest.approx(15) and ablation.seconds_to(saves, 24) == pytest.approx(20)
    assert ablation.seconds_to(saves, 26.5) == pytest.approx(35) and ablation.seconds_to(saves, 31) is None
    assert ablation.seconds_to(saves, 19) == 10, "when it was first looked at"
    rows = {"saehd-df#0": {**row(25), "curve": [(60.0, 21.0)]}, "vit#0": {**row(30), "curve": saves}}
    assert ablation.summary(rows)["vit"]["s to saehd-df's quality"]["mean"] == pytest.approx(12.5)
    assert ablation.summary({"vit#0": rows["vit#0"]})["vit"]["s to saehd-df's quality"]["mean"] is None


def test_identity_from_the_side_is_held_against_that_from_the_front() -> None:
    bands = [
        {"yaw_deg": [0, 15], "frames": 50, "source_cosine": 0.8},
        {"yaw_deg": [15, 30], "frames": 50, "source_cosine": 0.1},
        {"yaw_deg": [30, 45], "frames": 3, "source_cosine": 0.6},
    ]
    found = ablation.figures_of({**row(30), "swapped": {"by_yaw": bands}})
    assert found["identity, side to front"] == pytest.approx(0.75)
    assert ablation.figures_of({**row(30), "swapped": {"by_yaw": bands[:2]}})["identity, side to front"] is None


class Made(ablation.Ablation):  # type: ignore[name-defined, misc]
    """An ablation whose rows are made up; one fails."""

    made: list[str]

    def facesets(self) -> dict[str, Any]:
        return {}

    def moments(self) -> list[Any]:
        return []

    def model(self, name: str) -> dict[str, Any]:
        self.made.append(name)
        if name == self.broken:
            raise InputError("broken")
        (self.folder / name).mkdir(exist_ok=True)
        (self.folder / name / ablation.JUDGED).write_text('{"s": 5, "psnr_db": 20}\n')
        return {"training": {"step": 1, "parameters": 2}, "redrawn": {}, "swapped": {}}


def test_a_queue_goes_on_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that fails or is stopped is tried again; one that is done is read."""
    monkeypatch.setattr(ablation, "show", lambda *_: None)
    (tmp_path / "clip.mp4").write_bytes(b"")
    values = {"source": tmp_path, "target": tmp_path / "clip.mp4", "output": tmp_path}
    bench = Made(build(BenchmarkOptions, values), Host(tmp_path), "cpu")
    bench.end_s, bench.made, bench.broken = 1.0, [], "+views#0"
    names = ["saehd-df#0", "+views#0", "vit#0"]
    first = ablation.queue(bench, names)
    assert (
        bench.made == names
        and list(first["rows"]) == ["saehd-df#0", "vit#0"]
        and first["failed"] == {"+views#0": "broken"}
    )
    bench.made, bench.broken = [], ""
    second = ablation.queue(bench, [*names, "+temporal#0"])
    assert bench.made == ["+views#0", "+temporal#0"] and len(second["rows"]) == 4 and second["failed"] == {}
    stored = json.loads((tmp_path / "ablation.json").read_text())
    assert stored["summary"] == second["summary"] and stored["waiting"] == []
    assert (tmp_path / "ablation.md").read_text().count("\n") == 6
    assert stored["summary"]["vit"]["s to saehd-df's quality"]["mean"] == 5
    settings = bench.settings("+renderer#3")
    assert settings["renderer"] and settings["seed"] == 3 and settings["save_minutes"] == pytest.approx(10 / 24)


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


def test_of_a_model_that_draws_somebody_else_nothing_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"vit#0": row(30), "poor#0": {**row(20), "swapped": {"withheld": "The model draws a stranger."}}}
    assert [ablation.withheld(one) for one in rows.values()] == ["", "The model draws a stranger."]
    shown: list[str] = []
    monkeypatch.setattr(ablation.steps, "publisher_of", lambda model, workspace: shown.append(model.name))
    ablation.show(ablation.Ablation.__new__(ablation.Ablation), "poor#0", ["vit#0"], [])
    assert shown == []
