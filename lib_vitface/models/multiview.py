"""What a person looks like from several sides, as a few tokens the decoder can ask."""

from __future__ import annotations

import torch
from torch import nn

from lib_vitface.models.local import Reading


class ViewMemory(nn.Module):
    """Fuses the ViT tokens of any number of views into `tokens` memory tokens by multi-head attention between all their patches.

    Learned questions are asked to the patches of all views at once (Jaegle et al. 2021, Perceiver, arXiv:2103.03206), so views
    may be added or left out after training. `read` lets a token map ask the memory.
    """

    def __init__(self, channels: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.questions = nn.Parameter(torch.randn(1, tokens, channels) * 0.5)
        self.norm, self.norm_asked, self.norm_after = (nn.LayerNorm(channels) for _ in range(3))
        self.attention = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.mix = nn.Sequential(nn.Linear(channels, channels * 2), nn.GELU(), nn.Linear(channels * 2, channels))
        self.read = Reading(channels, heads, channels)

    def fuse(self, tokens: torch.Tensor) -> torch.Tensor:
        """Memory `[P, tokens, C]` of P persons with V views each: `[P, V, C, h, w]`."""
        patches = self.norm_asked(tokens.permute(0, 1, 3, 4, 2).flatten(1, 3))
        questions = self.questions.expand(tokens.shape[0], -1, -1)
        found, _ = self.attention(self.norm(questions), patches, patches, need_weights=False)
        memory = questions + found
        return memory + self.mix(self.norm_after(memory))
