"""How old a face looks, by an estimator that the person may have; none is shipped.

A further estimator is a class with the members of `AgeEstimator` and its line in `ESTIMATORS`; nothing else knows of it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from importlib import util
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from lib_vitface.assets import models_folder
from lib_vitface.errors import MissingDependencyError
from lib_vitface.faces import align
from lib_vitface.types import Face, Image

HOME = Path("~/.insightface/models").expanduser()


class AgeEstimator(Protocol):
    """`name` for sentences; `error_years` is the mean absolute error that is known of it, and `error_source` who measured that.

    `file` is where it lies on this machine, None where it does not; `package` what it needs to run, empty for nothing.
    """

    name: ClassVar[str]
    error_years: ClassVar[float]
    error_source: ClassVar[str]
    package: ClassVar[str]

    @staticmethod
    def file() -> Path | None: ...

    def __init__(self, path: Path) -> None: ...

    def __call__(self, image: Image, face: Face) -> float:
        """Years, of an RGB picture and a face in it that has landmarks."""
        ...


class InsightFaceAge:
    """The attribute network of insightface's packs (MobileNet, 96 px; its makers published neither paper nor error), through
    ONNX Runtime. Input `[1, 3, 96, 96]` RGB 0..255, output `[1, 3]`: two logits of gender, which are not used, and age / 100. It
    sees an unturned square about the face, half as large again as its longer side."""

    name: ClassVar[str] = "insightface's genderage"
    error_years: ClassVar[float] = 7.5
    error_source: ClassVar[str] = "at best, on 1000 pictures of IMDB-Clean: Jamo 2025, arXiv:2511.14689"
    package: ClassVar[str] = "onnxruntime"
    sha256 = "4fde69b1c810857b88c64a335084f1c3fe8f01246c9a191b48c7bb756d6652fb"
    _FILE, _SIDE, _ROOM = "genderage.onnx", 96, 1.5

    @staticmethod
    def file() -> Path | None:
        """In one of the packs, all of which hold the same file, or put into `models/` by hand."""
        packs = ("buffalo_l", "buffalo_m", "buffalo_s", "antelopev2")
        places = [*(HOME / pack for pack in packs), models_folder()]
        return next((p / InsightFaceAge._FILE for p in places if (p / InsightFaceAge._FILE).is_file()), None)

    def __init__(self, path: Path) -> None:
        """Raises `MissingDependencyError` for another file than the published one: any network could bear that name."""
        runtime: Any = importlib.import_module("onnxruntime")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise MissingDependencyError(
                f"{path}: is not the file that insightface publishes, its SHA-256 is another; put that one there, or none."
            )
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1  # it is over in milliseconds
        self._session: Any = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def __call__(self, image: Image, face: Face) -> float:
        if face.landmarks is None:
            raise ValueError("the face has no landmarks yet: run a landmarker first")
        low, high = face.landmarks[:, :2].min(axis=0), face.landmarks[:, :2].max(axis=0)
        factor = self._SIDE / max(float((high - low).max()) * self._ROOM, 1.0)
        chip = align.warp(image, align.square_matrix((low + high) / 2, factor, 0.0, self._SIDE), self._SIDE, border=0)
        values = chip.transpose(2, 0, 1)[None].astype(np.float32)
        (found,) = self._session.run(None, {self._input: values})
        return float(np.asarray(found).ravel()[2]) * 100


ESTIMATORS: tuple[type[AgeEstimator], ...] = (InsightFaceAge,)


def installed() -> type[AgeEstimator] | None:
    """The estimator that would be used, without loading it; None where none can be."""
    return next((e for e in ESTIMATORS if e.file() is not None and (not e.package or util.find_spec(e.package))), None)


def find_estimator() -> AgeEstimator | None:
    """The estimator of this machine, loaded; None where there is none. Raises `MissingDependencyError` where it is there and
    cannot be used: a gate that is there does not stay open."""
    kind = installed()
    path = None if kind is None else kind.file()
    if kind is None or path is None:
        return None
    facts = path.stat()
    return _loaded(kind, path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=2)
def _loaded(kind: type[AgeEstimator], path: Path, changed: int, size: int) -> AgeEstimator:
    return kind(path)
