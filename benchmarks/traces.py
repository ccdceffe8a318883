"""What a swap leaves in the fine detail of a face, measured against what is around it in the same frame.

A drawn face has another noise, another sharpness and another steadiness than the neck, hair and wall beside it, whoever it shows.
Fixed high-pass filters (second differences and the 5 x 5 kernel of the steganalysis rich model: Fridrich and Kodovsky 2012) take
away what is shown; what is left is averaged over the cells of a grid that lies with the head. Along the optical flow to the frames
before and after it is also asked how much of it comes again. A face's traces are differences between its cells and those around
it, so that camera, codec and light, which both have in common, cancel. What came of it: models/detector.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib_vitface.faces import align
from lib_vitface.faces.parse import hull_mask
from lib_vitface.types import Floats, Image, Mask, Matrix

GRID = 24
"""Cells along a side of the square about the head."""

COVERAGE = 1.75
"""Side of that square, in heights of the canonical face."""

_FINE_PX = 320  # a face higher than one and a half of this is looked at in half the size, and so on
_ROOM = 0.55  # half the side of the part of the frame that is looked at, in sides of the square: it may lean
_AROUND = 5  # cells beyond the face's outline that count as what is around it
_LEAST = 8  # cells that make a mean

_ACROSS = np.array([[0, 0, 0], [1, -2, 1], [0, 0, 0]], np.float32)
_SLANTED = np.diag(np.array([1, -2, 1], np.float32))
_RICH = (
    np.array(
        [[-1, 2, -2, 2, -1], [2, -6, 8, -6, 2], [-2, 8, -12, 8, -2], [2, -6, 8, -6, 2], [-1, 2, -2, 2, -1]], np.float32
    )
    / 4
)

SPATIAL = (
    *(f"{name} {level}" for level in range(3) for name in ("across", "down", "slanted", "rich")),
    *("peaks 0", "peaks 1", "blue 0", "red 0", "blue 1", "red 1", "luma", "edges"),
)
"""Of one frame: mean filter answers in three octaves (0 the finest), how few pixels make them up, chroma, light and coarse edges."""

TEMPORAL = ("change 0", "change 1", "again 0", "again 1", "again coarse", "flicker", "flicker coarse")
"""Against the frames before and after: what of the residual is new, its correlation, and how the picture changes."""

NAMES = SPATIAL + TEMPORAL
PARTS = ("inside", "edge", "spread")


@dataclass(frozen=True)
class Cells:
    """`values` `[GRID, GRID, len(NAMES)]`; those over time are NaN where no neighbour was given. `inside` `[GRID, GRID]` 0..1: how
    much of a cell is face. `seen` `[GRID, GRID]`: it lies in the frame."""

    values: Floats
    inside: Mask
    seen: NDArray[np.bool_]

    def regions(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Cells of the face, of its outline, and around it, each `[GRID, GRID]`."""
        beyond = self.inside <= 0.02
        away = cv2.distanceTransform(beyond.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        around = beyond & self.seen & (away <= _AROUND)
        if around.sum() < _LEAST:
            around = beyond & self.seen
        edge = (self.inside > 0.05) & (self.inside <= 0.95) & self.seen
        return (self.inside > 0.95) & self.seen, edge, around

    def summary(self) -> Floats | None:
        """The face against what is around it `[len(PARTS) * len(NAMES)]`: mean inside, mean at the outline (against both sides) and
        spread inside. None where too little of either is in the frame."""
        face, edge, around = (self.values[cells] for cells in self.regions())
        if min(len(face), len(edge), len(around)) < _LEAST:
            return None
        inner, outer = face.mean(axis=0), around.mean(axis=0)
        spread = face.std(axis=0) - around.std(axis=0)
        return np.concatenate([inner - outer, edge.mean(axis=0) - (inner + outer) / 2, spread])


def cells_of(image: Image, landmarks: Floats, around: Sequence[Image] = ()) -> Cells:
    """Cells about the face with `landmarks` `[468, 3]` of an RGB picture; `around` are the frames before and after, of the same size,
    as far as there are any."""
    place = _Place.of(landmarks, image.shape[:2])
    luma, blue, red = place.planes(image)
    found = {**_spatial(luma, place), **_chroma(blue, red, place)}
    moved = [_temporal(luma, place.planes(other)[0], place) for other in around if other.shape == image.shape]
    for name in TEMPORAL:
        found[name] = (
            np.mean([one[name] for one in moved], axis=0) if moved else np.full((GRID, GRID), np.nan, np.float32)
        )
    values = np.stack([_scaled(name, found[name]) for name in NAMES], axis=-1).astype(np.float32)
    whole = np.ones(luma.shape, np.float32)
    seen = cv2.warpAffine(whole, place.to_grid, (GRID, GRID), flags=cv2.INTER_NEAREST) > 0
    inside = place.pooled(hull_mask(place.landmarks, luma.shape))
    return Cells(values, inside, seen)


def _scaled(name: str, mean: Floats) -> Floats:
    """Means as logarithms, so that a factor becomes a difference; correlations stay."""
    if name.startswith("again"):
        return mean
    if name == "luma":
        return mean / 64
    return np.asarray(np.log(np.maximum(mean, 0) + (0.1 if name.startswith("peaks") else 0.05)), np.float32)


@dataclass(frozen=True)
class _Place:
    """The part of a frame that is looked at: its `box` (x0, y0, x1, y1), shrunk by a whole factor, landmarks in it, and its way to the
    grid. It is not turned or enlarged, since that would change what is looked for."""

    box: tuple[int, int, int, int]
    shrink: int
    landmarks: Floats
    to_grid: Matrix
    cell_px: float

    @staticmethod
    def of(landmarks: Floats, shape: tuple[int, ...]) -> _Place:
        fit = align.fit_head(landmarks)
        height = fit.scale * align.HEIGHT_CM
        middle, room = fit.project(align.MIDDLE[None])[0, :2], COVERAGE * height * _ROOM
        x0, y0 = (max(int(v - room) // 2 * 2, 0) for v in middle)
        x1, y1 = (min(int(v + room), n) for v, n in zip(middle, (shape[1], shape[0]), strict=True))
        shrink = max(1, round(height / _FINE_PX))
        points = ((landmarks - np.array([x0, y0, 0])) / shrink).astype(np.float32)
        fit = align.fit_head(points)
        factor = GRID / (fit.scale * align.HEIGHT_CM * COVERAGE)
        matrix = align.square_matrix(fit.project(align.MIDDLE[None])[0, :2], factor, fit.pose.roll_deg, GRID)
        return _Place((x0, y0, max(x1, x0 + 2), max(y1, y0 + 2)), shrink, points, matrix, 1 / factor)

    def planes(self, image: Image) -> tuple[Floats, Floats, Floats]:
        """Luma, blue and red difference `[h, w]` 0..255."""
        x0, y0, x1, y1 = self.box
        part = np.ascontiguousarray(image[y0:y1, x0:x1])
        if self.shrink > 1:
            size = part.shape[1] // self.shrink, part.shape[0] // self.shrink
            part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA))
        planes = cv2.cvtColor(part, cv2.COLOR_RGB2YCrCb).astype(np.float32)
        return planes[..., 0], planes[..., 2], planes[..., 1]

    def pooled(self, picture: Floats, octave: int = 0) -> Floats:
        """The mean over each cell `[GRID, GRID]` of a picture of this part, halved so often."""
        times = max(round(self.cell_px / 2**octave), 1)
        fine = times * self.to_grid
        fine[:, 2] += (times - 1) / 2
        fine[:, :2] *= 2**octave
        side = GRID * times
        spread = cv2.warpAffine(picture, fine, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(cv2.resize(spread, (GRID, GRID), interpolation=cv2.INTER_AREA), np.float32)


def _answer(picture: Floats, kernel: Floats) -> Floats:
    return np.asarray(np.abs(cv2.filter2D(picture, cv2.CV_32F, kernel)), np.float32)


def _fine(picture: Floats, sigma: float = 1.0) -> Floats:
    return np.asarray(picture - cv2.GaussianBlur(picture, (0, 0), sigma), np.float32)


def _octaves(picture: Floats, count: int) -> list[Floats]:
    found = [picture]
    while len(found) < count:
        found.append(np.asarray(cv2.pyrDown(found[-1]), np.float32))
    return found


def _spatial(luma: Floats, place: _Place) -> dict[str, Floats]:
    found = dict[str, Floats]()
    octaves = _octaves(luma, 3)
    for level, picture in enumerate(octaves):
        slanted = (_answer(picture, _SLANTED) + _answer(picture, np.ascontiguousarray(_SLANTED[::-1]))) / 2
        for name, answer in (
            ("across", _answer(picture, _ACROSS)),
            ("down", _answer(picture, np.ascontiguousarray(_ACROSS.T))),
            ("slanted", slanted),
            ("rich", _answer(picture, _RICH)),
        ):
            found[f"{name} {level}"] = place.pooled(answer, level)
        if level < 2:
            residual = _fine(picture)
            found[f"peaks {level}"] = place.pooled(residual**2, level) / (
                place.pooled(np.abs(residual), level) ** 2 + 1e-3
            )
    across, down = (cv2.Sobel(octaves[2], cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    return {**found, "luma": place.pooled(luma), "edges": place.pooled(np.sqrt(across**2 + down**2), 2)}


def _chroma(blue: Floats, red: Floats, place: _Place) -> dict[str, Floats]:
    found = dict[str, Floats]()
    for name, plane in (("blue", blue), ("red", red)):
        found[f"{name} 0"] = place.pooled(_answer(plane, _RICH))
        found[f"{name} 1"] = place.pooled(np.abs(_fine(_octaves(plane, 2)[1], 1.5)), 1)
    return found


def _temporal(luma: Floats, other: Floats, place: _Place) -> dict[str, Floats]:
    """Against another frame, brought here along the optical flow (DIS, Kroeger et al. 2016, arXiv:1603.03590)."""
    finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    grey = [np.clip(picture, 0, 255).astype(np.uint8) for picture in (luma, other)]
    flow = np.asarray(finder.calc(grey[0], grey[1], np.zeros((*luma.shape, 2), np.float32)))
    x, y = np.meshgrid(np.arange(luma.shape[1], dtype=np.float32), np.arange(luma.shape[0], dtype=np.float32))
    brought = cv2.remap(other, x + flow[..., 0], y + flow[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    now, then = _octaves(luma, 4), _octaves(np.asarray(brought, np.float32), 4)
    found = dict[str, Floats]()
    for level in range(2):
        a, b = _fine(now[level]), _fine(then[level])
        found[f"change {level}"] = place.pooled(np.abs(a - b), level)
        found[f"again {level}"] = _correlation(a, b, place, level, 0.05)
    found["again coarse"] = _correlation(_fine(now[1], 3.0), _fine(then[1], 3.0), place, 1, 0.2)
    found["flicker"] = place.pooled(np.abs(cv2.GaussianBlur(luma - brought, (0, 0), 1.5)))
    found["flicker coarse"] = place.pooled(np.abs(now[3] - then[3]), 3)
    return found


def _correlation(a: Floats, b: Floats, place: _Place, octave: int, floor: float) -> Floats:
    size = np.sqrt(place.pooled(a * a, octave) * place.pooled(b * b, octave))
    return np.asarray(place.pooled(a * b, octave) / (size + floor), np.float32)
