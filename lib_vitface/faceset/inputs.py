"""What is to be read: videos, photos, other tools' facesets, one stream of pictures each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from lib_vitface import media
from lib_vitface.errors import InputError
from lib_vitface.faceset import interop
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.faceset.store import INDEX, Faceset
from lib_vitface.media.container import check_readable
from lib_vitface.types import Face, Image


@dataclass(frozen=True)
class Input:
    """One file. `kind` is "video", "photo" or "pack"; `named` says the person named this very file, so that it must be
    usable; `person` is who its folder says is in it; `alignments` what faceswap knows of it."""

    path: Path
    kind: str
    named: bool
    person: str | None = None
    alignments: interop.Alignments | None = None


@dataclass(frozen=True)
class Picture:
    """One picture of an input. `source` names where it comes from; `faces` are those another tool found in it, to be handed to
    a landmarker, or None where nobody looked yet."""

    index: int
    time: Fraction
    image: Image
    source: str
    faces: list[Face] | None = None
    still: bool = True  # not one of a stream of frames that follow each other


def expand(paths: Sequence[Path]) -> list[Input]:
    """The files behind the named paths, each once. Raises InputError for what is missing or holds nothing to read."""
    found: dict[Path, Input] = {}
    for path in map(Path, paths):
        inputs = _folder(path) if path.is_dir() else [_file(path, named=True)]
        for one in inputs:
            found.setdefault(one.path.resolve(), one)
    return list(found.values())


def _folder(path: Path) -> list[Input]:
    check_readable(path)
    if (path / INDEX).is_file():  # one of our own, e.g. to join two
        with Faceset.open(path) as faceset:
            return [Input(faceset.image_path(record), "photo", False) for record in faceset.records(novel=False)]
    packs = [path / name for name in interop.PACKS if (path / name).is_file()]
    if packs:
        return [_file(packs[0], named=True)]
    files = media.list_media([path])
    who = interop.persons(files, path)
    alignments = {folder: interop.alignments_of(folder) for folder in {file.parent for file in files}}
    return [_file(file, named=False, person=who[file], alignments=alignments[file.parent]) for file in files]


def _file(path: Path, *, named: bool, person: str | None = None, alignments: interop.Alignments | None = None) -> Input:
    if path.name.lower() in interop.PACKS or path.suffix.lower() == ".pak":
        return Input(path, "pack", named)
    if path.suffix.lower() == ".fsa":
        raise InputError(
            f"{path}: name the video or folder of frames these alignments belong to; they are found beside it."
        )
    media.list_media([path])  # names a missing or unreadable file
    if media.is_image(path):
        return Input(path, "photo", named, person, alignments)
    return Input(path, "video", named, person, interop.alignments_of(path))


def stamp(one: Input, options: FacesetOptions) -> str:
    """A short text that changes when the input or what is asked of it changes, so that it is read anew."""
    state = one.path.stat()
    asked = (options.every, options.start_s, options.end_s) if one.kind == "video" else ()
    looked = (options.min_face_px, options.min_sharpness, options.max_occlusion, options.min_change, options.detector)
    known = one.alignments.stamp if one.alignments else ""
    text = repr((state.st_size, state.st_mtime_ns, asked, looked, known))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def length(one: Input, options: FacesetOptions) -> float:
    """About how many pictures will be looked at, for the progress bar."""
    if one.kind != "video":
        return 1.0
    info = media.probe(one.path)
    start = options.start_s or 0.0
    end = min(options.end_s if options.end_s is not None else float("inf"), float(info.duration))
    return max(1.0, (end - start) * float(info.fps) / options.every)


def pictures(one: Input, options: FacesetOptions, skip: int = 0) -> Iterator[Picture]:
    """The pictures of an input from number `skip` on: every `options.every`-th frame of a video, all of anything else.

    Raises InputError for what cannot be read.
    """
    if one.kind == "photo":
        if skip == 0:
            yield _photo(one)
    elif one.kind == "pack":
        yield from _pack(one, skip)
    else:
        yield from _video(one, options, skip)


def _photo(one: Input) -> Picture:
    note = interop.read_note(one.path)
    faces = one.alignments.faces(one.path.name) if one.alignments else None
    if note is not None and note.points68 is not None:
        faces = [interop.face_of(note.points68)]
    source = note.source if note is not None and note.source else one.path.name
    return Picture(0, Fraction(0), media.read_image(one.path), source, faces)


def _pack(one: Input, skip: int) -> Iterator[Picture]:
    for index, (name, data) in enumerate(interop.pack_pictures(one.path)):
        if index < skip:
            continue
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            raise InputError(f"{one.path}: its picture {name} is damaged; pack it again.")
        note = interop.read_note(data, f"{one.path}: {name}")
        faces = [interop.face_of(note.points68)] if note is not None and note.points68 is not None else None
        source = note.source if note is not None and note.source else name
        rgb = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
        yield Picture(index, Fraction(0), rgb, source, faces)


def _video(one: Input, options: FacesetOptions, skip: int) -> Iterator[Picture]:
    known = one.alignments.by_number() if one.alignments else {}
    trimmed = bool(options.start_s)  # faceswap counts frames of the whole video
    for frame in media.read_frames(one.path, options.start_s, options.end_s, skip):
        if frame.index % options.every == 0:
            faces = None if trimmed else known.get(frame.index)
            yield Picture(frame.index, frame.time, frame.image, one.path.name, faces, still=False)
