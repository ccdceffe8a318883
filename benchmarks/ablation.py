"""What each part of the vit model is worth: named settings, equal wall-clock time, the same seeds, footage none has seen.

    python benchmarks/ablation.py --source a.mp4 --target b.mp4 --output DIR --minutes 20 [--seeds 0 1] [--rows vit +temporal]

Rows train one after the other, so the machine should have nothing else to do. A run that was stopped goes on. `ablation.json`
holds every row with every seed, `ablation.md` a table: means over the seeds, and below each the difference to `vit` of the same
seed, mean and spread. `sheet.png` shows the same moments of every row.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lib_vitface import media
from lib_vitface.options import build
from lib_vitface.tasks import steps
from lib_vitface.tasks.benchmark import Benchmark, value_of
from lib_vitface.tasks.settings import BenchmarkOptions
from lib_vitface.types import Host

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
    "+identity": {"weight_identity": 5},
    "+multi-scale": {"dssim_scales": 3},
    "+gan": {"weight_gan": 0.1},
    "+agda": {"attention_guided": 0.5},
    "+mask-random": {"mask_patches": 0.25, "mask_pattern": "random"},
    "+mask-block": {"mask_patches": 0.25, "mask_pattern": "block"},
    "+mask-attention": {"mask_patches": 0.25, "mask_pattern": "attention"},
    "+objects": {"cover_shapes": "all"},
    "+camera": {"recipe": "camera"},
    "all": {
        "local_features": "attention", "memory_views": 12, "morphable": "both", "clip_frames": 4, "weight_temporal": 5,
        "weight_geometry": 1, "weight_identity": 5, "attention_guided": 0.5, "mask_patches": 0.25, "cover_shapes": "all",
    },
}  # fmt: skip
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
}
_FAR_DEG = 30


class Ablation(Benchmark):
    """A benchmark whose models are rows with seeds, `+views#1`."""

    def settings(self, name: str) -> dict[str, Any]:
        """Options of training of a row."""
        row, seed = name.split("#")
        return {"preset": self.preset, **ROWS[row], "seed": int(seed)}

    def __init__(self, options: BenchmarkOptions, host: Host, preset: str) -> None:
        super().__init__(options, host)
        self.preset = preset

    def row(self, name: str) -> dict[str, Any]:
        """Figures of one row, kept beside its model: a second call only reads them."""
        kept = self.folder / f"{name}.row.json"
        if not kept.exists():
            found = self.model(name)
            for part in ("redrawn", "swapped"):
                scored = self.folder / f"{name}-{part}.json"
                measured = json.loads(scored.read_text(encoding="utf-8")) if scored.exists() else {}
                found[part]["figures"] = {c: pick(measured, way[1:]) for c, way in COLUMNS.items() if way[0] == part}
            self.write(kept.name, json.dumps(found, indent=1))
        return json.loads(kept.read_text(encoding="utf-8"))


def pick(measured: dict[str, Any], way: tuple[str, ...]) -> float | None:
    """A figure of an evaluation, None where it was not measured. Of `by_yaw` the mean over faces turned further than 30°."""
    found: Any = measured
    for name in way:
        found = found.get(name) if isinstance(found, dict) else None
    if isinstance(found, list):
        far = [b for b in found if b["yaw_deg"][0] >= _FAR_DEG and b["frames"] and b["source_cosine"] is not None]
        count = sum(b["frames"] for b in far)
        found = sum(b["frames"] * b["source_cosine"] for b in far) / count if count else None
    return float(found) if isinstance(found, (int, float)) else None


def figures_of(row: dict[str, Any]) -> dict[str, float | None]:
    """Every column of a row."""
    shown = {c: row.get(way[0], {}).get("figures", {}).get(c) for c, way in COLUMNS.items()}
    return {**shown, "steps": row["training"]["step"], "parameters": value_of(row, "parameters")}


def summary(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, float | None]]]:
    """By row and column: `mean` over the seeds; `difference` and `spread`, mean and deviation of the differences to `vit` of the
    same seed (`spread` None for one seed)."""
    figures = {name: figures_of(row) for name, row in rows.items()}
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
    bench = Ablation(options, Host(given.output / "workspace"), given.preset)
    bench.end_s = float(media.probe(given.target).duration) * given.seen
    bench.facesets()
    rows = {}
    for name in names:
        rows[name] = bench.row(name)
        found = summary(rows)
        result = {
            "minutes": given.minutes,
            "preset": given.preset,
            "resolution": given.resolution,
            "rows": rows,
            "summary": found,
        }
        bench.write("ablation.json", json.dumps(result, indent=1) + "\n")
        bench.write("ablation.md", table(found))
        print(json.dumps({name: figures_of(rows[name])}), file=sys.stderr, flush=True)
    first = [n for n in names if n.endswith(f"#{given.seeds[0]}")]
    door = steps.publisher_of(given.output / first[0], given.output / "workspace")
    door.image(given.output / "sheet.png", sheet(given.output, first))
    return result


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0, help="training of each row")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW", help=", ".join(ROWS)
    )
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--resolution", type=int, default=192)
    parser.add_argument("--seen", type=float, default=0.7, help="share of the target clip that may be learned from")
    parser.add_argument("--every", type=int, default=1, help="build the facesets of every n-th frame")
    return parser


if __name__ == "__main__":
    print(json.dumps(run(make_parser().parse_args())["summary"], indent=1))
