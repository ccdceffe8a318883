"""A trained model as an ONNX file in a model folder of its own: swapping from it needs neither torch nor transformers.

The folder is a model folder like any other (`models.checkpoint`), with the part `onnx` where the weights were. The network in it
draws the source only. Beside it lie the two texture memories that swapping reads; the task adds the consent record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lib_vitface import __version__
from lib_vitface import device as devices
from lib_vitface.assets import digest
from lib_vitface.errors import CheckpointError, MissingDependencyError, OutputError
from lib_vitface.faces import align
from lib_vitface.faces.landmarks import with_landmarks
from lib_vitface.faceset.texture import Expression, TextureMemory, spread_views
from lib_vitface.models.checkpoint import Checkpoint, save_model
from lib_vitface.models.config import ViTSwapperConfig
from lib_vitface.models.runtime import BACKENDS, PACKAGES, PART, Network, open_network, quantized, runs
from lib_vitface.models.saehd import SAEHD
from lib_vitface.models.swapper import build_model
from lib_vitface.swap.export_graph import to_int8, write_onnx
from lib_vitface.swap.frame import SOURCE, ModelSwapper
from lib_vitface.types import Batch, Face, Floats, Image, Pose, Tick, no_tick

FILE = "network.onnx"
MOST = 0.5  # grey levels an exported float network may differ by before it is refused
_CLIPS = (1, 3)  # how many clips the check runs at once; the file is made with two
_CALIBRATION, _JUDGED = 24, 8  # pictures that int8 ranges are measured on, and others that the result is judged by
_CLIP = 4  # frames of a clip, for a network that looks at time
_ROUNDS = 5  # alternating rounds of the speed measurement
Inputs = Mapping[str, Floats]


@dataclass(frozen=True)
class Exporting:
    """How: `weights` last, best or soup, `opset` of ONNX, `quantize` none or int8."""

    weights: str = "last"
    opset: int = 18
    quantize: str = "none"


def export_model(checkpoint: Checkpoint, output: Path, how: Exporting, tick: Tick = no_tick) -> dict[str, Any]:
    """Writes the folder `output`, which must not exist; returns what was measured on it, JSON-ready. What a failure leaves in it is
    the caller's to remove.

    Raises `MissingDependencyError` without the packages, `CheckpointError` where the exported network answers otherwise than the
    trained one, `OutputError`.
    """
    needed = ("onnx", "onnxscript", "onnxruntime")
    if not all(util.find_spec(name) for name in needed):
        raise MissingDependencyError(f"`export` needs packages of its own: pip install {' '.join(needed)}")
    if isinstance(checkpoint.config, ViTSwapperConfig) and checkpoint.config.volume_side:
        raise CheckpointError(
            f"{checkpoint.folder}: ONNX cannot express the volume renderer; export a model trained without --renderer."
        )
    tick(0, 4, "drawing pictures to check with")
    part = {"last": "weights"}.get(how.weights, how.weights)
    trained = TrainedSource(checkpoint, part)
    pictures = sample_inputs(checkpoint, trained, _CALIBRATION + _JUDGED)
    try:
        output.mkdir(parents=True)
        tick(1, 4, "writing the network down")
        example = joined(pictures[:2])
        write_onnx(trained.module(list(example)), example, output / FILE, how.opset, _facts(checkpoint, how))
        if how.quantize == "int8":
            tick(2, 4, "measuring ranges for int8")
            to_int8(output / FILE, pictures[_JUDGED:])
        made = _as_folder(checkpoint, output, how)
        tick(3, 4, "comparing with the trained model")
        found = compare(trained, made, pictures[:_JUDGED], open_network(checkpoint, device="cpu", weights=part))
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror or error}).") from error
    return {"bytes": (output / FILE).stat().st_size, **found}


def _facts(checkpoint: Checkpoint, how: Exporting) -> dict[str, str]:
    """What the file says of itself."""
    return {
        "vitface.version": __version__,
        "vitface.model_id": checkpoint.model_id,
        "vitface.consent_id": checkpoint.consent_id or "",
        "vitface.preset": str(checkpoint.notes.get("preset", checkpoint.config.kind)),
        "vitface.kind": checkpoint.config.kind,
        "vitface.resolution": str(checkpoint.config.resolution),
        "vitface.step": str(checkpoint.step),
        "vitface.weights": how.weights,
        "vitface.quantized": how.quantize,
        "torch.version": torch.__version__,
        "transformers.version": metadata.version("transformers"),
    }


def _as_folder(checkpoint: Checkpoint, folder: Path, how: Exporting) -> Checkpoint:
    """Index and memories around the network's file."""
    preset = checkpoint.notes.get("preset", checkpoint.config.kind)
    notes = {"preset": preset, "exported": {"weights": how.weights, "opset": how.opset, "quantized": how.quantize}}
    files, digests = {PART: FILE}, {PART: digest(folder / FILE)}
    made = replace(checkpoint, folder=folder, notes=notes, files=files, digests=digests)
    read = ("memory_source", "memory_target", "morphable")  # what swapping reads besides
    return save_model(made, {name: checkpoint.arrays(name) for name in read if name in checkpoint.files})


class _SourceOnly(nn.Module):
    """The network with the identity fixed: tensors named as `types.Batch` has them in, picture and mask out. `memory` `[1, K, C]` is
    what it remembers of the source's views, where it has a part for that.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], memory: torch.Tensor | None) -> None:
        super().__init__()
        self.network, self.names = network, tuple(names)
        self.memory: torch.Tensor | None
        self.register_buffer("memory", memory)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        values = dict(zip(self.names, tensors, strict=True))
        image = values["image"]
        if isinstance(self.network, SAEHD):  # its `forward` sorts clips by person, which a fixed graph cannot
            colours, mask = self.network.drawn(image.flatten(0, 1), SOURCE)
            return colours.reshape(image.shape), mask.reshape(image[:, :, :1].shape)
        identity = torch.full((image.shape[0],), SOURCE, dtype=torch.int64, device=image.device)
        output = self.network(Batch(**values, identity=identity, memory=self.memory))
        return output.image, output.mask


class TrainedSource:
    """The trained network in float32 on the processor, drawing the source: what an exported one is measured against."""

    device = None

    def __init__(self, checkpoint: Checkpoint, part: str) -> None:
        self._network = build_model(checkpoint.config)
        self._network.load_state_dict(checkpoint.tensors(part))
        if isinstance(checkpoint.config, ViTSwapperConfig):
            self._network.draw_only(SOURCE)  # type: ignore[operator]
        self._network.eval()
        self._memory: torch.Tensor | None = None
        if isinstance(checkpoint.config, ViTSwapperConfig) and checkpoint.config.memory_tokens:
            views = np.ascontiguousarray(checkpoint.arrays("views")["source"].transpose(0, 3, 1, 2)[None])
            with torch.no_grad():
                self._memory = self._network.remember(torch.from_numpy(views).float() / 255)  # type: ignore[operator]

    def module(self, names: Sequence[str]) -> nn.Module:
        """As a module of plain tensors, in the order of `names`."""
        return _SourceOnly(self._network, names, self._memory).eval()

    def __call__(self, inputs: Inputs) -> tuple[Floats, Floats]:
        with torch.inference_mode():
            image, mask = self.module(list(inputs))(*map(torch.from_numpy, inputs.values()))
        return image.numpy(), mask.numpy()


def sample_inputs(checkpoint: Checkpoint, network: Network, count: int) -> list[Inputs]:
    """What the network is shown of `count` clips drawn from the model's own memory of the target; frames, where it knows no time."""
    swapper = ModelSwapper(checkpoint, network=network)
    views = drawn_views(swapper.target, count, 2 * checkpoint.config.resolution)
    if not swapper.context:
        return [swapper.inputs([image], [face]) for image, face in views]
    clips = ([views[(k + i) % count] for i in range(_CLIP)] for k in range(count))
    return [
        swapper.inputs([image for image, _ in clip], [face for _, face in clip], [i / 25 for i in range(_CLIP)])
        for clip in clips
    ]


def drawn_views(memory: TextureMemory, count: int, side: int) -> list[tuple[Image, Face]]:
    """Frames `[side, side, 3]` with the remembered person in them: their most different views, then the same at other sizes."""
    poses = [Expression(p, a) for p, a in zip(memory.points, memory.angles, strict=True)]
    order = spread_views(poses, [1.0] * len(poses), count)
    found = []
    for number in range(count):
        expression = poses[order[number % len(order)]]
        scale = side / 2 / align.HEIGHT_CM * (1 - 0.1 * (number // len(order) % 4))
        turn = align.rotation_of(Pose(float(expression.angles[0]), float(expression.angles[1]), 0.0))
        points = (expression.points * np.array([1, -1, -1])) @ turn.T * scale + np.array([side / 2, side / 2, 0])
        landmarks = points.astype(np.float32)
        drawn = memory.render(landmarks, side, expression)
        shown = (drawn.seen > 0)[..., None]
        image = np.where(shown, np.clip(drawn.image, 0, 255), 96).astype(np.uint8)
        empty = Face(np.zeros(4, np.float32), 1.0, np.zeros((5, 2), np.float32), presence=1.0)
        found.append((image, with_landmarks(empty, landmarks)))
    return found


def joined(pictures: Sequence[Inputs]) -> dict[str, Floats]:
    """Several inputs as one of several clips."""
    return {name: np.concatenate([one[name] for one in pictures]) for name in pictures[0]}


def compare(
    trained: Network, made: Checkpoint, pictures: Sequence[Inputs], eager: Network | None = None
) -> dict[str, Any]:
    """Difference to the `trained` network in float32 and speed against it, of every engine that is installed and of `eager`, which is
    torch as `swap` uses it here (where the processor is good at it, in bfloat16). `onnx` is ONNX Runtime's own kernels,
    `onnx_openvino` the provider of Intel's build, where that is installed.

    `max_difference` is in grey levels of 255 for the picture and in 0..1 for the mask, over clips of other numbers than the file was
    made with; `psnr_db` is that of the picture. Raises `CheckpointError` where ONNX Runtime's float32 is off by more than `MOST`.
    """
    names = [name for name in BACKENDS if util.find_spec(PACKAGES[name]) and runs(made, name)]
    engines: dict[str, Network] = {} if eager is None else {"torch": eager}
    engines |= {name: open_network(made, device="cpu", backend=name, exact=name == "onnx") for name in names}
    if len(devices.onnx_providers("cpu", exact=False)) > 1 and not quantized(made):
        engines["onnx_openvino"] = open_network(made, device="cpu", backend="onnx")
    differences = {name: _difference(trained, engine, pictures) for name, engine in engines.items()}
    off = differences["onnx"]["picture_grey_levels"]
    if not quantized(made) and off > MOST:
        raise CheckpointError(
            f"{made.folder.name}: the exported network is {off} grey levels off the trained one; try another --opset."
        )
    shown = joined(pictures[:4])
    frames = float(np.prod(shown["image"].shape[:2]))
    times = alternating({"torch_float32": trained, **engines}, lambda network: network(shown))
    return {
        "max_difference": differences,
        "seconds_per_frame": {name: round(value / frames, 5) for name, value in times.items()},
        "times_as_fast": {name: round(times["torch_float32"] / value, 2) for name, value in times.items()},
    }


def _difference(trained: Network, engine: Network, pictures: Sequence[Inputs]) -> dict[str, float]:
    gaps = []
    for clips in _CLIPS:
        for start in range(0, len(pictures) - clips + 1, clips):
            shown = joined(pictures[start : start + clips])
            for frames in {1, shown["image"].shape[1]}:
                part = {name: np.ascontiguousarray(values[:, :frames]) for name, values in shown.items()}
                (a, b), (c, d) = trained(part), engine(part)
                gaps.append((float(np.abs(a - c).max()), float(np.abs(b - d).max()), float(((a - c) ** 2).mean())))
    worst, error = np.max(gaps, axis=0), float(np.mean([g[2] for g in gaps]))
    return {
        "picture_grey_levels": round(float(worst[0]) * 255, 5),
        "mask": round(float(worst[1]), 6),
        "psnr_db": round(float(-10 * np.log10(max(error, 1e-12))), 1),
    }


def alternating(runners: Mapping[str, Any], run: Callable[[Any], object], rounds: int = _ROUNDS) -> dict[str, float]:
    """Seconds of `run` for each, the median of `rounds` in which they take turns, after one that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds + 1):
        for name, runner in runners.items():
            began = time.perf_counter()
            run(runner)
            taken[name].append(time.perf_counter() - began)
    return {name: float(np.median(values[1:])) for name, values in taken.items()}
