"""The swapper: which parts it is made of, and how a configuration becomes a network."""

from __future__ import annotations

import torch
from torch import nn

from lib_vitface.models.config import TARGET, Config, ViTSwapperConfig
from lib_vitface.models.decoder import CoverDecoder, ReferenceDecoder
from lib_vitface.models.encoder import ViTEncoder
from lib_vitface.models.local import CoefficientTokens, LocalEncoder, make_fusion
from lib_vitface.models.multiview import ViewMemory
from lib_vitface.models.renderer import FaceVolume
from lib_vitface.models.saehd import SAEHD
from lib_vitface.types import Batch, SwapperOutput


class ViTSwapper(nn.Module):
    """ViT tokens of the driving face + the person's drawn reference -> the person with that pose and expression."""

    def __init__(self, config: ViTSwapperConfig) -> None:
        super().__init__()
        self.config = config
        channels, heads = config.encoder.hidden_size, config.encoder.num_attention_heads
        self.encoder = ViTEncoder(config.encoder, window=config.clip_frames - 1)
        told = config.coefficients if config.condition in ("film", "both") else 0
        seen = FaceVolume.CHANNELS if config.volume_side else 0
        sizes = (channels, config.widths, config.persons, told, seen)
        self.decoder = ReferenceDecoder(*sizes)
        self.target_decoder = ReferenceDecoder(*sizes) if config.own_decoders else None
        self.cover = CoverDecoder(config.cover_width)
        if config.fusion != "none":
            self.local = LocalEncoder(config.local_width)
            self.fuse = make_fusion(config.fusion, channels, self.local.channels, heads)
        if config.memory_tokens:
            self.memory = ViewMemory(channels, heads, config.memory_tokens)
        if config.condition in ("tokens", "both"):
            self.told = CoefficientTokens(config.coefficients, channels, heads)
        if config.volume_side:
            self.volume = FaceVolume(config.persons, channels, config.volume_side)

    def forward(self, batch: Batch) -> SwapperOutput:
        """See `Batch` and `SwapperOutput` for shapes. Where there are views or a memory and no part for them, they are not read."""
        clips, length = batch.image.shape[:2]
        image, reference, trust, own, geometry = (
            t.flatten(0, 1)
            for t in (batch.image, batch.reference, batch.reference_mask, batch.own_reference, batch.geometry)
        )
        identity = batch.identity[:, None].expand(-1, length).flatten()  # which exporters know, unlike a repetition
        tokens = self.tokens(image, None if batch.masked is None else batch.masked.flatten(0, 1), length, batch.times)
        rendered = None
        if self.config.volume_side and batch.picture_to_face is not None:
            rendered = self.volume(tokens, batch.picture_to_face.flatten(0, 1), identity)
        if self.config.memory_tokens:
            memory = batch.memory
            if memory is None and batch.views is not None:
                memory = self.remember(batch.views)
            if memory is not None:
                tokens = self.memory.read(tokens, memory[identity])
        numbers = None if batch.coefficients is None else batch.coefficients.flatten(0, 1)
        if numbers is not None and self.config.condition in ("tokens", "both"):
            tokens = self.told(tokens, numbers)
        seen = None if rendered is None else torch.cat(rendered, dim=1)
        swapped = self._decode(reference, trust, geometry, tokens, identity, numbers, seen)
        mask = torch.sigmoid(self.cover(image, own, trust))
        parts = (swapped, mask) if rendered is None else (swapped, mask, rendered[0], rendered[2])
        return SwapperOutput(*(part.unflatten(0, (clips, length)) for part in parts))

    def _decode(
        self,
        reference: torch.Tensor,
        trust: torch.Tensor,
        geometry: torch.Tensor,
        tokens: torch.Tensor,
        identity: torch.Tensor,
        coefficients: torch.Tensor | None,
        seen: torch.Tensor | None,
    ) -> torch.Tensor:
        """As `ReferenceDecoder`, with the decoder of whom each picture is.

        The target's one learns to take fingers away or to smooth a skin, and no such habit shall change how the source is drawn. A
        decoder for each person is DeepFaceLab's DF (Perov et al. 2020, arXiv:2005.05535).
        """
        inputs = (reference, trust, geometry, tokens, identity, coefficients, seen)
        if self.target_decoder is None:
            return self.decoder(*inputs)
        drawn, is_target = torch.empty_like(reference), identity.eq(TARGET)
        for decoder, chosen in ((self.decoder, ~is_target), (self.target_decoder, is_target)):
            rows = chosen.nonzero()[:, 0]
            if len(rows):
                drawn = drawn.index_copy(0, rows, decoder(*(None if t is None else t[rows] for t in inputs)))
        return drawn

    def draw_only(self, identity: int) -> None:
        """Forget what only somebody else than person `identity` is drawn with; nobody else can be drawn from then on."""
        if self.target_decoder is not None and identity == TARGET:
            self.decoder = self.target_decoder
        self.target_decoder = None

    def tokens(
        self,
        image: torch.Tensor,
        masked: torch.Tensor | None = None,
        length: int = 1,
        times: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What the encoders see in images `[N, 3, H, W]`: `[N, hidden, h, w]`. See `ViTEncoder` for the rest."""
        image = self.encoder.look(image, masked)
        tokens = self.encoder(image, length, times)
        return tokens if self.config.fusion == "none" else self.fuse(tokens, self.local(image))

    def remember(self, views: torch.Tensor) -> torch.Tensor:
        """Memory tokens `[P, tokens, hidden]` of P persons from V views each, `[P, V, 3, H, W]` 0..1."""
        return self.memory.fuse(self.tokens(views.flatten(0, 1)).unflatten(0, views.shape[:2]))

    def run_at(self, resolution: int) -> None:
        """Work on crops of another side than that of training; the ViT looks at them proportionally larger or smaller."""
        patch = self.config.encoder.patch_size
        wanted = self.config.encoder.image_size * resolution / self.config.resolution
        self.encoder.size = max(patch, round(wanted / patch) * patch)


def build_model(config: Config) -> nn.Module:
    """A network with fresh weights. Its `forward(Batch) -> SwapperOutput` is the same for all kinds."""
    return ViTSwapper(config) if isinstance(config, ViTSwapperConfig) else SAEHD(config)
