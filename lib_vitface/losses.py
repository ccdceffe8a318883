"""Reconstruction losses of a swapper: pure functions, their weights, and the weighted total.

Tensors are `[B, T, C, H, W]` or `[N, C, H, W]`, colours 0..1; masks have one channel. Every function computes in float32
and outside autocast, since E[x^2] - E[x]^2 has no digits left in bfloat16. All means are per picture first, so a
picture with a small mask counts as much as one with a large mask.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from lib_vitface.device import no_autocast

SIGMA = 1.5
RADIUS = 5  # 11 taps, as in Wang et al. 2004 and in scikit-image
C1, C2 = 0.01**2, 0.03**2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik 2003


@dataclass(frozen=True)
class LossWeights:
    """How much each term counts; 0 leaves it out and costs nothing.

    `scales` > 1 makes the DSSIM multi-scale. `ssim_step` = 2 evaluates it at every second pixel: the window (sigma 1.5) is
    wide against that, so value and gradient stay (difference 1e-5, cosine 0.999) at half the time.
    """

    dssim: float = 10.0
    l1: float = 10.0
    l2: float = 0.0
    mask: float = 10.0
    eyes_mouth: float = 3.0
    edge: float = 0.0
    variation: float = 0.0
    geometry: float = 0.0
    identity: float = 0.0
    temporal: float = 0.0
    adversarial: float = 0.0
    volume: float = 0.0
    depth: float = 0.0
    scales: int = 1
    ssim_step: int = 2

    def __post_init__(self) -> None:
        negative = [f.name for f in fields(self) if getattr(self, f.name) < 0]
        if negative or not 1 <= self.scales <= len(SCALE_WEIGHTS) or self.ssim_step < 1:
            what = negative or ["scales (1 to 5)", "ssim_step (at least 1)"]
            raise ValueError(f"LossWeights: out of range: {', '.join(what)}")


def flat(x: Tensor) -> Tensor:
    """`[B, T, C, H, W]` or `[N, C, H, W]` as contiguous float32 `[N, C, H, W]`."""
    if x.dim() not in (4, 5):
        raise ValueError(f"expected [B, T, C, H, W] or [N, C, H, W], got {tuple(x.shape)}")
    return x.flatten(0, -4).float().contiguous()


def _taps(device: torch.device) -> Tensor:
    """Normalised Gaussian window `[2 * RADIUS + 1]`."""
    distance = torch.arange(-RADIUS, RADIUS + 1, device=device, dtype=torch.float32)
    window = torch.exp(-0.5 * (distance / SIGMA) ** 2)
    return window / window.sum()


def _band(size: int, step: int, device: torch.device) -> Tensor:
    """Gaussian window as a matrix `[size, places]`: `x @ band` filters rows at every `step`-th place, no padding."""
    start = torch.arange(0, size - 2 * RADIUS, step, device=device)
    band = torch.zeros(size, len(start), device=device)
    rows = start[None, :] + torch.arange(2 * RADIUS + 1, device=device)[:, None]
    return band.scatter_(0, rows, _taps(device)[:, None].expand(-1, len(start)).contiguous())


def _gaussian(height: int, width: int, step: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Separable Gaussian filter of `[N, C, H, W]` without padding, at every `step`-th pixel.

    On a CPU two matrix products with a band matrix beat convolutions in either memory format and in both directions. They
    are used only where a product is exact float32; TF32 or bf16 products would blur the variances, a depthwise
    convolution does not.
    """
    if device.type == "cpu" and torch.get_float32_matmul_precision() == "highest":
        down = _band(height, step, device).t().contiguous()
        across = _band(width, step, device)
        return lambda x: down @ (x @ across)
    taps = _taps(device)

    def convolve(x: Tensor) -> Tensor:
        channels = x.shape[1]
        x = F.conv2d(x, taps.view(1, 1, 1, -1).repeat(channels, 1, 1, 1), stride=(1, step), groups=channels)
        return F.conv2d(x, taps.view(1, 1, -1, 1).repeat(channels, 1, 1, 1), stride=(step, 1), groups=channels)

    return convolve


def _ssim_parts(a: Tensor, b: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure maps `[N, C, h, w]` of two float32 `[N, C, H, W]`; SSIM is their product."""
    if min(a.shape[-2:]) <= 2 * RADIUS:
        raise ValueError(f"SSIM needs more than {2 * RADIUS} px a side, got {tuple(a.shape[-2:])}")
    blur = _gaussian(a.shape[-2], a.shape[-1], step, a.device)
    mean_a, mean_b = blur(a), blur(b)
    product, squares = mean_a * mean_b, mean_a.square() + mean_b.square()
    covariance, variances = blur(a * b) - product, blur(a.square() + b.square()) - squares
    return (2 * product + C1) / (squares + C1), (2 * covariance + C2) / (variances + C2)


def weighted_mean(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean of `[N, C, H, W]` under a weight `[N, 1, H, W]`, per picture, then over pictures. Nothing weighed gives 0."""
    if weight is None:
        return values.mean()
    total = (values * weight).sum((1, 2, 3))
    return (total / (values.shape[1] * weight.sum((1, 2, 3))).clamp_min(1e-6)).mean()


def _at_places(weight: Tensor | None, step: int) -> Tensor | None:
    """A weight map sampled where the unpadded window stands."""
    return None if weight is None else weight[..., RADIUS:-RADIUS:step, RADIUS:-RADIUS:step]


def _no_autocast(x: Tensor) -> AbstractContextManager[object]:
    return no_autocast(x.device)


def dssim(output: Tensor, target: Tensor, weight: Tensor | None = None, *, scales: int = 1, step: int = 1) -> Tensor:
    """`(1 - SSIM) / 2` in 0..1, a scalar; Gaussian window of 11 px, sigma 1.5 (Wang et al. 2004).

    With `scales` > 1 it is MS-SSIM (Wang et al. 2003): contrast-structure at each halving, luminance at the last. Its weights
    are made to sum to one; scales for which the picture is too small are left out. `weight` `[..., 1, H, W]` says where it counts.
    """
    with _no_autocast(output):
        a, b = flat(output), flat(target)
        weight = None if weight is None else flat(weight)
        scales = min(scales, max(1, (min(a.shape[-2:]) // (2 * RADIUS + 1)).bit_length()))
        powers = [p / sum(SCALE_WEIGHTS[:scales]) for p in SCALE_WEIGHTS[:scales]]
        if scales == 1:
            luminance, contrast = _ssim_parts(a, b, step)
            return (1 - weighted_mean(luminance * contrast, _at_places(weight, step))) / 2
        score = a.new_ones(())
        for level, power in enumerate(powers):
            luminance, contrast = _ssim_parts(a, b, step)
            value = luminance * contrast if level == scales - 1 else contrast
            # A negative mean has no real power, and the power's slope is endless at 0.
            score = score * weighted_mean(value, _at_places(weight, step)).clamp_min(1e-4) ** power
            if level < scales - 1:
                a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
                weight = None if weight is None else F.avg_pool2d(weight, 2)
        return (1 - score) / 2


def l1(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute difference, a scalar."""
    with _no_autocast(output):
        return weighted_mean((flat(output) - flat(target)).abs(), None if weight is None else flat(weight))


def l2(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared difference, a scalar."""
    with _no_autocast(output):
        return weighted_mean((flat(output) - flat(target)).square(), None if weight is None else flat(weight))


def edge(output: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute difference of the image gradients (right and down neighbour), a scalar.

    After the gradient difference loss of Mathieu et al. 2016, here on signed gradients: an edge of the wrong sign counts twice.
    """
    with _no_autocast(output):
        return _variation(flat(output) - flat(target), None if weight is None else flat(weight))


def variation(output: Tensor, weight: Tensor | None = None) -> Tensor:
    """Anisotropic total variation per pixel (Rudin, Osher and Fatemi 1992), a scalar."""
    with _no_autocast(output):
        return _variation(flat(output), None if weight is None else flat(weight))


def _variation(x: Tensor, weight: Tensor | None) -> Tensor:
    right, down = (x[..., :, 1:] - x[..., :, :-1]).abs(), (x[..., 1:, :] - x[..., :-1, :]).abs()
    if weight is None:
        return right.mean() + down.mean()
    # A difference counts where both its pixels do.
    return weighted_mean(right, torch.minimum(weight[..., :, 1:], weight[..., :, :-1])) + weighted_mean(
        down, torch.minimum(weight[..., 1:, :], weight[..., :-1, :])
    )


def priority_map(points: Tensor, size: tuple[int, int], sigma_px: float) -> Tensor:
    """Soft map 0..1 around points `[..., K, 2]` (x, y in pixels), `[..., 1, H, W]`: 1 on a point, falling as a Gaussian.

    Given the landmarks of eyes and mouth it says where `eyes_mouth` counts. Overlapping blobs add up, clipped at 1. The sum
    is one matrix product, so it costs less than a polygon fill. Points outside the picture add what reaches into it.
    """
    with _no_autocast(points):
        height, width = size
        xy = points.float()
        across = torch.arange(width, device=xy.device, dtype=torch.float32) - xy[..., 0:1]
        along = torch.arange(height, device=xy.device, dtype=torch.float32) - xy[..., 1:2]
        scale = -0.5 / sigma_px**2
        blobs = torch.exp(scale * along.square()).transpose(-1, -2) @ torch.exp(scale * across.square())
        return blobs.clamp_max(1.0).unsqueeze(-3)


def reconstruction_loss(
    output: Tensor,
    target: Tensor,
    mask: Tensor | None,
    weights: LossWeights,
    *,
    output_mask: Tensor | None = None,
    priority: Tensor | None = None,
) -> dict[str, Tensor]:
    """Terms with a weight above 0, unweighted, and their weighted sum `total`; all scalars that carry gradients.

    `output`, `target` [B, T, C, H, W] or [N, C, H, W] in 0..1; `mask` `[..., 1, H, W]` 0..1 where the picture counts (None:
    everywhere) and what `output_mask` (if given) shall become; `priority` a map from `priority_map`.
    """
    if output.shape != target.shape:
        raise ValueError(f"output {tuple(output.shape)} and target {tuple(target.shape)} differ in shape")
    with _no_autocast(output):
        a, b = flat(output), flat(target)
        where = None if mask is None else flat(mask)
        terms: dict[str, Tensor] = {}
        if weights.dssim:
            terms["dssim"] = dssim(a, b, where, scales=weights.scales, step=weights.ssim_step)
        if weights.l1:
            terms["l1"] = l1(a, b, where)
        if weights.l2:
            terms["l2"] = l2(a, b, where)
        if weights.mask and output_mask is not None and where is not None:
            terms["mask"] = l2(output_mask, where)
        if weights.eyes_mouth and priority is not None:
            terms["eyes_mouth"] = l1(a, b, flat(priority) if where is None else flat(priority) * where)
        if weights.edge:
            terms["edge"] = edge(a, b, where)
        if weights.variation:
            terms["variation"] = variation(a, where)
        return {**terms, "total": weighted_total(terms, weights)}


def weighted_total(terms: dict[str, Tensor], weights: LossWeights) -> Tensor:
    """Sum of the terms, each times the weight of its name."""
    return torch.stack([getattr(weights, name) * value for name, value in terms.items()] or [torch.zeros(())]).sum()


def geometry_loss(points: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared distance of landmarks `[N, K, 2]` given in shares of the crop's side, in units of one hundredth of it."""
    with _no_autocast(points):
        return (100 * (points.float() - wanted.float())).square().sum(dim=-1).mean()


def identity_loss(vectors: Tensor, wanted: Tensor) -> Tensor:
    """One minus the cosine of identity vectors `[N, D]`, mean, 0..2."""
    with _no_autocast(vectors):
        return 1 - F.cosine_similarity(vectors.float(), wanted.float(), dim=1).mean()


def depth_loss(depth: Tensor, wanted: Tensor, where: Tensor) -> Tensor:
    """Mean absolute difference of depth maps `[N, 1, H, W]` where `where` `[N, 1, H, W]` 0..1 says that one is known (depth
    supervision, Deng et al. 2022, arXiv:2107.02791), in the maps' own unit."""
    with _no_autocast(depth):
        return weighted_mean((depth.float() - wanted.float()).abs(), where.float())


def psnr_db(output: Tensor, wanted: Tensor, where: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of pictures `[N, C, H, W]` 0..1 where `where` `[N, 1, H, W]` 0..1 counts, in dB, mean of all."""
    with _no_autocast(output):
        gap = ((output.float() - wanted.float()).square() * where).sum((1, 2, 3))
        mean = gap / (output.shape[1] * where.sum((1, 2, 3))).clamp_min(1e-6)
        return (-10 * torch.log10(mean.clamp_min(1e-10))).mean()


def warp_back(after: Tensor, flow: Tensor) -> Tensor:
    """Pictures `[N, C, H, W]` as seen from the frame before: `flow` `[N, H, W, 2]` px says where each pixel went to."""
    height, width = after.shape[-2:]
    rows = torch.arange(height, device=after.device, dtype=torch.float32)
    columns = torch.arange(width, device=after.device, dtype=torch.float32)
    place = flow + torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)
    scale = place.new_tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)])
    return F.grid_sample(after, place * scale - 1, padding_mode="border", align_corners=True)


def temporal_dssim(output: Tensor, flow: Tensor, visible: Tensor, *, step: int = 1) -> Tensor:
    """Dissimilarity of each frame and the next one carried back to it along the footage's motion, a scalar 0..1.

    `output` `[B, T, C, H, W]`, `flow` `[B, T-1, H, W, 2]` px from each frame to the next, `visible` `[B, T-1, 1, H, W]` 0..1 where
    that counts. After the short-term consistency of Lai et al. 2018 (arXiv:1808.00449), with SSIM instead of the difference.
    """
    with _no_autocast(output):
        before, after = flat(output[:, :-1]), flat(output[:, 1:])
        return dssim(warp_back(after, flow.flatten(0, 1).float()), before, flat(visible), step=step)


def critic_loss(real: Tensor, made: Tensor) -> Tensor:
    """What a critic minimises: hinge loss of its scores of real and of made pictures (Lim and Ye 2017, arXiv:1705.02894)."""
    return F.relu(1 - real.float()).mean() + F.relu(1 + made.float()).mean()


def adversarial_loss(made: Tensor) -> Tensor:
    """What the maker of pictures minimises: the critic's score of them, negated."""
    return -made.float().mean()
