"""Trained networks as numpy sees them: arrays of a clip in, picture and mask out, whatever engine computes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module, util
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lib_vitface import device as devices
from lib_vitface.errors import CheckpointError, InputError, MissingDependencyError
from lib_vitface.models.checkpoint import Checkpoint
from lib_vitface.models.config import ViTSwapperConfig, person_name
from lib_vitface.types import Floats

if TYPE_CHECKING:
    import torch

    from lib_vitface.types import SwapperOutput

Images = NDArray[np.uint8]  # [V, S, S, 3] RGB
PART = "onnx"
"""The part of a model folder that `export` writes in place of the weights."""
OUTPUTS = ("swapped", "mask")


class Network(Protocol):
    """`inputs` are the fields of `types.Batch` but `identity`; back come `image` [B, T, 3, H, W] and `mask` [B, T, 1, H, W] 0..1.

    `device` is the torch device it computes on, None for an engine that is not torch.
    """

    @property
    def device(self) -> torch.device | None: ...

    def __call__(self, inputs: Mapping[str, Floats]) -> tuple[Floats, Floats]: ...


class TorchNetwork:
    """The trained network itself, in the device's fast number format."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: str,
        weights: str,
        identity: int,
        size: int | None = None,
        references: Images | None = None,
    ) -> None:
        torch = _package("torch", "A trained model needs the package torch (an exported one does not, see `export`)")
        from lib_vitface.models.swapper import build_model

        self.device = devices.pick_device(device)
        self._dtype = devices.fast_dtype(self.device)
        self._identity = identity
        self._network = build_model(checkpoint.config)
        self._network.load_state_dict(checkpoint.tensors(weights))
        if isinstance(checkpoint.config, ViTSwapperConfig):
            self._network.draw_only(identity)  # type: ignore[operator]
        self._network.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        if size is not None:
            self._network.run_at(size)  # type: ignore[operator]
        remembers = isinstance(checkpoint.config, ViTSwapperConfig) and checkpoint.config.memory_tokens > 0
        if references is not None and not remembers:
            raise InputError(
                f"--references: {checkpoint.folder} has no memory of views; train with --memory-views first."
            )
        self._memory = self._remember(checkpoint, references) if remembers else None

    def _remember(self, checkpoint: Checkpoint, references: Images | None) -> torch.Tensor:
        """Memory tokens of all persons, `[P, K, C]`; `references` are further views of the one who is drawn."""
        import torch

        views = checkpoint.arrays("views")
        shown = [views[person_name(number)] for number in range(len(views))]
        if references is not None:
            shown[self._identity] = np.concatenate([shown[self._identity], references])
        found = []
        with torch.inference_mode(), devices.autocast(self.device, self._dtype):
            for pictures in shown:
                ready = np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)[None])
                found.append(self._network.remember(self._tensor(ready).float() / 255))  # type: ignore[operator]
        return torch.cat(found)

    def __call__(self, inputs: Mapping[str, Floats]) -> tuple[Floats, Floats]:
        output = self._run(inputs)
        return output.image.float().cpu().numpy(), output.mask.float().cpu().numpy()

    def inside(self, inputs: Mapping[str, Floats]) -> dict[str, Floats]:
        """What a person may want to see of a vit model's insides, for N frames: `attention` [N, h, w] as `ViTEncoder.rollout`, and of
        a model with a volume its picture `volume` [N, v, v, 3] 0..1 and `depth` [N, v, v] (see `SwapperOutput`)."""
        import torch

        output, encoder = self._run(inputs), getattr(self._network, "encoder", None)
        found = {}
        if hasattr(encoder, "rollout"):
            with torch.inference_mode():
                attention = encoder.rollout(self._tensor(inputs["image"]).flatten(0, 1))  # type: ignore[union-attr]
            found["attention"] = attention.float().cpu().numpy()
        if output.volume is not None and output.depth is not None:
            found["volume"] = output.volume.flatten(0, 1).permute(0, 2, 3, 1).float().cpu().numpy()
            found["depth"] = output.depth.flatten(0, 2).float().cpu().numpy()
        return found

    def _run(self, inputs: Mapping[str, Floats]) -> SwapperOutput:
        import torch

        from lib_vitface.types import Batch

        clips = len(next(iter(inputs.values())))
        tensors = {name: self._tensor(values) for name, values in inputs.items()}
        identity = torch.full((clips,), self._identity, device=self.device)
        batch = Batch(**tensors, identity=identity, memory=self._memory)
        with torch.inference_mode(), devices.autocast(self.device, self._dtype):
            return self._network(batch)

    def _tensor(self, values: Floats | Images) -> torch.Tensor:
        import torch

        tensor = torch.from_numpy(values).to(self.device)
        if tensor.dim() != 5:
            return tensor
        flat = tensor.flatten(0, 1).to(memory_format=torch.channels_last)
        return flat.unflatten(0, tensor.shape[:2])


class OnnxNetwork:
    """An exported network, run by ONNX Runtime; where its build has OpenVINO inside and not `exact`, like `OpenVinoNetwork`."""

    device = None

    def __init__(self, data: bytes, *, device: str, exact: bool = False) -> None:
        runtime = _package("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = devices.threads()
        options.log_severity_level = 3
        providers = devices.onnx_providers(device, exact=exact)
        state = vars(_package("onnxruntime.capi.onnxruntime_pybind11_state"))
        refusals = tuple(v for v in state.values() if isinstance(v, type) and issubclass(v, Exception))
        try:
            self._session: Any = runtime.InferenceSession(data, options, providers=providers)
        except refusals as error:  # they share no parent of their own
            raise RuntimeError(str(error)) from error
        self._wanted = {item.name for item in self._session.get_inputs()}

    def __call__(self, inputs: Mapping[str, Floats]) -> tuple[Floats, Floats]:
        image, mask = self._session.run(list(OUTPUTS), _asked(inputs, self._wanted))
        frames = inputs["image"].shape[1]
        return image[:, :frames], mask[:, :frames]


class OpenVinoNetwork:
    """An exported network, run by OpenVINO: in bfloat16 on processors that multiply it in hardware, else and if `exact` in float32."""

    device = None

    def __init__(self, data: bytes, *, device: str, exact: bool = False) -> None:
        openvino = _package("openvino")
        core = openvino.Core()
        place = _openvino_device(device, core.available_devices)
        settings = devices.openvino_settings(exact=exact) if place == "CPU" else {}
        self._model: Any = core.compile_model(core.read_model(data, b""), place, settings)
        self._wanted = {name for port in self._model.inputs for name in port.get_names()}

    def __call__(self, inputs: Mapping[str, Floats]) -> tuple[Floats, Floats]:
        found = self._model(_asked(inputs, self._wanted))
        frames = inputs["image"].shape[1]
        image, mask = (found[name][:, :frames] for name in OUTPUTS)
        return image, mask


BACKENDS: dict[str, Callable[..., Network]] = {"onnx": OnnxNetwork, "openvino": OpenVinoNetwork}
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}


def pick_backend(checkpoint: Checkpoint, backend: str, device: str = "auto") -> str:
    """ "torch", "onnx" or "openvino": what was asked for, and for "auto" what suits folder, device and installed packages.

    OpenVINO goes first where it is installed and the processor computes; it was the fastest in all measurements. Raises
    `CheckpointError` where the folder does not hold what the backend needs.
    """
    exported = PART in checkpoint.files
    if backend == "auto":
        if not exported:
            return "torch"
        quick = device in {"auto", "cpu"} and util.find_spec("openvino") and runs(checkpoint, "openvino")
        return "openvino" if quick else "onnx"
    if backend == "torch" and exported:
        raise CheckpointError(
            f"{checkpoint.folder} was exported and holds no weights for torch; use --backend onnx, openvino or auto."
        )
    if backend != "torch" and not exported:
        raise CheckpointError(
            f"{checkpoint.folder} was not exported; run `export` and swap with the folder it writes, or use --backend torch."
        )
    if not runs(checkpoint, backend):
        raise CheckpointError(
            f"{checkpoint.folder}: OpenVINO draws int8 networks wrongly; use --backend onnx, or export without --quantize."
        )
    return backend


def runs(checkpoint: Checkpoint, backend: str) -> bool:
    """Whether a backend gives the right pixels of an exported folder: OpenVINO's of int8 were off by 84 grey levels."""
    return backend != "openvino" or not quantized(checkpoint)


def quantized(checkpoint: Checkpoint) -> bool:
    """Whether a model was exported in int8."""
    return bool(checkpoint.notes.get("exported", {}).get("quantized", "none") != "none")


def open_network(
    checkpoint: Checkpoint,
    *,
    device: str = "auto",
    weights: str = "weights",
    identity: int = 0,
    backend: str = "auto",
    size: int | None = None,
    references: Images | None = None,
    exact: bool = False,
) -> Network:
    """The network of a model folder, drawing person `identity` (see `types.Batch`). An exported one draws the source only, in
    float32 if `exact`.

    `size` is the side in px it works at instead of the one it was trained at, `references` are further views of the source for a
    model that remembers views.
    """
    chosen = pick_backend(checkpoint, backend, device)
    if chosen == "torch":
        return TorchNetwork(
            checkpoint, device=device, weights=weights, identity=identity, size=size, references=references
        )
    if size is not None or references is not None:
        raise InputError(
            f"{checkpoint.folder} was exported; --network-size and --references need the model it was made of."
        )
    held = checkpoint.notes.get("exported", {}).get("weights")
    if identity != 0:
        raise CheckpointError(
            f"{checkpoint.folder} was exported and draws the source only; use the model it was made of."
        )
    if weights not in ("weights", held):
        raise CheckpointError(f"{checkpoint.folder} holds the {held} weights only; swap with the model it was made of.")
    data = checkpoint.file(PART).read_bytes()
    try:
        return BACKENDS[chosen](data, device=device, exact=exact or quantized(checkpoint))
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{PACKAGES[chosen]} cannot run {checkpoint.folder} ({reason}); export it again."
        ) from error


def _asked(inputs: Mapping[str, Floats], wanted: set[str]) -> dict[str, Floats]:
    """What an exported network asks for. One that knows time takes clips of two frames or more: a single frame is shown to it twice
    at the same time, as which frames do not look at each other."""
    given = {name: values for name, values in inputs.items() if name in wanted}
    if "times" in wanted:
        given.setdefault("times", np.zeros(inputs["image"].shape[:2], np.float32))
        if inputs["image"].shape[1] == 1:
            given = {name: np.repeat(values, 2, axis=1) for name, values in given.items()}
    return given


def _package(module: str, why: str = "") -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        why = why or f"An exported model needs the package {module}"
        raise MissingDependencyError(f"{why}: {sys.executable} -m pip install {module}") from error


def _openvino_device(name: str, available: list[str]) -> str:
    """OpenVINO's name of a device; it has no CUDA, its GPU is Intel's."""
    wanted = {"auto": "CPU", "cpu": "CPU", "gpu": "GPU", "npu": "NPU"}.get(name)
    if wanted is None or not any(item.split(".")[0] == wanted for item in available):
        raise InputError(f"OpenVINO has no device {name!r} here; use --device cpu, or --backend onnx.")
    return wanted
