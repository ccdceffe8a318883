"""How well the detector tells swapped faces from real ones, on people that its training did not see.

    python benchmarks/train_detector.py people --work DIR --for test --clips a.mp4 b.mp4 …
    python benchmarks/detector.py --work DIR [--model MODEL:SOURCE:TARGET …] [--json out.json] [--show DIR]

`--model` names folders of trained models with the clips' names of the two people; `SOURCE` only names the row. Crops are cut by the
footage's own landmarks, where `inspect` looks for the face anew in what it is given. An AUC is over single frames; beside it stands
that of the person for whom it is worst. Swapped and real frames are the same frames of the same people, compressed in the same way.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from detector_material import (
    Damage,
    Stretch,
    classical,
    fewer,
    memory_swapper,
    random_damage,
    random_network,
    random_options,
    swapped,
)
from train_detector import auc, people

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib_vitface import media
from lib_vitface.faces import align
from lib_vitface.faces.embed import make_embedder
from lib_vitface.faces.parse import outline_mask
from lib_vitface.faceset.texture import TextureMemory
from lib_vitface.metrics.temporal import flicker, landmark_jitter, motion
from lib_vitface.models.config import DETECTOR_SIDE
from lib_vitface.provenance.detector import FaceScore, SwapDetector, overlay
from lib_vitface.swap.frame import ModelSwapper
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.training.selfblend import Recipe
from lib_vitface.types import Face, Image, SwapModel

CONDITIONS = {
    "as it is": Damage(),
    "H.264 CRF 18": Damage("h264", 18),
    "H.264 CRF 23": Damage("h264", 23),
    "H.264 CRF 28": Damage("h264", 28),
    "H.264 CRF 35": Damage("h264", 35),
    "JPEG 50": Damage("jpeg", 50),
    "marked, CRF 23": Damage("h264", 23, mark="5ca1ab1e" * 4),
}
USUAL = ("H.264 CRF 23", "as it is", "H.264 CRF 35")  # conditions in which swaps are scored
PLAIN = SwapOptions(model=Path(), input=Path(), output=Path())
HULL = replace(PLAIN, mask="hull", occlusion=False)
Known = dict[str, tuple[list[Stretch], TextureMemory]]
Rows = list[tuple[str, float]]  # person and logit


def logits_of(detector: SwapDetector, stretch: Stretch, damage: Damage) -> Rows:
    """Of every second frame (neighbours are much alike), cut by where the face lies in the footage."""
    worn = damage(stretch)
    pairs = list(zip(worn.images, worn.faces, strict=True))[::2]
    logits, _ = detector.logits([align.take_crop(image, face, DETECTOR_SIDE).image for image, face in pairs])
    return [(stretch.person, float(v)) for v in logits]


def shorter(stretch: Stretch, length: int) -> Stretch:
    return replace(stretch, images=stretch.images[:length], faces=stretch.faces[:length])


Swap = Callable[[Stretch, int], list[Image] | None]


def swaps(known: Known, trained: Sequence[str]) -> dict[str, tuple[Sequence[str], Swap]]:
    """Kinds of fakes: in whose footage, and how. The source of a frame's swap is the next person, then the one after."""
    names = sorted(known)

    def other(stretch: Stretch, number: int) -> str:
        rest = [n for n in names if n != stretch.person]
        return rest[number % len(rest)]

    def ours(stretch: Stretch, number: int) -> list[Image] | None:
        random = np.random.default_rng((7, number))
        source = known[other(stretch, number)][1]
        views = random.choice(len(source), min(int(random.choice([4, 8, 16])), len(source)), replace=False)
        swapper = memory_swapper(
            fewer(source, views, int(random.choice([128, 256, 384]))),
            fewer(known[stretch.person][1], range(3), 128),
            random_network(random),
        )
        return swapped(stretch, swapper, random_options(random))

    def best(stretch: Stretch, number: int) -> list[Image] | None:
        source = known[other(stretch, number)][1]
        return swapped(stretch, memory_swapper(source, fewer(known[stretch.person][1], range(3), 128)), HULL)

    def cloned(stretch: Stretch, number: int) -> list[Image]:
        found = known[other(stretch, number)][0]
        return classical(stretch, found[number % len(found)])

    def blended(stretch: Stretch, number: int) -> list[Image]:
        recipe = Recipe(1000 + number)
        pairs = zip(stretch.images, stretch.faces, strict=True)
        return [recipe(image, face.landmarks)[0] for image, face in pairs if face.landmarks is not None]

    kinds: dict[str, tuple[Sequence[str], Swap]] = {
        "own swap, all qualities": (names, ours),
        "own swap, all views, default options": (names, best),
        "another method: triangles and seamlessClone": (names, cloned),
        "self-blended": (names, blended),
    }
    for one in trained:
        folder, source, target = one.rsplit(":", 2)
        model = ModelSwapper(Path(folder))
        kinds[f"{model.checkpoint.config.kind}, trained, {source} into {target}"] = ([target], _by(model))
    return kinds


def _by(model: SwapModel) -> Swap:
    return lambda stretch, number: swapped(stretch, model, PLAIN)


def kept(path: Path, stretches: Sequence[Stretch], targets: Sequence[str], swap: Swap) -> list[Stretch]:
    """The swapped stretches of the targets; they are kept in a file, since another detector can be measured with the same ones."""
    if not path.exists():
        found = {}
        for number, stretch in enumerate(stretches):
            images = swap(stretch, number) if stretch.person in targets else None
            if images is not None:
                found[str(number)] = np.stack(images)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        np.savez(temporary, **found)
        temporary.replace(path)
    with np.load(path) as file:
        return [replace(stretches[int(n)], images=list(file[n])) for n in file.files]


def place_of(work: Path, kind: str, frames: int) -> Path:
    return work / "made" / f"{re.sub('[^a-z0-9]+', '-', kind.lower())}-{frames}.npz"


def prepare(known: Known, trained: Sequence[str], frames: int, work: Path) -> None:
    """Makes the swaps and measures nothing."""
    stretches = [shorter(s, frames) for found, _ in known.values() for s in found]
    for kind, (targets, swap) in swaps(known, trained).items():
        made = kept(place_of(work, kind, frames), stretches, targets, swap)
        print(f"{kind}: {len(made)} stretches", flush=True)


def measure(detector: SwapDetector, known: Known, trained: Sequence[str], frames: int, work: Path) -> dict[str, Any]:
    stretches = [shorter(s, frames) for found, _ in known.values() for s in found]
    limit = {rate: _limit(detector, rate) for rate in (1, 5)}
    table: dict[str, Any] = {"people": sorted(known), "real": {}, "swaps": {}}
    real = dict[str, Rows]()
    for name, damage in CONDITIONS.items():
        real[name] = rows = [r for s in stretches for r in logits_of(detector, s, damage)]
        values = np.array([v for _, v in rows])
        table["real"][name] = {
            "frames": len(rows),
            "median_score": round(float(np.median([detector.calibration.score(v) for v in values])), 3),
            **{f"above_limit_of_{rate}_in_100": round(float((values >= at).mean()), 4) for rate, at in limit.items()},
            "above_half": round(float(np.mean([detector.calibration.score(v) >= 0.5 for v in values])), 4),
            "worst_person_above_half": round(
                max(
                    float(np.mean([detector.calibration.score(v) >= 0.5 for p, v in rows if p == who])) for who in known
                ),
                4,
            ),
        }
        print(name, table["real"][name], flush=True)
    pairs = list[tuple[float, int]]()
    for kind, (targets, swap) in swaps(known, trained).items():
        made = kept(place_of(work, kind, frames), stretches, targets, swap)
        table["swaps"][kind] = {}
        for name in USUAL:
            fake = [r for s in made for r in logits_of(detector, s, CONDITIONS[name])]
            same = [r for r in real[name] if r[0] in targets]
            each = [auc([v for p, v in fake if p == t], [v for p, v in same if p == t]) for t in targets]
            table["swaps"][kind][name] = {
                "frames": len(fake),
                "auc": round(auc([v for _, v in fake], [v for _, v in same]), 3),
                "worst_person": round(min(each), 3),
                "found_at_5_in_100": round(float(np.mean([v >= limit[5] for _, v in fake])), 3),
            }
            if kind.startswith("own swap, all q"):
                pairs += [(v, 1) for _, v in fake] + [(v, 0) for _, v in same]
        print(kind, table["swaps"][kind], flush=True)
    table["calibration_error"] = reliability(detector, pairs)
    return table


def _limit(detector: SwapDetector, rate: float) -> float:
    """The logit that `rate` of 100 real frames of the calibration reach."""
    return float(np.quantile(detector.calibration.real, 1 - rate / 100))


def reliability(detector: SwapDetector, pairs: Sequence[tuple[float, int]], bins: int = 10) -> dict[str, Any]:
    """Expected calibration error (Guo et al. 2017, arXiv:1706.04599), real and swapped weighted alike."""
    scores = np.array([detector.calibration.score(v) for v, _ in pairs])
    labels = np.array([k for _, k in pairs])
    weights = np.where(labels == 1, 0.5 / labels.sum(), 0.5 / (1 - labels).sum())
    place = np.minimum((scores * bins).astype(int), bins - 1)
    table, total = [], 0.0
    for k in range(bins):
        inside = place == k
        if inside.any():
            w = weights[inside]
            said, is_swap = float((w * scores[inside]).sum() / w.sum()), float((w * labels[inside]).sum() / w.sum())
            table.append([round(said, 3), round(is_swap, 3), int(inside.sum())])
            total += float(w.sum()) * abs(said - is_swap)
    return {"ece": round(total, 4), "bins_said_true_count": table}


# ----------------------------------------------------------------------------------------------------- over time


FEATURES = ("mean", "spread", "landmarks", "identity", "flicker")


def over_time(detector: SwapDetector, stretch: Stretch) -> list[float] | None:
    """What a stretch says beyond its single frames: mean and spread of logits, jitter of landmarks, how identity wanders, and how much
    more the face flickers than what is around it, along optical flow."""
    faces, logits = list[Face](), list[float]()
    embed = make_embedder("sface")
    for image in stretch.images:
        found = detector.faces(image)
        if not found:
            return None
        faces.append(found[0])
        logits.append(float(detector.logits([align.take_crop(image, found[0], DETECTOR_SIDE).image])[0][0]))
    marks = [face.landmarks for face in faces if face.landmarks is not None]
    bends = [landmark_jitter(np.stack(t), np.stack(t)).result for t in zip(marks, marks[1:], marks[2:], strict=False)]
    looks = [embed(image, face) for image, face in zip(stretch.images, faces, strict=True)]
    wander = [1 - float(a @ b) for a, b in itertools.pairwise(looks)]
    ratios = []
    for k in range(len(faces) - 1):
        matrix = align.crop_matrix(faces[k], 192)
        before, after = (align.warp(image, matrix, 192) for image in stretch.images[k : k + 2])
        inside = outline_mask(align.apply(matrix, marks[k]).astype(np.float32), (192, 192))
        way = motion(before, after)
        a, b = flicker(before, after, way, inside), flicker(before, after, way, 1 - inside)
        if a is not None and b is not None:
            ratios.append(np.log((a.mean + 0.2) / (b.mean + 0.2)))
    if not ratios or not bends:
        return None
    return [
        float(np.mean(logits)), float(np.std(logits)), float(np.log(np.mean(bends) + 1e-4)), float(np.mean(wander)),
        float(np.mean(ratios)),
    ]  # fmt: skip


def consistency(detector: SwapDetector, fitted: Known, tested: Known, length: int, every: int) -> dict[str, Any]:
    """AUC of stretches, of which every `every`-th is taken: of the mean logit alone, of each feature alone, and of a logistic model
    fitted on `fitted`."""
    data = {}
    for name, known in (("fitted", fitted), ("tested", tested)):
        swap = swaps(known, ())["own swap, all qualities"][1]
        rows = list[tuple[list[float], int]]()
        stretches = [shorter(s, length) for found, _ in known.values() for s in found[::every]]
        for number, stretch in enumerate(stretches):
            made = swap(stretch, number)
            for label, images in ((0, stretch.images), (1, made)):
                if images is not None:
                    damage = replace(random_damage(np.random.default_rng((11, number))), mark="")
                    values = over_time(detector, damage(replace(stretch, images=images)))
                    if values is not None:
                        rows.append((values, label))
        data[name] = (np.array([r for r, _ in rows]), np.array([k for _, k in rows]))
        print(name, len(rows), "stretches", flush=True)
    (x, y), (x2, y2) = data["fitted"], data["tested"]
    middle, spread = x.mean(0), x.std(0) + 1e-9
    weights = logistic((x - middle) / spread, y)
    told = {
        "all, logistic": (x2 - middle) / spread @ weights[:-1],
        **{name: x2[:, k] for k, name in enumerate(FEATURES)},
    }
    return {
        "stretches": len(y2),
        "weights": [round(float(w), 3) for w in weights],
        "auc": {k: round(auc(v[y2 == 1], v[y2 == 0]), 3) for k, v in told.items()},
    }


def logistic(x: np.ndarray, y: np.ndarray, ridge: float = 1.0) -> np.ndarray:
    """Weights and, last, the constant of a logistic regression; Newton's method with a ridge."""
    x = np.column_stack([x, np.ones(len(x))])
    w = np.zeros(x.shape[1])
    keep = np.diag([ridge] * (x.shape[1] - 1) + [1e-6])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        w = w - np.linalg.solve((x.T * (p * (1 - p))) @ x + keep, x.T @ (p - y) + keep @ w)
    return w


def show(detector: SwapDetector, known: Known, folder: Path) -> None:
    """A frame of each person, real and swapped, with its heat map."""
    folder.mkdir(parents=True, exist_ok=True)
    make = swaps(known, ())["own swap, all views, default options"][1]
    for number, (name, (found, _)) in enumerate(known.items()):
        stretch = shorter(found[len(found) // 2], 1)
        pictures = [stretch.images[0], *(make(stretch, number) or [])]
        seen: list[FaceScore | None] = [detector.look(image) for image in pictures]
        shown = [overlay(i, s) if s else i for i, s in zip(pictures, seen, strict=True)]
        media.write_image(folder / f"{name}.jpg", np.hstack([*pictures, *shown]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--model", nargs="*", default=[])
    parser.add_argument("--frames", type=int, default=3, help="of each stretch")
    parser.add_argument("--prepare", action="store_true", help="only make the swaps")
    parser.add_argument(
        "--time", type=int, default=0, metavar="N", help="only the features over time, of every N-th stretch"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--show", type=Path)
    given = parser.parse_args()
    known = people(given.work, "test")
    if given.time:
        table = consistency(SwapDetector(given.weights), people(given.work, "calibration"), known, 4, given.time)
        print(json.dumps(table, indent=1))
        return
    prepare(known, given.model, given.frames, given.work)
    if given.prepare:
        return
    detector = SwapDetector(given.weights)
    table = measure(detector, known, given.model, given.frames, given.work)
    if given.show:
        show(detector, known, given.show)
    text = json.dumps(table, indent=1)
    print(text)
    if given.json:
        given.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
