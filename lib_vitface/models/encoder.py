"""Vision-Transformer encoder: the patch tokens of the driving face are the latent."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from lib_vitface.models.config import EncoderConfig
from lib_vitface.models.temporal import TemporalAttention

# transformers 5 names the layers of a ViT otherwise than version 4 and the published checkpoints do. Ours have the latter's
# names, so that a model trained under one is read under the other.
_PUBLISHED_AND_NEW = (
    ("encoder.layer.", "layers."),
    (".attention.attention.query.", ".attention.q_proj."),
    (".attention.attention.key.", ".attention.k_proj."),
    (".attention.attention.value.", ".attention.v_proj."),
    (".attention.output.dense.", ".attention.o_proj."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
)


class ViTEncoder(nn.Module):
    """`transformers.ViTModel` without its classification parts (Dosovitskiy et al. 2020, arXiv:2010.11929).

    With `window` > 0 attention over time stands before every layer's attention over the picture (divided space-time attention,
    see `models.temporal`). `size` is the side in px at which pictures are looked at; it may be changed, the position embeddings are
    then interpolated. With `checkpointing` the layers' activations are worked out again for the backward pass instead of kept.
    """

    def __init__(self, config: EncoderConfig, window: int = 0) -> None:
        super().__init__()
        from transformers import ViTConfig, ViTModel  # seconds to import: only where a model is built

        self.config = config
        self.size = config.image_size
        self.checkpointing = False
        self.vit = ViTModel(
            ViTConfig(
                image_size=config.image_size,
                patch_size=config.patch_size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.num_hidden_layers,
                num_attention_heads=config.num_attention_heads,
                intermediate_size=config.hidden_size * 4,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            ),
            add_pooling_layer=False,
        )
        self.temporal = nn.ModuleList(
            TemporalAttention(config.hidden_size, config.num_attention_heads, window)
            for _ in range(config.num_hidden_layers if window else 0)
        )
        self._attention: str = getattr(self.vit.config, "_attn_implementation", "eager")  # as transformers chose it
        self._new_names = any(".q_proj." in name for name, _ in self.vit.named_parameters())
        self._register_state_dict_hook(_publish_names)
        self._register_load_state_dict_pre_hook(self._take_names)

    def train(self, mode: bool = True) -> ViTEncoder:
        """As `nn.Module.train`. On a processor it trains with attention written out: torch's fused one took 2 to 5 times as long there
        backwards, and forwards it is the faster."""
        super().train(mode)
        plain = mode and self.vit.embeddings.cls_token.device.type == "cpu"
        wanted = "eager" if plain else self._attention
        if hasattr(self.vit, "set_attn_implementation") and wanted != self.vit.config._attn_implementation:
            self.vit.set_attn_implementation(wanted)
        return self

    def _take_names(self, state: MutableMapping[str, Any], prefix: str, *_: object) -> None:
        """Weights with either naming come in with that of the installed `transformers`."""
        _rename(state, f"{prefix}vit.", new=self._new_names)

    @property
    def side(self) -> int:
        """Patches along a side."""
        return self.size // self.config.patch_size

    def look(self, image: torch.Tensor, masked: torch.Tensor | None = None) -> torch.Tensor:
        """Images `[N, 3, H, W]` 0..1 at the encoder's size, the patches of `masked` `[N, side * side]` bool filled with grey.

        Grey is zero to the network, so a masked token carries its place and nothing of the picture.
        """
        size = self.size
        if image.shape[-1] != size or image.shape[-2] != size:
            image = F.interpolate(image, size=(size, size), mode="bilinear", antialias=image.shape[-1] > size)
        if masked is not None:
            hidden = masked.view(-1, 1, self.side, self.side).repeat_interleave(self.config.patch_size, 2)
            image = image.masked_fill(hidden.repeat_interleave(self.config.patch_size, 3), 0.5)
        return image

    def forward(self, image: torch.Tensor, length: int = 1, times: torch.Tensor | None = None) -> torch.Tensor:
        """Tokens as a map `[N, hidden, h, w]` of images `[N, 3, H, W]` 0..1; other sizes are resized to the ViT's own.

        `length` neighbouring images form a clip; `times` `[N / length, length]` are theirs in seconds (by default 1/25 apart).
        """
        x = self._embed(self.look(image))
        if self.temporal and length > 1 and times is None:
            times = torch.arange(length, device=x.device).repeat(x.shape[0] // length, 1) / 25
        for index in range(self.config.num_hidden_layers):
            if self.checkpointing and self.training:
                x = checkpoint(self._layer, index, x, length, times, use_reentrant=False)
            else:
                x = self._layer(index, x, length, times)
        tokens = self.vit.layernorm(x)[:, 1:]
        return tokens.transpose(1, 2).reshape(image.shape[0], self.config.hidden_size, self.side, self.side)

    @torch.no_grad()
    def attention(self, image: torch.Tensor) -> torch.Tensor:
        """How much each patch `[N, h, w]` is asked for in the last layer, mean over heads and asking patches; sums to one."""
        x = self._embed(self.look(image))
        for index in range(self.config.num_hidden_layers - 1):
            x = self._layer(index, x, 1, None)
        share = self._logits(-1, x)[:, :, 1:, 1:].softmax(dim=3)
        return share.mean(dim=(1, 2)).unflatten(1, (self.side, self.side))

    @torch.no_grad()
    def rollout(self, image: torch.Tensor) -> torch.Tensor:
        """How much of each patch `[N, h, w]` has reached the tokens after the last layer, mean over these; sums to one.

        Attention rollout (Abnar and Zuidema 2020, arXiv:2005.00928): the layers' attention, mean over heads and half of it what goes
        past a layer, multiplied up. What only the class token holds is left out.
        """
        x = self._embed(self.look(image))
        total = torch.eye(x.shape[1], device=x.device).expand(len(x), -1, -1)
        for index in range(self.config.num_hidden_layers):
            passed = (self._logits(index, x).softmax(dim=3).mean(dim=1) + torch.eye(x.shape[1], device=x.device)) / 2
            total = passed @ total
            x = self._layer(index, x, 1, None)
        share = total[:, 1:, 1:].mean(dim=1)
        return (share / share.sum(dim=1, keepdim=True)).unflatten(1, (self.side, self.side))

    def _logits(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """How strongly each token asks each other in a layer, `[N, heads, 1 + patches, 1 + patches]`, before the softmax."""
        layer = self._layers()[index]
        within = layer.attention if self._new_names else layer.attention.attention
        query, key = (within.q_proj, within.k_proj) if self._new_names else (within.query, within.key)
        x = layer.layernorm_before(x)
        asked, answer = (
            part(x).unflatten(2, (self.config.num_attention_heads, -1)).transpose(1, 2) for part in (query, key)
        )
        return (asked @ answer.transpose(2, 3) / answer.shape[-1] ** 0.5).float()

    def _layers(self) -> Any:
        vit: Any = self.vit
        return vit.layers if self._new_names else vit.encoder.layer

    def _layer(self, index: int, x: torch.Tensor, length: int, times: torch.Tensor | None) -> torch.Tensor:
        if self.temporal and length > 1:
            x = self.temporal[index](x.unflatten(0, (-1, length)), times).flatten(0, 1)
        found = self._layers()[index](x)
        return found[0] if isinstance(found, tuple) else found

    def _embed(self, image: torch.Tensor) -> torch.Tensor:
        """Tokens `[N, 1 + patches, hidden]` with their places, the class token first."""
        embeddings = self.vit.embeddings
        patches = embeddings.patch_embeddings.projection(image * 2 - 1).flatten(2).transpose(1, 2)
        places: torch.Tensor = embeddings.position_embeddings
        if self.side != self.config.image_size // self.config.patch_size:
            places = with_places(places, self.side)
        return (
            torch.cat([embeddings.cls_token.expand(image.shape[0], -1, -1).to(patches.dtype), patches], dim=1) + places
        )


def with_places(places: torch.Tensor, side: int) -> torch.Tensor:
    """Position embeddings `[1, 1 + n * n, hidden]`, the class token's first, for `side` x `side` patches instead of n x n."""
    own = math.isqrt(places.shape[1] - 1)
    grid = places[:, 1:].transpose(1, 2).unflatten(2, (own, own))
    grid = F.interpolate(grid.float(), size=(side, side), mode="bicubic")
    return torch.cat([places[:, :1], grid.flatten(2).transpose(1, 2).to(places.dtype)], dim=1)


def _publish_names(module: nn.Module, state: MutableMapping[str, Any], prefix: str, *_: object) -> None:
    _rename(state, f"{prefix}vit.", new=False)


def _rename(state: MutableMapping[str, Any], prefix: str, *, new: bool) -> None:
    """Gives the entries below `prefix` their new or their published names, in place and in the same order."""
    for name in list(state):
        value = state.pop(name)
        if name.startswith(prefix):
            name = prefix + _renamed(name[len(prefix) :], new)
        state[name] = value


def _renamed(name: str, new: bool) -> str:
    for published, other in _PUBLISHED_AND_NEW:
        before, after = (published, other) if new else (other, published)
        name = name.replace(before, after)
    return name
