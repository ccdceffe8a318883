"""A convolutional branch beside the ViT, and how the two become one."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class LocalEncoder(nn.Module):
    """The first four stages of `transformers.EfficientNetModel` (Tan and Le 2019, arXiv:1905.11946), down to an eighth.

    `width` multiplies EfficientNet-B0's channels.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        from transformers import EfficientNetConfig, EfficientNetModel

        model = EfficientNetModel(
            EfficientNetConfig(
                width_coefficient=width,
                depth_coefficient=1.0,
                kernel_sizes=[3, 3, 5, 3],
                in_channels=[32, 16, 24, 40],
                out_channels=[16, 24, 40, 80],
                depthwise_padding=[],
                strides=[1, 2, 2, 1],
                num_block_repeats=[1, 2, 2, 3],
                expand_ratios=[1, 6, 6, 6],
                drop_connect_rate=0.0,  # its random numbers would not survive a resumed training
            )
        )
        self.embeddings, self.encoder = model.embeddings, model.encoder
        for name in ("top_conv", "top_bn", "top_activation"):  # they make 1280 channels for a classifier
            setattr(self.encoder, name, nn.Identity())
        last: Any = self.encoder.blocks[-1]
        self.channels: int = last.projection.project_conv.out_channels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Features `[N, channels, H / 8, W / 8]` of images `[N, 3, H, W]` 0..1."""
        return self.encoder(self.embeddings(image * 2 - 1)).last_hidden_state


class ConcatFusion(nn.Module):
    """Local features averaged to the tokens' grid and put beside them; a matrix, zero at first, says what they add."""

    def __init__(self, channels: int, local: int) -> None:
        super().__init__()
        self.join = nn.Conv2d(channels + local, channels, 1)
        nn.init.zeros_(self.join.weight)
        assert self.join.bias is not None
        nn.init.zeros_(self.join.bias)

    def forward(self, tokens: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Tokens `[N, C, h, w]` joined by features `[N, L, H, W]`."""
        pooled = F.adaptive_avg_pool2d(features, (tokens.shape[2], tokens.shape[3]))
        return tokens + self.join(torch.cat([tokens, pooled.to(tokens.dtype)], dim=1))


class Reading(nn.Module):
    """Cross-attention: each place of a map asks a list of vectors, and what it finds is added. Adds nothing at first."""

    def __init__(self, channels: int, heads: int, asked: int) -> None:
        super().__init__()
        self.norm, self.norm_asked = nn.LayerNorm(channels), nn.LayerNorm(asked)
        self.attention = nn.MultiheadAttention(channels, heads, kdim=asked, vdim=asked, batch_first=True)
        nn.init.zeros_(self.attention.out_proj.weight)

    def forward(self, tokens: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        """Tokens `[N, C, h, w]` with what they read from `asked` `[N, K, A]`."""
        queries = self.norm(tokens.flatten(2).transpose(1, 2))
        answers = self.norm_asked(asked)
        found, _ = self.attention(queries, answers, answers, need_weights=False)
        return tokens + found.transpose(1, 2).unflatten(2, tokens.shape[-2:])


class AttentionFusion(nn.Module):
    """The ViT's tokens ask, the local features (with their places) answer."""

    def __init__(self, channels: int, local: int, heads: int) -> None:
        super().__init__()
        self.place = nn.Conv2d(2, local, 1)
        self.read = Reading(channels, heads, local)

    def forward(self, tokens: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Tokens `[N, C, h, w]` and features `[N, L, H, W]`, whose places are told on a scale from -1 to 1."""
        rows, columns = (torch.linspace(-1, 1, n, device=features.device) for n in features.shape[-2:])
        grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).to(features.dtype)
        placed = features + self.place(grid[None])
        return self.read(tokens, placed.flatten(2).transpose(1, 2))


class CoefficientTokens(nn.Module):
    """Numbers of a frame as a few tokens which each place of a map may ask."""

    count = 4

    def __init__(self, numbers: int, channels: int, heads: int) -> None:
        super().__init__()
        self.spread = nn.Linear(numbers, self.count * channels)
        self.read = Reading(channels, heads, channels)

    def forward(self, tokens: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Tokens `[N, C, h, w]` with what they read of `numbers` `[N, K]`."""
        return self.read(tokens, self.spread(numbers).unflatten(1, (self.count, -1)))


def make_fusion(kind: str, channels: int, local: int, heads: int) -> nn.Module:
    """`concat` or `attention`."""
    return ConcatFusion(channels, local) if kind == "concat" else AttentionFusion(channels, local, heads)
