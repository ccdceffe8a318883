"""The invisible mark in the pixels: put in last, found again after compression, scaling, cropping and mirroring.

The picture's luma is brought to a working size (short side 192), the tiled pattern of `carriers` is shaped there by the local
contrast, brought back to full size and added to the three colours alike; so the cost hardly grows with the picture, and a
plain change of size needs no search. The strength of every coded bit answers to what the picture itself says at its carriers
(improved spread spectrum: Malvar and Florencio 2003), so that the content hides little of the message.

An own method because of what was measured: RivaGAN of invisible-watermark costs 90 to 270 ms a frame and holds 32 bits
without a computable rate of false alarms, `dwtDct` is gone after H.264 at CRF 23, and `dwtDctSvd` costs 130 to 690 ms, has
4 to 16 % wrong bits at CRF 28 and does not survive scaling.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.provenance import carriers as pattern
from lib_vitface.provenance.code import Payload, encode, keyed_code, short_id
from lib_vitface.provenance.reading import HIGH_PASS, Reading, grey, normalised, read
from lib_vitface.types import Floats, Image

FRAME = 0.7
"""Root mean square of what is added to luma, in grey levels, in a frame of a video, many of which are read together. It is a
static pattern under a moving face, so in video it also costs steadiness."""
STILL = (0.8, 2.4)
"""The same in a picture that stands alone: at least and at most (40.5 dB). Between them the picture decides, by `SSIM`."""
SSIM = 0.985
"""Likeness to the unmarked that a still keeps. Texture hides more of the mark and needs more of it, so an even strength is seen
too well in smooth pictures and lost in rough ones."""
_LOSSES = (0.0130, 0.0144)  # of likeness that a still comes to rest at: close to what `SSIM` allows, and below it
_TRIES = 6
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # of structural similarity

_MASKING = 0.25  # exponent of the local contrast in the local strength; 0 would be the same everywhere
_ISS = 1.0  # share of the content's own say at the carriers that is made up for
_WEAKEST, _STRONGEST = 0.0, 3.0  # of a coded bit's carriers, relative to the mean
_SEEN = 12.0  # score from which our own mark counts as already there (chance: exp(-72))


class Watermark:
    """Puts in the mark of one consent record. No state: the same picture gives the same pixels, so a resumed job agrees."""

    def __init__(self, record_id: str, key: bytes | None = None) -> None:
        """`key` makes the keyed code by which `read` knows the mark as genuine. Raises `InputError` for a bad id."""
        short = short_id(record_id)
        self.payload = Payload(short, keyed_code(short, key) if key is not None else 0)
        self._key = key
        phases = pattern.signed(encode(self.payload))
        # Every record has its own place, so that the marks of two records in one picture do not cover each other.
        place = self.payload.code ^ int(short, 16)
        self._moved = phases * pattern.carriers().turn((place % pattern.TILE, place // pattern.TILE % pattern.TILE))

    def embed(self, image: Image, rms: float | None = None) -> Image:
        """A marked copy of RGB uint8 `[H, W, 3]`; `rms` is the strength, None is for a still: as strong as `SSIM` lets it be.

        Raises `InputError` for anything else.
        """
        detail = normalised(grey(image))
        if rms is not None:
            return self._added(image, *detail, rms)
        low, high = STILL
        rms, wanted = math.sqrt(low * high), sum(_LOSSES) / 2
        for _ in range(_TRIES):
            marked = self._added(image, *detail, rms)
            loss = 1.0 - ssim(image, marked)
            # The loss grows nearly as the square of the strength.
            better = min(max(rms * math.sqrt(wanted / max(loss, 1e-6)), low), high)
            if _LOSSES[0] <= loss <= _LOSSES[1] or better == rms:
                break
            rms = better
        return marked

    def _added(self, image: Image, residual: Floats, contrast: Floats, rms: float) -> Image:
        height, width = image.shape[:2]
        strength = _strength(contrast, rms)
        tile = self._tile(residual, contrast, strength)
        rows, columns = (-(-n // pattern.TILE) for n in contrast.shape)
        mark = np.tile(tile, (rows, columns))[: contrast.shape[0], : contrast.shape[1]]
        shrinks = min(height, width) < min(contrast.shape)
        mark = cv2.resize(
            mark * strength, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        )
        return np.asarray(cv2.add(image, cv2.merge([mark, mark, mark]), dtype=cv2.CV_8U))

    def ensure(self, image: Image) -> Image:
        """The image itself if it bears this very mark already, else a marked copy; so that no picture is marked twice."""
        return image if self.seen(image) >= _SEEN else self.embed(image)

    def seen(self, image: Image) -> float:
        """Score, in standard deviations, of this very mark in an image that was not cropped since it was marked."""
        values = pattern.whitened(pattern.fold(normalised(grey(image))[0]))
        size = math.sqrt(float(np.sum(np.abs(values) ** 2)) / 2) or 1.0
        return float(np.sum((values * self._moved.conj()).real)) / size

    def read(self, images: Iterable[Image]) -> Reading:
        """Reads whatever mark there is, see `reading.read`; this mark's key is used to say whether it is genuine."""
        return read(images, self._key)

    def _tile(self, residual: Floats, contrast: Floats, strength: Floats) -> Floats:
        """The tile for this picture: carriers of bits that the content contradicts are made stronger, the others weaker."""
        known = pattern.carriers()
        host = pattern.fold(residual) * (pattern.TILE**2 / residual.size)
        level = pattern.noise_level(host)[known.rows, known.columns]
        values = np.fft.rfft2(host)[known.rows, known.columns]
        says = (values * self._moved.conj()).real / level
        # What an even mark would say at the same place, after the reader's filter and normalisation.
        gain = float(np.mean(strength / contrast)) * pattern.TILE**2 / math.sqrt(2 * len(known.rows))
        mark = gain * _response() / level
        amplitude = np.ones(len(values))
        for group, members in ((known.bit, known.data), (np.zeros(len(known.sync), np.intp), known.sync)):
            share = np.bincount(group, says[members]) / np.bincount(group, mark[members])
            amplitude[members] = np.clip(1.0 - _ISS * share, _WEAKEST, _STRONGEST)[group]
        return pattern.tile_of(self._moved * amplitude)


def ssim(a: Image, b: Image) -> float:
    """Structural similarity -1..1 of RGB pictures `[H, W, 3]` (Wang et al. 2004): even windows of 7 px, mean over colours.

    `metrics` has one too, whose Gaussian windows need a picture of 11 px and more.
    """
    total = 0.0
    for x, y in zip(cv2.split(a.astype(np.float32)), cv2.split(b.astype(np.float32)), strict=True):
        mean_x, mean_y = _window(x), _window(y)
        products, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
        joint, apart = _window(x * y) - products, _window(x * x + y * y) - squares
        total += float(np.mean((2 * products + _C1) * (2 * joint + _C2) / ((squares + _C1) * (apart + _C2))))
    return total / a.shape[2]


def _window(values: Floats) -> Floats:
    return np.asarray(cv2.blur(values, (7, 7)))


def _strength(contrast: Floats, rms: float) -> Floats:
    """Local strength of the mark in grey levels, its root mean square fixed so that the picture's PSNR is."""
    shape = contrast**_MASKING
    return np.asarray(shape * np.float32(rms / math.sqrt(float(np.mean(shape * shape)))))


@functools.lru_cache(maxsize=1)
def _response() -> NDArray[np.float64]:
    """Share `[K]` of each carrier's amplitude that the reader's high-pass filter lets through."""
    known = pattern.carriers()
    frequency = np.hypot(known.rows, known.columns) / pattern.TILE
    return np.asarray(1.0 - np.exp(-2.0 * (np.pi * HIGH_PASS * frequency) ** 2))
