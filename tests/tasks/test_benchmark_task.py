"""`benchmark`: its table and comparison on figures that are known, and the whole road with tiny networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import small_clone

from lib_vitface.errors import InputError
from lib_vitface.models import config as model_config
from lib_vitface.models.config import SAEHDConfig
from lib_vitface.provenance import audit
from lib_vitface.swap import person
from lib_vitface.tasks import benchmark
from lib_vitface.training import trainer

if TYPE_CHECKING:
    from small_clone import SmallClone

MACHINE = {"cpu": "Abacus", "cores": 1, "device": "cpu", "dtype": "float32", "torch": "9"}


def row(psnr: float, flicker: float, speed: float) -> dict[str, Any]:
    return {
        "training": {"samples_per_s": speed, "parameters": 1_234_567, "peak_memory_mb": 900},
        "redrawn": {"face_psnr_db": psnr, "face_ssim": 0.9},
        "swapped": {
            "identity_cosine": 0.8,
            "share_nearer_source": 1.0,
            "landmark_distance": 0.02,
            "flicker_ratio": flicker,
        },
        "swapping": {"frames_per_s": 4.0},
    }


def result(**models: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "vitface-benchmark", "version": "1", "machine": MACHINE, "minutes": 10.0, "resolution": 192,
        "unseen_from_s": 7.0, "models": models,
        "extraction": {"source": {"seconds": None, "frames_per_s": None, "peak_memory_mb": 300}},
    }  # fmt: skip


def test_the_table_shows_what_was_measured_and_what_was_not() -> None:
    failed = {**row(0, 0, 5.0), "redrawn": {"face_found": False}, "swapped": {"face_found": False}}
    lines = benchmark.table(result(cpu=row(31.25, 1.1, 8.0), saehd=failed), None).splitlines()
    cells = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]] for line in lines if "|" in line}
    head = [c.rstrip(" ↑↓") for c in cells["model"]]
    assert head == list(benchmark.COLUMNS)
    assert dict(zip(head, cells["cpu"], strict=True))["held out PSNR dB"] == "31.2"
    assert dict(zip(head, cells["cpu"], strict=True))["parameters"] == "1,234,567"
    assert dict(zip(head, cells["saehd"], strict=True))["identity"] == "–", "no face, no figure: never a 0"
    assert cells["source"] == ["–", "–", "300"]


def test_a_stored_result_is_compared_with(tmp_path: Path) -> None:
    now, before = result(cpu=row(33.0, 1.0, 8.0), new=row(1, 1, 1)), result(cpu=row(30.0, 2.0, 4.0))
    before["resolution"] = 128
    path = tmp_path / "b.json"
    path.write_text(json.dumps(before))
    found = benchmark.against(now, benchmark.read_stored(path))
    assert set(found["ratios"]) == {"cpu"}
    ratios = found["ratios"]["cpu"]
    assert (ratios["held out PSNR dB"], ratios["flicker"], ratios["samples/s"]) == (1.1, 0.5, 2.0)
    assert found["same"]["minutes"] and not found["same"]["resolution"]
    now["against"] = found
    text = benchmark.table(now, before)
    assert "| cpu (before) |" in text and "Not the same there: resolution." in text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "other", "models": {}}', "\x00", None])
def test_other_files_are_no_results(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=r"b\.json: .*name a benchmark\.json"):
        benchmark.read_stored(path)


def test_the_whole_road(
    clone_files: SmallClone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(model_config.PRESETS, "cpu", small_clone.TINY)
    monkeypatch.setattr(trainer, "saehd_config", lambda kind, size: SAEHDConfig(kind, size, "ud", 16, 8, 8, 4))
    # Nobody is alike enough, and that is minded of SAEHD only.
    checked = person.CheckedSwapper.fault
    monkeypatch.setattr(person, "ALIKE", 1.1)
    monkeypatch.setattr(person.CheckedSwapper, "fault", lambda s: "" if s.inner.learned_reference else checked(s))
    given = (
        "benchmark", "--source", clone_files.person, "--target", clone_files.clip, "--output", tmp_path / "out",
        "--models", "cpu", "saehd-df", "--minutes", "0.05", "--resolution", "64", "--seen", "0.5", "--device", "cpu",
    )  # fmt: skip
    code, found, _ = small_clone.run(capsys, tmp_path / "ws", *given)
    assert code == 0 and set(found["models"]) == {"cpu", "saehd-df"}
    vit = found["models"]["cpu"]
    assert vit["training"]["step"] > 0 and vit["training"]["samples_per_s"] > 0 and vit["swapping"]["frames_per_s"] > 0
    assert 0 < vit["training"]["wait_share"] < 1
    swapping = vit["swapping"]
    assert 0 < swapping["network_s"] < swapping["seconds"]["swap"]["work"] <= swapping["seconds"]["swap"]["wall"]
    assert swapping["wall_over_network"] == pytest.approx(
        swapping["seconds"]["swap"]["wall"] / swapping["network_s"], rel=0.01
    )
    # The reference alone redraws the target well from the first step on; the table must see it.
    assert vit["redrawn"]["face_psnr_db"] > 20 and vit["swapped"]["identity_cosine"] <= 1
    seconds = small_clone.FRAMES / float(small_clone.RATE)
    assert found["unseen_from_s"] == pytest.approx(seconds / 2, abs=0.05)
    assert found["extraction"]["target"]["frames_per_s"] > 0
    stored = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert stored["models"] == found["models"]
    text = (tmp_path / "out" / "benchmark.md").read_text()
    assert "| saehd-df |" in text
    poor = found["models"]["saehd-df"]
    for part in ("redrawn", "swapped"):
        assert "withheld" not in vit[part] and (tmp_path / "out" / f"cpu-{part}.mp4").exists()
        assert poor[part]["withheld"].startswith("The model draws a face that is neither that of")
        assert "landmark_distance" in poor[part] or poor[part]["face_found"] is False, "the figures stand"
        assert not (tmp_path / "out" / f"saehd-df-{part}.mp4").exists()
        assert poor[part]["withheld"] in [one["reason"] for one in audit.entries(tmp_path / "ws", "refused")]
    assert f"The video of saehd-df is withheld: {poor['redrawn']['withheld']}" in text and "video of cpu" not in text
