"""A model trained under one version of `transformers` is read under another."""

from __future__ import annotations

import torch

from lib_vitface.models.config import EncoderConfig
from lib_vitface.models.encoder import ViTEncoder, _renamed

SMALL = EncoderConfig(image_size=32, patch_size=16, hidden_size=32, num_hidden_layers=2, num_attention_heads=2)


def test_weights_have_the_published_names() -> None:
    names = set(ViTEncoder(SMALL).state_dict())
    assert "vit.encoder.layer.1.attention.attention.query.weight" in names
    assert "vit.encoder.layer.0.output.dense.bias" in names
    assert "vit.encoder.layer.0.attention.output.dense.bias" in names
    assert not any("q_proj" in name or ".mlp." in name for name in names)


def test_both_namings_are_read() -> None:
    torch.manual_seed(0)
    first, image = ViTEncoder(SMALL).eval(), torch.rand(1, 3, 32, 32)
    wanted = first(image)
    for new in (False, True):
        state = {f"vit.{_renamed(name.removeprefix('vit.'), new)}": v for name, v in first.state_dict().items()}
        second = ViTEncoder(SMALL).eval()
        second.load_state_dict(state)
        assert torch.equal(second(image), wanted)
