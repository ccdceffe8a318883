"""Sheets of what a model does: every row is there and shows what its name says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from test_frame import SHADES, TINY, face_at, frame_of, model_in
from test_members import awake

from lib_vitface.models.config import EncoderConfig, SAEHDConfig
from lib_vitface.models.encoder import ViTEncoder
from lib_vitface.swap import pictures
from lib_vitface.swap.frame import ModelSwapper
from lib_vitface.types import Pose

MOMENTS = [(frame_of(), face_at(Pose(yaw, 0, 0), 5, 150, 145)) for yaw in (-12, 0, 12)]
ROW = pictures.SIDE + pictures._LABEL_PX


def rows_of(sheet: np.ndarray) -> list[np.ndarray]:
    assert sheet.shape[0] % ROW == 0
    return [sheet[k + pictures._LABEL_PX : k + ROW] for k in range(0, sheet.shape[0], ROW)]


def test_rollout_is_the_product_of_the_layers_own_attention() -> None:
    """Against the attention that transformers itself gives."""
    torch.manual_seed(0)
    encoder = ViTEncoder(EncoderConfig(32, 8, 32, 3, 2)).eval()
    for name, weight in encoder.vit.named_parameters():
        if name.endswith(("q_proj.weight", "k_proj.weight", "query.weight", "key.weight")):
            weight.data.mul_(30)  # or all patches are asked for alike
    encoder.vit.set_attn_implementation("eager")
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        layers = encoder.vit(image * 2 - 1, output_attentions=True).attentions
    total = np.eye(17)[None]
    for layer in layers:
        total = (layer.mean(dim=1).numpy() * 0.5 + 0.5 * np.eye(17)) @ total
    share = total[:, 1:, 1:].mean(axis=1)
    found = encoder.rollout(image)
    np.testing.assert_allclose(found.flatten(1).numpy(), share / share.sum(axis=1, keepdims=True), atol=1e-5)
    assert not torch.allclose(found, encoder.attention(image), atol=1e-3)


def test_a_sheet_has_all_rows_of_its_model(tmp_path: Path) -> None:
    plain = ModelSwapper(model_in(tmp_path / "p", TINY), device="cpu")
    whole = ModelSwapper(model_in(tmp_path / "v", replace(TINY, volume_side=16), awake), device="cpu")
    auto = ModelSwapper(model_in(tmp_path / "s", SAEHDConfig("saehd-df", 64, "ud", 16, 8, 8, 4)), device="cpu")
    rows = {name: rows_of(pictures.sheet(s, MOMENTS)) for name, s in (("p", plain), ("v", whole), ("s", auto))}
    assert {name: len(found) for name, found in rows.items()} == {"p": 7, "v": 9, "s": 4}
    footage, attention, drawn, result, mask, depth, views = rows["p"]
    assert footage.shape == (pictures.SIDE, 3 * pictures.SIDE, 3)
    assert np.abs(footage.reshape(-1, 3) - np.array([90, 140, 90])).max() < 3
    middle = (slice(60, 90), slice(70, 90))
    # a fresh network adds nothing to what the memory drew: the source's shade, on the face
    assert np.abs(drawn[middle].reshape(-1, 3) - np.array(SHADES["source"])).mean() < 12
    assert np.abs(drawn[middle].astype(int) - result[middle]).mean() < 4
    assert mask[middle].mean() > 200 and (depth[:5] == 0).all() and depth[middle].mean() > 60
    assert attention.std() > 1 and np.abs(views.reshape(-1, 3)[5] - np.array(SHADES["source"])).max() < 12
    assert np.abs(rows["v"][6].astype(int) - footage).max() > 5 and rows["v"][7].shape == footage.shape


def test_depth_is_brighter_the_nearer_it_is(tmp_path: Path) -> None:
    ramp = np.linspace(-0.6, 0.4, 50, dtype=np.float32)[None].repeat(4, axis=0)
    found = pictures.depth_colours(ramp, ramp < 0.3).astype(int).sum(axis=2)[0]
    known = ramp[0] < 0.3
    assert (np.diff(found[known]) <= 0).mean() > 0.9 and found[0] > 400 and (found[~known] == 0).all()


def test_views_used_are_those_of_the_mixture(tmp_path: Path) -> None:
    """The memory was made of faces turned by -15, 0 and 15 degrees."""
    swapper = ModelSwapper(model_in(tmp_path / "p", TINY), device="cpu")
    for (frame, face), view in zip(MOMENTS, (0, 1, 2), strict=True):
        used = swapper.blended_from(frame, face)
        assert used[0][0] == view and abs(sum(share for _, share in used) - 1) < 1e-6
