"""Single pictures with another face, in this process: what a preview, a generated picture and the API's picture route share."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lib_vitface import options as declarations
from lib_vitface.errors import InputError, NoFaceError
from lib_vitface.options import Declared, declared, option
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.types import Denoiser, Face, Image, Mask, Tick, no_tick
from lib_vitface.ui.site import Site

if TYPE_CHECKING:
    from lib_vitface.faces.analyse import Analyser
    from lib_vitface.provenance.publish import Publisher
    from lib_vitface.swap.frame import ModelSwapper

LARGEST_SIDE = 8192
_MARGIN = 1.6  # side of the denoised square, in face sizes
_OF_VIDEO = {"color_frames", "motion_blur", "smooth", "fade_frames", "input", "output", "overwrite"}
_ONLY = {"model", "device"}  # of the groups that are about files and running
_GROUPS = {"Files", "Video", "Running"}


@dataclass(frozen=True)
class DenoiseOptions:
    """The WebUI's own checkpoint redraws the swapped face."""

    denoise: float = option(
        0.0,
        help="Strength with which the loaded checkpoint redraws the swapped face; 0 does not. Low values (0.1 to 0.3) keep "
        "the likeness.",
        group="Denoise",
        low=0,
        high=1,
    )
    denoise_seed: int = option(
        1, help="Seed of that pass; the same seed gives the same noise.", group="Denoise", low=0, high=2**31 - 1
    )


def picture_items() -> list[Declared]:
    """The options of `SwapOptions` that mean something for a single picture, and those of the diffusion pass."""
    found = [
        item
        for item in declared(SwapOptions)
        if item.name in _ONLY or (item.spec.group not in _GROUPS and item.name not in _OF_VIDEO)
    ]
    return [*found, *declared(DenoiseOptions)]


def picture_schema() -> dict[str, Any]:
    """JSON schema of them."""
    names = {item.name for item in picture_items()}
    both = [declarations.json_schema(cls) for cls in (SwapOptions, DenoiseOptions)]
    properties = {k: v for schema in both for k, v in schema["properties"].items() if k in names}
    return {"type": "object", "properties": properties, "required": ["model"], "additionalProperties": False}


def read_picture_options(values: Mapping[str, Any]) -> tuple[SwapOptions, DenoiseOptions]:
    """Both options objects of one flat set of values. Raises `InputError`."""
    own = {item.name for item in declared(DenoiseOptions)}
    names = {item.name for item in picture_items()}
    unknown = sorted(set(values) - names)
    if unknown:
        raise InputError(f"Unknown option {unknown[0]!r}; known are {', '.join(sorted(names))}.")
    swap = {k: v for k, v in values.items() if k not in own}
    ready = declarations.build(SwapOptions, {**swap, "input": "picture", "output": "picture"})
    return ready, declarations.build(DenoiseOptions, {k: v for k, v in values.items() if k in own})


@dataclass(frozen=True)
class Result:
    """A picture with the mark in it, the face that was replaced, and who may publish it."""

    image: Image
    face: Face
    publisher: Publisher


@dataclass
class _Loaded:
    key: str
    swapper: ModelSwapper
    publisher: Publisher


class Studio:
    """Keeps the last model loaded. One picture at a time; any thread may call."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._lock = threading.RLock()
        self._loaded: _Loaded | None = None
        self._analyser: tuple[str, Analyser] | None = None

    def swap(
        self,
        image: Image,
        values: Mapping[str, Any],
        tick: Tick = no_tick,
        *,
        denoiser: Denoiser | None = None,
        alone: bool = False,
    ) -> Result:
        """The picture `[H, W, 3]` with the chosen face replaced, redrawn where asked, and marked last.

        `alone`: the caller has the device to itself already.
        Raises `InputError`, `NoFaceError` where the face is not there or beyond the limits, `ConsentError`, `Cancelled`.
        """
        check_size(image)
        options, redraw = read_picture_options(self._placed(values))
        # always in this order, or two callers wait for each other
        with nullcontext() if alone else self.site.exclusive(), self._lock:
            tick(0, 3, "looking for the face")
            face = self._find(image, options)
            loaded = self._load(options)
            tick(1, 3, "swapping")
            swapped = self._one(image, face, options, loaded)
            tick(2, 3, "marking")
            if redraw.denoise > 0:
                swapped = self._redraw(swapped, face, redraw, denoiser)
            return Result(loaded.publisher.mark(swapped), face, loaded.publisher)

    def prepare(self, values: Mapping[str, Any]) -> None:
        """Loads the model, so that what is wrong with it is said before a picture is made."""
        options, _ = read_picture_options(self._placed(values))
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
            self._loaded = None

    def _placed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Names made into checked paths."""
        ready = {k: v for k, v in values.items() if v not in (None, "")}
        if not isinstance(ready.get("model", ""), (str, Path)) or not isinstance(
            ready.get("face_picture", ""), (str, Path)
        ):
            raise InputError("--model and --face-picture are names or paths.")
        for name, home in (("model", self.site.models), ("face_picture", self.site.uploads)):
            if name in ready:
                ready[name] = self.site.resolve(ready[name], home, f"--{name.replace('_', '-')}")
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
        from lib_vitface.swap.frame import ModelSwapper
        from lib_vitface.swap.video import identity
        from lib_vitface.tasks.steps import publisher_of

        publisher = publisher_of(options.model, self.site.workspace)  # asks for consent each time
        key = f"{options.model} {identity(options.model)} {options.device} {options.backend}"
        if self._loaded is None or self._loaded.key != key:
            self._loaded = None
            swapper = ModelSwapper(options.model, device=options.device, backend=options.backend)
            self._loaded = _Loaded(key, swapper, publisher)
        self._loaded.publisher = publisher
        return self._loaded

    def _one(self, image: Image, face: Face, options: SwapOptions, loaded: _Loaded) -> Image:
        from lib_vitface.faces.parse import HandFinder
        from lib_vitface.swap.finish import Finisher
        from lib_vitface.swap.picture import swap_face

        hands = HandFinder(every=1)(image, face.box) if options.occlusion else ()
        swapped = swap_face(image, face, loaded.swapper, Finisher(options), hands)
        if swapped is None:
            raise NoFaceError("The face is too small or turned too far away; see the limits in the options.")
        return swapped

    def _redraw(self, image: Image, face: Face, redraw: DenoiseOptions, denoiser: Denoiser | None) -> Image:
        if denoiser is None and self.site.denoiser is not None:
            denoiser = self.site.denoiser(redraw.denoise)
        if denoiser is None:
            raise InputError(
                "--denoise: there is no diffusion checkpoint here; use it inside the WebUI, or set it to 0."
            )
        part, mask = denoise_region(image, face)
        drawn = denoiser(np.ascontiguousarray(image[part]), mask, redraw.denoise_seed)
        weight = mask[..., None]
        result = image.copy()
        result[part] = np.rint(drawn * weight + image[part] * (1 - weight)).astype(np.uint8)
        return result


def denoise_region(image: Image, face: Face) -> tuple[tuple[slice, slice], Mask]:
    """The square about the face that is redrawn, and within it the face's soft mask `[h, w]` 0..1."""
    from lib_vitface.faces.parse import hull_mask

    assert face.landmarks is not None
    height, width = image.shape[:2]
    box = face.box.astype(float)
    half = _MARGIN * max(box[2] - box[0], box[3] - box[1]) / 2
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    left, top = max(int(x - half), 0), max(int(y - half), 0)
    right, bottom = min(int(x + half) + 1, width), min(int(y + half) + 1, height)
    points = face.landmarks - np.array([left, top, 0], np.float32)
    return np.s_[top:bottom, left:right], hull_mask(points, (bottom - top, right - left), feather_px=half / 8)


def check_size(image: Image) -> None:
    """Raises `InputError` for pictures that would not fit into memory comfortably."""
    if image.ndim != 3 or image.shape[2] != 3 or max(image.shape[:2]) > LARGEST_SIDE or min(image.shape[:2]) < 16:
        raise InputError(f"The picture must be 16 to {LARGEST_SIDE} pixels wide and high.")
