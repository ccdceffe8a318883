"""What a model's folder tells of its training, and what a training will take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib_vitface import options
from lib_vitface.errors import InputError
from lib_vitface.training.settings import TrainOptions
from lib_vitface.ui import markup, plots
from lib_vitface.ui.runner import Runner, task_named

_LOG = "loss.jsonl"
_LONGEST = 4 << 20  # bytes of the end of a log that are read
_SHOWN = ("total", "dssim", "l1", "mask")
_BYTES_PER_PARAMETER = 20  # weight, gradient, two moments, average; float32 each
_MEASURED = 50


def previews(folder: Path) -> list[Path]:
    """Pictures of progress, oldest first."""
    return sorted((folder / "previews").glob("step-*.png"))


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The last steps of a model's log."""
    path = folder / _LOG
    try:
        with path.open("rb") as file:
            file.seek(max(path.stat().st_size - _LONGEST, 0))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            one = json.loads(line)
        except ValueError:
            continue  # cut by the limit, or being written
        if isinstance(one, dict) and "step" in one:
            found.append(one)
    return found


def loss_plot(folder: Path) -> str:
    """The loss over the steps; empty before the first."""
    log = read_log(folder)
    if len(log) < 2:
        return ""
    series: dict[str, list[float]] = {}
    places: list[float] = []
    for name in _SHOWN:
        values = [float(step[name]) for step in log if name in step]
        if len(values) == len(log):
            places, series[name] = plots.thin(values)
    first = int(log[0]["step"])
    return plots.lines(series, "Loss", "step", [first + place for place in places])


def seconds_per_step(folder: Path) -> float | None:
    """Mean of the last steps of a model's own training on this machine."""
    log = read_log(folder)[-_MEASURED:]
    if len(log) < 2:
        return None
    spent, steps = float(log[-1]["s"]) - float(log[0]["s"]), int(log[-1]["step"]) - int(log[0]["step"])
    return spent / steps if steps > 0 and spent > 0 else None


def estimate(runner: Runner, values: Mapping[str, Any]) -> str:
    """Size, memory and time of a training, said as what it is: measured, or not known yet."""
    ready = options.build(TrainOptions, runner.site.place(task_named("train"), values))
    parameters, resolution = size_of(ready)
    weights = parameters * _BYTES_PER_PARAMETER / 2**20
    rows: list[tuple[str, Any]] = [
        ("Network", f"{parameters / 1e6:.1f} million parameters, works on {resolution} × {resolution} px"),
        (
            "Memory for its weights and learning",
            f"{weights:.0f} MiB, and more for the pictures of a step (batch {ready.batch})",
        ),
    ]
    measured = _measured_alike(runner, ready, resolution)
    if measured is None:
        rows.append(("Time", "not measured on this machine yet; the first minute of training tells"))
    else:
        each, name = measured
        rows.append(("One step", f"{each:.2f} s, as measured here when training “{name}”"))
        if ready.steps:
            rows.append((f"{ready.steps} steps", markup.seconds(each * ready.steps)))
        else:
            rows.append(("In the time given", f"about {(ready.minutes or 30) * 60 / each:.0f} steps"))
    return markup.table(rows)


def size_of(ready: TrainOptions) -> tuple[int, int]:
    """Number of parameters, and side of the network's picture."""
    import torch

    from lib_vitface.models.swapper import build_model
    from lib_vitface.training.trainer import make_config

    config = make_config(ready)
    with torch.device("meta"):
        model = build_model(config)
    return sum(parameter.numel() for parameter in model.parameters()), config.resolution


def _measured_alike(runner: Runner, ready: TrainOptions, resolution: int) -> tuple[float, str] | None:
    """Seconds a step of a model of the same kind and size took with the same batch, and its name."""
    from lib_vitface.models.checkpoint import open_model

    for job in runner.jobs("train"):
        if job.options.get("batch") != ready.batch or job.options.get("preset") != ready.preset:
            continue
        folder = Path(str(job.options.get("model")))
        try:
            config = open_model(folder).config
        except InputError:
            continue
        each = seconds_per_step(folder)
        if each and config.resolution == resolution and config.kind == ready.encoder:
            return each, folder.name
    return None
