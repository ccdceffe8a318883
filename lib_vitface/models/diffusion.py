"""A Stable Diffusion checkpoint through diffusers (optional), for redrawing a face outside the WebUI.

A folder as diffusers saves one, or one file (`.safetensors`, `.ckpt`) as it is passed around; of the latter diffusers makes the
former with a folder of configuration and tokenizer. Nothing is fetched unless that is allowed. Images with mask go in, so any
kind of checkpoint will do that `AutoPipelineForInpainting` knows (SD 1.5, SDXL, SD 3, Flux and others).
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from lib_vitface import device as devices
from lib_vitface.errors import CheckpointError, InputError, MissingDependencyError
from lib_vitface.types import Image, Redraw

SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "LCM": ("LCMScheduler", {}),
}
"""By the names the WebUI has for them. One step of each calls the network once."""

SCHEDULES = {"karras": "use_karras_sigmas", "exponential": "use_exponential_sigmas", "beta": "use_beta_sigmas"}
_FILES = {".safetensors", ".ckpt"}
_XL_KEY = "conditioner.embedders.1"


class DiffusersDenoiser:
    """A loaded checkpoint as a `Denoiser`; the same requests give the same pictures."""

    def __init__(
        self, checkpoint: Path, *, device: str = "auto", config: Path | None = None, offline: bool = True
    ) -> None:
        self.name = f"{checkpoint.name} {_facts(checkpoint)}"
        self.device = devices.pick_device(device)
        self._pipeline = _open(checkpoint, devices.fast_dtype(self.device), config, offline)
        self._own = self._pipeline.scheduler
        self._place(_size_bytes(checkpoint))
        self._pipeline.set_progress_bar_config(disable=True)

    def _place(self, size: int) -> None:
        """Onto the device, as far as it has room."""
        room = devices.room_for(self.device, size)
        if room == "parts":
            self._pipeline.enable_model_cpu_offload(device=self.device)
        else:
            self._pipeline.to(self.device)
        if room != "plenty" and hasattr(self._pipeline, "vae"):
            self._pipeline.vae.enable_slicing()
            self._pipeline.vae.enable_tiling()

    def __call__(self, asked: Sequence[Redraw]) -> list[Image]:
        import torch

        first = asked[0]
        if first.control != "none":
            raise InputError("--denoise-control: is for the WebUI with its ControlNet extension; set it to none here.")
        self._pipeline.scheduler = self._scheduler(first.sampler, first.schedule)
        steps, strength = whole_steps(first.steps, first.strength)
        height, width = first.image.shape[:2]
        values: dict[str, Any] = {
            "prompt": [one.prompt for one in asked],
            "negative_prompt": [one.negative for one in asked],
            "image": [Pillow.fromarray(one.image) for one in asked],
            "mask_image": [Pillow.fromarray(np.rint(255 * one.mask).astype(np.uint8)) for one in asked],
            "height": height,
            "width": width,
            "strength": strength,
            "num_inference_steps": steps,
            "guidance_scale": first.guidance,
            # the processor's generator gives the same noise whatever the device
            "generator": [torch.Generator("cpu").manual_seed(one.seed) for one in asked],
        }
        known = inspect.signature(self._pipeline.__call__).parameters  # Flux has no negative prompt
        network = getattr(self._pipeline, "unet", None)
        with torch.inference_mode(), looking_at_the_first(network, len(asked) if first.attention else 1):
            drawn = self._pipeline(**{name: value for name, value in values.items() if name in known}).images
        return [_sized(picture, width, height) for picture in drawn]

    def _scheduler(self, sampler: str, schedule: str) -> Any:
        import diffusers

        if sampler == "auto" and schedule == "auto":
            return type(self._own).from_config(self._own.config)
        names = {name.lower(): value for name, value in SAMPLERS.items()}
        if sampler != "auto" and sampler.lower() not in names:
            raise InputError(f"--denoise-sampler: {sampler!r} is not one of auto, {', '.join(SAMPLERS)}.")
        if schedule != "auto" and schedule.lower() not in SCHEDULES:
            raise InputError(f"--denoise-schedule: {schedule!r} is not one of auto, {', '.join(SCHEDULES)}.")
        name, extra = (type(self._own).__name__, {}) if sampler == "auto" else names[sampler.lower()]
        kind = getattr(diffusers, name)
        if schedule != "auto":
            flag = SCHEDULES[schedule.lower()]
            if flag not in inspect.signature(kind.__init__).parameters:
                raise InputError(f"--denoise-schedule: {schedule!r} does not go with this sampler; set it to auto.")
            extra = {**extra, flag: True}
        return kind.from_config(self._own.config, **extra)


def _sized(picture: Pillow.Image, width: int, height: int) -> Image:
    picture = picture.convert("RGB")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Pillow.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(picture, dtype=np.uint8))


@contextlib.contextmanager
def looking_at_the_first(network: Any, frames: int) -> Iterator[None]:
    """Cross-frame attention: the U-Net's self-attention over `frames` that are drawn together takes keys and values from the
    first of them as well as from the frame itself (as Khachatryan et al. 2023, "Text2Video-Zero", arXiv:2303.13439).

    diffusers, the WebUI and Forge call the layers alike, `attn1`, with tokens [B, N, C]; B is a multiple of `frames`, the
    conditioned half and the other one behind each other. Raises `InputError` where the
    network (None: none known) has no such layer.
    """
    if frames < 2:
        yield
        return
    layers = (
        []
        if network is None
        else [layer for name, layer in network.named_modules() if name.rpartition(".")[2] == "attn1"]
    )
    if not layers:
        raise InputError("--denoise-attention: this checkpoint has no U-Net with self-attention; switch it off.")

    # the layers of one network are all alike
    name = "context" if "context" in inspect.signature(layers[0].forward).parameters else "encoder_hidden_states"

    def both(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        import torch

        tokens = given[0]
        first = tokens.unflatten(0, (-1, frames))[:, :1].expand(-1, frames, -1, -1).flatten(0, 1)
        return given, {**named, name: torch.cat([first, tokens], 1)}

    hooks = [layer.register_forward_pre_hook(both, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def whole_steps(steps: int, strength: float) -> tuple[int, float]:
    """Steps of a whole drawing, and the strength, so that `steps` of them are made: pipelines make `int(whole * strength)`."""
    strength = min(max(strength, 1e-3), 1.0)
    whole = math.ceil(steps / strength - 1e-9)
    return whole, strength if int(whole * strength) == steps else (steps + 0.5) / whole


def _open(checkpoint: Path, dtype: Any, config: Path | None, offline: bool) -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise MissingDependencyError(
            f"--denoise-checkpoint needs the package diffusers ({error}): pip install diffusers accelerate"
        ) from None
    if not checkpoint.exists():
        raise InputError(f"{checkpoint}: there is no such checkpoint; name a .safetensors file or a folder.")
    if checkpoint.is_file() and checkpoint.suffix.lower() not in _FILES:
        raise InputError(
            f"{checkpoint}: is no checkpoint; name a .safetensors file or a folder as diffusers saves one."
        )
    diffusers.utils.logging.disable_progress_bar()  # progress is this program's to show
    try:
        if checkpoint.is_dir():
            return diffusers.AutoPipelineForInpainting.from_pretrained(
                str(checkpoint), torch_dtype=dtype, local_files_only=True
            )
        kind = diffusers.StableDiffusionXLPipeline if _is_xl(checkpoint) else diffusers.StableDiffusionPipeline
        extra = {"config": str(config)} if config is not None else {}
        whole = kind.from_single_file(str(checkpoint), torch_dtype=dtype, local_files_only=offline, **extra)
        return diffusers.AutoPipelineForInpainting.from_pipe(whole)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, ImportError) as error:
        said = str(error).strip().split("\n")[0][:200]
        hint = "name its configuration with --denoise-config, or allow fetching it with --no-denoise-offline"
        if checkpoint.is_file() and config is None and offline:
            raise InputError(f"{checkpoint}: cannot be opened without the internet ({said}); {hint}.") from None
        raise CheckpointError(f"{checkpoint}: cannot be opened as a diffusion checkpoint ({said}).") from None


def _is_xl(file: Path) -> bool:
    """Whether there is a second text encoder in the file."""
    if file.suffix.lower() != ".safetensors":
        return False
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), "pt") as tensors:
            return any(name.startswith(_XL_KEY) for name in tensors.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{file}: is damaged or no safetensors file ({error}).") from None


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def _facts(path: Path) -> str:
    """Changes when the checkpoint is written anew."""
    facts = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in _files(path) if p.exists()]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:12]


def _size_bytes(path: Path) -> int:
    return sum(p.stat().st_size for p in _files(path) if p.suffix in {*_FILES, ".bin"})
