"""The plan's own size, 256 px in patches of 16 px through 12 layers, trains and swaps on a processor."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from made_faceset import SIDE
from test_trainer import options

from lib_vitface import device
from lib_vitface.faces import align, mesh
from lib_vitface.faces.landmarks import with_landmarks
from lib_vitface.models.checkpoint import open_model
from lib_vitface.swap.frame import ModelSwapper
from lib_vitface.training.trainer import LOG, train
from lib_vitface.types import Face

pytestmark = pytest.mark.slow
STEPS = 3


@pytest.mark.parametrize(
    "more", [{}, {"clip_frames": 2, "memory_views": 4, "local_features": "attention"}], ids=["plain", "parts"]
)
def test_standard_trains_steps_and_swaps(facesets: tuple[Path, Path], tmp_path: Path, more: dict[str, object]) -> None:
    model = tmp_path / "m"
    with device.PeakMemory() as memory:
        train(options(facesets, model, preset="standard", steps=STEPS, batch=2, views=3, averaging=0, **more))
    lines = [json.loads(line) for line in (model / LOG).read_text().splitlines()]
    assert len(lines) == STEPS and all(np.isfinite(line["total"]) for line in lines)
    assert lines[-1]["total"] < lines[0]["total"] * 3
    seconds = (lines[-1]["s"] - lines[0]["s"]) / (STEPS - 1)
    trained = round(memory.peak_bytes / 2**20)
    del memory
    swap = ModelSwapper(open_model(model), device="cpu")
    points = mesh.vertices() * [1, -1, -1] * 6 + [150, 145, 0]
    face = with_landmarks(Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32)), points.astype(np.float32))
    frame = np.full((300, 300, 3), 120, np.uint8)
    began = time.monotonic()
    (result,) = swap([frame], [face], [0.0])
    print(
        f"\n{more or 'plain'}: {seconds:.1f} s a step of 2, {trained} MB; swap {time.monotonic() - began:.1f} s a frame"
    )
    np.testing.assert_allclose(result.frame_to_crop, align.crop_matrix(face, result.image.shape[0]))
    assert result.image.std() > 1 and 0 < result.mask.mean() < 1
    assert SIDE < swap.size == 256
