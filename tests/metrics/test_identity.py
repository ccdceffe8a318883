"""Identity scores against plain loops over known vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lib_vitface.metrics.identity import score_identity, summary, template


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def people(spread: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of two persons, `[40, 16]` and `[30, 16]`."""
    rng = np.random.default_rng(0)
    first, second = unit(rng.normal(size=(2, 16)))
    return unit(first + spread * rng.normal(size=(40, 16))), unit(second + spread * rng.normal(size=(30, 16)))


def test_scores_are_the_plain_loops() -> None:
    source, target = people()
    result = unit(0.7 * source[:30] + 0.5 * target)
    scores = score_identity(result.astype(np.float32), source.astype(np.float32), target.astype(np.float32), nearest=3)
    middle_s, middle_t = unit(source.mean(0)), unit(target.mean(0))
    for i, vector in enumerate(result):
        assert scores.source[i] == pytest.approx(vector @ middle_s, abs=1e-6)
        assert scores.target[i] == pytest.approx(vector @ middle_t, abs=1e-6)
        near_s, near_t = sorted(source @ vector)[-3:], sorted(target @ vector)[-3:]
        assert scores.source_nearest[i] == pytest.approx(np.mean(near_s), abs=1e-6)
        assert scores.target_nearest[i] == pytest.approx(np.mean(near_t), abs=1e-6)
        assert scores.source_first[i] == (near_s[-1] > near_t[-1])
    alone = [source[i] @ unit(np.delete(source, i, 0).mean(0)) for i in range(len(source))]
    assert scores.ceiling == pytest.approx(np.mean(alone), abs=1e-6)
    assert scores.floor == pytest.approx((target @ middle_s).mean(), abs=1e-6)


def test_source_itself_attains_all_and_target_itself_nothing() -> None:
    source, target = people(spread=0.1)
    best = summary(score_identity(source[:20], source[20:], target), [0.0] * 20)
    assert best["share_nearer_source"] == best["retrieval_rank1"] == best["share_nearer_source_nearest"] == 1
    assert best["attained"] == pytest.approx(1, abs=0.05)
    worst = summary(score_identity(target, source, target), [0.0] * 30)
    assert worst["share_nearer_source"] == worst["retrieval_rank1"] == 0
    assert worst["attained"] == pytest.approx(0, abs=1e-6)
    assert worst["source_distance"] == pytest.approx(1 - worst["source_cosine"])


def test_bins_of_yaw_hold_every_frame_once() -> None:
    source, target = people()
    yaw = np.linspace(-90, 90, 30)
    found = summary(score_identity(target, source, target), list(yaw))
    assert [b["yaw_deg"] for b in found["by_yaw"]] == [[0, 15], [15, 30], [30, 45], [45, 60], [60, 90]]
    assert sum(b["frames"] for b in found["by_yaw"]) == 30
    middle = unit(source.mean(0))
    inside = (np.abs(yaw) >= 30) & (np.abs(yaw) < 45)
    assert found["by_yaw"][2]["frames"] == inside.sum()
    assert found["by_yaw"][2]["source_cosine"] == pytest.approx((target[inside] @ middle).mean(), abs=1e-6)
    none = summary(score_identity(target, source, target), [0.0] * 30)["by_yaw"][4]
    assert none == {
        "yaw_deg": [60, 90],
        "frames": 0,
        "source_cosine": None,
        "target_cosine": None,
        "share_nearer_source": None,
    }


def test_a_single_source_face_has_no_ceiling() -> None:
    source, target = people()
    scores = score_identity(source, source[:1], target)
    assert math.isnan(scores.ceiling)
    found = summary(scores, [0.0] * len(source))
    assert found["ceiling"] is None and found["attained"] is None


def test_vectors_need_not_be_unit_and_sets_not_large() -> None:
    source, target = people()
    scaled = score_identity(3 * source, 0.1 * source, 7 * target)
    plain = score_identity(source, source, target)
    np.testing.assert_allclose(scaled.source, plain.source, atol=1e-6)
    few = score_identity(source, source[:2], target[:1], nearest=5)
    np.testing.assert_allclose(few.source_nearest, (source @ source[:2].T).mean(1), atol=1e-6)
    np.testing.assert_allclose(template(source), unit(source.mean(0)), atol=1e-9)
    with pytest.raises(ValueError, match="at least one"):
        score_identity(source, source[:0], target)
