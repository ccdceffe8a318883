"""Flicker and jitter where the truth is known: moved textures, added noise, hidden parts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.ndimage import shift as scipy_shift

from lib_vitface.metrics import temporal
from lib_vitface.metrics.geometry import eye_distance
from lib_vitface.types import Face, Floats, Image, Pose

Heads = Callable[..., Floats]
Faces = Callable[[Floats], Face]


def texture(size: int = 256, seed: int = 0) -> Image:
    rng = np.random.default_rng(seed)
    x = gaussian_filter(rng.normal(size=(size, size, 3)), (2.5, 2.5, 0))
    return ((x - x.min()) / np.ptp(x) * 255).astype(np.uint8)


def moved(image: Image, dx: float, dy: float) -> Image:
    return np.clip(scipy_shift(image.astype(float), (dy, dx, 0), order=3, mode="nearest"), 0, 255).astype(np.uint8)


def noisy(image: Image, sigma: float, seed: int) -> Image:
    rng = np.random.default_rng(seed)
    return np.clip(image + sigma * rng.normal(size=image.shape), 0, 255).astype(np.uint8)


def test_flow_finds_a_shift() -> None:
    before = texture()
    way = temporal.motion(before, moved(before, 3.0, -2.0))
    middle = (slice(30, -30), slice(30, -30))
    assert np.median(way.flow[middle][..., 0]) == pytest.approx(3, abs=0.1)
    assert np.median(way.flow[middle][..., 1]) == pytest.approx(-2, abs=0.1)
    assert way.visible[middle].mean() > 0.98
    assert way.visible[:, -2:].mean() == 0  # what leaves the picture on the right is not seen any more


def test_what_is_hidden_is_not_counted() -> None:
    before = texture()
    after = before.copy()
    after[90:150, 90:150] = texture(60, seed=9)
    way = temporal.motion(before, after)
    hidden, open_ = way.visible[95:145, 95:145].mean(), way.visible[10:70, 10:70].mean()
    assert hidden < 0.5 < 0.98 < open_


def test_warping_back_is_that_of_scipy() -> None:
    image = texture(64)
    flow = np.full((64, 64, 2), (1.5, -0.25), dtype=np.float32)
    expected = scipy_shift(image.astype(float), (0.25, -1.5, 0), order=1, mode="nearest")
    np.testing.assert_allclose(temporal.warp_back(image, flow), expected, atol=0.6)  # OpenCV rounds places to 1/32 px


def test_flicker_of_a_brightness_step_is_the_step() -> None:
    before = (texture() // 2 + 40).astype(np.uint8)
    still = temporal.Motion(np.zeros((256, 256, 2), np.float32), np.ones((256, 256), np.float32))
    region = np.zeros((256, 256), np.float32)
    region[50:200, 50:200] = 1
    found = temporal.flicker(before, before + np.uint8(12), still, region)
    assert found is not None
    assert found.mean == pytest.approx(12, rel=1e-4) and found.squared == pytest.approx((12 / 255) ** 2, rel=1e-4)
    half = temporal.Motion(still.flow, (np.arange(256)[None, :] < 100).astype(np.float32).repeat(256, 0))
    outside = before.copy()
    outside[:, 100:] = 0  # not visible, so not counted
    assert temporal.flicker(before, outside, half, region) == temporal.Flicker(0.0, 0.0)
    assert temporal.flicker(before, before, still, np.zeros_like(region)) is None


@pytest.fixture()
def frames(posed: Heads, face_of: Faces) -> tuple[Image, Image, Face]:
    """Two frames of a textured head that moves by (4, 2) px, and where it was in the first."""
    before = texture(420)
    return before, moved(before, 4, 2), face_of(posed(Pose(0, 0, 0), scale=12, centre=(205, 210)))


def test_equal_result_flickers_as_the_target(frames: tuple[Image, Image, Face]) -> None:
    before, after, face = frames
    found = temporal.face_flicker((before, after), (before, after), face)
    assert found is not None
    assert found.result == found.target and found.visible > 0.9
    assert found.target.mean < 3  # the motion is made up for: without it these textures differ by far more
    assert np.abs(before.astype(float) - after)[100:300, 100:300].mean() > 15


def test_noise_per_frame_is_flicker_and_a_steady_change_is_not(frames: tuple[Image, Image, Face]) -> None:
    before, after, face = frames
    target = (before, after)
    base = temporal.face_flicker(target, target, face)
    shaken = temporal.face_flicker(target, (noisy(before, 10, 1), noisy(after, 10, 2)), face)
    darker = temporal.face_flicker(target, ((before * 0.8).astype(np.uint8), (after * 0.8).astype(np.uint8)), face)
    assert base is not None and shaken is not None and darker is not None
    assert shaken.target == base.target
    assert shaken.result.mean > 3 * base.target.mean and shaken.result.squared > 9 * base.target.squared
    assert darker.result.mean == pytest.approx(0.8 * base.target.mean, rel=0.15)


def test_what_moves_otherwise_is_flicker_along_the_targets_flow_alone(frames: tuple[Image, Image, Face]) -> None:
    before, after, face = frames
    other = texture(420)[:, ::-1].copy()
    result = (other, moved(other, -3, 1))  # steady, but not with the target's motion
    found = temporal.face_flicker((before, after), result, face)
    noise = temporal.face_flicker((before, after), (noisy(before, 10, 1), noisy(after, 10, 2)), face)
    assert found is not None and found.own is not None and noise is not None and noise.own is not None
    assert found.own.squared < 2 * found.target.squared < found.result.squared / 10
    assert noise.own.squared > 9 * noise.target.squared  # what comes and goes is no motion


def test_flicker_does_not_depend_on_the_size_of_the_frame(frames: tuple[Image, Image, Face], face_of: Faces) -> None:
    before, after, face = frames
    assert face.landmarks is not None
    target, result = (before, after), (noisy(before, 8, 1), noisy(after, 8, 2))
    double = [x.repeat(2, 0).repeat(2, 1) for x in (*target, *result)]
    large = temporal.face_flicker((double[0], double[1]), (double[2], double[3]), face_of(2 * face.landmarks + 0.5))
    small = temporal.face_flicker(target, result, face)
    assert small is not None and large is not None
    assert large.result.mean == pytest.approx(small.result.mean, rel=0.15)


def test_jitter_by_hand(posed: Heads) -> None:
    face = posed(Pose(0, 0, 0))
    norm = eye_distance(face)
    steady = np.stack([face, face + np.float32([5, 0, 0]), face + np.float32([10, 0, 0])])
    assert temporal.landmark_jitter(steady, steady).added == 0
    assert temporal.landmark_jitter(steady, steady).result == pytest.approx(0, abs=1e-6)  # even motion is not jitter
    jumped = steady.copy()
    jumped[1, :, 1] += 2  # bends by 2 * 2 px
    found = temporal.landmark_jitter(jumped, steady)
    assert found.target == pytest.approx(0, abs=1e-6)
    assert found.result == pytest.approx(4 / norm, rel=1e-4) and found.added == pytest.approx(4 / norm, rel=1e-4)
    same = temporal.landmark_jitter(jumped + 3, jumped)
    assert same.added == pytest.approx(0, abs=1e-5) and same.target == pytest.approx(4 / norm, rel=1e-4)
