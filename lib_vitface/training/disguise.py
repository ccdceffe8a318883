"""Driving faces that wear somebody else's looks: what a swap will show the encoder, with the truth at hand.

Over the face of a frame another person's is drawn from the texture memory, on the same landmarks; what shall come out is the
frame as it was. So the network learns looks from the reference, and from the driving face expression and pose alone. That a
swapper learns from faces that were swapped already, whose originals are the truth, is the idea of ReliableSwap (Yuan et al. 2023,
arXiv:2306.05356).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from lib_vitface.faceset.texture import TextureMemory, light_ratio, place_expression
from lib_vitface.training.data import Person
from lib_vitface.types import Floats, Image

_KEPT_BYTES = 400_000_000  # of drawn ones: 1500 at 192 px
_CELLS = 33  # places a side at which moves are worked out
_SMOOTH, _FADE = 1 / 24, 0.1  # standard deviation of their smoothing in sides, and the weight of staying in place
_HULL, _OPENINGS = 1, 2  # channels of `Person.layers`: one, and from there on


class Disguises:
    """Frames of `persons` in which another of them is seen. The same question has the same answer."""

    def __init__(self, persons: Sequence[Person]) -> None:
        self._persons = persons
        self._memories: dict[int, TextureMemory] = {}
        self._drawn: OrderedDict[tuple[int, int, int], tuple[Image, Image, Image]] = OrderedDict()

    def __call__(self, who: int, frame: int, other: int) -> tuple[Image, Image, Image]:
        """The frame in which `who` wears the looks of `other`, these looks alone, and how much of them is seen `[S, S, 1]` 0..255;
        the pictures `[S, S, 3]`, all uint8.

        Eyes and mouth stay open as they are, with what is inside: that is expression. Colours are those of the frame.
        """
        name = (who, frame, other)
        if name not in self._drawn:
            self._drawn[name] = self._draw(who, frame, other)
            each = sum(part.nbytes for part in self._drawn[name])
            while len(self._drawn) > 1 and len(self._drawn) * each > _KEPT_BYTES:
                self._drawn.popitem(last=False)
        return self._drawn[name]

    def reshape(self, who: int, frame: int, other: int, share: float) -> tuple[Floats, Floats]:
        """The frame's landmarks `[468, 3]` px with `share` 0..1 of what sets the resting shape of `other` apart from `who`'s; and
        how far from each place of the so shaped picture what is seen there was before, `[S, S, 2]` px.

        Expression and pose stay. Between landmarks the move is smooth (normalised convolution, Knutsson and Westin 1993), away from
        the face it fades.
        """
        person = self._persons[who]
        before, size = person.landmarks[frame], person.images.shape[1]
        change = self._persons[other].memory.neutral - person.memory.neutral
        after = place_expression(person.expressions[frame].points + share * change, before)
        cells = np.linspace(0, size - 1, _CELLS, dtype=np.float32)
        near = [np.exp(-(((after[:, k, None] - cells) / np.float32(_SMOOTH * size)) ** 2) / 2) for k in (0, 1)]
        moves = (before - after)[:, :2].astype(np.float32)
        # einsum: a product by BLAS has threads of its own that spin, and training steps took half as long again
        weights = (*moves.T, np.ones(len(moves), np.float32))
        *coarse, weight = (np.einsum("pr,pc->rc", near[1] * w[:, None], near[0]) for w in weights)
        shifts = np.stack(coarse, axis=-1) / (weight[..., None] + _FADE)
        # cells lie on whole pixels' places, so `resize`, which is about pixels' areas, would be off by half a cell
        places = np.arange(size, dtype=np.float32) * ((_CELLS - 1) / (size - 1))
        columns, rows = np.meshgrid(places, places)
        return after, cv2.remap(shifts, columns, rows, cv2.INTER_LINEAR)

    def _draw(self, who: int, frame: int, other: int) -> tuple[Image, Image, Image]:
        person, image = self._persons[who], self._persons[who].images[frame]
        size, footage = image.shape[0], image.astype(np.float32)
        memory, seen = self._memory(other, size), person.expressions[frame]
        wanted = replace(seen, points=seen.points + (memory.neutral - person.memory.neutral))
        drawn = memory.render(person.landmarks[frame], size, wanted, footage=footage)
        layers = person.layers[0, frame].astype(np.float32) / 255
        hull, openings = layers[..., _HULL], layers[..., _OPENINGS:].max(axis=2)
        border = max(1, size // 32)
        sure = person.sure[frame].astype(np.float32) / 255  # what lies over the face stays
        mask = cv2.erode(hull * drawn.seen * sure, np.ones((2 * border + 1,) * 2, np.uint8))
        mask = cv2.GaussianBlur(mask, (0, 0), border / 2) * (1 - openings)
        looks = np.clip(drawn.image * light_ratio(footage, drawn.image, mask), 0, 255)
        mask = mask[..., None]
        worn = footage + (looks - footage) * mask
        return tuple(np.rint(part).astype(np.uint8) for part in (worn, looks, mask * 255))

    def _memory(self, number: int, size: int) -> TextureMemory:
        """No finer than what is drawn."""
        if number not in self._memories:
            whole = self._persons[number].memory
            self._memories[number] = whole.resized(min(whole.size, max(128, size)))
        return self._memories[number]
