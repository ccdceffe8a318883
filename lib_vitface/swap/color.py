"""Colour of the swapped face matched to the footage, measured inside a mask only.

Every method is a map of colours `[N, 3]` -> `[N, 3]` (RGB 0..1) fitted to two `ColorStatistics`. A map is fitted to
statistics rather than to a picture so that statistics can be averaged over neighbouring frames first: the map then
changes slowly and the face does not flicker.

rct   mean and spread per channel in CIE Lab: Reinhard et al. 2001, "Color Transfer between Images".
lct   B^1/2 A^-1/2 on RGB covariances: Hertzmann 2001; Gatys et al. 2016 (their "PCA" variant).
mkl   the linear Monge-Kantorovitch map: Pitie & Kokaram 2007, "The linear Monge-Kantorovitch linear colour mapping".
idt   iterative distribution transfer: Pitie, Kokaram & Dahyot 2005 / 2007 (rotations and 1-D transports).
sot   sliced optimal transport with batches of directions: Rabin, Peyre, Delon & Bernot 2011; Bonneel et al. 2015.
hist  1-D transport per RGB channel (histogram matching).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import InputError
from lib_vitface.types import Floats, Mask

Move = Callable[[Floats], Floats]

METHODS = ("rct", "lct", "mkl", "idt", "sot", "hist", "none")
MAX_SAMPLES = 4096
# Below the first number of mask pixels nothing is changed, above the second the map has full strength; the ramp
# between keeps a face that is slowly covered from jumping in colour.
FEW_PIXELS, ENOUGH_PIXELS = 64.0, 256.0
# Half a grey level of noise, in variance: a flat area then yields a gain near one and not a division by zero.
NOISE = (0.5 / 255) ** 2
MAX_GAIN = 4.0
# Contrast of one face against another's that light can explain; beyond it features would be made stronger or fainter.
CONTRAST = (0.6, 1.2)
_TINT = (0.85, 1.2)  # the same of the colour channels a and b beside grading: less would make lips pale
GRID = 25


@dataclass(frozen=True)
class ColorStatistics:
    """Colours of one picture (or of several, averaged) inside a mask; RGB 0..1 and CIE Lab (L 0..100).

    `weight` is the sum of the mask in pixels, `samples` [N <= 4096, 3] pixels spread evenly over the mask.
    """

    weight: float
    mean: NDArray[np.float64]  # [3]
    covariance: NDArray[np.float64]  # [3, 3]
    lab_mean: NDArray[np.float64]  # [3]
    lab_variance: NDArray[np.float64]  # [3]
    samples: Floats

    @classmethod
    def measure(cls, image: NDArray[Any], mask: Mask) -> ColorStatistics:
        """Statistics of `image` [H, W, 3] (uint8, or float 0..1) weighted by `mask` [H, W] 0..1."""
        rows = np.flatnonzero(mask > 0)
        if not len(rows):
            zero = np.zeros(3)
            return cls(0.0, zero, np.zeros((3, 3)), zero, zero, np.zeros((0, 3), np.float32))
        weights = mask.reshape(-1)[rows].astype(np.float64)
        colors = _as_float(image).reshape(-1, 3)[rows]
        mean, covariance = _moments(colors, weights)
        lab_mean, lab_covariance = _moments(_to_lab(colors), weights)
        firm = np.flatnonzero(weights >= 0.5)
        picked = firm[np.linspace(0, len(firm) - 1, min(len(firm), MAX_SAMPLES)).astype(int)] if len(firm) else firm
        return cls(float(weights.sum()), mean, covariance, lab_mean, np.diag(lab_covariance), colors[picked])

    def near(self, other: ColorStatistics) -> ColorStatistics:
        """These means with no more and no less contrast against `other`'s than light and grading can explain.

        Light explains `CONTRAST`; grading that takes colour out of everything takes it out of the mean as well.
        """
        low, high = (c * c for c in CONTRAST)
        grading = (1 + float(np.hypot(*self.lab_mean[1:]))) / (1 + float(np.hypot(*other.lab_mean[1:])))
        grading = min(grading, 1.0)  # coloured light moves the mean, it does not spread colours
        least, most = (
            np.square([lightness, tint * grading, tint * grading])
            for lightness, tint in zip(CONTRAST, _TINT, strict=True)
        )
        variance = np.clip(self.lab_variance, least * other.lab_variance, most * other.lab_variance)
        spread = max(float(np.trace(self.covariance)), 1e-12)
        factor = float(np.clip(spread, low * np.trace(other.covariance), high * np.trace(other.covariance))) / spread
        return replace(self, covariance=self.covariance * factor, lab_variance=variance)

    @staticmethod
    def smooth(window: Sequence[ColorStatistics], weights: Sequence[float] | None = None) -> ColorStatistics:
        """The average of neighbouring frames' statistics; frames whose mask is empty count nothing.

        Means and covariances are averaged, not pooled: a slow drift of the light is not taken for more contrast.
        """
        factors = np.ones(len(window)) if weights is None else np.asarray(weights, np.float64)
        factors = factors * np.array([one.weight > 0 for one in window])
        if not factors.sum() > 0:
            return window[len(window) // 2]
        factors = factors / factors.sum()
        parts = [_thinned(one.samples, factor) for one, factor in zip(window, factors, strict=True)]

        def average(name: str) -> Any:
            return sum(f * getattr(one, name) for f, one in zip(factors, window, strict=True) if f > 0)

        return ColorStatistics(
            float(average("weight")),
            average("mean"),
            average("covariance"),
            average("lab_mean"),
            average("lab_variance"),
            np.concatenate(parts),
        )


@dataclass(frozen=True)
class ColorMap:
    """A fitted map. `trust` 0..1 shrinks it towards doing nothing; `costly` maps reach big pictures through a grid."""

    move: Move
    trust: float
    costly: bool = False

    def __call__(self, colors: Floats) -> Floats:
        """Colours [N, 3] to colours [N, 3], RGB 0..1, not clipped."""
        if self.trust == 0.0:
            return colors
        moved = self.move(colors)
        return moved if self.trust == 1.0 else (colors + self.trust * (moved - colors)).astype(np.float32)

    def on_image(self, image: NDArray[Any]) -> NDArray[Any]:
        """The map on every pixel of `image` [H, W, 3] (uint8, or float 0..1); same type and range, clipped to it."""
        if self.trust == 0.0:
            return image
        colors = _as_float(image).reshape(-1, 3)
        mapped = _through_grid(self, colors) if self.costly and len(colors) > GRID**3 else self(colors)
        return _like(np.clip(mapped, 0.0, 1.0, out=mapped).reshape(image.shape), image)


def fit(name: str, image: ColorStatistics, target: ColorStatistics) -> ColorMap:
    """The map that moves colours with statistics `image` to those of `target`. Raises `InputError` for unknown names.

    Little evidence (a small mask in either) shrinks the map towards doing nothing.
    """
    if name not in METHODS:
        raise InputError(f"Colour transfer {name!r} is not one of {', '.join(METHODS)}.")
    weight = min(image.weight, target.weight)
    trust = float(np.clip((weight - FEW_PIXELS) / (ENOUGH_PIXELS - FEW_PIXELS), 0.0, 1.0))
    if name == "none" or trust == 0.0 or not len(image.samples) or not len(target.samples):
        return ColorMap(lambda colors: colors, 0.0)
    if name == "rct":
        return ColorMap(_reinhard(image, target), trust)
    if name in {"lct", "mkl"}:
        return ColorMap(_linear(name, image, target), trust)
    return ColorMap(_transport(name, image.samples, target.samples), trust, costly=True)


def transfer(name: str, image: NDArray[Any], target: NDArray[Any], mask: Mask) -> NDArray[Any]:
    """`image` [H, W, 3] with the colours that `target` [H, W, 3] has inside `mask` [H, W]; same type as `image`.

    The whole picture is mapped; only what the mask shows decides how.
    """
    return fit(name, ColorStatistics.measure(image, mask), ColorStatistics.measure(target, mask)).on_image(image)


def _as_float(image: NDArray[Any]) -> Floats:
    """RGB 0..1 float32 of a uint8 or float picture."""
    if image.dtype == np.uint8:
        return image.astype(np.float32) / 255.0
    return np.ascontiguousarray(image, np.float32)


def _like(colors: Floats, image: NDArray[Any]) -> NDArray[Any]:
    """Colours 0..1, which may be written over, in the type of `image`."""
    if image.dtype != np.uint8:
        return colors.astype(image.dtype)
    colors *= 255.0
    return np.rint(colors, out=colors).astype(np.uint8)


def _to_lab(colors: NDArray[Any]) -> Floats:
    row = np.ascontiguousarray(colors, np.float32).reshape(1, -1, 3)
    return cv2.cvtColor(row, cv2.COLOR_RGB2Lab).reshape(-1, 3).astype(np.float32, copy=False)


def _from_lab(lab: NDArray[Any]) -> Floats:
    row = np.ascontiguousarray(lab, np.float32).reshape(1, -1, 3)
    return cv2.cvtColor(row, cv2.COLOR_Lab2RGB).reshape(-1, 3).astype(np.float32, copy=False)


def _moments(colors: Floats, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted mean [3] and covariance [3, 3]."""
    share = weights / weights.sum()
    mean = share @ colors.astype(np.float64)
    centred = colors - mean
    return mean, (centred * share[:, None]).T @ centred


def _thinned(samples: Floats, share: float) -> Floats:
    """A part of the samples, spread evenly, so that a window of frames together keeps about `MAX_SAMPLES`."""
    count = min(len(samples), round(MAX_SAMPLES * share))
    return samples[np.linspace(0, len(samples) - 1, count).astype(int)] if count else samples[:0]


def _reinhard(image: ColorStatistics, target: ColorStatistics) -> Move:
    gain = np.sqrt((target.lab_variance + NOISE * 1e4) / (image.lab_variance + NOISE * 1e4))
    gain = np.clip(gain, 1 / MAX_GAIN, MAX_GAIN)

    factor, offset = gain.astype(np.float32), (target.lab_mean - gain * image.lab_mean).astype(np.float32)

    def move(colors: Floats) -> Floats:
        lab = _to_lab(colors)
        lab *= factor
        lab += offset
        return _from_lab(lab)

    return move


def _linear(name: str, image: ColorStatistics, target: ColorStatistics) -> Move:
    a = image.covariance + NOISE * np.eye(3)
    b = target.covariance + NOISE * np.eye(3)
    root = _power(a, 0.5)
    inverse_root = _power(a, -0.5)
    matrix = (
        inverse_root @ _power(root @ b @ root, 0.5) @ inverse_root if name == "mkl" else _power(b, 0.5) @ inverse_root
    )
    left, gain, right = np.linalg.svd(matrix)
    matrix = (left * np.clip(gain, 1 / MAX_GAIN, MAX_GAIN)) @ right
    offset = target.mean - matrix @ image.mean
    turned, shift = matrix.T.astype(np.float32), offset.astype(np.float32)
    return lambda colors: colors @ turned + shift


def _power(matrix: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """Power of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.maximum(values, 1e-12) ** exponent) @ vectors.T


def transport_1d(image: NDArray[Any], target: NDArray[Any]) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """The monotone map of values `image` [N] onto values `target` [M]: the k-th smallest goes to the k-th smallest.

    Between known values it is linear; beyond them it shifts, so that highlights outside the sample keep their shape.
    """
    ordered = np.sort(target).astype(np.float64)
    if len(image) != len(target):
        at = (np.arange(len(image)) + 0.5) / len(image)
        ordered = np.interp(at, (np.arange(len(target)) + 0.5) / len(target), ordered)
    values, group = np.unique(np.sort(image).astype(np.float64), return_inverse=True)
    # Equal values cannot be told apart, so each goes to the mean of the places it stands for.
    goal = np.bincount(group, ordered) / np.bincount(group)

    def move(x: NDArray[Any]) -> NDArray[Any]:
        return np.interp(x, values, goal) + (x - np.clip(x, values[0], values[-1]))

    return move


def _directions(name: str) -> tuple[list[NDArray[np.float64]], float]:
    """Bundles of unit directions [K, 3], the same for every frame, and the step that goes with them.

    One orthonormal bundle moves by the full step. Of K random directions each displacement is seen K / 3 times.
    """
    chance = np.random.default_rng(20070)
    if name == "hist":
        return [np.eye(3)], 1.0
    turns = [np.linalg.qr(chance.normal(size=(3, 3)))[0] for _ in range(20)]
    if name == "idt":
        return [np.eye(3), *turns], 1.0
    return [np.concatenate(turns[i : i + 2]) for i in range(0, 20, 2)], 0.5


def _transport(name: str, image: Floats, target: Floats) -> Move:
    """hist, idt and sot: 1-D transports along directions, each fitted to where the ones before left the samples."""
    bundles, step = _directions(name)
    moving, goal = image.astype(np.float64), target.astype(np.float64)
    chain = []
    for bundle in bundles:
        moves = [transport_1d(moving @ line, goal @ line) for line in bundle]
        chain.append((bundle, moves))
        moving = moving + step * _displacement(moving, bundle, moves)

    def move(colors: Floats) -> Floats:
        result = colors.astype(np.float64)
        for bundle, moves in chain:
            result = result + step * _displacement(result, bundle, moves)
        return result.astype(np.float32)

    return move


def _displacement(
    colors: NDArray[np.float64], bundle: NDArray[np.float64], moves: list[Callable[[NDArray[Any]], NDArray[Any]]]
) -> NDArray[np.float64]:
    along = colors @ bundle.T
    return np.stack([move(along[:, k]) - along[:, k] for k, move in enumerate(moves)], axis=1) @ bundle


def _through_grid(color_map: ColorMap, colors: Floats) -> Floats:
    """A costly map by trilinear interpolation in a 25^3 table; this also takes out the grain long chains bring."""
    steps = np.linspace(0.0, 1.0, GRID, dtype=np.float32)
    table = color_map(np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3))
    place = np.clip(colors, 0.0, 1.0) * (GRID - 1)
    low = np.minimum(place.astype(np.int32), GRID - 2)
    part = place - low
    result = np.zeros_like(colors)
    for corner in range(8):
        offset = np.array([corner >> 2 & 1, corner >> 1 & 1, corner & 1])
        weight = np.where(offset, part, 1.0 - part).prod(axis=1, keepdims=True)
        index = low + offset
        result += weight * table[(index[:, 0] * GRID + index[:, 1]) * GRID + index[:, 2]]
    return result
