"""Random changes of one training sample: placement, light, distortion of the driving face, covers painted over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.types import Floats, Image, Mask


@dataclass(frozen=True)
class Augmentation:
    """How strong each change is; 0 turns it off. `covers`, `flip` and `disguise` are shares 0..1 of the pictures, `cover_shapes` and
    `recipe` as in `TrainOptions`."""

    warp: float = 1.0
    color: float = 1.0
    covers: float = 0.5
    flip: float = 0.5
    cover_shapes: str = "plain"
    recipe: str = "none"
    disguise: float = 0.0


def placement(random: np.random.Generator, size: int, strength: float) -> NDArray[np.float64]:
    """A small random similarity `before_to_after` 2x3 about the centre: rotation, scale, shift."""
    angle = random.normal(0, 4) * strength
    scale = float(np.exp(random.normal(0, 0.035) * strength))
    matrix = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), angle, scale)
    matrix[:, 2] += random.normal(0, 0.015, 2) * size * strength
    return matrix


def lookup(before_to_after: NDArray[np.float64], size: int, shift: Floats | None = None) -> tuple[Floats, Floats]:
    """Columns and rows `[S, S]` where `cv2.remap` finds what an affine map 2x3 brings to each place of a `size` px picture; before
    that map, what was at a place plus `shift` `[S, S, 2]` px had been brought to that place."""
    back = cv2.invertAffineTransform(before_to_after).astype(np.float32)
    columns, rows = np.meshgrid(*(np.arange(size, dtype=np.float32),) * 2)
    x, y = (columns * a + rows * b + c for a, b, c in back)
    if shift is not None:
        moved = cv2.remap(shift, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        x, y = x + moved[..., 0], y + moved[..., 1]
    return x, y


def distort(image: Image, random: np.random.Generator, strength: float) -> Image:
    """Random smooth distortion: a coarse grid of offsets, interpolated (the "random warp" of the deepfakes family)."""
    size = image.shape[0]
    offsets = random.normal(0, 0.012 * strength * size, (2, 5, 5)).astype(np.float32)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    across, down = (cv2.resize(o, (size, size), interpolation=cv2.INTER_CUBIC) for o in offsets)
    return cv2.remap(image, columns + across, rows + down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class ColorChange:
    """Gain, offset and gamma per channel on 0..255 values."""

    gain: Floats
    offset: Floats
    gamma: float

    @classmethod
    def draw(cls, random: np.random.Generator, strength: float) -> ColorChange:
        """Random light: brightness and contrast common to the channels, a small tint, gamma."""
        gain = np.exp(random.normal(0, 0.12) * strength + random.normal(0, 0.05, 3) * strength)
        offset = (random.normal(0, 8) + random.normal(0, 3, 3)) * strength
        return cls(gain.astype(np.float32), offset.astype(np.float32), float(np.exp(random.normal(0, 0.12) * strength)))

    def apply(self, image: Image) -> Image:
        """The changed picture, uint8, by one look-up table."""
        levels = np.arange(256, dtype=np.float32)[:, None] * self.gain + self.offset
        table = 255 * (np.clip(levels, 0, 255) / 255) ** self.gamma
        return cv2.LUT(image, table.round().astype(np.uint8)[:, None, :])


def paint_cover(
    image: Image, donor: Image, random: np.random.Generator, shapes: str = "plain", points: Floats | None = None
) -> tuple[Image, Mask]:
    """The picture with something in front of it, and where (`[H, W]` 0..1).

    Plain shapes are fingers (parallel strokes with round ends), discs and cards; objects are hands, glasses and microphones, put
    where such things are by `points` (`data.PRIORITY_POINTS`, px). Their surface is skin-coloured, a piece of `donor` or plain,
    with a shading gradient, so that neither colour nor texture alone gives a cover away.
    """
    size = image.shape[0]
    shape = np.zeros((size, size), np.uint8)
    centre = random.uniform(0.2, 0.8, 2) * size
    kind = None
    if shapes == "objects" or (shapes == "all" and random.random() < 0.5):
        kind = _draw_object(shape, centre, random, points)
    else:
        _draw_plain(shape, centre, random)
    mask = cv2.GaussianBlur(shape, (0, 0), random.uniform(0.4, 1.5)).astype(np.float32) / 255
    surface = _surface(image, donor, random, kind)
    mixed = image + (surface - image) * mask[..., None]
    return np.clip(mixed, 0, 255).astype(np.uint8), mask


def lay_hand(image: Image, donor: Image, hand: NDArray[np.uint8], random: np.random.Generator) -> tuple[Image, Mask]:
    """A real hand put before a face: pixels of `donor` where `hand` `[S, S]` 0..255 says, turned, moved and mirrored a little, in half
    of the cases in the colours of the face. The changed picture, and where it is covered `[S, S]` 0..1."""
    size = image.shape[0]
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), random.normal(0, 10), float(np.exp(random.normal(0, 0.12))))
    matrix[:, 2] += random.normal(0, 0.05, 2) * size
    if random.random() < 0.5:
        matrix = matrix @ np.array([[-1, 0, size - 1], [0, 1, 0], [0, 0, 1]])
    moved = cv2.warpAffine(donor, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    mask = cv2.warpAffine(hand, matrix, (size, size)).astype(np.float32) / 255
    if random.random() < 0.5 and mask.sum() > 1:
        own = (moved * mask[..., None]).sum(axis=(0, 1)) / mask.sum()
        moved *= np.clip(_skin_colour(image) * random.uniform(0.8, 1.15) / np.maximum(own, 1), 0.4, 2.5)
    mixed = image + (moved - image) * mask[..., None]
    return np.clip(mixed, 0, 255).astype(np.uint8), mask


def _skin_colour(image: Image) -> NDArray[np.floating]:
    """The middle colour of a face crop's middle."""
    size = image.shape[0]
    middle = image[size // 3 : size * 2 // 3, size // 3 : size * 2 // 3]
    return np.asarray(np.median(middle.reshape(-1, 3), axis=0))


def _draw_plain(shape: Image, centre: NDArray[np.float64], random: np.random.Generator) -> None:
    size = shape.shape[0]
    kind = random.integers(3)
    if kind == 0:
        _fingers(shape, centre, random)
    elif kind == 1:
        axes = tuple(int(a) for a in random.uniform(0.06, 0.22, 2) * size)
        cv2.ellipse(shape, (int(centre[0]), int(centre[1])), axes, random.uniform(0, 180), 0, 360, 255, -1, cv2.LINE_AA)
    else:
        corners = random.uniform(-0.25, 0.25, (4, 2)) * size + centre
        cv2.fillConvexPoly(shape, cv2.convexHull(corners.astype(np.int32)), 255, cv2.LINE_AA)


def _draw_object(shape: Image, centre: NDArray[np.float64], random: np.random.Generator, points: Floats | None) -> int:
    """Draws a hand, glasses or a microphone; returns the number of the surface that suits it."""
    kind = random.integers(3) if points is not None else 0
    if kind == 0 or points is None:
        _hand(shape, centre, random)
        return 0
    eyes, lips = points[:32], points[32:]
    if kind == 1:
        _glasses(shape, eyes[:16].mean(axis=0), eyes[16:].mean(axis=0), random)
    else:
        _microphone(shape, lips.mean(axis=0), float(np.ptp(lips[:, 0])), random)
    return 2


def _hand(shape: Image, centre: NDArray[np.float64], random: np.random.Generator) -> None:
    """Palm, four fingers more or less spread, a thumb, and the wrist, from any side."""
    size = shape.shape[0]
    angle = random.uniform(0, 2 * np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]]) * random.choice([-1, 1])
    width = random.uniform(0.045, 0.075) * size
    cv2.ellipse(
        shape,
        _pixel(centre),
        (int(width * 2.3), int(width * 1.9)),
        float(np.degrees(angle)),
        0,
        360,
        255,
        -1,
        cv2.LINE_AA,
    )
    spread = random.uniform(0.05, 0.25)
    for finger in range(4):
        root = centre + along * width * 1.5 + across * width * (finger - 1.5)
        way = along + across * spread * (finger - 1.5)
        length = width * random.uniform(2.5, 4.5) * (1 - 0.12 * abs(finger - 1.6))
        bent = root + way * length * 0.55
        _stroke(shape, [root, bent, bent + (way + across * random.normal(0, 0.15)) * length * 0.45], width)
    thumb = centre - across * width * 1.4
    _stroke(shape, [thumb, thumb - across * width * 1.2 + along * width * random.uniform(0.5, 2.5)], width * 1.1)
    _stroke(shape, [centre, centre - along * size], width * 2.8)


def _glasses(shape: Image, right: Floats, left: Floats, random: np.random.Generator) -> None:
    """Rims, bridge and temples about two eye centres; now and then the glass is dark."""
    apart = float(np.linalg.norm(left - right))
    across = (left - right) / max(apart, 1e-6)
    angle = float(np.degrees(np.arctan2(across[1], across[0])))
    axes = (int(apart * random.uniform(0.32, 0.42)), int(apart * random.uniform(0.2, 0.38)))
    thick = max(1, int(apart * random.uniform(0.03, 0.12)))
    dark = random.random() < 0.4
    for eye, side in ((right, -1), (left, 1)):
        if dark:
            cv2.ellipse(shape, _pixel(eye), axes, angle, 0, 360, 255, -1, cv2.LINE_AA)
        cv2.ellipse(shape, _pixel(eye), axes, angle, 0, 360, 255, thick, cv2.LINE_AA)
        _stroke(shape, [eye + across * side * axes[0], eye + across * side * (axes[0] + apart * 0.7)], thick)
    _stroke(shape, [right + across * axes[0], left - across * axes[0]], thick)


def _microphone(shape: Image, mouth: Floats, width: float, random: np.random.Generator) -> None:
    """A head near the mouth and a handle that leaves the picture below."""
    size = shape.shape[0]
    head = mouth + random.normal(0, 0.35, 2) * width + np.array([0, 0.6 * width])
    radius = width * random.uniform(0.3, 0.6)
    _stroke(shape, [head, head + np.array([random.normal(0, 0.4), 1.0]) * size], radius * random.uniform(0.9, 1.5))
    cv2.ellipse(shape, _pixel(head), (int(radius), int(radius * 1.2)), 0, 0, 360, 255, -1, cv2.LINE_AA)


def _pixel(point: NDArray[np.floating]) -> tuple[int, int]:
    return int(point[0]), int(point[1])


def _stroke(shape: Image, points: Sequence[NDArray[np.floating]], width: float) -> None:
    cv2.polylines(shape, [np.array(points).astype(np.int32)], False, 255, max(1, int(width)), cv2.LINE_AA)


def _fingers(shape: Mask | Image, centre: NDArray[np.float64], random: np.random.Generator) -> None:
    size = shape.shape[0]
    angle = random.uniform(0, 2 * np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    width = random.uniform(0.05, 0.10) * size
    for finger in range(int(random.integers(1, 5))):
        tip = centre + across * finger * width * random.uniform(0.95, 1.25) + along * random.normal(0, 0.04) * size
        bend = tip + along * size * 0.3 + across * random.normal(0, 0.05) * size
        points = np.array([tip, bend, bend + along * size]).astype(np.int32)
        cv2.polylines(shape, [points], False, 255, max(2, int(width)), cv2.LINE_AA)


def _surface(image: Image, donor: Image, random: np.random.Generator, kind: int | None = None) -> Floats:
    size = image.shape[0]
    kind = int(random.integers(3)) if kind is None else kind
    if kind == 0:  # skin: the face's own middle colour, lighter or darker
        surface = np.broadcast_to(
            _skin_colour(image) * random.uniform(0.6, 1.25) + random.normal(0, 6, 3), image.shape
        ).astype(np.float32)
    elif kind == 1:
        matrix = cv2.getRotationMatrix2D((size / 2, size / 2), random.uniform(0, 360), random.uniform(1.0, 2.5))
        matrix[:, 2] += random.uniform(-0.3, 0.3, 2) * size
        surface = cv2.warpAffine(donor, matrix, (size, size), borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
    else:
        surface = np.broadcast_to(random.uniform(0, 255, 3), image.shape).astype(np.float32)
    slope = np.linspace(-1, 1, size, dtype=np.float32) * random.normal(0, 0.18)
    shade = 1 + slope[:, None] + np.linspace(-1, 1, size, dtype=np.float32)[None] * random.normal(0, 0.18)
    grain = random.normal(0, 3, (size // 4, size // 4)).astype(np.float32)
    return surface * shade[..., None] + cv2.resize(grain, (size, size))[..., None]
