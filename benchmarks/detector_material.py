"""What the detector is trained and measured on: stretches of real frames, swaps of them, and damage done to both alike.

Swaps are made in memory and never published: the mark, which every published swap bears, must not be what is learned. It is put
on real and swapped frames alike, now and then.
"""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from lib_vitface import media
from lib_vitface.faces import align, mesh
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.landmarks import MeshLandmarker, with_landmarks
from lib_vitface.faceset.gaze import GazeReader
from lib_vitface.faceset.texture import TextureMemory, read_expression, spread_views
from lib_vitface.models.checkpoint import Checkpoint
from lib_vitface.models.config import ViTSwapperConfig
from lib_vitface.provenance.watermark import FRAME, Watermark
from lib_vitface.swap.finish import Finisher
from lib_vitface.swap.frame import ModelSwapper
from lib_vitface.swap.picture import swap_face
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.types import Face, Floats, Frame, Image, Mask, SwapModel, VideoInfo

RATE = Fraction(30)
_LARGEST = 560  # px of a patch
_AROUND = 2.2  # heights of the face that a patch shows
_VIEW = 384  # px of the crops that memories are made of
_ATLAS = 384


@dataclass(frozen=True)
class Stretch:
    """Neighbouring frames of one person about the face: `images` of one size, `faces` in their pixels."""

    person: str
    images: Sequence[Image]
    faces: Sequence[Face]


# ------------------------------------------------------------------------------------------------------------ real frames


def still(photo: Path) -> list[Stretch]:
    """A stretch of one frame: a photo of one person."""
    image = media.read_image(photo)
    seen = Analyser(make_detector("auto"), MeshLandmarker())(image)
    if not seen:
        raise SystemExit(f"{photo}: no face was found; take another photo.")
    return [_about_face(photo.stem, [image], [max(seen, key=lambda f: float(f.box[2] - f.box[0]))])]


def stretches(clip: Path, count: int, length: int) -> list[Stretch]:
    """`count` stretches of `length` neighbouring frames, spread over a clip; those in which the face is lost are left out."""
    analyser = Analyser(make_detector("auto"), MeshLandmarker())
    total = media.probe(clip).frame_count or sum(1 for _ in media.read_frames(clip))
    starts = np.unique(np.linspace(0, max(total - length, 0), count).astype(int))
    found = list[Stretch]()
    frames = media.read_frames(clip)
    at = 0
    for start in starts:
        part = [f.image for f in itertools.islice(frames, start - at if start > at else 0, start - at + length)]
        at += len(part) + max(start - at, 0)
        faces = list[Face]()
        for image in part:
            seen = analyser.follow(image, faces[-1:]) if faces else analyser(image)
            if not seen:
                break
            faces.append(max(seen, key=lambda f: float(f.box[2] - f.box[0])))
        if len(faces) == len(part) == length:
            found.append(_about_face(clip.stem, part, faces))
    return found


def _about_face(person: str, images: Sequence[Image], faces: Sequence[Face]) -> Stretch:
    """The part of the frames about the face, no pixel changed unless it is larger than `_LARGEST`."""
    corners = []
    for face in faces:
        back = align.invert(align.crop_matrix(face, 2, coverage=_AROUND))
        corners.append(align.apply(back, np.array([[-0.5, -0.5], [1.5, -0.5], [-0.5, 1.5], [1.5, 1.5]])))
    points = np.concatenate(corners)
    height, width = images[0].shape[:2]
    left, top = (max(int(v), 0) for v in points.min(axis=0))
    right, bottom = (min(int(np.ceil(v)), n) for v, n in zip(points.max(axis=0), (width, height), strict=True))
    cut = [np.ascontiguousarray(image[top:bottom, left:right]) for image in images]
    moved = [placed(face, np.array([[1.0, 0, -left], [0, 1.0, -top]])) for face in faces]
    stretch = Stretch(person, cut, moved)
    return resized(stretch, min(1.0, _LARGEST / max(cut[0].shape[:2])))


def placed(face: Face, matrix: NDArray[np.float64]) -> Face:
    """The face in another picture; `matrix` leads there."""
    assert face.landmarks is not None
    iris = None if face.iris is None else align.apply(matrix, face.iris).astype(np.float32)
    return replace(with_landmarks(face, align.apply(matrix, face.landmarks).astype(np.float32)), iris=iris)


def resized(stretch: Stretch, scale: float) -> Stretch:
    """Smaller; sides are even, as encoders want them."""
    height, width = stretch.images[0].shape[:2]
    rows, columns = (max(round(n * scale / 2) * 2, 16) for n in (height, width))
    if scale >= 1:
        rows, columns = height // 2 * 2, width // 2 * 2
        return replace(stretch, images=[np.ascontiguousarray(i[:rows, :columns]) for i in stretch.images])
    across, down = columns / width, rows / height
    matrix = np.array([[across, 0, 0.5 * across - 0.5], [0, down, 0.5 * down - 0.5]])
    images = [np.asarray(cv2.resize(i, (columns, rows), interpolation=cv2.INTER_AREA)) for i in stretch.images]
    return Stretch(stretch.person, images, [placed(face, matrix) for face in stretch.faces])


# ------------------------------------------------------------------------------------------------------------------ swaps


def memory_of(found: Sequence[Stretch], views: int) -> TextureMemory:
    """A person's texture memory, of the most telling frames."""
    reader = GazeReader()
    crops, expressions = list[tuple[Image, Floats]](), []
    for stretch in found:
        for image, face in zip(stretch.images, stretch.faces, strict=True):
            crop = align.take_crop(image, face, _VIEW)
            assert face.landmarks is not None
            landmarks = align.apply(crop.frame_to_crop, face.landmarks).astype(np.float32)
            crops.append((crop.image, landmarks))
            expressions.append(read_expression(landmarks, reader(crop.image, landmarks)))
    chosen = spread_views(expressions, [1.0] * len(crops), views)
    return TextureMemory.build(((*crops[i], expressions[i].gaze) for i in chosen), _ATLAS)


def fewer(memory: TextureMemory, views: Sequence[int], size: int) -> TextureMemory:
    """Some of the views, at another size."""
    some = list(views)
    kept = {name: values[some] for name, values in memory.arrays().items() if name != "neutral"}
    return TextureMemory.from_arrays({**kept, "neutral": memory.neutral}).resized(size)


class _Memories(Checkpoint):
    """A model folder that is none: two memories, no weights."""

    def arrays(self, part: str) -> dict[str, NDArray[Any]]:
        memory: TextureMemory = self.notes[part]
        return memory.arrays()


@dataclass(frozen=True)
class _Drawn:
    """Stands where the network stands: what the memory draws, softened by `blur` px and off by `offset` (colours 0..1), as trained
    networks leave it more or less."""

    blur: float = 0.0
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    device: Any = None

    def __call__(self, inputs: Mapping[str, Floats]) -> tuple[Floats, Floats]:
        picture = inputs["reference"]
        if self.blur > 0:
            soft = [cv2.GaussianBlur(p[0].transpose(1, 2, 0), (0, 0), self.blur).transpose(2, 0, 1) for p in picture]
            picture = np.stack(soft)[:, None]
        shown = np.ones_like(inputs["reference_mask"])
        return np.clip(picture + np.float32(self.offset)[:, None, None], 0, 1), shown


def memory_swapper(source: TextureMemory, target: TextureMemory, network: Any = None) -> ModelSwapper:
    """Our own swap without training."""
    notes = {"memory_source": source, "memory_target": target}
    made = _Memories(Path("memories"), ViTSwapperConfig(), "memories", 0, 0.0, None, notes)
    return ModelSwapper(made, network=network or _Drawn())


def random_options(random: np.random.Generator) -> SwapOptions:
    """Looks and seams of every quality the options allow."""
    colors = ("rct", "rct", "lct", "mkl", "hist", "none")
    return SwapOptions(
        model=Path(),
        input=Path(),
        output=Path(),
        color=str(random.choice(colors)),
        relight=float(random.choice([0.0, 0.7, 0.7, 1.0])),
        sharpen=float(random.choice([0.0, 0.0, 0.5, 1.5])),
        mask="hull",
        occlusion=False,
        erode=float(random.uniform(-1, 6)),
        feather=float(random.uniform(1, 14)),
        blend=str(random.choice(["multiband", "multiband", "alpha", "poisson"])),
    )


def random_network(random: np.random.Generator) -> _Drawn:
    blur = float(random.choice([0.0, 0.0, random.uniform(0.4, 1.5)]))
    offset = random.normal(0, 0.015, 3) * (random.random() < 0.5)
    return _Drawn(blur, (float(offset[0]), float(offset[1]), float(offset[2])))


def swapped(stretch: Stretch, swapper: SwapModel, options: SwapOptions) -> list[Image] | None:
    """The stretch's frames with another face, not marked; None where a face is beyond the limits."""
    finisher, found = Finisher(options), list[Image]()
    for image, face in zip(stretch.images, stretch.faces, strict=True):
        made = swap_face(image, face, swapper, finisher)
        if made is None:
            return None
        found.append(made)
    return found


def classical(stretch: Stretch, source: Stretch) -> list[Image]:
    """A swap of another kind: each triangle of one picture's mesh goes where the footage has it, and the hull is cloned in by
    OpenCV's Poisson blending (Pérez et al. 2003). No memory, no network, no part of this project's swap."""
    found = []
    put_in, points = source.images[0], source.faces[0].landmarks
    assert points is not None
    for image, face in zip(stretch.images, stretch.faces, strict=True):
        assert face.landmarks is not None
        drawn = _warped_mesh(put_in, points[:, :2], face.landmarks[:, :2], image)
        hull = cv2.convexHull(np.rint(face.landmarks[:, :2]).astype(np.int32))
        mask = np.zeros(image.shape[:2], np.uint8)
        cv2.fillConvexPoly(mask, hull, 255)
        mask = cv2.erode(mask, np.ones((5, 5), np.uint8))
        mask[:2] = mask[-2:] = mask[:, :2] = mask[:, -2:] = 0
        x, y, width, height = cv2.boundingRect(mask)
        middle = (x + width // 2, y + height // 2)
        found.append(np.asarray(cv2.seamlessClone(drawn, image, mask, middle, cv2.NORMAL_CLONE), np.uint8))
    return found


def _warped_mesh(image: Image, points: Floats, wanted: Floats, under: Image) -> Image:
    """`image` bent so that its `points` [468, 2] lie at `wanted`, over `under`."""
    result = under.copy()
    size = under.shape[1::-1]
    for triangle in mesh.triangles():
        a, b = points[triangle].astype(np.float32), wanted[triangle].astype(np.float32)
        edges = b[1:] - b[0]
        if edges[0, 0] * edges[1, 1] - edges[0, 1] * edges[1, 0] >= -0.5:  # turned away
            continue
        low = np.clip(np.floor(b.min(axis=0)).astype(int) - 1, 0, size)
        high = np.clip(np.ceil(b.max(axis=0)).astype(int) + 2, 0, size)
        if (high - low).min() < 1:
            continue
        matrix = cv2.getAffineTransform(a, b - low.astype(np.float32))
        part = cv2.warpAffine(image, matrix, tuple(map(int, high - low)), borderMode=cv2.BORDER_REFLECT_101)
        inside = np.zeros(part.shape[:2], np.uint8)
        cv2.fillConvexPoly(inside, np.rint((b - low) * 16).astype(np.int32), 255, shift=4)
        np.copyto(result[low[1] : high[1], low[0] : high[0]], part, where=inside[..., None] > 0)
    return result


def difference_mask(before: Image, after: Image) -> Mask:
    """Where a swap changed the picture, `[H, W]` 0..1."""
    gap = np.abs(after.astype(np.float32) - before).max(axis=2)
    soft = cv2.GaussianBlur(gap, (0, 0), max(before.shape[0] / 80, 1.0))
    return np.asarray(np.clip(soft / 4, 0, 1), np.float32)


# ----------------------------------------------------------------------------------------------------------------- damage


@dataclass(frozen=True)
class Damage:
    """What happens to frames on their way to whoever looks at them. `quality` is a CRF or a JPEG quality."""

    codec: str = "none"
    quality: int = 0
    scale: float = 1.0
    blur: float = 0.0
    noise: float = 0.0
    mark: str = ""  # record id of a mark that is put in

    def __call__(self, stretch: Stretch) -> Stretch:
        images = list(stretch.images)
        if self.mark:
            mark = Watermark(self.mark, b"training")
            images = [mark.embed(image, FRAME) for image in images]
        made = resized(replace(stretch, images=images), self.scale)
        images = [self._worn(image, k) for k, image in enumerate(made.images)]
        if self.codec == "jpeg":
            images = [_jpeg(image, self.quality) for image in images]
        elif self.codec == "h264":
            images = _encoded(images, self.quality)
        return replace(made, images=images)

    def _worn(self, image: Image, number: int) -> Image:
        if self.blur > 0:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), self.blur), np.uint8)
        if self.noise > 0:
            random = np.random.default_rng((number, int(self.noise * 1000)))
            image = np.clip(image + random.normal(0, self.noise, image.shape), 0, 255).round().astype(np.uint8)
        return image


def random_damage(random: np.random.Generator) -> Damage:
    codec = str(random.choice(["h264", "jpeg", "none"], p=[0.6, 0.22, 0.18]))
    quality = int(random.integers(18, 36)) if codec == "h264" else int(random.integers(40, 96))
    return Damage(
        codec,
        quality,
        float(random.choice([1.0, random.uniform(0.4, 1.0)])),
        float(random.choice([0.0, random.uniform(0.3, 1.2)], p=[0.8, 0.2])),
        float(random.choice([0.0, random.uniform(1, 6)], p=[0.8, 0.2])),
        random.bytes(16).hex() if random.random() < 0.3 else "",
    )


def _jpeg(image: Image, quality: int) -> Image:
    buffer = io.BytesIO()
    Pillow.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.array(Pillow.open(buffer).convert("RGB"))


def _encoded(images: Sequence[Image], crf: int) -> list[Image]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.mp4")
        height, width = images[0].shape[:2]
        info = VideoInfo(path, width, height, RATE, len(images), len(images) / RATE, 0, "", "", 8, False, 1, 1, 1, 1)
        with media.FrameWriter(path, info, media.EncodeSettings("h264", crf, "fast", threads=1)) as writer:
            for k, image in enumerate(images):
                writer.write(Frame(k, k / RATE, image))
        return [frame.image for frame in media.read_frames(path)]


def crops(stretch: Stretch, side: int, coverage: float = align.COVERAGE) -> Iterator[tuple[Image, NDArray[np.float64]]]:
    """Face crops with their `frame_to_crop`."""
    for image, face in zip(stretch.images, stretch.faces, strict=True):
        crop = align.take_crop(image, face, side, coverage=coverage)
        yield crop.image, crop.frame_to_crop
