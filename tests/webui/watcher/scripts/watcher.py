"""An extension for tests only: tells what of the WebUI's state a generation could change, and counts calls of the U-Net."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from modules import paths, processing, script_callbacks, sd_models, shared

CALLS: dict[str, int] = {"calls": 0, "fail_at": -1}
LATENT = ("current_latent", "current_image")


def count(*_: Any) -> None:
    CALLS["calls"] += 1
    if CALLS["calls"] == CALLS["fail_at"]:
        raise RuntimeError("the test wants this U-Net to fail")


def unet() -> Any:
    model = shared.sd_model
    forge = getattr(model, "forge_objects", None)
    return model.model.diffusion_model if forge is None else forge.unet.model.diffusion_model


def digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def state() -> dict[str, Any]:
    text = Path(paths.data_path) / "params.txt"
    caches = {}
    for kind in (processing.StableDiffusionProcessing, processing.StableDiffusionProcessingTxt2Img):
        for name in ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc"):
            if name in vars(kind):
                cache = getattr(kind, name)
                caches[f"{kind.__name__}.{name}"] = [id(cache), *(id(part) for part in cache)]
    return {
        "options": dict(shared.opts.data),
        "state": {k: str(v) for k, v in vars(shared.state).items() if not k.startswith("_") and k not in LATENT},
        "preview": [id(getattr(shared.state, name)) for name in LATENT],
        "caches": caches,
        "random": [digest(torch.get_rng_state().tolist()), digest(np.random.get_state()), digest(random.getstate())],
        "model": [
            str(getattr(sd_models.model_data.sd_model, "sd_checkpoint_info", None)),
            id(sd_models.model_data.sd_model),
        ],
        "text": text.read_text(encoding="utf-8") if text.is_file() else None,
    }


def started(_: Any, app: Any) -> None:
    hooked: list[Any] = []

    def calls() -> dict[str, int]:
        """Calls so far; the first time this is asked, counting begins."""
        network = unet()
        if not any(one is network for one in hooked):
            hooked.append(network)
            network.register_forward_pre_hook(count)
        return CALLS

    def fail(after: int) -> dict[str, int]:
        CALLS["fail_at"] = CALLS["calls"] + after
        return CALLS

    app.add_api_route("/watcher/state", state, methods=["GET"])
    app.add_api_route("/watcher/calls", calls, methods=["GET"])
    app.add_api_route("/watcher/fail", fail, methods=["POST"])


script_callbacks.on_app_started(started)
