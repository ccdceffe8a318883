"""What belongs to the face and what lies before it, as masks `[H, W]` float32 0..1 in crop space.

Two independent sources: the mesh (`hull_mask`, `outline_mask`, `region_mask`) and hands (`HandFinder`, `hand_mask`). Each gives a
mask; who blends decides how to combine them, and with the mask a model has learned.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.assets import locate
from lib_vitface.errors import InputError
from lib_vitface.faces import align, mesh
from lib_vitface.faces.engines import network
from lib_vitface.types import Floats, Image, Mask, Matrix

# ------------------------------------------------------------------------------------------------ from the mesh

REGIONS: dict[str, tuple[tuple[int, ...], ...]] = {
    "right_eye": (mesh.RIGHT_EYE,),
    "left_eye": (mesh.LEFT_EYE,),
    "eyes": (mesh.RIGHT_EYE, mesh.LEFT_EYE),
    "mouth": (mesh.LIPS_OUTER,),
    "inner_mouth": (mesh.LIPS_INNER,),
    "brows": (mesh.RIGHT_BROW, mesh.LEFT_BROW),
    "nose": (mesh.NOSE,),
}
"""Groups `region_mask` knows. Eyes and lips are filled loops, brows and nose the hulls of their points."""

_LOOPS = (mesh.RIGHT_EYE, mesh.LEFT_EYE, mesh.LIPS_OUTER, mesh.LIPS_INNER)
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates


def hull_mask(
    landmarks: Floats,
    shape: tuple[int, int],
    *,
    forehead: float = 0.0,
    erode_px: float = 0.0,
    feather_px: float = 0.0,
) -> Mask:
    """The silhouette of the mesh.

    `landmarks` `[468, 3]` in crop pixels, `shape` (height, width). `forehead` raises the upper edge, which the mesh puts
    below the hair line, by that part of the face height. `erode_px` > 0 shrinks, < 0 widens. The edge rises from 0 to 1 over
    `feather_px`, inwards, so nothing outside the (eroded) silhouette is touched.
    """
    points = np.asarray(landmarks, dtype=np.float64)[:, :2]
    filled = np.zeros(shape, dtype=np.uint8)
    _fill(filled, _raised(points, forehead))
    # Turned away, brow, nose and lips reach beyond the outline; their triangles complete the silhouette.
    beyond = ~_inside(filled, points)
    for triangle in mesh.triangles()[beyond[mesh.triangles()].any(axis=1)]:
        _fill(filled, points[triangle])
    return soft_edge(filled, erode_px, feather_px)


def _raised(points: NDArray[np.float64], forehead: float) -> NDArray[np.float64]:
    """The outline `[36, 2]` with its part above the brows moved up by `forehead` face heights."""
    outline = points[list(mesh.OVAL)]
    up = points[mesh.FOREHEAD] - points[mesh.CHIN]
    brow = points[list(mesh.BROWS)].mean(axis=0)
    length = float(up @ up)
    if forehead == 0 or length == 0:
        return outline
    height = (outline - brow) @ up / length
    full = max(float(height.max()), 1e-6)
    return outline + forehead * np.clip(height / full, 0, 1)[:, None] * up


def _inside(filled: NDArray[np.uint8], points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether points `[N, 2]` are in the filled area; those outside the picture need no drawing."""
    x, y = np.rint(points).astype(np.int64).T
    height, width = filled.shape
    within = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return ~within | (filled[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)] > 0)


def region_mask(
    landmarks: Floats, group: str, shape: tuple[int, int], *, erode_px: float = 0.0, feather_px: float = 0.0
) -> Mask:
    """Eyes, mouth, brows or nose (a key of `REGIONS`); parameters as for `hull_mask`. InputError for an unknown group."""
    if group not in REGIONS:
        raise InputError(f"The face has no region {group!r}; choose one of {', '.join(REGIONS)}.")
    points = np.asarray(landmarks, dtype=np.float64)[:, :2]
    filled = np.zeros(shape, dtype=np.uint8)
    for indices in REGIONS[group]:
        part = points[list(indices)]
        _fill(filled, part if indices in _LOOPS else cv2.convexHull(part.astype(np.float32))[:, 0])
    return soft_edge(filled, erode_px, feather_px)


def soft_edge(filled: NDArray[np.uint8], erode_px: float, feather_px: float) -> Mask:
    """A drawn area (0 or 255) moved inwards by `erode_px` (outwards if negative), its edge rising over `feather_px` inwards."""
    if erode_px == 0 and feather_px == 0:
        return (filled / 255).astype(np.float32)
    whole = np.zeros(filled.shape, np.float32)
    if not filled.any():
        return whole
    box = box_of(filled, 2 + max(-erode_px, 0.0))  # nothing is farther away than this
    # A border of one pixel: an area that leaves the picture must not end at the picture's edge.
    area = cv2.copyMakeBorder(filled[box], 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    depth = cv2.distanceTransform(area, cv2.DIST_L2, 5)
    if erode_px < 0:
        depth = np.where(depth > 0, depth, 1 - cv2.distanceTransform(255 - area, cv2.DIST_L2, 5))
    rise = np.clip((depth[1:-1, 1:-1] - np.float32(erode_px)) / np.float32(max(feather_px, 1.0)), 0, 1)
    whole[box] = rise * rise * (3 - 2 * rise)
    return whole


def box_of(area: NDArray[np.uint8], room_px: float = 0.0) -> tuple[slice, slice]:
    """Rows and columns of the box about what is not 0 in `area` `[H, W]`, with so much room on each side, within the picture."""
    left, top, width, height = cv2.boundingRect(area)
    room = int(np.ceil(room_px))
    return np.s_[max(top - room, 0) : top + height + room, max(left - room, 0) : left + width + room]


def outline_mask(landmarks: Floats, shape: tuple[int, int]) -> Mask:
    """1 inside the outline of the mesh `[468, 2 or 3]` in whole pixels, 0 outside; `shape` (height, width). What is measured of a
    face is measured there; `hull_mask` is the one to blend by."""
    mask = np.zeros(shape, dtype=np.float32)
    cv2.fillPoly(mask, [np.rint(mesh.boundary(landmarks)).astype(np.int32)], 1.0)
    return mask


def _fill(filled: NDArray[np.uint8], polygon: NDArray[np.floating]) -> None:
    fixed = np.round(np.asarray(polygon, dtype=np.float64) * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(filled, [fixed], 255, lineType=cv2.LINE_8, shift=_SHIFT)


# ------------------------------------------------------------------------------------------------ hands

_PALM_SIZE = 192
_HAND_SIZE = 224
_PALM_SCORE = 0.3  # low on purpose: the landmark network has the last word
_PRESENCE = 0.5
_SAME_HAND = 0.35  # two hands nearer than this part of their size are one
_MOST_HANDS = 4
_VIEWS = ((2.6, 0.35), (1.2, 0.0), (2.2, 0.2))
"""Squares in which palms are searched: side in face sizes and how far below the face's centre. Palms are found in one and
missed in another, so they take turns. Of 24 squares these three together saw the hand of the sample clip most often (32 of 37
frames; any one alone at most 17), and none where there is none."""

_FINGERS = ((1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20))
_PALM = (0, 1, 5, 9, 13, 17)
_FINGER_WIDTH = 0.32  # of the width between the outer knuckles
_THUMB_WIDTH = 0.38


@dataclass(frozen=True)
class Hand:
    """A hand in an image: 21 joints `[21, 2]` px (wrist, then thumb to little finger from root to tip) and 0..1 presence."""

    points: Floats
    presence: float

    @property
    def size(self) -> float:
        """Length of the palm or width of the knuckles, whichever is seen longer, px."""
        length = np.linalg.norm(self.points[9] - self.points[0])
        return float(max(length, 1.2 * np.linalg.norm(self.points[17] - self.points[5])))


class HandFinder:
    """Hands near a face, frame by frame (Zhang et al. 2020, "MediaPipe Hands", arXiv:2006.10214).

    Palms are searched every `every`-th frame only, in one square about the face at a time; between, each known hand is
    followed by its own joints. State is the hands of the last frame; `reset` forgets them (at a cut, or where a chunk of
    a clip begins, so that chunks give the same result in whatever order they are made).
    """

    def __init__(self, *, every: int = 4) -> None:
        self.every = every
        self._palm_net = network("palm_detection", 1 / 255)
        self._hand_net = cv2.dnn.readNetFromTFLite(str(locate("hand_landmark")))
        self._hand_outputs = self._hand_net.getUnconnectedOutLayersNames()
        self.reset()

    def reset(self) -> None:
        """Forget the hands and start the search anew."""
        self._hands: list[Hand] = []
        self._count = 0

    def __call__(self, image: Image, around: Floats) -> list[Hand]:
        """Hands of the next frame. `image` RGB, `around` the box `[4]` px of the face they matter to."""
        followed = [self._look(image, _joint_square(hand.points)) for hand in self._hands]
        squares: list[Matrix] = []
        if self._count % self.every == 0:
            side, drop = _VIEWS[self._count // self.every % len(_VIEWS)]
            squares = self._palms(image, _search_square(around, side, drop))
        self._count += 1
        self._hands = _apart([*followed, *self._searched(image, squares)])
        return list(self._hands)

    def closely(self, image: Image, around: Floats) -> list[Hand]:
        """Like a call, for pictures that may be far apart and are worth the while: hands of the last one are followed where they still
        are, and searched for in every picture, in the larger squares until one shows any."""
        found = [self._look(image, _joint_square(hand.points)) for hand in self._hands]
        for side, drop in (_VIEWS[0], _VIEWS[2]):
            found += self._searched(image, self._palms(image, _search_square(around, side, drop)))
            hands = _apart(found)
            if hands:
                break
        self._hands = _apart([self._look(image, _joint_square(hand.points)) for hand in hands])
        return list(self._hands)

    def _searched(self, image: Image, squares: Sequence[Matrix]) -> list[Hand]:
        return [self._look(image, _joint_square(self._look(image, s).points)) for s in squares]

    def _palms(self, image: Image, square: Matrix) -> list[Matrix]:
        """Squares `frame_to_square` about the palms seen in a search square, best first."""
        results = self._palm_net(align.warp(image, square, _PALM_SIZE, border=cv2.BORDER_CONSTANT))
        logits = next(r for r in results if r.shape[-1] == 1).ravel()
        boxes = next(r for r in results if r.shape[-1] == 18).reshape(-1, 18)
        found = []
        for box, key_points in _best_palms(boxes, 1 / (1 + np.exp(-np.clip(logits, -60, 60)))):
            found.append(_palm_square(box, key_points, square))
        return found

    def _look(self, image: Image, square: Matrix) -> Hand:
        picture = align.warp(image, square, _HAND_SIZE, border=cv2.BORDER_CONSTANT)
        self._hand_net.setInput(cv2.dnn.blobFromImage(picture, 1 / 255))
        results = dict(zip(self._hand_outputs, self._hand_net.forward(self._hand_outputs), strict=True))
        points = align.apply(align.invert(square), results["Identity"].reshape(21, 3)[:, :2])
        return Hand(points.astype(np.float32), float(results["Identity_1"].ravel()[0]))


def _anchors() -> NDArray[np.float64]:
    """Centres `[2016, 2]` px of the palm network's anchors: 2 on a 24 x 24 grid, then 6 on a 12 x 12 grid."""
    grids = []
    for count, repeat in ((24, 2), (12, 6)):
        ticks = (np.arange(count) + 0.5) * _PALM_SIZE / count
        y, x = np.meshgrid(ticks, ticks, indexing="ij")
        grids.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), repeat, axis=0))
    return np.concatenate(grids)


def _best_palms(
    boxes: NDArray[np.floating], scores: NDArray[np.floating]
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Boxes (centre x, y, width, height) and 7 points of the best palms, overlapping weaker ones dropped."""
    anchors = _anchors()
    kept: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for k in np.argsort(-scores, kind="stable"):
        if scores[k] < _PALM_SCORE or len(kept) == _MOST_HANDS:
            break
        box = np.concatenate([anchors[k] + boxes[k, :2], boxes[k, 2:4]])
        if all(np.linalg.norm(box[:2] - other[:2]) > 0.5 * other[2:].max() for other, _ in kept):
            kept.append((box, anchors[k] + boxes[k, 4:].reshape(7, 2)))
    return kept


def _search_square(around: Floats, side: float, drop: float) -> Matrix:
    low, high = np.asarray(around[:2], np.float64), np.asarray(around[2:], np.float64)
    size = float((high - low).max())
    return align.square_matrix((low + high) / 2 + [0, drop * size], _PALM_SIZE / (side * size), 0.0, _PALM_SIZE)


def _palm_square(box: NDArray[np.float64], key_points: NDArray[np.float64], search: Matrix) -> Matrix:
    """Square about the whole hand: 2.6 palms wide, half a palm towards the fingers, fingers up (as MediaPipe has it)."""
    back = align.invert(search)
    centre = align.apply(back, box[None, :2])[0]
    wrist, knuckle = align.apply(back, key_points[[0, 2]])
    size = float(box[2:].max()) * float(np.sqrt(np.linalg.det(back[:, :2])))
    return _hand_square(centre, size, knuckle - wrist, 2.6, 0.5)


def _joint_square(points: Floats) -> Matrix:
    """Square about a known hand: twice the upright box of its inner joints, a tenth towards the fingers."""
    joints = points.astype(np.float64)
    up = ((joints[5] + joints[13]) / 2 + joints[9]) / 2 - joints[0]
    angle = np.arctan2(up[0], -up[1])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    level = joints[[0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]] @ turn.T
    low, high = level.min(axis=0), level.max(axis=0)
    return _hand_square(turn.T @ ((low + high) / 2), float((high - low).max()), up, 2.0, 0.1)


def _hand_square(
    centre: NDArray[np.float64], size: float, up: NDArray[np.float64], scale: float, ahead: float
) -> Matrix:
    length = max(float(np.linalg.norm(up)), 1e-6)
    angle = float(np.degrees(np.arctan2(up[0], -up[1])))
    side = max(size * scale, 1.0)
    return align.square_matrix(centre + up / length * ahead * size, _HAND_SIZE / side, angle, _HAND_SIZE)


def _apart(found: Sequence[Hand]) -> list[Hand]:
    """Those that surely are hands, the surest first, each once."""
    hands: list[Hand] = []
    for hand in sorted(found, key=lambda h: -h.presence):
        apart = all(_distance(hand, other) > _SAME_HAND * max(hand.size, other.size) for other in hands)
        if hand.presence >= _PRESENCE and apart and len(hands) < _MOST_HANDS:
            hands.append(hand)
    return hands


def _distance(a: Hand, b: Hand) -> float:
    return float(np.linalg.norm(a.points.mean(axis=0) - b.points.mean(axis=0)))


def hand_mask(
    hands: Sequence[Hand],
    shape: tuple[int, int],
    matrix: Matrix | None = None,
    *,
    soft_px: float = 2.0,
    around: bool = False,
) -> Mask:
    """Where hands are: fingers as thick strokes, palm and the start of the forearm as polygons.

    `matrix` (frame_to_crop) takes the hands' points to the mask's pixels; `soft_px` is the standard deviation of the edge. With
    `around` wherever they may be: also between the fingers, and half a finger's width about it all.
    """
    drawn = np.zeros(shape, dtype=np.uint8)
    for hand in hands:
        points = align.apply(matrix, hand.points) if matrix is not None else hand.points.astype(np.float64)
        _draw_hand(drawn, points, around)
    mask = (drawn / 255).astype(np.float32)
    return cv2.GaussianBlur(mask, (0, 0), soft_px) if soft_px > 0 else mask


def _draw_hand(drawn: NDArray[np.uint8], points: NDArray[np.float64], around: bool) -> None:
    across = float(np.linalg.norm(points[5] - points[17]))
    length = float(np.linalg.norm(points[9] - points[0]))
    knuckles = max(across, 0.55 * length)  # seen from the side the knuckles lie behind each other
    for finger in _FINGERS:
        width = knuckles * (_THUMB_WIDTH if finger[0] == 1 else _FINGER_WIDTH)
        for part, (a, b) in enumerate(itertools.pairwise(finger)):
            _stroke(drawn, points[a], points[b], width * (1 - 0.08 * part))
    palm = points[list(_PALM)]
    _fill(drawn, cv2.convexHull(palm.astype(np.float32))[:, 0])
    for a, b in zip(_PALM, (*_PALM[1:], 0), strict=True):
        _stroke(drawn, points[a], points[b], knuckles * _FINGER_WIDTH)
    away = points[0] - points[9]
    _stroke(drawn, points[0], points[0] + 0.6 * away, 0.8 * knuckles)
    if around:
        hull = cv2.convexHull(points.astype(np.float32))[:, 0]
        _fill(drawn, hull)
        for a, b in zip(hull, np.roll(hull, -1, axis=0), strict=True):
            _stroke(drawn, a, b, 2 * knuckles * _FINGER_WIDTH)


def _stroke(drawn: NDArray[np.uint8], a: NDArray[np.float64], b: NDArray[np.float64], width: float) -> None:
    start, end = ([round(float(v) * (1 << _SHIFT)) for v in p] for p in (a, b))
    thick = min(max(1, round(width)), 32767)
    cv2.line(drawn, (start[0], start[1]), (end[0], end[1]), 255, thick, cv2.LINE_AA, _SHIFT)
