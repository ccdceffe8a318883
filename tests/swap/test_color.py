"""Colour transfer against independent definitions of each method."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from skimage.color import rgb2lab

from lib_vitface.errors import InputError
from lib_vitface.swap.color import GRID, METHODS, ColorStatistics, fit, transfer, transport_1d

ALL = [name for name in METHODS if name != "none"]


def cloud(seed: int, mean: tuple[float, float, float], spread: float, size: int = 96) -> np.ndarray:
    """A picture of correlated, non-Gaussian colours well inside the gamut, [size, size, 3] float32."""
    chance = np.random.default_rng(seed)
    mix = np.eye(3) + 0.4 * chance.normal(size=(3, 3))
    raw = chance.uniform(-1, 1, size=(size * size, 3)) ** 3
    return np.clip(np.array(mean) + spread * raw @ mix, 0.02, 0.98).reshape(size, size, 3).astype(np.float32)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mask = np.zeros((96, 96), np.float32)
    mask[16:80, 16:80] = 1
    return cloud(1, (0.6, 0.5, 0.4), 0.12), cloud(2, (0.45, 0.4, 0.38), 0.15), mask


def inside(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return image[mask > 0].astype(np.float64)


@pytest.mark.parametrize("name", ["lct", "mkl"])
def test_linear_maps_match_mean_and_covariance(name: str, pair: tuple) -> None:
    image, target, mask = pair
    got, wanted = inside(transfer(name, image, target, mask), mask), inside(target, mask)
    assert np.abs(got.mean(0) - wanted.mean(0)).max() < 1e-3
    assert np.abs(np.cov(got.T) - np.cov(wanted.T)).max() < 1e-3


def test_mkl_is_the_monge_map(pair: tuple) -> None:
    """Brenier: the optimal linear map is the symmetric positive T with T A T = B; scipy's sqrtm as the other hand."""
    image, target, mask = pair
    a, b = np.cov(inside(image, mask).T, bias=True), np.cov(inside(target, mask).T, bias=True)
    root = scipy.linalg.sqrtm(a)
    wanted = np.linalg.inv(root) @ scipy.linalg.sqrtm(root @ b @ root) @ np.linalg.inv(root)
    move = fit("mkl", ColorStatistics.measure(image, mask), ColorStatistics.measure(target, mask))
    origin = move(np.full((1, 3), 0.5, np.float32))
    columns = move(np.full((3, 3), 0.5, np.float32) + 0.1 * np.eye(3, dtype=np.float32)) - origin
    assert np.abs(columns.T / 0.1 - wanted.real).max() < 0.01


def test_rct_matches_mean_and_spread_in_lab(pair: tuple) -> None:
    image, target, mask = pair
    got = rgb2lab(transfer("rct", image, target, mask).astype(np.float64))[mask > 0]
    wanted = rgb2lab(target.astype(np.float64))[mask > 0]
    assert np.abs(got.mean(0) - wanted.mean(0)).max() < 0.1  # of 100
    assert np.abs(got.std(0) / wanted.std(0) - 1).max() < 0.01


def test_one_dimensional_transport_is_the_sorted_assignment() -> None:
    chance = np.random.default_rng(3)
    a, b = chance.normal(size=500), chance.exponential(size=500)
    moved = transport_1d(a, b)(a)
    assert np.allclose(moved[np.argsort(a)], np.sort(b), atol=1e-12)
    assert np.all(np.diff(transport_1d(a, b)(np.linspace(-6, 6, 999))) >= -1e-12)


def test_one_dimensional_transport_with_ties_and_other_length() -> None:
    a = np.array([0.0, 0.0, 1.0, 1.0])
    assert np.allclose(transport_1d(a, np.array([4.0, 1.0, 3.0, 2.0]))(a), [1.5, 1.5, 3.5, 3.5])
    uniform = transport_1d(np.linspace(0, 1, 2000), 5 + 2 * np.linspace(0, 1, 777))
    assert np.allclose(uniform(np.linspace(0.01, 0.99, 50)), 5 + 2 * np.linspace(0.01, 0.99, 50), atol=3e-3)


def test_hist_gives_the_target_channel_values(pair: tuple) -> None:
    """64 x 64 mask pixels are 4096 samples, so the sorted values of each channel must be the target's exactly."""
    image, target, mask = pair
    got, wanted = inside(transfer("hist", image, target, mask), mask), inside(target, mask)
    for channel in range(3):
        # clipping to 0.02..0.98 made no ties in the middle; compare everything
        assert np.abs(np.sort(got[:, channel]) - np.sort(wanted[:, channel])).max() < 2e-3


def sliced_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Sliced Wasserstein-2 distance over directions none of the methods uses."""
    lines = np.random.default_rng(99).normal(size=(64, 3))
    lines /= np.linalg.norm(lines, axis=1, keepdims=True)
    return float(np.sqrt(np.mean([(np.sort(a @ d) - np.sort(b @ d)) ** 2 for d in lines])))


@pytest.mark.parametrize("name", ["idt", "sot"])
def test_full_transport_beats_the_linear_maps(name: str, pair: tuple) -> None:
    image, target, mask = pair
    wanted = inside(target, mask)
    before = sliced_distance(inside(image, mask), wanted)
    linear = sliced_distance(inside(transfer("mkl", image, target, mask), mask), wanted)
    got = sliced_distance(inside(transfer(name, image, target, mask), mask), wanted)
    assert got < 0.55 * linear
    assert got < 0.03 * before


@pytest.mark.parametrize("name", ["idt", "sot", "hist"])
def test_grid_agrees_with_the_map_itself(name: str) -> None:
    chance = np.random.default_rng(5)
    ramp = np.linspace(0.2, 0.8, 160, dtype=np.float32)
    image = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], 0.5 * (ramp[:, None] + ramp[None])), -1)
    image = image + chance.normal(scale=0.01, size=image.shape).astype(np.float32)
    target = 0.9 * image**1.2
    assert image.shape[0] * image.shape[1] > GRID**3
    mask = np.ones(image.shape[:2], np.float32)
    color_map = fit(name, ColorStatistics.measure(image, mask), ColorStatistics.measure(target, mask))
    direct = np.clip(color_map(image.reshape(-1, 3)), 0, 1).reshape(image.shape)
    assert np.abs(color_map.on_image(image) - direct).mean() < 1 / 255


@pytest.mark.parametrize("name", ALL)
def test_what_is_outside_the_mask_decides_nothing(name: str, pair: tuple) -> None:
    image, target, mask = pair
    other_image, other_target = image.copy(), target.copy()
    other_image[mask == 0] = 1.0
    other_target[mask == 0] = 0.0
    assert np.array_equal(
        inside(transfer(name, image, target, mask), mask), inside(transfer(name, other_image, other_target, mask), mask)
    )


@pytest.mark.parametrize("name", METHODS)
def test_same_colours_stay(name: str, pair: tuple) -> None:
    image, _, mask = pair
    picture = np.rint(image * 255).astype(np.uint8)
    got = transfer(name, picture, picture, mask)
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - picture).max() <= 1


@pytest.mark.parametrize("name", ALL)
def test_flat_area_does_not_blow_up_noise(name: str, pair: tuple) -> None:
    _, target, mask = pair
    flat = np.full((96, 96, 3), 100, np.uint8)
    flat[::2, ::3] += 1
    got = transfer(name, flat, target, mask)[mask > 0].astype(float)
    assert np.isfinite(got).all()
    # a one-level ripple must not become a picture; the transports may stretch it over the target's range at most
    if name in {"rct", "lct", "mkl"}:
        assert got.std(0).max() < 6
    assert np.abs(got.mean(0) / 255 - inside(target, mask).mean(0)).max() < 0.02


@pytest.mark.parametrize("name", ALL)
def test_small_and_empty_masks_change_nothing_or_little(name: str, pair: tuple) -> None:
    image, target, _ = pair
    for side in (0, 1, 7):
        mask = np.zeros((96, 96), np.float32)
        mask[:side, :side] = 1
        assert transfer(name, image, target, mask) is image
    shifts = []
    for side in (9, 12, 16):  # 81, 144, 256 pixels: the ramp from nothing to all
        mask = np.zeros((96, 96), np.float32)
        mask[:side, :side] = 1
        shifts.append(float(np.abs(transfer(name, image, target, mask) - image).mean()))
    assert shifts[0] < 0.35 * shifts[2] < shifts[2]


@pytest.mark.parametrize("name", ALL)
def test_smoothed_statistics_flicker_less(name: str) -> None:
    """Noise in the statistics of single frames must come out smaller after averaging over a window."""
    mask = np.ones((24, 24), np.float32)
    frames = [(cloud(10 + i, (0.6, 0.5, 0.4), 0.15, 24), cloud(40 + i, (0.45, 0.4, 0.4), 0.15, 24)) for i in range(16)]
    statistics = [[ColorStatistics.measure(picture, mask) for picture in pair] for pair in frames]
    probe = np.array([[0.5, 0.45, 0.4]], np.float32)
    single = np.array([fit(name, a, b)(probe)[0] for a, b in statistics])
    smooth = []
    for i in range(4, 12):
        window = statistics[i - 4 : i + 5]
        a, b = (ColorStatistics.smooth([one[k] for one in window]) for k in (0, 1))
        smooth.append(fit(name, a, b)(probe)[0])
    assert np.abs(np.diff(smooth, axis=0)).mean() < 0.5 * np.abs(np.diff(single, axis=0)).mean()


def test_smooth_is_the_weighted_mean_and_skips_empty_frames(pair: tuple) -> None:
    image, target, mask = pair
    a, b = ColorStatistics.measure(image, mask), ColorStatistics.measure(target, mask)
    empty = ColorStatistics.measure(image, np.zeros_like(mask))
    got = ColorStatistics.smooth([a, empty, b], [1, 5, 3])
    assert np.allclose(got.mean, 0.25 * a.mean + 0.75 * b.mean)
    assert np.allclose(got.covariance, 0.25 * a.covariance + 0.75 * b.covariance)
    assert abs(len(got.samples) - 4096) <= 1
    assert ColorStatistics.smooth([empty, empty]).weight == 0


def test_unknown_name() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(InputError, match="'rgb' is not one of rct, lct"):
        transfer("rgb", image, image, np.ones((4, 4), np.float32))
