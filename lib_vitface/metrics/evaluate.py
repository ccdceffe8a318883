"""Scores a swapped video against its source and its target; frames stream, figures stay."""

from __future__ import annotations

import json
import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lib_vitface.errors import InputError, NoFaceError, OutputError
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.embed import make_embedder
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.media.container import beside, writing
from lib_vitface.metrics import figures
from lib_vitface.metrics.alignment import FramePair, open_footage, paired_frames
from lib_vitface.metrics.distribution import make_features
from lib_vitface.metrics.figures import Record
from lib_vitface.metrics.gallery import Gallery
from lib_vitface.metrics.identity import template
from lib_vitface.metrics.image import squared_error
from lib_vitface.metrics.observation import Observer, Sighting, pair_flicker, triple_jitter
from lib_vitface.metrics.perceptual import Lpips
from lib_vitface.metrics.settings import EvaluateOptions
from lib_vitface.metrics.source import SourceFace, faces_in_media, measure_source
from lib_vitface.metrics.temporal import Jitter, PairFlicker
from lib_vitface.types import Floats, Image, Tick, no_tick

_WINDOW = 3  # frames from a scored one on that flicker and jitter need
SourceFaces = Iterable[tuple[Image, Floats]]


def evaluate(
    options: EvaluateOptions,
    tick: Tick = no_tick,
    *,
    source_faces: SourceFaces | None = None,
    label: tuple[int, int, int, int] | None = None,
) -> dict[str, Any]:
    """All figures of a result, JSON-ready; written to `options.json` (with the figures per frame) and `options.report`.

    `source_faces` are RGB pictures with landmarks `[468, 3]` in them (of a faceset); without them `options.source` is
    read as clips and photos. `label` is where the visible label stands in the result (x0, y0, x1, y1 px): it is no fault of
    the swap, so the footage is laid over it before anything is measured. Raises InputError for footage that does not fit
    together, NoFaceError where source, target or result show no face, MissingDependencyError for networks that are not
    there, OutputError.
    """
    for path in (options.json, options.report):
        _check_writable(path)
    if options.lpips and not options.self_reenactment:
        raise InputError(
            "--lpips compares with the truth, which only --self-reenactment has; add that or leave it out."
        )
    lpips = Lpips() if options.lpips else None
    footage = open_footage(options.target, options.result, options.start_s, options.end_s)
    analyser = Analyser(make_detector(), MeshLandmarker())
    embedder = make_embedder(options.scorer)
    features = {name: make_features(name) for name in dict.fromkeys(options.features)}
    if source_faces is None:
        source_faces = faces_in_media(options.source, analyser, options.source_faces, tick)
    source = measure_source(source_faces, options.source_faces, embedder, features, tick)
    if not source:
        raise NoFaceError(f"{options.source}: there is no face in it; name the faceset or clips of the source person.")
    observer = Observer(analyser, embedder, features, same_person=options.self_reenactment, lpips=lpips)
    scoring = Scoring(observer, options, source, Gallery(options.pictures, float(footage.duration)))
    for pair in paired_frames(footage):
        tick(float(pair.time), max(float(footage.duration), float(pair.time)), "Scoring frames")
        scoring.feed(pair if label is None else without_label(pair, label))
    return _publish(options, scoring)


def without_label(pair: FramePair, box: tuple[int, int, int, int]) -> FramePair:
    """The pair with the footage's own pixels where the result's label stands."""
    x0, y0, x1, y1 = box
    if pair.result.shape != pair.target.shape:
        return pair
    result = pair.result.copy()
    result[y0:y1, x0:x1] = pair.target[y0:y1, x0:x1]
    return replace(pair, result=result)


class Scoring:
    """Takes pairs of frames one after another; keeps the last three and what was measured."""

    def __init__(
        self, observer: Observer, options: EvaluateOptions, source: list[SourceFace], gallery: Gallery
    ) -> None:
        self.observer = observer
        self.options = options
        self.source = source
        self.gallery = gallery
        self.record = Record()
        self._template = template(np.stack([face.embedding for face in source]))
        self._recent: deque[tuple[int, Sighting | None]] = deque(maxlen=_WINDOW)

    def feed(self, pair: FramePair) -> None:
        """The next pair. With `every` = n only each n-th is scored and the two after it looked at."""
        record, every = self.record, self.options.every
        record.paired += 1
        if pair.index % every >= _WINDOW:
            return
        seen = self.observer.look(pair)
        self._recent.append((pair.index, seen))
        flicker, jitter = self._flicker(), self._jitter()
        if flicker is not None:
            record.flicker.append((pair.index, flicker))
        if jitter is not None:
            record.jitter.append((pair.index - 1, jitter))
        if pair.index % every == 0:
            self._score(pair, seen, flicker.result.mean if flicker is not None else 0.0)

    def _score(self, pair: FramePair, seen: Sighting | None, flicker: float) -> None:
        if seen is None:
            self.record.untouched.append(squared_error(pair.target, pair.result))
        elif seen.result is None:
            self.record.lost.append(float(pair.time))
        else:
            scores = self.observer.score(seen)
            self.record.frames.append(scores)
            likeness = float(scores.embeddings[0] @ self._template)
            worst = {"identity": -likeness, "landmarks": scores.landmark_distance, "flicker": flicker}
            self.gallery.offer(seen, worst)

    def _flicker(self) -> PairFlicker | None:
        """Of the last two frames, where they are neighbours and the first of them is scored."""
        if len(self._recent) < 2:
            return None
        (first, before), (second, after) = list(self._recent)[-2:]
        if second != first + 1 or first % self.options.every or before is None or after is None:
            return None
        return pair_flicker(before, after)

    def _jitter(self) -> Jitter | None:
        """Of the last three frames, likewise."""
        indices = [index for index, _ in self._recent]
        if len(indices) < _WINDOW or indices[2] != indices[0] + 2 or indices[0] % self.options.every:
            return None
        seen = [s for _, s in self._recent if s is not None]
        return triple_jitter(seen) if len(seen) == _WINDOW else None


def _publish(options: EvaluateOptions, scoring: Scoring) -> dict[str, Any]:
    """The figures, and the files that were asked for."""
    record = scoring.record
    if not record.frames:
        whose = options.result if record.lost else options.target
        raise NoFaceError(f"{whose}: no face was found in any scored frame, so there is nothing to compare.")
    found = figures.summarise(record, scoring.source, options)
    if options.json is not None:
        text = json.dumps({**found, "per_frame": figures.per_frame(record, scoring.source)}, indent=1, allow_nan=False)
        _write(options.json, lambda path: path.write_text(text + "\n", encoding="utf-8"))
    if options.report is not None:
        from lib_vitface.metrics.report import html_report

        page = html_report(found, figures.per_frame(record, scoring.source), scoring.gallery, scoring.source)
        _write(options.report, lambda path: path.write_text(page, encoding="utf-8"))
    return found


def _write(path: Path, write: Callable[[Path], object]) -> None:
    with beside(path) as temporary, writing(path):
        write(temporary)


def _check_writable(path: Path | None) -> None:
    """Fail before the work, not after it."""
    if path is None:
        return
    if path.is_dir():
        raise OutputError(f"{path}: it is a folder; name a file in it.")
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise OutputError(f"{path}: nothing can be written there ({error}); choose another folder.") from error
