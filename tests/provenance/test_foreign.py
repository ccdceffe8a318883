"""Marks of other generators, put in by the package that they use themselves."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from lib_vitface.provenance import foreign

imwatermark = pytest.importorskip("imwatermark", reason="invisible-watermark is not installed")


def photo(seed: int, side: int = 384) -> np.ndarray:
    random = np.random.default_rng(seed)
    coarse = random.integers(20, 235, (side // 24, side // 24, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC).astype(float)
    return np.clip(smooth + random.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", list(foreign._WORDS))
def test_a_generators_mark_is_named(name: str) -> None:
    encoder = imwatermark.WatermarkEncoder()
    encoder.set_watermark("bits", np.unpackbits(np.frombuffer(foreign._WORDS[name][0], np.uint8)).tolist())
    image = photo(1, 512)
    marked = np.ascontiguousarray(encoder.encode(np.ascontiguousarray(image[..., ::-1]), "dwtDct")[..., ::-1])
    assert foreign.generator_of(marked) == name
    assert foreign.generator_of(image) is None


def test_unmarked_and_small_pictures_have_no_generator() -> None:
    assert all(foreign.generator_of(photo(seed)) is None for seed in range(2, 12))
    assert foreign.generator_of(photo(1, 96)) is None


def test_without_the_package_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "_reader", lambda: None)
    assert foreign.generator_of(photo(3)) is None
