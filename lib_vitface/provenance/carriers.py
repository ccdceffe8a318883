"""The pseudo-random pattern of the mark: a 96 x 96 tile whose Fourier coefficients carry synchronisation and message.

Additive spread spectrum (Cox, Kilian, Leighton, Shamoon 1997) in a tile that is repeated over the picture, so that any part of it
that holds one tile suffices and shifts are found by correlation (Kutter 1999). A quarter of the coefficients, of known
phase, is for finding the mark; the others carry the coded bits as phase 0 or 180 degrees. The phases come from SHAKE-256
of a public label, so that they are the same everywhere and anybody can look for the mark.
"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.provenance.code import CODED_BITS, Bits, Soft
from lib_vitface.types import Floats

TILE = 96
_LABEL = b"vitface mark 1"
_BAND = (0.08, 0.35)  # cycles per working pixel: low enough to survive quantisation, high enough not to be content
_SYNC_SHARE = 0.25
_FINE = 2  # shifts are looked for in steps of half a working pixel
_LIMIT = 2.5  # of a whitened coefficient, so that no single one decides

Spectrum = NDArray[np.complex128]
Shift = tuple[float, float]


@dataclass(frozen=True)
class Carriers:
    """`rows`, `columns` [K] place coefficients in the half spectrum `[96, 49]`; rows are signed frequencies.

    `phase` [K] unit complex numbers; `sync`, `data` index into K; `bit` [len(data)] is the coded bit a coefficient carries;
    `ring` [K] numbers bands of like frequency.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    phase: Spectrum
    sync: NDArray[np.intp]
    data: NDArray[np.intp]
    bit: NDArray[np.intp]
    ring: NDArray[np.intp]

    def turn(self, shift: Shift) -> Spectrum:
        """Factors `[K]` on the coefficients when the tile is moved by `shift` (rows, columns)."""
        return np.exp((self.rows * shift[0] + self.columns * shift[1]) * (-2j * np.pi / TILE))


@functools.lru_cache(maxsize=1)
def carriers() -> Carriers:
    """The pattern; the same on every machine."""
    vertical, horizontal = np.meshgrid(np.fft.fftfreq(TILE), np.fft.rfftfreq(TILE), indexing="ij")
    radius = np.hypot(vertical, horizontal)
    # Of the column of frequency 0 only one half is free, the other is its mirror.
    free = (horizontal > 0) | (vertical > 0)
    rows, columns = np.nonzero(free & (radius >= _BAND[0]) & (radius <= _BAND[1]))
    count = len(rows)
    draw = np.frombuffer(hashlib.shake_256(_LABEL).digest(8 * count), "<u4").astype(np.float64) / 2**32
    order = np.argsort(draw[count:], kind="stable")
    sync, data = np.split(order, [int(count * _SYNC_SHARE)])
    ring = ((radius[rows, columns] - _BAND[0]) / (_BAND[1] - _BAND[0]) * 5.999).astype(np.intp)
    rows = np.where(rows >= TILE // 2, rows - TILE, rows)
    phase = np.exp(2j * np.pi * draw[:count])
    return Carriers(rows, columns, phase, sync, data, np.arange(len(data)) % CODED_BITS, ring)


def signed(coded: Bits) -> Spectrum:
    """Phases of all carriers `[K]` with the coded bits on those that carry them."""
    known = carriers()
    phase = known.phase.copy()
    phase[known.data] *= 1.0 - 2.0 * coded[known.bit]
    return phase


def tile_of(coefficients: Spectrum) -> Floats:
    """The tile `[96, 96]` float32 with these carrier coefficients `[K]`, scaled to a root mean square of 1."""
    known = carriers()
    half = np.zeros((TILE, TILE // 2 + 1), np.complex128)
    half[known.rows, known.columns] = coefficients
    tile = np.fft.irfft2(half, s=(TILE, TILE))
    return (tile / math.sqrt(float(np.mean(tile * tile)))).astype(np.float32)


def fold(picture: Floats) -> NDArray[np.float64]:
    """Sum of all tiles of a picture `[H, W]`, `[96, 96]`; what is beyond the edge counts as 0."""
    height, width = picture.shape
    padded = np.pad(picture, ((0, -height % TILE), (0, -width % TILE)))
    stack = padded.reshape(padded.shape[0] // TILE, TILE, padded.shape[1] // TILE, TILE)
    return stack.sum(axis=(0, 2), dtype=np.float64)


def noise_level(tile: NDArray[np.float64]) -> NDArray[np.float64]:
    """Magnitude of a tile's spectrum `[96, 49]` smoothed over 9 x 9 neighbours: the content that hides the mark."""
    power = np.fft.fftshift(np.abs(np.fft.fft2(tile)) ** 2)
    # float64, and not below 0: beside a very strong line the running sum of the blur rounds to less than nothing
    smooth = np.maximum(cv2.blur(power, (9, 9), borderType=cv2.BORDER_REFLECT), 0.0)
    level: NDArray[np.float64] = np.sqrt(np.fft.ifftshift(smooth) + 1e-12)
    return level[:, : TILE // 2 + 1]


def whitened(tile: NDArray[np.float64]) -> Spectrum:
    """Coefficients `[K]` of a folded tile at the carriers, divided by their surroundings and limited."""
    known = carriers()
    values = (np.fft.rfft2(tile) / noise_level(tile))[known.rows, known.columns]
    size = np.abs(values)
    return values * np.minimum(1.0, _LIMIT / np.maximum(size, 1e-9))


def find(values: Spectrum, count: int = 1) -> list[tuple[float, Shift]]:
    """The best shifts of the known pattern in whitened coefficients, as (score, shift), best first.

    The score is normalised so that for a picture without mark, over the random choice of phases,
    P(score > z at one given shift) <= exp(-z**2 / 2), whatever the picture (see `false_alarm`).
    """
    known = carriers()
    size = TILE * _FINE
    grid = np.zeros((size, size // 2 + 1), np.complex128)
    sync = values[known.sync] * known.phase[known.sync].conj()
    # Only one half of the spectrum is filled; the inverse transform adds the other, but to the column of frequency 0.
    grid[known.rows[known.sync], known.columns[known.sync]] = sync * np.where(known.columns[known.sync] > 0, 0.5, 1.0)
    scale = math.sqrt(float(np.sum(np.abs(sync) ** 2)) / 2) or 1.0
    scores = np.fft.irfft2(grid, s=(size, size)) * (size * size / scale)
    found = []
    for _ in range(count):
        row, column = divmod(int(np.argmax(scores)), size)
        found.append((float(scores[row, column]), (row / _FINE, column / _FINE)))
        scores[np.ix_(np.arange(row - 4, row + 5) % size, np.arange(column - 4, column + 5) % size)] = -np.inf
    return found


def hypotheses(tests: int) -> int:
    """How many shifts are compared in so many calls of `find`."""
    return tests * (TILE * _FINE) ** 2


def false_alarm(score: float, tests: int) -> float:
    """Upper bound of the probability that a picture without mark scores as high in any of so many calls of `find`.

    The score is sum(w cos u) / sqrt(sum(w^2) / 2) with angles u that are independent and uniform because the phases of the
    pattern are. E exp(t cos u) = I0(t) <= exp(t^2 / 4) gives the bound exp(-z^2 / 2) for each shift (Chernoff), for any
    weights w; the shifts are added up (Bonferroni).
    """
    return min(1.0, hypotheses(tests) * math.exp(-0.5 * max(score, 0.0) ** 2))


def reception(values: Spectrum, shift: Shift) -> float:
    """How well the known carriers are received at a shift: mean of whitened coefficients `[K]` along their phases, 0 for none."""
    known = carriers()
    return float(np.mean((values * (known.phase * known.turn(shift)).conj()).real[known.sync]))


def soft_bits(values: Spectrum, shift: Shift) -> Soft:
    """Soft values `[368]` of the coded bits, positive for 0, weighted by how well each ring of frequencies is received.

    The reception is measured on the known carriers of the ring.
    """
    known = carriers()
    projected = (values * (known.phase * known.turn(shift)).conj()).real
    rings = int(known.ring.max()) + 1
    total = np.bincount(known.ring[known.sync], projected[known.sync], rings).astype(np.float64)
    gain = total / np.maximum(np.bincount(known.ring[known.sync], minlength=rings), 1)
    weights = np.maximum(gain, 0.02)[known.ring[known.data]]
    return np.bincount(known.bit, projected[known.data] * weights, CODED_BITS).astype(np.float64)
