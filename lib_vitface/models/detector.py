"""The network that looks for traces of a swapped face: one number per cell of a face crop, and one for the crop."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

# (kernel, stride, expansion, channels, repeats) of EfficientNet-Lite0's stages, up to a sixteenth of the picture
_STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3))
_STEM = 32
_SHARPNESS = 2.0  # of the soft maximum: 0 would be the mean of the cells, infinity the largest


class SameConv(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow does: what is uneven goes to the right and bottom."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self._sides = (kernel, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self._sides
        if kernel == 1:
            return super().forward(x)
        down, right = (max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:])
        return super().forward(F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2)))


def _part(convolution: nn.Conv2d, active: bool = True) -> nn.Sequential:
    parts: list[nn.Module] = [convolution, nn.BatchNorm2d(convolution.out_channels, eps=1e-3)]
    return nn.Sequential(*parts, *([nn.ReLU6()] if active else []))


class Block(nn.Module):
    """Wide, depthwise, narrow, and past all that where the shapes agree (MobileNetV2, Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.parts = nn.Sequential(
            *([_part(SameConv(inputs, wide, 1))] if expansion > 1 else []),
            _part(SameConv(wide, wide, kernel, stride, groups=wide)),
            _part(SameConv(wide, outputs, 1), active=False),
        )
        self.past = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.parts(x)
        return x + found if self.past else found


class DetectorNet(nn.Module):
    """EfficientNet-Lite0 (Tan and Le 2019, arXiv:1905.11946, without its squeeze and swish) up to a sixteenth of the picture, and a
    number for each cell there."""

    def __init__(self) -> None:
        super().__init__()
        blocks, channels = [], _STEM
        for kernel, stride, expansion, outputs, repeats in _STAGES:
            for k in range(repeats):
                blocks.append(Block(channels, outputs, kernel, stride if k == 0 else 1, expansion))
                channels = outputs
        self.stem = _part(SameConv(3, _STEM, 3, 2))
        self.blocks = nn.Sequential(*blocks)
        self.cell = nn.Conv2d(channels, 1, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits `[N, h, w]` of cells and `[N]` of crops `[N, 3, 16 h, 16 w]` 0..1; above 0: more like a swapped face."""
        cells = self.cell(self.blocks(self.stem(image * 2 - 1))).float()[:, 0]
        return cells, pooled(cells)


def pooled(cells: torch.Tensor) -> torch.Tensor:
    """The soft maximum `[N]` of maps `[N, h, w]`: traces fill a part of the crop only, and one cell alone is not enough."""
    flat = _SHARPNESS * cells.flatten(1)
    return (torch.logsumexp(flat, 1) - torch.log(torch.tensor(float(flat.shape[1])))) / _SHARPNESS
