"""Whether traces of the face against what is around it (`traces.py`) tell a swap, whoever it shows. Not well enough: what came of it
stands in models/detector.md.

    python benchmarks/train_detector.py people --work DIR --for test --length 4 --clips a.mp4 b.mp4 c.mp4 d.mp4 …
    python benchmarks/detector_traces.py swaps --work DIR
    python benchmarks/detector_traces.py traces --work DIR
    python benchmarks/detector_traces.py measure --work DIR [--json out.json]
    python benchmarks/detector_traces.py clips --work DIR --without d3 d13 --real d3.mp4 --swapped swapped.mp4 …

One person a clip. `swaps` puts every person into the footage of every other by the second pass of `swap`, without a network's
correction and without a mark. Real and swapped frames go through the same encoder. For each two people a layer is learned without
both, and judges real frames of each and swaps of the one into the other. `clips` judges finished swaps by a layer without the people
named; the real clip is marked and encoded as they were.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detector_material import RATE, Damage, Stretch, classical, memory_swapper, random_network, random_options
from numpy.typing import NDArray
from traces import NAMES, PARTS, SPATIAL, TEMPORAL, Cells, cells_of
from train_detector import auc, people

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib_vitface import media
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.embed import make_embedder
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.faces.parse import hull_mask
from lib_vitface.swap.analysis import HandWatch, Observer, save_seen
from lib_vitface.swap.frame import ModelSwapper
from lib_vitface.swap.plan import make_plan
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.swap.stream import FrameStream
from lib_vitface.training.selfblend import Recipe
from lib_vitface.types import Face, Frame, Image

LOOKED_AT = 2  # which frame of a stretch is judged
PLAIN = SwapOptions(model=Path(), input=Path(), output=Path())
USUAL, SOFT = "CRF 23", "soft footage, CRF 23"
CONDITIONS = {USUAL: Damage("h264", 23), "CRF 28": Damage("h264", 28), SOFT: Damage("h264", 23)}
LIMIT = 5  # of 100 real frames that it lets through
RIDGE = 100.0  # of weights of standardised numbers, where each person's real and swapped frames count as 100 each
ALL = np.arange(len(PARTS) * len(NAMES))
Values = NDArray[np.float64]


def columns(names: Sequence[str], parts: Sequence[str] = PARTS) -> NDArray[np.intp]:
    """Places in a summary."""
    return np.array([PARTS.index(part) * len(NAMES) + NAMES.index(name) for part in parts for name in names])


READS = {
    "all": ALL,
    "of one frame": columns(SPATIAL),
    "over time": columns(TEMPORAL),
    "at the outline": columns(NAMES, ("edge",)),
    "spread": columns(NAMES, ("spread",)),
    "again (steadiness along the flow)": columns([name for name in TEMPORAL if name.startswith("again")]),
}

# --------------------------------------------------------------------------------------------------------------- material


def make_swaps(work: Path) -> None:
    """A file for each person: everybody else's face in the first stretch, with default options (`own`) and, of some, with options and
    softness by chance (`random`)."""
    (work / "swaps").mkdir(parents=True, exist_ok=True)
    known = people(work, "test")
    for number, (name, (found, memory)) in enumerate(known.items()):
        path = work / "swaps" / f"{name}.npz"
        if path.exists():
            continue
        made = dict[str, NDArray[np.uint8]]()
        for other, (source, (_, drawn)) in enumerate(known.items()):
            if source == name:
                continue
            random = np.random.default_rng((other, number))
            made[f"own:{source}"] = _second_pass(found[0], memory_swapper(drawn, memory), PLAIN)
            if (other + number) % 5 == 0:
                swapper = memory_swapper(drawn, memory, random_network(random))
                made[f"random:{source}"] = _second_pass(found[0], swapper, random_options(random))
        _save(path, made)
        print(f"{name}: {len(made)} swaps", flush=True)


def _second_pass(stretch: Stretch, swapper: ModelSwapper, options: SwapOptions) -> NDArray[np.uint8]:
    """The stretch as `swap` makes it, landmarks and colours steadied over its frames."""
    frames = [Frame(k, k / RATE, image) for k, image in enumerate(stretch.images)]
    analyse = Analyser(make_detector("auto"), MeshLandmarker())
    look = Observer(analyse, analyse.landmarker, make_embedder("sface"), HandWatch())
    with tempfile.TemporaryDirectory() as folder:
        save_seen(Path(folder, "analysis-00000.npz"), [look(frame) for frame in frames])
        stream = FrameStream(
            options, swapper, make_plan(Path(folder), len(frames), PLAIN, None, lambda: None), len(frames)
        )
        return np.stack([done.image for frame in frames for done in stream(frame)])


def _save(path: Path, arrays: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}")
    np.savez(temporary, **arrays)
    temporary.replace(path)


def softened(images: Sequence[Image], kind: int) -> list[Image]:
    """Poor footage: shrunk and enlarged, blurred, or compressed hard."""
    if kind == 0:
        size = images[0].shape[1::-1]
        small = [cv2.resize(i, (size[0] // 2, size[1] // 2), interpolation=cv2.INTER_AREA) for i in images]
        return [np.asarray(cv2.resize(i, size, interpolation=cv2.INTER_CUBIC), np.uint8) for i in small]
    if kind == 1:
        return [np.asarray(cv2.GaussianBlur(i, (0, 0), 1.3), np.uint8) for i in images]
    return list(Damage("h264", 36)(Stretch("", images, [])).images)


def _shown(work: Path, name: str, found: Sequence[Stretch], soft: bool) -> Iterator[tuple[str, Stretch]]:
    """Stretches by `kind:source:tag`. In `soft` footage the face that goes in is as sharp as it was drawn."""
    real = found[0]
    for k, stretch in enumerate(found):
        images = softened(stretch.images, k % 3) if soft else stretch.images
        yield f"real::{'swapped' if k == 0 else k}", replace(stretch, images=images)
    with np.load(work / "swaps" / f"{name}.npz") as file:
        for number, key in enumerate(file.files):
            images = list(file[key])
            if soft:
                under = softened(real.images, number % 3)
                images = [_laid_over(*one) for one in zip(under, images, real.faces, strict=True)]
            yield f"{key}:0", replace(real, images=images)
    if soft:
        return
    for number in range(2):
        recipe = Recipe(100 * number + sum(map(ord, name)))
        pairs = [(image, face.landmarks) for image, face in zip(real.images, real.faces, strict=True)]
        images = [recipe(image, landmarks)[0] for image, landmarks in pairs if landmarks is not None]
        yield f"blended:{name}:{number}", replace(real, images=images)
    for other, (theirs, _) in people(work, "test").items():
        if other != name:
            yield f"triangles:{other}:0", replace(real, images=classical(real, theirs[0]))


def _laid_over(under: Image, image: Image, face: Face) -> Image:
    assert face.landmarks is not None
    height = float(np.ptp(face.landmarks[:, 1]))
    mask = hull_mask(face.landmarks, image.shape[:2], erode_px=0.02 * height, feather_px=0.08 * height)[..., None]
    return np.clip(under + mask * (image.astype(np.float32) - under), 0, 255).round().astype(np.uint8)


def make_traces(work: Path) -> None:
    """A file for each condition and person: cells of the frame that is looked at."""
    known = people(work, "test")
    for condition, damage in CONDITIONS.items():
        (work / "traces" / condition).mkdir(parents=True, exist_ok=True)
        for name, (found, _) in known.items():
            path, arrays = work / "traces" / condition / f"{name}.npz", dict[str, Any]()
            if path.exists():
                continue
            for key, stretch in _shown(work, name, found, condition == SOFT):
                worn = damage(stretch)
                landmarks = worn.faces[LOOKED_AT].landmarks
                assert landmarks is not None
                beside = [worn.images[LOOKED_AT - 1], worn.images[LOOKED_AT + 1]]
                cells = cells_of(worn.images[LOOKED_AT], landmarks, beside)
                arrays[f"values:{key}"] = cells.values.astype(np.float16)
                arrays[f"inside:{key}"], arrays[f"seen:{key}"] = cells.inside, cells.seen
            _save(path, arrays)
            print(f"{condition}, {name}: {len(arrays) // 3} faces", flush=True)


# --------------------------------------------------------------------------------------------------------------- learning


@dataclass(frozen=True)
class Rows:
    """Faces: `summaries` [N, D] as `Cells.summary` gives them, `person` in whose footage, `source` whose face ("" for real ones),
    `kind` (real, own, random, triangles, blended), `condition`, and `tag` of several alike, each `[N]` of text."""

    summaries: Values
    person: NDArray[np.str_]
    source: NDArray[np.str_]
    kind: NDArray[np.str_]
    condition: NDArray[np.str_]
    tag: NDArray[np.str_]

    @property
    def real(self) -> NDArray[np.bool_]:
        return np.asarray(self.kind == "real")

    @property
    def people(self) -> list[str]:
        return sorted(set(self.person.tolist()))


def load(work: Path) -> Rows:
    found = list[tuple[Any, ...]]()
    for path in sorted((work / "traces").glob("*/*.npz")):
        with np.load(path) as file:
            for key in (name[7:] for name in file.files if name.startswith("values:")):
                kind, source, tag = key.split(":")
                values = file[f"values:{key}"].astype(np.float32)
                summary = Cells(values, file[f"inside:{key}"], file[f"seen:{key}"]).summary()
                if summary is not None:
                    found.append((summary, path.stem, source, kind, path.parent.name, tag))
    if not found:
        raise SystemExit(f"{work}: holds no traces; make them first.")
    summaries, *texts = zip(*found, strict=True)
    return Rows(np.stack(summaries).astype(np.float64), *(np.array(one) for one in texts))


@dataclass(frozen=True)
class Linear:
    weights: Values
    bias: float

    def __call__(self, x: Values) -> Values:
        return np.asarray(x @ self.weights + self.bias)


def logistic(x: Values, y: NDArray[np.bool_], shares: Values) -> Linear:
    """Logistic regression on standardised columns by Newton's method; `shares` `[N]` weigh the rows."""
    middle = (shares @ x) / shares.sum()
    spread = np.sqrt(shares @ (x - middle) ** 2 / shares.sum()) + 1e-6
    z = np.column_stack([(x - middle) / spread, np.ones(len(x))])
    w, keep = np.zeros(z.shape[1]), np.diag([RIDGE] * x.shape[1] + [1e-6])
    for _ in range(25):
        p = 1 / (1 + np.exp(-np.clip(z @ w, -30, 30)))
        w = w - np.linalg.solve((z.T * (shares * p * (1 - p))) @ z + keep, z.T @ (shares * (p - y)) + keep @ w)
    weights = w[:-1] / spread
    return Linear(weights, float(w[-1] - middle @ weights))


def learn(rows: Rows, without: Sequence[str], conditions: Sequence[str], reads: NDArray[np.intp] = ALL) -> Linear:
    """A layer that knows nothing of the people in `without`, neither as target nor as source."""
    some = ~np.isin(rows.person, without) & ~np.isin(rows.source, without) & np.isin(rows.condition, conditions)
    some &= rows.real | (rows.kind == "own")
    shares = np.zeros(len(some))
    for person in rows.people:
        for real in (True, False):
            mine = some & (rows.person == person) & (rows.real == real)
            shares[mine] = 100 / max(int(mine.sum()), 1)
    found = logistic(rows.summaries[some][:, reads], ~rows.real[some], shares[some])
    whole = np.zeros(rows.summaries.shape[1])
    whole[reads] = found.weights
    return Linear(whole, found.bias)


# -------------------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Judged:
    """Logits of `swaps` of `source` in the footage of `target`, of `real` frames of the target, and of those that were swapped."""

    target: str
    source: str
    swaps: Values
    real: Values
    same: Values


def left_out(rows: Rows, kind: str, condition: str, trained: Sequence[str], reads: NDArray[np.intp]) -> list[Judged]:
    """For each two people, by a layer that knows neither."""
    found = list[Judged]()
    for pair in combinations(rows.people, 2):
        layer = learn(rows, pair, trained, reads)
        for target, source in (pair, pair[::-1]):
            mine = (rows.person == target) & (rows.condition == condition)
            whose = target if kind == "blended" else source
            groups = (
                mine & (rows.kind == kind) & (rows.source == whose),
                mine & rows.real,
                mine & rows.real & np.char.startswith(rows.tag, "swapped"),
            )
            if groups[0].any():
                found.append(Judged(target, source, *(layer(rows.summaries[some]) for some in groups)))
    return found


def summed_up(found: Sequence[Judged]) -> dict[str, Any]:
    """AUC of swaps against real frames of the same target (mean of pairs), against all real frames, and against the very frames that
    were swapped; of the person and of the source for whom it is worst; false alarms and swaps found at a limit from other people."""
    pairs = [(one.target, one.source, auc(one.swaps, one.real)) for one in found]
    targets, sources = sorted({t for t, *_ in pairs}), sorted({s for _, s, _ in pairs})
    swaps, real, same = (np.concatenate([getattr(one, name) for one in found]) for name in ("swaps", "real", "same"))
    alarms, hits = list[float](), list[float]()
    for person in targets:
        limit = np.quantile(np.concatenate([one.real for one in found if one.target != person]), 1 - LIMIT / 100)
        mine = [one for one in found if one.target == person]
        alarms.append(float((np.concatenate([one.real for one in mine]) > limit).mean()))
        hits.append(float((np.concatenate([one.swaps for one in mine]) > limit).mean()))
    table = {
        "auc of pairs": np.mean([v for *_, v in pairs]),
        "auc of all": auc(swaps, real),
        "auc, same frames": auc(swaps, same),
        "worst person": min(np.mean([v for t, _, v in pairs if t == person]) for person in targets),
        "worst source": min(np.mean([v for _, s, v in pairs if s == person]) for person in sources),
        "false alarms": np.mean(alarms),
        "worst false alarms": max(alarms),
        "found": np.mean(hits),
    }
    return {"swaps": len(swaps), **{name: round(float(v), 3) for name, v in table.items()}}


def measure(rows: Rows) -> dict[str, Any]:
    if len(rows.people) < 4:
        raise SystemExit("Two people are left out and two must be left to learn from; take at least four clips.")
    table: dict[str, Any] = {"people": rows.people}
    there = sorted(set(rows.condition.tolist()))
    for trained in ([USUAL], there):
        for condition in there:
            for kind in ("own", "random", "triangles", "blended") if condition == USUAL else ("own",):
                found = left_out(rows, kind, condition, trained, ALL)
                if found:
                    table[f"{kind}, {condition}; learned of {' and '.join(trained)}"] = summed_up(found)
    for name, reads in READS.items():
        table[f"reads {name}"] = summed_up(left_out(rows, "own", USUAL, [USUAL], reads))
    return table


def clips(rows: Rows, given: argparse.Namespace) -> dict[str, Any]:
    """AUC of the frames of finished swaps against those of the real clip."""
    layer = learn(rows, given.without, [USUAL])
    real = layer(_summaries(given.real, True, given.places))
    table = {}
    for path in given.swapped:
        found = layer(_summaries(path, False, given.places))
        means = [round(float(one.mean()), 2) for one in (found, real)]
        table[path.name] = {
            "frames": [len(found), len(real)],
            "auc": round(auc(found, real), 3),
            "mean logits": means,
        }
    return table


def _summaries(path: Path, wear: bool, places: int) -> Values:
    """Of frames at so many places of a clip, faces found anew; with `wear`, after being marked and encoded."""
    finder, found, window = Analyser(make_detector("auto"), MeshLandmarker()), [], list[Image]()
    count = media.probe(path).frame_count or sum(1 for _ in media.read_frames(path))
    ends = set(np.linspace(0.05 * count + 6, count - 1, places).astype(int).tolist())
    for frame in media.read_frames(path):
        window = [*window[-5:], frame.image]
        if frame.index not in ends or len(window) < 6:
            continue
        damage = Damage("h264", 23, mark="5ca1ab1e" * 4)
        shown = damage(Stretch("", window, [])).images if wear else window
        seen = finder(shown[4])
        if not seen:
            continue
        landmarks = max(seen, key=lambda face: float(face.box[2] - face.box[0])).landmarks
        assert landmarks is not None
        summary = cells_of(shown[4], landmarks, [shown[3], shown[5]]).summary()
        if summary is not None:
            found.append(summary.astype(np.float64))
    if not found:
        raise SystemExit(f"{path}: no face was found at any of the places; give a clip that shows one.")
    return np.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("swaps", "traces", "measure", "clips"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--real", type=Path, help="clips: the footage")
    parser.add_argument("--swapped", type=Path, nargs="*", default=[], help="clips: finished swaps in it")
    parser.add_argument("--without", nargs="*", default=[], help="clips: people that the layer must not know")
    parser.add_argument("--places", type=int, default=10, help="clips: frames that are judged")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.step in ("swaps", "traces"):
        (make_swaps if given.step == "swaps" else make_traces)(given.work)
        return
    rows = load(given.work)
    text = json.dumps(clips(rows, given) if given.step == "clips" else measure(rows), indent=1)
    print(text)
    if given.json:
        given.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
