"""The published topology holds together: closed, mirrored, and every named part where its name says."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from lib_vitface.faces import mesh

LOOPS = {
    "oval": mesh.OVAL,
    "right eye": mesh.RIGHT_EYE,
    "left eye": mesh.LEFT_EYE,
    "outer lips": mesh.LIPS_OUTER,
    "inner lips": mesh.LIPS_INNER,
}


def test_triangles_form_one_disc_facing_outwards() -> None:
    triangles, points = mesh.triangles(), mesh.vertices().astype(np.float64)
    assert triangles.shape == (898, 3) and set(triangles.ravel()) == set(range(mesh.POINT_COUNT))
    edges = Counter(tuple(sorted((int(t[i]), int(t[(i + 1) % 3])))) for t in triangles for i in range(3))
    assert max(edges.values()) == 2  # nothing is folded onto itself
    rim = [edge for edge, count in edges.items() if count == 1]
    around = {tuple(sorted(pair)) for pair in zip(mesh.OVAL, (*mesh.OVAL[1:], mesh.OVAL[0]), strict=True)}
    assert set(rim) == around  # its only edge is the oval
    assert mesh.POINT_COUNT - len(edges) + len(triangles) == 1  # Euler: a disc
    a, b, c = (points[triangles[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    outwards = (a + b + c) / 3 - points.mean(axis=0) + [0, 0, 4]
    assert ((normal * outwards).sum(axis=1) > 0).mean() > 0.97  # nostrils and lids turn in on themselves


@pytest.mark.parametrize("name", LOOPS)
def test_loops_run_clockwise_as_seen_without_crossing(name: str) -> None:
    loop = LOOPS[name]
    flat = mesh.vertices()[list(loop), :2] * [1, -1]  # y down, as in a picture
    x, y = flat[:, 0], flat[:, 1]
    area = (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2
    assert len(set(loop)) == len(loop) and area > 0.2
    angle = np.unwrap(np.arctan2(y - y.mean(), x - x.mean()))
    assert angle[-1] - angle[0] == pytest.approx(2 * np.pi, abs=0.8)  # once around


def test_mirroring_is_its_own_inverse_and_swaps_the_sides() -> None:
    order = mesh.mirror_order()
    np.testing.assert_array_equal(order[order], np.arange(mesh.POINT_COUNT))
    mirrored = mesh.vertices()[order] * [-1, 1, 1]
    assert np.abs(mirrored - mesh.vertices()).max() < 0.05  # cm
    for right, left in ((mesh.RIGHT_EYE, mesh.LEFT_EYE), (mesh.RIGHT_BROW, mesh.LEFT_BROW)):
        assert {int(order[k]) for k in right} == set(left)
    for middle in (mesh.LIPS_OUTER, mesh.LIPS_INNER, mesh.OVAL, mesh.NOSE_RIDGE):
        assert {int(order[k]) for k in middle} == set(middle)


def test_parts_lie_where_they_belong() -> None:
    points = mesh.vertices()

    def middle(index: tuple[int, ...]) -> np.ndarray:
        return points[list(index)].mean(axis=0)

    assert middle(mesh.RIGHT_EYE)[0] < 0 < middle(mesh.LEFT_EYE)[0]  # the person's right is the viewer's left
    heights = [middle(part)[1] for part in (mesh.BROWS, mesh.RIGHT_EYE, mesh.NOSE_BASE, mesh.LIPS_OUTER, (mesh.CHIN,))]
    assert heights == sorted(heights, reverse=True)
    assert points[:, 2].argmax() in {mesh.NOSE_TIP, 4} and points[:, 1].argmax() == mesh.FOREHEAD
    assert np.ptp(points[:, 1]) == pytest.approx(17.665, abs=0.01)
    assert points.flags.writeable is False and mesh.triangles().flags.writeable is False
    np.testing.assert_array_equal(mesh.boundary(points), points[list(mesh.OVAL), :2])
