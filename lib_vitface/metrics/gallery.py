"""Pictures kept for the report while frames stream by: moments spread over the clip, and the worst ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lib_vitface.faces import align
from lib_vitface.metrics.observation import Sighting
from lib_vitface.metrics.source import THUMBNAIL_PX
from lib_vitface.types import Image, Pose

_COVERAGE = 1.8  # wider than what a swapper touches: edges must be seen


@dataclass(frozen=True)
class Strip:
    """One moment: upright pictures of target and result cut by the same matrix."""

    time_s: float
    pose: Pose
    target: Image
    result: Image


class Gallery:
    """Keeps strips of `count` moments spread over the clip, and per measure the worst frame of each of `2 * count` stretches of it
    (the very worst alone would be neighbours that look the same), whatever the length of the clip."""

    def __init__(self, count: int, duration_s: float) -> None:
        self.count = count
        self._duration_s = max(duration_s, 1e-6)
        self._even: dict[int, Strip] = {}
        self._worst: dict[str, dict[int, tuple[float, Strip]]] = {}

    def offer(self, seen: Sighting, badness: Mapping[str, float]) -> None:
        """A scored frame; `badness` says per measure how bad it is (greater is worse)."""
        share = float(seen.pair.time) / self._duration_s
        slot = min(self.count - 1, int(share * self.count))
        stretch = min(2 * self.count - 1, int(share * 2 * self.count))
        worse = [name for name, value in badness.items() if value > self._worst_of(name, stretch)]
        if slot in self._even and not worse:
            return
        strip = _strip(seen)
        self._even.setdefault(slot, strip)
        for name in worse:
            self._worst.setdefault(name, {})[stretch] = (badness[name], strip)

    def _worst_of(self, name: str, stretch: int) -> float:
        kept = self._worst.get(name, {}).get(stretch)
        return kept[0] if kept is not None else -math.inf

    @property
    def even(self) -> list[Strip]:
        """In order of time."""
        return [self._even[slot] for slot in sorted(self._even)]

    def worst(self, name: str) -> list[tuple[float, Strip]]:
        """Badness and strip of at most `count` frames, the worst first."""
        kept = sorted(self._worst.get(name, {}).values(), key=lambda entry: -entry[0])
        return kept[: self.count]


def _strip(seen: Sighting) -> Strip:
    matrix = align.crop_matrix(seen.target, THUMBNAIL_PX, coverage=_COVERAGE)
    pictures = [align.warp(image, matrix, THUMBNAIL_PX) for image in (seen.pair.target, seen.pair.result)]
    pose = seen.target.pose or Pose(0, 0, 0)
    return Strip(float(seen.pair.time), pose, pictures[0], pictures[1])
