"""Losses against scikit-image, scipy and hand-made numbers; gradients; bfloat16; both filters alike."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from torch import Tensor

from lib_vitface import losses
from lib_vitface.losses import LossWeights, reconstruction_loss


def pair(n: int = 2, size: int = 64, noise: float = 0.1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth pictures and noisy copies of them, `[n, 3, size, size]`."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=(n, 3, size, size)), (0, 0, 4, 4))
    clean = (smooth - smooth.min()) / np.ptp(smooth)
    noisy = np.clip(clean + noise * rng.normal(size=clean.shape), 0, 1)
    return torch.tensor(noisy, dtype=torch.float32), torch.tensor(clean, dtype=torch.float32)


def skimage_ssim(a: Tensor, b: Tensor) -> float:
    each = [
        structural_similarity(
            x.numpy().astype(np.float64),
            y.numpy().astype(np.float64),
            data_range=1.0,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for x, y in zip(a, b, strict=True)
    ]
    return float(np.mean(each))


def scipy_ms_ssim(a: NDArray[np.float64], b: NDArray[np.float64], scales: int) -> float:
    """MS-SSIM of one `[C, H, W]` pair, by scipy in float64."""

    def blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return gaussian_filter(x, (0, 1.5, 1.5), truncate=3.5)[:, 5:-5, 5:-5]

    weights = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[:scales]
    score = 1.0
    for level, power in enumerate(weights / weights.sum()):
        ma, mb = blur(a), blur(b)
        va, vb, ab = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
        contrast = (2 * ab + 0.0009) / (va + vb + 0.0009)
        if level == scales - 1:
            contrast = contrast * (2 * ma * mb + 0.0001) / (ma**2 + mb**2 + 0.0001)
        score *= contrast.mean() ** power
        c, h, w = a.shape
        a = a.reshape(c, h // 2, 2, w // 2, 2).mean((2, 4))
        b = b.reshape(c, h // 2, 2, w // 2, 2).mean((2, 4))
    return score


@pytest.fixture()
def convolving() -> Iterator[None]:
    """The filter taken on GPUs and where products are not exact float32."""
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_dssim_is_that_of_skimage(noise: float) -> None:
    a, b = pair(noise=noise)
    assert float(losses.dssim(a, b)) == pytest.approx((1 - skimage_ssim(a, b)) / 2, abs=2e-5)


def test_the_convolving_filter_gives_the_same(convolving: None) -> None:
    a, b = pair()
    assert float(losses.dssim(a, b)) == pytest.approx((1 - skimage_ssim(a, b)) / 2, abs=2e-5)


def test_both_filters_agree_at_every_step(convolving: None) -> None:
    x = torch.rand(2, 3, 33, 40)
    for step in (1, 2, 3):
        torch.set_float32_matmul_precision("high")
        by_convolution = losses._gaussian(33, 40, step, x.device)(x)
        torch.set_float32_matmul_precision("highest")
        by_product = losses._gaussian(33, 40, step, x.device)(x)
        torch.testing.assert_close(by_convolution, by_product, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("scales", [2, 3])
def test_multi_scale_is_that_of_scipy(scales: int) -> None:
    a, b = pair(n=1)
    expected = scipy_ms_ssim(a[0].double().numpy(), b[0].double().numpy(), scales)
    assert float(losses.dssim(a, b, scales=scales)) == pytest.approx((1 - expected) / 2, abs=2e-5)


def test_multi_scale_leaves_out_scales_that_do_not_fit() -> None:
    a, b = pair(size=32)
    assert float(losses.dssim(a, b, scales=5)) == float(losses.dssim(a, b, scales=2))


def test_second_pixel_steps_keep_value_and_gradient() -> None:
    a, b = pair(size=96)
    slopes, values = [], []
    for step in (1, 2):
        x = a.clone().requires_grad_()
        value = losses.dssim(x, b, step=step)
        value.backward()
        values.append(float(value.detach()))
        assert x.grad is not None
        slopes.append(x.grad.flatten())
    assert values[1] == pytest.approx(values[0], rel=2e-3)
    assert float(torch.cosine_similarity(slopes[0], slopes[1], 0)) > 0.995


def test_gradients_are_the_numerical_ones() -> None:
    a, b = pair(n=1, size=24)
    mask = torch.rand(1, 1, 24, 24)
    weights = LossWeights(l2=1, edge=1, variation=1, scales=2)
    x = a.clone().requires_grad_()
    reconstruction_loss(x, b, mask, weights)["total"].backward()
    assert x.grad is not None
    torch.manual_seed(0)
    way = torch.randn_like(a)
    step = 1e-3
    up = reconstruction_loss(a + step * way, b, mask, weights)["total"]
    down = reconstruction_loss(a - step * way, b, mask, weights)["total"]
    assert float((x.grad * way).sum()) == pytest.approx(float(up - down) / (2 * step), rel=0.03)


def test_equal_pictures_cost_nothing_and_opposite_ones_most() -> None:
    a, _ = pair()
    for scales in (1, 2):
        assert float(losses.dssim(a, a, scales=scales)) == pytest.approx(0, abs=1e-6)
        assert 0.45 < float(losses.dssim(a, 1 - a, scales=scales)) <= 1
    x = a.clone().requires_grad_()
    losses.dssim(x, 1 - a, scales=3).backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())


def test_l1_and_l2_under_a_mask() -> None:
    a, b = pair(n=3)
    mask = torch.rand(3, 1, 64, 64)
    x, y, w = a.double().numpy(), b.double().numpy(), mask.double().numpy()
    expected = np.mean([np.average(np.abs(x[i] - y[i]).mean(0), weights=w[i, 0]) for i in range(3)])
    assert float(losses.l1(a, b, mask)) == pytest.approx(expected, rel=1e-5)
    expected = np.mean([np.average(((x[i] - y[i]) ** 2).mean(0), weights=w[i, 0]) for i in range(3)])
    assert float(losses.l2(a, b, mask)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.l1(a, b)) == pytest.approx(np.abs(x - y).mean(), rel=1e-5)


def test_what_the_mask_hides_changes_nothing() -> None:
    a, b = pair(size=96)
    mask = torch.zeros(2, 1, 96, 96)
    mask[..., 30:70, 30:70] = 1
    other = a.clone()
    other[..., :20] = 0.3  # more than a window away from the mask
    weights = LossWeights(l2=1, edge=1, variation=1)
    one, two = (reconstruction_loss(x, b, mask, weights) for x in (a, other))
    assert set(one) == {"dssim", "l1", "l2", "edge", "variation", "total"}
    for name in one:
        assert float(one[name]) == float(two[name]), name


def test_an_empty_mask_costs_nothing() -> None:
    a, b = pair()
    found = reconstruction_loss(a, b, torch.zeros(2, 1, 64, 64), LossWeights(dssim=0, l2=1, edge=1, variation=1))
    assert float(found["total"]) == 0


def test_edge_and_variation_by_hand() -> None:
    a = torch.zeros(1, 1, 12, 12)
    a[..., 6:] = 1.0  # one upright edge: 12 of the 12 * 11 right neighbours differ by 1
    assert float(losses.variation(a)) == pytest.approx(12 / 132)
    assert float(losses.edge(a, torch.zeros_like(a))) == pytest.approx(12 / 132)
    assert float(losses.edge(a, a + 0.25)) == pytest.approx(0, abs=1e-7)  # a shift of brightness has no edges
    mask = torch.zeros(1, 1, 12, 12)
    mask[..., 5:7] = 1.0
    assert float(losses.variation(a, mask)) == pytest.approx(1.0)  # only the edge itself is left


def test_priority_map_by_hand() -> None:
    points = torch.tensor([[[10.0, 20.0], [40.0, 5.0]]])
    found = losses.priority_map(points, (32, 48), 3.0)
    assert found.shape == (1, 1, 32, 48)
    y, x = np.mgrid[:32, :48]
    expected = sum(np.exp(-((x - px) ** 2 + (y - py) ** 2) / 18) for px, py in points[0].numpy())
    np.testing.assert_allclose(found[0, 0].numpy(), np.minimum(expected, 1), atol=1e-5)
    clip = losses.priority_map(points.repeat(4, 1, 1).view(2, 2, 2, 2), (32, 48), 3.0)
    assert clip.shape == (2, 2, 1, 32, 48)


def test_eyes_mouth_counts_where_the_map_says() -> None:
    _, b = pair(n=1)
    near = losses.priority_map(torch.tensor([[[32.0, 32.0]]]), (64, 64), 4.0)
    there, elsewhere = b.clone(), b.clone()
    there[..., 28:36, 28:36] += 0.2
    elsewhere[..., :8, :8] += 0.2
    weights = LossWeights()
    at = [float(reconstruction_loss(x, b, None, weights, priority=near)["eyes_mouth"]) for x in (there, elsewhere, b)]
    assert at[0] > 0.08 and at[1] < 1e-6 and at[2] == 0


def test_total_is_the_weighted_sum_and_zero_weights_are_left_out() -> None:
    a, b = pair()
    mask, guess = torch.rand(2, 1, 64, 64), torch.rand(2, 1, 64, 64)
    priority = torch.rand(2, 1, 64, 64)
    weights = LossWeights(1, 2, 3, 4, 5, 6, 7)
    found = reconstruction_loss(a, b, mask, weights, output_mask=guess, priority=priority)
    names = ["dssim", "l1", "l2", "mask", "eyes_mouth", "edge", "variation"]
    assert list(found) == [*names, "total"]
    expected = sum((i + 1) * float(found[n]) for i, n in enumerate(names))
    assert float(found["total"]) == pytest.approx(expected, rel=1e-5)
    assert float(found["mask"]) == pytest.approx(float((guess - mask).square().mean()), rel=1e-5)
    nothing = reconstruction_loss(a, b, mask, LossWeights(0, 0, 0, 0, 0, 0, 0), output_mask=guess, priority=priority)
    assert list(nothing) == ["total"] and float(nothing["total"]) == 0


def test_clips_are_pictures_one_after_another() -> None:
    a, b = pair(n=6)
    mask = torch.rand(6, 1, 64, 64)
    flat = reconstruction_loss(a, b, mask, LossWeights())
    clip = reconstruction_loss(
        a.view(2, 3, 3, 64, 64), b.view(2, 3, 3, 64, 64), mask.view(2, 3, 1, 64, 64), LossWeights()
    )
    assert {k: float(v) for k, v in flat.items()} == {k: float(v) for k, v in clip.items()}


def test_channels_last_gives_the_same() -> None:
    a, b = pair()
    fast = reconstruction_loss(a.to(memory_format=torch.channels_last), b, None, LossWeights())
    assert float(fast["total"]) == pytest.approx(
        float(reconstruction_loss(a, b, None, LossWeights())["total"]), rel=1e-6
    )


def test_autocast_does_not_blur_the_variances() -> None:
    a, b = pair(noise=0.01)
    exact = float(losses.dssim(a, b))
    x = a.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = reconstruction_loss(x, b, None, LossWeights(ssim_step=1))
    assert inside["total"].dtype == torch.float32
    assert float(inside["dssim"].detach()) == pytest.approx(exact, rel=1e-5)
    inside["total"].backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())
    rounded = losses.dssim(a.bfloat16(), b.bfloat16())  # bfloat16 pictures are taken, at the accuracy they have
    assert rounded.dtype == torch.float32 and float(rounded) == pytest.approx(exact, abs=5e-3)


def test_wrong_shapes_and_weights_are_refused() -> None:
    a, b = pair()
    with pytest.raises(ValueError, match="differ in shape"):
        reconstruction_loss(a, b[:, :, :32], None, LossWeights())
    with pytest.raises(ValueError, match="more than 10 px"):
        losses.dssim(a[..., :8, :8], b[..., :8, :8])
    with pytest.raises(ValueError, match=r"\[B, T, C, H, W\]"):
        losses.l1(a[0], b[0])
    with pytest.raises(ValueError, match="l1"):
        LossWeights(l1=-1)
    with pytest.raises(ValueError, match="scales"):
        LossWeights(scales=6)


def test_geometry_is_the_mean_squared_distance_in_hundredths() -> None:
    a, b = torch.rand(3, 468, 2), torch.rand(3, 468, 2)
    expected = np.mean(
        [np.hypot(*(p - q)) ** 2 for p, q in zip(a.view(-1, 2).numpy(), b.view(-1, 2).numpy(), strict=True)]
    )
    assert float(losses.geometry_loss(a, b)) == pytest.approx(1e4 * expected, rel=1e-4)
    assert float(losses.geometry_loss(a, a)) == 0


def test_identity_is_one_minus_the_cosine() -> None:
    a, b = torch.randn(4, 128), torch.randn(4, 128)
    expected = [
        1 - np.dot(p, q) / np.linalg.norm(p) / np.linalg.norm(q) for p, q in zip(a.numpy(), b.numpy(), strict=True)
    ]
    assert float(losses.identity_loss(a, b)) == pytest.approx(np.mean(expected), abs=1e-5)
    assert float(losses.identity_loss(a, 3 * a)) == pytest.approx(0, abs=1e-6)


def test_psnr_is_that_of_the_places_that_count() -> None:
    random = np.random.default_rng(0)
    a, b = (random.random((2, 3, 8, 8)).astype(np.float32) for _ in range(2))
    where = (random.random((2, 1, 8, 8)) > 0.5).astype(np.float32)
    errors = [((p - q) ** 2)[:, w[0] > 0].mean() for p, q, w in zip(a, b, where, strict=True)]
    found = losses.psnr_db(*map(torch.from_numpy, (a, b, where)))
    assert float(found) == pytest.approx(np.mean([-10 * np.log10(e) for e in errors]), rel=1e-4)


def test_depth_counts_where_it_is_known() -> None:
    random = np.random.default_rng(0)
    depth, wanted = (random.normal(0, 1, (2, 1, 6, 6)).astype(np.float32) for _ in range(2))
    known = (random.random((2, 1, 6, 6)) > 0.4).astype(np.float32)
    expected = np.mean([np.abs(d - w)[k > 0].mean() for d, w, k in zip(depth, wanted, known, strict=True)])
    a, b, where = map(torch.from_numpy, (depth, wanted, known))
    assert float(losses.depth_loss(a, b, where)) == pytest.approx(expected, rel=1e-5)
    assert float(losses.depth_loss(a, a + (1 - where), where)) == 0


def test_warping_is_that_of_opencv() -> None:
    random = np.random.default_rng(0)
    picture = random.random((40, 50, 3), np.float32)
    flow = cv2.resize(random.normal(0, 4, (5, 5, 2)).astype(np.float32), (50, 40))
    rows, columns = np.mgrid[:40, :50].astype(np.float32)
    expected = cv2.remap(
        picture, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    found = losses.warp_back(torch.from_numpy(picture).permute(2, 0, 1)[None], torch.from_numpy(flow)[None])
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, atol=0.03)  # OpenCV rounds to 1/32 px


def test_temporal_dssim_is_that_of_frames_carried_along() -> None:
    """Frames that move as the flow says do not differ; against scikit-image where they do."""
    base = torch.rand(1, 3, 64, 80)
    still = torch.stack([base[..., 8:72], base[..., 5:69]], dim=1)  # the picture moves three pixels to the right
    flow = torch.zeros(1, 1, 64, 64, 2)
    flow[..., 0] = 3
    visible = torch.zeros(1, 1, 1, 64, 64)
    visible[..., 4:-4] = 1
    assert float(losses.temporal_dssim(still, flow, visible)) == pytest.approx(0, abs=2e-2)
    clip = torch.rand(2, 3, 3, 48, 48)
    nothing, everywhere = torch.zeros(2, 2, 48, 48, 2), torch.ones(2, 2, 1, 48, 48)
    expected = np.mean([
        structural_similarity(
            clip[b, t].permute(1, 2, 0).numpy(), clip[b, t + 1].permute(1, 2, 0).numpy(), channel_axis=2, data_range=1,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )
        for b in range(2) for t in range(2)
    ])  # fmt: skip
    assert float(losses.temporal_dssim(clip, nothing, everywhere)) == pytest.approx((1 - expected) / 2, abs=2e-3)
    assert float(losses.temporal_dssim(clip, nothing, 0 * everywhere)) == pytest.approx(0.5)


def test_hinge_losses() -> None:
    real, made = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.5])
    assert float(losses.critic_loss(real, made)) == pytest.approx((0 + 0.5) / 2 + (0 + 1.5) / 2)
    assert float(losses.adversarial_loss(made)) == pytest.approx(1.25)


def test_total_is_the_weighted_sum() -> None:
    terms = {"l1": torch.tensor(2.0), "geometry": torch.tensor(3.0)}
    weights = LossWeights(l1=10, geometry=0.5)
    assert float(losses.weighted_total(terms, weights)) == pytest.approx(21.5)
    assert float(losses.weighted_total({}, weights)) == 0
