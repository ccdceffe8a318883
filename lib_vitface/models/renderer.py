"""A small volume renderer: rays through three feature planes in face space give colour, features, depth and opacity.

Volume rendering as in NeRF (Mildenhall et al. 2020, arXiv:2003.08934): density and colour along a ray, summed up by the quadrature
of Max 1995. The field is three planes and a small network (tri-plane, Chan et al. 2022, EG3D, arXiv:2112.07945), told of the
expression by a few numbers (Gafni et al. 2021, arXiv:2012.03065).

*Face space* is the cube from -1 to 1 about the head, axes as in a picture (x right, y down, z away), turned with the head; see
`faces.align.picture_to_face`. *Picture coordinates* run from -1 to 1 over the crop, and z likewise, 0 at the middle of the head.
Cameras are scaled orthographic, as everywhere here, so all rays of a picture are parallel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from lib_vitface.device import no_autocast

NEAR, FAR = -1.0, 1.0  # picture z between which rays are looked at
_DENSITY = 30.0  # of one unit of the network's answer; where that is 0, a twentieth of the light comes through the cube
_HELD = 0.01  # share of the fine places that are spread evenly, so that no part of a ray is lost for good

Field = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Density `[N, P]` >= 0 and values `[N, P, C]` at points `[N, P, 3]` of face space."""


@dataclass(frozen=True)
class Rendered:
    """`values` [N, R, C] of R rays each, `depth` [N, R] picture z (`FAR` where nothing is), `opacity` [N, R] 0..1."""

    values: torch.Tensor
    depth: torch.Tensor
    opacity: torch.Tensor


def quadrature(density: torch.Tensor, values: torch.Tensor, places: torch.Tensor) -> Rendered:
    """Sums up rays from density `[N, R, S]` and values `[N, R, S, C]` at ascending `places` `[N, R, S]`, each standing for its
    surroundings up to half-way to its neighbours.

    What shines through reaches `FAR`. Values are not divided by the opacity: nothing counts as zero.
    """
    weights = _weights(density, places)
    opacity = weights.sum(-1)
    depth = (weights * places).sum(-1) + (1 - opacity) * FAR
    return Rendered((weights[..., None] * values).sum(-2), depth, opacity)


def _edges(places: torch.Tensor) -> torch.Tensor:
    """Ends `[N, R, S + 1]` of the stretches that places stand for."""
    near, far = (torch.full_like(places[..., :1], end) for end in (NEAR, FAR))
    return torch.cat([near, (places[..., 1:] + places[..., :-1]) / 2, far], dim=-1)


def _weights(density: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """What each place of a ray adds: its own opacity times how much light those before it let through."""
    edges = _edges(places)
    thickness = density * (edges[..., 1:] - edges[..., :-1])
    before = torch.cumsum(thickness, -1) - thickness
    return torch.exp(-before) * (1 - torch.exp(-thickness))


def stratified(rays: torch.Tensor, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """`count` places `[N, R, count]` for rays `[N, R, ...]`: one in each of equal stretches, its middle, or at random within it."""
    step = (FAR - NEAR) / count
    starts = (NEAR + step * torch.arange(count, device=rays.device)).expand(*rays.shape[:2], count)
    if generator is None:
        return starts + step / 2
    return starts + step * torch.rand(starts.shape, generator=generator, device=rays.device)


@torch.no_grad()
def importance(places: torch.Tensor, weights: torch.Tensor, count: int) -> torch.Tensor:
    """`count` further places `[N, R, count]` where `weights` `[N, R, S]` of `places` say that something is: quantiles of their
    distribution. A surface lies between the last place before it and the first one in it, so each place counts as much as the
    larger of its neighbours, too (Barron et al. 2021, arXiv:2103.13415).
    """
    edges = _edges(places)
    around = F.max_pool1d(weights.flatten(0, 1)[:, None], 3, 1, 1)[:, 0].view_as(weights)
    share = around + _HELD / weights.shape[-1]
    rising = torch.cumsum(share / share.sum(-1, keepdim=True), -1)
    asked = ((torch.arange(count, device=places.device) + 0.5) / count).expand(*places.shape[:-1], count).contiguous()
    cell = torch.searchsorted(rising, asked).clamp_max(weights.shape[-1] - 1)
    high = rising.gather(-1, cell)
    low = torch.cat([torch.zeros_like(rising[..., :1]), rising[..., :-1]], dim=-1).gather(-1, cell)
    within = ((asked - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
    start, end = edges.gather(-1, cell), edges.gather(-1, cell + 1)
    return start + within * (end - start)


def march(
    field: Field,
    picture_to_face: torch.Tensor,
    places_xy: torch.Tensor,
    coarse: int,
    fine: int,
    generator: torch.Generator | None = None,
) -> Rendered:
    """Rays at `places_xy` `[N, R, 2]` of pictures `[N]`, whose `picture_to_face` `[N, 3, 4]` leads into the field's space.

    `coarse` places evenly, then `fine` more where those found something; all of them count.
    """
    first = stratified(places_xy, coarse, generator)
    density, values = _ask(field, picture_to_face, places_xy, first)
    if not fine:
        return quadrature(density, values, first)
    second = importance(first, _weights(density.detach(), first), fine)
    more = _ask(field, picture_to_face, places_xy, second)
    places, order = torch.sort(torch.cat([first, second], dim=-1), dim=-1)
    density = torch.cat([density, more[0]], dim=-1).gather(-1, order)
    values = torch.cat([values, more[1]], dim=-2)
    values = values.gather(-2, order[..., None].expand(-1, -1, -1, values.shape[-1]))
    return quadrature(density, values, places)


def _ask(
    field: Field, picture_to_face: torch.Tensor, places_xy: torch.Tensor, places: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Density `[N, R, S]` and values `[N, R, S, C]` at `places` `[N, R, S]` along rays."""
    rays, samples = places.shape[1:]
    start = places_xy @ picture_to_face[:, :, :2].transpose(1, 2) + picture_to_face[:, None, :, 3]
    points = start[:, :, None] + places[..., None] * picture_to_face[:, None, None, :, 2]
    density, values = field(points.flatten(1, 2))
    return density.unflatten(1, (rays, samples)), values.unflatten(1, (rays, samples))


def grid(side: int, device: torch.device | None = None) -> torch.Tensor:
    """Picture coordinates `[side * side, 2]` of the pixel centres of a square, row by row."""
    line = (torch.arange(side, device=device) * 2 + 1) / side - 1
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1).flatten(0, 1)


class TriPlane(nn.Module):
    """Three planes of features for each of `people`, and a network from their sum to density, colour and `features` more values.

    Colours are 0..1. `numbers` of a frame (its expression) shift the network's hidden layer; they say nothing at first.
    """

    def __init__(
        self, people: int, *, channels: int = 12, side: int = 64, hidden: int = 32, features: int = 0, numbers: int = 0
    ) -> None:
        super().__init__()
        self.planes = nn.Parameter(torch.randn(people, 3 * channels, side, side) * 0.1)
        self.first, self.second = nn.Linear(channels, hidden), nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, 1 + 3 + features)
        self.tell = nn.Linear(numbers, hidden, bias=False) if numbers else None
        if self.tell is not None:
            nn.init.zeros_(self.tell.weight)

    def at(self, who: torch.Tensor, numbers: torch.Tensor | None = None) -> Field:
        """The field of persons `who` `[N]`, told of `numbers` `[N, K]`."""
        planes = self.planes[who].unflatten(1, (3, -1)).flatten(0, 1)
        told = 0.0 if self.tell is None or numbers is None else self.tell(numbers)[:, None]

        def field(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x, y, z = points.unbind(-1)
            flat = torch.stack([torch.stack(pair, -1) for pair in ((x, y), (z, y), (x, z))], dim=1)
            found = F.grid_sample(planes, flat.flatten(0, 1)[:, :, None], align_corners=True)
            summed = found[..., 0].unflatten(0, (-1, 3)).sum(1).transpose(1, 2)
            hidden = F.leaky_relu(self.second(F.leaky_relu(self.first(summed) + told, 0.1)), 0.1)
            answer = self.last(hidden)
            inside = (points.abs() <= 1).all(-1)
            density = F.softplus(answer[..., 0] - 3) * _DENSITY * inside
            return density, torch.cat([torch.sigmoid(answer[..., 1:4]), answer[..., 4:]], dim=-1)

        return field


class FaceVolume(nn.Module):
    """The volumes of a swapper's persons, seen as the driving face is turned: `FEATURES` values of each of `side` x `side` rays.

    Expression comes from the encoder's tokens, averaged over the picture. Computed in float32: densities add up along a ray.
    """

    FEATURES = 12
    CHANNELS = 3 + FEATURES + 2  # of all four parts together
    _NUMBERS, _COARSE, _FINE = 16, 16, 12

    def __init__(self, people: int, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.read = nn.Linear(channels, self._NUMBERS)
        self.planes = TriPlane(people, features=self.FEATURES, numbers=self._NUMBERS)

    def forward(
        self, tokens: torch.Tensor, picture_to_face: torch.Tensor, who: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Picture `[N, 3, side, side]` 0..1, features `[N, FEATURES, side, side]`, depth and opacity `[N, 1, side, side]`.

        `tokens` `[N, C, h, w]`, `picture_to_face` `[N, 3, 4]`, `who` `[N]`.
        """
        with no_autocast(tokens.device):
            numbers = self.read(tokens.float().mean((2, 3)))
            rays = grid(self.side, tokens.device).expand(len(who), -1, -1)
            found = march(self.planes.at(who, numbers), picture_to_face.float(), rays, self._COARSE, self._FINE)
        square = (self.side, self.side)
        maps = found.values.transpose(1, 2).unflatten(2, square)
        depth, opacity = (t.unflatten(1, square)[:, None] for t in (found.depth, found.opacity))
        return maps[:, :3], maps[:, 3:], depth, opacity
