"""The vit presets against the SAEHD baseline: same facesets, same wall-clock time, same footage that neither has seen.

    python benchmarks/vit_vs_saehd.py --source a.mp4 --target b.mp4 --work DIR --minutes 10 [--resolution 192] [--seen 0.7]

The target's faceset is made of the first part of its clip only. On the rest every model (1) redraws the target as itself, which is
compared with the truth pixel by pixel (PSNR, SSIM inside the face), and (2) puts the source's face in, of which identity, landmark
distance and flicker are measured. Models train one after the other; run it on an otherwise idle machine. One JSON object comes out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from lib_vitface import media
from lib_vitface.errors import NoFaceError
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.jobs import JobStore
from lib_vitface.metrics.settings import EvaluateOptions
from lib_vitface.options import build
from lib_vitface.swap.frame import SOURCE, TARGET, ModelSwapper
from lib_vitface.swap.picture import swap_input
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.tasks import steps
from lib_vitface.training.settings import TrainOptions
from lib_vitface.types import Host


def compare(given: argparse.Namespace) -> dict[str, Any]:
    """Trains and scores every encoder; figures by encoder."""
    work: Path = given.work
    host = Host(work / "workspace")
    end_s = float(media.probe(given.target).duration) * given.seen
    for name, path, until in (("source", given.source, None), ("target", given.target, end_s)):
        steps.faceset(build(FacesetOptions, {"input": [path], "output": work / name, "end_s": until}), host)
    rows = {}
    for encoder in given.encoders:
        model = work / encoder
        values = {
            "source": work / "source", "target": work / "target", "model": model, "encoder": encoder,
            "minutes": given.minutes, "preset": given.preset, "resolution": given.resolution, "preview_steps": 0,
        }  # fmt: skip
        trained = steps.train(build(TrainOptions, values), host)
        rows[encoder] = {
            **{k: trained[k] for k in ("step", "parameters", "precision", "samples_per_s")},
            **score(given, host, model, end_s),
        }
        print(json.dumps({encoder: rows[encoder]}), file=sys.stderr, flush=True)
    return {"minutes": given.minutes, "resolution": given.resolution, "unseen_from_s": end_s, "encoders": rows}


def score(given: argparse.Namespace, host: Host, model: Path, start_s: float) -> dict[str, Any]:
    """Figures of one model on the unseen part."""
    found: dict[str, Any] = {}
    for identity, name in ((TARGET, "redrawn"), (SOURCE, "swapped")):
        output = model.with_name(f"{model.name}-{name}.mp4")
        values = {"model": model, "input": given.target, "output": output, "start_s": start_s, "overwrite": True}
        # By the outline: a mask that a model has hardly learned yet would show the footage, and that would be scored.
        values |= {"mask": "hull", "occlusion": False}
        if identity == TARGET:  # the model's own pixels, not ones that were brought back to the footage's colours
            values |= {"color": "none", "relight": 0, "blend": "alpha"}
        options = build(SwapOptions, values)
        swapper = ModelSwapper(model, identity=identity)
        swap_input(options, swapper, steps.publisher_of(model, host.workspace), JobStore(host.workspace))
        try:
            measured = steps.evaluate(
                build(
                    EvaluateOptions,
                    {
                        "source": given.work / ("target" if identity == TARGET else "source"), "target": given.target,
                        "result": output, "start_s": start_s, "self_reenactment": identity == TARGET,
                        "json": output.with_suffix(".json"),
                    },
                ),
                host,
            )  # fmt: skip
            found[name] = figures(measured, identity == TARGET)
        except NoFaceError:  # what was drawn is no face yet
            found[name] = {"face_found": False}
    return found


def figures(measured: dict[str, Any], redrawn: bool) -> dict[str, Any]:
    """What the table shows."""
    common = {
        "identity_cosine": measured["identity"]["source_cosine"],
        "landmark_distance": measured["geometry"]["landmark_distance"]["median"],
        "flicker_ratio": measured["temporal"]["flicker"]["ratio"],
        "sharpness_ratio": measured["sharpness"]["ratio"],
    }
    if redrawn:
        return {**measured["likeness"], **common}
    return {"share_nearer_source": measured["identity"]["share_nearer_source"], **common}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--resolution", type=int, default=192)
    parser.add_argument("--seen", type=float, default=0.7, help="share of the target clip that may be learned from")
    parser.add_argument("--encoders", nargs="+", default=["vit", "saehd-df", "saehd-liae"])
    print(json.dumps(compare(parser.parse_args()), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
