"""A convolution that trains quickly on a processor where it is wide and the picture small."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from lib_vitface.device import product_dtype

_PLACES = 2
"""Of the result, for each of its channels: with more of them oneDNN's convolution was as fast as the product, or faster."""


class Convolution(nn.Conv2d):
    """`nn.Conv2d`, square and zero-padded; on a processor it trains as one matrix product where channels are many and places few.

    There the time goes into the weights, which oneDNN's convolution brings into another order for each of its three passes. The
    windows gathered beside each other (im2col, Chellapilla et al. 2006) and multiplied with the weights as they lie, channels last,
    took a sixth to a half of the time. The sums are the same but for their order. Weights keep their names and shapes.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images `[N, C, H, W]`."""
        if not self.training or x.device.type != "cpu":
            return super().forward(x)
        side, step, edge = self.kernel_size[0], self.stride[0], int(self.padding[0])
        height, width = ((size + 2 * edge - side) // step + 1 for size in x.shape[-2:])
        if x.shape[0] * height * width > _PLACES * self.out_channels:
            return super().forward(x)
        kind = product_dtype(x)
        padded = F.pad(x.to(kind).permute(0, 2, 3, 1), (0, 0, edge, edge, edge, edge))
        windows = torch.cat(
            [
                padded[:, top : top + step * height : step, left : left + step * width : step]
                for top in range(side)
                for left in range(side)
            ],
            dim=3,
        )
        product = _Product.apply(windows.flatten(0, 2), self.weight.to(kind).permute(0, 2, 3, 1).flatten(1))
        if self.bias is not None:
            product = product + self.bias.to(kind)
        return product.view(x.shape[0], height, width, -1).permute(0, 3, 1, 2)


class _Product(torch.autograd.Function):
    """Rows `[n, k]` times weights `[m, k]`, transposed: `[n, m]`.

    As `F.linear`, but the weights' gradient is the product of a matrix that was turned first: with one that is read across, as
    autograd has it, oneDNN took 1.5 to 3 times as long where the weights are many.
    """

    @staticmethod
    def forward(context: Any, rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(rows, weight)
        return F.linear(rows, weight)

    @staticmethod
    def backward(context: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        rows, weight = context.saved_tensors
        wanted = context.needs_input_grad
        return slopes[0] @ weight if wanted[0] else None, slopes[0].t().contiguous() @ rows if wanted[1] else None
