"""The parts of the ViT model that are off by default: each does what it says, and nothing where it has nothing to do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from test_models import TINY, make_batch

from lib_vitface.models.config import EncoderConfig, ViTSwapperConfig, config_from_dict, config_to_dict
from lib_vitface.models.encoder import ViTEncoder
from lib_vitface.models.swapper import ViTSwapper
from lib_vitface.types import Batch

# the crop is as large as the ViT's picture, so that patches are not mixed by a resize
SAME = ViTSwapperConfig(32, EncoderConfig(32, 8, 32, 2, 2), (8, 8, 8, 8), 8)
PARTS = {
    "concat": {"fusion": "concat", "local_width": 0.25},
    "attention": {"fusion": "attention", "local_width": 0.25},
    "temporal": {"clip_frames": 3},
    "views": {"memory_tokens": 4},
    "film": {"condition": "film", "coefficients": 5},
    "tokens": {"condition": "tokens", "coefficients": 5},
    "volume": {"volume_side": 8},
    "all": {
        "volume_side": 8,
        "condition": "both",
        "coefficients": 5,
        "fusion": "attention",
        "local_width": 0.25,
        "clip_frames": 3,
        "memory_tokens": 4,
    },
}


def awake(config: ViTSwapperConfig) -> ViTSwapper:
    """A model whose layers that start at zero are random."""
    torch.manual_seed(1)
    model = ViTSwapper(config)
    for parameter in model.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        model.decoder.head.weight.mul_(300)  # or what the tokens say is hardly seen in a fresh model's picture
    return model.eval()


def with_views(batch: Batch, count: int = 3) -> Batch:
    torch.manual_seed(7)
    numbers = torch.rand(*batch.image.shape[:2], 5)
    heads = torch.eye(3, 4).expand(*numbers.shape[:2], 3, 4)
    return replace(batch, views=torch.rand(2, count, 3, 32, 32), coefficients=numbers, picture_to_face=heads)


@pytest.mark.parametrize("part", PARTS)
def test_gradients_reach_every_parameter(part: str) -> None:
    model = awake(replace(SAME, **PARTS[part])).train()
    output = model(with_views(make_batch(32, length=3)))
    assert output.image.shape == (2, 3, 3, 32, 32)
    total = output.image.square().mean() + output.mask.square().mean()
    for part_of_volume in (output.volume, output.depth):
        total = total + (0 if part_of_volume is None else part_of_volume.square().mean())
    total.backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    # a bias of the keys moves all logits of a softmax alike; torch keeps the three biases of its attention in one
    assert idle == []


@pytest.mark.parametrize("part", PARTS)
def test_a_fresh_part_changes_nothing(part: str) -> None:
    plain = ViTSwapper(SAME).eval()
    other = ViTSwapper(replace(SAME, **PARTS[part])).eval()
    assert other.load_state_dict(plain.state_dict(), strict=False).unexpected_keys == []
    batch = with_views(make_batch(32, length=3))
    assert torch.allclose(plain(batch).image, other(batch).image, atol=1e-6)


@pytest.mark.parametrize("part", PARTS)
def test_configuration_survives_json_and_old_ones_are_read(part: str) -> None:
    config = replace(SAME, **PARTS[part])
    assert config_from_dict(config_to_dict(config)) == config
    old = config_to_dict(TINY)
    for name in ("fusion", "local_width", "clip_frames", "memory_tokens", "condition", "coefficients", "volume_side"):
        del old[name]
    assert config_from_dict(old) == TINY


@pytest.mark.parametrize("part", ["none", *PARTS])
def test_a_masked_patch_changes_nothing_and_an_open_one_does(part: str) -> None:
    model = awake(replace(SAME, **PARTS.get(part, {})))
    batch = with_views(make_batch(32, clips=2, length=3))
    masked = torch.zeros(2, 3, 16, dtype=torch.bool)
    masked[0, 1, 5] = masked[1, 2, 10] = True
    image = batch.image.clone()
    image[0, 1, :, 8:16, 8:16] = torch.rand(3, 8, 8)
    image[1, 2, :, 16:24, 16:24] = 0.0
    hidden, changed = (model(replace(batch, image=i, masked=masked)).image for i in (batch.image, image))
    assert torch.equal(hidden, changed)
    seen = model(replace(batch, image=image)).image
    assert not torch.equal(model(batch).image[0], seen[0]) and not torch.equal(model(batch).image[1], seen[1])
    assert not torch.equal(hidden, model(batch).image)


def temporal() -> ViTSwapper:
    return awake(replace(SAME, clip_frames=2))


def frame_of(batch: Batch, t: int) -> Batch:
    parts = (batch.image, batch.reference, batch.reference_mask, batch.own_reference, batch.geometry)
    return Batch(*(v[:, t : t + 1] for v in parts), batch.identity)


def test_one_frame_goes_the_way_without_time() -> None:
    model, batch = temporal(), make_batch(32)
    plain = ViTSwapper(SAME).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if ".temporal." not in k})
    assert torch.equal(model(batch).image, plain(batch).image)
    assert torch.equal(model(replace(batch, times=torch.tensor([[3.0], [4.0]]))).image, plain(batch).image)


def test_a_frame_at_no_other_time_adds_nothing() -> None:
    """A clip that is filled up by repeating its frame is that frame."""
    model, batch = temporal(), make_batch(32, length=3)
    one = frame_of(batch, 0)
    repeated = replace(
        batch, **{k: getattr(one, k).expand(-1, 3, -1, -1, -1) for k in
                  ("image", "reference", "reference_mask", "own_reference", "geometry")}, times=torch.zeros(2, 3)
    )  # fmt: skip
    assert torch.allclose(model(repeated).image, model(one).image.expand(-1, 3, -1, -1, -1), atol=1e-5)


def test_only_frames_within_the_window_count() -> None:
    """Two layers with a window of one frame see two frames far."""
    model, batch = temporal(), make_batch(32, length=6)
    image = batch.image.clone()
    image[:, 0] = torch.rand(3, 32, 32)
    before, after = model(batch).image, model(replace(batch, image=image)).image
    assert not torch.allclose(before[:, 1], after[:, 1], atol=1e-4)
    assert not torch.allclose(before[:, 2], after[:, 2], atol=1e-4)
    assert torch.allclose(before[:, 3:], after[:, 3:], atol=1e-6)


def test_true_times_matter() -> None:
    model, batch = temporal(), make_batch(32, length=3)
    steady = replace(batch, times=torch.tensor([[0.0, 0.04, 0.08]] * 2))
    later = replace(batch, times=torch.tensor([[5.0, 5.04, 5.08]] * 2))
    slow = replace(batch, times=torch.tensor([[0.0, 0.3, 0.9]] * 2))
    first = model(steady).image
    assert torch.allclose(model(batch).image, first, atol=1e-5)  # 1/25 s is what is assumed
    assert torch.allclose(model(later).image, first, atol=1e-4)  # only differences count
    assert not torch.allclose(model(slow).image, first, atol=1e-3)


def test_checkpointing_gives_the_same_gradients() -> None:
    gradients = []
    for kept in (True, False):
        model, batch = temporal().train(), make_batch(32, length=2)
        model.encoder.checkpointing = not kept
        model(batch).image.square().mean().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(g, gradients[1][n], atol=1e-6) for n, g in gradients[0].items())


def test_views_of_the_person_and_no_other_are_read() -> None:
    model, batch = awake(replace(SAME, memory_tokens=4)), with_views(make_batch(32, clips=2))
    assert batch.views is not None
    views = batch.views.clone()
    views[0, 1] = 0.0
    before, after = model(batch).image, model(replace(batch, views=views)).image
    assert not torch.allclose(before[0], after[0], atol=1e-5) and torch.allclose(before[1], after[1], atol=1e-6)


def test_memory_is_what_its_views_make_of_it_in_any_order_and_number() -> None:
    model, batch = awake(replace(SAME, memory_tokens=4)), with_views(make_batch(32, clips=2), 5)
    assert batch.views is not None
    memory = model.remember(batch.views)
    assert memory.shape == (2, 4, 32)
    assert torch.allclose(model(batch).image, model(replace(batch, views=None, memory=memory)).image, atol=1e-6)
    assert torch.allclose(memory, model.remember(batch.views[:, torch.tensor([4, 2, 0, 1, 3])]), atol=1e-5)
    assert not torch.allclose(memory, model.remember(batch.views[:, :4]), atol=1e-4)


@pytest.mark.parametrize("part", ["none", "concat", "attention", "views"])
def test_it_runs_at_another_size(part: str) -> None:
    model = awake(replace(SAME, **PARTS.get(part, {})))
    model.run_at(48)
    batch = make_batch(48)
    torch.manual_seed(7)
    output = model(replace(batch, views=torch.rand(2, 2, 3, 48, 48)))
    assert output.image.shape == (2, 1, 3, 48, 48) and model.encoder.side == 6
    model.run_at(32)
    assert model.encoder.side == 4


def test_positions_are_interpolated_as_a_picture_is() -> None:
    """Positions that are a plane over the patches stay that plane at twice the size, but for the overshoot of cubic curves."""
    encoder = ViTEncoder(EncoderConfig(64, 8, 4, 1, 2)).eval()
    embeddings = encoder.vit.embeddings
    ramp = torch.arange(8.0).repeat(8, 1).flatten()
    with torch.no_grad():
        embeddings.position_embeddings.zero_()
        embeddings.position_embeddings[0, 1:, 0] = ramp
        embeddings.patch_embeddings.projection.weight.zero_()
        embeddings.patch_embeddings.projection.bias.zero_()
    encoder.size = 128
    places = encoder._embed(torch.rand(1, 3, 128, 128))[0, 1:, 0].unflatten(0, (16, 16))
    expected = (torch.arange(16.0) + 0.5) / 2 - 0.5
    assert torch.allclose(places[:, 3:-3], expected[3:-3].expand(16, -1), atol=0.06)


def test_attention_is_where_the_last_layer_looks() -> None:
    """Against the layer's own arithmetic: queries and keys as matrices, softmax, mean."""
    encoder = ViTEncoder(EncoderConfig(32, 8, 32, 1, 2)).eval()
    image = torch.rand(2, 3, 32, 32)
    found = encoder.attention(image)
    state = {k.split("encoder.layer.0.")[-1]: v for k, v in encoder.state_dict().items()}
    x = torch.nn.functional.layer_norm(
        encoder._embed(image), (32,), state["layernorm_before.weight"], state["layernorm_before.bias"], 1e-12
    )
    total = torch.zeros(2, 16)
    for head in (slice(0, 16), slice(16, 32)):
        query, key = (
            x[:, 1:] @ state[f"attention.attention.{n}.weight"][head].T + state[f"attention.attention.{n}.bias"][head]
            for n in ("query", "key")
        )
        total += (query @ key.transpose(1, 2) / 4).softmax(dim=2).mean(dim=1) / 2
    assert torch.allclose(found.flatten(1), total, atol=1e-5)
    assert torch.allclose(found.sum((1, 2)), torch.ones(2), atol=1e-5)


def test_the_volume_is_turned_with_the_head_and_belongs_to_the_person() -> None:
    model, batch = awake(replace(SAME, volume_side=8)), with_views(make_batch(32, clips=2))
    assert batch.picture_to_face is not None
    output = model(batch)
    assert output.volume is not None and output.depth is not None
    assert output.volume.shape == (2, 1, 3, 8, 8) and output.depth.shape == (2, 1, 1, 8, 8)
    turn = torch.tensor([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]])
    heads = batch.picture_to_face.clone()
    heads[0, :, :, :3] = turn
    turned = model(replace(batch, picture_to_face=heads))
    for before, after in ((output.image, turned.image), (output.volume, turned.volume), (output.depth, turned.depth)):
        assert not torch.allclose(before[0], after[0], atol=1e-5) and torch.allclose(before[1], after[1], atol=1e-6)
    swapped = model(replace(batch, identity=1 - batch.identity))
    assert not torch.allclose(swapped.depth, output.depth, atol=1e-5)
    assert model(replace(batch, picture_to_face=None)).volume is None


@pytest.mark.parametrize("part", ["film", "tokens"])
def test_numbers_of_a_frame_change_that_frame_alone(part: str) -> None:
    model, batch = awake(replace(SAME, **PARTS[part])), with_views(make_batch(32, length=2))
    assert batch.coefficients is not None
    numbers = batch.coefficients.clone()
    numbers[1, 0, 3] += 1
    before, after = model(batch).image, model(replace(batch, coefficients=numbers)).image
    changed = (before - after).abs().amax(dim=(2, 3, 4)) > 1e-4
    assert changed.tolist() == [[False, False], [True, False]]
