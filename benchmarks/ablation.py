"""What each part of the vit model is worth: named settings, equal wall-clock time, the same seeds, footage none has seen.

    python benchmarks/ablation.py --source a.mp4 --target b.mp4 --output DIR --minutes 20 [--seeds 0 1] [--rows vit +temporal]
                                  [--background]

Rows train one after the other, so the machine should have nothing else to do; with `--background` the queue runs in a process of its
own that outlives the terminal, and writes to DIR/queue.log. The same command goes on where a run was stopped or killed: finished rows
are read, an unfinished one trains on from its last save until it has had its minutes. A row that fails is named in the result and
tried again the next time. `ablation.json` holds every row with every seed, `ablation.md` a table: means over the seeds, and beside
each the difference to `vit` of the same seed, mean and spread. `sheet.png` shows the same moments of every row, `pictures/ROW.png`
what a row's model does at them. All of them are written anew after each row. Of a model that draws
somebody who did not agree there are figures only, no video and no picture.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lib_vitface import media
from lib_vitface.errors import Cancelled, ViTFaceError
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.faceset.writer import sole_right
from lib_vitface.options import build
from lib_vitface.swap import pictures
from lib_vitface.swap.frame import ModelSwapper
from lib_vitface.tasks import steps
from lib_vitface.tasks.benchmark import Benchmark, value_of, withheld
from lib_vitface.tasks.settings import BenchmarkOptions
from lib_vitface.training.trainer import JUDGED
from lib_vitface.types import Face, Host, Image

BASE = "vit"
ROWS: dict[str, dict[str, Any]] = {
    "saehd-df": {"encoder": "saehd-df"},
    "saehd-liae": {"encoder": "saehd-liae"},
    BASE: {},
    "+efficientnet-concat": {"local_features": "concat"},
    "+efficientnet-attention": {"local_features": "attention"},
    "+views": {"memory_views": 12},
    "+morphable": {"morphable": "both"},
    "+temporal": {"clip_frames": 4},
    "+temporal-loss": {"clip_frames": 4, "weight_temporal": 5},
    "+geometry": {"weight_geometry": 1},
    "+geometry-temporal": {"clip_frames": 4, "weight_temporal": 5, "weight_geometry": 1},
    "+identity": {"weight_identity": 5},
    "+multi-scale": {"dssim_scales": 3},
    "+gan": {"weight_gan": 0.1},
    "+agda": {"attention_guided": 0.5},
    "+mask-random": {"mask_patches": 0.25, "mask_pattern": "random"},
    "+mask-block": {"mask_patches": 0.25, "mask_pattern": "block"},
    "+mask-attention": {"mask_patches": 0.25, "mask_pattern": "attention"},
    "+objects": {"cover_shapes": "all"},
    "+camera": {"recipe": "camera"},
    "+renderer": {"renderer": True},
    "-disguise": {"disguise": 0},
    "all": {
        "local_features": "attention", "memory_views": 12, "morphable": "both", "clip_frames": 4, "weight_temporal": 5,
        "weight_geometry": 1, "weight_identity": 5, "attention_guided": 0.5, "mask_patches": 0.25, "cover_shapes": "all",
        "renderer": True,
    },
}  # fmt: skip
MAIN = (
    "saehd-df", "saehd-liae", BASE, "+efficientnet-concat", "+efficientnet-attention", "+morphable", "+views", "+temporal",
    "+geometry-temporal", "+agda", "+mask-block", "+renderer", "all",
)  # fmt: skip
"""The rows that are trained where none are named, SAEHD first: the others are measured against its quality, too."""
COLUMNS = {
    "held out PSNR dB": ("redrawn", "likeness", "face_psnr_db", "median"),
    "SSIM": ("redrawn", "likeness", "face_ssim", "median"),
    "redrawn Fréchet (SFace)": ("redrawn", "distribution", "frechet_sface", "result_to_target"),
    "identity (dlib)": ("swapped", "identity", "source_cosine"),
    "identity, yaw > 30°": ("swapped", "identity", "by_yaw"),
    "pose error °": ("swapped", "geometry", "pose_error_deg", "median"),
    "expression error": ("swapped", "geometry", "expression", "error"),
    "flicker ratio": ("swapped", "temporal", "flicker", "ratio"),
    "warping error ratio": ("swapped", "temporal", "warping_error", "ratio"),
    "along its own flow": ("swapped", "temporal", "warping_error_own_flow", "ratio"),
}
_FAR_DEG, _FRONT_DEG = 30, 15
_SAVES = 24  # over a row's training, at which its quality is measured
_MOMENTS = 6
JUDGE = "saehd-df"


class Ablation(Benchmark):
    """A benchmark whose models are rows with seeds, `+views#1`."""

    def settings(self, name: str) -> dict[str, Any]:
        """Options of training of a row."""
        row, seed = name.split("#")
        saves = max(self.options.minutes / _SAVES, 0.05)
        return {"preset": self.preset, **ROWS[row], "seed": int(seed), "save_minutes": saves, "backup_hours": 0}

    def __init__(self, options: BenchmarkOptions, host: Host, preset: str, score_every: int = 1) -> None:
        super().__init__(options, host)
        self.preset, self.score_every = preset, score_every

    def scoring(self, redrawn: bool) -> dict[str, Any]:
        """Whose face the target redrawn is, is no question: the quicker network does."""
        return {"scorer": "sface" if redrawn else self.options.scorer, "every": self.score_every}

    def row(self, name: str) -> dict[str, Any]:
        """Figures of one row, kept beside its model: a second call only reads them."""
        kept = self.folder / f"{name}.row.json"
        if not kept.exists():
            found = self.model(name)
            for part in ("redrawn", "swapped"):
                scored = self.folder / f"{name}-{part}.json"
                measured = json.loads(scored.read_text(encoding="utf-8")) if scored.exists() else {}
                found[part]["figures"] = {c: pick(measured, way[1:]) for c, way in COLUMNS.items() if way[0] == part}
                found[part]["by_yaw"] = measured.get("identity", {}).get("by_yaw", [])
            found["curve"] = curve(self.folder / name / JUDGED)
            self.write(kept.name, json.dumps(found, indent=1))
        return json.loads(kept.read_text(encoding="utf-8"))

    def moments(self) -> list[tuple[Image, Face]]:
        """Frames of the unseen part, each with its largest face."""
        look, found = Analyser(make_detector(), MeshLandmarker()), []
        frames = list(media.read_frames(self.options.target, self.end_s, None))
        for index in np.linspace(0, len(frames) - 1, _MOMENTS).astype(int):
            faces = [f for f in look(frames[index].image) if f.landmarks is not None]
            if faces:
                found.append((frames[index].image, max(faces, key=lambda f: float(np.prod(f.box[2:] - f.box[:2])))))
        return found


def curve(path: Path) -> list[tuple[float, float]]:
    """Seconds of training and held-out PSNR at each save of a model."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [(line["s"], line["psnr_db"]) for line in lines]


def seconds_to(reached: list[tuple[float, float]], quality: float) -> float | None:
    """When a curve first reaches a quality, linear between saves; None where it never does."""
    for (s, psnr), (later, better) in itertools.pairwise([(0.0, -math.inf), *reached]):
        if better >= quality:
            share = 1.0 if psnr == -math.inf else (quality - psnr) / max(better - psnr, 1e-9)
            return s + share * (later - s)
    return None


def pick(measured: dict[str, Any], way: tuple[str, ...]) -> float | None:
    """A figure of an evaluation, None where it was not measured. Of `by_yaw` the mean over faces turned further than 30°."""
    found: Any = measured
    for name in way:
        found = found.get(name) if isinstance(found, dict) else None
    if isinstance(found, list):
        found = cosine_of(found, _FAR_DEG, 180)
    return float(found) if isinstance(found, (int, float)) else None


def cosine_of(bands: list[dict[str, Any]], low: float, high: float) -> float | None:
    """Mean identity over the faces whose yaw lies in bands between two angles."""
    chosen = [b for b in bands if low <= b["yaw_deg"][0] < high and b["frames"] and b["source_cosine"] is not None]
    count = sum(b["frames"] for b in chosen)
    return sum(b["frames"] * b["source_cosine"] for b in chosen) / count if count else None


def figures_of(row: dict[str, Any], judge: dict[str, Any] | None = None) -> dict[str, float | None]:
    """Every column of a row; `judge` is the row whose quality at its end is to be reached."""
    bands = row.get("swapped", {}).get("by_yaw", [])
    front, far = cosine_of(bands, 0, _FRONT_DEG), cosine_of(bands, _FAR_DEG, 180)
    reached = judge.get("curve") if judge else None
    further = {
        "identity, side to front": far / front if far is not None and front else None,
        f"s to {JUDGE}'s quality": seconds_to(row.get("curve", []), reached[-1][1]) if reached else None,
    }
    shown = {c: row.get(way[0], {}).get("figures", {}).get(c) for c, way in COLUMNS.items()}
    return {**shown, **further, "steps": row["training"]["step"], "parameters": value_of(row, "parameters")}


def summary(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, float | None]]]:
    """By row and column: `mean` over the seeds; `difference` and `spread`, mean and deviation of the differences to `vit` of the
    same seed (`spread` None for one seed)."""
    figures = {name: figures_of(row, rows.get(f"{JUDGE}#{name.split('#')[1]}")) for name, row in rows.items()}
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in dict.fromkeys(name.split("#")[0] for name in rows):
        seeds = {n.split("#")[1]: f for n, f in figures.items() if n.split("#")[0] == row}
        found[row] = {}
        for column in next(iter(seeds.values())):
            values = [f[column] for f in seeds.values() if f[column] is not None]
            pairs = [(f[column], figures.get(f"{BASE}#{s}", {}).get(column)) for s, f in seeds.items()]
            gaps = [a - b for a, b in pairs if a is not None and b is not None]
            found[row][column] = {
                "mean": statistics.fmean(values) if values else None,
                "difference": statistics.fmean(gaps) if gaps and row != BASE else None,
                "spread": statistics.stdev(gaps) if len(gaps) > 1 and row != BASE else None,
            }
    return found


def table(found: dict[str, dict[str, dict[str, float | None]]]) -> str:
    """Markdown; each cell a mean and, in brackets, the difference to `vit`."""
    columns = list(next(iter(found.values())))
    lines = ["| row | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]
    for row, cells in found.items():
        shown = []
        for column in columns:
            cell = cells[column]
            text = "–" if cell["mean"] is None else f"{cell['mean']:.4g}"
            if cell["difference"] is not None:
                text += (
                    f" ({cell['difference']:+.2g}"
                    + ("" if cell["spread"] is None else f" ± {cell['spread']:.1g}")
                    + ")"
                )
            shown.append(text)
        lines.append(f"| {row} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def sheet(folder: Path, names: list[str], moments: int = 6, height: int = 240) -> np.ndarray:
    """The same moments of every row's swapped video, a line a row."""
    lines = []
    for name in names:
        frames = [frame.image for frame in media.read_frames(folder / f"{name}-swapped.mp4")]
        chosen = [frames[int(k)] for k in np.linspace(0, len(frames) - 1, moments)]
        width = round(chosen[0].shape[1] * height / chosen[0].shape[0])
        line = np.hstack([cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in chosen])
        cv2.putText(line, name, (6, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 0), 2, cv2.LINE_AA)
        lines.append(line)
    return np.vstack(lines)


def run(given: argparse.Namespace) -> dict[str, Any]:
    """Every row with every seed, those of the first seed first."""
    names = [f"{row}#{seed}" for seed in given.seeds for row in given.rows]
    values = {
        "source": given.source, "target": given.target, "output": given.output, "minutes": given.minutes,
        "resolution": given.resolution, "seen": given.seen, "every": given.every,
    }  # fmt: skip
    given.output.mkdir(parents=True, exist_ok=True)
    options = dataclasses.replace(build(BenchmarkOptions, values), models=names)
    bench = Ablation(options, Host(given.output / "workspace"), given.preset, given.score_every)
    bench.end_s = float(media.probe(given.target).duration) * given.seen
    with sole_right(given.output):
        return queue(bench, names)


def queue(bench: Ablation, names: list[str]) -> dict[str, Any]:
    """Row after row; what is known so far is written after each."""
    bench.facesets()
    moments = bench.moments()
    rows: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    result: dict[str, Any] = {}
    for name in names:
        began = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            rows[name] = bench.row(name)
        except Cancelled:
            raise
        except ViTFaceError as error:
            failed[name] = str(error)
        found = summary(rows)
        options = bench.options
        result = {
            "minutes": options.minutes,
            "preset": bench.preset,
            "resolution": options.resolution,
            "unseen_from_s": bench.end_s,
            "scored_every": bench.score_every,
            "waiting": names[len(rows) + len(failed) :],
            "failed": failed,
            "rows": rows,
            "summary": found,
        }
        bench.write("ablation.json", json.dumps(result, indent=1) + "\n")
        bench.write("ablation.md", table(found) if found else "No row is done yet.\n")
        said = {name: failed.get(name) or figures_of(rows[name], rows.get(f"{JUDGE}#{name.split('#')[1]}"))}
        print(json.dumps({"begun": began, **said}), file=sys.stderr, flush=True)
        if name in rows:
            show(bench, name, [row for row in rows if not withheld(rows[row])], moments)
    return result


def show(bench: Ablation, name: str, done: list[str], moments: list[tuple[Image, Face]]) -> None:
    """The pictures of a row, and those of all rows that are done and may be shown."""
    if name not in done:
        return
    door = steps.publisher_of(bench.folder / name, bench.host.workspace)
    place = bench.folder / "pictures" / f"{name}.png"
    if moments and not place.exists():
        place.parent.mkdir(exist_ok=True)
        door.image(place, pictures.sheet(ModelSwapper(bench.folder / name), moments))
    door.image(bench.folder / "sheet.png", sheet(bench.folder, done))


def in_background(arguments: list[str], output: Path) -> int:
    """The same command without `--background`, in a process that outlives this one; returns its number."""
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(Path(__file__).resolve()), *(a for a in arguments if a != "--background")]
    with (output / "queue.log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True).pid


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0, help="training of each row")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--rows", nargs="+", default=list(MAIN), choices=list(ROWS), metavar="ROW", help=", ".join(ROWS)
    )
    parser.add_argument("--background", action="store_true", help="in a process of its own; see DIR/queue.log")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--resolution", type=int, default=192)
    parser.add_argument("--seen", type=float, default=0.7, help="share of the target clip that may be learned from")
    parser.add_argument("--score-every", type=int, default=1, help="score every n-th frame")
    parser.add_argument("--every", type=int, default=1, help="build the facesets of every n-th frame")
    return parser


if __name__ == "__main__":
    asked = make_parser().parse_args()
    if asked.background:
        print(in_background(sys.argv[1:], asked.output))
    else:
        print(json.dumps(run(asked)["summary"], indent=1))
