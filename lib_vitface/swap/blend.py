"""The swapped face put back into its frame: masks, sharpness, motion, and the seam.

A frame keeps every pixel that the mask does not reach, bit for bit. All work is done inside the bounding box of the mask.

alpha      weighted mean by the mask.
multiband  a band of detail at a time, coarse bands over a wide seam: Burt & Adelson 1983, "A Multiresolution Spline".
poisson    the face keeps its own gradients and takes its level from the footage around the seam: Perez, Gangnet & Blake
           2003, "Poisson Image Editing". For seamless cloning the solution is the face plus a harmonic membrane that equals
           (frame - face) on the seam; a membrane is smooth, so it is solved exactly on a coarse grid. `cv2.seamlessClone`
           shifts by the rounded centre of the mask's box, which makes a moving face jitter, and is not used.
raw        the whole square as the model made it, no mask; for looking at the model.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import InputError
from lib_vitface.faces.parse import box_of
from lib_vitface.types import Floats, Image, Mask, Matrix

MODES = ("alpha", "multiband", "poisson", "raw")
# A weight that cannot change an 8-bit value by half a step counts as nothing, so the box stays small.
NOTHING = 1 / 512
MEMBRANE_PX = 96


class Box(NamedTuple):
    """Pixels `x0 <= x < x1`, `y0 <= y < y1`."""

    x0: int
    y0: int
    x1: int
    y1: int


def paste(
    frame: Image,
    crop_image: Image,
    crop_mask: Mask,
    frame_to_crop: Matrix,
    *,
    mode: str = "alpha",
    opacity: float = 1.0,
) -> Image:
    """A new frame [H, W, 3] with `crop_image` [S, S, 3] laid over it where `crop_mask` [S, S] 0..1 says.

    Outside the mask the result equals `frame` bit for bit. `opacity` 0..1 fades the whole. Raises `InputError` for an
    unknown mode.
    """
    if mode not in MODES:
        raise InputError(f"Blend mode {mode!r} is not one of {', '.join(MODES)}.")
    if mode == "raw":
        crop_mask = np.ones(crop_mask.shape, np.float32)
    box = mask_box(crop_mask, frame_to_crop, frame.shape[1], frame.shape[0])
    result = frame.copy()
    if box is None or opacity <= 0:
        return result
    face, mask = warp_back(crop_image, crop_mask, frame_to_crop, box)
    under = frame[box.y0 : box.y1, box.x0 : box.x1].astype(np.float32)
    if mode == "multiband":
        mixed = multiband(under, face, mask)
    elif mode == "poisson":
        mixed = under + mask[..., None] * (face + membrane(under, face, mask) - under)
    else:
        mixed = under + mask[..., None] * (face - under)
    np.clip(mixed, 0, 255, out=mixed)
    if opacity < 1:
        mixed = under + np.float32(opacity) * (mixed - under)
    np.rint(mixed, out=mixed)
    place = result[box.y0 : box.y1, box.x0 : box.x1]
    np.copyto(place, mixed.astype(np.uint8), where=(mask > 0)[..., None])
    return result


def mask_box(crop_mask: Mask, frame_to_crop: Matrix, width: int, height: int) -> Box | None:
    """Smallest box in the frame that holds everything the mask touches; None when that is nothing or out of the frame."""
    ys, xs = np.flatnonzero((crop_mask > NOTHING).any(axis=1)), np.flatnonzero((crop_mask > NOTHING).any(axis=0))
    if not len(ys):
        return None
    # One crop pixel further on each side: there interpolation has come down to zero.
    x0, x1, y0, y1 = xs[0] - 1, xs[-1] + 1, ys[0] - 1, ys[-1] + 1
    corners = np.array([[x0, y0, 1], [x1, y0, 1], [x0, y1, 1], [x1, y1, 1]], np.float64)
    points = corners @ cv2.invertAffineTransform(frame_to_crop).T
    low, high = np.floor(points.min(axis=0)).astype(int), np.ceil(points.max(axis=0)).astype(int) + 1
    box = Box(max(low[0], 0), max(low[1], 0), min(high[0], width), min(high[1], height))
    return box if box.x0 < box.x1 and box.y0 < box.y1 else None


def warp_back(crop_image: Image | Floats, crop_mask: Mask, frame_to_crop: Matrix, box: Box) -> tuple[Floats, Mask]:
    """Crop (a picture, or differences of one) and mask as seen in `box` of the frame: float32 `[h, w, 3]`, `[h, w]` 0..1.

    A crop that is finer than the frame is averaged down first (no aliasing); a coarser one is enlarged by Lanczos.
    """
    scale = float(np.sqrt(abs(np.linalg.det(frame_to_crop[:, :2]))))
    image, mask, matrix = crop_image, crop_mask.astype(np.float32), frame_to_crop.astype(np.float64)
    if scale > 1.1:
        size = (max(round(image.shape[1] / scale), 1), max(round(image.shape[0] / scale), 1))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
        # Pixel centres lie at integers, so the corners of the picture lie at -0.5.
        ratio = np.array([size[0] / crop_image.shape[1], size[1] / crop_image.shape[0]])
        shrunk = matrix * ratio[:, None]
        shrunk[:, 2] += 0.5 * ratio - 0.5
    else:
        shrunk = matrix
    face = _sample(image, shrunk, box, cv2.INTER_LANCZOS4 if scale < 0.95 else cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)
    soft = _sample(_averaged(mask, scale), matrix, box, cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
    soft[soft < NOTHING] = 0
    return face, np.clip(soft, 0.0, 1.0)


def _averaged(mask: Mask, scale: float) -> Mask:
    """The mask low-passed for being seen `scale` times smaller; never reaches further than one frame pixel."""
    side = 2 * int(scale / 2) + 1
    return np.asarray(cv2.blur(mask, (side, side), borderType=cv2.BORDER_CONSTANT), np.float32) if side > 1 else mask


def _sample(picture: NDArray[Any], frame_to_picture: Matrix, box: Box, method: int, border: int) -> Floats:
    matrix = frame_to_picture.copy()
    matrix[:, 2] += matrix[:, :2] @ np.array([box.x0, box.y0], np.float64)
    size = (box.x1 - box.x0, box.y1 - box.y0)
    flags = method | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(picture, matrix, size, flags=flags, borderMode=border), np.float32)


def multiband(under: Floats, over: Floats, mask: Mask) -> Floats:
    """`over` on `under` [H, W, 3] by Laplacian pyramids; equals `under` where the mask [H, W] is zero.

    The published method lets coarse bands reach beyond the mask. Here each band's weight runs from nothing at the mask's
    edge (where its blurred mask is one half) inwards, so the wide seam lies wholly on the face.
    """
    levels = int(np.clip(np.log2(max(min(mask.shape) / 8, 1)), 0, 6))
    # The mask touches the border of its box; without room around it the pyramid would see no edge there.
    pad = 2**levels
    weight: NDArray[Any] = np.pad(mask, pad)[..., None]
    room = ((pad, pad), (pad, pad), (0, 0))
    lower: NDArray[Any] = np.pad(under, room, mode="edge")
    upper: NDArray[Any] = np.pad(over, room, mode="edge")
    bands: list[NDArray[Any]] = []
    share = weight
    for _ in range(levels):
        size = (lower.shape[1], lower.shape[0])
        next_lower, next_upper = cv2.pyrDown(lower), cv2.pyrDown(upper)
        detail = lower - cv2.pyrUp(next_lower, dstsize=size)
        bands.append(detail + share * (upper - cv2.pyrUp(next_upper, dstsize=size) - detail))
        lower, upper, weight = next_lower, next_upper, cv2.pyrDown(weight)[..., None]
        share = np.clip(2 * weight - 1, 0.0, 1.0)
    mixed = lower + share * (upper - lower)
    for band in reversed(bands):
        mixed = cv2.pyrUp(mixed, dstsize=(band.shape[1], band.shape[0])) + band
    mixed = mixed[pad:-pad, pad:-pad]
    return np.asarray(under + np.clip(mask * 4.0, 0.0, 1.0)[..., None] * (mixed - under), np.float32)


def membrane(under: Floats, over: Floats, mask: Mask) -> Floats:
    """The smooth correction [H, W, 3] that makes `over` meet `under` along the seam (the mask's 0.5 contour).

    Inside the seam it is harmonic (solved by a sparse factorisation on a grid of at most 96 px a side), outside it is
    `under - over` itself. A mask that reaches the border of the box has no seam there and is not tied to anything.
    """
    height, width = mask.shape
    ratio = min(MEMBRANE_PX / max(height, width), 1.0)
    size = (max(round(width * ratio), 3), max(round(height * ratio), 3))
    small = cv2.resize(under - over, size, interpolation=cv2.INTER_AREA)
    seen = cv2.resize(np.where(mask > 0, 1.0, 0.0).astype(np.float32), size, interpolation=cv2.INTER_AREA)
    core = cv2.resize(mask, size, interpolation=cv2.INTER_AREA) > 0.5
    if not core.any() or not ((seen > 0) & ~core).any():
        return np.zeros_like(under)
    # Texture along the seam would be drawn far into the face; only its level matters.
    level = np.asarray(cv2.GaussianBlur(small, (0, 0), 1.5), np.float32)
    return np.asarray(cv2.resize(_harmonic(level, core), (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _harmonic(level: Floats, unknown: NDArray[np.bool_]) -> Floats:
    """`level` [h, w, C] with the pixels of `unknown` [h, w] replaced by the solution of Laplace's equation."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    height, width = unknown.shape
    number = np.full((height, width), -1)
    number[unknown] = np.arange(int(unknown.sum()))
    ys, xs = np.nonzero(unknown)
    here = number[ys, xs]
    count = np.zeros(len(here))
    right = np.zeros((len(here), level.shape[2]))
    rows, columns, values = [], [], []
    for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        y, x = ys + dy, xs + dx
        valid = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        count += valid
        other = number[np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
        free, tied = valid & (other >= 0), valid & (other < 0)
        rows.append(here[free])
        columns.append(other[free])
        values.append(np.full(int(free.sum()), -1.0))
        right[tied] += level[y[tied], x[tied]]
    rows.append(here)
    columns.append(here)
    values.append(count)
    system = coo_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))).tocsc()
    result = level.copy()
    result[unknown] = splu(system).solve(right)
    return result


def combine(*masks: Mask) -> Mask:
    """The product of masks [S, S] 0..1: what any of them excludes is excluded."""
    result = masks[0].astype(np.float32)
    for mask in masks[1:]:
        result = result * mask
    return result


def grow(mask: Mask, distance_px: float) -> Mask:
    """The mask's 0.5 contour moved outwards by `distance_px` (negative: inwards), with an edge one pixel soft.

    Distances are exact and may be fractions, so a change of setting or of size does not jump by whole pixels.
    """
    if distance_px == 0 or not (mask > 0.5).any():
        return mask
    solid: NDArray[Any] = (mask > 0.5).astype(np.uint8)
    box = box_of(solid, max(distance_px, 0.0) + 1)
    # A ring of outside, so that a mask that touches the border is eroded from there too.
    solid = cv2.copyMakeBorder(solid[box], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    signed = cv2.distanceTransform(solid, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    if distance_px > 0:  # else what is outside stays so
        outer = cv2.distanceTransform(1 - solid, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        signed = np.where(solid > 0, signed, 1 - outer)
    moved = np.zeros(mask.shape, np.float32)
    moved[box] = np.clip(signed[1:-1, 1:-1] + np.float32(distance_px), 0.0, 1.0)
    return moved


def feather(mask: Mask, width_px: float) -> Mask:
    """The mask with an edge `width_px` wide that lies wholly inside the old edge and falls to zero at the crop's border."""
    if width_px <= 0:
        return mask
    inner = combine(mask, grow(mask, -width_px / 2))
    soft = cv2.GaussianBlur(inner, (0, 0), max(width_px / 4, 0.3), borderType=cv2.BORDER_CONSTANT)
    return combine(np.asarray(soft, np.float32), border_ramp(mask.shape[0], width_px))


def border_ramp(size: int, width_px: float) -> Mask:
    """A [size, size] mask that falls from 1 to 0 over the outermost `width_px`: a crop never shows its straight edge."""
    edge = np.minimum(np.arange(size), np.arange(size)[::-1])
    ramp = np.clip(edge / max(width_px, 1.0), 0.0, 1.0).astype(np.float32)
    return np.minimum(ramp[:, None], ramp[None, :])


def sharpen(image: Image, amount: float) -> Image:
    """Unsharp mask; `amount` 0 nothing, 1 doubles the detail finer than about 1/170 of the crop."""
    if amount <= 0:
        return image
    picture = image.astype(np.float32)
    detail = picture - cv2.GaussianBlur(picture, (0, 0), max(image.shape[0] / 170, 0.8))
    return np.rint(np.clip(picture + amount * detail, 0, 255)).astype(np.uint8)


def motion_blur(image: Image, movement_px: tuple[float, float]) -> Image:
    """Blur along a straight movement (x, y) in crop pixels, as an open shutter gives; shorter than a pixel: nothing."""
    length = float(np.hypot(*movement_px))
    if length < 1.0:
        return image
    reach = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    steps = np.linspace(-0.5, 0.5, 8 * reach + 1)
    for x, y in zip(reach + steps * movement_px[0], reach + steps * movement_px[1], strict=True):
        left, top = int(x), int(y)
        for column, row, weight in (
            (left, top, (left + 1 - x) * (top + 1 - y)),
            (left + 1, top, (x - left) * (top + 1 - y)),
            (left, top + 1, (left + 1 - x) * (y - top)),
            (left + 1, top + 1, (x - left) * (y - top)),
        ):
            if weight > 0:
                kernel[row, column] += weight
    kernel /= kernel.sum()
    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.uint8)
