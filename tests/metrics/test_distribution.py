"""Fréchet and kernel distances against closed forms, scipy's sqrtm and double loops; the Inception file's loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from lib_vitface.errors import InputError, MissingDependencyError
from lib_vitface.faces.embed import make_embedder
from lib_vitface.metrics import distribution
from lib_vitface.metrics.distribution import InceptionFeatures, feature_frechet, frechet_distance, kernel_distance
from lib_vitface.types import Face


def sets(n: int, m: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n + m)
    mix = rng.normal(size=(size, size)) / np.sqrt(size)
    return rng.normal(size=(n, size)) @ mix, 0.5 + rng.normal(size=(m, size)) @ mix.T * 1.3


@pytest.mark.parametrize(("n", "m", "size"), [(400, 300, 12), (50, 60, 40)])
def test_frechet_is_that_of_sqrtm(n: int, m: int, size: int) -> None:
    a, b = sets(n, m, size)
    root = sqrtm(np.cov(a.T) @ np.cov(b.T))
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * np.real(root))
    assert feature_frechet(a, b) == pytest.approx(expected, rel=1e-8)
    assert feature_frechet(b, a) == pytest.approx(expected, rel=1e-8)


def test_frechet_of_gaussians_in_closed_form() -> None:
    mean_a, mean_b = np.array([1.0, 2.0]), np.array([4.0, -2.0])
    found = frechet_distance(mean_a, np.diag([4.0, 9.0]), mean_b, np.diag([1.0, 16.0]))
    assert found == pytest.approx(25 + (2 - 1) ** 2 + (3 - 4) ** 2)


def test_frechet_stays_exact_with_fewer_samples_than_dimensions() -> None:
    """In the span of the samples the covariances are regular, and there `sqrtm` can be trusted."""
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(64, 64)))
    small_a, small_b = sets(20, 30, 8)
    a, b = (np.hstack([x, np.zeros((len(x), 56))]) @ turn for x in (small_a, small_b))
    assert feature_frechet(a, b) == pytest.approx(feature_frechet(small_a, small_b), rel=1e-6)
    assert feature_frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert feature_frechet(a, a + 0.5) == pytest.approx(64 * 0.25, rel=1e-5)


def test_kernel_distance_is_the_double_sum() -> None:
    a, b = sets(7, 5, 4)

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 4 + 1) ** 3)

    within_a = sum(k(a[i], a[j]) for i in range(7) for j in range(7) if i != j) / 42
    within_b = sum(k(b[i], b[j]) for i in range(5) for j in range(5) if i != j) / 20
    across = sum(k(x, y) for x in a for y in b) / 35
    assert kernel_distance(a, b) == pytest.approx(within_a + within_b - 2 * across, rel=1e-9)


def test_kernel_distance_is_unbiased_where_frechet_is_not() -> None:
    rng = np.random.default_rng(3)
    draws = [(rng.normal(size=(20, 16)), rng.normal(size=(20, 16))) for _ in range(60)]
    kernel = np.array([kernel_distance(a, b) for a, b in draws])
    assert abs(kernel.mean()) < 3 * kernel.std() / np.sqrt(len(kernel))
    assert np.mean([feature_frechet(a, b) for a, b in draws]) > 2  # its bias, which is why N is reported with it


def test_too_few_features_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two"):
        feature_frechet(np.zeros((1, 4)), np.zeros((5, 4)))
    with pytest.raises(ValueError, match="at least two"):
        kernel_distance(np.zeros((1, 4)), np.zeros((5, 4)))


def test_embedders_are_feature_spaces_of_their_own_name() -> None:
    assert type(distribution.make_features("sface")) is type(make_embedder("sface"))
    with pytest.raises(InputError, match="nosuch"):
        distribution.make_features("nosuch")


class _StandIn(torch.nn.Module):
    """The surface of the Inception file: `.layers` takes pictures of 299 px in -1..1 and gives `[N, C, 1, 1]`."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_inception_is_loaded_from_its_file_and_fed_as_it_was_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frontal_face: Face
) -> None:
    monkeypatch.setattr(distribution, "models_folder", lambda: tmp_path)
    monkeypatch.setattr(distribution.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    with pytest.raises(MissingDependencyError, match=r"inception-2015-12-05\.pt"):
        distribution.make_features("inception")
    (tmp_path / distribution.INCEPTION_FILE).write_bytes(b"something else")
    with pytest.raises(MissingDependencyError, match="not the Inception network"):
        distribution.make_features("inception")
    torch.jit.script(_StandIn()).save(str(tmp_path / distribution.INCEPTION_FILE))
    features = distribution.make_features("inception")
    assert isinstance(features, InceptionFeatures)
    picture = np.full((400, 400, 3), (0, 128, 192), dtype=np.uint8)
    np.testing.assert_allclose(features(picture, frontal_face), [-1.0, 0.0, 0.5], atol=1e-6)
