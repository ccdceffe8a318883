"""Depth of the mesh against rays cut with every triangle; and what a depth test would change at the seam: hardly anything."""

from __future__ import annotations

import numpy as np
import pytest

from lib_vitface.faces import align, mesh
from lib_vitface.faces.parse import hull_mask
from lib_vitface.faceset import atlas
from lib_vitface.types import Floats, Pose

SIZE = 192


def nearest(points: Floats, x: int, y: int) -> float | None:
    """The least z at which the mesh is met at a pixel, by barycentric coordinates of all triangles."""
    a, b, c = (points[mesh.triangles()][:, k].astype(np.float64) for k in range(3))
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1])
    with np.errstate(divide="ignore", invalid="ignore"):
        v = ((x - a[:, 0]) * (c[:, 1] - a[:, 1]) - (c[:, 0] - a[:, 0]) * (y - a[:, 1])) / area
        w = ((b[:, 0] - a[:, 0]) * (y - a[:, 1]) - (x - a[:, 0]) * (b[:, 1] - a[:, 1])) / area
    met = (v >= 0) & (w >= 0) & (v + w <= 1)
    z = a[:, 2] + v * (b[:, 2] - a[:, 2]) + w * (c[:, 2] - a[:, 2])
    return float(z[met].min()) if met.any() else None


@pytest.mark.parametrize("pose", [Pose(0, 0, 0), Pose(35, 10, 5), Pose(-60, -15, 0)])
def test_depth_is_where_a_ray_first_meets_the_mesh(pose: Pose) -> None:
    points = align.crop_head(pose, SIZE).project(mesh.vertices()).astype(np.float32)
    depth, seen = atlas.depth_map(points, SIZE)
    assert set(np.unique(seen)) == {0, 1} and (depth[seen == 0] == 0).all()
    random = np.random.default_rng(0)
    # a pixel from its edge, which pictures are rounded to
    inside = seen * np.roll(seen, 2, 0) * np.roll(seen, -2, 0) * np.roll(seen, 2, 1) * np.roll(seen, -2, 1)
    rows, columns = np.nonzero(inside)
    gaps = []
    for k in random.permutation(len(rows))[:200]:
        expected = nearest(points, int(columns[k]), int(rows[k]))
        assert expected is not None
        gaps.append(abs(depth[rows[k], columns[k]] - expected))
    assert np.median(gaps) < 0.05 and np.quantile(gaps, 0.95) < 1.0  # px, of a face about 60 px deep
    assert nearest(points, 3, 3) is None


@pytest.mark.parametrize(("yaw", "pitch", "least"), [(0, 0, 0.99), (40, 25, 0.99), (65, 0, 0.99), (65, 25, 0.96)])
def test_the_seam_already_follows_the_depth_order(yaw: float, pitch: float, least: float) -> None:
    """Why blending asks for no depth: what the mesh shows after a depth test is, but for a few pixels, its silhouette."""
    points = align.crop_head(Pose(yaw, pitch, 0), 2 * SIZE).project(mesh.vertices()).astype(np.float32)
    seen = atlas.depth_map(points, 2 * SIZE)[1] > 0
    hull = hull_mask(points, (2 * SIZE, 2 * SIZE)) > 0.5
    assert (seen & hull).sum() / (seen | hull).sum() > least
