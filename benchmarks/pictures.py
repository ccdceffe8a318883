"""Pictures of trained models at moments of some footage: a sheet for each model, and one with all of them side by side.

    python benchmarks/pictures.py --models MODEL [MODEL ...] --input film.mp4 --output DIR [--moments 6] [--workspace DIR]

The sheet of a model has rows for the footage, its attention (rollout), what the texture memory drew, the result, the mask, the depth
of the mesh, with a volume what that shows and its depth, and the views that were used. All pictures are marked. Each model's consent
record must hold, as for swapping.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.metrics.source import even_sample, face_from, faces_in_media
from lib_vitface.swap import pictures
from lib_vitface.swap.frame import ModelSwapper
from lib_vitface.tasks import steps
from lib_vitface.types import Face, Image, no_tick

SIDE_BY_SIDE = "side_by_side.png"


def moments_of(path: Path, count: int) -> list[tuple[Image, Face]]:
    """Pictures spread over some media, each with the largest face in it. Raises `NoFaceError` without any."""
    found = faces_in_media(path, Analyser(make_detector(), MeshLandmarker()), 2 * count, no_tick)
    return [(image, face_from(landmarks)) for image, landmarks in even_sample(found, count)]


def draw(models: Sequence[Path], moments: Sequence[tuple[Image, Face]], output: Path, workspace: Path) -> list[Path]:
    """Writes the sheets into `output`; returns their paths, that of the one with all models last."""
    output.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Sequence[Image]] = {"footage": [frame for frame, _ in moments]}
    written = []
    for folder in models:
        door = steps.publisher_of(folder, workspace)
        swapper = ModelSwapper(folder)
        rows[folder.name] = pictures.results(swapper, moments)
        written.append(output / f"{folder.name}.png")
        door.image(written[-1], pictures.sheet(swapper, moments))
    written.append(output / SIDE_BY_SIDE)
    door.image(written[-1], pictures.side_by_side(rows))
    return written


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--models", type=Path, nargs="+", required=True)
    parser.add_argument("--input", type=Path, required=True, help="video, picture or folder of pictures")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--moments", type=int, default=6)
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    return parser


if __name__ == "__main__":
    given = make_parser().parse_args()
    made = draw(given.models, moments_of(given.input, given.moments), given.output, given.workspace)
    print(json.dumps([str(path) for path in made]))
