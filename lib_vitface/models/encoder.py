"""Vision-Transformer encoder: the patch tokens of the driving face are the latent."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lib_vitface.models.config import EncoderConfig

# transformers 5 names the layers of a ViT otherwise than version 4 and the published checkpoints do. Ours have the latter's
# names, so that a model trained under one is read under the other.
_PUBLISHED_AND_NEW = (
    ("encoder.layer.", "layers."),
    (".attention.attention.query.", ".attention.q_proj."),
    (".attention.attention.key.", ".attention.k_proj."),
    (".attention.attention.value.", ".attention.v_proj."),
    (".attention.output.dense.", ".attention.o_proj."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
)


class ViTEncoder(nn.Module):
    """`transformers.ViTModel` without its classification parts (Dosovitskiy et al. 2020, arXiv:2010.11929)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        from transformers import ViTConfig, ViTModel  # seconds to import: only where a model is built

        self.config = config
        self.vit = ViTModel(
            ViTConfig(
                image_size=config.image_size,
                patch_size=config.patch_size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.num_hidden_layers,
                num_attention_heads=config.num_attention_heads,
                intermediate_size=config.hidden_size * 4,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            ),
            add_pooling_layer=False,
        )
        self._new_names = any(".q_proj." in name for name, _ in self.vit.named_parameters())
        self._register_state_dict_hook(_publish_names)
        self._register_load_state_dict_pre_hook(self._take_names)

    def _take_names(self, state: MutableMapping[str, Any], prefix: str, *_: object) -> None:
        """Weights with either naming come in with that of the installed `transformers`."""
        _rename(state, f"{prefix}vit.", new=self._new_names)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Tokens as a map `[N, hidden, h, w]` of images `[N, 3, H, W]` 0..1; other sizes are resized to the ViT's own."""
        size = self.config.image_size
        if image.shape[-1] != size or image.shape[-2] != size:
            image = F.interpolate(image, size=(size, size), mode="bilinear", antialias=image.shape[-1] > size)
        tokens = self.vit(pixel_values=image * 2 - 1).last_hidden_state[:, 1:]
        side = size // self.config.patch_size
        return tokens.transpose(1, 2).reshape(image.shape[0], self.config.hidden_size, side, side)


def _publish_names(module: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: object) -> None:
    _rename(state, f"{prefix}vit.", new=False)


def _rename(state: MutableMapping[str, Any], prefix: str, *, new: bool) -> None:
    """Gives the entries below `prefix` their new or their published names, in place and in the same order."""
    for name in list(state):
        value = state.pop(name)
        if name.startswith(prefix):
            name = prefix + _renamed(name[len(prefix) :], new)
        state[name] = value


def _renamed(name: str, new: bool) -> str:
    for published, other in _PUBLISHED_AND_NEW:
        before, after = (published, other) if new else (other, published)
        name = name.replace(before, after)
    return name
