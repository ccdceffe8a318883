"""A network that tells real patches from drawn ones."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


class PatchCritic(nn.Module):
    """Scores for overlapping patches of 34 px (PatchGAN, Isola et al. 2017, arXiv:1611.07004), with spectral normalisation
    (Miyato et al. 2018, arXiv:1802.05957)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        sizes = [3, width, width * 2, width * 4]
        layers: list[nn.Module] = []
        for index in range(3):
            stride = 2 if index < 2 else 1
            layers += [spectral_norm(nn.Conv2d(sizes[index], sizes[index + 1], 4, stride, 1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(sizes[-1], 1, 4, 1, 1)))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scores `[N, 1, h, w]` of images `[N, 3, H, W]` 0..1; high means real."""
        return self.layers(image * 2 - 1)
