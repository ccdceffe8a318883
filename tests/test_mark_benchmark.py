"""The benchmark of the mark: a run that ended goes on, stretches are different ones, and the tables count what the log holds."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from lib_vitface.assets import locate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import watermark
import watermark_material as material


class OnlyBright:
    """Marks by a grey level, reads whatever is bright in the middle; counts how often it was asked to mark."""

    name = "vitface"

    def __init__(self) -> None:
        self.marked = 0

    def strength(self, frames: Sequence[np.ndarray]) -> float:
        return 0.7

    def embed(self, image: np.ndarray, strength: float | None) -> np.ndarray:
        self.marked += 1
        return np.where(image < 255, image + 1, image).astype(np.uint8)

    def reads(self, images: Sequence[np.ndarray]) -> bool:
        return bool(images[0].mean() > 100)


def given(path: Path, **changed: object) -> argparse.Namespace:
    plain = {"clips": [], "pictures": [], "frames": 0, "drawn": 4, "seconds": 2.0, "stretches": 0, "others_pictures": 2}
    return argparse.Namespace(log=path, **{**plain, **changed})


def test_a_run_that_ended_goes_on(tmp_path: Path) -> None:
    path, method = tmp_path / "log.jsonl", OnlyBright()
    with pytest.raises(watermark.TimeIsUpError):
        watermark.measure(method, given(path), watermark.Log(path, minutes=0.0))
    assert method.marked == 1
    path.write_text(path.read_text() + '\n{"what": "picture", "method": "vitface", "na')  # killed while it wrote
    watermark.measure(method, given(path), watermark.Log(path, minutes=1e6))
    assert method.marked == 4, "three were left"
    log = watermark.Log(path, minutes=1e6)
    assert list(log.of("picture", "vitface")) == [f"drawn {k}" for k in range(4)]
    watermark.measure(method, given(path), log)
    assert method.marked == 4


def test_other_methods_see_some_of_the_same_pictures(tmp_path: Path) -> None:
    log, other = watermark.Log(tmp_path / "log.jsonl", 1e6), OnlyBright()
    watermark.measure(OnlyBright(), given(tmp_path), log)
    other.name = "blind-watermark"
    watermark.measure(other, given(tmp_path), log)
    assert list(log.of("picture", "blind-watermark")) == ["drawn 0", "drawn 3"]
    shown = watermark.report(log)
    assert "the same 2 for all" in shown and "| vitface | blind-watermark |" in shown


def test_the_table_counts_the_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [
        {"name": "a", "psnr_db": 44.0, "ssim": 0.99, "ms": 8.0, "read": {"JPEG 50": True, "PNG": True, "slow": False}},
        {"name": "b", "psnr_db": 41.0, "ssim": 0.98, "ms": 30.0, "read": {"JPEG 50": False, "PNG": True}},
        {"name": "c", "psnr_db": 43.0, "ssim": 0.97, "ms": 10.0, "read": {"JPEG 50": True, "PNG": True}},
    ]
    path.write_text("\n".join(json.dumps({"what": "picture", "method": "vitface", **line}) for line in lines))
    rows = watermark.table(watermark.Log(path, 1e6), "picture", ["vitface"], "abc").splitlines()
    assert rows[2:5] == ["| JPEG 50 | 2 of 3 |", "| PNG | 3 of 3 |", "| slow | 0 of 1 |"]
    assert rows[5:] == [
        "| PSNR, least | 41.0 dB |", "| PSNR, median | 43.0 dB |", "| SSIM, least | 0.9700 |", "| SSIM, median | 0.9800 |",
        "| time of a frame, median | 10 ms |",
    ]  # fmt: skip


def test_false_alarms_are_counted_to_the_asked_number(tmp_path: Path) -> None:
    log = watermark.Log(tmp_path / "log.jsonl", 1e6)
    options = argparse.Namespace(unmarked=[locate("sample_source")], most_unmarked=7)
    watermark.false_alarms(options, log)
    (line,) = log.of("unmarked", "vitface").values()
    assert (line["frames"], line["seen"], line["searched"], line["searched_seen"]) == (7, 0, 1, 0)
    assert 3 < line["score"] < 6 and line["least"] > 1e-7


def test_stretches_do_not_overlap() -> None:
    found = list(material.stretches([locate("sample_source")], seconds=0.5, most=3))
    assert [(name, len(frames)) for name, frames, _ in found] == [(f"single_face {k}", 15) for k in range(3)]
    firsts = [frames[0] for _, frames, _ in found]
    assert not np.array_equal(firsts[0], firsts[1]) and not np.array_equal(found[0][1][-1], firsts[1])


def test_every_unmarked_variant_is_another_picture() -> None:
    images = [image for _, image in itertools.islice(material.unmarked([locate("sample_source")]), 6)]
    assert len({image.tobytes() for image in images}) == len(material.UNMARKED) == 6
