"""From videos and photos to a faceset: find, measure, crop, store; then choose (`choice`).

Everything is streamed: one picture is in memory at a time, and of the faces only those of the stretch at hand and a short window
against repeats. After each stretch (`_STRETCH` looked-at frames) its faces and the place to go on are committed in one
transaction. A stretch starts by detecting and then follows landmarks; it knows of the one before only what the index says.
So a run that was killed goes on exactly as if it had not been.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_vitface.assets import digest
from lib_vitface.errors import ConsentError, InputError, OutputError
from lib_vitface.faceset import choice, inputs, quality, select
from lib_vitface.faceset.finder import Finder, Found
from lib_vitface.faceset.inputs import Input, Picture
from lib_vitface.faceset.record import NOVEL, Record
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.faceset.store import IMAGES, INDEX
from lib_vitface.faceset.writer import LOCK, FacesetWriter, Progress, erase, sole_right
from lib_vitface.media import overlap
from lib_vitface.types import Face, Floats, Tick, no_tick
from lib_vitface.workers import Map, workers

_STRETCH = 8
_AHEAD = 2  # pictures whose faces are found before those of the last one are stored
_WINDOW = 48  # stored faces a new one is compared with, against repeats
_SHARED = 8 * _STRETCH  # looked-at frames of a video that a worker is given at a time
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
        bar = _Bar(tick, [_length(one, options) for one in found])
        with workers(options.workers, bar.again) if options.workers > 1 else nullcontext() as answers:
            _read_all(faceset, options, found, _Looks(options, finder, answers), bar, is_synthetic)
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
        return {"path": str(path), "sha256": digest(path)}
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
        erase(folder)
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
    looks: _Looks,
    bar: _Bar,
    is_synthetic: Callable[[Path], bool] | None,
) -> None:
    """Read every input that is not done yet. What a folder holds may be unusable and is noted; what was named may not."""
    places = [faceset.add_input(str(one.path.resolve()), inputs.stamp(one, options), one.person or "") for one in found]
    rows = {row["id"]: row for row in faceset.inputs()}
    for one, place in zip(found, places, strict=True):
        bar.begin(one.path.name)
        if not rows[place]["done"]:
            synthetic = is_synthetic is not None and is_synthetic(one.path)
            try:
                skip = rows[place]["next_frame"]
                _Reader(faceset, options, place, synthetic).read(looks, one, skip, bar)
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
    """Progress over inputs whose lengths are estimates, in pictures."""

    def __init__(self, tick: Tick, lengths: Sequence[float]) -> None:
        self._tick, self._total, self._done = tick, sum(lengths), 0.0
        self._lengths, self._name, self._at = iter(lengths), "", 0.0

    def begin(self, name: str) -> None:
        self._name, self._at, self._length = name, 0.0, next(self._lengths)

    def at(self, pictures: int) -> None:
        self._at = min(float(pictures), self._length)
        self.again()

    def again(self) -> None:
        """Say the same once more: whoever is told may want to stop."""
        self._tick(self._done + self._at, self._total, self._name)

    def end(self) -> None:
        self._done, self._at = self._done + self._length, 0.0
        self.again()


@dataclass(frozen=True)
class _Looked:
    """A picture's faces, best first: what there is to know of each with its embedding (or what gives it), or why it is not fit."""

    index: int
    faces: Sequence[str | tuple[Found, Floats | Callable[[], Floats]]]


@dataclass(frozen=True)
class _Seen:
    """A picture and its faces with landmarks. `anew`: nothing of what was known before it is used for it."""

    picture: Picture
    faces: Sequence[Face]
    anew: bool


def _seen(one: Input, options: FacesetOptions, finder: Finder, skip: int) -> Iterator[_Seen]:
    """The pictures of an input from number `skip` on, where a stretch begins. Raises InputError for what cannot be read."""
    before: list[Face] | None = None
    for picture in inputs.pictures(one, options, skip):
        anew = before is None
        before = finder.faces(picture, before)
        yield _Seen(picture, before, anew)
        last = picture.index // _step(one, options) % _STRETCH == _STRETCH - 1
        before = None if picture.still or last else before


def _looked(finder: Finder, seen: _Seen) -> _Looked:
    """What there is to know of the faces of a picture. Of each input the pictures must come in order."""
    if seen.anew:
        finder.begin()
    faces: list[str | tuple[Found, Floats | Callable[[], Floats]]] = []
    for number, face in enumerate(seen.faces):
        found = finder.measure(seen.picture, face, number)
        faces.append(found if isinstance(found, str) else (found, finder.look(seen.picture, face, found)))
    return _Looked(seen.picture.index, faces)


def _step(one: Input, options: FacesetOptions) -> int:
    return options.every if one.kind == "video" else 1


@dataclass(frozen=True)
class _Part:
    """So many looked-at pictures of a video, from number `skip` on, for a worker."""

    one: Input
    skip: int
    count: int


@dataclass(frozen=True)
class _Looker:
    """What a worker needs; called, it gives a function that looks at a part. Its answer has fewer pictures where the video ends, and
    the sentence where it cannot be read on."""

    options: FacesetOptions

    def __call__(self) -> Callable[[_Part], tuple[list[_Looked], str]]:
        finder = Finder(self.options)

        def look(part: _Part) -> tuple[list[_Looked], str]:
            found = []
            try:
                for seen in itertools.islice(_seen(part.one, self.options, finder, part.skip), part.count):
                    one = _looked(finder, seen)
                    faces = [f if isinstance(f, str) else (f[0], f[1]() if callable(f[1]) else f[1]) for f in one.faces]
                    found.append(replace(one, faces=faces))
            except InputError as error:
                return found, str(error)
            return found, ""

        return look


class _Looks:
    """Looks at inputs, in this process, or at videos in workers."""

    def __init__(self, options: FacesetOptions, finder: Finder, answers: Map | None) -> None:
        self._options, self._finder, self._answers = options, finder, answers

    def __call__(self, one: Input, skip: int, take: Callable[[_Looked], None]) -> None:
        """Hands on the pictures of an input from number `skip` on, in order. Raises InputError for what cannot be read, after what
        could be was handed on, and what `take` raises."""
        if self._answers is None or one.kind != "video":
            self._here(one, skip, take)
            return
        step = _step(one, self._options)
        count = _SHARED
        parts: Iterable[_Part] = (_Part(one, k * step, count) for k in itertools.count(-(-skip // step), count))
        for found, fault in self._answers(_Looker(self._options), parts):
            for looked in found:
                take(looked)
            if fault:
                raise InputError(fault)
            if len(found) < count:
                return

    def _here(self, one: Input, skip: int, take: Callable[[_Looked], None]) -> None:
        """The next faces are looked for while these are measured, recognised and stored."""

        def work(seen: _Seen | InputError) -> None:
            if isinstance(seen, InputError):
                raise seen
            take(_looked(self._finder, seen))

        overlap(_with_fault(_seen(one, self._options, self._finder, skip)), work, lambda _: None, _AHEAD)


def _with_fault(seen: Iterator[_Seen]) -> Iterator[_Seen | InputError]:
    """What cannot be read comes last, as an item of its own: it must not overtake what was read before it."""
    try:
        yield from seen
    except InputError as fault:
        yield fault


class _Reader:
    """Stores what was seen of one input, stretch by stretch."""

    def __init__(self, faceset: FacesetWriter, options: FacesetOptions, place: int, synthetic: bool) -> None:
        self.faceset, self.options, self.place, self.synthetic = faceset, options, place, synthetic
        self._begin()

    def read(self, looks: _Looks, one: Input, skip: int, bar: _Bar) -> None:
        """Everything from picture `skip` on. Raises InputError for what cannot be read."""

        def take(looked: _Looked) -> None:
            nonlocal skip
            order = looked.index // _step(one, self.options)
            self._take(looked)
            skip = looked.index + 1
            bar.at(order + 1)
            if order % _STRETCH == _STRETCH - 1:
                self._commit(skip)

        looks(one, skip, take)
        self._commit(skip, done=True)

    def _begin(self) -> None:
        choice.thin(self.faceset, self.options)
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

    def _take(self, looked: _Looked) -> None:
        """Store those faces of a picture that are fit and new."""
        self.frames += 1
        self.found += len(looked.faces)
        for number, face in enumerate(looked.faces):
            if isinstance(face, str):
                self.drops[face] += 1
                continue
            result, look = face
            known = next((k for k in self.window if self._repeats(result.record, k)), None)
            if known is not None:
                self.drops[choice.REPEAT] += 1
                self.again[known.frame, known.number] += 1
                continue
            name = f"{self.place:05d}_{looked.index:07d}_{number}.{self.options.image_format}"
            embedding = look() if callable(look) else look
            record = replace(result.record, image=name, embedding=embedding, synthetic=self.synthetic)
            self.faceset.save_crop(name, result.crop, self.options.quality)
            self.records.append(record)
            self.window.append(record)

    def _repeats(self, new: Record, known: Record) -> bool:
        limit = self.options.min_change
        alike = (new.fingerprint ^ known.fingerprint).bit_count() <= select.SAME_BITS
        return limit > 0 and alike and quality.change(new.landmarks, known.landmarks, new.size) < limit
