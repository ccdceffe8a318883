"""Base files: the weights that many people taught a network, without anything of a single one, from which a training starts warm."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lib_vitface.errors import CheckpointError, InputError
from lib_vitface.media.container import beside, writing
from lib_vitface.models.config import ViTSwapperConfig, config_from_dict, config_to_dict
from lib_vitface.models.encoder import with_places
from lib_vitface.models.swapper import ViTSwapper

FORMAT = "vitface-base"
_TABLE = ".table.weight"
_PLACES = ".position_embeddings"
_DECODERS = "decoder.", "target_decoder."
_OWN = ("volume.planes.planes",)  # are a person


def write_base(
    path: Path, config: ViTSwapperConfig, weights: Mapping[str, torch.Tensor], facts: Mapping[str, Any]
) -> None:
    """Weights in float16 with configuration and `facts` in the file's head; of the persons' modulations the first row, which all
    shared. Raises `OutputError`."""
    from safetensors.torch import save

    kept = {}
    for name, value in weights.items():
        if name.endswith(_OWN):
            continue
        value = value[:1] if name.endswith(_TABLE) else value
        kept[name] = value.detach().cpu().half().contiguous() if value.is_floating_point() else value.detach().cpu()
    said = {"format": FORMAT, "config": json.dumps(config_to_dict(config)), "facts": json.dumps(dict(facts))}
    with beside(path) as temporary, writing(path):
        temporary.write_bytes(save(kept, said))


def load_base(path: Path, model: torch.nn.Module) -> dict[str, Any]:
    """Takes what a base knows into a fresh model; parts that it does not know stay fresh. Returns its facts, and which `share` of the
    model's weights came from it.

    Raises `InputError` where the model is no vit or the file is none, `CheckpointError` where its sizes are others.
    """
    if not isinstance(model, ViTSwapper):
        raise InputError("--base: only vit models start from a base.")
    config, facts, found = _read(path)
    mine = model.config
    encoder = replace(config.encoder, image_size=mine.encoder.image_size)
    if (encoder, config.widths, config.cover_width) != (mine.encoder, mine.widths, mine.cover_width):
        raise CheckpointError(
            f"{path} is a base of other sizes (preset {facts.get('preset')}); train with --preset {facts.get('preset')}."
        )
    own, taken = model.state_dict(), 0
    for name, value in _for_both(found, own).items():
        if name not in own:
            continue
        if name.endswith(_TABLE):  # the shared row; further facesets of the source add theirs to the source's
            value = torch.cat([value.expand(2, -1), torch.zeros(len(own[name]) - 2, value.shape[1])])
        if name.endswith(_PLACES) and value.shape != own[name].shape:
            value = with_places(value.float(), model.encoder.side)
        if value.shape == own[name].shape:
            own[name].copy_(value)
            taken += own[name].numel()
    return {**facts, "file": str(path), "share": taken / sum(v.numel() for v in own.values())}


def _for_both(found: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A base's weights, those of its decoder also under the name of the target's, where the model has one."""
    both = {name.replace(*_DECODERS, 1): value for name, value in found.items() if name.startswith(_DECODERS[0])}
    return {**found, **{name: value for name, value in both.items() if name in own}}


def _read(path: Path) -> tuple[ViTSwapperConfig, dict[str, Any], dict[str, torch.Tensor]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"--base: {path} is not there; name a base.safetensors that `pretrain` wrote.")
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
            if said.get("format") != FORMAT:
                raise InputError(f"--base: {path} is no base; name a base.safetensors that `pretrain` wrote.")
            config, facts = config_from_dict(json.loads(said["config"])), json.loads(said["facts"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); run `pretrain` again.") from error
    if not isinstance(config, ViTSwapperConfig):
        raise CheckpointError(f"{path} is a base of another kind ({config.kind}); only vit models have one.")
    return config, facts, weights
