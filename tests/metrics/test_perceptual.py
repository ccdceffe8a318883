"""LPIPS with a small network of the file's own surface in the place of VGG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lib_vitface.errors import InputError, MissingDependencyError
from lib_vitface.metrics import perceptual
from lib_vitface.metrics.evaluate import evaluate
from lib_vitface.metrics.settings import EvaluateOptions
from lib_vitface.options import build


class _StandIn(torch.nn.Module):
    """The surface of the file: pictures 0..255 in, features out, unscaled ones where LPIPS is asked for."""

    def forward(self, x: torch.Tensor, resize_images: bool = True, return_lpips: bool = False) -> torch.Tensor:
        if resize_images:
            x = torch.nn.functional.interpolate(x, size=[8, 8])
        features = x.flatten(1) / 255
        if return_lpips:
            return features / float(features.shape[1]) ** 0.5
        return features


def test_it_is_loaded_from_its_file_and_asked_for_lpips_at_full_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perceptual, "models_folder", lambda: tmp_path)
    with pytest.raises(MissingDependencyError, match=r"vgg16\.pt \(553 MB\): put it into"):
        perceptual.Lpips()
    (tmp_path / perceptual.LPIPS_FILE).write_bytes(b"something else")
    with pytest.raises(MissingDependencyError, match="not the network of LPIPS"):
        perceptual.Lpips()
    torch.jit.script(_StandIn()).save(str(tmp_path / perceptual.LPIPS_FILE))
    distance = perceptual.Lpips()
    a, b = (np.random.default_rng(k).integers(0, 256, (96, 80, 3)).astype(np.uint8) for k in range(2))
    expected = float((((a.astype(np.float64) - b) / 255) ** 2).mean())
    assert distance(a, b) == pytest.approx(expected, rel=1e-4)
    assert distance(a, a) == 0
    with pytest.raises(ValueError, match="one size"):
        distance(a, b[:50])


def test_without_the_truth_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    values = {"source": tmp_path, "target": tmp_path / "a.mp4", "result": tmp_path / "b.mp4", "lpips": True}
    with pytest.raises(InputError, match=r"--lpips .* --self-reenactment"):
        evaluate(build(EvaluateOptions, values))
