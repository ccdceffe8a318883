"""The volume renderer against closed forms, and against the mesh rasteriser, which shares no code with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib_vitface.faces import align, mesh
from lib_vitface.faceset import atlas
from lib_vitface.models.renderer import (
    FAR,
    NEAR,
    FaceVolume,
    Rendered,
    TriPlane,
    grid,
    importance,
    march,
    quadrature,
    stratified,
)
from lib_vitface.types import Floats, Pose

SIDE = 48


def test_picture_coordinates_lead_into_the_cube_about_the_head() -> None:
    fit = align.crop_head(Pose(30, -12, 5), SIDE)
    matrix = align.picture_to_face(fit, SIDE)
    points = mesh.vertices()
    pixels = fit.project(points)
    middle = fit.project(align.MIDDLE[None])[0, 2]
    picture = np.c_[(2 * pixels[:, :2] + 1) / SIDE - 1, (pixels[:, 2:] - middle) * 2 / SIDE, np.ones(len(pixels))]
    expected = (points - align.MIDDLE) * align.AXES / (align.HEIGHT_CM * align.COVERAGE / 2)
    np.testing.assert_allclose(picture @ matrix.T, expected, atol=1e-6)
    assert np.abs(expected).max() < 1


def test_a_fog_lets_through_what_beer_and_lambert_say() -> None:
    density = torch.tensor([0.5, 2.0, 8.0])[:, None, None].expand(3, 1, 40)
    places = stratified(density[..., 0], 40)
    found = quadrature(density, torch.ones(3, 1, 40, 2), places)
    for index, thickness in enumerate((0.5, 2.0, 8.0)):
        expected = 1 - np.exp(-2 * thickness)
        assert found.opacity[index, 0].item() == pytest.approx(expected, abs=1e-5)
        assert found.values[index, 0].tolist() == pytest.approx([expected] * 2, abs=1e-5)
        # the mean place at which light stops: an integral of z d exp(d (z + 1)), with what is left at the far end
        z = np.linspace(-1, 1, 100_001)
        mean = np.trapezoid(z * thickness * np.exp(-thickness * (z + 1)), z) + np.exp(-2 * thickness)
        assert found.depth[index, 0].item() == pytest.approx(mean, abs=5e-3)


def test_further_places_are_the_quantiles() -> None:
    weights = torch.tensor([0, 0, 0.1, 0.6, 0.2, 0, 0, 0.0])[None, None]
    found = importance(stratified(weights, 8), weights, 50)[0, 0].numpy()
    share = np.array([0, 0.1, 0.6, 0.6, 0.6, 0.2, 0, 0]) + 0.01 / 8
    rising = np.concatenate([[0], np.cumsum(share / share.sum())])
    np.testing.assert_allclose(found, np.interp((np.arange(50) + 0.5) / 50, rising, np.linspace(-1, 1, 9)), atol=1e-5)
    assert ((found > -0.5) & (found < 0.25)).mean() > 0.8


def test_places_are_one_in_each_stretch() -> None:
    rays = torch.zeros(2, 3, 2)
    places = stratified(rays, 8, torch.Generator().manual_seed(0))
    stretch = ((places - NEAR) / ((FAR - NEAR) / 8)).floor()
    assert (stretch == torch.arange(8.0)).all() and places.std(dim=(0, 1)).min() > 0.01
    assert torch.allclose(stratified(rays, 8)[0, 0], torch.linspace(NEAR, FAR, 9)[:-1] + 0.125)


@pytest.mark.parametrize("pose", [Pose(0, 0, 0), Pose(40, 20, 10)])
def test_a_sphere_has_the_depth_of_a_sphere(pose: Pose) -> None:
    """Of radius 0.4 about (0.2, -0.1, 0.15) in face space, seen at an angle."""
    centre, radius = torch.tensor([0.2, -0.1, 0.15]), 0.4

    def field(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inside = ((points - centre).norm(dim=-1) < radius).float()
        return inside * 2000, points

    matrix = torch.from_numpy(align.picture_to_face(align.crop_head(pose, SIDE), SIDE))[None]
    found = march(field, matrix, grid(SIDE)[None], 48, 48)
    # the sphere in picture coordinates, by the inverse of the matrix
    back = np.linalg.inv(np.vstack([matrix[0].numpy(), [0, 0, 0, 1]]))
    seen, scale = (back @ [*centre.tolist(), 1])[:3], np.cbrt(np.linalg.det(back[:3, :3]))
    rays = grid(SIDE).numpy()
    away = ((rays - seen[:2]) ** 2).sum(1) / (scale * radius) ** 2
    expected = seen[2] - scale * radius * np.sqrt(np.clip(1 - away, 0, None))
    hit, miss = away < 0.95, away > 1.05
    assert hit.sum() > 250
    np.testing.assert_allclose(found.depth[0].numpy()[hit], expected[hit], atol=0.02)
    assert found.opacity[0].numpy()[hit].min() > 0.99 and found.opacity[0].numpy()[miss].max() < 1e-6
    np.testing.assert_allclose(found.depth[0].numpy()[miss], FAR)
    surface = (found.values[0].numpy()[hit] - centre.numpy()) / radius
    np.testing.assert_allclose(np.linalg.norm(surface, axis=1), 1, atol=0.1)


def test_it_is_no_worse_at_finding_a_surface_with_further_places() -> None:
    """Of walls at many depths, with as many places in all."""
    walls = torch.linspace(-0.5, 0.5, 64)

    def field(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (points[..., 2] > walls[:, None]).float() * 1e4, points

    matrix, rays = torch.eye(3, 4).expand(64, -1, -1), torch.zeros(64, 1, 2)
    even, found = ((march(field, matrix, rays, *n).depth[:, 0] - walls).abs().mean() for n in ((32, 0), (16, 16)))
    assert found < 0.6 * even < 0.03


def photographed(pose: Pose, size: int = SIDE) -> tuple[Floats, Floats, Floats, Floats]:
    """The canonical face, coloured by where its surface lies: picture `[S, S, 3]`, picture z, where it is, `picture_to_face`."""
    fit = align.crop_head(pose, size)
    depth, seen = atlas.depth_map(fit.project(mesh.vertices()).astype(np.float32), size)
    middle = fit.project(align.MIDDLE[None])[0, 2]
    z = (depth - middle) * 2 / size
    matrix = align.picture_to_face(fit, size)
    flat = grid(size).numpy().reshape(size, size, 2)
    points = np.concatenate([flat, z[..., None], np.ones_like(z)[..., None]], axis=2) @ matrix.T
    colour = 0.5 + 0.35 * np.sin(points * [9.0, 7.0, 5.0] + [0, 1, 2])
    return (colour * seen[..., None]).astype(np.float32), z, seen, matrix


VIEWS = [Pose(y, p, 0) for y in (-50, -25, 0, 25, 50) for p in (-18, 0, 18)]


def test_a_rendered_mesh_is_seen_from_where_no_picture_was() -> None:
    """A small volume is fitted to pictures of a mesh; between and beside them it shows what the rasteriser shows."""
    torch.manual_seed(0)
    shots = [[torch.from_numpy(np.ascontiguousarray(a)) for a in photographed(pose)] for pose in VIEWS]
    images, depths, seen, matrices = (torch.stack(part) for part in zip(*shots, strict=True))
    volume, rays = TriPlane(1, side=32, hidden=24), grid(SIDE)
    optimizer = torch.optim.Adam(volume.parameters(), 3e-2, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(1)
    for _ in range(130):
        view = torch.randint(len(VIEWS), (4,), generator=generator)
        chosen = torch.randint(len(rays), (4, 256), generator=generator)
        found = march(volume.at(torch.zeros(4, dtype=torch.long)), matrices[view], rays[chosen], 16, 12, generator)
        wanted = images.flatten(1, 2)[view[:, None], chosen]
        covered, z = (t.flatten(1)[view[:, None], chosen] for t in (seen, depths))
        loss = (found.values[..., :3] - wanted).abs().mean() + 0.2 * (found.opacity - covered).abs().mean()
        loss = loss + ((found.depth - z).abs() * covered).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # not one of the views; the front view painted flat would be far off
    picture, z, where, matrix = photographed(Pose(37, 9, 0))
    with torch.no_grad():
        view = torch.from_numpy(matrix)[None]
        drawn = march(volume.at(torch.zeros(1, dtype=torch.long)), view, rays[None], 32, 32)
    inside = where.astype(bool)
    inside &= np.roll(inside, 1, 0) & np.roll(inside, -1, 0) & np.roll(inside, 1, 1) & np.roll(inside, -1, 1)
    image, depth, opacity = (t[0].numpy() for t in (drawn.values[..., :3], drawn.depth, drawn.opacity))
    colour_gap = np.abs(image.reshape(SIDE, SIDE, 3) - picture)[inside].mean()
    depth_gap = np.abs(depth.reshape(SIDE, SIDE) - z)[inside].mean() * align.HEIGHT_CM * align.COVERAGE / 2
    front = photographed(Pose(0, 0, 0))[0]
    assert colour_gap < 0.06 < 0.15 < np.abs(front - picture)[inside].mean()
    assert depth_gap < 0.45  # cm, of a crop 26 cm wide
    assert np.abs((opacity.reshape(SIDE, SIDE) > 0.5) - where).mean() < 0.05


def test_gradients_reach_all_of_it_and_shapes_hold() -> None:
    torch.manual_seed(0)
    volume = FaceVolume(2, 20, 10)
    assert volume.planes.tell is not None
    torch.nn.init.normal_(volume.planes.tell.weight)
    matrices = torch.from_numpy(
        np.stack([align.picture_to_face(align.crop_head(Pose(y, 0, 0), SIDE), SIDE) for y in (0, 30, -20)])
    )
    parts = volume(torch.randn(3, 20, 4, 4), matrices, torch.tensor([0, 1, 1]))
    assert [tuple(p.shape) for p in parts] == [(3, 3, 10, 10), (3, 12, 10, 10), (3, 1, 10, 10), (3, 1, 10, 10)]
    sum(p.square().mean() for p in parts).backward()  # type: ignore[union-attr]
    idle = [n for n, p in volume.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert idle == []
    planes = volume.planes.planes.grad
    assert planes is not None and (planes[0] != 0).any() and (planes[1] != 0).any()


def test_persons_and_expressions_have_volumes_of_their_own() -> None:
    torch.manual_seed(0)
    volume = TriPlane(2, numbers=3)
    matrix, rays = torch.eye(3, 4)[None], grid(6)[None]

    def draw(who: int, numbers: torch.Tensor) -> Rendered:
        return march(volume.at(torch.tensor([who]), numbers), matrix, rays, 8, 4)

    with torch.no_grad():
        rest, other = draw(0, torch.zeros(1, 3)), draw(1, torch.zeros(1, 3))
        assert not torch.allclose(rest.values, other.values, atol=1e-3)
        assert torch.equal(rest.values, draw(0, torch.ones(1, 3)).values)  # numbers say nothing at first
        assert volume.tell is not None
        volume.tell.weight.normal_()
        assert not torch.allclose(rest.values, draw(0, torch.ones(1, 3)).values, atol=1e-3)
