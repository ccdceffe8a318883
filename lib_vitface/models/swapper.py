"""The swapper: which parts it is made of, its presets, and how a configuration becomes a network."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from lib_vitface.errors import CheckpointError
from lib_vitface.models.decoder import CoverDecoder, ReferenceDecoder
from lib_vitface.models.encoder import EncoderConfig, ViTEncoder
from lib_vitface.models.saehd import SAEHD, SAEHDConfig
from lib_vitface.types import Batch, SwapperOutput

IDENTITIES = 2  # source and target


@dataclass(frozen=True)
class ViTSwapperConfig:
    """`resolution` is the side of the crop in px; `widths` the decoder's channels from half resolution down."""

    resolution: int = 256
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    widths: tuple[int, ...] = (64, 128, 256, 384)
    cover_width: int = 32
    kind: str = "vit"


PRESETS: dict[str, ViTSwapperConfig] = {
    "cpu": ViTSwapperConfig(192, EncoderConfig(128, 16, 192, 4, 3), (32, 64, 96, 160), 24),
    "small": ViTSwapperConfig(224, EncoderConfig(224, 16, 384, 6, 6), (48, 96, 160, 256), 32),
    "standard": ViTSwapperConfig(),
    "large": ViTSwapperConfig(384, EncoderConfig(384, 16, 1024, 24, 16), (96, 192, 320, 512), 48),
}


class ViTSwapper(nn.Module):
    """ViT tokens of the driving face + the person's drawn reference -> the person with that pose and expression."""

    def __init__(self, config: ViTSwapperConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ViTEncoder(config.encoder)
        self.decoder = ReferenceDecoder(config.encoder.hidden_size, config.widths, IDENTITIES)
        self.cover = CoverDecoder(config.cover_width)

    def forward(self, batch: Batch) -> SwapperOutput:
        """See `Batch` and `SwapperOutput` for shapes."""
        clips, length = batch.image.shape[:2]
        image, reference, trust, own, geometry = (
            t.flatten(0, 1)
            for t in (batch.image, batch.reference, batch.reference_mask, batch.own_reference, batch.geometry)
        )
        identity = batch.identity.repeat_interleave(length)
        swapped = self.decoder(reference, trust, geometry, self.encoder(image), identity)
        mask = torch.sigmoid(self.cover(image, own, trust))
        return SwapperOutput(swapped.unflatten(0, (clips, length)), mask.unflatten(0, (clips, length)))


Config = ViTSwapperConfig | SAEHDConfig


def build_model(config: Config) -> nn.Module:
    """A network with fresh weights. Its `forward(Batch) -> SwapperOutput` is the same for all kinds."""
    return ViTSwapper(config) if isinstance(config, ViTSwapperConfig) else SAEHD(config)


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
