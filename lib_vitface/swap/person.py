"""Whose face came out: the new face is held against the consent record, so that no model shows a person who did not agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lib_vitface.errors import ConsentError
from lib_vitface.faces import align
from lib_vitface.faces.embed import make_embedder
from lib_vitface.faces.landmarks import five_points
from lib_vitface.types import Embedder, Face, Floats, Image, Neighbours, SwappedFace

if TYPE_CHECKING:
    from lib_vitface.provenance.consent import ConsentRecord
    from lib_vitface.swap.frame import ModelSwapper
    from lib_vitface.swap.members import Ensemble


def look_of(swapped: SwappedFace, face: Face, embedder: Embedder) -> Floats:
    """Embedding [128] of a new face in its crop; `face` is where it goes in the frame."""
    assert face.landmarks is not None
    landmarks = align.apply(swapped.frame_to_crop, face.landmarks).astype(np.float32)
    return embedder(swapped.image, replace(face, landmarks=landmarks, points=five_points(landmarks)))


EVERY = 12  # clips between two looks
MAX_YAW_DEG, LEAST_PX = 35.0, 60.0  # of faces whose embedding can be relied on
ALIKE = 0.3
"""Least mean cosine by which a new face counts as the consenting person's, or as the footage's own."""


@dataclass(frozen=True)
class Likeness:
    """Mean cosines of the new faces that were looked at: to the consent record, to the footage's own face, and to the nearest
    other person of whom this workspace has a record (`other`; -1 without any)."""

    faces: int
    record: float
    footage: float
    other: float
    name: str


class CheckedSwapper:
    """A model that is watched: the face it draws must be nearest to the person who agreed.

    A new face that is unlike both that person and the footage's is a third person's; one that is more like another person
    with a record than like both is that person's. Either is refused. A model that has learned little still resembles the
    footage, which harms nobody; `likeness` says so. `refused` is told the sentence before it is raised.
    """

    def __init__(
        self,
        swapper: ModelSwapper | Ensemble,
        record: ConsentRecord,
        others: Sequence[ConsentRecord] = (),
        refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.record, self.clip_length, self.inner = record, swapper.clip_length, swapper
        self._others, self._refused, self.context = others, refused, swapper.context
        self._embedder = make_embedder("sface")
        self._clips, self._seen = 0, list[tuple[float, float, list[float]]]()

    def __call__(
        self,
        frames: Sequence[Image],
        faces: Sequence[Face],
        times: Sequence[float] | None = None,
        nearby: Sequence[Neighbours] | None = None,
    ) -> list[SwappedFace]:
        """As the model's own call. Raises `ConsentError` where the face is somebody else's."""
        swapped = self.inner(frames, faces, times, nearby)
        if self._clips % EVERY == 0 or not self._seen:
            for image, face, new in zip(frames, faces, swapped, strict=True):
                if self._clear(face):
                    self._look(image, face, new)
                    break
        self._clips += 1
        return swapped

    def _clear(self, face: Face) -> bool:
        width = float(face.box[2] - face.box[0])
        return face.pose is not None and abs(face.pose.yaw_deg) <= MAX_YAW_DEG and width >= LEAST_PX

    def _look(self, image: Image, face: Face, new: SwappedFace) -> None:
        assert face.landmarks is not None
        look = look_of(new, face, self._embedder)
        footage = self._embedder(image, replace(face, points=five_points(face.landmarks)))
        others = [other.likeness(look) for other in self._others]
        self._seen.append((self.record.likeness(look), float(look @ footage), others))
        self._check()

    def _check(self) -> None:
        found = self.likeness()
        reason = "" if found is None else self._fault(found)
        if reason:
            self._refused(reason)
            raise ConsentError(reason)

    def _fault(self, found: dict[str, Any]) -> str:
        """The sentence that says why the result is refused; empty where it is not."""
        who, nearest = self.record.who, max(found["record"], found["footage"])
        if nearest < ALIKE:
            return (
                f"The model draws a face that is neither that of {who}, who agreed, nor that of the footage (likeness "
                f"{found['record']:.2f} and {found['footage']:.2f}, needed {ALIKE:.2f}); train it anew from that person's own clips."
            )
        if found["other"] >= ALIKE and found["other"] > nearest:
            return (
                f"The model draws the face of {found['name']} and not that of {who}, by whose consent it was trained; use the model "
                "that was trained by the right record."
            )
        return ""

    def hand_over(self) -> list[tuple[float, float, list[float]]]:
        """What was seen since the last time, for `take_over` in another process."""
        seen, self._seen = self._seen, []
        return seen

    def take_over(self, seen: Sequence[tuple[float, float, list[float]]]) -> None:
        """What another process saw. Raises `ConsentError` where the face is somebody else's, counted over all of it."""
        self._seen += seen
        self._check()

    def likeness(self) -> dict[str, Any] | None:
        """What was seen so far, JSON-ready; None where no face could be judged (all turned away or small)."""
        if not self._seen:
            return None
        own, footage = (float(np.mean([one[k] for one in self._seen])) for k in (0, 1))
        other, name = -1.0, ""
        if self._others:
            means = np.mean([one[2] for one in self._seen], axis=0)
            other, name = float(means.max()), self._others[int(means.argmax())].who
        values = Likeness(len(self._seen), own, footage, other, name)
        return {**asdict(values), "nearest": "record" if own >= max(footage, other) else "footage"}
