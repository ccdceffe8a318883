"""Sizes of the networks: configurations, presets, and how they are written down. Light: a model folder is read without torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from lib_vitface.errors import CheckpointError

IDENTITIES = 2
"""Source and target. Numbers from here on are further facesets of the source."""
SOURCE, TARGET = 0, 1
DETECTOR_SIDE, DETECTOR_CELL = 224, 16  # px of the crops and of the cells of `models.detector`


def person_name(number: int) -> str:
    """How the parts of a model folder call person `number`."""
    return ("source", "target")[number] if number < IDENTITIES else f"reference{number}"


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the ViT. The defaults are the plan's standard: ViT-Base on 256 px with patches of 16 px, 12 layers."""

    image_size: int = 256
    patch_size: int = 16
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12


@dataclass(frozen=True)
class ViTSwapperConfig:
    """`resolution` is the side of the crop in px; `widths` the decoder's channels from half resolution down.

    Parts that are off by default: `fusion` of an EfficientNet branch (`local_width` of B0's channels) with the ViT's tokens;
    attention over `clip_frames` frames where that is more than one; `memory_tokens` made of several views of the person;
    `condition` says how a number of `coefficients` of a morphable face are told (film, tokens, both); a volume seen by
    `volume_side` x `volume_side` rays; `persons` beyond two are further facesets of the source. `own_decoders`: the target has a
    decoder of its own, as in whatever `train` makes anew; a base, and models of before, have one for all.
    """

    resolution: int = 256
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    widths: tuple[int, ...] = (64, 128, 256, 384)
    cover_width: int = 32
    kind: str = "vit"
    fusion: str = "none"
    local_width: float = 0.5
    clip_frames: int = 1
    memory_tokens: int = 0
    condition: str = "none"
    coefficients: int = 0
    volume_side: int = 0
    persons: int = IDENTITIES
    own_decoders: bool = False


PRESETS: dict[str, ViTSwapperConfig] = {
    "cpu": ViTSwapperConfig(192, EncoderConfig(128, 16, 192, 4, 3), (32, 64, 96, 160), 24),
    "small": ViTSwapperConfig(224, EncoderConfig(224, 16, 384, 6, 6), (48, 96, 160, 256), 32),
    "standard": ViTSwapperConfig(),
    "large": ViTSwapperConfig(384, EncoderConfig(384, 16, 1024, 24, 16), (96, 192, 320, 512), 48),
}
LOCAL_WIDTHS = {"cpu": 0.5, "small": 0.75, "standard": 1.0, "large": 1.4}
"""`local_width` of each preset, where it has the branch."""


@dataclass(frozen=True)
class SAEHDConfig:
    """DeepFaceLab's names: `ae_dims`, `e_dims`, `d_dims`, `d_mask_dims`; `variant` holds the letters after the dash."""

    kind: str = "saehd-df"
    resolution: int = 128
    variant: str = "ud"
    ae_dims: int = 128
    e_dims: int = 64
    d_dims: int = 64
    d_mask_dims: int = 22


def saehd_config(kind: str, resolution: int) -> SAEHDConfig:
    """The usual sizes of `saehd-df` (ae 128) and `saehd-liae` (ae 256) with `-ud`. `resolution` must be divisible by 32."""
    return SAEHDConfig(kind, resolution, ae_dims=128 if kind == "saehd-df" else 256)


Config = ViTSwapperConfig | SAEHDConfig


def config_to_dict(config: Config) -> dict[str, Any]:
    """JSON-ready; `config_from_dict` is its opposite."""
    return dataclasses.asdict(config)


def config_from_dict(values: dict[str, Any]) -> Config:
    """The configuration a model was saved with. Raises `CheckpointError` for unknown kinds or fields."""
    values = dict(values)
    try:
        if values.get("kind") == "vit":
            encoder = EncoderConfig(**values.pop("encoder"))
            return ViTSwapperConfig(encoder=encoder, **{**values, "widths": tuple(values["widths"])})
        if str(values.get("kind", "")).startswith("saehd"):
            return SAEHDConfig(**values)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"The model's configuration is not one this version can read ({error}).") from None
    raise CheckpointError(f"The model is of an unknown kind, {values.get('kind')!r}; this version reads vit and saehd.")
