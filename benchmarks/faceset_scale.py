"""Listing, sorting and paging a faceset of many faces, on made-up records of the true size.

    python benchmarks/faceset_scale.py --folder DIR --faces 1000000

Writes the index (about 8 kB a face, no pictures) unless it is there. One JSON object comes out: seconds and peak memory of each use.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lib_vitface.device import PeakMemory
from lib_vitface.faceset import record as rows
from lib_vitface.faceset.store import INDEX, Faceset
from lib_vitface.faceset.writer import FacesetWriter

_BATCH = 5000
_LANDMARKS, _EMBEDDING, _EXPRESSION, _LIGHT = 468 * 3, 128, 7, 4


def write_made_up(folder: Path, count: int, seed: int = 0) -> None:
    """A finished faceset of `count` kept faces with random measures."""
    random = np.random.default_rng(seed)
    with FacesetWriter.create(folder, {"size": 512, "image_format": "jpg", "keep_strangers": True}) as faceset:
        source = faceset.add_input("made-up.mp4", "made-up")
        for start in range(0, count, _BATCH):
            size = min(_BATCH, count - start)
            with faceset.transaction() as database:
                _insert(database, source, start, size, random)
        faceset.note("finished", True)


def _insert(database: Any, source: int, start: int, size: int, random: np.random.Generator) -> None:
    pose, good = random.normal(0, 20, (size, 3)), random.random((size, 3))
    shape = random.normal(256, 90, _LANDMARKS).astype("<f4")
    looks = random.normal(size=(size, _EMBEDDING)).astype("<f4")
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    marks = ", ".join("?" * len(rows.COLUMNS))
    faces, arrays = [], []
    for k in range(size):
        number = start + k + 1
        faces.append(
            (
                *(number, source, "made-up.mp4", number, 0, number, 25, f"{number:09d}.jpg", 512, 200.0),
                *map(float, pose[k]), *map(float, good[k]),
                *(int(random.integers(-(2**63), 2**63)), number % 1000, 1, "", 0, 1),
            )
        )  # fmt: skip
        rest = random.normal(size=_EXPRESSION + _LIGHT).astype("<f4")
        arrays.append(
            (
                number,
                bytes(48),
                shape.tobytes(),
                looks[k].tobytes(),
                rest[:_EXPRESSION].tobytes(),
                rest[_EXPRESSION:].tobytes(),
            )
        )
    database.executemany(f"INSERT INTO faces ({', '.join(rows.COLUMNS)}) VALUES ({marks})", faces)
    database.executemany(f"INSERT INTO arrays (id, {', '.join(rows.ARRAYS)}) VALUES (?, ?, ?, ?, ?, ?)", arrays)


def uses(folder: Path) -> dict[str, Callable[[], object]]:
    """What a page of the gallery, a choice of faces and a training ask of a faceset."""
    faceset = Faceset.open(folder)
    count = len(faceset)
    some = np.random.default_rng(1).integers(1, count + 1, 60).tolist()

    def sort() -> object:
        found = faceset.columns("id", "yaw_deg", "pitch_deg", "sharpness", "cluster")
        return found["id"][np.lexsort((-found["sharpness"], found["cluster"]))][:60]

    return {
        "open and count": lambda: len(Faceset.open(folder)),
        "summary": faceset.summary,
        "sort all by identity and sharpness": sort,
        "page of 60 anywhere": lambda: list(faceset.records(ids=some)),
        "all identity vectors": lambda: faceset.embeddings().shape,
        "mean identity": faceset.mean_embedding,
    }


def measured(folder: Path) -> dict[str, dict[str, float]]:
    """Seconds (the better of two) and peak memory in MB of each use."""
    found = {}
    for name, use in uses(folder).items():
        taken = []
        with PeakMemory() as memory:
            for _ in range(2):
                began = time.perf_counter()
                use()
                taken.append(time.perf_counter() - began)
        found[name] = {"seconds": round(min(taken), 4), "peak_mb": round(memory.peak_bytes / 2**20)}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=1_000_000)
    given = parser.parse_args()
    began = time.perf_counter()
    written = not (given.folder / INDEX).exists()
    if written:
        write_made_up(given.folder, given.faces)
    with Faceset.open(given.folder) as faceset:
        count = len(faceset)
    if count != given.faces:
        sys.exit(f"{given.folder} holds {count} faces, not {given.faces}; name another folder.")
    result = {
        "faces": count,
        "index_mb": round((given.folder / INDEX).stat().st_size / 2**20),
        "written_in_s": round(time.perf_counter() - began, 1) if written else None,
        "uses": measured(given.folder),
    }
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
