"""Every part and term of the vit that is off by default: trains, is logged by name, resumes exactly, costs nothing when off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat
from test_trainer import options, stop_at, weights

from lib_vitface.errors import Cancelled, CheckpointError, InputError
from lib_vitface.faces import mesh
from lib_vitface.models.checkpoint import back_up, open_model
from lib_vitface.models.config import PRESETS, ViTSwapperConfig
from lib_vitface.models.swapper import build_model
from lib_vitface.training.ensemble import average, soup
from lib_vitface.training.objective import Objective
from lib_vitface.training.team import Team
from lib_vitface.training.trainer import LOG, make_config, train

pytestmark = pytest.mark.usefixtures("tiny")

SETTINGS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "concat": ({"local_features": "concat"}, set()),
    "temporal": ({"clip_frames": 2, "weight_temporal": 5, "checkpointing": True}, {"temporal"}),
    "views": ({"memory_views": 4}, set()),
    "morphable": ({"morphable": "both"}, set()),
    "hidden": ({"mask_patches": 0.3, "mask_pattern": "random", "attention_guided": 1.0, "covers": 1,
                "cover_shapes": "objects"}, set()),
    "judges": ({"weight_geometry": 1, "weight_identity": 5, "dssim_scales": 3}, {"geometry", "identity"}),
    "volume": ({"renderer": True}, {"volume", "depth"}),
    "volume without depth": ({"renderer": True, "weight_depth": 0}, {"volume"}),
    "critic": ({"weight_gan": 0.1}, {"adversarial", "critic"}),
}  # fmt: skip
ALL = {
    "local_features": "attention", "clip_frames": 2, "memory_views": 4, "mask_patches": 0.3, "mask_pattern": "attention",
    "morphable": "film", "attention_guided": 0.5, "cover_shapes": "all", "weight_gan": 0.1, "weight_temporal": 1,
    "renderer": True,
}  # fmt: skip
USUAL = {"step", "s", "wait", "dssim", "l1", "eyes_mouth", "edge", "mask", "total"}


@pytest.mark.parametrize("name", SETTINGS)
def test_it_trains_and_names_its_terms(facesets: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    values, terms = SETTINGS[name]
    result = train(options(facesets, tmp_path / "m", steps=2, **values))
    lines = [json.loads(line) for line in (tmp_path / "m" / LOG).read_text().splitlines()]
    assert len(lines) == 2 and all(set(line) == USUAL | terms for line in lines)
    assert all(torch.isfinite(torch.tensor(list(line.values()))).all() for line in lines)
    assert result["held_out_loss"] > 0
    assert open_model(tmp_path / "m").config == make_config(options(facesets, tmp_path / "m", **values))


def test_the_vit_looks_at_the_picture_that_is_asked_for(facesets: tuple[Path, Path], tmp_path: Path) -> None:
    """Fewer patches, the same layers; a model goes on with the side it was begun with only."""
    plain, asked = (make_config(options(facesets, tmp_path / "m", encoder_resolution=side)) for side in (None, 49))
    assert isinstance(plain, ViTSwapperConfig) and isinstance(asked, ViTSwapperConfig)
    patch = plain.encoder.patch_size
    assert (
        plain.encoder == PRESETS["cpu"].encoder
        and asked.encoder.image_size == 49 // patch * patch != plain.encoder.image_size
    )
    tokens = [build_model(config).tokens(torch.rand(1, 3, 64, 64)) for config in (plain, asked)]
    assert [t.shape[-1] for t in tokens] == [c.encoder.image_size // patch for c in (plain, asked)]
    train(options(facesets, tmp_path / "m", steps=1, encoder_resolution=49))
    with pytest.raises(CheckpointError, match="another architecture"):
        train(options(facesets, tmp_path / "m", steps=2))
    assert train(options(facesets, tmp_path / "m", steps=2, encoder_resolution=49))["step"] == 2


def test_all_of_them_resume_exactly(facesets: tuple[Path, Path], tmp_path: Path) -> None:
    train(options(facesets, tmp_path / "whole", steps=3, **ALL))
    with pytest.raises(Cancelled):
        train(options(facesets, tmp_path / "parts", steps=3, **ALL), stop_at(1))
    train(options(facesets, tmp_path / "parts", steps=3, **ALL))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert [k for k in whole if not torch.equal(whole[k], parts[k])] == []
    views = open_model(tmp_path / "parts").arrays("views")
    face = open_model(tmp_path / "parts").arrays("morphable")
    assert face["expression"].shape == (16, 468, 3) and face["shape_source"].shape == face["shape_target"].shape == (
        12,
    )
    assert views["source"].shape == views["target"].shape == (4, 64, 64, 3)


def test_nothing_is_made_for_what_is_off(
    facesets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("was asked for")

    for name in (
        "lib_vitface.faces.frozen.FrozenMesh", "lib_vitface.faces.frozen.FrozenIdentity",
        "lib_vitface.training.objective.PatchCritic", "lib_vitface.training.objective.temporal_dssim",
        "lib_vitface.training.sampler.motion", "lib_vitface.models.encoder.ViTEncoder.attention",
        "lib_vitface.models.swapper.LocalEncoder", "lib_vitface.models.swapper.ViewMemory",
        "lib_vitface.models.encoder.TemporalAttention", "lib_vitface.training.data.Morphable.build",
        "lib_vitface.models.swapper.CoefficientTokens", "lib_vitface.models.decoder.Conditioning",
        "lib_vitface.models.swapper.FaceVolume", "lib_vitface.training.objective.depth_loss",
        "lib_vitface.training.sampler.atlas.depth_map",
    ):  # fmt: skip
        monkeypatch.setattr(name, refuse)
    train(options(facesets, tmp_path / "m", steps=1))
    assert set(json.loads((tmp_path / "m" / LOG).read_text())) == USUAL
    objective = Objective(options(facesets, tmp_path / "m", weight_mask=0, weight_l1=0), "vit", torch.device("cpu"))
    assert objective.critic is None and objective._judges == {} and objective.learn(Team()) == {}


def test_a_term_over_time_needs_clips(facesets: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--clip-frames 2"):
        train(options(facesets, tmp_path / "m", weight_temporal=1))


def test_a_file_gives_the_morphable_face(facesets: tuple[Path, Path], tmp_path: Path) -> None:
    mean = mesh.vertices() * 1e4
    axis = np.random.default_rng(0).normal(0, 1e3, (mean.size, 1))
    savemat(tmp_path / "basel.mat", {"shapeMU": mean.reshape(-1, 1), "shapePC": axis, "shapeEV": [[1.0]]})
    train(options(facesets, tmp_path / "m", steps=1, morphable="film", morphable_file=tmp_path / "basel.mat"))
    face = open_model(tmp_path / "m").arrays("morphable")
    np.testing.assert_allclose(face["shape"][0], axis.reshape(468, 3) / 1e4, atol=1e-3)
    assert (face["shape"][1:] == 0).all()


def test_views_are_shown(facesets: tuple[Path, Path], tmp_path: Path) -> None:
    shown = {}
    train(
        options(facesets, tmp_path / "m", steps=1, memory_views=4, preview_steps=1),
        publish=lambda path, image: shown.setdefault(path.name, image),
    )
    assert shown["views.png"].shape == (2 * 64, 4 * 64, 3)


def test_soup_is_the_best_average() -> None:
    """On a bowl: of 0, 4 and 10 the average nearest to 2.5 is asked for, step by step."""
    found = {str(v): {"a": torch.tensor([float(v)]), "n": torch.tensor(7)} for v in (0, 4, 10)}
    mixed, shares, loss = soup(found, lambda w: float((w["a"] - 2.5).square().sum()))
    assert mixed["a"].item() == pytest.approx(2.5, abs=0.2) and mixed["n"].item() == 7
    assert loss == pytest.approx((mixed["a"].item() - 2.5) ** 2) and set(shares) == {"0", "4"}
    only, shares, _ = soup(found, lambda w: float((w["a"] - 4).square().sum()))
    assert shares == {"4": 1.0} and only["a"].item() == 4
    assert average([found["0"], found["10"]], [3, 1])["a"].item() == pytest.approx(2.5)


def test_soup_of_backups_is_saved_and_no_worse(facesets: tuple[Path, Path], tmp_path: Path) -> None:
    model = tmp_path / "m"
    train(options(facesets, model, steps=2, learning_rate=1e-3))
    back_up(open_model(model))
    result = train(options(facesets, model, steps=5, learning_rate=1e-3, soup=True))
    shares = result["soup"]["shares"]
    assert set(shares) <= {"last", "best", "step-00000002"} and sum(shares.values()) == pytest.approx(1)
    assert result["soup"]["held_out_loss"] <= result["held_out_loss"] + 1e-6
    assert open_model(model).tensors("soup").keys() == weights(model).keys()
