"""Likeness of two pictures: PSNR, SSIM, MS-SSIM.

Pictures are RGB uint8 `[H, W, 3]`; a mask is `[H, W]` 0..1 and says how much each pixel counts. SSIM is as scikit-image
computes it with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False`, at a fifth of the time.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from lib_vitface.types import Floats, Image, Mask

PEAK = 255.0
_RADIUS = 5
_TAPS = 2 * _RADIUS + 1
_C1, _C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def squared_error(a: Image, b: Image, mask: Mask | None = None) -> float:
    """Mean squared difference over pixels and channels, 0..65025; NaN where the mask leaves nothing."""
    _check(a, b, mask)
    if mask is None:
        return float(cv2.norm(a, b, cv2.NORM_L2SQR)) / a.size
    difference = a.astype(np.float32) - b
    weight = float(mask.sum(dtype=np.float64))
    if weight <= 0:
        return math.nan
    return float(np.einsum("hwc,hwc,hw->", difference, difference, mask, dtype=np.float64)) / (weight * a.shape[2])


def psnr_of(error: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error of 8-bit pictures; infinite for 0."""
    return math.inf if error == 0 else 10 * math.log10(PEAK**2 / error)


def psnr(a: Image, b: Image, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures."""
    return psnr_of(squared_error(a, b, mask))


def ssim(a: Image, b: Image, mask: Mask | None = None) -> float:
    """Structural similarity -1..1 (Wang et al. 2004), the mean over channels.

    A window of 11 px is weighted by the mask at its centre, so it still sees 5 px beyond the mask's edge.
    """
    luminance, contrast = _ssim_maps(_planes(a, b, mask), b.astype(np.float32))
    return _mean(luminance * contrast, mask)


def ms_ssim(a: Image, b: Image, mask: Mask | None = None) -> float:
    """Multi-scale SSIM 0..1 (Wang, Simoncelli and Bovik 2003), five scales from 176 px on.

    Of smaller pictures only the scales that still hold a window are taken, their weights scaled to sum to one.
    """
    x, y = _planes(a, b, mask), b.astype(np.float32)
    scales = min(len(_SCALE_WEIGHTS), (min(a.shape[:2]) // _TAPS).bit_length())
    score = 1.0
    for level in range(scales):
        luminance, contrast = _ssim_maps(x, y)
        value = _mean(luminance * contrast if level == scales - 1 else contrast, mask)
        score *= max(value, 0.0) ** (_SCALE_WEIGHTS[level] / sum(_SCALE_WEIGHTS[:scales]))
        x, y = _halved(x), _halved(y)
        mask = None if mask is None else _halved(mask)
    return score


def _check(a: Image, b: Image, mask: Mask | None) -> None:
    if a.shape != b.shape or a.ndim != 3 or a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(f"two uint8 pictures of one size are needed, got {a.shape} {a.dtype} and {b.shape} {b.dtype}")
    if mask is not None and mask.shape != a.shape[:2]:
        raise ValueError(f"the mask is {mask.shape}, the picture {a.shape[:2]}")


def _planes(a: Image, b: Image, mask: Mask | None) -> Floats:
    _check(a, b, mask)
    if min(a.shape[:2]) < _TAPS:
        raise ValueError(f"SSIM needs at least {_TAPS} px a side, got {a.shape[:2]}")
    return a.astype(np.float32)


def _blur(x: Floats) -> Floats:
    blurred = np.asarray(cv2.GaussianBlur(x, (_TAPS, _TAPS), 1.5), dtype=np.float32)
    return blurred[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]


def _ssim_maps(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Luminance and contrast-structure `[H - 10, W - 10, 3]`."""
    mean_a, mean_b = _blur(a), _blur(b)
    product, squares = mean_a * mean_b, mean_a**2 + mean_b**2
    covariance, variances = _blur(a * b) - product, _blur(a * a + b * b) - squares
    luminance = (2 * product + _C1) / (squares + _C1)
    contrast = (2 * covariance + _C2) / (variances + _C2)
    return luminance.astype(np.float32, copy=False), contrast.astype(np.float32, copy=False)


def _mean(values: Floats, mask: Mask | None) -> float:
    """Mean of a map under the mask at the window centres; NaN where the mask leaves nothing."""
    if mask is None:
        return float(values.mean(dtype=np.float64))
    centre = mask[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
    weight = float(centre.sum(dtype=np.float64))
    return float((values.mean(axis=2) * centre).sum(dtype=np.float64)) / weight if weight > 0 else math.nan


def _halved(x: Floats) -> Floats:
    """Every 2 x 2 pixels averaged; an odd last row or column is dropped."""
    height, width = x.shape[0] // 2, x.shape[1] // 2
    half = cv2.resize(x[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(half, dtype=np.float32)
