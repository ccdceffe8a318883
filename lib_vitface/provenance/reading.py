"""Finding and reading the invisible mark: synchronisation, soft voting over frames, decoding, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from lib_vitface.errors import InputError
from lib_vitface.provenance import carriers as pattern
from lib_vitface.provenance.code import CRC_BITS, VERSION_BITS, Payload, decode, keyed_code
from lib_vitface.types import Floats, Image

SIDE = 192  # working size: short side in pixels
_LONGEST = 4096  # of the working size
_FINE_SIDE = 288  # frames are kept at this size while a change of scale is looked for
_KEPT = 24
HIGH_PASS, _NEIGHBOURHOOD = 1.5, 3.0  # standard deviations of the two blurs, working pixels
_FLOOR, _LIMIT = 0.7, 2.5
ALPHA = 1e-7  # allowed probability of a false alarm, of each of the two rules in `_judge`
_PEAKS = 4
# Share of the original's short side that is seen: crops down to a third, frames around it up to a third more.
_SHARES = tuple(float(s) for s in np.exp(np.arange(np.log(1 / 3), np.log(4 / 3), 0.005)))
_TURNS = {
    "none": (False, False, False),
    "mirrored": (False, False, True),
    "upside down": (False, True, True),
    "upside down, mirrored": (False, True, False),
    "turned left": (True, True, False),
    "turned right": (True, False, True),
    "turned left, mirrored": (True, False, False),
    "turned right, mirrored": (True, True, True),
}


@dataclass(frozen=True)
class Reading:
    """What was read.

    `present` holds up to the probability `false_alarm`, which bounds how often unmarked pictures read like this; `confidence`
    is 1 minus that. `score` is the correlation in standard deviations. `version` and `record_id` (first 8 hex digits of the
    consent record) are None where the mark is seen but the message cannot be read. `authentic` says whether the keyed code
    is that of the given key; None without key or message. `share` is how much of the original's short side is seen, `turn`
    how the picture was turned. `others` are the record ids of further marks in the same picture.
    """

    present: bool
    version: int | None
    record_id: str | None
    authentic: bool | None
    confidence: float
    frames_used: int
    score: float
    false_alarm: float
    share: float = 1.0
    turn: str = "none"
    others: tuple[str, ...] = ()


def canvas_size(height: int, width: int, side: float = SIDE) -> tuple[int, int]:
    """Height and width of the working picture."""
    scale = min(side / min(height, width), _LONGEST / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def grey(image: Image, side: float = SIDE) -> Floats:
    """Luma 0..255 of RGB uint8 `[H, W, 3]` at the working size, float32."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise InputError(f"Only RGB pictures of 8 bits hold a mark, not {image.dtype} {image.shape}.")
    height, width = canvas_size(image.shape[0], image.shape[1], side)
    shrinks = height <= image.shape[0]
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if shrinks:
        return cv2.resize(luma, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.asarray(cv2.resize(luma.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC))


def normalised(luma: Floats) -> tuple[Floats, Floats]:
    """`(residual, contrast)`: the fine detail divided by its local level and limited, and that level in grey levels."""
    detail = luma - cv2.GaussianBlur(luma, (0, 0), HIGH_PASS)
    contrast = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), _NEIGHBOURHOOD)) + np.float32(_FLOOR)
    return np.clip(detail / contrast, -_LIMIT, _LIMIT), contrast


@dataclass(frozen=True)
class _Candidate:
    """A place where the pattern may lie: coefficients `values` [K] of the folded picture, the shift, and its score."""

    score: float
    shift: pattern.Shift
    values: pattern.Spectrum
    share: float
    turn: str


def read(images: Iterable[Image], key: bytes | None = None, *, search: bool = True) -> Reading:
    """Reads the mark of one picture, or of frames of one video `[H, W, 3]` which are voted together.

    `key` lets it say whether the mark is genuine. Without `search` only changes of size, shifts and turns are looked for
    (about 50 ms), with it also crops, borders and zooms (about 2 s where nothing is found at once).
    Raises `InputError` when there is no picture or when sizes differ.
    """
    plain, fine, frames = _accumulate(images, search)
    tests = len(_TURNS)
    found = [c for turn in _TURNS for c in _candidates(plain, 1.0, turn)]
    reading = _judge(found, tests, key, frames)
    if reading.record_id is not None or fine is None:
        return reading
    coarse = [
        c
        for share in _SHARES
        for turn in ("none", "mirrored")
        for c in _candidates(_scaled(fine, share), share, turn, 1)
    ]
    tests += len(coarse)
    for best in sorted(coarse, key=lambda c: -c.score)[:3]:
        for share in best.share * np.linspace(0.996, 1.004, 9):
            found += _candidates(_scaled(fine, float(share)), float(share), best.turn)
            tests += 1
    return _judge(found, tests, key, frames)


def _accumulate(images: Iterable[Image], search: bool) -> tuple[Floats, Floats | None, int]:
    """Sums of the normalised detail of all pictures at the working size and at the finer one."""
    plain: Floats | None = None
    fine: Floats | None = None
    shape: tuple[int, ...] = ()
    frames = 0
    for image in images:
        if frames and image.shape != shape:
            raise InputError(
                f"Pictures that are read together must have one size, not {shape[:2]} and {image.shape[:2]}."
            )
        shape, frames = image.shape, frames + 1
        residual = normalised(grey(image))[0]
        plain = residual if plain is None else plain + residual
        if search:
            residual = normalised(grey(image, _FINE_SIDE))[0]
            fine = residual if fine is None else fine + residual
    if plain is None:
        raise InputError("There is no picture to look for a mark in.")
    return plain, fine, frames


def _scaled(picture: Floats, share: float) -> Floats:
    """The picture brought to the size at which the pattern has its own, if `share` of the original's short side is seen."""
    height, width = picture.shape
    scale = share * SIDE / min(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    small = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)
    # Whole pixels are too coarse for small shares; the rest of the change is made by interpolation.
    rest = np.array([[columns / (width * scale), 0, 0], [0, rows / (height * scale), 0]])
    return np.asarray(cv2.warpAffine(small, rest, (columns, rows), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))


def _candidates(picture: Floats, share: float, turn: str, count: int = _PEAKS) -> list[_Candidate]:
    swap, rows, columns = _TURNS[turn]
    tile = pattern.fold(picture)
    tile = (tile.T if swap else tile)[:: -1 if rows else 1, :: -1 if columns else 1]
    values = pattern.whitened(tile)
    return [_Candidate(score, shift, values, share, turn) for score, shift in pattern.find(values, count)]


def _judge(found: Sequence[_Candidate], tests: int, key: bytes | None, frames: int) -> Reading:
    """The best candidate as a reading.

    A mark is present if its score alone is beyond chance, or if its score times the chance of passing the check (CRC and version)
    in so many attempts is.
    """
    ranked = sorted(found, key=lambda c: -c.score)[:_PEAKS]
    best, payloads = ranked[0], [decode(pattern.soft_bits(c.values, c.shift)) for c in ranked]
    chance = pattern.false_alarm(best.score, tests)
    whole: dict[Payload, _Candidate] = {}
    for candidate, payload in zip(ranked, payloads, strict=True):
        luck = pattern.false_alarm(candidate.score, tests) * len(ranked) * 2.0 ** -(CRC_BITS + VERSION_BITS)
        if payload is not None and luck <= ALPHA:
            whole.setdefault(payload, candidate)
            chance = min(chance, luck)
    reading = Reading(
        chance <= ALPHA, None, None, None, 1.0 - chance, frames, best.score, chance, best.share, best.turn
    )
    if not whole:
        return reading
    first, place = next(iter(whole.items()))
    return replace(
        reading,
        version=first.version,
        record_id=first.record_id,
        authentic=None if key is None else first.code == keyed_code(first.record_id, key),
        score=place.score,
        share=place.share,
        turn=place.turn,
        others=tuple(sorted({p.record_id for p in whole} - {first.record_id})),
    )
