"""Ready-made changes of the driving picture by albumentations, which keep a face a face.

The package is optional. Names of its options differ between 1.3 (which the WebUIs can have) and 2; both are known here.
"""

from __future__ import annotations

import random as python_random
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from lib_vitface.errors import MissingDependencyError
from lib_vitface.types import Image


def make_recipe(name: str) -> Callable[[Image, int], Image] | None:
    """`recipe(image, seed)`, the same for the same seed; None for `none`. Raises `MissingDependencyError` without the package.

    camera: compression, noise, blur, less resolution, as bad footage has them; light: contrast, tone curves, hue, local
    contrast. None moves a pixel, so landmarks and openings stay true; none flips or turns (a face upside down is no case
    that swapping meets).
    """
    if name == "none":
        return None
    try:
        import albumentations
    except ImportError as error:
        raise MissingDependencyError(
            "--recipe needs the package albumentations: pip install albumentations (in a WebUI: albumentations<1.4.4)."
        ) from error
    steps = [step for kind in ("camera", "light") if name in (kind, "all") for step in _steps(albumentations, kind)]

    def recipe(image: Image, seed: int) -> Image:
        random = np.random.default_rng(seed)
        for share, step in steps:
            chosen, own_seed = random.random() < share, int(random.integers(2**31))
            if chosen:
                image = np.ascontiguousarray(_seeded(step, image, own_seed))
        return image

    return recipe


def _seeded(step: Any, image: Image, seed: int) -> Image:
    if hasattr(step, "set_random_seed"):
        step.set_random_seed(seed)
        return step(image=image)["image"]
    # version 1.3 draws from the two random numbers everybody shares: they are put back as they were
    kept = python_random.getstate(), np.random.get_state()
    try:
        python_random.seed(seed)
        np.random.seed(seed)
        return step(image=image)["image"]
    finally:
        python_random.setstate(kept[0])
        np.random.set_state(kept[1])


def _steps(package: Any, kind: str) -> list[tuple[float, Any]]:
    """Shares 0..1 of the pictures and what is done to them."""
    new = int(package.__version__.split(".")[0]) >= 2
    if kind == "camera":
        scaling = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}
        compression = {"quality_range": (25, 80)} if new else {"quality_lower": 25, "quality_upper": 80}
        noise = {"std_range": (0.01, 0.05)} if new else {"var_limit": (6.0, 160.0)}
        smaller: dict[str, Any] = {"scale_range": (0.35, 0.8), "interpolation_pair": scaling}
        if not new:
            smaller = {"scale_min": 0.35, "scale_max": 0.8, "interpolation": scaling}
        return [
            (0.15, package.MotionBlur(blur_limit=(3, 7), p=1)),
            (0.15, package.GaussianBlur(blur_limit=(3, 5), p=1)),
            (0.3, package.Downscale(**smaller, p=1)),
            (0.3, package.GaussNoise(**noise, p=1)),
            (0.4, package.ImageCompression(**compression, p=1)),
        ]
    return [
        (0.4, package.RandomBrightnessContrast(0.2, 0.2, p=1)),
        (0.4, package.RandomToneCurve(scale=0.15, p=1)),
        (0.4, package.HueSaturationValue(6, 25, 12, p=1)),
        (0.2, package.CLAHE(clip_limit=(1, 3), p=1)),
    ]
