"""Listing, sorting, paging, clustering and choosing from a faceset of many faces, on made-up records of the true size.

    python benchmarks/faceset_scale.py --folder DIR --faces 1000000

Writes the index (about 8 kB a face, no pictures) unless it is there. One JSON object comes out: seconds and peak memory of each use,
and how well the clustering finds the made-up persons: alone, and beside average linkage of all pairs on as many faces as that can do.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib_vitface.device import PeakMemory
from lib_vitface.faceset import choice, cluster, select
from lib_vitface.faceset import record as rows
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.faceset.store import INDEX, Faceset
from lib_vitface.faceset.writer import FacesetWriter
from lib_vitface.options import build
from lib_vitface.types import Floats

_BATCH = 5000
_LANDMARKS, _EMBEDDING, _EXPRESSION, _LIGHT = 468 * 3, 128, 7, 4
_A_PERSON = 100  # faces on average
_A_CLIP = 12  # faces that share their light and view
_POOR = 0.01  # share of faces that look like hardly anybody
_PAIRWISE = 20_000  # faces of which all pairs fit into memory


def made_up_persons(count: int, seed: int = 0) -> NDArray[np.int64]:
    """Who each of `count` faces is of, `[count]`: persons of 1 to some thousand faces (lognormal), in clips of `_A_CLIP` or fewer."""
    random = np.random.default_rng((seed, 0))
    sizes = np.maximum(1, random.lognormal(np.log(_A_PERSON) - 0.5, 1.0, max(1, count // _A_PERSON))).astype(np.int64)
    while sizes.sum() < count:
        sizes = np.concatenate([sizes, sizes])
    who = np.repeat(np.arange(len(sizes)), sizes)[:count]
    clips = np.array_split(who, max(1, count // _A_CLIP))
    return np.concatenate([clips[k] for k in random.permutation(len(clips))])


def made_up_looks(who: NDArray[np.int64], start: int, size: int, seed: int = 0) -> Floats:
    """Unit vectors `[size, 128]` of the faces from `start` on: the person's, their clip's and the frame's own part.

    Cosines have a median of 0.82 within a clip and 0.53 between clips of a person, and reach 0.16 (`cluster.SAME_PERSON` says what
    SFace's do).
    """
    random = np.random.default_rng((seed, 1, start))
    numbers = who[start : start + size]
    person = np.stack([_direction((seed, 2, int(n))) for n in numbers])
    clip = np.stack([_direction((seed, 3, int(n), (start + k) // _A_CLIP)) for k, n in enumerate(numbers)])
    own = random.normal(size=(size, _EMBEDDING))
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    likeness = random.uniform(0.6, 0.85, size)
    likeness[random.random(size) < _POOR] = 0.35
    rest = np.sqrt(1 - likeness**2)
    looks = likeness[:, None] * person + rest[:, None] * (0.8 * clip + 0.6 * own)
    return np.asarray(looks / np.linalg.norm(looks, axis=1, keepdims=True), dtype="<f4")


@lru_cache(maxsize=20_000)  # every person, and the clips at hand
def _direction(seed: tuple[int, ...]) -> NDArray[np.float64]:
    vector = np.random.default_rng(seed).normal(size=_EMBEDDING)
    return np.asarray(vector / np.linalg.norm(vector))


def write_made_up(folder: Path, count: int, seed: int = 0) -> None:
    """A finished faceset of `count` kept faces of made-up persons, with random measures."""
    random = np.random.default_rng(seed)
    who = made_up_persons(count, seed)
    with FacesetWriter.create(folder, {"size": 512, "image_format": "jpg", "keep_strangers": True}) as faceset:
        source = faceset.add_input("made-up.mp4", "made-up")
        for start in range(0, count, _BATCH):
            size = min(_BATCH, count - start)
            with faceset.transaction() as database:
                _insert(database, source, start, made_up_looks(who, start, size, seed), random)
        faceset.note("finished", True)


def _insert(database: Any, source: int, start: int, looks: Floats, random: np.random.Generator) -> None:
    size = len(looks)
    pose, good = random.normal(0, 20, (size, 3)), random.random((size, 3))
    shape = random.normal(256, 90, _LANDMARKS).astype("<f4")
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


def selection(folder: Path, keep: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Seconds and memory of choosing `keep` faces of the most frequent identity among all faces of the index, step by step, as
    `choice.choose` goes about it but for telling identities apart (see `clustering`) and writing the decisions down."""
    found: dict[str, Any] = {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter(), time.process_time()
        with PeakMemory() as memory:
            result = work()
        taken = time.perf_counter() - began[0], time.process_time() - began[1]
        figures = {"seconds": taken[0], "processor_seconds": taken[1], "peak_mb": memory.peak_bytes / 2**20}
        found[name] = {key: round(value, 3) for key, value in figures.items()}
        return result

    with FacesetWriter.open(folder) as faceset:
        pool = step("load all", lambda: choice.Pool.load(faceset, 512))
        labels = cluster.by_frequency(made_up_persons(len(pool.ids), seed), pool.seen)
        person = step(
            "whose",
            lambda: cluster.wanted(pool.embeddings, labels, pool.seen, cluster.centre(pool.embeddings[labels == 0])),
        )
        own = np.flatnonzero(labels == person)
        worth = step("likeness", lambda: pool.worth * choice.likeness(pool.embeddings, labels))
        options = build(FacesetOptions, {"input": [folder], "output": folder, "max_faces": keep})
        first = step("repeats", lambda: choice._repeats(faceset, pool, worth, labels, own, options))
        first = own[first == own]
        chosen = step("spread", lambda: first[select.spread_out(pool.features[first], worth[first], keep)])
        spread = step(
            "statistics",
            lambda: select.spread(pool.features[first], np.searchsorted(first, np.sort(chosen)), pool.pose[first]),
        )
    found |= {
        "faces": len(pool.ids),
        "of_the_person": len(own),
        "chosen": len(chosen),
        "statistics_of_the_choice": spread,
    }
    found["processor_seconds"] = round(
        sum(one["processor_seconds"] for one in found.values() if isinstance(one, dict) and "peak_mb" in one), 2
    )
    return found


def clustering(folder: Path, seed: int = 0) -> dict[str, Any]:
    """Seconds, memory and agreement with the made-up persons (adjusted Rand index) of identities: of all faces, and of whole persons
    of about `_PAIRWISE` faces by both ways, which are also compared with each other."""
    with Faceset.open(folder) as faceset:
        looks = faceset.embeddings()
    who = made_up_persons(len(looks), seed)
    found: dict[str, Any] = {"faces": len(looks), "persons": len(np.unique(who))}
    _, found["all"] = _identities(looks, who)
    order = np.random.default_rng(2).permutation(who.max() + 1)
    sizes = np.bincount(who)[order]
    some = np.flatnonzero(np.isin(who, order[: max(1, int((sizes.cumsum() <= _PAIRWISE).sum()))]))
    found["some_faces"], found["some_persons"] = len(some), len(np.unique(who[some]))
    labels = {}
    before = cluster._MANY, cluster._MOST_VIEWS
    for name, many in (("neighbours", 0), ("all pairs", len(some) + 1)):
        cluster._MANY, cluster._MOST_VIEWS = many, len(some)
        labels[name], found[name] = _identities(looks[some], who[some])
    cluster._MANY, cluster._MOST_VIEWS = before
    found["one_against_the_other"] = round(adjusted_rand_index(labels["neighbours"], labels["all pairs"]), 5)
    return found


def _identities(looks: Floats, who: NDArray[np.int64]) -> tuple[NDArray[np.int64], dict[str, float]]:
    began, worked = time.perf_counter(), time.process_time()
    with PeakMemory() as memory:
        labels = cluster.identities(looks)
    taken, worked = time.perf_counter() - began, time.process_time() - worked
    groups = cluster.members(labels)
    mixed = sum(len(own) - int(np.bincount(who[own]).max()) for own in groups)
    return labels, {
        "seconds": round(taken, 1),
        "processor_seconds": round(worked, 1),
        "peak_mb": round(memory.peak_bytes / 2**20),
        "found_persons": len(groups),
        "adjusted_rand_index": round(adjusted_rand_index(labels, who), 5),
        "faces_in_anothers_group": mixed,
    }


def adjusted_rand_index(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """1 where two groupings `[N]` are the same, about 0 where they have nothing to do with each other (Hubert and Arabie 1985)."""
    _, together = np.unique(np.stack([a, b]), axis=1, return_counts=True)

    def pairs(counts: NDArray[np.int64]) -> float:
        return float((counts * (counts - 1.0) / 2).sum())

    both, ones, others = pairs(together), pairs(np.bincount(a)), pairs(np.bincount(b))
    expected = ones * others / (len(a) * (len(a) - 1) / 2)
    return (both - expected) / ((ones + others) / 2 - expected)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=1_000_000)
    parser.add_argument(
        "--no-clustering", action="store_true", help="Leave that out: without faiss it takes very long."
    )
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
        "selection": selection(given.folder),
        **({} if given.no_clustering else {"clustering": clustering(given.folder)}),
    }
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
