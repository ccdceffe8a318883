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
from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.provenance import carriers as pattern
from lib_vitface.provenance.code import Payload, encode, keyed_code, short_id
from lib_vitface.provenance.reading import HIGH_PASS, Reading, grey, normalised, read
from lib_vitface.types import Floats, Image

FRAME, FRAME_MOST = 0.7, 1.8
"""Root mean square of what is added to luma, in grey levels, in the frames of a video, many of which are read together: at least
and at most. It is a static pattern under a moving face, so in video it also costs steadiness."""
FRAME_SSIM = 0.988
"""Likeness to the unmarked, mean of some frames, that is kept where more than `FRAME` is wanted."""
SAMPLES = 7
"""Frames, spread over a video, from which its strength is found."""
STILL = (0.8, 2.4)
"""The same in a picture that stands alone: at least and at most (40.5 dB). Between them the picture decides, by `SSIM`."""
SSIM = 0.985
"""Likeness to the unmarked that a still keeps. Texture hides more of the mark and needs more of it, so an even strength is seen
too well in smooth pictures and lost in rough ones."""
_STEP = 0.1  # between the strengths that are tried
_JPEG, _LEFT = (
    30,
    15.0,
)  # quality, and score that a frame's mark keeps after it: then H.265 at CRF 28 leaves it in many together
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
        likeness, (low, high) = Likeness(image), STILL
        rms, wanted = math.sqrt(low * high), sum(_LOSSES) / 2
        for _ in range(_TRIES):
            marked = self._added(image, *detail, rms)
            loss = 1.0 - likeness(marked)
            # The loss grows nearly as the square of the strength.
            better = min(max(rms * math.sqrt(wanted / max(loss, 1e-6)), low), high)
            if _LOSSES[0] <= loss <= _LOSSES[1] or better == rms:
                break
            rms = better
        return marked

    def strength(self, frames: Sequence[Image]) -> float:
        """One strength for all frames of a video, from `SAMPLES` of them: the least that is still there after strong compression.

        What a codec leaves of a mark depends on how soft the footage is: sharp footage has the detail that makes it keep the mark's
        frequencies. So it is tried on single frames, as JPEG, which is quick and the same everywhere.
        """
        some = [(image, normalised(grey(image)), Likeness(image)) for image in frames]
        chosen = FRAME
        for rms in np.arange(FRAME, FRAME_MOST + _STEP / 2, _STEP).round(3).tolist() if some else ():
            marked = [self._added(image, *detail, rms) for image, detail, _ in some]
            if rms > FRAME and np.mean([like(m) for m, (_, _, like) in zip(marked, some, strict=True)]) < FRAME_SSIM:
                break
            chosen = rms
            # The median: a black frame, as films begin with, holds no mark of any strength.
            if np.median([self.seen(_compressed(image)) for image in marked]) >= _LEFT:
                break
        return chosen

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


def _compressed(image: Image) -> Image:
    """What JPEG leaves of the luma, RGB."""
    data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), [cv2.IMWRITE_JPEG_QUALITY, _JPEG])[1]
    return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), cv2.COLOR_GRAY2RGB))


class Likeness:
    """Structural similarity -1..1 to one RGB picture `[H, W, 3]` (Wang et al. 2004): even windows of 7 px, mean over colours.

    Looks at every third window down and across, which overlap as they are, and works out once what depends on this picture alone.
    `metrics` has one too, whose Gaussian windows need a picture of 11 px and more.
    """

    def __init__(self, image: Image) -> None:
        self._image = image
        self._mean = _windows(image)
        self._squares = self._mean * self._mean
        self._spread = _windows(image, image) - self._squares

    def __call__(self, other: Image) -> float:
        mean = _windows(other)
        products, squares = self._mean * mean, self._squares + mean * mean
        joint = _windows(self._image, other) - products
        apart = self._spread + self._squares + _windows(other, other) - squares
        return float(np.mean((2 * products + _C1) * (2 * joint + _C2) / ((squares + _C1) * (apart + _C2))))


def _windows(image: Image, times: Image | None = None) -> Floats:
    """Means of the picture, or of its product with another, in windows of 7 px: every third, float32."""
    values = image if times is None else cv2.multiply(image, times, dtype=cv2.CV_32F)
    return np.asarray(cv2.boxFilter(values, cv2.CV_32F, (7, 7))[::3, ::3])


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
