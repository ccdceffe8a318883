"""Facesets of other tools and common data set layouts: what they know of a picture, read without running anything of theirs.

| from | where it stands | what is taken |
|---|---|---|
| DeepFaceLab | JPEG segment APP15, a pickled dict | 68 points in the crop, name of the frame |
| DeepFaceLab-MVE | PNG iTXt chunk `dflabmve`, JSON | the same |
| DeepFaceLab, packed | `faceset.pak` (version, pickle, offsets, JPEGs), `faceset.zip` | its pictures, each as above |
| faceswap | PNG iTXt chunk `faceswap`, a Python literal | name of the frame (its points are those of the frame, not of the crop) |
| faceswap | `alignments.fsa` beside frames, `<video>_alignments.fsa` beside a video: zlib, pickle | 68 points per face and frame |
| VoxCeleb, person folders | `id10001/...`, one folder a person | who is who |

Pickles are read by `pickle_values`, literals by `ast.literal_eval`. Layouts were read in the tools' public sources
(MachineEditor/DeepFaceLab-MVE `DFLIMG/`, `samplelib/PackedFaceset.py`; deepfakes/faceswap `lib/align/`, `lib/image.py`).
"""

from __future__ import annotations

import ast
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from lib_vitface.errors import InputError
from lib_vitface.faceset import pickle_values
from lib_vitface.types import Face, Floats

PACKS = ("faceset.pak", "faceset.zip")
_MAX_INFLATED = 1 << 31
_MAX_PICTURE = 1 << 28
_VOXCELEB = re.compile(r"id\d{5}")
_FFHQ = re.compile(r"\d{5}")
_FRAME_NUMBER = re.compile(r"_(\d+)$")


@dataclass(frozen=True)
class Note:
    """What another tool wrote into a picture: the frame it was cut from, and 68 points `[68, 2]` in this picture's pixels
    (iBUG order, Sagonas et al. 2013) where it knows them."""

    tool: str
    source: str | None
    points68: Floats | None


def read_note(file: Path | bytes, name: str = "") -> Note | None:
    """The note inside a picture file (path or its bytes), or None where it has none.

    Raises InputError where the note is damaged or holds code.
    """
    name = name or str(file if isinstance(file, Path) else "picture")
    try:
        with Pillow.open(BytesIO(file) if isinstance(file, bytes) else file) as picture:
            segments = [data for tag, data in getattr(picture, "applist", []) if tag == "APP15"]
            texts = {key: str(picture.info[key]) for key in ("faceswap", "dflabmve") if key in picture.info}
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError):
        return None  # whether it is a picture at all is for the reader of pixels to say
    if segments:
        return _deepfacelab(pickle_values.read(segments[-1], name), name)
    if "dflabmve" in texts:
        return _deepfacelab(_parsed(json.loads, texts["dflabmve"], name), name)
    if "faceswap" in texts:
        source = _entry(_parsed(ast.literal_eval, texts["faceswap"], name), "source", name)
        return Note("faceswap", str(_entry(source, "source_filename", name)), None)
    return None


def _parsed(parse: Any, text: str, name: str) -> Any:
    try:
        return parse(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise InputError(f"{name}: its face metadata is damaged; extract it again.") from None


def _entry(value: Any, key: str, name: str) -> Any:
    if not isinstance(value, dict) or key not in value:
        raise InputError(
            f"{name}: its face metadata lacks {key!r}; extract it again with a current version of the tool."
        )
    return value[key]


def _deepfacelab(value: Any, name: str) -> Note:
    points = _points68(_entry(value, "landmarks", name))
    if points is None:
        raise InputError(f"{name}: its DeepFaceLab metadata has no 68 landmarks; extract it again.")
    source = value.get("source_filename")
    return Note("deepfacelab", str(source) if source else None, points)


def _points68(value: Any) -> Floats | None:
    """68 finite points, or None."""
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite, and is not taken
            points = np.asarray(value, dtype=np.float32)
    except (ValueError, TypeError):
        return None
    return points if points.shape == (68, 2) and bool(np.isfinite(points).all()) else None


def face_of(points68: Floats) -> Face:
    """A face to hand to a landmarker, from 68 points `[68, 2]`: its box reaches up to the forehead, which they do not."""
    low, high = points68.min(axis=0), points68.max(axis=0)
    top = low[1] - 0.2 * (high[1] - low[1])
    eyes = [points68[36:42].mean(axis=0), points68[42:48].mean(axis=0)]
    points = np.stack([*eyes, points68[30], points68[48], points68[54]]).astype(np.float32)
    return Face(np.array([low[0], top, high[0], high[1]], dtype=np.float32), 1.0, points)


@dataclass(frozen=True)
class Alignments:
    """faceswap's faces per frame: by file name, and by number (0 first) where the frames are those of a video. `stamp`
    changes when the file does."""

    by_name: dict[str, list[Floats]]
    stamp: str = ""

    def faces(self, name: str) -> list[Face] | None:
        """Faces of a frame's file, or None where faceswap did not look at it."""
        found = self.by_name.get(name)
        return None if found is None else [face_of(points) for points in found]

    def by_number(self) -> dict[int, list[Face]]:
        """Faces by frame number; faceswap names the first frame of a video `<video>_000001.png`."""
        numbered = {}
        for name in self.by_name:
            match = _FRAME_NUMBER.search(Path(name).stem)
            if match:
                numbered[int(match.group(1)) - 1] = [face_of(points) for points in self.by_name[name]]
        return numbered


def alignments_of(path: Path) -> Alignments | None:
    """faceswap's alignments of a video file (`<video>_alignments.fsa` beside it) or of a folder of frames."""
    beside = path / "alignments.fsa" if path.is_dir() else path.with_name(f"{path.stem}_alignments.fsa")
    return read_alignments(beside) if beside.is_file() else None


def read_alignments(path: Path) -> Alignments:
    """A faceswap `.fsa` file. Raises InputError where it is damaged, holds code, or has no faces of 68 points."""
    engine = zlib.decompressobj()
    try:
        data = engine.decompress(path.read_bytes(), _MAX_INFLATED)
    except (OSError, zlib.error, MemoryError) as error:
        raise InputError(f"{path} cannot be read as faceswap alignments ({error}); export them again.") from None
    if not engine.eof:
        raise InputError(f"{path} is cut short or larger than {_MAX_INFLATED >> 30} GB; export the alignments again.")
    value = pickle_values.read(data, str(path))
    frames = value.get("__data__", value) if isinstance(value, dict) else None
    if not isinstance(frames, dict):
        raise InputError(f"{path} holds no faceswap alignments; export them again.")
    found: dict[str, list[Floats]] = {}
    for name, frame in frames.items():
        faces = [_points68(_entry(face, "landmarks_xy", str(path))) for face in _entry(frame, "faces", str(path))]
        if any(points is None for points in faces):
            raise InputError(f"{path}: a face of {name} has no 68 landmarks; align it again with a 68 point aligner.")
        found[str(name)] = [points for points in faces if points is not None]
    state = path.stat()
    return Alignments(found, f"{state.st_size}:{state.st_mtime_ns}")


def pack_pictures(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and file contents of a packed DeepFaceLab faceset, in its order. Raises InputError where it is damaged."""
    return _zip_pictures(path) if path.suffix.lower() == ".zip" else _pak_pictures(path)


def _pak_pictures(path: Path) -> Iterator[tuple[str, bytes]]:
    """`faceset.pak`: u64 version 1, u64 length, that long a pickle (skipped), u64 offsets, the pictures.

    The offsets count from the end of their own table; only the last one is the length of the file, so the table's end is
    found without the pickle.
    """
    total = path.stat().st_size
    damaged = f"{path} is not a whole DeepFaceLab faceset pack; pack it again."
    with path.open("rb") as file:
        head = file.read(16)
        version, length = struct.unpack("<QQ", head) if len(head) == 16 else (0, 0)
        if version != 1 or length > total - 16:
            raise InputError(damaged)
        file.seek(16 + length)
        offsets = [0]
        while offsets[-1] != total:
            raw = file.read(8)
            if len(raw) < 8:
                raise InputError(damaged)
            offsets.append(struct.unpack("<Q", raw)[0])
        start = file.tell()
        edges = [start + offset for offset in offsets[1:-1]] + [total]
        for number, (begin, end) in enumerate(pairwise(edges)):
            if not start <= begin < end <= total or end - begin > _MAX_PICTURE:
                raise InputError(damaged)
            file.seek(begin)
            yield f"{number:06d}.jpg", file.read(end - begin)


def _zip_pictures(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if Path(member.filename).suffix.lower() in {".jpg", ".jpeg", ".png"}:
                    if member.file_size > _MAX_PICTURE:
                        raise InputError(f"{path}: {member.filename} is too large for a face; leave it out.")
                    yield member.filename, archive.read(member)
    except (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError) as error:
        raise InputError(f"{path} is not a whole zip file ({error}); pack it again.") from None


def person_of(path: Path, root: Path) -> str | None:
    """Who is in a file of a data set, by the folder it lies in below `root`: VoxCeleb's `id10001`, or the name of a person's
    folder. None for files that lie directly in `root` and for FFHQ's numbered folders, which hold a thousand persons each."""
    try:
        folders = path.relative_to(root).parts[:-1]
    except ValueError:
        return None
    for folder in folders:
        if _VOXCELEB.fullmatch(folder):
            return folder
    if not folders or _FFHQ.fullmatch(folders[0]):
        return None
    return folders[0]


def persons(paths: Sequence[Path], root: Path) -> dict[Path, str | None]:
    """`person_of` for the files of a folder, where it holds at least two persons' folders; None for each otherwise."""
    found = {path: person_of(path, root) for path in paths}
    return found if len({p for p in found.values() if p is not None}) > 1 else dict.fromkeys(paths)
