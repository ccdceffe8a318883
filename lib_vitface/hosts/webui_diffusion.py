"""The WebUI's loaded checkpoint as a pipeline that redraws faces, and its state as it was afterwards.

Each request is an img2img generation of its own, with an empty script runner, that nothing saves. A video's job holds the
queue's lock from beginning to end: generations wait for it as they wait for each other.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import logging
import math
import operator
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from modules import paths, processing, scripts, sd_samplers, shared
from modules.call_queue import queue_lock
from PIL import Image as Pillow

from lib_vitface.errors import Cancelled, InputError
from lib_vitface.models.diffusion import looking_at_the_first
from lib_vitface.swap.control import control_image
from lib_vitface.types import Image, Redraw

log = logging.getLogger("vitface")
USUAL_SAMPLER = "DPM++ 2M"
_FLAGS = {"interrupted", "skipped", "stopping_generation"}
_CACHES = ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc")
_MODELS = {"tile": "tile", "depth": "depth", "face": "openpose"}  # what a ControlNet model's name has in it


@contextlib.contextmanager
def untouched(*, flags: bool) -> Iterator[None]:
    """Afterwards the WebUI's progress and preview, its caches of prompts, the random states and the text of the last generation
    are as before. `flags`: so is that somebody pressed Interrupt or Skip."""
    import torch

    state, fields = shared.state, dict(vars(shared.state))
    owners = (processing.StableDiffusionProcessing, processing.StableDiffusionProcessingTxt2Img)
    caches = [(owner, name, vars(owner)[name]) for owner in owners for name in _CACHES if name in vars(owner)]
    text = Path(paths.data_path) / "params.txt"
    said = text.read_bytes() if text.is_file() else None
    cards = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    randoms = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        for name in {*vars(state), *fields}:
            if name.startswith("_") or "server" in name or (name in _FLAGS and not flags):
                continue  # a restart that was asked for meanwhile, an Interrupt the caller must see
            if name in fields:
                setattr(state, name, fields[name])
            else:
                delattr(state, name)
        for owner, name, value in caches:
            setattr(owner, name, value)
        torch.set_rng_state(randoms[0])
        np.random.set_state(randoms[1])
        random.setstate(randoms[2])
        for number, card in enumerate(cards):
            torch.cuda.set_rng_state(card, number)
        restore(text, said)


def restore(path: Path, content: bytes | None) -> None:
    """The file as it was; what cannot be written is told."""
    try:
        if content is not None:
            path.write_bytes(content)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        log.exception("%s could not be put back", path)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Sole use of the WebUI for a job, with its progress bar and Interrupt button."""
    with queue_lock, untouched(flags=True):
        shared.state.begin(job="vitface")
        yield


def check_interrupt() -> None:
    """Raises `Cancelled` where Interrupt or Skip was pressed."""
    if shared.state.interrupted or shared.state.skipped or getattr(shared.state, "stopping_generation", False):
        raise Cancelled("the swap was interrupted.")


def sampler_names() -> list[str]:
    """Samplers the WebUI has for img2img."""
    return [sampler.name for sampler in sd_samplers.samplers_for_img2img]


def schedule_names() -> list[str]:
    """How it can spread the steps; nothing in versions before that could be chosen."""
    try:
        from modules import sd_schedulers
    except ImportError:
        return []
    return [schedule.label for schedule in sd_schedulers.schedulers]


def words_of(p: Any) -> tuple[str, str]:
    """Prompt and negative prompt of the picture being finished, with the tags of extra networks (LoRA) still in them."""
    found = []
    for every, one in (("all_prompts", "prompt"), ("all_negative_prompts", "negative_prompt")):
        texts = getattr(p, every, None)
        place = getattr(p, "iteration", 0) * getattr(p, "batch_size", 1) + getattr(p, "batch_index", 0)
        text = texts[place] if texts and place < len(texts) else getattr(p, one)
        found.append(text if isinstance(text, str) else str(text[0]))
    return found[0], found[1]


class CheckpointDenoiser:
    """A `Denoiser`. The caller has the queue's lock. `p`: the generation whose sampler "auto" stands for."""

    def __init__(self, p: Any = None) -> None:
        self._p = p

    @property
    def name(self) -> str:
        return str(shared.opts.data.get("sd_model_checkpoint") or "the loaded checkpoint")

    def __call__(self, asked: Sequence[Redraw]) -> list[Image]:
        if asked[0].control != "none" and len(asked) > 1:  # a unit of ControlNet holds one picture
            return [picture for one in asked for picture in self([one])]
        check_interrupt()
        with untouched(flags=False):
            inner = processing.StableDiffusionProcessingImg2Img(**self._request(asked))
            inner.scripts, inner.script_args = scripts.ScriptRunner(), []
            inner.cached_c, inner.cached_uc = [None, None], [None, None]
            if asked[0].control != "none":
                add_control(inner, asked[0])
            try:
                with looking_at_the_first(network(), len(asked) if asked[0].attention else 1):
                    drawn = processing.process_images(inner).images
            finally:
                inner.close()
        check_interrupt()  # a picture that was not finished is none
        if len(drawn) < len(asked):
            raise InputError("--denoise: the loaded checkpoint gave no picture; the WebUI's console says why.")
        each = len(drawn) // len(asked)  # a setting has each followed by its mask
        pictures = [picture.convert("RGB") for picture in drawn[::each]]
        return [fitted(picture, one.image) for picture, one in zip(pictures, asked, strict=False)]

    def _request(self, asked: Sequence[Redraw]) -> dict[str, Any]:
        first = asked[0]
        height, width = first.image.shape[:2]
        # one for all; of what is drawn outside a picture's own mask nothing is taken
        mask = np.max([one.mask for one in asked], axis=0)
        values: dict[str, Any] = {
            "sd_model": shared.sd_model,
            "prompt": [one.prompt for one in asked],
            "negative_prompt": [one.negative for one in asked],
            "seed": [one.seed for one in asked],
            "batch_size": len(asked),
            "sampler_name": self._sampler(first.sampler),
            "steps": given_steps(first.steps, first.strength),
            "cfg_scale": first.guidance,
            "width": width,
            "height": height,
            "init_images": [Pillow.fromarray(one.image) for one in asked],
            "mask": Pillow.fromarray(np.rint(255 * mask).astype(np.uint8)),
            "mask_blur": 0,
            "inpainting_fill": 1,
            "inpaint_full_res": False,
            "denoising_strength": first.strength,
            "do_not_save_samples": True,
            "do_not_save_grid": True,
            "do_not_reload_embeddings": True,
            "restore_faces": False,
            "tiling": False,
        }
        known = {field.name for field in dataclasses.fields(processing.StableDiffusionProcessingImg2Img)}
        schedule = self._schedule(first.schedule)
        if schedule and "scheduler" in known:
            values["scheduler"] = schedule
        return values

    def _sampler(self, name: str) -> str:
        names = sampler_names()
        if name == "auto":
            own = getattr(self._p, "sampler_name", None) or USUAL_SAMPLER
            return own if own in names else names[0]
        found = next((one for one in names if one.lower() == name.lower()), None)
        if found is None:
            raise InputError(f"--denoise-sampler: {name!r} is not one of auto, {', '.join(names)}.")
        return found

    def _schedule(self, name: str) -> str | None:
        if name == "auto":
            return getattr(self._p, "scheduler", None) or "Automatic"
        names = schedule_names()
        found = next((one for one in names if one.lower() == name.lower()), None)
        if found is None:
            raise InputError(f"--denoise-schedule: {name!r} is not one of {', '.join(['auto', *names])}.")
        return found


def network() -> Any:
    """The loaded checkpoint's U-Net as a module, from where Forge keeps it, or the WebUI; None where there is none."""
    for path in ("forge_objects.unet.model.diffusion_model", "model.diffusion_model"):
        with contextlib.suppress(AttributeError):
            return operator.attrgetter(path)(shared.sd_model)
    return None


def fitted(picture: Pillow.Image, image: Image) -> Image:
    """At the size of what was asked for [S, S, 3]."""
    picture = picture.resize(image.shape[1::-1], Pillow.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(picture, dtype=np.uint8))


def given_steps(steps: int, strength: float) -> int:
    """What img2img must be told so that it makes `steps` of them: it makes `int(strength * told) + 1`, unless its setting
    "do exactly the amount of steps the slider specifies" is on."""
    if shared.opts.data.get("img2img_fix_steps", False):
        return steps
    strength = min(max(strength, 1e-3), 0.999)
    told = max(math.ceil((steps - 1) / strength), 1)
    return told + 1 if int(strength * told) + 1 < steps else told


def add_control(inner: Any, asked: Redraw) -> None:
    """One unit of the ControlNet extension, given as its web API takes it. Raises `InputError` where it is not installed."""
    runner = scripts.scripts_img2img
    found = next((s for s in runner.alwayson_scripts if s.title().lower() == "controlnet"), None)
    if found is None:
        raise InputError("--denoise-control: the ControlNet extension is not installed; set it to none.")
    model = control_model(asked.control)
    assert asked.landmarks is not None
    unit = {
        "enabled": True,
        "module": "none",
        "model": model,
        "weight": 1.0,
        "image": control_image(asked.control, asked.image, asked.landmarks),
        "resize_mode": "Just Resize",
        "pixel_perfect": True,
    }
    script = copy.copy(found)
    script.args_from, script.args_to = 0, 1
    inner.scripts.scripts = inner.scripts.alwayson_scripts = [script]
    inner.script_args = [unit]


def control_model(kind: str) -> str:
    """The first of the extension's models that is for this kind, by its name."""
    found = next((name for name in control_models() if _MODELS[kind] in name.lower()), None)
    if found is None:
        raise InputError(
            f"--denoise-control {kind}: ControlNet has no model with “{_MODELS[kind]}” in its name; add one."
        )
    return found


def control_models() -> list[str]:
    """Names of the ControlNet models, from the extension's public module, or from where Forge keeps them."""
    for module, function in (
        ("internal_controlnet.external_code", "get_models"),
        ("lib_controlnet.global_state", "get_all_controlnet_names"),
    ):
        with contextlib.suppress(ImportError, AttributeError):
            return [str(name) for name in getattr(importlib.import_module(module), function)()]
    return []
