"""One clip of frames and the face to replace in each, in; the new face and where it goes, out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import InputError
from lib_vitface.faces.align import apply, crop_matrix, fit_head, picture_to_face, scale_points, warp
from lib_vitface.faces.landmarks import NO_IRISES, EyeNet
from lib_vitface.faces.parse import hull_mask
from lib_vitface.faceset.gaze import read_gaze
from lib_vitface.faceset.morphable import Morphable, coefficients
from lib_vitface.faceset.texture import (
    Expression,
    Mixture,
    Nearby,
    TextureMemory,
    geometry_map,
    place_expression,
    read_expression,
)
from lib_vitface.models.checkpoint import Checkpoint, open_model
from lib_vitface.models.config import SOURCE, TARGET, ViTSwapperConfig, person_name
from lib_vitface.models.runtime import Network, open_network
from lib_vitface.swap.light import featureless
from lib_vitface.types import Clip, Face, Floats, Image, Mask, Matrix, Neighbours, SwapModel, SwappedFace

_STEPS = (1.0, 1.5, 2.0, 2.5, 3.0)  # sizes of the pasted crop, in sides of the network's picture
LARGEST_CROP = 768
_MOST_ON_SKIN = 15.0  # grey levels by which the network may correct the memory there, see `_believable`
_SEEN = (0.06, 0.22)  # how well the best view must have shown a part before it is drawn at all, and drawn fully
_KEPT = 128  # faces whose reading is remembered


@dataclass(frozen=True)
class _Placed:
    """One face on its way: crop at pasting size, landmarks in it, and what the memory draws there."""

    matrix: Matrix
    crop: Image
    landmarks: Floats
    drawn: Floats
    trust: Mask
    seen: Mask
    own: Floats
    told: Floats | None = None


class _Prepared(NamedTuple):
    """A clip before the network; `inputs` are the fields of `types.Batch` but `identity`."""

    placed: list[_Placed]
    inputs: dict[str, Floats]


class _Drawn(NamedTuple):
    """A clip after it: images `[N, S, S, 3]` 0..1 and masks `[N, S, S]`."""

    placed: list[_Placed]
    images: Floats
    masks: Floats


@dataclass(frozen=True)
class _Read:
    """The expression `seen`, the same `wanted` of the source's shape, and of which views each person's memory would blend it."""

    seen: Expression
    wanted: Expression
    mixtures: tuple[Mixture, Mixture]

    def asked(self, person: int) -> Expression:
        return self.wanted if person == SOURCE else self.seen


class ModelSwapper(SwapModel):
    """A trained model, ready to swap. `identity` says whom to draw: the source, or (redrawing) the target itself.

    `weights` is the checkpoint's part: "weights" (the last averaged ones), "best" (those of the least held-out loss), "soup".
    `size` px is the side the network works at, `references` [V, S, S, 3] are further views (see `models.runtime`).
    `backend` is the engine (see `models.runtime`); a `network` that is there already is taken as it is.
    `reference` names one of the source's facesets, where the model was trained with several; by default the first.
    `shape` 0..1: how far the drawn face takes the source's proportions instead of keeping the footage's.
    """

    def __init__(
        self,
        model: Path | Checkpoint,
        *,
        device: str = "auto",
        shape: float = 0.0,
        identity: int = SOURCE,
        clip_length: int = 4,
        weights: str = "weights",
        backend: str = "auto",
        network: Network | None = None,
        size: int | None = None,
        references: NDArray[np.uint8] | None = None,
        reference: str = "",
    ) -> None:
        checkpoint = model if isinstance(model, Checkpoint) else open_model(model)
        config, drawn = checkpoint.config, checkpoint.person(reference)
        names = (person_name(drawn), person_name(TARGET))
        if size is not None and not isinstance(config, ViTSwapperConfig):
            raise InputError("--network-size: only vit models can work at another size than that of their training.")
        self.checkpoint, self.shape, self.identity, self.clip_length = checkpoint, shape, identity, clip_length
        self.context = config.clip_frames - 1 if isinstance(config, ViTSwapperConfig) else 0
        if self.context:  # longer clips, so that less is worked out for context alone
            self.clip_length = max(clip_length, 2 * self.context)
        self.network = network or open_network(
            checkpoint,
            device=device,
            weights=weights,
            identity=drawn if identity == SOURCE else identity,
            backend=backend,
            size=size,
            references=references,
        )
        self.size = size or config.resolution
        self.learned_reference = checkpoint.config.kind == "vit"
        self.source, self.target = (TextureMemory.from_arrays(checkpoint.arrays(f"memory_{name}")) for name in names)
        self._change = self.source.neutral - self.target.neutral
        self._eyes = EyeNet()
        self._known: OrderedDict[bytes, _Read] = OrderedDict()
        self._fitting: dict[tuple[int, int], TextureMemory] = {}
        self._morphable: Morphable | None = None
        self._shapes: tuple[Floats, ...] = ()
        self._volume = isinstance(config, ViTSwapperConfig) and config.volume_side > 0
        if isinstance(config, ViTSwapperConfig) and config.condition != "none":
            arrays = checkpoint.arrays("morphable")
            self._morphable = Morphable.from_arrays(arrays)
            self._shapes = tuple(arrays[f"shape_{name}"] for name in names)

    def prepare(self, clip: Clip) -> _Prepared:
        """Faces with landmarks cut out, and what the network is to be shown. Frames without `times` know nothing of each other."""
        around = clip.nearby or [()] * len(clip.frames)
        placed = [self._place(*one) for one in zip(clip.frames, clip.faces, around, strict=True)]
        return _Prepared(placed, self._inputs(placed, clip.times))

    def draw(self, prepared: _Prepared) -> _Drawn:
        """The network's pictures and masks."""
        images, masks = (values.reshape(-1, *values.shape[2:]) for values in self.network(prepared.inputs))
        return _Drawn(prepared.placed, images.transpose(0, 2, 3, 1), masks[:, 0])

    def finish(self, drawn: _Drawn) -> list[SwappedFace]:
        """New faces at the size they are pasted with."""
        return [self._finish(*one) for one in zip(drawn.placed, drawn.images, drawn.masks, strict=True)]

    def blended_from(self, frame: Image, face: Face) -> list[tuple[int, float]]:
        """Views of the source that the face would be drawn from, the most telling first, each with its share (mean of the regions)."""
        assert face.landmarks is not None
        if face.iris is None:
            face = replace(face, iris=self._eyes.irises(frame, face)[:, 0])
        shares = self._read(face).mixtures[SOURCE].shares.mean(axis=0)
        return [(int(view), float(shares[view])) for view in np.argsort(-shares, kind="stable")]

    def inputs(
        self, frames: Sequence[Image], faces: Sequence[Face], times: Sequence[float] | None = None
    ) -> Mapping[str, Floats]:
        """What the network is shown of a clip: the fields of `types.Batch` but `identity`, as arrays."""
        return self._inputs([self._place(frame, face) for frame, face in zip(frames, faces, strict=True)], times)

    def _place(self, frame: Image, face: Face, nearby: Neighbours = ()) -> _Placed:
        if face.landmarks is None:
            raise ValueError("the face has no landmarks: run a landmarker first")
        side = self._side(face)
        matrix = crop_matrix(face, side)
        crop = warp(frame, matrix, side)
        landmarks = apply(matrix, face.landmarks).astype(np.float32)
        if not self.learned_reference:
            plain = crop.astype(np.float32)
            whole = np.ones(crop.shape[:2], np.float32)
            return _Placed(matrix, crop, landmarks, plain, whole, whole, plain)
        if face.iris is None:
            face = replace(face, iris=self._eyes.irises(frame, face)[:, 0])
        reading = self._read(face)
        seen = reading.seen
        told = None
        if self._morphable is not None:
            fit = self._morphable.fit(landmarks[None], self._shapes[TARGET])
            told = coefficients(fit, self._shapes[self.identity])[0]
        own_points = scale_points(landmarks, side, self.size)
        around = [(self._read(other), apart) for other, apart in nearby]
        mixtures = [self._steady(person, reading, around) for person in (SOURCE, TARGET)]
        own = self._memory(TARGET, max(128, self.size)).render(own_points, self.size, seen, mixtures[TARGET]).image
        if self.identity == TARGET:
            drawn = self._memory(TARGET, side).render(landmarks, side, seen, mixtures[TARGET])
        else:
            if self.shape:
                landmarks = place_expression(seen.points + self.shape * self._change, landmarks)
            footage = crop.astype(np.float32)
            drawn = self._memory(SOURCE, side).render(landmarks, side, reading.wanted, mixtures[SOURCE], footage)
        return _Placed(matrix, crop, landmarks, drawn.image, drawn.mask, drawn.seen, own, told)

    def _read(self, face: Face) -> _Read:
        """What a face whose irises are known asks of both memories."""
        assert face.landmarks is not None
        iris = NO_IRISES if face.iris is None else face.iris
        name = face.landmarks.tobytes() + iris.tobytes()
        if name not in self._known:
            seen = read_expression(face.landmarks, read_gaze(face.landmarks, iris))
            wanted = replace(seen, points=seen.points + self._change)
            self._known[name] = _Read(seen, wanted, (self.source.mixture(wanted), self.target.mixture(seen)))
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return self._known[name]

    def _steady(self, person: int, reading: _Read, around: Sequence[tuple[_Read, float]]) -> Mixture:
        nearby = [Nearby(one.asked(person), one.mixtures[person], apart) for one, apart in around]
        memory = self.source if person == SOURCE else self.target
        return memory.steady(reading.asked(person), reading.mixtures[person], nearby)

    def _memory(self, person: int, side: int) -> TextureMemory:
        """A person's memory no finer than the crop that is drawn: texels between pixels would shimmer."""
        if (person, side) not in self._fitting:
            whole = self.source if person == SOURCE else self.target
            self._fitting[person, side] = whole.resized(min(whole.size, side))
        return self._fitting[person, side]

    def _side(self, face: Face) -> int:
        """Side of the crop that keeps the frame's detail, in few steps so that it rarely changes."""
        scale = float(np.sqrt(abs(np.linalg.det(crop_matrix(face, self.size)[:, :2]))))
        wanted = min(self.size / max(scale, 1e-6), LARGEST_CROP)
        best = next((s for s in _STEPS if s * self.size >= 0.9 * wanted), _STEPS[-1])
        return int(best * self.size)

    def _inputs(self, placed: Sequence[_Placed], times: Sequence[float] | None) -> dict[str, Floats]:
        """What `types.Batch` names, but `identity`, as arrays: clips of one frame, or one clip where `times` count."""
        size = self.size

        def ready(pictures: Sequence[NDArray[Any]]) -> Floats:
            return np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2)[:, None], dtype=np.float32)

        def small(picture: NDArray[Any]) -> NDArray[Any]:
            return (
                picture if picture.shape[0] == size else cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
            )

        points = [scale_points(p.landmarks, p.crop.shape[0], size) for p in placed]
        told = [p.told for p in placed if p.told is not None]
        found = {
            **({"coefficients": np.stack(told)[:, None]} if told else {}),
            "image": ready([small(p.crop).astype(np.float32) / 255 for p in placed]),
            "reference": ready([np.clip(small(p.drawn), 0, 255) / 255 for p in placed]),
            "reference_mask": ready([small(p.trust)[..., None] for p in placed]),
            "own_reference": ready([np.clip(small(p.own), 0, 255) / 255 for p in placed]),
            "geometry": ready([geometry_map(p, size) for p in points]),
        }
        if self._volume:
            heads = [picture_to_face(fit_head(p), size) for p in points]
            found["picture_to_face"] = np.stack(heads)[:, None]
        if self.context and times is not None:
            found = {name: np.ascontiguousarray(values.swapaxes(0, 1)) for name, values in found.items()}
            found["times"] = (np.asarray(times, np.float64) - times[0]).astype(np.float32)[None]
        return found

    def _finish(self, placed: _Placed, image: Floats, mask: Mask) -> SwappedFace:
        """The network's correction, enlarged, on the memory's full detail."""
        side = placed.crop.shape[0]
        if self.learned_reference:
            drawn = np.clip(placed.drawn, 0, 255)
            small = (
                drawn if side == self.size else cv2.resize(drawn, (self.size, self.size), interpolation=cv2.INTER_AREA)
            )
            change = image * 255 - small
            if self.identity == SOURCE:
                change = _believable(change, scale_points(placed.landmarks, side, self.size))
            if side != self.size:
                change = cv2.resize(change, (side, side), interpolation=cv2.INTER_CUBIC)
            change += drawn
            result = change
        else:
            result = image * 255
            if side != self.size:
                result = cv2.resize(result, (side, side), interpolation=cv2.INTER_CUBIC)
        if side != self.size:
            mask = cv2.resize(mask, (side, side), interpolation=cv2.INTER_LINEAR)
        shown = np.clip(mask, 0, 1).astype(np.float32)
        if self.learned_reference:
            # Beyond the mesh nothing was drawn, and what no view showed keeps the footage's pixels.
            low, high = _SEEN
            known = np.clip((cv2.blur(placed.seen, (5, 5)) - low) / (high - low), 0, 1)
            shown = shown * known * hull_mask(placed.landmarks, (side, side), feather_px=2.0)
        np.rint(np.clip(result, 0, 255, out=result), out=result)
        return SwappedFace(result.astype(np.uint8), shown, placed.matrix)


def _believable(change: Floats, landmarks: Floats) -> Floats:
    """A correction `[S, S, 3]` in grey levels, on skin bent to at most `_MOST_ON_SKIN`; what is done to eyes, brows and mouth stays.

    Skin is what the memory knows best: what is right to change there is shade and folds, within some levels. More is what the network
    makes up where the footage shows what the source's pictures never did, like a bright spot beside a finger.
    """
    skin = featureless(landmarks, change.shape[:2])[..., None]
    bent = _MOST_ON_SKIN * np.tanh(change / _MOST_ON_SKIN)
    return np.asarray(change + (bent - change) * skin, np.float32)
