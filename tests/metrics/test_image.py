"""PSNR, SSIM and MS-SSIM against scikit-image and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lib_vitface.metrics import image
from lib_vitface.types import Image


def pair(noise: float = 12.0, shape: tuple[int, int] = (90, 120), seed: int = 0) -> tuple[Image, Image]:
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(*shape, 3)), (3, 3, 0))
    clean = (smooth - smooth.min()) / np.ptp(smooth) * 255
    noisy = np.clip(clean + noise * rng.normal(size=clean.shape), 0, 255)
    return noisy.astype(np.uint8), clean.astype(np.uint8)


def skimage_map(a: Image, b: Image) -> tuple[float, np.ndarray]:
    return structural_similarity(
        a, b, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )


@pytest.mark.parametrize("noise", [2.0, 40.0])
def test_psnr_and_ssim_are_those_of_skimage(noise: float) -> None:
    a, b = pair(noise)
    assert image.psnr(a, b) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=255), abs=1e-9)
    assert image.ssim(a, b) == pytest.approx(skimage_map(a, b)[0], abs=2e-5)


def test_under_a_mask() -> None:
    a, b = pair()
    mask = np.zeros((90, 120), dtype=np.float32)
    mask[20:60, 30:80] = 1.0
    inside = (slice(20, 60), slice(30, 80))
    assert image.psnr(a, b, mask) == pytest.approx(
        peak_signal_noise_ratio(b[inside], a[inside], data_range=255), abs=1e-6
    )
    assert image.ssim(a, b, mask) == pytest.approx(skimage_map(a, b)[1][inside].mean(), abs=2e-5)
    soft = np.random.default_rng(1).random((90, 120)).astype(np.float32)
    error = np.average(((a.astype(float) - b) ** 2).mean(2), weights=soft)
    assert image.squared_error(a, b, soft) == pytest.approx(error, rel=1e-5)
    other = a.copy()
    other[:8] = 0  # outside the mask by more than a window
    assert image.ssim(other, b, mask) == image.ssim(a, b, mask)
    assert math.isnan(image.psnr(a, b, np.zeros_like(mask))) and math.isnan(image.ssim(a, b, np.zeros_like(mask)))


@pytest.mark.parametrize(("side", "scales"), [(176, 5), (175, 4), (60, 3)])
def test_ms_ssim_is_that_of_scipy(side: int, scales: int) -> None:
    a, b = pair(25.0, (side, side + 31))
    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[:scales]
    x, y, expected = a.astype(float), b.astype(float), 1.0

    def blur(z: np.ndarray) -> np.ndarray:
        return gaussian_filter(z, (1.5, 1.5, 0), truncate=3.5)[5:-5, 5:-5]

    for level, power in enumerate(weights / weights.sum()):
        mx, my = blur(x), blur(y)
        value = (2 * (blur(x * y) - mx * my) + 58.5225) / (blur(x * x) - mx**2 + blur(y * y) - my**2 + 58.5225)
        if level == scales - 1:
            value = value * (2 * mx * my + 6.5025) / (mx**2 + my**2 + 6.5025)
        expected *= value.mean() ** power
        x, y = (
            z[: z.shape[0] // 2 * 2, : z.shape[1] // 2 * 2]
            .reshape(z.shape[0] // 2, 2, z.shape[1] // 2, 2, 3)
            .mean((1, 3))
            for z in (x, y)
        )
    assert image.ms_ssim(a, b) == pytest.approx(expected, abs=2e-5)
    assert image.ms_ssim(a, b, np.ones(a.shape[:2], dtype=np.float32)) == pytest.approx(expected, abs=2e-5)


def test_equal_pictures() -> None:
    a, _ = pair()
    assert image.psnr(a, a) == math.inf
    assert image.ssim(a, a) == pytest.approx(1) and image.ms_ssim(a, a) == pytest.approx(1)
    assert image.ms_ssim(a, 255 - a) == 0.0  # opposite structure: no power of a negative number


def test_wrong_pictures_are_refused() -> None:
    a, b = pair()
    with pytest.raises(ValueError, match="one size"):
        image.psnr(a, b[:50])
    with pytest.raises(ValueError, match="one size"):
        image.ssim(a.astype(np.float32), b)
    with pytest.raises(ValueError, match="mask"):
        image.ssim(a, b, np.ones((5, 5), dtype=np.float32))
    with pytest.raises(ValueError, match="at least 11 px"):
        image.ssim(a[:8], b[:8])
