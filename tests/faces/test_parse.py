"""Masks against plain geometry, and differences against what was really put before the face."""

from __future__ import annotations

from itertools import islice

import cv2
import numpy as np
import pytest
from scipy import ndimage

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.errors import InputError
from lib_vitface.faces import align, mesh, parse
from lib_vitface.faces.parse import Hand
from lib_vitface.types import Floats, Pose

SIZE = 200


def posed(pose: Pose, size: int = SIZE, scale: float = 8.0) -> Floats:
    turned = (mesh.vertices() * [1, -1, -1]) @ align.rotation_of(pose).T
    return (turned * scale + [size / 2, size / 2, 0]).astype(np.float32)


@pytest.mark.parametrize("yaw", [0, 40, -75])
def test_the_hull_is_the_shadow_of_the_mesh(yaw: float) -> None:
    """Every triangle drawn, one by one, is an independent way to the same silhouette."""
    points = posed(Pose(yaw, 8, 12))
    shadow = np.zeros((SIZE, SIZE), np.uint8)
    for triangle in mesh.triangles():
        cv2.fillConvexPoly(shadow, np.rint(points[triangle, :2] * 16).astype(np.int32), 1, shift=4)
    hull = parse.hull_mask(points, (SIZE, SIZE))
    both = ((hull > 0.5) & (shadow > 0)).sum() / ((hull > 0.5) | (shadow > 0)).sum()
    assert both > 0.97 and set(np.unique(hull)) == {0.0, 1.0}


def test_the_outline_is_the_polygon_of_the_outermost_points() -> None:
    points = posed(Pose(0, 0, 0), 256)
    outline = parse.outline_mask(points, (256, 300))
    x, y = mesh.boundary(points).astype(np.float64).T
    area = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
    assert outline.shape == (256, 300) and outline.sum() == pytest.approx(area, rel=0.03)
    assert outline[128, 128] == 1 and outline[2, 2] == 0 and set(np.unique(outline)) == {0, 1}


def test_eroding_feathering_and_the_forehead() -> None:
    points = posed(Pose(0, 0, 0))
    plain = parse.hull_mask(points, (SIZE, SIZE)) > 0.5
    depth = ndimage.distance_transform_edt(plain)
    eroded = parse.hull_mask(points, (SIZE, SIZE), erode_px=6) > 0.5
    assert np.abs(depth[eroded].min() - 6) < 1.2 and depth[~eroded].max() < 7.5
    soft = parse.hull_mask(points, (SIZE, SIZE), feather_px=10)
    assert (soft[~plain] == 0).all() and (soft[depth > 11.5] == 1).all()  # inwards only
    order = np.argsort(depth[plain])
    assert np.corrcoef(np.minimum(depth[plain][order], 10), soft[plain][order])[0, 1] > 0.97
    wider = parse.hull_mask(points, (SIZE, SIZE), erode_px=-5) > 0.5
    assert wider[plain].all() and wider.sum() > plain.sum()
    raised = parse.hull_mask(points, (SIZE, SIZE), forehead=0.2) > 0.5
    top, chin = (int(np.flatnonzero(m.any(axis=1))[k]) for m, k in ((plain, 0), (plain, -1)))
    assert np.flatnonzero(raised.any(axis=1))[0] == pytest.approx(top - 0.2 * (chin - top), abs=2)
    assert np.array_equal(raised[SIZE // 2 + 10 :], plain[SIZE // 2 + 10 :])  # below the brows nothing moves


def test_a_face_over_the_pictures_edge_has_no_edge_there() -> None:
    points = posed(Pose(0, 0, 0)) - np.array([SIZE / 2, 0, 0], np.float32)
    soft = parse.hull_mask(points, (SIZE, SIZE), feather_px=8)
    assert soft[SIZE // 2, 0] == 1


def test_regions_lie_inside_and_apart() -> None:
    points = posed(Pose(15, 0, 0))
    hull = parse.hull_mask(points, (SIZE, SIZE)) > 0.5
    masks = {name: parse.region_mask(points, name, (SIZE, SIZE)) > 0.5 for name in parse.REGIONS}
    assert all(mask.any() and (mask & ~hull).sum() <= 4 for mask in masks.values())
    assert np.array_equal(masks["eyes"], masks["right_eye"] | masks["left_eye"])
    assert masks["mouth"][masks["inner_mouth"]].all() and not (masks["eyes"] & masks["mouth"]).any()
    for name, loop in (("right_eye", mesh.RIGHT_EYE), ("mouth", mesh.LIPS_OUTER)):
        flat = points[list(loop), :2].astype(np.float64)
        x, y = flat[:, 0], flat[:, 1]
        area = abs((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2
        outline = np.linalg.norm(flat - np.roll(flat, 1, axis=0), axis=1).sum()
        assert area - 2 < masks[name].sum() < area + outline  # pixels on the line are drawn, too
    with pytest.raises(InputError, match="no region 'ear'"):
        parse.region_mask(points, "ear", (SIZE, SIZE))


def hand_at(x: float, y: float, size: float, turn_deg: float = 0.0) -> Hand:
    """An open hand, fingers up, `size` px from wrist to the middle knuckle."""
    joints = [(0, 0)]
    for angle in (-50, -20, 0, 18, 38):
        direction = np.array([np.sin(np.radians(angle)), -np.cos(np.radians(angle))])
        joints += [tuple(direction * (0.5 if angle == -50 else 1.0) + direction * 0.3 * k) for k in range(4)]
    a = np.radians(turn_deg)
    points = np.array(joints) @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) * size + [x, y]
    return Hand(points.astype(np.float32), 0.9)


def test_a_hand_covers_its_joints_and_turns_with_them() -> None:
    hand = hand_at(100, 150, 50)
    mask = parse.hand_mask([hand], (SIZE, SIZE), soft_px=0)
    for x, y in hand.points:
        assert mask[round(float(y)), round(float(x))] == 1
    assert hand.size == pytest.approx(50, rel=0.3)
    matrix = align.square_matrix(np.array([100.0, 100.0]), 0.5, 30.0, 100)
    moved = parse.hand_mask([hand], (100, 100), matrix, soft_px=0)
    again = cv2.warpAffine(mask, matrix, (100, 100), flags=cv2.INTER_AREA)
    assert ((moved > 0.5) & (again > 0.5)).sum() / ((moved > 0.5) | (again > 0.5)).sum() > 0.85
    assert parse.hand_mask([], (8, 8)).max() == 0


def test_around_a_hand_is_all_that_may_be_hand() -> None:
    hand = hand_at(100, 150, 50)
    strokes, around = (parse.hand_mask([hand], (SIZE, SIZE), soft_px=0, around=wide) for wide in (False, True))
    assert (around >= strokes).all() and strokes.sum() * 1.2 < around.sum() < strokes.sum() * 3
    first, second = hand.points[7].astype(int), hand.points[11].astype(int)  # of two fingers
    between = (first + second) // 2
    assert around[between[1], between[0]] == 1


def test_real_hands_are_found_where_they_are_and_nowhere_else() -> None:
    """At 7 s the hand lies on her cheek, at 13 s it is gone."""
    finder = parse.HandFinder(every=1)
    box = np.array([330, 40, 540, 350], np.float32)
    frames = [next(iter(islice(media.read_frames(locate("sample_target"), t), 1))).image for t in (6.8, 13.0)]
    hands = [finder(frames[0], box) for _ in range(3)][-1]
    assert len(hands) == 1 and hands[0].presence > 0.5
    assert box[0] - 60 < hands[0].points[:, 0].mean() < (box[0] + box[2]) / 2  # on the viewer's left
    finder.reset()
    assert [finder(frames[1], box) for _ in range(3)][-1] == []
    (alone,) = finder.closely(frames[0], box)
    one, other = (parse.hand_mask([hand], frames[0].shape[:2], soft_px=0) > 0 for hand in (alone, hands[0]))
    assert (one & other).sum() > 0.5 * min(
        one.sum(), other.sum()
    )  # fingers are told apart less surely than where the hand is
    assert finder.closely(frames[1], box) == []


def test_a_hand_that_no_search_finds_is_known_from_the_picture_before(monkeypatch: pytest.MonkeyPatch) -> None:
    box = np.array([330, 60, 520, 340], np.float32)
    before, after = (next(iter(media.read_frames(locate("sample_target"), t))).image for t in (4.0, 4.4))
    finder = parse.HandFinder()
    (known,) = finder.closely(before, box)
    monkeypatch.setattr(parse.HandFinder, "_palms", lambda *_: [])
    (followed,) = finder.closely(after, box)
    assert np.abs(followed.points - known.points).mean() < 45  # the face is 190 px wide
    assert parse.HandFinder().closely(after, box) == []
