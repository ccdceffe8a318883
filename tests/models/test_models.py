"""Sizes, shapes and gradients of the networks."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from lib_vitface.errors import CheckpointError
from lib_vitface.models.config import (
    PRESETS,
    EncoderConfig,
    SAEHDConfig,
    ViTSwapperConfig,
    config_from_dict,
    config_to_dict,
    saehd_config,
)
from lib_vitface.models.encoder import ViTEncoder
from lib_vitface.models.saehd import SAEHD
from lib_vitface.models.swapper import ViTSwapper, build_model
from lib_vitface.types import Batch

TINY = ViTSwapperConfig(64, EncoderConfig(32, 8, 32, 2, 2), (8, 16, 24, 32), 8)
OWN = replace(TINY, own_decoders=True)


def make_batch(size: int, clips: int = 2, length: int = 1) -> Batch:
    torch.manual_seed(0)
    shape = (clips, length)
    return Batch(
        torch.rand(*shape, 3, size, size),
        torch.rand(*shape, 3, size, size),
        torch.rand(*shape, 1, size, size),
        torch.rand(*shape, 3, size, size),
        torch.rand(*shape, 2, size, size),
        torch.arange(clips) % 2,
    )


def parameters(model: torch.nn.Module) -> float:
    return sum(p.numel() for p in model.parameters()) / 1e6


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        (saehd_config("saehd-df", 128), 41.4),
        (saehd_config("saehd-liae", 128), 82.4),
        (saehd_config("saehd-liae", 256), 145.3),
    ],
)
def test_saehd_has_the_published_sizes(config: SAEHDConfig, millions: float) -> None:
    with torch.device("meta"):
        assert parameters(SAEHD(config)) == pytest.approx(millions, abs=0.05)


def test_standard_preset_is_the_plans_vit() -> None:
    with torch.device("meta"):
        encoder = ViTEncoder(PRESETS["standard"].encoder)
    vit = encoder.vit.config
    assert (vit.image_size, vit.patch_size, vit.num_hidden_layers) == (256, 16, 12)
    assert parameters(encoder) == pytest.approx(86, abs=1)  # ViT-Base


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_builds(preset: str) -> None:
    with torch.device("meta"):
        assert parameters(build_model(PRESETS[preset])) > 1


@pytest.mark.parametrize(
    "config",
    [TINY, SAEHDConfig("saehd-df", 64, "ud", 16, 8, 8, 4), SAEHDConfig("saehd-liae", 64, "u", 16, 8, 8, 4)],
    ids=["vit", "df-ud", "liae-u"],
)
@pytest.mark.parametrize("length", [1, 3])
def test_shapes_and_ranges(config: ViTSwapperConfig | SAEHDConfig, length: int) -> None:
    output = build_model(config)(make_batch(64, length=length))
    assert output.image.shape == (2, length, 3, 64, 64)
    assert output.mask.shape == (2, length, 1, 64, 64)
    assert 0 <= float(output.mask.min()) <= float(output.mask.max()) <= 1


@pytest.mark.parametrize(
    "config",
    [TINY, OWN, SAEHDConfig("saehd-df", 64, "ud", 16, 8, 8, 4), SAEHDConfig("saehd-liae", 64, "ud", 16, 8, 8, 4)],
    ids=["vit", "own", "df", "liae"],
)
def test_gradients_reach_every_parameter(config: ViTSwapperConfig | SAEHDConfig) -> None:
    model = build_model(config)
    for parameter in model.parameters():  # zero-initialised layers would stop gradients at first
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.02)
    output = model(make_batch(64))
    (output.image.square().mean() + output.mask.square().mean()).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert idle == []


def test_fresh_swapper_gives_the_reference_and_no_cover() -> None:
    batch = make_batch(64)
    output = ViTSwapper(TINY)(batch)
    assert (output.image - batch.reference).abs().max() < 0.05
    assert float(output.mask.min()) > 0.8


def test_how_the_target_is_drawn_changes_nothing_of_the_source() -> None:
    torch.manual_seed(2)
    config = replace(OWN, persons=4)
    model, batch = ViTSwapper(config).eval(), make_batch(64, clips=5, length=2)
    batch = replace(batch, identity=torch.tensor([0, 1, 3, 1, 2]))  # from 2 on: further facesets of the source
    before = model(batch).image
    with torch.no_grad():
        assert model.target_decoder is not None
        for parameter in model.target_decoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    after = model(batch).image
    changed = (before != after).flatten(1).any(dim=1)
    assert changed.tolist() == [False, True, False, True, False]
    # each picture is what it would be by itself, so none got another one's place
    for k in range(5):
        alone = replace(
            batch,
            **{n: getattr(batch, n)[k : k + 1] for n in ("image", "reference", "reference_mask", "own_reference")},
            geometry=batch.geometry[k : k + 1],
            identity=batch.identity[k : k + 1],
        )
        torch.testing.assert_close(model(alone).image[0], after[k], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("whom", [0, 1, 2])
def test_who_is_drawn_alone_is_drawn_the_same_with_less(whom: int) -> None:
    torch.manual_seed(3)
    whole = ViTSwapper(replace(OWN, persons=3)).eval()
    batch = replace(make_batch(64), identity=torch.full((2,), whom))
    alone = deepcopy(whole)
    alone.draw_only(whom)
    torch.testing.assert_close(alone(batch).image, whole(batch).image, rtol=0, atol=0)
    assert parameters(alone) < 0.8 * parameters(whole)
    shared = ViTSwapper(TINY)
    shared.draw_only(1)
    assert parameters(shared) == parameters(ViTSwapper(TINY))


def test_attention_that_trains_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor they are worked out in two ways; where transformers has both, the fused one is not used to train."""
    torch.manual_seed(0)
    encoder = ViTEncoder(TINY.encoder).eval()
    x = torch.rand(2, 3, encoder.size, encoder.size)
    fused, real = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: fused.append(1) or real(*a, **k))
    expected, ran = encoder(x), len(fused)
    torch.testing.assert_close(encoder.train()(x), expected, rtol=1e-4, atol=1e-5)
    assert len(fused) == ran
    torch.testing.assert_close(encoder.eval()(x), expected, rtol=0, atol=0)
    assert len(fused) == 2 * ran


def test_no_colour_of_the_driving_face_passes_the_mask_network() -> None:
    model, batch = ViTSwapper(TINY), make_batch(64)
    tokens = model.encoder(batch.image.flatten(0, 1))
    direct = model.decoder(
        *(t.flatten(0, 1) for t in (batch.reference, batch.reference_mask, batch.geometry)), tokens, batch.identity
    )
    assert torch.equal(direct, model(batch).image.flatten(0, 1))


def test_a_clip_is_as_good_as_its_frames() -> None:
    model, batch = ViTSwapper(TINY).eval(), make_batch(64, clips=2, length=3)
    whole = model(batch).image
    for t in range(3):
        frame = Batch(
            *(
                v[:, t : t + 1]
                for v in (batch.image, batch.reference, batch.reference_mask, batch.own_reference, batch.geometry)
            ),
            batch.identity,
        )
        assert torch.allclose(model(frame).image[:, 0], whole[:, t], atol=1e-5)


def test_liae_source_uses_only_the_shared_bottleneck() -> None:
    model = SAEHD(SAEHDConfig("saehd-liae", 64, "ud", 16, 8, 8, 4))
    batch = make_batch(64, clips=2)
    before = model(batch).image
    torch.nn.init.zeros_(model.inter[1].spread.weight)
    after = model(batch).image
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


@pytest.mark.parametrize(
    "config", [*PRESETS.values(), saehd_config("saehd-df", 160)], ids=lambda c: f"{c.kind}-{c.resolution}"
)
def test_configuration_survives_json(config: ViTSwapperConfig | SAEHDConfig) -> None:
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config


@pytest.mark.parametrize(
    "values", [{"kind": "gan"}, {}, {"kind": "vit", "encoder": {"heads": 3}}, {"kind": "saehd-df", "x": 1}]
)
def test_unknown_configuration_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(CheckpointError):
        config_from_dict(values)
