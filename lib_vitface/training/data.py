"""What a training step sees: each person's crops, drawn references and masks, and batches of them.

Everything a batch holds is decided by `(seed, step)` alone, so a training that is killed goes on with the very batches it
would have had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import NoFaceError
from lib_vitface.faces import mesh
from lib_vitface.faces.align import scale_points
from lib_vitface.faces.parse import hull_mask
from lib_vitface.faceset.gaze import GazeReader
from lib_vitface.faceset.store import Faceset
from lib_vitface.faceset.texture import Expression, TextureMemory, geometry_map, read_expression, spread_views
from lib_vitface.training.augment import Augmentation, ColorChange, distort, paint_cover, placement
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
    shows the face; `training` and `held_out` are frame numbers.
    """

    images: NDArray[np.uint8]
    landmarks: Floats
    expressions: Sequence[Expression]
    references: NDArray[np.uint8]
    layers: NDArray[np.uint8]
    sure: NDArray[np.uint8]
    memory: TextureMemory
    training: NDArray[np.intp]
    held_out: NDArray[np.intp]


@dataclass(frozen=True)
class Samples:
    """A batch as numpy float32, channels first, 0..1. Names as in `types.Batch`; besides: `wanted` [B, 3, S, S] what shall
    come out, `where` [B, 1, S, S] where that counts, `hull` [B, 1, S, S] the area of the face, `uncovered` [B, 1, S, S] where nothing
    lies over it, `points` [B, 72, 2] eyes and lips in px."""

    image: Floats
    reference: Floats
    reference_mask: Floats
    own_reference: Floats
    geometry: Floats
    identity: NDArray[np.int64]
    wanted: Floats
    where: Floats
    hull: Floats
    uncovered: Floats
    points: Floats


PRIORITY_POINTS = list(mesh.RIGHT_EYE + mesh.LEFT_EYE + mesh.LIPS_OUTER + mesh.LIPS_INNER)


def load_person(
    faceset: Faceset, resolution: int, views: int, *, references: bool = True, seed: int = 0, tick: Tick = no_tick
) -> Person:
    """Read a faceset and draw its references. Raises `NoFaceError` where it has no kept faces.

    Without `references` (saehd) those arrays are empty and the memory holds few views.
    """
    records = list(faceset.records(kept=True))
    if not records:
        raise NoFaceError(f"The faceset {faceset.path} holds no usable face; build it from clearer material.")
    reader = GazeReader()
    images, landmarks, expressions = [], [], []
    for record in records:
        image = faceset.image(record)
        images.append(_resize(image, resolution))
        landmarks.append(scale_points(record.landmarks, image.shape[0], resolution))
        expressions.append(read_expression(record.landmarks, reader(image, record.landmarks)))
    quality = [record.sharpness * (1 - record.occlusion) for record in records]
    chosen = spread_views(expressions, quality, views)
    atlas = int(min(512, max(128, records[0].size)))
    memory = TextureMemory.build(
        ((faceset.image(records[i]), records[i].landmarks, expressions[i].gaze) for i in chosen), atlas
    )
    frames = np.arange(len(records))
    # whole runs are held out, not single frames between their neighbours
    held_out = frames[(frames // 4) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1]
    training = np.setdiff1d(frames, held_out)
    count = VARIANTS if references else 1
    drawn = np.zeros((count if references else 0, len(records), resolution, resolution, 3), np.uint8)
    layers = np.zeros((count, len(records), resolution, resolution, 4), np.uint8)
    sure = np.full((len(records), resolution, resolution), 255, np.uint8)
    small = memory.resized(min(atlas, max(128, resolution)))
    near = _neighbours([(r.source, float(r.time)) for r in records], chosen)
    for index in range(len(records)):
        tick(index, len(records), "drawing references")
        shape = hull_mask(landmarks[index], (resolution, resolution), feather_px=2.0)
        openings = geometry_map(landmarks[index], resolution)
        for variant in range(count):
            layers[variant, index, ..., 1] = shape * 255
            layers[variant, index, ..., 2:] = openings * 255
            if references:
                random = np.random.default_rng((seed, index, variant))
                allowed = _allowed(small, expressions[index], near[index], variant, random)
                footage = images[index].astype(np.float32)
                picture = small.render(landmarks[index], resolution, expressions[index], allowed, footage)
                drawn[variant, index] = np.clip(picture.image, 0, 255)
                layers[variant, index, ..., 0] = picture.mask * 255
        if references:
            free = None if records[index].occlusion > MAX_COVERED else openings.max(axis=2)
            sure[index] = _sure(images[index], drawn[0, index], free)
    return Person(np.stack(images), np.stack(landmarks), expressions, drawn, layers, sure, memory, training, held_out)


def _resize(image: Image, size: int) -> Image:
    method = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_CUBIC
    return image if image.shape[0] == size else cv2.resize(image, (size, size), interpolation=method)


def _neighbours(times: Sequence[tuple[str, float]], chosen: Sequence[int]) -> NDArray[np.bool_]:
    """`[N, views]`: the view is this frame or one next to it in time."""
    result = np.zeros((len(times), len(chosen)), bool)
    for row, (source, time) in enumerate(times):
        for column, view in enumerate(chosen):
            other, then = times[view]
            result[row, column] = view == row or (source == other and abs(time - then) < _NEIGHBOUR_S)
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


class Sampler:
    """Batches of two persons. `batch(step)` depends on nothing but `seed` and `step`."""

    def __init__(self, persons: Sequence[Person], size: int, augmentation: Augmentation, seed: int) -> None:
        self.persons, self.size, self.augmentation, self.seed = persons, size, augmentation, seed

    def batch(self, step: int) -> Samples:
        """Training samples, the persons in turn."""
        random = np.random.default_rng((self.seed, 1, step))
        chosen = [(k % 2, int(random.choice(self.persons[k % 2].training))) for k in range(self.size)]
        return _stack([self._sample(person, frame, random) for person, frame in chosen])

    def held_out(self, count: int) -> Samples:
        """The same unaugmented samples each time: held-out frames (training frames where a set is too small to hold any out)."""
        samples = []
        plain = Sampler(self.persons, count, Augmentation(0, 0, 0, 0), self.seed)
        for k in range(count):
            person = self.persons[k % 2]
            frames = person.held_out if len(person.held_out) else person.training
            frame = int(frames[(k // 2 * 7919) % len(frames)])
            samples.append(plain._sample(k % 2, frame, np.random.default_rng((self.seed, 2, k)), variant=k // 2 % 2))
        return _stack(samples)

    def _sample(
        self, who: int, frame: int, random: np.random.Generator, variant: int | None = None
    ) -> dict[str, np.ndarray]:
        person, change = self.persons[who], self.augmentation
        variant = int(random.integers(len(person.layers))) if variant is None else min(variant, len(person.layers) - 1)
        image, layers = person.images[frame], person.layers[variant, frame]
        reference = person.references[variant, frame] if len(person.references) else image
        sure, points = person.sure[frame], person.landmarks[frame][PRIORITY_POINTS, :2]
        size = image.shape[0]
        strength = min(change.warp, 1.5)
        if strength:
            matrix = placement(random, size, strength)
            image, reference, layers, sure = (
                cv2.warpAffine(p, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=border)
                for p, border in zip((image, reference, layers, sure), _BORDERS, strict=True)
            )
            points = points @ matrix[:, :2].T + matrix[:, 2]
        if random.random() < change.flip:
            image, reference, layers, sure = (
                np.ascontiguousarray(p[:, ::-1]) for p in (image, reference, layers, sure)
            )
            points = points * [-1, 1] + [size - 1, 0]
        if change.color:
            common = ColorChange.draw(random, change.color)
            image, reference = common.apply(image), common.apply(reference)
        driving, cover = self._driving(image, random)
        shape = layers[..., 1].astype(np.float32) / 255
        certain = sure.astype(np.float32) / 255
        return {
            "image": driving,
            "reference": reference,
            "reference_mask": layers[..., :1],
            "own_reference": reference,
            "geometry": layers[..., 2:],
            "identity": np.int64(who),
            "wanted": image,
            "where": (shape * certain)[..., None],
            "hull": shape[..., None],
            "uncovered": (1 - cover)[..., None],
            "points": points.astype(np.float32),
        }

    def _driving(self, image: Image, random: np.random.Generator) -> tuple[Image, Mask]:
        """What the encoder sees: other light, distorted, covered; and where it is covered."""
        change = self.augmentation
        cover = np.zeros(image.shape[:2], np.float32)
        driving = image
        if change.color:
            driving = ColorChange.draw(random, change.color * 1.2).apply(driving)
        if random.random() < change.covers:
            donor_of = self.persons[int(random.integers(2))]
            donor = donor_of.images[int(random.integers(len(donor_of.images)))]
            driving, cover = paint_cover(driving, donor, random)
        if change.warp:
            state = random.integers(2**32)
            # the cover is distorted with the picture it lies on
            driving, bent = (
                distort(p, np.random.default_rng(state), change.warp) for p in (driving, (cover * 255).astype(np.uint8))
            )
            cover = (bent / 255).astype(np.float32)
        return driving, cover


_BORDERS = (cv2.BORDER_REPLICATE, cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT, cv2.BORDER_CONSTANT)


def _stack(samples: Sequence[dict[str, np.ndarray]]) -> Samples:
    """Channels first, 0..1."""
    ready = {}
    for name in samples[0]:
        values = np.stack([s[name] for s in samples])
        if values.ndim == 4:
            values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
            values = values.astype(np.float32) / 255 if values.dtype == np.uint8 else values.astype(np.float32)
        ready[name] = values
    return Samples(**ready)
