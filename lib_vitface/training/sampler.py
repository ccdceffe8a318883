"""Batches of samples, of single frames or of clips.

Everything a batch holds is decided by `(seed, step)` alone, so a training that is killed goes on with the very batches it
would have had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.faces import align, mesh
from lib_vitface.faces.landmarks import five_points
from lib_vitface.faceset import atlas
from lib_vitface.metrics.temporal import motion
from lib_vitface.models.config import IDENTITIES
from lib_vitface.training.augment import Augmentation, ColorChange, distort, lay_hand, lookup, paint_cover, placement
from lib_vitface.training.data import Person, near
from lib_vitface.training.disguise import Disguises
from lib_vitface.training.recipes import make_recipe
from lib_vitface.types import Floats, Image, Mask

_CLIP_GAP_S = 0.5  # frames of one clip are no further apart: facesets leave out what is alike
_REAL_HANDS = 0.5  # share of covers that are hands of the footage, where there are any
_HAND_SHARE = 0.03  # of the face
PRIORITY_POINTS = list(mesh.RIGHT_EYE + mesh.LEFT_EYE + mesh.LIPS_OUTER + mesh.LIPS_INNER)


@dataclass(frozen=True)
class Samples:
    """A batch as numpy float32, channels first, 0..1. Names as in `types.Batch`; besides: `wanted` [B, 3, S, S] what shall
    come out, `where` [B, 1, S, S] where that counts, `hull` [B, 1, S, S] the area of the face, `uncovered` [B, 1, S, S] where nothing
    lies over it and `mask_known` [B, 1, S, S] where that is known, `points` [B, 72, 2] eyes and lips and `five` [B, 5, 2] the five
    points in px.

    Each `length` pictures in a row are a clip, and then `identity` and `times` [B / length, length] are per clip; `flow`
    [B / length, length - 1, S, S, 2] says where pixels of `wanted` go to, `visible` [..., 1, S, S] where that is known;
    `views` [P, V, 3, S, S] are pictures of all persons, `coefficients` [B, K] a morphable face's; `picture_to_face` [B, 3, 4] as in
    `Batch`, `depth` [B, 1, v, v] picture z of the mesh and `depth_known` [B, 1, v, v] where it is seen. None: not asked for.
    """

    image: Floats
    reference: Floats
    reference_mask: Floats
    own_reference: Floats
    geometry: Floats
    identity: NDArray[np.int64]
    wanted: Floats
    where: Floats
    mask_known: Floats
    hull: Floats
    uncovered: Floats
    points: Floats
    five: Floats
    length: int = 1
    times: Floats | None = None
    flow: Floats | None = None
    visible: Floats | None = None
    views: Floats | None = None
    coefficients: Floats | None = None
    picture_to_face: Floats | None = None
    depth: Floats | None = None
    depth_known: Floats | None = None


@dataclass(frozen=True)
class Extras:
    """What batches hold besides single pictures: clips of `length` frames, their optical flow, `views` of each person, where the
    head is and its depth seen by `rays` x `rays` rays."""

    length: int = 1
    flow: bool = False
    views: int = 0
    rays: int = 0


class Sampler:
    """Batches of source, target, and further facesets of the source. `batch(step)` depends on nothing but `seed` and `step`.

    `size` is the number of pictures, half of them the target's; with clips there are fewer of those, at least one of each person.
    `part` says which of that many clips or single pictures `batch` makes: where several processes share a batch, each makes its own.
    """

    def __init__(
        self,
        persons: Sequence[Person],
        size: int,
        augmentation: Augmentation,
        seed: int,
        extras: Extras | None = None,
        part: Callable[[int], slice] = slice,
    ) -> None:
        self.persons, self.size, self.augmentation, self.seed = persons, size, augmentation, seed
        self.extras = extras or Extras()
        clips = size if self.extras.length == 1 else max(2, size // self.extras.length)
        self._clips, self._own = clips, range(clips)[part(clips)]
        self._recipe = make_recipe(augmentation.recipe)
        self._disguises = Disguises(persons)
        self._tracks = [_tracks(person.times, person.training) for person in persons]
        self._held_out = [_tracks(person.times, _judged(person)) for person in persons]

    @cached_property
    def _hands(self) -> list[tuple[int, int]]:
        """Person and frame of the pictures whose hands can be shown before other faces; looked for where covers are wanted only."""
        return [(k, int(f)) for k, person in enumerate(self.persons) for f in person.training if _shows_hand(person, f)]

    def batch(self, step: int) -> Samples:
        """Training samples, the persons in turn."""
        random = np.random.default_rng((self.seed, 1, step))
        length = self.extras.length
        if length == 1:
            chosen = [(who, int(random.choice(self.persons[who].training))) for who in self._turns(step)]
            samples = [self._sample(*chosen[k], np.random.default_rng((self.seed, 5, step, k))) for k in self._own]
            return self._complete(samples, [chosen[k] for k in self._own], self.views(random, chosen))
        clips = [
            (who, self._clip(self._tracks[who], int(random.choice(self.persons[who].training)), random))
            for who in self._turns(step)
        ]
        views = self.views(random, [(person, f) for person, frames in clips for f in frames])
        samples, chosen = [], []
        for k in self._own:
            person, frames = clips[k]
            # the frames of a clip are changed alike, or their motion would be the changes'
            samples += [self._sample(person, f, np.random.default_rng((self.seed, 3, step, k))) for f in frames]
            chosen += [(person, f) for f in frames]
        return self._complete(samples, chosen, views)

    def _turn(self, k: int, step: int = 0) -> int:
        """Whose the k-th picture or clip of a batch is: source and target alternate, and so do the source's facesets."""
        if k % 2:
            return 1
        sources = [0, *range(IDENTITIES, len(self.persons))]
        return sources[(k // 2 + step) % len(sources)]

    def _others(self, who: int) -> list[int]:
        """Who is somebody else than `who`: further facesets of the source are not."""
        return [1] if who != 1 else [k for k in range(len(self.persons)) if k != 1]

    def _turns(self, step: int) -> list[int]:
        """Whose the clips or single pictures of a batch are, those of all processes."""
        return [self._turn(k, step) for k in range(self._clips)]

    def held_out(self, count: int) -> Samples:
        """The same unaugmented samples each time: held-out frames (training frames where a set is too small to hold any out)."""
        length, plain = (
            self.extras.length,
            Sampler(self.persons, count, Augmentation(0, 0, 0, 0), self.seed, self.extras),
        )
        samples, chosen = [], []
        for k in range(max(2, count // length)):
            who = self._turn(k)
            tracks, frames = self._held_out[who], _judged(self.persons[who])
            first = int(frames[(k // 2 * 7919) % len(frames)])
            random = np.random.default_rng((self.seed, 2, k))
            for frame in self._clip(tracks, first, random) if length > 1 else [first]:
                chosen.append((who, frame))
                samples.append(plain._sample(who, frame, random, variant=k // 2 % 2))
        return self._complete(samples, chosen, self.views())

    def views(self, random: np.random.Generator | None = None, shown: Sequence[tuple[int, int]] = ()) -> Floats | None:
        """Pictures `[P, V, 3, S, S]` 0..1 of all persons, None where there is no memory of views.

        With `random` half of them, none of which is of a moment that the batch holds (`shown`: person, frame).
        """
        if not self.extras.views:
            return None
        found = []
        for number, person in enumerate(self.persons):
            frames = person.views[: self.extras.views]
            if random is not None:
                times = [person.times[f] for who, f in shown if who == number]
                far = [f for f in frames if not any(near(person.times[f], t) for t in times)]
                frames = random.permutation(far or frames)
            count = self.extras.views if random is None else -(-self.extras.views // 2)
            found.append(person.images[np.resize(frames, count)])
        pictures = np.ascontiguousarray(np.stack(found).transpose(0, 1, 4, 2, 3))
        return (pictures / 255).astype(np.float32)

    def _clip(self, tracks: Sequence[NDArray[np.intp]], frame: int, random: np.random.Generator) -> list[int]:
        """Frames in a row, `frame` among them; where the track is too short, its last is repeated."""
        length = self.extras.length
        track = next(t for t in tracks if frame in t)
        place = int(np.flatnonzero(track == frame)[0])
        start = int(np.clip(place - random.integers(length), 0, max(len(track) - length, 0)))
        frames = [int(f) for f in track[start : start + length]]
        return frames + frames[-1:] * (length - len(frames))

    def _complete(
        self,
        samples: Sequence[dict[str, np.ndarray]],
        chosen: Sequence[tuple[int, int]],
        views: Floats | None,
    ) -> Samples:
        """Samples stacked, with what `extras` asks for."""
        stacked = _stack(samples)
        length = self.extras.length
        extra: dict[str, Any] = {"views": views}
        if length > 1:
            times = np.array([self.persons[who].times[frame][1] for who, frame in chosen], np.float64).reshape(
                -1, length
            )
            extra |= {
                "length": length,
                "times": (times - times[:, :1]).astype(np.float32),
                "identity": stacked.identity[::length],
            }
            if self.extras.flow:
                wanted = [s["wanted"] for s in samples]
                ways = [motion(wanted[k], wanted[k + 1]) for k in range(len(wanted) - 1) if (k + 1) % length]
                extra["flow"] = np.stack([w.flow for w in ways]).reshape(-1, length - 1, *ways[0].flow.shape)
                extra["visible"] = np.stack([w.visible for w in ways]).reshape(
                    -1, length - 1, 1, *ways[0].visible.shape
                )
        return replace(stacked, **extra)

    def _sample(
        self, who: int, frame: int, random: np.random.Generator, variant: int | None = None
    ) -> dict[str, np.ndarray]:
        person, change = self.persons[who], self.augmentation
        variant = int(random.integers(len(person.layers))) if variant is None else min(variant, len(person.layers) - 1)
        image, layers = person.images[frame], person.layers[variant, frame]
        reference = person.references[variant, frame] if len(person.references) else image
        sure = np.dstack([person.sure[frame], person.hands[frame]])
        landmarks, shift = person.landmarks[frame], None
        size = image.shape[0]
        pictures = [image, reference]  # the last two: what drives, and what is known of how its person looks
        if change.disguise > 0 and random.random() < change.disguise:
            other = int(random.choice(self._others(who)))
            seen, looks, worn = self._disguises(who, frame, other)
            # What is not worn, eyes and mouth, is still the person's own: or the mask would learn to see covers there.
            own = cv2.convertScaleAbs(reference + (looks.astype(np.float32) - reference) * (worn / np.float32(255)))
            pictures += [seen, own]
            landmarks, shift = self._disguises.reshape(who, frame, other, min(random.uniform(0, 2), 1.0))
        strength = min(change.warp, 1.5)
        matrix = placement(random, size, strength) if strength else np.eye(2, 3)
        if strength or shift is not None:
            places = lookup(matrix, size, shift)
            pictures = [cv2.remap(p, *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for p in pictures]
            layers, sure = (cv2.remap(p, *places, cv2.INTER_LINEAR) for p in (layers, sure))
            landmarks = align.apply(matrix, landmarks).astype(np.float32)
        points, five = landmarks[PRIORITY_POINTS, :2], five_points(landmarks)
        mirrored = random.random() < change.flip
        if mirrored:
            *pictures, layers, sure = (np.ascontiguousarray(p[:, ::-1]) for p in (*pictures, layers, sure))
            points, five = (p * [-1, 1] + [size - 1, 0] for p in (points, five))
            five = five[[1, 0, 2, 4, 3]]  # the viewer's left stays first
        if change.color:
            common = ColorChange.draw(random, change.color)
            pictures = [common.apply(p) for p in pictures]
        image, reference, seen, own = *pictures[:2], *pictures[-2:]
        driving, cover = self._driving(seen, points, random)
        shape = layers[..., 1].astype(np.float32) / 255
        certain, hands = np.moveaxis(sure.astype(np.float32) / 255, 2, 0)
        told = {} if person.coefficients is None else {"coefficients": person.coefficients[int(mirrored), frame]}
        if self.extras.rays:
            told |= _head(landmarks, size, self.extras.rays, mirrored)
        return {
            **told,
            "image": driving,
            "reference": reference,
            "reference_mask": layers[..., :1],
            "own_reference": own,
            "geometry": layers[..., 2:],
            "identity": np.int64(who),
            "wanted": image,
            "where": (shape * certain)[..., None],
            "mask_known": (shape * np.maximum(certain, hands))[..., None],
            "hull": shape[..., None],
            "uncovered": ((1 - cover) * (1 - hands))[..., None],
            "points": points.astype(np.float32),
            "five": five.astype(np.float32),
        }

    def _driving(self, image: Image, points: Floats, random: np.random.Generator) -> tuple[Image, Mask]:
        """What the encoder sees: other light, distorted, covered; and where it is covered."""
        change = self.augmentation
        cover = np.zeros(image.shape[:2], np.float32)
        driving = image
        if change.color:
            driving = ColorChange.draw(random, change.color * 1.2).apply(driving)
        if random.random() < change.covers:
            if self._hands and random.random() < _REAL_HANDS:
                number, frame = self._hands[int(random.integers(len(self._hands)))]
                whose = self.persons[number]
                driving, cover = lay_hand(driving, whose.images[frame], whose.hands[frame], random)
            else:
                donor_of = self.persons[int(random.integers(2))]
                donor = donor_of.images[int(random.integers(len(donor_of.images)))]
                driving, cover = paint_cover(driving, donor, random, change.cover_shapes, points)
        if change.warp:
            state = random.integers(2**32)
            # the cover is distorted with the picture it lies on
            driving, bent = (
                distort(p, np.random.default_rng(state), change.warp) for p in (driving, (cover * 255).astype(np.uint8))
            )
            cover = (bent / 255).astype(np.float32)
        if self._recipe is not None:
            driving = self._recipe(driving, int(random.integers(2**31)))
        return driving, cover


def _shows_hand(person: Person, frame: int) -> bool:
    """Whether so much of the face is behind a hand that it can be shown before another one."""
    hull = person.layers[0, frame, ..., 1] > 127
    return bool((hull & (person.hands[frame] > 127)).sum() > _HAND_SHARE * hull.sum())


def _head(landmarks: Floats, size: int, rays: int, mirrored: bool) -> dict[str, Floats]:
    """Where the head of landmarks `[468, 3]` px is in a `size` px crop, and its depth; of the mirrored picture, if that is shown."""
    fit = align.fit_head(landmarks)
    matrix, middle = align.picture_to_face(fit, size), fit.project(align.MIDDLE[None])[0, 2]
    depth, known = atlas.depth_map(align.scale_points(landmarks, size, rays), rays)
    depth = (depth - middle * rays / size) * (2 / rays)
    if mirrored:
        matrix = matrix * np.array([-1, 1, 1, 1], np.float32)
        depth, known = depth[:, ::-1], known[:, ::-1]
    return {"picture_to_face": matrix, "depth": depth[..., None].astype(np.float32), "depth_known": known[..., None]}


def _judged(person: Person) -> NDArray[np.intp]:
    """Frames to judge by."""
    return person.held_out if len(person.held_out) else person.training


def _tracks(times: Sequence[tuple[str, float]], frames: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Those frames, in their order in time, as stretches without a gap of more than `_CLIP_GAP_S`."""
    order = sorted((int(f) for f in frames), key=lambda f: times[f])
    tracks: list[list[int]] = []
    for frame in order:
        last = times[tracks[-1][-1]] if tracks else None
        if last is not None and last[0] == times[frame][0] and times[frame][1] - last[1] <= _CLIP_GAP_S:
            tracks[-1].append(frame)
        else:
            tracks.append([frame])
    return [np.array(t) for t in tracks]


def _stack(samples: Sequence[dict[str, np.ndarray]]) -> Samples:
    """Channels first, 0..1."""
    ready: dict[str, Any] = {}
    for name in samples[0]:
        values = np.stack([s[name] for s in samples])
        if values.ndim == 4:
            values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
            values = values.astype(np.float32) / 255 if values.dtype == np.uint8 else values.astype(np.float32)
        ready[name] = values
    return Samples(**ready)
