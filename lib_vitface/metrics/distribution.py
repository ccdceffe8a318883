"""Distance between two sets of features: the Fréchet distance and the kernel (MMD) distance.

A figure is called after the space it was measured in (`frechet_sface`, `kernel_inception`). "FID" is only what the
Inception network of Heusel et al. 2017 (arXiv:1706.08500) gives.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib_vitface.assets import models_folder
from lib_vitface.errors import MissingDependencyError
from lib_vitface.faces.align import take_crop
from lib_vitface.faces.embed import make_embedder
from lib_vitface.metrics import scripted
from lib_vitface.types import Face, Floats, Image

Array = NDArray[np.float64]
Features = Callable[[Image, Face], Floats]
"""A feature vector `[D]` of one face in an RGB image."""

INCEPTION_FILE = "inception-2015-12-05.pt"
_INCEPTION_PX = 299
_INCEPTION_URL = scripted.URL + INCEPTION_FILE


def moments(features: NDArray[np.floating]) -> tuple[Array, Array]:
    """Mean `[D]` and unbiased covariance `[D, D]` of features `[N, D]`, N >= 2, in float64."""
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"at least two feature vectors [N, D] are needed, got {values.shape}")
    return values.mean(axis=0), np.cov(values, rowvar=False).reshape(values.shape[1], values.shape[1])


def frechet_distance(mean_a: Array, covariance_a: Array, mean_b: Array, covariance_b: Array) -> float:
    """Squared Fréchet distance of two Gaussians (Dowson and Landau 1982), 0 or more.

    The trace of `sqrt(A B)` is taken as that of `sqrt(sqrt(A) B sqrt(A))`: symmetric, so it stays real and exact where the
    covariances are singular (fewer samples than dimensions), which `sqrtm(A @ B)` does not.
    """
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    inner = root @ covariance_b @ root
    overlap = np.sqrt(np.clip(np.linalg.eigvalsh((inner + inner.T) / 2), 0, None)).sum()
    gap = float(((mean_a - mean_b) ** 2).sum())
    return max(0.0, gap + float(np.trace(covariance_a) + np.trace(covariance_b) - 2 * overlap))


def feature_frechet(features_a: NDArray[np.floating], features_b: NDArray[np.floating]) -> float:
    """Squared Fréchet distance of features `[N, D]` and `[M, D]`. Biased upwards while N or M is not well above D."""
    return frechet_distance(*moments(features_a), *moments(features_b))


def kernel_distance(features_a: NDArray[np.floating], features_b: NDArray[np.floating]) -> float:
    """Unbiased squared MMD with the kernel `(x . y / D + 1)^3` of features `[N, D]`, `[M, D]` (KID, Binkowski et al. 2018,
    arXiv:1801.01401). Needs no more samples than two a side; may fall below 0 where the sets do not differ.
    """
    a, b = np.asarray(features_a, dtype=np.float64), np.asarray(features_b, dtype=np.float64)
    n, m, size = len(a), len(b), a.shape[1]
    if min(n, m) < 2:
        raise ValueError(f"at least two feature vectors a side are needed, got {n} and {m}")

    def kernel(x: Array, y: Array) -> Array:
        return (x @ y.T / size + 1) ** 3

    within_a, within_b = kernel(a, a), kernel(b, b)
    own = (within_a.sum() - np.trace(within_a)) / (n * (n - 1)) + (within_b.sum() - np.trace(within_b)) / (m * (m - 1))
    return float(own - 2 * kernel(a, b).mean())


class InceptionFeatures:
    """The 2048 pooled features of the Inception network FID is defined by, of an aligned face crop of 299 px.

    Its file (TorchScript, NVIDIA's conversion, the one clean-fid uses) is 91 MB, is not shipped and never fetched.
    """

    def __init__(self, path: Path | None = None) -> None:
        path = path or find_inception()
        self._layers = scripted.load(path, "the Inception network", _INCEPTION_URL, lambda net: net.layers)

    def __call__(self, image: Image, face: Face) -> Floats:
        import torch

        crop = take_crop(image, face, _INCEPTION_PX).image
        with torch.inference_mode():
            features: Floats = self._layers((scripted.pixels(crop) - 128) / 128).reshape(-1).numpy()
            return features


def find_inception() -> Path:
    """The Inception file in `models/` or where clean-fid keeps it. Raises MissingDependencyError where there is none."""
    for folder in (models_folder(), Path(tempfile.gettempdir())):
        if (folder / INCEPTION_FILE).is_file():
            return folder / INCEPTION_FILE
    raise MissingDependencyError(
        f"FID needs {INCEPTION_FILE} (91 MB): put it into {models_folder()} from {_INCEPTION_URL}, or measure in another space."
    )


def make_features(name: str) -> Features:
    """Feature extractor by name: "inception", or any embedder's name ("sface", "dlib", "insightface")."""
    return InceptionFeatures() if name == "inception" else make_embedder(name)
