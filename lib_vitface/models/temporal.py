"""Attention over the frames of a clip, at one place of the picture at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

_PERIODS_S = (0.08, 0.16, 0.32, 0.64, 1.28, 2.56)


class TemporalAttention(nn.Module):
    """The temporal half of divided space-time attention (Bertasius et al. 2021, TimeSformer, arXiv:2102.05095).

    Unlike there a frame asks the *other* frames of the clip only, those up to `window` places and not at its own time; so a
    frame without neighbours is left exactly as it is. How far apart two frames are is told by their true times in seconds. The
    last matrix starts at zero: a fresh network works on single frames.
    """

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(channels)
        self.ask = nn.Linear(channels, channels * 3, bias=False)
        self.out = nn.Linear(channels, channels, bias=False)
        self.far = nn.Linear(2 * len(_PERIODS_S), heads, bias=False)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.far.weight)

    def forward(self, x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        """Tokens `[B, T, n, C]` with what their neighbours in time add; `times` `[B, T]` in seconds."""
        length = x.shape[1]
        query, key, value = (
            part.unflatten(3, (self.heads, -1)).permute(0, 2, 3, 1, 4)
            for part in self.ask(self.norm(x)).chunk(3, dim=3)
        )  # [B, n, heads, T, c]
        gap = times[:, None, :] - times[:, :, None]  # from the asking frame to the asked one
        place = torch.arange(length, device=x.device)
        near = (place[None] - place[:, None]).abs() <= self.window
        allowed = (near & (gap != 0))[:, None, None]
        phase = gap[..., None].float() * (2 * torch.pi / torch.tensor(_PERIODS_S, device=x.device))
        bias = self.far(torch.cat([phase.sin(), phase.cos()], dim=-1)).permute(0, 3, 1, 2)[:, None]
        logits = query @ key.transpose(3, 4) / key.shape[-1] ** 0.5 + bias
        share = F.softmax(logits.float().masked_fill(~allowed, -1e9), dim=4) * allowed
        found = (share.to(value.dtype) @ value).permute(0, 3, 1, 2, 4).flatten(3)
        return x + self.out(found)
