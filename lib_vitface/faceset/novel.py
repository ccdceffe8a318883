"""Views of a person that no input shows, rendered from a volume that is fitted to those that there are.

They stand in the faceset as records of `record.NOVEL`, marked as synthetic, and are made anew with every build. The volume is
`models.renderer`'s, told of each frame's expression; its colour is held to the pictures, its depth and outline to the meshes of
the pictures and, from all sides, to the mesh of the person at rest: pictures from one side alone would leave open what is behind
what they show. It is rendered at rest. Only the face is: the rest of the crop is one colour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lib_vitface.errors import InputError
from lib_vitface.faces import align, mesh
from lib_vitface.faces.landmarks import five_points
from lib_vitface.faces.parse import outline_mask
from lib_vitface.faces.sharpness import sharpness
from lib_vitface.faceset import atlas, cluster, coverage, quality
from lib_vitface.faceset.morphable import EXPRESSIONS, Morphable
from lib_vitface.faceset.record import KEPT, NOVEL, Record
from lib_vitface.faceset.texture import neutral_shape, read_expression, spread_views
from lib_vitface.faceset.writer import FacesetWriter, Progress
from lib_vitface.models.renderer import Rendered, TriPlane, grid, march
from lib_vitface.types import Face, Floats, Image, Matrix, Pose, Tick, no_tick

LEAST = 8
"""Faces a volume can be fitted to."""

_FRAMES, _SIDE = 64, 192  # pictures the volume is fitted to at most, and their side
_STEPS, _PICTURES, _RAYS = 500, 4, 512
_SIDES, _SIDE_RAYS = 2, 256  # of the mesh at rest, in each step
_COARSE, _FINE = 16, 12
_RATE = 0.02
_DEPTH, _COVER = 1.0, 0.2  # weights of depth and of where the face ends, colour's being 1
_BAND = 16384  # rays rendered at once
_LIMIT = (60.0, 30.0)  # yaw and pitch in degrees up to which gaps are filled
_GAP_DEG, _REACH_DEG = 10.0, 25.0  # a gap is farther than the first from every view; beyond the second nothing is known
_APART_S = 1000  # between the made-up times of novel views: none is another's neighbour

Embed = Callable[[Image, Face], Floats]


def gaps(pose: NDArray[np.floating], count: int) -> list[Pose]:
    """At most `count` poses that are missing among `[N, 2]` (yaw, pitch in degrees), the farthest from what is there first."""
    steps = [np.arange(-limit, limit + 1, 10.0) for limit in _LIMIT]
    wanted = np.stack(np.meshgrid(*steps), axis=-1).reshape(-1, 2)
    away = np.linalg.norm(wanted[:, None] - pose[None, :, :2], axis=2).min(axis=1)
    wanted, away = wanted[away <= _REACH_DEG], away[away <= _REACH_DEG]
    found: list[Pose] = []
    while len(found) < count and len(away) and away.max() > _GAP_DEG:
        yaw, pitch = wanted[int(away.argmax())]
        found.append(Pose(float(yaw), float(pitch), 0.0))
        away = np.minimum(away, np.linalg.norm(wanted - [yaw, pitch], axis=1))
    return found


def add_novel_views(faceset: FacesetWriter, count: int, embed: Embed, tick: Tick = no_tick) -> int:
    """Fills gaps of pose with at most `count` rendered faces; returns how many. Those that do not look like the person are left out.

    Raises `InputError` where there are too few faces to learn from.
    """
    records = list(faceset.records(novel=False))
    if len(records) < LEAST:
        raise InputError(
            f"{faceset.path}: {len(records)} faces are too few to render novel views from; at least {LEAST} are needed."
        )
    poses = gaps(coverage.pose_of(faceset), count)
    if not poses:
        return 0
    person = fit_person(faceset, records, tick)
    look, size = faceset.mean_embedding(), records[0].size
    suffix = faceset.setting("image_format", "png")
    made = []
    for number, pose in enumerate(poses):
        tick(_STEPS + number, _STEPS + len(poses), "rendering novel views")
        image, landmarks, matrix = person.render(pose, size)
        vector = embed(image, Face(np.array([0, 0, size, size], np.float32), 1.0, five_points(landmarks)))
        if float(vector @ look) < cluster.SAME_PERSON:
            continue
        record = _record(number, pose, image, landmarks, matrix, vector, f"novel_{number:05d}.{suffix}")
        faceset.save_crop(record.image, image, 96)
        made.append(record)
    place = faceset.add_input(NOVEL, "rendered")
    faceset.add(place, made, Progress(len(poses), len(poses), len(made), done=True))
    return len(made)


def _record(
    number: int, pose: Pose, image: Image, landmarks: Floats, matrix: Matrix, embedding: Floats, name: str
) -> Record:
    """A novel view as a face of the faceset; `matrix` is its own picture's, which is its frame."""
    size = image.shape[0]
    return Record(
        source=NOVEL,
        frame=number,
        time=Fraction(number * _APART_S),
        image=name,
        size=size,
        face_px=float(np.ptp(mesh.vertices()[:, 0]) * size / (align.HEIGHT_CM * align.COVERAGE)),
        pose=pose,
        sharpness=sharpness(image, landmarks),
        exposure=quality.exposure(image, outline_mask(landmarks, image.shape[:2])),
        occlusion=0.0,
        frame_to_crop=matrix,
        landmarks=landmarks,
        embedding=embedding,
        expression=quality.expression(landmarks),
        light=quality.light(image, landmarks),
        fingerprint=quality.fingerprint(image),
        cluster=0,
        kept=True,
        reason=KEPT,
        synthetic=True,
    )


@dataclass(frozen=True)
class FittedPerson:
    """A volume, the resting shape `[468, 3]` cm and the numbers `[1, EXPRESSIONS]` it is seen with, and the colour `[3]` 0..255
    around it."""

    volume: TriPlane
    rest: Floats
    numbers: torch.Tensor
    around: Floats

    def render(self, pose: Pose, size: int) -> tuple[Image, Floats, Matrix]:
        """The face at rest at a pose, in a `size` px crop; its landmarks `[468, 3]` px; and the unit `frame_to_crop`."""
        side = min(size, 2 * _SIDE)
        head = torch.from_numpy(align.picture_to_face(align.crop_head(pose, side), side))[None]
        rays = grid(side)
        with torch.inference_mode():
            field = self.volume.at(torch.zeros(1, dtype=torch.long), self.numbers)
            parts = [march(field, head, part[None], _COARSE, 2 * _FINE) for part in rays.split(_BAND)]
        values, opacity = (torch.cat(p, 1)[0].numpy() for p in ([f.values for f in parts], [f.opacity for f in parts]))
        shown = (values * 255 + (1 - opacity[:, None]) * self.around).reshape(side, side, 3)
        picture = np.clip(shown, 0, 255).round().astype(np.uint8)
        if side != size:
            picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)
        landmarks = align.crop_head(pose, size).project(self.rest).astype(np.float32)
        return picture, landmarks, np.array([[1.0, 0, 0], [0, 1, 0]])


def fit_person(faceset: FacesetWriter, records: list[Record], tick: Tick = no_tick) -> FittedPerson:
    """A volume of the person of these records, fitted to their most different views. The same faces give the same volume."""
    expressions = [read_expression(r.landmarks) for r in records]
    rest = neutral_shape(np.stack([e.points for e in expressions]))
    chosen = spread_views(expressions, [r.sharpness * (1 - r.occlusion) for r in records], _FRAMES)
    marks = np.stack([align.scale_points(records[k].landmarks, records[k].size, _SIDE) for k in chosen])
    pictures = [_small(faceset.image(records[k])) for k in chosen]
    numbers = Morphable.build([([expressions[k] for k in chosen], rest)]).fit(marks).expression
    calm = int(np.argmin([np.abs(expressions[k].points - rest).mean() for k in chosen]))
    heads, depths, seen = (np.stack(part) for part in zip(*(_geometry(m) for m in marks), strict=True))
    images = torch.from_numpy(np.stack(pictures).astype(np.float32).reshape(len(chosen), -1, 3) / 255)
    depth, where = (torch.from_numpy(a.reshape(len(chosen), -1)) for a in (depths, seen))
    told, matrices, rays = torch.from_numpy(numbers), torch.from_numpy(heads), grid(_SIDE)
    sides = [
        torch.from_numpy(np.stack(part)) for part in zip(*(_side_of(rest, pose) for pose in _all_sides()), strict=True)
    ]
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        volume = TriPlane(1, side=96, numbers=EXPRESSIONS)
    optimizer = torch.optim.Adam(volume.parameters(), _RATE, betas=(0.9, 0.99))
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS, _RATE / 20)
    for step in range(_STEPS):
        tick(step, _STEPS, "fitting a volume for novel views")
        frames = torch.randint(len(chosen), (_PICTURES,), generator=generator)
        # a quarter of the rays anywhere in the picture, the others in its middle, where the face is
        anywhere = torch.randint(len(rays), (_PICTURES, _RAYS // 4), generator=generator)
        middle = torch.randint(_SIDE // 4, _SIDE * 3 // 4, (2, _PICTURES, _RAYS * 3 // 4), generator=generator)
        picked = torch.cat([anywhere, middle[0] * _SIDE + middle[1]], dim=1)
        field = volume.at(torch.zeros(_PICTURES, dtype=torch.long), told[frames])
        found = march(field, matrices[frames], rays[picked], _COARSE, _FINE, generator)
        wanted, z, face = (values[frames[:, None], picked] for values in (images, depth, where))
        loss = ((found.values - wanted).abs() * face[..., None]).sum() / (3 * face.sum().clamp_min(1))
        loss = loss + _of_shape(found, z, face)
        views = torch.randint(len(sides[0]), (_SIDES,), generator=generator)
        picked = torch.randint(len(rays), (_SIDES, _SIDE_RAYS), generator=generator)
        field = volume.at(torch.zeros(_SIDES, dtype=torch.long), told[calm].expand(_SIDES, -1))
        found = march(field, sides[0][views], rays[picked], _COARSE, _FINE, generator)
        loss = loss + _of_shape(found, *(part.flatten(1)[views[:, None], picked] for part in sides[1:]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    outside = np.stack(pictures)[seen < 0.5]
    return FittedPerson(volume, rest, told[calm][None], np.median(outside, axis=0).astype(np.float32))


def _of_shape(found: Rendered, depth: torch.Tensor, face: torch.Tensor) -> torch.Tensor:
    """Loss of depth and outline of rays `[N, R]`."""
    gap = ((found.depth - depth).abs() * face).sum() / face.sum().clamp_min(1)
    return _DEPTH * gap + _COVER * (found.opacity - face).abs().mean()


def _all_sides() -> list[Pose]:
    """From where novel views may be seen."""
    return [
        Pose(float(yaw), float(pitch), 0.0)
        for yaw in np.linspace(-_LIMIT[0], _LIMIT[0], 7)
        for pitch in np.linspace(-_LIMIT[1], _LIMIT[1], 3)
    ]


def _side_of(rest: Floats, pose: Pose) -> tuple[Floats, Floats, Floats]:
    """As `_geometry`, of the mesh at rest at a pose."""
    return _geometry(align.crop_head(pose, _SIDE).project(rest).astype(np.float32))


def _small(image: Image) -> Image:
    return np.asarray(cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _geometry(landmarks: Floats) -> tuple[Floats, Floats, Floats]:
    """`picture_to_face`, picture z of the mesh and where it is seen, for landmarks in a crop of `_SIDE` px."""
    fit = align.fit_head(landmarks)
    depth, seen = atlas.depth_map(landmarks, _SIDE)
    middle = fit.project(align.MIDDLE[None])[0, 2]
    return align.picture_to_face(fit, _SIDE), ((depth - middle) * (2 / _SIDE)).astype(np.float32), seen
