"""Nude material is refused before work starts, by a classifier that is installed here; none is shipped.

`VITFACE_NSFW_MODEL` names a folder with an image classifier of `transformers` (a label that contains "nsfw", "porn", "nude" or
"explicit" counts), else the package `nudenet` is used where it is installed. Every classifier errs, and one look a second misses what
is shown for less.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from lib_vitface import media
from lib_vitface.errors import InputError, MissingDependencyError
from lib_vitface.types import Image, Tick, no_tick

FOLDER = "VITFACE_NSFW_MODEL"
LIMIT = 0.6
"""Least score that counts; scores are 0..1."""
_EVERY_S = 1.0
_WORDS = ("nsfw", "porn", "nude", "explicit")
_PARTS = {
    "FEMALE_GENITALIA_EXPOSED",
    "MALE_GENITALIA_EXPOSED",
    "ANUS_EXPOSED",
    "FEMALE_BREAST_EXPOSED",
    "BUTTOCKS_EXPOSED",
}


@dataclass(frozen=True)
class Classifier:
    """`score` gives 0..1 for RGB uint8 `[H, W, 3]`."""

    name: str
    score: Callable[[Image], float]


def installed() -> str | None:
    """Name of the classifier that would be used, without loading it; None where there is none."""
    folder = os.environ.get(FOLDER)
    if folder:
        return f"{Path(folder).name} ({FOLDER})"
    return "nudenet" if util.find_spec("nudenet") and util.find_spec("onnxruntime") else None


def find_classifier() -> Classifier | None:
    """The installed classifier, loaded; None where there is none. Raises `MissingDependencyError` for one that is named and cannot
    be used: a gate that was asked for does not stay open."""
    folder = os.environ.get(FOLDER)
    if folder:
        return _from_folder(folder)
    return _nudenet() if installed() else None


@functools.lru_cache(maxsize=1)
def _from_folder(folder: str) -> Classifier:
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    try:
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        model: Any = AutoModelForImageClassification.from_pretrained(folder, local_files_only=True).eval()
    except (OSError, ValueError, KeyError) as error:
        raise MissingDependencyError(
            f"{FOLDER}: {folder} holds no image classifier that can be loaded ({error}); name another folder, or unset it."
        ) from None
    wanted = [k for k, name in model.config.id2label.items() if any(word in str(name).lower() for word in _WORDS)]
    if not wanted:
        raise MissingDependencyError(
            f"{FOLDER}: no label of {folder} says what is not safe for work; name another classifier, or unset it."
        )

    def score(image: Image) -> float:
        with torch.inference_mode():
            logits = model(**processor(images=image, return_tensors="pt")).logits
        return float(logits.softmax(-1)[0, [int(k) for k in wanted]].sum())

    return Classifier(installed() or "", score)


@functools.lru_cache(maxsize=1)
def _nudenet() -> Classifier:
    from nudenet import NudeDetector

    detector = NudeDetector()

    def score(image: Image) -> float:
        found = detector.detect(np.ascontiguousarray(image[..., ::-1]))
        return max((float(one["score"]) for one in found if one["class"] in _PARTS), default=0.0)

    return Classifier("nudenet", score)


def fault(paths: Sequence[Path], tick: Tick = no_tick) -> str:
    """The sentence, with file and frame, for the first nudity that an installed classifier sees; empty where it sees none or none
    is installed. About one frame a second is looked at; files that cannot be read are left to whoever reads them whole."""
    if installed() is None:
        return ""
    files = media.list_media(paths)
    for number, path in enumerate(files):
        tick(number, len(files), f"looking for nudity in {path.name}")
        facts = path.stat()
        found = _of_file(path, facts.st_mtime_ns, facts.st_size, installed())
        if found:
            return found
    return ""


@functools.lru_cache(maxsize=256)
def _of_file(path: Path, changed: int, size: int, name: str | None) -> str:
    """Once for as long as the file stays the same: `clone` asks for the same clips again at each step."""
    for index, image in _looked_at(path):
        found = fault_of(image, str(path) if index is None else f"{path}, frame {index}")
        if found:
            return found
    return ""


def fault_of(image: Image, what: str) -> str:
    """As `fault`, for RGB uint8 `[H, W, 3]` that is called `what`."""
    classifier = find_classifier()
    score = 0.0 if classifier is None else classifier.score(image)
    if classifier is None or score < LIMIT:
        return ""
    sure = f"score {score:.2f}, limit {LIMIT:.2f}"
    return f"{what}: shows nudity, says {classifier.name} ({sure}); ViTFace does not work on such material."


def _looked_at(path: Path) -> Iterator[tuple[int | None, Image]]:
    """Frame number (None for a picture) and image."""
    try:
        if not media.is_video(path):
            yield None, media.read_image(path)
            return
        step = max(round(float(media.probe(path).fps) * _EVERY_S), 1)
        frames = (frame for frame in media.read_frames(path) if frame.index % step == 0)
        yield from ((frame.index, frame.image) for frame in frames)
    except InputError:
        return
