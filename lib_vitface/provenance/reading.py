"""Finding and reading the invisible mark: synchronisation, soft voting over frames, decoding, and how sure that is."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

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
# Share of the original's short side that is seen: crops down to a third, frames around it up to a third more. Those near 1 come
# first, since a little is cropped more often than much.
_SHARES = tuple(float(s) for s in np.exp(sorted(np.arange(np.log(1 / 3), np.log(4 / 3), 0.005), key=abs)))
_AROUND = 0.015  # a strong mark is seen that far off its own share
_BEST, _NEAR = 3, tuple(float(s) for s in np.linspace(0.996, 1.004, 9))
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


_UPRIGHT = ("none", "mirrored")
Tile = NDArray[np.float64]


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
    tiles, fine = _accumulate(images, search)
    frames, tests = len(tiles), len(_TURNS)
    whole, found = np.sum(tiles, axis=0), []
    for turn in _TURNS:
        found += _candidates(whole, 1.0, turn)
        # The others are looked at where this one says nothing, and counted all the same.
        if turn == "none" and (reading := _judge(found, tests, key, frames)).record_id is not None:
            return reading
    if frames > 1:
        tests += frames * len(_UPRIGHT)
        found += _best_frame(tiles)
    reading = _judge(found, tests, key, frames)
    if reading.record_id is not None or fine is None:
        return reading
    # All that may be tried counts, also where the search ends early.
    tests += len(_UPRIGHT) * len(_SHARES) + _BEST * len(_NEAR)
    for best in sorted(_coarse(fine, tests), key=lambda c: -c.score)[:_BEST]:
        for share in _NEAR:
            tile = pattern.fold(_scaled(fine, best.share * share))
            found += _candidates(tile, best.share * share, best.turn)
    return _judge(found, tests, key, frames)


def _coarse(fine: Floats, tests: int) -> list[_Candidate]:
    """The best candidate of each share, upright and mirrored; ends around the first that is beyond chance in `tests` tries."""
    found = []
    for share, turn in itertools.product(_SHARES, _UPRIGHT):
        found += _candidates(pattern.fold(_scaled(fine, share)), share, turn, 1)
        if pattern.false_alarm(found[-1].score, tests) <= ALPHA:
            around = (s for s in _SHARES if s != share and abs(s / share - 1) < _AROUND)
            return found + [c for s in around for c in _candidates(pattern.fold(_scaled(fine, s)), s, turn, 1)]
    return found


def _best_frame(tiles: Sequence[Tile]) -> list[_Candidate]:
    """The frame that bears the mark best, with the coefficients of all frames, each weighted by how well it bears it there.

    An encoder carries a still mark along with what moves, so often a whole frame now and then shows it in place and the frames
    between do not. The score is the one frame's: weights that come from the known carriers would not bound chance.
    """
    alone = [c for tile in tiles for turn in _UPRIGHT for c in _candidates(tile, 1.0, turn, 1)]
    best = max(alone, key=lambda c: c.score)
    same = [pattern.whitened(_turned(tile, best.turn)) for tile in tiles]
    weights = [max(pattern.reception(v, best.shift), 0.0) for v in same]
    return [replace(best, values=np.tensordot(weights, same, 1))]


def _accumulate(images: Iterable[Image], search: bool) -> tuple[list[Tile], Floats | None]:
    """The folded detail of each picture, and the sum of their normalised detail at the finer size."""
    tiles: list[Tile] = []
    fine: Floats | None = None
    shape: tuple[int, ...] = ()
    for image in images:
        if tiles and image.shape != shape:
            raise InputError(
                f"Pictures that are read together must have one size, not {shape[:2]} and {image.shape[:2]}."
            )
        shape = image.shape
        tiles.append(pattern.fold(normalised(grey(image))[0]))
        if search:
            residual = normalised(grey(image, _FINE_SIDE))[0]
            fine = residual if fine is None else fine + residual
    if not tiles:
        raise InputError("There is no picture to look for a mark in.")
    return tiles, fine


def _scaled(picture: Floats, share: float) -> Floats:
    """The picture brought to the size at which the pattern has its own, if `share` of the original's short side is seen."""
    height, width = picture.shape
    scale = share * SIDE / min(height, width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    small = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)
    # Whole pixels are too coarse for small shares; the rest of the change is made by interpolation.
    rest = np.array([[columns / (width * scale), 0, 0], [0, rows / (height * scale), 0]])
    return np.asarray(cv2.warpAffine(small, rest, (columns, rows), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP))


def _candidates(tile: Tile, share: float, turn: str, count: int = _PEAKS) -> list[_Candidate]:
    values = pattern.whitened(_turned(tile, turn))
    return [_Candidate(score, shift, values, share, turn) for score, shift in pattern.find(values, count)]


def _turned(tile: Tile, turn: str) -> Tile:
    swap, rows, columns = _TURNS[turn]
    return (tile.T if swap else tile)[:: -1 if rows else 1, :: -1 if columns else 1]


def _judge(found: Sequence[_Candidate], tests: int, key: bytes | None, frames: int) -> Reading:
    """The best candidate as a reading.

    A mark is present if its score alone is beyond chance, or if its score times the chance of passing the check (CRC and version)
    in so many attempts is.
    """
    ranked = sorted(found, key=lambda c: -c.score)[:_PEAKS]
    best = ranked[0]
    chance = pattern.false_alarm(best.score, tests)
    whole: dict[Payload, _Candidate] = {}
    for candidate in ranked:
        luck = pattern.false_alarm(candidate.score, tests) * len(ranked) * 2.0 ** -(CRC_BITS + VERSION_BITS)
        # Most pictures bear no mark; theirs would be decoded for nothing.
        payload = decode(pattern.soft_bits(candidate.values, candidate.shift)) if luck <= ALPHA else None
        if payload is not None:
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
