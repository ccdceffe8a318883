"""What a training step minimises: the terms of the loss, by name, and the networks that judge."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from lib_vitface.losses import (
    LossWeights,
    adversarial_loss,
    critic_loss,
    depth_loss,
    dssim,
    geometry_loss,
    identity_loss,
    l1,
    l2,
    priority_map,
    psnr_db,
    reconstruction_loss,
    temporal_dssim,
    weighted_mean,
    weighted_total,
)
from lib_vitface.models.critic import PatchCritic
from lib_vitface.training.sampler import Samples
from lib_vitface.training.settings import TrainOptions
from lib_vitface.training.team import Team
from lib_vitface.types import SwapperOutput


class Objective:
    """Loss terms of a batch. Judges are made, and their terms computed, only where their weight is above 0."""

    def __init__(self, options: TrainOptions, kind: str, device: torch.device) -> None:
        self.options, self.kind, self.device = options, kind, device
        self.weights = LossWeights(
            dssim=options.weight_dssim,
            l1=options.weight_l1,
            mask=options.weight_mask,
            eyes_mouth=options.weight_eyes_mouth,
            edge=options.weight_edge,
            geometry=options.weight_geometry,
            identity=options.weight_identity,
            temporal=options.weight_temporal,
            adversarial=options.weight_gan,
            volume=options.weight_volume,
            depth=options.weight_depth,
            scales=options.dssim_scales,
        )
        self.critic: PatchCritic | None = None
        self.critic_optimizer: torch.optim.Optimizer | None = None
        self._pair: tuple[torch.Tensor, torch.Tensor] | None = None
        self._judges: dict[str, nn.Module] = {}
        if kind != "vit":
            return
        if self.weights.geometry or self.weights.identity:
            from lib_vitface.faces.frozen import FrozenIdentity, FrozenMesh

            makers: dict[str, Callable[[], nn.Module]] = {"geometry": FrozenMesh, "identity": FrozenIdentity}
            self._judges = {n: make().to(device) for n, make in makers.items() if getattr(self.weights, n)}
        if self.weights.adversarial:
            self.critic = PatchCritic().to(device)
            self.critic_optimizer = torch.optim.AdamW(self.critic.parameters(), 2e-4, betas=(0.5, 0.99))

    def __call__(
        self, output: SwapperOutput, samples: Samples, emphasis: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Terms, unweighted, and their weighted `total`. `emphasis` `[N, 1, S, S]` multiplies what places count.

        Without gradients also `psnr_db` inside the face's outline, which means the same for every kind of model.
        """
        wanted, where, mask_known, hull, uncovered = (
            torch.from_numpy(a).to(self.device)
            for a in (samples.wanted, samples.where, samples.mask_known, samples.hull, samples.uncovered)
        )
        image, mask = output.image.flatten(0, 1), output.mask.flatten(0, 1)
        judged = {} if torch.is_grad_enabled() else {"psnr_db": psnr_db(image, wanted, hull)}
        if self.kind != "vit":
            return {**self._of_autoencoder(image, mask, wanted, where, hull), **judged}
        points = torch.from_numpy(samples.points).to(self.device)
        size = wanted.shape[-1]
        counts = where if emphasis is None else where * emphasis
        terms = reconstruction_loss(
            image,
            wanted,
            counts,
            dataclasses.replace(self.weights, mask=0),
            priority=priority_map(points, (size, size), size / 64) * counts,
        )
        total = terms.pop("total")
        added = {"mask": weighted_mean((mask - uncovered).square(), mask_known)} if self.weights.mask else {}
        added |= self._judged(image.float(), wanted, where, samples)
        added |= self._of_volume(output, wanted, where, samples)
        return {**terms, **added, **judged, "total": total + weighted_total(added, self.weights).to(total.device)}

    def _judged(
        self, image: torch.Tensor, wanted: torch.Tensor, where: torch.Tensor, samples: Samples
    ) -> dict[str, torch.Tensor]:
        """Terms of the judging networks, which see what was drawn where that counts and the true picture elsewhere."""
        terms = {}
        shown = torch.lerp(wanted, image, where)
        if mesh := self._judges.get("geometry"):
            with torch.no_grad():
                expected = mesh(wanted)
            terms["geometry"] = geometry_loss(mesh(shown), expected)
        if embed := self._judges.get("identity"):
            five = torch.from_numpy(samples.five).to(self.device)
            with torch.no_grad():
                expected = embed(wanted, five)
            terms["identity"] = identity_loss(embed(shown, five), expected)
        if self.weights.temporal and samples.flow is not None and samples.visible is not None:
            flow, visible = (torch.from_numpy(a).to(self.device) for a in (samples.flow, samples.visible))
            clip, counts = (t.unflatten(0, (-1, samples.length)) for t in (image, where))
            terms["temporal"] = temporal_dssim(clip, flow, visible * counts[:, :-1], step=self.weights.ssim_step)
        if self.critic is not None:
            self.critic.train(torch.is_grad_enabled())  # when judging, its normalisation must not move on
            self._pair = wanted, shown.detach()
            terms["adversarial"] = adversarial_loss(self.critic(shown))
        return terms

    def _of_volume(
        self, output: SwapperOutput, wanted: torch.Tensor, where: torch.Tensor, samples: Samples
    ) -> dict[str, torch.Tensor]:
        """Terms of a rendered volume, none for a model without."""
        terms: dict[str, torch.Tensor] = {}
        if output.volume is None or output.depth is None or samples.depth is None or samples.depth_known is None:
            return terms
        if self.weights.volume:
            side = output.volume.shape[-1]
            small = (F.interpolate(t, size=(side, side), mode="area") for t in (wanted, where))
            terms["volume"] = l1(output.volume, *small)
        if self.weights.depth:
            depth, known = (torch.from_numpy(a).to(self.device) for a in (samples.depth, samples.depth_known))
            terms["depth"] = depth_loss(output.depth.flatten(0, 1), depth, known)
        return terms

    def learn(self, team: Team) -> dict[str, float]:
        """The critic's own step on the pictures of the last call, the same in every process."""
        if self.critic is None or self.critic_optimizer is None or self._pair is None:
            return {}
        real, made = self._pair
        self.critic_optimizer.zero_grad()
        loss = critic_loss(self.critic(real), self.critic(made))
        loss.backward()
        terms = team.average(self.critic.parameters(), {"critic": loss})
        self.critic_optimizer.step()
        return {"critic": float(terms["critic"].detach())}

    def _of_autoencoder(
        self, image: torch.Tensor, covered: torch.Tensor, wanted: torch.Tensor, where: torch.Tensor, mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """DeepFaceLab's loss of a side: 10 DSSIM + 10 MSE inside the mask (masked training) + 10 MSE of the mask."""
        shown, expected = image * where, wanted * where
        terms = {
            "dssim": dssim(shown, expected, scales=self.weights.scales),
            "l2": l2(shown, expected),
            "mask": l2(covered, mask),
        }
        weights = dataclasses.replace(self.weights, l2=self.weights.l1)
        return {**terms, "total": weighted_total(terms, weights)}
