"""Readers of files that came from elsewhere, on damaged ones: each either reads them or says what is wrong, in seconds.

    python benchmarks/fuzz_readers.py --inputs 100000 [--seed 0]

Whole files are cut off, overwritten, shortened and lengthened at random. One JSON object comes out; the exit code is 1 where a reader
raised something else than the program's own errors, took longer than `SLOW_S`, or held `LARGE_BYTES` more than before. A reader that
brings the process down, or does not come back within `HANGS_S`, ends the program: the file it was given stays in `--keep`.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import json
import logging
import pickle
import random
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import faceset_scale
import numpy as np

from lib_vitface import media
from lib_vitface.device import rss_bytes
from lib_vitface.errors import ViTFaceError
from lib_vitface.faceset import interop
from lib_vitface.faceset.store import INDEX as FACESET
from lib_vitface.faceset.store import Faceset
from lib_vitface.models.checkpoint import INDEX as MODEL
from lib_vitface.models.checkpoint import Checkpoint, open_model, save_model
from lib_vitface.models.config import PRESETS
from lib_vitface.provenance import consent
from lib_vitface.provenance.keys import open_keys
from lib_vitface.types import Frame, Image, VideoInfo

SLOW_S, HANGS_S = 10.0, 60.0
LARGE_BYTES = 1 << 29
Reader = Callable[[Path], object]


def whole_files(folder: Path) -> dict[str, tuple[bytes, str, Reader]]:
    """By name: the bytes of a whole file, the name it must have, and its reader, given the path."""
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    found: dict[str, tuple[bytes, str, Reader]] = {}
    for suffix in (".png", ".jpg", ".webp"):
        path = folder / f"picture{suffix}"
        media.write_image(path, image)
        found[f"picture {suffix}"] = path.read_bytes(), path.name, media.read_image
    faceset_scale.write_made_up(folder / "faces", 3)
    found["faceset"] = (folder / "faces" / FACESET).read_bytes(), FACESET, _read_faceset
    made = save_model(Checkpoint(folder / "model", PRESETS["cpu"], "m", 1, 1.0, None), {"weights": {"a": np.ones(4)}})
    found["model index"] = (made.folder / MODEL).read_bytes(), MODEL, lambda path: open_model(path.parent)
    weights = made.files["weights"]
    found["model weights"] = (made.folder / weights).read_bytes(), weights, _weights_reader(made.folder)
    found |= _videos(folder, image)
    found |= _of_other_tools(image)
    looks = np.full(128, 128**-0.5, np.float32)
    record = consent.make_record(open_keys(folder), "A", "I agree.", looks)
    consent.save_record(record, folder / consent.FILE)
    found["consent record"] = (folder / consent.FILE).read_bytes(), consent.FILE, consent.load_record
    return found


def _videos(folder: Path, image: Image) -> dict[str, tuple[bytes, str, Reader]]:
    """Clips of a few frames in the usual containers; all their frames are decoded."""
    found: dict[str, tuple[bytes, str, Reader]] = {}
    for suffix, codec in ((".mp4", "h264"), (".mkv", "ffv1"), (".webm", "vp9"), (".gif", "gif")):
        path = folder / f"clip{suffix}"
        length, kind = Fraction(4, 25), ("h264", "yuv420p", 8, False, 1, 1, 1, 1)
        info = VideoInfo(path, 64, 48, Fraction(25), 4, length, 0, *kind)
        with media.FrameWriter(path, info, media.EncodeSettings(codec)) as writer:
            for k in range(4):
                writer.write(Frame(k, Fraction(k, 25), np.roll(image, 3 * k, axis=1)))
        found[f"video {suffix}"] = path.read_bytes(), path.name, _read_video
    return found


def _read_video(path: Path) -> object:
    media.probe(path)
    return sum(frame.image.size for frame in itertools.islice(media.read_frames(path), 64))


def _of_other_tools(image: Image) -> dict[str, tuple[bytes, str, Reader]]:
    """What DeepFaceLab and faceswap write: a note in a JPEG, a pack, alignments."""
    jpeg = bytes(cv2.imencode(".jpg", image)[1])
    points = np.random.default_rng(1).uniform(8, 40, (68, 2)).tolist()
    note = pickle.dumps({"landmarks": points, "source_filename": "a.png", "face_type": "whole_face"})
    length = struct.unpack(">H", jpeg[4:6])[0]
    noted = jpeg[: 4 + length] + b"\xff\xef" + struct.pack(">H", len(note) + 2) + note + jpeg[4 + length :]
    names = pickle.dumps([{"filename": "a.jpg"}, {"filename": "b.jpg"}])
    table = 16 + len(names) + 3 * 8
    offsets = struct.pack("<3Q", 0, len(noted), table + 2 * len(noted))  # the last is the length of the file
    pack = struct.pack("<QQ", 1, len(names)) + names + offsets + noted + noted
    faces = {"a.png": {"faces": [{"x": 1, "y": 1, "w": 9, "h": 9, "landmarks_xy": points}], "video_meta": {}}}
    said = zlib.compress(pickle.dumps({"__meta__": {"version": 2.4}, "__data__": faces}))
    return {
        "note of DeepFaceLab": (noted, "a.jpg", interop.read_note),
        "pack of DeepFaceLab": (pack, "faceset.pak", lambda path: sum(len(d) for _, d in interop.pack_pictures(path))),
        "alignments of faceswap": (said, "alignments.fsa", interop.read_alignments),
    }


def _weights_reader(folder: Path) -> Reader:
    """Reads weights in whatever place, as those of the model in a folder whose index says that they are whole."""
    checkpoint = open_model(folder)

    def read(path: Path) -> object:
        return replace(checkpoint, folder=path.parent).tensors("weights")

    return read


def _read_faceset(path: Path) -> object:
    with Faceset.open(path.parent, unfinished=True) as faceset:
        list(faceset.records(kept=None))
        faceset.columns("id", "sharpness", "seen", kept=None)
        faceset.embeddings(kept=None)
        return faceset.summary()


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Cut off, overwritten in places, with other numbers, noise or nothing in a place of it, or made longer."""
    kind = chance.randrange(5)
    if kind == 0:
        return data[: chance.randrange(len(data) + 1)]
    changed = bytearray(data)
    if kind == 1:
        for _ in range(chance.randint(1, 8)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    elif kind == 2:
        start = chance.randrange(len(changed))
        changed[start : start + chance.randint(1, 64)] = chance.randbytes(chance.randint(0, 64))
    elif kind == 3:  # numbers that sizes and counts must not be
        value = chance.choice((0, 1, 2**7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1))
        width = chance.choice((1, 2, 4, 8))
        start = chance.randrange(len(changed))
        number = (value % 256**width).to_bytes(width, chance.choice(("little", "big")))
        changed[start : start + width] = number[: len(changed) - start]
    else:
        changed += chance.randbytes(chance.randint(1, 4096))
    return bytes(changed)


def fuzz(
    folder: Path, inputs: int, seed: int, keep: Path | None = None, only: str = ""
) -> dict[str, dict[str, object]]:
    """How many inputs of each kind were read and refused, the slowest in seconds, the most memory that came on, and what was raised
    that must not be. Damaged files are written into `folder`, and those that did harm into `keep`. `only`: kinds with that in
    their name."""
    found: dict[str, dict[str, object]] = {}
    files = {name: one for name, one in whole_files(folder).items() if only in name}
    for name, (data, file, reader) in files.items():
        place = folder / "damaged" / name.replace(" ", "_")
        place.mkdir(parents=True, exist_ok=True)
        (place / file).write_bytes(data)
        reader(place / file)  # whole, it is read
        chance, read, refused = random.Random(f"{seed} {name}"), 0, 0
        slowest, wrong, before, most = 0.0, list[str](), rss_bytes(), 0
        for _ in range(-(-inputs // len(files))):
            broken = damaged(data, chance)
            (place / file).write_bytes(broken)
            harm = len(wrong)
            began = time.perf_counter()
            faulthandler.dump_traceback_later(HANGS_S, exit=True)
            try:
                reader(place / file)
                read += 1
            except ViTFaceError:
                refused += 1
            except Exception as error:
                wrong.append(f"{type(error).__name__}: {error} ({broken[:40]!r}…)")
            taken = time.perf_counter() - began
            faulthandler.cancel_dump_traceback_later()
            slowest, most = max(slowest, taken), max(most, rss_bytes() - before)
            if keep is not None and (len(wrong) > harm or taken > SLOW_S):
                (keep / f"{name.replace(' ', '_')}-{read + refused + len(wrong)}-{file}").write_bytes(broken)
        found[name] = {
            "read": read,
            "refused": refused,
            "slowest_s": round(slowest, 3),
            "more_memory_mb": round(most / 2**20),
            "wrong": wrong[:5],
        }
        print(name, found[name], file=sys.stderr, flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("harmful"), help="Folder of the files that did harm.")
    parser.add_argument("--only", default="", help="Kinds of files with this in their name.")
    given = parser.parse_args()
    given.keep.mkdir(parents=True, exist_ok=True)
    logging.getLogger("vitface").setLevel(logging.ERROR)  # what is left out of a damaged video is no news here
    with tempfile.TemporaryDirectory(dir=given.keep) as folder:
        found = fuzz(Path(folder), given.inputs, given.seed, given.keep, given.only)
    print(json.dumps(found, indent=1))
    return int(any(map(harmful, found.values())))


def harmful(row: dict[str, object]) -> bool:
    """Whether something happened that must not."""
    slow = float(str(row["slowest_s"])) > SLOW_S
    return bool(row["wrong"]) or slow or float(str(row["more_memory_mb"])) > LARGE_BYTES / 2**20


if __name__ == "__main__":
    sys.exit(main())
