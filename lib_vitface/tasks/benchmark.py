"""The task `benchmark`: kinds of model against each other, at equal wall-clock time, on footage that none has seen.

The target's faceset is made of the first part of its clip only. On the rest every model (1) redraws the target as itself, which is
compared with the truth pixel by pixel (PSNR, SSIM inside the face), and (2) puts the source's face in, of which identity, landmark
distance and flicker are measured. Models train one after the other, with the same options but their kind.

New faces are held against the consent record as in `swap`. A model that has learned badly may draw somebody else than who agreed;
it is measured all the same, for the figures are what was asked for, but its video is deleted once it is scored, and the row says
why (`withheld`).
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_vitface import __version__, device, media
from lib_vitface.errors import InputError, NoFaceError
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.media.container import beside, writing
from lib_vitface.metrics.settings import EvaluateOptions
from lib_vitface.options import build
from lib_vitface.provenance import audit
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.tasks import steps
from lib_vitface.tasks.settings import BenchmarkOptions
from lib_vitface.training.settings import TrainOptions
from lib_vitface.types import Floats, Host

if TYPE_CHECKING:
    import torch

    from lib_vitface.models.runtime import Network

JSON, TABLE = "benchmark.json", "benchmark.md"
_KIND = "vitface-benchmark"
COLUMNS = {
    "held out PSNR dB": ("redrawn", "face_psnr_db"),
    "SSIM": ("redrawn", "face_ssim"),
    "identity": ("swapped", "identity_cosine"),
    "nearer to source": ("swapped", "share_nearer_source"),
    "landmarks": ("swapped", "landmark_distance"),
    "flicker": ("swapped", "flicker_ratio"),
    "sharpness": ("swapped", "sharpness_ratio"),
    "samples/s": ("training", "samples_per_s"),
    "parameters": ("training", "parameters"),
    "swap frames/s": ("swapping", "frames_per_s"),
    "peak MB": ("training", "peak_memory_mb"),
}
_LOWER = {"landmarks", "flicker", "peak MB", "parameters"}


def benchmark(options: BenchmarkOptions, host: Host) -> dict[str, Any]:
    """Trains and scores every model; figures as JSON and as a table in `options.output`. The same command goes on where it stopped."""
    before = None if options.vs is None else read_stored(options.vs)
    return Benchmark(options, host).all(before)


def read_stored(path: Path) -> dict[str, Any]:
    """A result that was stored before. Raises `InputError` where the file is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as a result ({error}); name a {JSON} that `benchmark` wrote."
        ) from None
    if not isinstance(found, dict) or found.get("kind") != _KIND or not isinstance(found.get("models"), dict):
        raise InputError(f"{path}: is no stored result; name a {JSON} that `benchmark` wrote.")
    return found


class Benchmark:
    """One run over the models of its options."""

    def __init__(self, options: BenchmarkOptions, host: Host) -> None:
        self.options, self.host, self.folder = options, host, options.output
        self.parts = 2 + 3 * len(options.models)
        self.done = 0

    def all(self, before: dict[str, Any] | None) -> dict[str, Any]:
        for path in (self.options.source, self.options.target):
            media.list_media([path])
        if not media.is_video(self.options.target):
            raise InputError(f"{self.options.target}: is no video; a part of it must be kept from learning.")
        self.end_s = float(media.probe(self.options.target).duration) * self.options.seen
        result: dict[str, Any] = {
            "kind": _KIND,
            "version": __version__,
            "machine": dataclasses.asdict(device.describe(device.pick_device(self.options.device))),
            "minutes": self.options.minutes,
            "resolution": self.options.resolution,
            "unseen_from_s": self.end_s,
            "extraction": self.facesets(),
            "models": {name: self.model(name) for name in self.options.models},
        }
        if before is not None:
            result["against"] = against(result, before)
        self.write(JSON, json.dumps(result, indent=1) + "\n")
        self.write(TABLE, table(result, before))
        return {**result, "json": str(self.folder / JSON), "table": str(self.folder / TABLE)}

    def write(self, name: str, text: str) -> None:
        """Whole or not at all."""
        path = self.folder / name
        with beside(path) as temporary, writing(path):
            temporary.write_text(text, encoding="utf-8")

    @contextmanager
    def part(self, name: str) -> Iterator[Host]:
        """A host whose progress is that of one part of the whole."""

        def tick(done: float, total: float, note: str = "") -> None:
            share = done / total if total else 0.0
            self.host.tick(self.done + share, self.parts, f"{name}: {note}" if note else name)

        yield dataclasses.replace(self.host, tick=tick)
        self.done += 1

    def facesets(self) -> dict[str, Any]:
        """Both facesets, and how fast they were made (None for one that was there already)."""
        found = {}
        for name, path, until in (
            ("source", self.options.source, None),
            ("target", self.options.target, self.end_s),
        ):
            place = self.folder / name
            fresh = not place.exists()
            frames = _frames_of(path, until)
            with self.part(f"faceset of the {name}") as host, device.PeakMemory() as memory:
                began = time.monotonic()
                values = {"input": [path], "output": place, "end_s": until, "every": self.options.every}
                steps.faceset(build(FacesetOptions, values), host)
                seconds = time.monotonic() - began
            looked = None if frames is None else frames / self.options.every
            found[name] = {
                "seconds": round(seconds, 2) if fresh else None,
                "frames_per_s": round(looked / seconds, 2) if fresh and looked else None,
                "peak_memory_mb": round(memory.peak_bytes / 2**20),
            }
        return found

    def settings(self, name: str) -> dict[str, Any]:
        """Options of training that make a model what its name says."""
        return {"encoder": name} if name.startswith("saehd") else {"encoder": "vit", "preset": name}

    def model(self, name: str) -> dict[str, Any]:
        """Training and all figures of one model."""
        values = {
            "source": self.folder / "source", "target": self.folder / "target", "model": self.folder / name,
            "minutes": self.options.minutes, "resolution": self.options.resolution, "preview_steps": 0,
            "device": self.options.device, **self.settings(name),
        }  # fmt: skip
        with self.part(f"training {name}") as host, device.PeakMemory() as memory:
            trained = steps.train(build(TrainOptions, values), host)
        kept = ("step", "parameters", "precision", "samples_per_s", "wait_share", "held_out_loss")
        training = {k: trained[k] for k in kept}
        row: dict[str, Any] = {"training": {**training, "peak_memory_mb": round(memory.peak_bytes / 2**20)}}
        for part, redrawn in (("redrawn", True), ("swapped", False)):
            with self.part(f"{name} {part}") as host:
                output, row["swapping"], fault = self.swap(name, host, redrawn=redrawn)
                try:
                    row[part] = self.score(output, host, redrawn=redrawn)
                finally:
                    if fault:
                        output.unlink(missing_ok=True)
                if fault:
                    row[part]["withheld"] = fault
                    audit.note(host.workspace, "refused", task="benchmark", reason=fault)
        return row

    def swap(self, name: str, host: Host, *, redrawn: bool) -> tuple[Path, dict[str, Any], str]:
        """The unseen part with the source's face, or with the target's own drawn anew; how fast that was; and the sentence that
        says why nobody may have it, mostly empty."""
        from lib_vitface.jobs import JobStore
        from lib_vitface.models.checkpoint import open_model
        from lib_vitface.swap.frame import SOURCE, TARGET, ModelSwapper
        from lib_vitface.swap.picture import swap_input

        model = self.folder / name
        output = self.folder / f"{name}-{'redrawn' if redrawn else 'swapped'}.mp4"
        values = {
            "model": model,
            "input": self.options.target,
            "output": output,
            "start_s": self.end_s,
            "overwrite": True,
        }
        # By the outline: a mask that a model has hardly learned yet would show the footage, and that would be scored.
        values |= {"mask": "hull", "occlusion": False, "device": self.options.device}
        if redrawn:  # the model's own pixels, not ones that were brought back to the footage's colours
            values |= {"color": "none", "relight": 0, "blend": "alpha"}
        checkpoint = open_model(model)
        record = steps.model_record(model, checkpoint.consent_id, host.workspace)
        plain = ModelSwapper(checkpoint, identity=TARGET if redrawn else SOURCE, device=self.options.device)
        plain.network = network = Timed(plain.network)
        swapper = steps.watched(plain, record, host.workspace, stops=False)
        publisher = steps.publisher_of(model, host.workspace)
        with device.PeakMemory() as memory:
            done = swap_input(build(SwapOptions, values), swapper, publisher, JobStore(host.workspace), host.tick)
        seconds = done["seconds"].get("swap", {}).get("wall")
        facts = {
            "frames_per_s": round(done["frames"] / seconds, 2) if seconds else None,
            "seconds": done["seconds"],
            "network_s": round(network.busy_s, 6),
            "wall_over_network": round(seconds / network.busy_s, 3) if seconds and network.busy_s else None,
            "peak_memory_mb": round(memory.peak_bytes / 2**20),
        }
        return output, facts, swapper.fault()

    def scoring(self, redrawn: bool) -> dict[str, Any]:
        """Options of `evaluate` that say how closely a result is looked at."""
        return {"scorer": self.options.scorer}

    def score(self, output: Path, host: Host, *, redrawn: bool) -> dict[str, Any]:
        """Figures of one result."""
        values = {
            "source": self.folder / ("target" if redrawn else "source"), "target": self.options.target, "result": output,
            "start_s": self.end_s, "self_reenactment": redrawn, "json": output.with_suffix(".json"), **self.scoring(redrawn),
        }  # fmt: skip
        try:
            return figures(steps.evaluate(build(EvaluateOptions, values), host), redrawn)
        except NoFaceError:  # what was drawn is no face yet
            return {"face_found": False}


class Timed:
    """A network that counts the seconds it works."""

    def __init__(self, network: Network) -> None:
        self._network, self.busy_s = network, 0.0

    @property
    def device(self) -> torch.device | None:
        return self._network.device

    def __call__(self, inputs: Mapping[str, Floats]) -> tuple[Floats, Floats]:
        began = time.monotonic()
        try:
            return self._network(inputs)
        finally:
            self.busy_s += time.monotonic() - began


def _frames_of(path: Path, until: float | None) -> float | None:
    """How many frames a video has up to a time; None for anything else."""
    if not media.is_video(path):
        return None
    info = media.probe(path)
    return min(float(info.duration), until or float("inf")) * float(info.fps)


def figures(measured: dict[str, Any], redrawn: bool) -> dict[str, Any]:
    """What is compared, of all that `evaluate` measures; medians over the frames."""
    common = {
        "identity_cosine": measured["identity"]["source_cosine"],
        "landmark_distance": measured["geometry"]["landmark_distance"]["median"],
        "flicker_ratio": measured["temporal"]["flicker"]["ratio"],
        "sharpness_ratio": measured["sharpness"]["ratio"],
    }
    if redrawn:
        return {**{name: values["median"] for name, values in measured["likeness"].items()}, **common}
    return {"share_nearer_source": measured["identity"]["share_nearer_source"], **common}


def withheld(row: dict[str, Any]) -> str:
    """Why a row's videos are for nobody: its model draws somebody who did not agree. Empty for others."""
    return next((str(row[part]["withheld"]) for part in ("redrawn", "swapped") if "withheld" in row.get(part, {})), "")


def value_of(row: dict[str, Any], column: str) -> float | None:
    """A figure of the table."""
    part, name = COLUMNS[column]
    found = row.get(part, {}).get(name)
    return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else None


def against(result: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """For each model that both have: each figure now over that before."""
    found: dict[str, Any] = {}
    for name, row in result["models"].items():
        if name in before["models"]:
            pairs = {c: (value_of(row, c), value_of(before["models"][name], c)) for c in COLUMNS}
            found[name] = {c: round(a / b, 4) for c, (a, b) in pairs.items() if a is not None and b}
    alike = {k: result[k] == before.get(k) for k in ("minutes", "resolution", "unseen_from_s")}
    machine = {k: result["machine"][k] == before.get("machine", {}).get(k) for k in ("cpu", "torch", "dtype")}
    return {"version": before.get("version"), "ratios": found, "same": {**alike, **machine}}


def table(result: dict[str, Any], before: dict[str, Any] | None) -> str:
    """Markdown: a row a model, and below it the stored result's."""
    machine = result["machine"]
    lines = [
        f"# Benchmark of ViTFace {result['version']}",
        "",
        f"{result['minutes']:g} minutes of training each, {result['resolution']} px, on {machine['cpu']} ({machine['cores']} cores, "
        f"{machine['device']}, {machine['dtype']}), torch {machine['torch']}. Footage from {result['unseen_from_s']:.1f} s on was "
        "not learned from.",
        "",
        "| model | " + " | ".join(f"{c} {'↓' if c in _LOWER else '↑'}" for c in COLUMNS) + " |",
        "|" + "---|" * (len(COLUMNS) + 1),
        *(_row(name, row) for name, row in result["models"].items()),
        *(_row(f"{name} (before)", row) for name, row in (before or {"models": {}})["models"].items()),
        "",
        "| faceset | seconds | frames/s | peak MB |",
        "|---|---|---|---|",
    ]
    for name, facts in result["extraction"].items():
        cells = [facts["seconds"], facts["frames_per_s"], facts["peak_memory_mb"]]
        lines.append(f"| {name} | " + " | ".join("–" if c is None else f"{c:g}" for c in cells) + " |")
    for name, row in result["models"].items():
        reason = withheld(row)
        lines += ["", f"The video of {name} is withheld: {reason}"] if reason else []
    if before is not None:
        other = [name for name, same in result["against"]["same"].items() if not same]
        lines += ["", f"Compared with a result of version {before.get('version')}."]
        lines += [f"Not the same there: {', '.join(other)}."] if other else []
    return "\n".join(lines) + "\n"


def _row(name: str, row: dict[str, Any]) -> str:
    values = [value_of(row, c) for c in COLUMNS]
    cells = ["–" if v is None else f"{v:,.0f}" if abs(v) >= 1000 else f"{v:.3g}" for v in values]
    return f"| {name} | " + " | ".join(cells) + " |"
