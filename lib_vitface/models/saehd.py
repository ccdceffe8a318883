"""SAEHD, DeepFaceLab's standard autoencoder, written afresh in PyTorch from its published design.

It is the baseline every claim is measured against. Design: Perov et al. 2020, "DeepFaceLab: Integrated, flexible and
extensible face-swapping framework", arXiv:2005.05535. `df` has one bottleneck shared by both persons and a decoder for each;
`liae` has two bottlenecks (shared, and the target's own) and one decoder. `u`: unit-length latent; `d`: the last doubling of
resolution is done by four interleaved output convolutions.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from lib_vitface.models.config import SAEHDConfig
from lib_vitface.models.convolution import Convolution
from lib_vitface.types import Batch, SwapperOutput


class _Upscale(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = Convolution(inputs, outputs * 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(F.leaky_relu(self.convolution(x), 0.1), 2)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = Convolution(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(x + self.second(F.leaky_relu(self.first(x), 0.2)), 0.2)


class _Encoder(nn.Module):
    def __init__(self, width: int, unit_length: bool) -> None:
        super().__init__()
        sizes = [3, width, width * 2, width * 4, width * 8]
        self.down = nn.ModuleList(Convolution(a, b, 5, stride=2, padding=2) for a, b in itertools.pairwise(sizes))
        self.unit_length = unit_length

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for shrink in self.down:
            x = F.leaky_relu(shrink(x), 0.1)
        flat = x.flatten(1).float()
        if self.unit_length:
            flat = flat * torch.rsqrt(flat.square().mean(dim=1, keepdim=True) + 1e-6)
        return flat


class _Inter(nn.Module):
    def __init__(self, inputs: int, width: int, outputs: int, side: int) -> None:
        super().__init__()
        self.shape = (outputs, side, side)
        self.squeeze = nn.Linear(inputs, width)
        self.spread = nn.Linear(width, outputs * side * side)
        self.upscale = _Upscale(outputs, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.upscale(self.spread(self.squeeze(x)).unflatten(1, self.shape))


class _Decoder(nn.Module):
    def __init__(self, inputs: int, width: int, mask_width: int, doubled: bool) -> None:
        super().__init__()
        sizes = [inputs, width * 8, width * 4, width * 2]
        masks = [inputs, mask_width * 8, mask_width * 4, mask_width * 2] + ([mask_width] if doubled else [])
        self.up = nn.ModuleList(_Upscale(a, b) for a, b in itertools.pairwise(sizes))
        self.residual = nn.ModuleList(_Residual(w) for w in sizes[1:])
        self.up_mask = nn.ModuleList(_Upscale(a, b) for a, b in itertools.pairwise(masks))
        first = nn.Conv2d(sizes[-1], 3, 1)
        others = [nn.Conv2d(sizes[-1], 3, 3, padding=1) for _ in range(3 if doubled else 0)]
        self.out = nn.ModuleList([first, *others])
        self.out_mask = nn.Conv2d(masks[-1], 1, 1)

    def forward(self, code: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = code
        for grow, block in zip(self.up, self.residual, strict=True):
            x = block(grow(x))
        drawn = [layer(x) for layer in self.out]
        # channel order that pixel_shuffle spreads into a 2x2 cell per colour
        x = drawn[0] if len(drawn) == 1 else F.pixel_shuffle(torch.stack(drawn, dim=2).flatten(1, 2), 2)
        mask = code
        for grow in self.up_mask:
            mask = grow(mask)
        return torch.sigmoid(x.float()), torch.sigmoid(self.out_mask(mask).float())


class SAEHD(nn.Module):
    """`forward` decodes every clip with the decoder (df) or bottlenecks (liae) of its `identity`."""

    def __init__(self, config: SAEHDConfig) -> None:
        super().__init__()
        self.config = config
        doubled = "d" in config.variant
        side = config.resolution // (32 if doubled else 16)
        flat = config.e_dims * 8 * (config.resolution // 16) ** 2
        self.encoder = _Encoder(config.e_dims, "u" in config.variant)
        liae = config.kind == "saehd-liae"
        outputs = config.ae_dims * (2 if liae else 1)
        self.inter = nn.ModuleList(_Inter(flat, config.ae_dims, outputs, side) for _ in range(2 if liae else 1))
        inputs = outputs * (2 if liae else 1)
        self.decoder = nn.ModuleList(
            _Decoder(inputs, config.d_dims, config.d_mask_dims, doubled) for _ in range(1 if liae else 2)
        )

    def forward(self, batch: Batch) -> SwapperOutput:
        """Reads `image` and `identity` only. What the persons share works on all pictures at once, so its weights are read once."""
        clips, length = batch.image.shape[:2]
        code = self.encoder(batch.image.flatten(0, 1))
        places = [(batch.identity.repeat_interleave(length) == person).nonzero().flatten() for person in (0, 1)]
        shared = self.inter[0](code)
        if len(self.inter) > 1:
            target = self.inter[1](code[places[1]]) if len(places[1]) else shared[:0]
            image, mask = self.decoder[0](self._joined(shared, shared.index_copy(0, places[1], target)))
        else:
            image = code.new_zeros((len(code), 3, self.config.resolution, self.config.resolution))
            mask = image.new_zeros((len(code), 1, self.config.resolution, self.config.resolution))
            for chosen, decoder in zip(places, self.decoder, strict=True):
                if len(chosen):
                    colours, cover = decoder(shared[chosen])
                    image, mask = image.index_copy(0, chosen, colours), mask.index_copy(0, chosen, cover)
        return SwapperOutput(image.unflatten(0, (clips, length)), mask.unflatten(0, (clips, length)))

    def drawn(self, image: torch.Tensor, person: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Picture and mask `[N, 3 and 1, H, W]` of one person for images `[N, 3, H, W]`."""
        code = self.encoder(image)
        shared = self.inter[0](code)
        if len(self.inter) == 1:
            return self.decoder[person](shared)
        return self.decoder[0](self._joined(shared, shared if person == 0 else self.inter[1](code)))

    @staticmethod
    def _joined(shared: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """The source knows only the shared bottleneck, the target both (DeepFaceLab: AB-AB and B-AB)."""
        return torch.cat([second, shared], dim=1)
