"""What training knows of each person: crops, drawn references and masks, and which frames may be learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import NoFaceError
from lib_vitface.faces.align import scale_points
from lib_vitface.faces.parse import Hand, HandFinder, hand_mask, hull_mask, outline_mask
from lib_vitface.faceset.gaze import GazeReader
from lib_vitface.faceset.morphable import Morphable, coefficients, mirrored_landmarks
from lib_vitface.faceset.morphable_files import with_file
from lib_vitface.faceset.quality import share
from lib_vitface.faceset.store import Faceset
from lib_vitface.faceset.texture import Expression, TextureMemory, geometry_map, read_expression, spread_views
from lib_vitface.models.config import person_name
from lib_vitface.types import Floats, Image, Mask, Tick, no_tick

VARIANTS = 3  # references of one frame: nearly ideal, without the most alike views, few views
_NEIGHBOUR_S = 0.4  # views nearer in time than this would give the answer away
_HELD_OUT_EVERY = 8
MAX_COVERED = 0.15  # share of a crop known to be covered above which eyes and mouth are not trusted either


@dataclass(frozen=True)
class Person:
    """One faceset, ready for training at side `S`. All uint8 but the landmarks.

    `images` `[N, S, S, 3]`, `landmarks` `[N, 468, 3]` px; `references` `[V, N, S, S, 3]` drawn by the memory without the frame
    itself; `layers` `[V, N, S, S, 4]`: trust, hull, lid opening, lip opening; `sure` `[N, S, S]` where the picture surely
    shows the face, `hands` `[N, S, S]` where hands lie before it; `training` and `held_out` are frame numbers, `times` the file and
    second each frame is of, `views` the frames that show the person from all sides, the most telling first. `coefficients` `[2, N, K]`
    of the frames and of their mirrored pictures are there where a morphable face is asked for.
    """

    images: NDArray[np.uint8]
    landmarks: Floats
    expressions: Sequence[Expression]
    references: NDArray[np.uint8]
    layers: NDArray[np.uint8]
    sure: NDArray[np.uint8]
    hands: NDArray[np.uint8]
    memory: TextureMemory
    training: NDArray[np.intp]
    held_out: NDArray[np.intp]
    times: Sequence[tuple[str, float]]
    views: NDArray[np.intp]
    coefficients: Floats | None = None


def load_person(
    faceset: Faceset, resolution: int, views: int, *, references: bool = True, seed: int = 0, tick: Tick = no_tick
) -> Person:
    """Read a faceset and draw its references. Raises `NoFaceError` where it has no kept faces.

    Without `references` (saehd) those arrays are empty and the memory holds few views.
    """
    records = list(faceset.records(kept=True))
    if not records:
        raise NoFaceError(f"The faceset {faceset.path} holds no usable face; build it from clearer material.")
    reader, finder = GazeReader(), HandFinder() if references else None
    images, landmarks, expressions = [], [], []
    hands: dict[int, list[Hand]] = {}
    for index, record in enumerate(records):
        image = faceset.image(record)
        images.append(_resize(image, resolution))
        landmarks.append(scale_points(record.landmarks, image.shape[0], resolution))
        expressions.append(read_expression(record.landmarks, reader(image, record.landmarks)))
        if finder:
            tick(index, len(records), "looking for hands")
            if found := _hands_in(finder, image, record.landmarks):
                hands[index] = found
    covered = np.array([r.occlusion for r in records])
    for index, found in hands.items():
        face = outline_mask(records[index].landmarks, (records[index].size,) * 2)
        covered[index] = max(covered[index], share(hand_mask(found, face.shape, around=True), face))
    bare = np.flatnonzero(covered <= MAX_COVERED)
    among = bare if len(bare) >= views else np.arange(len(records))  # hidden parts are of no use to anybody
    quality = [records[i].sharpness * (1 - covered[i]) for i in among]
    chosen = [int(among[k]) for k in spread_views([expressions[i] for i in among], quality, views)]
    atlas = int(min(512, max(128, records[0].size)))
    memory = TextureMemory.build(
        ((faceset.image(records[i]), records[i].landmarks, expressions[i].gaze) for i in chosen),
        atlas,
        (hand_mask(hands[i], (records[i].size,) * 2, around=True) if i in hands else None for i in chosen),
    )
    frames = np.arange(len(records))
    # whole runs are held out, not single frames between their neighbours
    held_out = frames[(frames // 4) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1]
    held_out = np.array(
        [f for f in held_out if not records[f].novel], np.intp
    )  # what is rendered is no truth to judge by
    training = np.setdiff1d(frames, held_out)
    count = VARIANTS if references else 1
    drawn = np.zeros((count if references else 0, len(records), resolution, resolution, 3), np.uint8)
    layers = np.zeros((count, len(records), resolution, resolution, 4), np.uint8)
    sure = np.full((len(records), resolution, resolution), 255, np.uint8)
    lying = np.zeros_like(sure)
    small = memory.resized(min(atlas, max(128, resolution)))
    times = [(r.source, float(r.time)) for r in records]
    beside = _neighbours(times, chosen)
    for index in range(len(records)):
        tick(index, len(records), "drawing references")
        shape = hull_mask(landmarks[index], (resolution, resolution), feather_px=2.0)
        openings = geometry_map(landmarks[index], resolution)
        for variant in range(count):
            layers[variant, index, ..., 1] = shape * 255
            layers[variant, index, ..., 2:] = openings * 255
            if references:
                random = np.random.default_rng((seed, index, variant))
                allowed = _allowed(small, expressions[index], beside[index], variant, random)
                # a mouth that no view knows is filled from the picture, but none shows through a hand
                footage = None if index in hands else images[index].astype(np.float32)
                mixture = small.mixture(expressions[index], allowed)
                picture = small.render(landmarks[index], resolution, expressions[index], mixture, footage)
                drawn[variant, index] = np.clip(picture.image, 0, 255)
                layers[variant, index, ..., 0] = picture.mask * 255
        if references:
            free = None if covered[index] > MAX_COVERED else openings.max(axis=2)
            sure[index] = _sure(images[index], drawn[0, index], free)
            if index in hands:
                matrix = np.eye(2, 3) * (resolution / records[index].size)
                lying[index] = hand_mask(hands[index], (resolution, resolution), matrix) * 255
                sure[index] = sure[index] * (1 - hand_mask(hands[index], (resolution, resolution), matrix, around=True))
    return Person(
        np.stack(images), np.stack(landmarks), expressions, drawn, layers, sure, lying, memory, training, held_out, times,
        np.array(chosen),
    )  # fmt: skip


def _hands_in(finder: HandFinder, image: Image, landmarks: Floats) -> list[Hand]:
    """Hands in a crop, in its pixels.

    They are looked for more closely than while the faceset was built, which has to be quick: of 61 faces of the demo's footage 25 have
    hands before them, 14 of which it had noticed.
    """
    points = landmarks[:, :2]
    return finder.closely(image, np.concatenate([points.min(axis=0), points.max(axis=0)]))


def told_persons(persons: Sequence[Person], file: Path | None = None) -> tuple[list[Person], dict[str, NDArray[Any]]]:
    """The persons with coefficients of a morphable face made of them, or of a `file`'s; and that face with all their shapes, as
    arrays."""
    model = Morphable.build([(p.expressions, p.memory.neutral) for p in persons])
    if file is not None:
        model = with_file(model, file)
    arrays: dict[str, NDArray[Any]] = dict(model.arrays())
    told = []
    for number, person in enumerate(persons):
        fit = model.fit(person.landmarks)
        arrays[f"shape_{person_name(number)}"] = fit.shape
        mirrored = model.fit(mirrored_landmarks(person.landmarks, person.images.shape[1]), fit.shape)
        both = np.stack([coefficients(one, fit.shape) for one in (fit, mirrored)])
        told.append(replace(person, coefficients=both))
    return told, arrays


def _resize(image: Image, size: int) -> Image:
    method = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_CUBIC
    return image if image.shape[0] == size else cv2.resize(image, (size, size), interpolation=method)


def near(a: tuple[str, float], b: tuple[str, float]) -> bool:
    """Whether two frames (file, second) are so near in time that one would give the other away."""
    return a[0] == b[0] and abs(a[1] - b[1]) < _NEIGHBOUR_S


def _neighbours(times: Sequence[tuple[str, float]], chosen: Sequence[int]) -> NDArray[np.bool_]:
    """`[N, views]`: the view is this frame or one next to it in time."""
    result = np.zeros((len(times), len(chosen)), bool)
    for row in range(len(times)):
        for column, view in enumerate(chosen):
            result[row, column] = view == row or near(times[row], times[view])
    return result


def _allowed(
    memory: TextureMemory, expression: Expression, near: NDArray[np.bool_], variant: int, random: np.random.Generator
) -> NDArray[np.bool_] | None:
    """Views from which a frame may be drawn: never itself; in some variants not the alike ones, or only a few.

    When swapping, the source may never have made the wanted expression. Training must know that, too.
    """
    allowed = ~near
    if not allowed.any():
        return None
    if variant == 1:
        gap = ((memory.points[:, :, :2] - expression.points[:, :2]) ** 2).sum(axis=(1, 2))
        keep = gap >= np.quantile(gap[allowed], random.uniform(0.3, 0.8))
        allowed = allowed & keep if (allowed & keep).any() else allowed
    elif variant == 2:
        few = random.permutation(np.flatnonzero(allowed))[: max(3, int(allowed.sum()) // 8)]
        allowed = np.isin(np.arange(len(allowed)), few)
    return allowed


def _sure(image: Image, reference: Image, free: Mask | None) -> NDArray[np.uint8]:
    """Where a picture agrees roughly with what its own memory expects; elsewhere something may cover the face.

    `free` marks openings (eyes, mouth), which may differ from the memory without being covered.
    """
    size = image.shape[0]
    small = [cv2.resize(p, (24, 24), interpolation=cv2.INTER_AREA).astype(np.float32) for p in (image, reference)]
    gap = cv2.resize(np.abs(small[0] - small[1]).max(axis=2), (size, size), interpolation=cv2.INTER_LINEAR)
    sure = np.clip((60 - gap) / 25, 0, 1)
    if free is not None:
        sure = np.maximum(sure, cv2.dilate(free, np.ones((size // 16, size // 16), np.uint8)))
    return (sure * 255).astype(np.uint8)
