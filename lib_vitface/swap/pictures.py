"""Pictures of what a trained model does: what it is shown, what it looks at, what it draws, and from which views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.faces import align
from lib_vitface.faceset import atlas
from lib_vitface.models.runtime import TorchNetwork
from lib_vitface.swap.frame import ModelSwapper
from lib_vitface.types import Face, Floats, Image

SIDE = 160
_LABEL_PX = 20
_VIEWS = 4  # of those a face is drawn from, shown in a square
_DEPTH_CM = (-9.0, 7.0)  # nearest and farthest of the colours of depth, from the head's middle


def sheet(swapper: ModelSwapper, moments: Sequence[tuple[Image, Face]]) -> Image:
    """A column for each frame and face, and named rows: footage, attention, what the memory drew, the result, its mask, depth of the
    mesh; of a model with a volume also what that shows and its depth; the views that were used."""
    inputs = swapper.inputs(*zip(*moments, strict=True))
    images, masks = swapper.network(inputs)
    network = swapper.network
    inside = network.inside(inputs) if isinstance(network, TorchNetwork) else {}
    return np.concatenate([named(name, line) for name, line in _rows(swapper, moments, inputs, images, masks, inside)])


def side_by_side(rows: Mapping[str, Sequence[Image]]) -> Image:
    """Named rows of pictures of the same moments, e.g. a row for each of several models."""
    return np.concatenate([named(name, pictures) for name, pictures in rows.items()])


def results(swapper: ModelSwapper, moments: Sequence[tuple[Image, Face]]) -> list[Image]:
    """The footage's crop with the new face in it, of each moment."""
    found = []
    for frame, face in moments:
        (swapped,) = swapper([frame], [face])
        crop = align.warp(frame, swapped.frame_to_crop, swapped.image.shape[0])
        whole = crop + (swapped.image.astype(np.float32) - crop) * swapped.mask[..., None]
        found.append(np.clip(whole, 0, 255).round().astype(np.uint8))
    return found


def named(name: str, pictures: Sequence[Image]) -> Image:
    """Pictures in a row, `SIDE` px each, under their name."""
    line = np.concatenate([_square(p) for p in pictures], axis=1)
    head = np.full((_LABEL_PX, line.shape[1], 3), 30, np.uint8)
    cv2.putText(head, name, (5, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (235, 235, 235), 1, cv2.LINE_AA)
    return np.concatenate([head, line])


def _rows(
    swapper: ModelSwapper,
    moments: Sequence[tuple[Image, Face]],
    inputs: Mapping[str, Floats],
    images: Floats,
    masks: Floats,
    inside: Mapping[str, Floats],
) -> list[tuple[str, list[Image]]]:
    footage = _pictures(inputs["image"])
    rows = [("footage", footage)]
    if "attention" in inside:
        rows.append(("attention", [_over(p, a) for p, a in zip(footage, inside["attention"], strict=True)]))
    if swapper.learned_reference:
        rows.append(("drawn by the memory", _pictures(inputs["reference"])))
    rows += [("result", _pictures(images)), ("mask", _pictures(np.repeat(masks, 3, axis=2)))]
    rows.append(("depth of the mesh", [_mesh_depth(face) for _, face in moments]))
    if "depth" in inside:
        rows.append(("volume", [_bytes(v * 255) for v in inside["volume"]]))
        rows.append(("depth of the volume", [depth_colours(d, d < 0.98) for d in inside["depth"]]))
    if swapper.learned_reference:
        rows.append(("views used", [_views(swapper, frame, face) for frame, face in moments]))
    return rows


def depth_colours(depth: Floats, known: NDArray[np.bool_]) -> Image:
    """A depth map `[H, W]` (picture z, half crops) in colours: near is bright, unknown black."""
    near, far = (cm / (align.HEIGHT_CM * align.COVERAGE / 2) for cm in _DEPTH_CM)
    share = np.clip((far - depth) / (far - near), 0, 1)
    return _coloured(share) * known[..., None].astype(np.uint8)


def _mesh_depth(face: Face) -> Image:
    assert face.landmarks is not None
    points = align.apply(align.crop_matrix(face, SIDE), face.landmarks).astype(np.float32)
    depth, seen = atlas.depth_map(points, SIDE)
    middle = align.fit_head(points).project(align.MIDDLE[None])[0, 2]
    return depth_colours(((depth - middle) * (2 / SIDE)).astype(np.float32), seen > 0)


def _views(swapper: ModelSwapper, frame: Image, face: Face) -> Image:
    """The most telling views in atlas space, two by two, with their shares in percent."""
    tiles = []
    for view, share in swapper.blended_from(frame, face)[:_VIEWS]:
        tile = _square(swapper.source.textures[view], SIDE // 2)
        cv2.putText(tile, f"{share:.0%}", (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 0), 1, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (_VIEWS - len(tiles))
    return np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])


def _over(picture: Image, attention: Floats) -> Image:
    """Attention in colours over a grey picture, from the least to the most that is there."""
    size = picture.shape[0]
    share = (attention - attention.min()) / max(float(np.ptp(attention)), 1e-9)
    heat = cv2.resize(share, (size, size), interpolation=cv2.INTER_CUBIC)
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return _bytes(0.45 * grey + 0.55 * _coloured(np.clip(heat, 0, 1)))


def _coloured(share: Floats) -> Image:
    colours = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.asarray(cv2.cvtColor(colours, cv2.COLOR_BGR2RGB), np.uint8)


def _pictures(values: Floats) -> list[Image]:
    """`[B, T, 3, H, W]` 0..1 as pictures."""
    return [_bytes(p.transpose(1, 2, 0) * 255) for p in values.reshape(-1, *values.shape[2:])]


def _bytes(values: NDArray[Any]) -> Image:
    return np.clip(values, 0, 255).round().astype(np.uint8)


def _square(picture: Image, side: int = SIDE) -> Image:
    method = cv2.INTER_AREA if picture.shape[0] > side else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture, (side, side), interpolation=method), np.uint8)
