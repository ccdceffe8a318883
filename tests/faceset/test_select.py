"""Choosing faces: spread, quality, no repeats."""

from __future__ import annotations

import numpy as np
import pytest
from faceset_maker import posed_landmarks

from lib_vitface.faces import mesh
from lib_vitface.faceset import quality, select
from lib_vitface.types import Floats, Pose


def pool(count: int = 600, seed: int = 0) -> tuple[np.ndarray, Floats, Floats]:
    """A talking head: nearly always frontal, rarely turned."""
    rng = np.random.default_rng(seed)
    pose = np.stack([rng.normal(0, 3, count), rng.normal(0, 2, count)], axis=1)
    pose[: count // 30] = np.stack([rng.uniform(-60, 60, count // 30), rng.uniform(-20, 20, count // 30)], axis=1)
    expression = rng.normal(0, 0.05, (count, 7)).astype(np.float32)
    return pose, expression, rng.normal(0.5, 0.02, (count, 4)).astype(np.float32)


def test_features_measure_visible_differences() -> None:
    pose = np.array([[0, 0], [15, 0], [0, 12], [0, 0], [0, 0], [0, 0]], dtype=float)
    expression, light = np.zeros((6, 7), np.float32), np.zeros((6, 4), np.float32)
    expression[3, 0] = 0.25
    light[4, 0] = 0.12
    points = select.features(pose, expression, light)
    away = np.linalg.norm(points - points[5], axis=1)
    np.testing.assert_allclose(away, [0, 1, 1, 3**-0.5, 2**-0.5, 0], atol=1e-5)


def test_spread_out_covers_better_than_chance() -> None:
    pose, expression, light = pool()
    points = select.features(pose, expression, light)
    chosen = select.spread_out(points, np.ones(len(points)), 60)
    assert len(set(chosen.tolist())) == 60
    ours = select.spread(points, chosen, pose)
    chance = [select.spread(points, np.random.default_rng(i).permutation(len(points))[:60], pose) for i in range(10)]
    assert ours["radius"] < 0.6 * min(c["radius"] for c in chance)
    assert ours["views"] == 1.0 > max(c["views"] for c in chance)
    assert ours["evenness"] > max(c["evenness"] for c in chance)
    assert ours["variety"] > max(c["variety"] for c in chance)


def test_spread_out_is_within_twice_the_best() -> None:
    points = np.array([[0.0], [1], [2], [10], [11], [12], [20], [21], [22]], np.float32)
    chosen = select.spread_out(points, np.ones(9), 3)
    assert select.spread(points, chosen, np.zeros((9, 2)))["radius"] <= 2 * 1.0


def test_spread_out_prefers_good_pictures_and_repeats_itself() -> None:
    points = np.repeat(np.arange(20, dtype=np.float32)[:, None] * 10, 2, axis=0)
    points[1::2] += 0.5
    weights = np.where(np.arange(40) % 2, 0.2, 1.0)
    chosen = select.spread_out(points, weights, 20)
    assert all(i % 2 == 0 for i in chosen)
    np.testing.assert_array_equal(chosen, select.spread_out(points.copy(), weights.copy(), 20))
    assert sorted(select.spread_out(points, weights, 99).tolist()) == list(range(40))
    assert select.spread_out(points[:0], weights[:0], 5).shape == (0,) == select.spread_out(points, weights, 0).shape


def test_worth_is_lowered_by_each_flaw() -> None:
    def one(sharp: float = 0.5, exposure: float = 1.0, covered: float = 0.0, width: float = 200.0) -> float:
        values = (np.array([v]) for v in (sharp, exposure, covered, width))
        return float(select.worth(*values, size=256)[0])

    assert one() == 1.0
    assert one(sharp=0.225) == pytest.approx(0.5)
    assert one(exposure=0.6) == pytest.approx(0.6)
    assert one(covered=0.3) == pytest.approx(0.7)
    assert one(width=64) == pytest.approx(0.5)
    assert one(exposure=0) == 0.01


def test_repeats_are_dropped_and_small_but_real_changes_are_not() -> None:
    base = posed_landmarks(Pose(0, 0, 0), 256)
    blink = base.copy()
    blink[list(mesh.RIGHT_EYE + mesh.LEFT_EYE), 1] += 1.5  # moves the whole mesh by 0.4 px RMS only
    shifted, turned = base + np.array([0.4, 0, 0]), posed_landmarks(Pose(6, 0, 0), 256)
    stack = np.stack([base, shifted, blink, turned, base, base]).astype(np.float32)
    prints = np.array([0, 1, 0, 0, 2**64 - 1, 0], dtype=np.uint64)
    weights = np.array([0.5, 0.4, 0.9, 0.5, 0.5, 0.6])
    stands_for = select.duplicates(stack, prints, weights, 256, 0.3)
    assert stands_for.tolist() == [5, 5, 2, 3, 4, 5]
    assert select.duplicates(stack, prints, weights, 256, 0.0).tolist() == list(range(6))


def test_repeats_agree_with_comparing_every_pair() -> None:
    rng = np.random.default_rng(1)
    base = posed_landmarks(Pose(0, 0, 0), 256)
    drift = np.cumsum(rng.normal(0, 0.35, (60, 1, 3)), axis=0)
    stack = (base + drift + rng.normal(0, 0.1, (60, 468, 3))).astype(np.float32)
    weights, prints = rng.random(60), np.zeros(60, np.uint64)
    expected = np.arange(60)
    for i in np.argsort(-weights):
        if expected[i] != i:
            continue
        for j in np.flatnonzero(weights < weights[i]):
            if expected[j] == j and quality.change(stack[i], stack[j], 256) < 0.5:
                expected[j] = i
    found = select.duplicates(stack, prints, weights, 256, 0.5)
    assert found.tolist() == expected.tolist() and len(set(found.tolist())) < 50


def test_bits_apart_counts_bits() -> None:
    a = np.array([0, 1, 2**64 - 1, 0b1011], dtype=np.uint64)
    assert select.bits_apart(a, np.uint64(0)).tolist() == [0, 1, 64, 3]


def test_histogram_counts_every_face_once() -> None:
    pose = np.array([[0, 0], [-100, 70], [40, -30], [89, 59], [0, 0]], dtype=float)
    counts = select.histogram(pose)
    assert counts.shape == (len(select.PITCH_EDGES) - 1, len(select.YAW_EDGES) - 1)
    assert counts.sum() == 5 and counts[2, 3] == 2 and counts[-1, 0] == 1 and counts[-1, -1] == 1 and counts[0, 5] == 1


def test_spread_of_nothing_and_of_one() -> None:
    points, pose = np.zeros((3, 2), np.float32), np.zeros((3, 2))
    assert set(select.spread(points, np.zeros(0, np.int64), pose).values()) == {0.0}
    assert select.spread(points, np.array([0]), pose)["views"] == 1.0
