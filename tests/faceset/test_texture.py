"""The texture memory against pictures whose content is known."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from faceset_maker import posed_landmarks

from lib_vitface.errors import CheckpointError
from lib_vitface.faces import mesh
from lib_vitface.faceset.gaze import UNKNOWN
from lib_vitface.faceset.texture import (
    Expression,
    Nearby,
    TextureMemory,
    geometry_map,
    neutral_shape,
    place_expression,
    read_expression,
    spread_views,
)
from lib_vitface.types import Floats, Image, Pose

SIZE = 160


def smooth_image(seed: int, size: int = SIZE) -> Image:
    coarse = np.random.default_rng(seed).integers(30, 220, (10, 10, 3)).astype(np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def view(yaw: float, seed: int = 0, mouth_cm: float = 0.0) -> tuple[Image, Floats]:
    points = mesh.vertices().copy()
    points[list(mesh.LIPS_INNER[11:])] -= np.array([0, mouth_cm, 0], np.float32)  # lower inner lip
    return smooth_image(seed), posed_landmarks(Pose(yaw, 0, 0), SIZE, points)


def built(views: Sequence[tuple[Image, Floats]], size: int) -> TextureMemory:
    return TextureMemory.build(((image, landmarks, UNKNOWN) for image, landmarks in views), size)


def test_expression_is_free_of_pose_and_place() -> None:
    front, turned = (read_expression(view(yaw, mouth_cm=1.0)[1]) for yaw in (0, 25))
    assert np.abs(front.points - turned.points).max() < 0.05  # cm
    assert turned.angles[0] - front.angles[0] == pytest.approx(25, abs=0.5)
    landmarks = view(25, mouth_cm=1.0)[1]
    assert np.abs(place_expression(turned.points, landmarks) - landmarks).max() < 0.05  # px


def test_a_view_drawn_where_it_was_seen_is_the_view() -> None:
    image, landmarks = view(10)
    memory = built([(image, landmarks)], size=256)
    drawn = memory.render(landmarks, SIZE, read_expression(landmarks))
    seen = cv2.erode((drawn.mask > 0.5).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert seen.mean() > 0.12
    assert np.abs(drawn.image[seen] - image[seen]).mean() < 4  # of 255: two interpolations


def test_the_view_with_the_wanted_mouth_is_taken() -> None:
    views = [view(0, seed=1), view(0, seed=2, mouth_cm=1.5)]
    memory = built(views, size=128)
    for (image, landmarks), other in zip(views, reversed(views), strict=True):
        drawn = memory.render(landmarks, SIZE, read_expression(landmarks))
        x, y = landmarks[17, :2].round().astype(int)  # below the lower lip
        patch = np.s_[y - 1 : y + 2, x - 1 : x + 2]
        assert np.abs(drawn.image[patch] - image[patch]).mean() < 12
        assert np.abs(drawn.image[patch] - other[0][patch]).mean() > 12


def test_views_that_are_not_allowed_are_not_used() -> None:
    views = [view(0, seed=1), view(0, seed=2)]
    memory = built(views, size=128)
    expression = read_expression(views[0][1])
    only = memory.texture(expression, memory.mixture(expression, np.array([False, True])))[0]
    both = memory.texture(expression, memory.mixture(expression))[0]
    inside = memory.trust[1] > 128
    assert np.abs(only[inside] - memory.textures[1][inside]).max() < 1
    assert np.abs(both[inside] - memory.textures[1][inside]).mean() > 5


def test_a_choice_that_jumps_for_a_frame_is_steadied_and_another_mouth_is_not() -> None:
    memory = built([view(0, seed=k, mouth_cm=0.12 * (k % 4)) for k in range(16)], size=128)
    still = [read_expression(view(0, seed=1, mouth_cm=m)[1]) for m in (0.1, 0.1, 0.16, 0.1, 0.1)]
    wide = read_expression(view(0, seed=1, mouth_cm=1.2)[1])

    def nearby(expressions: Sequence[Expression]) -> list[Nearby]:
        return [Nearby(e, memory.mixture(e), 0.04 * (k - 2)) for k, e in enumerate(expressions) if k != 2]

    own = memory.mixture(still[2])
    steady = memory.steady(still[2], own, nearby(still))
    usual = memory.mixture(still[0]).shares
    assert np.abs(steady.shares[0] - usual[0]).sum() < 0.6 * np.abs(own.shares[0] - usual[0]).sum()
    assert np.allclose(steady.shares.sum(axis=1), 1)
    spoken = memory.mixture(wide)
    kept = memory.steady(wide, spoken, nearby([*still[:2], wide, *still[3:]]))
    assert np.abs(kept.shares[0] - spoken.shares[0]).sum() < 0.03
    assert memory.steady(wide, spoken, []) is spoken


def test_views_that_lie_not_quite_on_each_other_do_not_blur_the_drawing() -> None:
    shifted = []
    for k in range(12):
        image, landmarks = view(0, seed=1)
        noise = np.random.default_rng(3).normal(0, 25, image.shape)
        moved = np.roll(np.clip(image + noise, 0, 255).astype(np.uint8), (k % 4 - 2, k // 4 - 1), axis=(0, 1))
        shifted.append((moved, landmarks))
    memory = built(shifted, size=128)
    expression = read_expression(shifted[0][1])
    mixture = memory.mixture(expression)
    plain = memory._blended(expression, mixture)[0]
    drawn = memory.texture(expression, mixture)[0]
    inside = memory.trust.min(axis=0) > 160

    def fine(picture: Floats) -> float:
        grey = cv2.cvtColor(np.clip(picture, 0, 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
        return float(np.abs(cv2.Laplacian(grey, cv2.CV_32F))[inside].mean())

    assert fine(drawn) > 1.3 * fine(plain)
    coarse = [cv2.GaussianBlur(np.where(inside[..., None], p, 0), (0, 0), 6)[inside] for p in (drawn, plain)]
    assert np.abs(coarse[0] - coarse[1]).mean() < 2, "what is coarse is that of all views"


def test_many_equal_views_are_drawn_all_the_same() -> None:
    memory = built([view(0, seed=1) for _ in range(20)], size=128)
    expression = read_expression(view(0, seed=1)[1])
    drawn = memory.texture(expression, memory.mixture(expression))[0]
    inside = memory.trust[0] > 128
    assert np.abs(drawn[inside] - memory.textures[0][inside]).max() < 1


def test_a_cover_on_one_view_is_outvoted() -> None:
    views = [view(0, seed=1) for _ in range(7)]
    covered = views[3][0].copy()
    nose = views[3][1][mesh.NOSE_TIP, :2].astype(int)
    cv2.circle(covered, tuple(int(v) for v in nose), 16, (0, 255, 0), -1)
    views[3] = covered, views[3][1]
    memory = built(views, size=128)
    expression = read_expression(views[0][1])
    drawn = memory.render(views[0][1], SIZE, expression, memory.mixture(expression, np.arange(7) != 0))
    patch = np.s_[nose[1] - 6 : nose[1] + 6, nose[0] - 6 : nose[0] + 6]
    assert np.abs(drawn.image[patch] - views[0][0][patch]).mean() < 8


def test_nothing_is_taken_from_where_a_hand_is_known_to_lie() -> None:
    """Of two views, too few to outvote each other, one is half covered: that half comes from the other alone."""
    (image, landmarks), (_, again) = view(0), view(4)
    covered, cover = image.copy(), np.zeros((SIZE, SIZE), np.float32)
    covered[:, : SIZE // 2], cover[:, : SIZE // 2] = (250, 20, 20), 1
    views = [(covered, landmarks, UNKNOWN), (image, again, UNKNOWN)]
    ignorant, told = TextureMemory.build(views, 256), TextureMemory.build(views, 256, [cover, None])
    of_the_cover = [m.render(landmarks, SIZE, read_expression(landmarks)) for m in (ignorant, told)]
    left = np.s_[SIZE // 3 : SIZE // 2, SIZE // 3 : SIZE // 2 - 8]
    gaps = [np.abs(drawn.image[left] - image[left]).mean() for drawn in of_the_cover]
    assert gaps[0] > 20 and gaps[1] < 10
    bare = (of_the_cover[0].mask > 0.5) & (np.arange(SIZE) > SIZE // 2 + 8)
    assert bare.sum() > 1000
    assert np.abs(of_the_cover[0].image[bare] - of_the_cover[1].image[bare]).mean() < 3


def test_an_open_mouth_never_seen_is_hidden_and_not_trusted() -> None:
    closed = view(0, seed=1)
    wanted = view(0, mouth_cm=2.5)[1]
    memory = built([closed], size=128)
    drawn = memory.render(wanted, SIZE, read_expression(wanted))
    inside = geometry_map(wanted, SIZE)[..., 1] > 0.9
    assert drawn.mask[inside].mean() < 0.3
    assert np.abs(drawn.image[inside] - [70, 32, 32]).mean() < 20


def test_neutral_ignores_talking_and_blinking() -> None:
    rest = mesh.vertices()
    talking = np.stack([view(0, mouth_cm=1.0 + 0.1 * k)[1] for k in range(7)])
    shapes = np.concatenate([np.stack([read_expression(t).points for t in talking]), np.repeat(rest[None], 3, axis=0)])
    assert np.abs(neutral_shape(shapes) - rest).max() < 0.05


def test_spread_views_covers_the_extremes_first() -> None:
    expressions = [read_expression(view(yaw)[1]) for yaw in (-40, -2, -1, 0, 1, 2, 40)]
    assert {0, 6} <= set(spread_views(expressions, [1.0] * 7, 3))
    assert len(spread_views(expressions, [1.0] * 7, 50)) == 7


def test_an_unknown_open_mouth_shows_the_footages_own() -> None:
    memory = built([view(0)], size=128)
    wanted = view(0, mouth_cm=2.5)[1]
    footage = np.full((SIZE, SIZE, 3), 200, np.float32)
    drawn = memory.render(wanted, SIZE, read_expression(wanted), footage=footage)
    plain = memory.render(wanted, SIZE, read_expression(wanted))
    inside = geometry_map(wanted, SIZE)[..., 1] > 0.995
    assert inside.sum() > 50
    # The footage is one colour, so in the drawn face's light it is that face's mean.
    assert np.ptp(drawn.image[inside], axis=0).max() < 12
    assert np.abs(drawn.image[inside].mean(axis=0) - plain.image[plain.mask > 0.5].mean(axis=0)).max() < 20
    outside = (geometry_map(wanted, SIZE)[..., 1] == 0) & (plain.mask > 0)
    assert np.array_equal(drawn.image[outside], plain.image[outside])


def test_a_head_seen_from_the_side_has_no_specks_at_its_edge() -> None:
    """A plain picture drawn under any turn is that plain picture: nothing from beyond the mesh or far away comes in."""
    plain = np.full((SIZE, SIZE, 3), 120, np.uint8)
    inside = posed_landmarks(Pose(0, 0, 0), SIZE)
    cv2.fillConvexPoly(plain, cv2.convexHull(inside[:, :2].round().astype(np.int32)), (180, 140, 120))
    grown = cv2.dilate(plain, np.ones((13, 13), np.uint8))  # the skin goes on a little beyond the mesh
    memory = built([(grown, inside)], size=256)
    for yaw in (0, 20, 35, 50):
        landmarks = posed_landmarks(Pose(yaw, 0, 0), SIZE)
        drawn = memory.render(landmarks, SIZE, read_expression(landmarks))
        assert np.abs(drawn.image[drawn.mask > 0] - [180, 140, 120]).max() < 3, yaw


def test_geometry_map_has_the_area_of_the_openings() -> None:
    landmarks = view(0, mouth_cm=2.0)[1]
    areas = geometry_map(landmarks, SIZE).sum(axis=(0, 1))
    eyes = sum(cv2.contourArea(landmarks[list(loop), :2]) for loop in (mesh.RIGHT_EYE, mesh.LEFT_EYE))
    mouth = cv2.contourArea(landmarks[list(mesh.LIPS_INNER), :2])
    # cv2 counts the outline's pixels as inside
    assert eyes < areas[0] < eyes * 1.8
    assert mouth < areas[1] < mouth * 1.4


def test_arrays_bring_back_the_same_memory() -> None:
    memory = built([view(0), view(20)], size=64)
    again = TextureMemory.from_arrays(memory.arrays())
    expression = Expression(memory.neutral, np.zeros(2, np.float32))
    mixture = memory.mixture(expression)
    assert np.array_equal(again.texture(expression, mixture)[0], memory.texture(expression, mixture)[0])
    with pytest.raises(CheckpointError, match="texture memory"):
        TextureMemory.from_arrays({k: v for k, v in memory.arrays().items() if k != "trust"})
    assert memory.resized(32).size == 32
