"""Readers of files that came from elsewhere, on damaged ones: each either reads them or says what is wrong, in seconds.

    python benchmarks/fuzz_readers.py --inputs 100000 [--seed 0]

Whole files are cut off, overwritten and lengthened at random. One JSON object comes out; the exit code is 1 where a reader raised
something else than the program's own errors, or took longer than `SLOW_S`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lib_vitface import media
from lib_vitface.errors import ViTFaceError
from lib_vitface.faceset.store import INDEX as FACESET
from lib_vitface.faceset.store import Faceset
from lib_vitface.faceset.writer import FacesetWriter
from lib_vitface.models.checkpoint import INDEX as MODEL
from lib_vitface.models.checkpoint import Checkpoint, open_model, save_model
from lib_vitface.models.config import PRESETS
from lib_vitface.provenance import consent

SLOW_S = 10.0
Reader = Callable[[Path], object]


def whole_files(folder: Path) -> dict[str, tuple[bytes, str, Reader]]:
    """By name: the bytes of a whole file, the name it must have, and its reader, given the path."""
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    found: dict[str, tuple[bytes, str, Reader]] = {}
    for suffix in (".png", ".jpg", ".webp"):
        path = folder / f"picture{suffix}"
        media.write_image(path, image)
        found[f"picture {suffix}"] = path.read_bytes(), path.name, media.read_image
    FacesetWriter.create(folder / "faces", {}).close()
    found["faceset"] = (folder / "faces" / FACESET).read_bytes(), FACESET, _read_faceset
    made = save_model(Checkpoint(folder / "model", PRESETS["cpu"], "m", 1, 1.0, None), {"weights": {"a": np.ones(4)}})
    found["model index"] = (made.folder / MODEL).read_bytes(), MODEL, lambda path: open_model(path.parent)
    record = json.dumps({"format": "vitface-consent", "version": 1, "who": "A", "reference": [0.1] * 8}).encode()
    found["consent record"] = record, "consent.json", consent.load_record
    return found


def _read_faceset(path: Path) -> object:
    with Faceset.open(path.parent, unfinished=True) as faceset:
        return faceset.summary()


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Cut off, overwritten in places, with zeros or noise in it, or made longer."""
    kind = chance.randrange(4)
    if kind == 0:
        return data[: chance.randrange(len(data) + 1)]
    changed = bytearray(data)
    if kind == 1:
        for _ in range(chance.randint(1, 8)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    elif kind == 2:
        start = chance.randrange(len(changed))
        changed[start : start + chance.randint(1, 64)] = chance.randbytes(chance.randint(0, 64))
    else:
        changed += chance.randbytes(chance.randint(1, 4096))
    return bytes(changed)


def fuzz(folder: Path, inputs: int, seed: int) -> dict[str, dict[str, object]]:
    """How many inputs of each kind were read and refused, the slowest in seconds, and what was raised that must not be."""
    chance = random.Random(seed)
    found: dict[str, dict[str, object]] = {}
    files = whole_files(folder)
    for name, (data, file, reader) in files.items():
        place = folder / "damaged" / name.replace(" ", "_")
        place.mkdir(parents=True, exist_ok=True)
        read = refused = 0
        slowest, wrong = 0.0, []
        for _ in range(-(-inputs // len(files))):
            broken = damaged(data, chance)
            (place / file).write_bytes(broken)
            began = time.perf_counter()
            try:
                reader(place / file)
                read += 1
            except ViTFaceError:
                refused += 1
            except Exception as error:
                wrong.append(f"{type(error).__name__}: {error} ({broken[:40]!r}…)")
            slowest = max(slowest, time.perf_counter() - began)
        found[name] = {"read": read, "refused": refused, "slowest_s": round(slowest, 3), "wrong": wrong[:5]}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(Path(folder), given.inputs, given.seed)
    print(json.dumps(found, indent=1))
    return int(any(row["wrong"] or float(str(row["slowest_s"])) > SLOW_S for row in found.values()))


if __name__ == "__main__":
    sys.exit(main())
