"""The faces of one picture, and whether one of them is fit to be stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from lib_vitface.errors import NoFaceError
from lib_vitface.faces import align, mesh, parse
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.embed import make_embedder
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.faces.sharpness import sharpness
from lib_vitface.faces.track import overlap
from lib_vitface.faceset import quality
from lib_vitface.faceset.inputs import Picture
from lib_vitface.faceset.record import Record
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.media import read_image
from lib_vitface.types import Face, Floats, Image

SMALL, BLURRED, COVERED = "small", "blurred", "covered"

_FOLLOW_EVERY = 3  # frames farther apart than this are too different to follow landmarks
_HANDS_EVERY = 4  # looked-at frames between searches for hands
_STILL_LOOKS = 2
_SAME_LOOK = 0.985  # see `Finder.look`
_SAME_PLACE = 0.6  # overlap from which two followed faces have become one


@dataclass(frozen=True)
class Found:
    """A face fit to be stored: its record, still without embedding and file name, and its crop."""

    record: Record
    crop: Image


class Finder:
    """Detection, landmarks and identity in one place. `faces` may run in another thread than the rest."""

    def __init__(self, options: FacesetOptions) -> None:
        self.options = options
        self._hand_finders: dict[int, parse.HandFinder] = {}
        self._looks: dict[int, tuple[Floats, Callable[[], Floats]]] = {}
        self.analyser = Analyser(make_detector(options.detector), MeshLandmarker())
        self.embed = make_embedder()
        self._follow = options.every <= _FOLLOW_EVERY

    def begin(self) -> None:
        """Forget the hands and looks of the frames before: a stretch, a photo or another input begins."""
        for finder in self._hand_finders.values():
            finder.reset()
        self._looks.clear()

    def _hands_near(self, picture: Picture, face: Face, number: int) -> list[parse.Hand]:
        """Hands about the face. In a stream of close frames they are searched now and then and followed between; a still
        picture is searched in two squares at once."""
        if number not in self._hand_finders:
            self._hand_finders[number] = parse.HandFinder()
        finder = self._hand_finders[number]
        finder.every = _HANDS_EVERY if self._follow and not picture.still else 1
        hands: list[parse.Hand] = []
        for _ in range(_STILL_LOOKS if picture.still else 1):
            hands = finder(picture.image, extent(face))
        return hands

    def faces(self, picture: Picture, before: Sequence[Face] | None) -> list[Face]:
        """Faces with landmarks, best first: those another tool knows of, those followed from the frame before, or detected."""
        if picture.faces is not None:
            return [self.analyser.landmarker(picture.image, face) for face in picture.faces]
        if before and self._follow:
            followed = self.analyser.follow(picture.image, before)
            pairs = ((a, b) for i, a in enumerate(followed) for b in followed[:i])
            if not any(overlap(extent(a), extent(b)) > _SAME_PLACE for a, b in pairs):
                return followed
        return self.analyser(picture.image)

    def person(self, path: Path) -> Floats:
        """Embedding of the largest face in a picture. Raises NoFaceError where there is none."""
        image = read_image(path)
        faces = self.analyser(image)
        if not faces:
            raise NoFaceError(f"No face was found in {path}; name a clear picture of the person with --person.")
        return self.embed(image, max(faces, key=width_px))

    def look(self, picture: Picture, face: Face, found: Found) -> Callable[[], Floats]:
        """What gives the face's embedding once it is wanted: its own, or that of a face with this number, looked at before in the same
        stretch, whose crop is the same but for little.

        On 144 frames of three clips, one of them with hands before the face, the two then had a cosine of 0.97 or more (neighbouring
        frames 0.874 or more). Crops of two persons correlate by 0.56 at most, so nobody is taken for another one over a cut.
        """
        number, glance = found.record.number, quality.glance(found.crop)
        known = self._looks.get(number)
        if known is None or float(known[0] @ glance) < _SAME_LOOK:
            known = self._looks[number] = glance, cache(partial(self.embed, picture.image, face))
        return known[1]

    def measure(self, picture: Picture, face: Face, number: int) -> Found | str:
        """What there is to know of a face, or the reason why it is not fit: "small", "blurred" or "covered"."""
        options, landmarks = self.options, face.landmarks
        assert landmarks is not None and face.pose is not None
        wide = width_px(face)
        if wide < options.min_face_px:
            return SMALL
        crop = align.take_crop(picture.image, face, options.size)
        points = align.apply(crop.frame_to_crop, landmarks).astype(np.float32)
        sharp = sharpness(crop.image, points)
        if sharp < options.min_sharpness:
            return BLURRED
        hull = parse.outline_mask(points, (options.size, options.size))
        hands = self._hands_near(picture, face, number)
        covered = quality.share(parse.hand_mask(hands, hull.shape, crop.frame_to_crop), hull) if hands else 0.0
        if covered > options.max_occlusion:
            return COVERED
        record = Record(
            *(picture.source, picture.index, picture.time, "", options.size, wide, face.pose),
            sharpness=sharp,
            exposure=quality.exposure(crop.image, hull),
            occlusion=covered,
            frame_to_crop=crop.frame_to_crop,
            landmarks=points,
            expression=quality.expression(points),
            light=quality.light(crop.image, points),
            fingerprint=quality.fingerprint(crop.image),
            number=number,
        )
        return Found(record, crop.image)


def extent(face: Face) -> Floats:
    """Box `[4]` of the landmarks, which a followed face always has."""
    assert face.landmarks is not None
    flat = face.landmarks[:, :2]
    return np.concatenate([flat.min(axis=0), flat.max(axis=0)])


def width_px(face: Face) -> float:
    """Width the face would have from the front, in frame pixels, so that turning does not make it smaller."""
    assert face.landmarks is not None
    return float(align.fit_head(face.landmarks).scale * np.ptp(mesh.vertices()[:, 0]))
