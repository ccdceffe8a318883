"""Several models of one person that draw together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lib_vitface.errors import CheckpointError
from lib_vitface.models.checkpoint import Checkpoint
from lib_vitface.swap.frame import ModelSwapper
from lib_vitface.types import Clip, SwapModel, SwappedFace


def shares_of(checkpoints: Sequence[Checkpoint]) -> list[float]:
    """What each model counts, summing to one: the inverse of its squared mean error on held-out frames.

    That is the best weighting where errors are independent (Bates and Granger 1969, The Combination of Forecasts). All count
    alike where one does not say.
    """
    errors = [checkpoint.notes.get("held_out", {}).get("l1") for checkpoint in checkpoints]
    trust = [1.0 / max(float(e), 1e-6) ** 2 if e is not None else None for e in errors]
    known = [t for t in trust if t is not None]
    if len(known) < len(trust):
        return [1.0 / len(trust)] * len(trust)
    return [t / sum(known) for t in known]


class Ensemble(SwapModel):
    """One whose pictures and masks are the weighted means of its members'.

    Raises `CheckpointError` where they work at different sizes, which cut different crops.
    """

    def __init__(self, members: Sequence[ModelSwapper], shares: Sequence[float]) -> None:
        other = next((m for m in members if m.size != members[0].size), None)
        if other is not None:
            raise CheckpointError(
                f"{other.checkpoint.folder} works at {other.size} px, {members[0].checkpoint.folder} at {members[0].size} px; "
                "give models of one size, or --network-size."
            )
        self.members, self.shares = list(members), list(shares)
        self.clip_length = max(m.clip_length for m in members)
        self.context = max(m.context for m in members)

    def prepare(self, clip: Clip) -> list[Any]:
        """What each member is shown."""
        return [member.prepare(clip) for member in self.members]

    def draw(self, prepared: Sequence[Any]) -> list[Any]:
        """What each draws."""
        return [member.draw(one) for member, one in zip(self.members, prepared, strict=True)]

    def finish(self, drawn: Sequence[Any]) -> list[SwappedFace]:
        """Their means."""
        versions = [member.finish(one) for member, one in zip(self.members, drawn, strict=True)]
        return [self._mean(those) for those in zip(*versions, strict=True)]

    def _mean(self, versions: Sequence[SwappedFace]) -> SwappedFace:
        pairs = list(zip(self.shares, versions, strict=True))
        image = sum(share * one.image.astype(np.float32) for share, one in pairs)
        mask = sum(share * one.mask for share, one in pairs)
        whole = np.clip(np.asarray(image), 0, 255).round().astype(np.uint8)
        return SwappedFace(whole, np.asarray(mask, np.float32), versions[0].frame_to_crop)
