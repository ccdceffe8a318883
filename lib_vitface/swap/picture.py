"""Single pictures and folders of them with another face."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_vitface import media
from lib_vitface.errors import InputError, NoFaceError
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.embed import make_embedder
from lib_vitface.faces.parse import Hand, HandFinder
from lib_vitface.faces.track import FaceChoice
from lib_vitface.jobs import Claim, JobStore
from lib_vitface.swap.denoise import Guard, Redrawer, redrawn
from lib_vitface.swap.finish import Finisher
from lib_vitface.swap.person import CheckedSwapper
from lib_vitface.swap.plan import choice, limits
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.swap.video import check_output, find_job, make_analyser, redrawer_of, reference_look, swap_video
from lib_vitface.types import Denoiser, Face, Image, SwapModel, Tick, no_tick

if TYPE_CHECKING:
    from lib_vitface.provenance.publish import Publisher

_LOOKS = 3  # palms are searched in another square at each look
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def swap_input(
    options: SwapOptions,
    swapper: SwapModel,
    publisher: Publisher,
    store: JobStore,
    tick: Tick = no_tick,
    denoiser: Denoiser | None = None,
    make: Callable[[], SwapModel] | None = None,
    published: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Video, picture or folder, whichever `options.input` is. A folder goes into a video file as the frames of one. `make`,
    `published` as in `swap_video`."""
    if makes_video(options):
        return swap_video(options, swapper, publisher, store, tick, denoiser, make, published)
    return swap_images(options, swapper, publisher, store, tick, denoiser, published)


def makes_video(options: SwapOptions) -> bool:
    """Whether a video comes out."""
    return media.is_video(options.input) or (options.input.is_dir() and media.is_video(options.output))


def swap_images(
    options: SwapOptions,
    swapper: SwapModel,
    publisher: Publisher,
    store: JobStore,
    tick: Tick = no_tick,
    denoiser: Denoiser | None = None,
    published: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """One picture to `options.output`, or each picture of a folder to a folder, under the same names.

    In a folder pictures without the wanted face are left out and named in the result; a single one raises `NoFaceError`. The written
    folder gets one signed record of all its pictures.
    Otherwise as `swap_video`.
    """
    pairs = _pairs(options)
    redrawer = redrawer_of(options, denoiser)
    job = find_job(store, options, denoiser)
    if not store.chunks(job.id, "begun"):  # from then on what lies there can be this job's own
        check_output(options)
    with store.claim(job.id) as claim:
        claim.add_chunk("begun", 0)
        result = _Pictures(options, swapper, publisher, claim, redrawer).all(pairs, tick)
        published()
        claim.finish(result)
    shutil.rmtree(job.folder, ignore_errors=True)
    return result


def _pairs(options: SwapOptions) -> list[tuple[Path, Path]]:
    """Inputs with their outputs."""
    if not options.input.is_dir():
        return [(options.input, options.output)]
    inputs = [path for path in media.list_media([options.input]) if not media.is_video(path)]
    if not inputs:
        raise InputError(f"{options.input}: the folder holds no pictures; give PNG, JPEG or WebP files.")
    pairs = []
    for path in inputs:
        place = options.output / path.relative_to(options.input)
        pairs.append((path, place if place.suffix.lower() in _SUFFIXES else place.with_suffix(".png")))
    if len({out for _, out in pairs}) < len(pairs):
        raise InputError(f"{options.input}: two pictures would get the same name in {options.output}; rename one.")
    return pairs


class _Pictures:
    def __init__(
        self,
        options: SwapOptions,
        swapper: SwapModel,
        publisher: Publisher,
        claim: Claim,
        redrawer: Redrawer | None = None,
    ) -> None:
        self._kept: dict[int, float] = {}  # of the diffusion pass, by picture
        self._redrawer, self._guard = redrawer, None if redrawer is None else Guard(options)
        self.options, self.swapper, self.publisher, self.claim = options, swapper, publisher, claim
        analyser = make_analyser(options)
        reference = reference_look(options, analyser)
        self._choice: FaceChoice = choice(options, reference)
        self._analyser = Analyser(
            analyser.detector, analyser.landmarker, None if reference is None else make_embedder("sface")
        )
        self._finisher = Finisher(options)
        self._hands = HandFinder(every=1) if options.occlusion else None

    def all(self, pairs: Sequence[tuple[Path, Path]], tick: Tick) -> dict[str, Any]:
        noted = self.claim.store.chunks(self.claim.job.id, "picture")
        done = {
            k: chunk.data["swapped"] for k, chunk in noted.items() if pairs[k][1].exists() or not chunk.data["swapped"]
        }
        self._kept = {k: noted[k].data["kept"] for k in done if noted[k].data.get("kept") is not None}
        for number, (source, output) in enumerate(pairs):
            tick(number, len(pairs), source.name)
            self.claim.progress(number, len(pairs), source.name)
            if number in done:
                continue
            done[number] = self._one(number, source, output)
            if not done[number] and not self.options.input.is_dir():
                raise NoFaceError(
                    f"{source}: the face to replace was not found on it (or is too small or turned away); give a clearer picture."
                )
            self.claim.add_chunk("picture", number, data={"swapped": done[number], "kept": self._kept.get(number)})
        tick(len(pairs), len(pairs), "")
        if not any(done.values()):
            raise NoFaceError(f"{self.options.input}: the face to replace was not found on any of the pictures.")
        if self.options.input.is_dir():
            written = [pairs[k][1] for k in sorted(done) if done[k]]
            self.publisher.folder(self.options.output, written, self.options.input)
        left_out = [str(pairs[k][0]) for k in sorted(done) if not done[k]]
        result = {"output": str(self.options.output), "pictures": sum(done.values()), "without_face": left_out}
        return result if self._redrawer is None else {**result, "denoise": self._counts()}

    def _counts(self) -> dict[str, int]:
        amounts = list(self._kept.values())
        held, out = (sum(amount < limit for amount in amounts) for limit in (1, 1e-9))
        return {"pictures": len(amounts), "held_back": held, "left_out": out}

    def _one(self, number: int, source: Path, output: Path) -> bool:
        """Whether the face was there; the picture is written if so."""
        image, alpha = media.read_picture(source)
        face = self._choice.pick(self._analyser(image))
        if face is None:
            return False
        hands = self._hands_near(image, face)
        if isinstance(self.swapper, CheckedSwapper):
            self.swapper.begin()
        swapped = swap_face(image, face, self.swapper, self._finisher, hands)
        if swapped is None:
            return False
        if self._redrawer is not None and self._guard is not None:
            swapped, kept = redrawn(swapped, face, self._redrawer, self._guard, hands, self.options.opacity)
            self._kept[number] = kept.amount
        quality = 95 if self.options.quality is None else self.options.quality
        self.publisher.image(output, swapped, quality=quality, alpha=alpha, parent=source)
        return True

    def _hands_near(self, image: Image, face: Face) -> Sequence[Hand]:
        if self._hands is None:
            return ()
        self._hands.reset()
        return [self._hands(image, face.box) for _ in range(_LOOKS)][-1]


def swap_face(
    image: Image, face: Face, swapper: SwapModel, finisher: Finisher, hands: Sequence[Hand] = ()
) -> Image | None:
    """One picture [H, W, 3] with one face replaced, not marked yet; None where the face is beyond the limits."""
    if face.pose is None:
        return None
    width = float(face.box[2] - face.box[0])
    strength = float(limits(finisher.options, face.presence or 0.0, face.pose.yaw_deg, face.pose.pitch_deg, width))
    if strength <= 0:
        return None
    measured = finisher.measure(image, face, swapper([image], [face])[0], hands)
    return finisher.finish(image, measured, [measured], [1.0], strength, (0.0, 0.0))
