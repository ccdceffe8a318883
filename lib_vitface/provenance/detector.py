"""How much single frames look like a swapped face, where, and how often real frames look like that too. Never a verdict.

A small network (`models.detector`), trained on self-blended images and on our own swaps by `benchmarks/train_detector.py`; what it
can and cannot do is measured in docs/inspect.md. The mark and the manifest are evidence; this is a hint.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from lib_vitface.assets import models_folder
from lib_vitface.errors import CheckpointError, MissingDependencyError
from lib_vitface.faces import align
from lib_vitface.faces.analyse import Analyser
from lib_vitface.models.config import DETECTOR_CELL, DETECTOR_SIDE
from lib_vitface.types import Face, Floats, Image, Matrix

if TYPE_CHECKING:
    from lib_vitface.models.detector import DetectorNet

FILE = "detector.safetensors"
NO_PROOF = "This is no proof, neither that a face was swapped nor that it was not."
_MOST_FACES = 4
_BATCH = 16
_WARM = np.array([255, 80, 0], np.float32)  # colour of the heat map


@dataclass(frozen=True)
class Calibration:
    """How raw scores are to be read. `scale` and `offset` make a score 0..1 of a logit (Platt 1999); `real` are logits of frames of
    real footage, in rising order, of people that neither training nor the published figures know. `facts` is what was
    trained."""

    scale: float
    offset: float
    real: Floats
    facts: dict[str, Any]

    def score(self, logit: float) -> float:
        """0..1, for as many real as swapped faces."""
        return 1 / (1 + math.exp(-max(min(self.scale * logit + self.offset, 60.0), -60.0)))

    def real_in_100(self, logit: float) -> float:
        """Of 100 real frames, how many score at least this high; one more is counted than was seen, so it is never 0."""
        higher = len(self.real) - int(np.searchsorted(self.real, logit, side="left"))
        return 100 * (higher + 1) / (len(self.real) + 1)


@dataclass(frozen=True)
class FaceScore:
    """The face of a frame that looks most like a swapped one. `logit` is raw, `score` 0..1 calibrated, `cells` `[14, 14]` logits of
    the places of its crop, `box` [4] px in the frame, `frame_to_crop` leads to the crop of 224 px that was looked at."""

    time_s: float
    logit: float
    score: float
    real_in_100: float
    cells: Floats
    box: Floats
    frame_to_crop: Matrix


class SwapDetector:
    """The network with its weights and calibration, on the CPU. Not for use by two threads at once."""

    def __init__(self, file: Path | None = None) -> None:
        """Raises `MissingDependencyError` where torch or the weights are missing, `CheckpointError` where the file is damaged."""
        self.net, self.calibration = _load(file or models_folder() / FILE)
        self._analyser: Analyser | None = None

    def logits(self, crops: Sequence[Image]) -> tuple[Floats, Floats]:
        """Logits `[N]` of face crops RGB uint8 `[224, 224, 3]`, as `align.take_crop` cuts them, and `[N, 14, 14]` of their cells."""
        import torch

        if not crops:
            return np.zeros(0, np.float32), np.zeros(
                (0, DETECTOR_SIDE // DETECTOR_CELL, DETECTOR_SIDE // DETECTOR_CELL), np.float32
            )
        cells, frames = list[Floats](), list[Floats]()
        with torch.inference_mode():
            for start in range(0, len(crops), _BATCH):
                stack = np.stack(crops[start : start + _BATCH]).transpose(0, 3, 1, 2)
                found, whole = self.net(torch.from_numpy(np.ascontiguousarray(stack)).float() / 255)
                cells.append(found.numpy())
                frames.append(whole.numpy())
        return np.concatenate(frames), np.concatenate(cells)

    def faces(self, image: Image) -> list[Face]:
        """The largest faces of a picture, with landmarks."""
        if self._analyser is None:
            from lib_vitface.faces.detect import make_detector
            from lib_vitface.faces.landmarks import MeshLandmarker

            self._analyser = Analyser(make_detector("auto"), MeshLandmarker(eyes=False))
        found = sorted(self._analyser(image), key=lambda face: -float(face.box[2] - face.box[0]))
        return found[:_MOST_FACES]

    def look(self, image: Image, time_s: float = 0.0) -> FaceScore | None:
        """The face of an RGB picture that scores highest; None where no face is found."""
        faces = self.faces(image)
        if not faces:
            return None
        crops = [align.take_crop(image, face, DETECTOR_SIDE) for face in faces]
        logits, cells = self.logits([crop.image for crop in crops])
        k = int(logits.argmax())
        logit = float(logits[k])
        return FaceScore(
            time_s,
            logit,
            self.calibration.score(logit),
            self.calibration.real_in_100(logit),
            cells[k],
            faces[k].box,
            crops[k].frame_to_crop,
        )

    def look_at(self, frames: Iterable[tuple[float, Image]]) -> list[FaceScore]:
        """Of frames with their times in seconds, those that show a face."""
        found = (self.look(image, time_s) for time_s, image in frames)
        return [one for one in found if one is not None]


@functools.lru_cache(maxsize=2)
def _load(file: Path) -> tuple[DetectorNet, Calibration]:
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError("The detector of swapped faces needs torch; install it with `pip install torch`.")
    if not file.is_file():
        raise MissingDependencyError(
            f"The detector's weights are not here; train them with benchmarks/train_detector.py (models/detector.md tells how) and "
            f"put {FILE} into {file.parent}."
        )
    from safetensors import SafetensorError, safe_open

    from lib_vitface.models.detector import DetectorNet

    try:
        with safe_open(file, "pt") as opened:
            said = opened.metadata() or {}
            weights = {name: opened.get_tensor(name).float() for name in opened.keys()}  # noqa: SIM118 - no mapping
        values = json.loads(said["calibration"])
        real = np.sort(np.asarray(values["real"], np.float32))
        calibration = Calibration(float(values["scale"]), float(values["offset"]), real, json.loads(said["facts"]))
        net = DetectorNet()
        net.load_state_dict(weights)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(f"{file} is damaged ({reason}); take the file of this version of ViTFace.") from None
    return net.eval(), calibration


def report(found: Sequence[FaceScore], looked_at: int) -> dict[str, Any]:
    """What `inspect` tells, JSON-ready: never a verdict, always with how often real frames look the same."""
    if not found:
        said = f"No face was found in {looked_at} {'picture' if looked_at == 1 else 'frames'}, so nothing was scored."
        return {**_EMPTY, "said": said}
    ranked = sorted(found, key=lambda one: one.logit)
    median, highest = ranked[(len(ranked) - 1) // 2], ranked[-1]
    if len(found) == 1:
        scores = f"score {highest.score:.2f} of 1"
        rates = f"of every 100 real frames {_rate(highest)} score at least this high"
    else:
        scores = f"scores {ranked[0].score:.2f} to {highest.score:.2f} of 1, median {median.score:.2f}, in {len(found)} frames"
        rates = f"of every 100 real frames {_rate(median)} score at least as high as the median, {_rate(highest)} as the highest"
    return {
        "said": f"Traces of a swapped face: {scores}; {rates}. {NO_PROOF}",
        "frames": len(found),
        "lowest": ranked[0].score,
        "median": median.score,
        "highest": highest.score,
        "real_in_100_at_median": median.real_in_100,
        "real_in_100_at_highest": highest.real_in_100,
        "times_s": [one.time_s for one in found],
        "scores": [one.score for one in found],
        "highest_at": {"time_s": highest.time_s, "box": [round(float(v), 1) for v in highest.box]},
        "heat_map": [[round(_squashed(v), 3) for v in row] for row in highest.cells.tolist()],
    }


_EMPTY: dict[str, Any] = {
    "frames": 0,
    **dict.fromkeys(("lowest", "median", "highest", "real_in_100_at_median", "real_in_100_at_highest")),
    "times_s": [],
    "scores": [],
    "highest_at": None,
    "heat_map": None,
}


def missing(reason: str) -> dict[str, Any]:
    """The same where the detector cannot be run here."""
    return {**_EMPTY, "said": f"The detector was not run: {reason}"}


def _rate(one: FaceScore) -> str:
    return (
        f"{one.real_in_100:.0f}" if one.real_in_100 >= 1.5 else "about 1" if one.real_in_100 >= 0.5 else "less than 1"
    )


def _squashed(logit: float) -> float:
    return 1 / (1 + math.exp(-max(min(logit, 60.0), -60.0)))


def overlay(image: Image, found: FaceScore) -> Image:
    """The frame with the heat map of its face over it, the hotter the more it looks like a swap there."""
    heat = (1 / (1 + np.exp(-found.cells))).astype(np.float32)
    fine = cv2.resize(heat, (DETECTOR_SIDE, DETECTOR_SIDE), interpolation=cv2.INTER_CUBIC)
    size = image.shape[1::-1]
    placed = cv2.warpAffine(fine, found.frame_to_crop, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    weight = (0.65 * np.clip(placed, 0, 1))[..., None]
    return np.asarray(image + weight * (_WARM - image)).round().astype(np.uint8)
