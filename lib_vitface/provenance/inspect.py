"""The free reader: whether pictures and videos are marked as synthetic, by which consent record, and what a detector makes of them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lib_vitface import media
from lib_vitface.errors import CheckpointError, InputError, MissingDependencyError
from lib_vitface.provenance import audit, consent, credentials, detector
from lib_vitface.provenance.foreign import generator_of
from lib_vitface.provenance.keys import Keys, known_keys
from lib_vitface.provenance.manifest import read_statement
from lib_vitface.provenance.reading import Reading, read
from lib_vitface.provenance.sealing import FOLDER, read_beside, read_folder
from lib_vitface.provenance.settings import InspectOptions
from lib_vitface.types import Image, Tick, no_tick

_WINDOWS = 3  # places of a video at which frames are read


def inspect(options: InspectOptions, workspace: Path, tick: Tick = no_tick) -> dict[str, Any]:
    """What each file says; `synthetic` is true where all files are known as synthetic by mark, manifest or statement. What the
    detector makes of them never counts for that: it is a hint.

    Raises `InputError` for what cannot be read.
    """
    files = media.list_media(options.input)
    keys = known_keys(workspace)
    whose = consent.names(workspace)
    found = []
    for number, path in enumerate(files):
        tick(number, len(files), path.name)
        found.append(_look(path, options, keys, whose))
    tick(len(files), len(files), "")
    return {
        "synthetic": all(one["synthetic"] for one in found),
        "files": found,
        "folders": _folders(options.input, keys),
        "audit_log": audit.verify(workspace),
    }


def _folders(given: Sequence[Path], keys: Keys | None) -> list[dict[str, Any]]:
    """What the signed records of folders say, of all that are in what was given."""
    records = dict.fromkeys(r for path in given if path.is_dir() for r in sorted(path.rglob(FOLDER)))
    found = (read_folder(record.parent, None if keys is None else keys.public) for record in records)
    return [one for one in found if one is not None]


def is_marked(path: Path) -> bool:
    """Whether a picture or video says, in pixels or file, that it is synthetic. Quick: crops are not searched for."""
    if path.is_file():
        stated = (read_statement(path), credentials.read(path))
        if any(one is not None and one.is_synthetic for one in stated):
            return True
    try:
        return read(_pictures(path, 6), search=False).present
    except InputError:
        return False  # what cannot be read is told by whoever reads it whole


def _look(path: Path, options: InspectOptions, keys: Keys | None, whose: dict[str, str]) -> dict[str, Any]:
    frames = _frames(path, options.frames)
    pictures = [image for _, image in frames]
    mark = read(pictures, None if keys is None else keys.mark, search=options.search)
    generator = generator_of(pictures[0])
    manifest = credentials.read(path)
    said = read_statement(path)
    ids = [mark.record_id or "", *(one.consent_id[:8] for one in (manifest, said) if one is not None)]
    claims = any(one is not None and one.is_synthetic for one in (manifest, said))
    detected = _detected(frames) if options.detector else detector.missing("it was not asked for.")
    return {
        "file": str(path),
        "synthetic": mark.present or generator is not None or claims,
        "mark": _mark(mark),
        "other_generator": generator,
        "manifest": None if manifest is None else asdict(manifest),
        "statement": None if said is None else asdict(said),
        "signed_record": read_beside(path, None if keys is None else keys.public),
        "detector": detected,  # a hint, so it stands behind what is evidence
        "consent_of": next((whose[one] for one in ids if one in whose), None),
    }


def _detected(frames: Sequence[tuple[float, Image]]) -> dict[str, Any]:
    try:
        found = detector.SwapDetector().look_at(frames)
    except (MissingDependencyError, CheckpointError) as error:
        return detector.missing(str(error))
    return detector.report(found, len(frames))


def _mark(mark: Reading) -> dict[str, Any]:
    values = {k: v for k, v in asdict(mark).items() if k != "others"}
    return {**values, "others": list(mark.others)}


def _pictures(path: Path, count: int) -> list[Image]:
    return [image for _, image in _frames(path, count)]


def _frames(path: Path, count: int) -> list[tuple[float, Image]]:
    """The picture itself, or frames at a few places of a video (all of a short one), each with its time in seconds."""
    if not media.is_video(path):
        return [(0.0, media.read_image(path))]
    duration = float(media.probe(path).duration)
    each = -(-count // _WINDOWS)
    starts = [duration * k / _WINDOWS for k in range(_WINDOWS)] if duration > 2 else [0.0]
    wanted = each if len(starts) > 1 else count
    found = [
        (float(frame.time), frame.image)
        for start in starts
        for frame in itertools.islice(media.read_frames(path, start or None), wanted)
    ]
    if not found:
        raise InputError(f"{path}: holds no frame that can be decoded.")
    return found
