"""The swapper: which parts it is made of, and how a configuration becomes a network."""

from __future__ import annotations

import torch
from torch import nn

from lib_vitface.models.config import IDENTITIES, Config, ViTSwapperConfig
from lib_vitface.models.decoder import CoverDecoder, ReferenceDecoder
from lib_vitface.models.encoder import ViTEncoder
from lib_vitface.models.saehd import SAEHD
from lib_vitface.types import Batch, SwapperOutput


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


def build_model(config: Config) -> nn.Module:
    """A network with fresh weights. Its `forward(Batch) -> SwapperOutput` is the same for all kinds."""
    return ViTSwapper(config) if isinstance(config, ViTSwapperConfig) else SAEHD(config)
