"""From videos and photos to a faceset: find, measure, crop, store; then choose (`choice`).

Everything is streamed: one picture is in memory at a time, and of the faces only those of the stretch at hand and a short window
against repeats. After each stretch (`_STRETCH` looked-at frames) its faces and the place to go on are committed in one
transaction. A stretch starts by detecting and then follows landmarks; it knows of the one before only what the index says.
So a run that was killed goes on exactly as if it had not been.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_vitface.errors import ConsentError, InputError, OutputError
from lib_vitface.faceset import choice, inputs, quality, select
from lib_vitface.faceset.finder import Finder
from lib_vitface.faceset.inputs import Input, Picture
from lib_vitface.faceset.record import NOVEL, Record
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.faceset.store import IMAGES, INDEX
from lib_vitface.faceset.writer import LOCK, FacesetWriter, Progress, sole_right
from lib_vitface.types import Face, Tick, no_tick

_STRETCH = 8
_WINDOW = 48  # stored faces a new one is compared with, against repeats
_FIXED = ("size", "image_format", "keep_strangers")


def extract(
    options: FacesetOptions,
    tick: Tick = no_tick,
    *,
    is_synthetic: Callable[[Path], bool] | None = None,
    consenting: choice.Consenting | None = None,
) -> dict[str, Any]:
    """Build, continue or extend a faceset and return `Faceset.summary()`.

    `is_synthetic` tells whether an input is marked as synthetic; its faces are then marked too. `consenting` is the
    person of the consent record; other faces are dropped and counted (ConsentError where that leaves none). Raises InputError for bad
    inputs, NoFaceError where nothing usable is in them, OutputError where the output cannot be written, and what `tick`
    raises to stop; what was committed by then is kept.
    """
    if options.novel_views and options.keep_strangers:
        raise InputError("--novel-views are of one person; leave --keep-strangers out.")
    found = inputs.expand(options.input)
    for one in found:
        if one.named:
            inputs.length(one, options)  # says what cannot be read before anything is made
    consent = _consent(options.consent)
    _check_free(options.output)
    with sole_right(options.output), _opened(options) as faceset:
        faceset.note("consent", consent)
        faceset.note("finished", False)
        faceset.forget(NOVEL)  # rendered from what there was; from what there will be they are made anew
        finder = Finder(options)
        reference = None if options.person is None else finder.person(options.person)
        _read_all(faceset, options, found, finder, tick, is_synthetic)
        choice.choose(faceset, options, reference, consenting)
        if options.novel_views:
            from lib_vitface.faceset.novel import add_novel_views

            add_novel_views(faceset, options.novel_views, finder.embed, tick)
        return faceset.summary()


def _consent(path: Path | None) -> dict[str, str] | None:
    """Name and fingerprint of the consent record, for the faceset's notes."""
    if path is None:
        return None
    try:
        return {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    except OSError as error:
        raise ConsentError(
            f"{path}: the consent record cannot be read ({error.strerror}); name the signed record."
        ) from None


def _check_free(folder: Path) -> None:
    """Raises `OutputError` for a folder that holds other things than a faceset."""
    if not folder.is_dir() or (folder / INDEX).exists():
        return
    ours = (LOCK, f".{INDEX}")
    others = [p.name for p in folder.iterdir() if p.name != IMAGES and not p.name.startswith(ours)]
    if others or ((folder / IMAGES).is_dir() and any((folder / IMAGES).iterdir())):
        raise OutputError(f"{folder} holds other files ({(others or [IMAGES])[0]}); name a new or an empty folder.")


def _opened(options: FacesetOptions) -> FacesetWriter:
    """The faceset to write into: new, continued, or emptied, as `options.exists` says."""
    folder = options.output
    settings = {name: getattr(options, name) for name in _FIXED}
    if not (folder / INDEX).exists():
        _check_free(folder)
        return FacesetWriter.create(folder, settings)
    if options.exists == "fail":
        raise OutputError(
            f"{folder} holds a faceset already; name another folder, or resume or overwrite it by --exists."
        )
    if options.exists == "overwrite":
        for name in (INDEX, f"{INDEX}-wal", f"{INDEX}-shm"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / IMAGES, ignore_errors=True)
        return FacesetWriter.create(folder, settings)
    faceset = FacesetWriter.open(folder, unfinished=True)
    for name, value in settings.items():
        before = faceset.setting(name)
        if before != value:
            raise InputError(
                f"{folder} was begun with --{name.replace('_', '-')} {before}, not {value}; use that, name another folder, "
                "or start anew with --exists overwrite."
            )
    return faceset


def _read_all(
    faceset: FacesetWriter,
    options: FacesetOptions,
    found: Sequence[Input],
    finder: Finder,
    tick: Tick,
    is_synthetic: Callable[[Path], bool] | None,
) -> None:
    """Read every input that is not done yet. What a folder holds may be unusable and is noted; what was named may not."""
    places = [faceset.add_input(str(one.path.resolve()), inputs.stamp(one, options), one.person or "") for one in found]
    rows = {row["id"]: row for row in faceset.inputs()}
    lengths = [_length(one, options) for one in found]
    bar = _Bar(tick, sum(lengths))
    for one, place, length in zip(found, places, lengths, strict=True):
        bar.begin(one.path.name, length)
        if not rows[place]["done"]:
            synthetic = is_synthetic is not None and is_synthetic(one.path)
            try:
                _Reader(faceset, options, finder, place, synthetic).read(one, rows[place]["next_frame"], bar)
            except InputError as error:
                if one.named:
                    raise
                faceset.add(place, [], Progress(0, done=True, note=str(error)))
        bar.end()


def _length(one: Input, options: FacesetOptions) -> float:
    try:
        return inputs.length(one, options)
    except InputError:
        return 1.0  # reading it says what is wrong, where that can be noted


class _Bar:
    """Progress over inputs whose lengths are estimates."""

    def __init__(self, tick: Tick, total: float) -> None:
        self._tick, self._total, self._done = tick, total, 0.0
        self._name, self._length = "", 0.0

    def begin(self, name: str, length: float) -> None:
        self._name, self._length = name, length

    def at(self, pictures: int) -> None:
        self._tick(self._done + min(float(pictures), self._length), self._total, self._name)

    def end(self) -> None:
        self._done += self._length
        self._tick(self._done, self._total, self._name)


class _Reader:
    """Reads one input, stretch by stretch."""

    def __init__(
        self, faceset: FacesetWriter, options: FacesetOptions, finder: Finder, place: int, synthetic: bool
    ) -> None:
        self.faceset, self.options, self.finder, self.place, self.synthetic = faceset, options, finder, place, synthetic
        self._begin()

    def read(self, one: Input, skip: int, bar: _Bar) -> None:
        """Everything from picture `skip` on. Raises InputError for what cannot be read."""
        before: list[Face] | None = None
        step = self.options.every if one.kind == "video" else 1
        for picture in inputs.pictures(one, self.options, skip):
            order = picture.index // step
            before = self.finder.faces(picture, before if one.kind == "video" else None)
            if picture.still:
                self.finder.begin()
            self._look(picture, before)
            skip = picture.index + 1
            bar.at(order + 1)
            if order % _STRETCH == _STRETCH - 1:
                self._commit(skip)
                before = None
        self._commit(skip, done=True)

    def _begin(self) -> None:
        choice.thin(self.faceset, self.options)
        self.finder.begin()
        self.records: list[Record] = []
        self.window = deque(self.faceset.window(self.place, _WINDOW), maxlen=_WINDOW)
        self.frames = self.found = 0
        self.drops: Counter[str] = Counter()
        self.again: Counter[tuple[int, int]] = Counter()

    def _commit(self, next_frame: int, done: bool = False) -> None:
        progress = Progress(next_frame, self.frames, self.found, dict(self.drops), dict(self.again), done)
        self.faceset.add(self.place, self.records, progress)
        if not done:
            self._begin()

    def _look(self, picture: Picture, faces: Sequence[Face]) -> None:
        """Measure the faces of a picture and store those that are fit and new."""
        self.frames += 1
        self.found += len(faces)
        for number, face in enumerate(faces):
            result = self.finder.measure(picture, face, number)
            if isinstance(result, str):
                self.drops[result] += 1
                continue
            known = next((k for k in self.window if self._repeats(result.record, k)), None)
            if known is not None:
                self.drops[choice.REPEAT] += 1
                self.again[known.frame, known.number] += 1
                continue
            name = f"{self.place:05d}_{picture.index:07d}_{number}.{self.options.image_format}"
            embedding = self.finder.embed(picture.image, face)
            record = replace(result.record, image=name, embedding=embedding, synthetic=self.synthetic)
            self.faceset.save_crop(name, result.crop, self.options.quality)
            self.records.append(record)
            self.window.append(record)

    def _repeats(self, new: Record, known: Record) -> bool:
        limit = self.options.min_change
        alike = (new.fingerprint ^ known.fingerprint).bit_count() <= select.SAME_BITS
        return limit > 0 and alike and quality.change(new.landmarks, known.landmarks, new.size) < limit
