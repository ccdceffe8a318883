"""Vision-Transformer encoder: the patch tokens of the driving face are the latent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the ViT. The defaults are the plan's standard: ViT-Base on 256 px with patches of 16 px, 12 layers."""

    image_size: int = 256
    patch_size: int = 16
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12


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

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Tokens as a map `[N, hidden, h, w]` of images `[N, 3, H, W]` 0..1; other sizes are resized to the ViT's own."""
        size = self.config.image_size
        if image.shape[-1] != size or image.shape[-2] != size:
            image = F.interpolate(image, size=(size, size), mode="bilinear", antialias=image.shape[-1] > size)
        tokens = self.vit(pixel_values=image * 2 - 1).last_hidden_state[:, 1:]
        side = size // self.config.patch_size
        return tokens.transpose(1, 2).reshape(image.shape[0], self.config.hidden_size, side, side)
