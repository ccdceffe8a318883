"""Single pictures with another face, in this process: what a preview, a generated picture and the API's picture route share."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_vitface import options as declarations
from lib_vitface.errors import InputError, NoFaceError
from lib_vitface.options import Declared, declared
from lib_vitface.provenance import nudity
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.types import Denoiser, Face, Image, Tick, no_tick
from lib_vitface.ui.site import Site

if TYPE_CHECKING:
    from lib_vitface.faces.analyse import Analyser
    from lib_vitface.faces.parse import Hand
    from lib_vitface.provenance.publish import Publisher
    from lib_vitface.swap.person import CheckedSwapper

LARGEST_SIDE = 8192
_OF_FRAMES_AROUND = {"denoise_every", "denoise_carry", "color_frames", "motion_blur", "smooth", "fade_frames"}
_OF_A_JOB = {"input", "output", "overwrite", "chunk_frames", "resume", "workers"}


def picture_items() -> list[Declared]:
    """The options of `SwapOptions` that mean something for a single picture."""
    without = _OF_FRAMES_AROUND | _OF_A_JOB
    return [item for item in declared(SwapOptions) if item.spec.group != "Video" and item.name not in without]


def picture_schema() -> dict[str, Any]:
    """JSON schema of them."""
    schema, names = declarations.json_schema(SwapOptions)["properties"], {item.name for item in picture_items()}
    properties = {name: value for name, value in schema.items() if name in names}
    return {"type": "object", "properties": properties, "required": ["model"], "additionalProperties": False}


def read_picture_options(values: Mapping[str, Any]) -> SwapOptions:
    """The options object of values for a single picture. Raises `InputError`."""
    names = {item.name for item in picture_items()}
    unknown = sorted(set(values) - names)
    if unknown:
        raise InputError(f"Unknown option {unknown[0]!r}; known are {', '.join(sorted(names))}.")
    return declarations.build(SwapOptions, {**values, "input": "picture", "output": "picture"})


@dataclass(frozen=True)
class Result:
    """A picture with the mark in it, the face that was replaced, and who may publish it."""

    image: Image
    face: Face
    publisher: Publisher


@dataclass
class _Loaded:
    key: str
    swapper: CheckedSwapper
    publisher: Publisher


class Studio:
    """Keeps the last model loaded. One picture at a time; any thread may call."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._lock = threading.RLock()
        self._loaded: _Loaded | None = None
        self._analyser: tuple[str, Analyser] | None = None
        self._pipeline: tuple[str, Denoiser] | None = None

    def swap(
        self,
        image: Image,
        values: Mapping[str, Any],
        tick: Tick = no_tick,
        *,
        denoiser: Denoiser | None = None,
        words: tuple[str, str] = ("", ""),
        alone: bool = False,
    ) -> Result:
        """The picture `[H, W, 3]` with the chosen face replaced, redrawn where asked, and marked last.

        `denoiser` redraws where no checkpoint is named, `words` are prompt and negative prompt of the picture.
        `alone`: the caller has the device to itself already.
        Raises `InputError`, `NoFaceError` where the face is not there or beyond the limits, `ConsentError`, `Cancelled`.
        """
        check_size(image)
        if nude := nudity.fault_of(image, "The picture"):
            raise InputError(nude)
        options = read_picture_options(self._placed(values))
        # always in this order, or two callers wait for each other
        with nullcontext() if alone else self.site.exclusive(), self._lock:
            tick(0, 3, "looking for the face")
            face = self._find(image, options)
            loaded = self._load(options)
            tick(1, 3, "swapping")
            swapped = self._one(image, face, options, loaded)
            if options.denoise > 0 and options.opacity > 0:
                given = denoiser if options.denoise_checkpoint is None else None
                swapped = self._redraw(swapped, face, options, given, words)
            tick(2, 3, "marking")
            return Result(loaded.publisher.mark(swapped), face, loaded.publisher)

    def prepare(self, values: Mapping[str, Any]) -> None:
        """Loads the model, so that what is wrong with it is said before a picture is made."""
        options = read_picture_options(self._placed(values))
        with self._lock:
            self._load(options)

    def faces(self, image: Image, detector: str = "auto") -> list[Face]:
        """Everybody in a picture, from the left."""
        check_size(image)
        with self._lock:
            found = self._analyse(detector)(image)
        return sorted(found, key=lambda face: float(face.box[0] + face.box[2]))

    def forget(self) -> None:
        """Frees the loaded model's memory."""
        with self._lock:
            self._loaded = self._pipeline = None

    def _placed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Names made into checked paths, and "auto" into the host's device."""
        ready = {k: v for k, v in values.items() if v not in (None, "", [])}
        for item in picture_items():
            if item.type is Path and item.name in ready:
                ready[item.name] = self.site.paths_of("swap", item, ready[item.name])
        if ready.get("device", "auto") == "auto":
            ready["device"] = self.site.device
        return ready

    def _analyse(self, detector: str) -> Analyser:
        from lib_vitface.faces.analyse import Analyser
        from lib_vitface.faces.detect import make_detector
        from lib_vitface.faces.landmarks import MeshLandmarker

        if self._analyser is None or self._analyser[0] != detector:
            self._analyser = detector, Analyser(make_detector(detector), MeshLandmarker())
        return self._analyser[1]

    def _find(self, image: Image, options: SwapOptions) -> Face:
        from lib_vitface.faces.analyse import Analyser
        from lib_vitface.faces.embed import make_embedder
        from lib_vitface.swap.plan import choice
        from lib_vitface.swap.video import reference_look

        analyser = self._analyse(options.detector)
        reference = reference_look(options, analyser)
        if reference is not None:
            analyser = Analyser(analyser.detector, analyser.landmarker, make_embedder("sface"))
        face = choice(options, reference).pick(analyser(image))
        if face is None:
            raise NoFaceError("The face to replace was not found in the picture.")
        return face

    def _load(self, options: SwapOptions) -> _Loaded:
        from lib_vitface.provenance import consent
        from lib_vitface.swap.video import identity
        from lib_vitface.tasks.steps import open_swapper, publisher_of

        publisher = publisher_of(options.model, self.site.workspace, "pictures")  # asks for consent each time
        folders = (options.model, *options.also, *options.references)
        names = ("device", "backend", "weights", "network_size", "shape", "reference")
        chosen = [getattr(options, name) for name in names]
        people = [record.id for record in consent.kept(self.site.workspace)]  # nobody else's face may be drawn
        key = f"{[(str(folder), identity(folder)) for folder in folders]} {chosen} {people}"
        if self._loaded is None or self._loaded.key != key:
            self._loaded = None
            swapper = open_swapper(options, self.site.workspace)
            self._loaded = _Loaded(key, swapper, publisher)
        self._loaded.publisher = publisher
        return self._loaded

    def _one(self, image: Image, face: Face, options: SwapOptions, loaded: _Loaded) -> Image:
        from lib_vitface.swap.finish import Finisher
        from lib_vitface.swap.picture import swap_face

        hands = self._hands(image, face, options)
        loaded.swapper.begin()
        swapped = swap_face(image, face, loaded.swapper, Finisher(options), hands)
        if swapped is None:
            raise NoFaceError("The face is too small or turned too far away; see the limits in the options.")
        return swapped

    @staticmethod
    def _hands(image: Image, face: Face, options: SwapOptions) -> Sequence[Hand]:
        from lib_vitface.faces.parse import HandFinder

        return HandFinder(every=1)(image, face.box) if options.occlusion else ()

    def _redraw(
        self, image: Image, face: Face, options: SwapOptions, denoiser: Denoiser | None, words: tuple[str, str]
    ) -> Image:
        from lib_vitface.swap.denoise import Guard, Redrawer, redrawn

        drawer = Redrawer(options, denoiser or self._denoiser(options), words)
        return redrawn(image, face, drawer, Guard(options), self._hands(image, face, options), options.opacity)[0]

    def _denoiser(self, options: SwapOptions) -> Denoiser:
        """The checkpoint that is named (the last one stays loaded), else the host's."""
        from lib_vitface.swap.video import identity
        from lib_vitface.tasks.steps import denoiser_of

        named = options.denoise_checkpoint
        key = "" if named is None else f"{identity(named)} {options.denoise_config} {options.device}"
        if self._pipeline is None or not key or self._pipeline[0] != key:
            self._pipeline = None
            found = denoiser_of(options, self.site.host(), options.device)
            assert found is not None
            self._pipeline = key, found
        return self._pipeline[1]


def check_size(image: Image) -> None:
    """Raises `InputError` for pictures that would not fit into memory comfortably."""
    if image.ndim != 3 or image.shape[2] != 3 or max(image.shape[:2]) > LARGEST_SIDE or min(image.shape[:2]) < 16:
        raise InputError(f"The picture must be 16 to {LARGEST_SIDE} pixels wide and high.")
