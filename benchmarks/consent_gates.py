"""False accepts and false rejects of the consent gates, over clips of one person each.

    python benchmarks/consent_gates.py --clips me.mp4 you.mp4 … [--frames 24] [--models MODEL=TARGET.mp4 …] [--json out.json]

Faces: the first half of each clip makes a record's reference, the faces of the second half and of all other clips are held
against it, as `faceset` does. Facesets: groups of faces are held against it, as `train` does. Results: each model swaps frames of
its target's clip, and the new face is compared with the record, the footage's person and all other clips, as `swap` does.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib_vitface import media
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.embed import make_embedder
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.faceset import cluster
from lib_vitface.metrics.source import sample_pictures
from lib_vitface.provenance import consent

LIMITS = (0.15, 0.2, 0.25, 0.3, 0.363, 0.4, 0.45)
GROUP = 12
YAWS = (0, 5, 10, 15, 20, 25, 30, 45, 60, 90)


def faces_of(clip: Path, frames: int, analyser: Analyser) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings `[N, 128]` and yaw `[N]` of the largest face in frames spread over a clip."""
    looks, yaws = [], []
    for image in sample_pictures(clip, frames):
        found = [f for f in analyser(image) if f.embedding is not None and f.pose is not None]
        if found:
            face = max(found, key=lambda f: float(f.box[2] - f.box[0]))
            looks.append(face.embedding)
            yaws.append(abs(face.pose.yaw_deg))
    return np.stack(looks), np.array(yaws)


def rates(own: np.ndarray, strange: np.ndarray) -> list[dict[str, float]]:
    """Share of own below and of strangers from each limit on."""
    return [
        {"limit": t, "false_reject": float(np.mean(own < t)), "false_accept": float(np.mean(strange >= t))}
        for t in LIMITS
    ]


def measure_faces(people: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    own, strange = [], []
    sets: dict[float, tuple[list[float], list[float]]] = {limit: ([], []) for limit in LIMITS}
    for name, (looks, _) in people.items():
        half = len(looks) // 2
        reference = cluster.centre(looks[:half])
        own.append(looks[half:] @ reference)
        for limit, (mine_in, _) in sets.items():
            mine_in += _shares(looks[half:], reference, limit)
        for other, (theirs, _) in people.items():
            if other != name:
                strange.append(theirs @ reference)
                for limit, (_, others_in) in sets.items():
                    others_in += _shares(theirs, reference, limit)
    mine, others = np.concatenate(own), np.concatenate(strange)
    return {
        "faces": {"own": len(mine), "strange": len(others), "rates": rates(mine, others)},
        "by_yaw": by_yaw(people),
        "sets": [
            {"limit": limit, "own": len(a), "own_least_share": min(a), "strange": len(b), "strange_largest_share": max(b),
             "strange_accepted": float(np.mean(np.array(b) >= consent.LEAST_SHARE))}
            for limit, (a, b) in sets.items()
        ],
    }  # fmt: skip


def by_yaw(people: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, dict[str, float | None]]:
    """How far cosines fall as heads turn. Own: the faces of a clip that are turned most, against the mean of the three tenths that are
    turned least. Strangers: all faces of the other clips against the mean of a clip."""
    own, strange = list[np.ndarray](), list[np.ndarray]()  # rows of yaw and cosine
    for name, (looks, yaws) in people.items():
        least = yaws <= np.quantile(yaws, 0.3)
        own.append(np.stack([yaws[~least], looks[~least] @ cluster.centre(looks[least])]))
        others = [(y, v @ cluster.centre(looks)) for n, (v, y) in people.items() if n != name]
        strange += [np.stack(pair) for pair in others]
    found = {}
    for low, high in itertools.pairwise(YAWS):
        mine, theirs = (_between(np.concatenate(rows, axis=1), low, high) for rows in (own, strange))
        if len(mine) or len(theirs):
            found[f"{low}-{high}"] = {
                "own": len(mine), "own_mean": _or_none(mine, np.mean), "own_least": _or_none(mine, np.min),
                "own_below": _or_none(mine < consent.SAME_FACE, np.mean), "strange": len(theirs),
                "strange_mean": _or_none(theirs, np.mean), "strange_largest": _or_none(theirs, np.max),
                "strange_taken": _or_none(theirs >= consent.SAME_FACE, np.mean),
            }  # fmt: skip
    return found


def _between(rows: np.ndarray, low: float, high: float) -> np.ndarray:
    return rows[1, (rows[0] >= low) & (rows[0] < high)]


def _or_none(values: np.ndarray, of: Any) -> float | None:
    return round(float(of(values)), 3) if len(values) else None


def _shares(looks: np.ndarray, reference: np.ndarray, limit: float) -> list[float]:
    """Share of matching faces of groups, as a faceset's sample."""
    return [
        float(np.mean(looks[k : k + GROUP] @ reference >= limit))
        for k in range(0, max(len(looks) - GROUP, 0) + 1, GROUP)
    ]


def measure_result(
    model: Path, clip: Path, frames: int, analyser: Analyser, people: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Cosines of the new face with the model's record, with the footage, and with the nearest other person."""
    from lib_vitface.swap.frame import ModelSwapper
    from lib_vitface.swap.person import look_of

    record = consent.load_record(model / consent.FILE)
    swapper, found = ModelSwapper(model), []
    for image in sample_pictures(clip, frames):
        faces = [f for f in analyser(image) if f.landmarks is not None and f.pose is not None]
        if not faces:
            continue
        face = max(faces, key=lambda f: float(f.box[2] - f.box[0]))
        new = look_of(swapper([image], [face])[0], face, make_embedder("sface"))
        others = {name: float(new @ look) for name, look in people.items()}
        found.append((record.likeness(new), float(new @ face.embedding), others))
    names = sorted(people)
    return {
        "model": model.name, "clip": clip.stem, "faces": len(found),
        "record": [round(f[0], 3) for f in found], "footage": [round(f[1], 3) for f in found],
        "mean_record": float(np.mean([f[0] for f in found])), "mean_footage": float(np.mean([f[1] for f in found])),
        "others": {name: round(float(np.mean([f[2][name] for f in found])), 3) for name in names},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="+", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--models", nargs="*", default=[], metavar="MODEL=TARGET")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    analyser = Analyser(make_detector(), MeshLandmarker(), make_embedder("sface"))
    people = {path.stem: faces_of(path, given.frames, analyser) for path in media.list_media(given.clips)}
    found: dict[str, Any] = {
        "clips": {name: len(looks) for name, (looks, _) in people.items()},
        **measure_faces(people),
    }
    looks = {name: cluster.centre(looks) for name, (looks, _) in people.items()}
    found["results"] = [
        measure_result(Path(model), Path(clip), max(given.frames // 4, 4), analyser, looks)
        for model, _, clip in (text.partition("=") for text in given.models)
    ]
    print(json.dumps(found, indent=1))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
