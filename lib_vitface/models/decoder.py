"""Decoder that corrects a drawn reference by what the encoder saw, and a small network that finds what covers the face."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from lib_vitface.device import no_autocast
from lib_vitface.models.config import IDENTITIES
from lib_vitface.models.convolution import Convolution


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions; the second starts at zero, so the block starts as the identity (Zhang et al. 2019, Fixup)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = Convolution(channels, channels, 3, padding=1)
        self.second = Convolution(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(x + self.second(F.leaky_relu(self.first(x), 0.2)), 0.2)


class Modulation(nn.Module):
    """Scale and shift of features by the identity (FiLM, Perez et al. 2017, arXiv:1709.07871).

    Identities beyond source and target are further facesets of the source: each has the source's numbers and its own added to them.
    """

    def __init__(self, identities: int, channels: int) -> None:
        super().__init__()
        self.table = nn.Embedding(identities, channels * 2)
        nn.init.zeros_(self.table.weight)

    def forward(self, x: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        told = self.table(identity)
        if self.table.num_embeddings > IDENTITIES:
            told = told + self.table.weight[0] * (identity >= IDENTITIES)[:, None]
        return _scaled(x, told)


class Conditioning(nn.Module):
    """Scale and shift of features by numbers (FiLM, Perez et al. 2017). Does nothing at first."""

    def __init__(self, numbers: int, channels: int) -> None:
        super().__init__()
        self.map = nn.Linear(numbers, channels * 2)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(self, x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        return _scaled(x, self.map(numbers))


def _scaled(x: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    """Features `[N, C, H, W]`, in their own number format, times one plus the first half of `told` `[N, 2 C]`, plus the other half."""
    scale, shift = told.to(x.dtype)[:, :, None, None].chunk(2, dim=1)
    return torch.addcmul(x + shift, x, scale)


class ReferenceDecoder(nn.Module):
    """U-shaped network over reference, trust and geometry, joined by the encoder's tokens at its narrowest place.

    Works at half resolution (pixel unshuffle and shuffle; Shi et al. 2016, arXiv:1609.05158), which is four times cheaper.
    The output is a correction that is added to the reference, so that it is as sharp as the person's own pixels from the
    first step on. `widths` are the channels from half resolution down; identities share the convolutions and have their own
    modulations at every level. With `coefficients` > 0 that many numbers of a frame modulate every level, too, and with `seen` > 0
    so many channels of a rendered volume are added at a quarter of the resolution.
    """

    inputs = 3 + 1 + 2

    def __init__(
        self, token_channels: int, widths: tuple[int, ...], identities: int, coefficients: int = 0, seen: int = 0
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(self.inputs * 4, widths[0], 3, padding=1)
        self.down = nn.ModuleList(Convolution(a, b, 3, stride=2, padding=1) for a, b in itertools.pairwise(widths))
        self.before = nn.ModuleList(ResidualBlock(w) for w in widths)
        self.join = Convolution(token_channels + widths[-1], widths[-1], 1)
        self.middle = nn.Sequential(ResidualBlock(widths[-1]), ResidualBlock(widths[-1]))
        self.up = nn.ModuleList(Convolution(b + a, a, 3, padding=1) for a, b in itertools.pairwise(widths))
        self.after = nn.ModuleList(ResidualBlock(w) for w in widths[:-1])
        self.tell = nn.ModuleList(Modulation(identities, w) for w in widths)
        self.film = nn.ModuleList(Conditioning(coefficients, w) for w in widths if coefficients)
        if seen:
            self.see = nn.Conv2d(seen, widths[1], 1)
            nn.init.zeros_(self.see.weight)
            nn.init.zeros_(self.see.bias)  # type: ignore[arg-type]
        self.head = nn.Conv2d(widths[0], 3 * 4, 3, padding=1)
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(
        self,
        reference: torch.Tensor,
        trust: torch.Tensor,
        geometry: torch.Tensor,
        tokens: torch.Tensor,
        identity: torch.Tensor,
        coefficients: torch.Tensor | None = None,
        seen: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Corrected picture `[N, 3, H, W]` 0..1. `reference` `[N, 3, H, W]`, `trust` `[N, 1, H, W]`, `geometry` `[N, 2, H, W]`,
        `tokens` `[N, D, h, w]`, `identity` `[N]`, `coefficients` `[N, K]`, `seen` `[N, C, v, v]`; H and W divisible by
        `2 ** len(widths)`."""
        x = F.pixel_unshuffle(torch.cat([reference * 2 - 1, trust, geometry], dim=1), 2)
        x = self.before[0](F.leaky_relu(self.stem(x), 0.2))
        skips = [x]
        for level, (shrink, block) in enumerate(zip(self.down, self.before[1:], strict=True), 1):
            x = F.leaky_relu(shrink(x), 0.2)
            if level == 1 and seen is not None:
                x = x + self.see(F.interpolate(seen, size=x.shape[-2:], mode="bilinear").to(x.dtype))
            x = block(x)
            skips.append(x)
        if tokens.shape[-1] != x.shape[-1]:
            tokens = F.interpolate(tokens, size=x.shape[-2:], mode="bilinear")
        x = F.leaky_relu(self.join(torch.cat([x, tokens.to(x.dtype)], dim=1)), 0.2)
        x = self._told(-1, self.middle(x), identity, coefficients)
        for level in range(len(skips) - 2, -1, -1):
            with no_autocast(x.device):  # on a processor it would make float32 of it, and of the convolution's picture
                x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = F.leaky_relu(self.up[level](torch.cat([x, skips[level]], dim=1)), 0.2)
            x = self._told(level, self.after[level](x), identity, coefficients)
        return reference + F.pixel_shuffle(self.head(x), 2).float()

    def _told(
        self, level: int, x: torch.Tensor, identity: torch.Tensor, coefficients: torch.Tensor | None
    ) -> torch.Tensor:
        x = self.tell[level](x, identity)
        return x if coefficients is None or not len(self.film) else self.film[level](x, coefficients)


class CoverDecoder(nn.Module):
    """Finds the uncovered face: compares the driving picture with what the same face looks like uncovered.

    It sees the driving pixels but only ever answers with a mask, so no colour of the driving face can leak into the result.
    """

    inputs = 3 + 3 + 1

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(self.inputs * 16, width, 3, padding=1)
        self.before = ResidualBlock(width)
        self.down = nn.Conv2d(width, width * 2, 3, stride=2, padding=1)
        self.middle = nn.Sequential(
            ResidualBlock(width * 2), nn.Conv2d(width * 2, width * 2, 3, padding=4, dilation=4), nn.LeakyReLU(0.2)
        )
        self.up = nn.Conv2d(width * 3, width, 3, padding=1)
        self.after = ResidualBlock(width)
        self.head = nn.Conv2d(width, 16, 3, padding=1)
        nn.init.normal_(self.head.weight, std=1e-2)
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, 3.0)  # uncovered until it has learned otherwise

    def forward(self, image: torch.Tensor, own_reference: torch.Tensor, trust: torch.Tensor) -> torch.Tensor:
        """Logits `[N, 1, H, W]`; H and W divisible by 8."""
        x = F.pixel_unshuffle(torch.cat([image * 2 - 1, (image - own_reference) * 2, trust], dim=1), 4)
        x = self.before(F.leaky_relu(self.stem(x), 0.2))
        y = self.middle(F.leaky_relu(self.down(x), 0.2))
        y = F.interpolate(y, scale_factor=2, mode="bilinear").to(x.dtype)
        x = self.after(F.leaky_relu(self.up(torch.cat([x, y], dim=1)), 0.2))
        return F.pixel_shuffle(self.head(x), 4).float()
