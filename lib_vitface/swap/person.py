"""Whose face came out: the new face is held against the consent record, so that no model shows a person who did not agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lib_vitface.errors import ConsentError
from lib_vitface.faces import align
from lib_vitface.faces.embed import make_embedder
from lib_vitface.faces.landmarks import five_points
from lib_vitface.provenance import age
from lib_vitface.provenance.consent import MEASURED_YAW_DEG
from lib_vitface.types import Clip, Embedder, Face, Floats, Image, SwapModel, SwappedFace

if TYPE_CHECKING:
    from lib_vitface.provenance.consent import ConsentRecord
    from lib_vitface.swap.frame import ModelSwapper
    from lib_vitface.swap.members import Ensemble


def look_of(swapped: SwappedFace, face: Face, embedder: Embedder) -> Floats:
    """Embedding [128] of a new face in its crop; `face` is where it goes in the frame."""
    return embedder(swapped.image, _in_crop(swapped, face))


def _in_crop(swapped: SwappedFace, face: Face) -> Face:
    """A face of the frame as it lies in the crop of what is put there."""
    assert face.landmarks is not None
    landmarks = align.apply(swapped.frame_to_crop, face.landmarks).astype(np.float32)
    return replace(face, landmarks=landmarks, points=five_points(landmarks))


EVERY = 12  # clips between two looks
LEAST_PX = 60.0  # of faces whose embedding can be relied on; they are turned by `MEASURED_YAW_DEG` at most
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


class Look(NamedTuple):
    """Of one new face: cosines to the record, to the footage's face and to each other record, and the years that the new face and the
    footage's look (empty without an estimator)."""

    record: float
    footage: float
    others: list[float]
    years: tuple[float, ...]


class _Watched(NamedTuple):
    """A clip on its way; `inside` is the model's own."""

    clip: Clip
    inside: Any


class CheckedSwapper(SwapModel):
    """A model that is watched: the face it draws must be nearest to the person who agreed, and neither it nor the one it replaces may
    look like a minor's.

    A new face that is unlike both that person and the footage's is a third person's; one that is more like another person
    with a record than like both is that person's. Either is refused. A model that has learned little still resembles the
    footage, which harms nobody; `likeness` says so. `refused` is told the sentence before it is raised. With `stops=False` a wrong
    face raises nothing, and `fault` tells at the end: for who measures poor models, and must not hand out what is refused. Several
    pictures are several footages: `begin` says where one ends.
    """

    def __init__(
        self,
        swapper: ModelSwapper | Ensemble,
        record: ConsentRecord,
        others: Sequence[ConsentRecord] = (),
        refused: Callable[[str], None] = lambda reason: None,
        stops: bool = True,
    ) -> None:
        self.record, self.clip_length, self.inner = record, swapper.clip_length, swapper
        self._others, self._refused, self.context = others, refused, swapper.context
        self._stops = stops
        self._embedder = make_embedder("sface")
        self._age = age.find_estimator()
        self._clips, self._seen = 0, list[Look]()
        self._begun = 0  # looks at footage before this
        self.undecided = 0
        """Looks at which no face was clear enough to tell whose it is."""

    def begin(self) -> None:
        """Other footage from here on, in which somebody else may be seen: it is looked at from its first clip on, and ages are told
        by it alone."""
        self._clips, self._begun = 0, len(self._seen)

    def prepare(self, clip: Clip) -> _Watched:
        """As the model's own."""
        return _Watched(clip, self.inner.prepare(clip))

    def draw(self, prepared: _Watched) -> _Watched:
        """As the model's own."""
        return prepared._replace(inside=self.inner.draw(prepared.inside))

    def finish(self, drawn: _Watched) -> list[SwappedFace]:
        """As the model's own. Raises `ConsentError` where the face is somebody else's."""
        swapped = self.inner.finish(drawn.inside)
        if self._clips % EVERY == 0 or len(self._seen) == self._begun:
            for image, face, new in zip(drawn.clip.frames, drawn.clip.faces, swapped, strict=True):
                if self._clear(face):
                    self._look(image, face, new)
                    break
            else:
                self.undecided += bool(swapped)
        self._clips += 1
        return swapped

    def _clear(self, face: Face) -> bool:
        width = float(face.box[2] - face.box[0])
        return face.pose is not None and abs(face.pose.yaw_deg) <= MEASURED_YAW_DEG and width >= LEAST_PX

    def _look(self, image: Image, face: Face, new: SwappedFace) -> None:
        assert face.landmarks is not None
        look = look_of(new, face, self._embedder)
        footage = self._embedder(image, replace(face, points=five_points(face.landmarks)))
        others = [other.likeness(look) for other in self._others]
        pairs = ((new.image, _in_crop(new, face)), (image, face))
        years = () if self._age is None else tuple(self._age(*pair) for pair in pairs)
        self._seen.append(Look(self.record.likeness(look), float(look @ footage), others, years))
        self._check()

    def _check(self) -> None:
        reason = self._minor() or (self.fault() if self._stops else "")
        if reason:
            self._refused(reason)
            raise ConsentError(reason)

    def fault(self) -> str:
        """The sentence that says whose face was drawn; empty where it is that of the person who agreed, or the footage's."""
        found = self.likeness()
        if found is None:
            return ""
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

    def _minor(self) -> str:
        """The sentence that says that the new face, or the one it replaces, may be a minor's; empty where neither may."""
        if self._age is None:
            return ""
        for place, what in enumerate(("The new face", "The footage's face")):
            years = [one.years[place] for one in self._seen[self._begun :] if one.years]
            if reason := age.fault(age.apparent(years, self._age), what):
                return reason
        return ""

    def hand_over(self) -> list[Look | None]:
        """What was seen since the last time, for `take_over` in another process; None for what could not be decided."""
        seen = [*self._seen, *[None] * self.undecided]
        self._seen, self._begun, self.undecided = [], 0, 0
        return seen

    def take_over(self, seen: Sequence[Look | None]) -> None:
        """What another process saw. Raises `ConsentError` where the face is somebody else's, counted over all of it."""
        self._seen += [one for one in seen if one is not None]
        self.undecided += sum(one is None for one in seen)
        self._check()

    def likeness(self) -> dict[str, Any] | None:
        """What was seen so far, JSON-ready; None where no face could be judged (all turned away or small)."""
        if not self._seen:
            return None
        own = float(np.mean([one.record for one in self._seen]))
        footage = float(np.mean([one.footage for one in self._seen]))
        other, name = -1.0, ""
        if self._others:
            means = np.mean([one.others for one in self._seen], axis=0)
            other, name = float(means.max()), self._others[int(means.argmax())].who
        values = Likeness(len(self._seen), own, footage, other, name)
        return {**asdict(values), "nearest": "record" if own >= max(footage, other) else "footage"}
