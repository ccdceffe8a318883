"""Putting a face back: untouched outside, exact inside, seams and masks against independent computations."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, map_coordinates

from lib_vitface.errors import InputError
from lib_vitface.swap import blend


def disc(size: int, radius: float, soft: float = 1.0) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.clip((radius - np.hypot(x, y)) / soft + 0.5, 0, 1).astype(np.float32)


def matrix(scale: float, degrees: float, centre: tuple[float, float], size: int) -> np.ndarray:
    """frame_to_crop that puts frame point `centre` in the middle of the crop."""
    a = np.radians(degrees)
    linear = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return np.hstack([linear, ((size - 1) / 2 - linear @ np.array(centre))[:, None]])


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(40, 215, (6, 8, 3)).astype(np.float32)
    return np.rint(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255)).astype(np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    scale=st.floats(0.3, 4),
    degrees=st.floats(-180, 180),
    x=st.floats(-30, 190),
    y=st.floats(-30, 150),
    mode=st.sampled_from(["alpha", "multiband", "poisson"]),
    radius=st.floats(2, 40),
)
def test_outside_the_mask_every_bit_stays(
    scale: float, degrees: float, x: float, y: float, mode: str, radius: float
) -> None:
    """The reference coverage comes from scipy's own bilinear sampling of the mask, not from the code under test."""
    frame, size = noise(120, 160), 96
    mask = disc(size, radius, 6)
    m = matrix(scale, degrees, (x, y), size)
    before = frame.copy()
    result = blend.paste(frame, 255 - smooth(size, size), mask, m, mode=mode)
    assert np.array_equal(frame, before)
    assert result.dtype == np.uint8 and result.shape == frame.shape
    ys, xs = np.mgrid[:120, :160].astype(float)
    at = np.stack([m[1, 0] * xs + m[1, 1] * ys + m[1, 2], m[0, 0] * xs + m[0, 1] * ys + m[0, 2]])
    reach = cv2.dilate(mask, np.ones((3, 3)), iterations=1 + int(scale))
    covered = map_coordinates(reach, at, order=1, cval=0) > 0
    assert np.array_equal(result[~covered], frame[~covered])


def test_alpha_is_the_weighted_mean_of_a_warp_done_elsewhere() -> None:
    frame, crop, size = smooth(120, 160, 1), smooth(64, 64, 2), 64
    mask, m = disc(64, 24, 12), matrix(1.0, 20, (80.3, 60.7), size)
    result = blend.paste(frame, crop, mask, m)
    ys, xs = np.mgrid[:120, :160].astype(float)
    at = np.stack([m[1, 0] * xs + m[1, 1] * ys + m[1, 2], m[0, 0] * xs + m[0, 1] * ys + m[0, 2]])
    weight = map_coordinates(mask, at, order=1, cval=0)[..., None]
    face = np.stack([map_coordinates(crop[..., c].astype(float), at, order=3, mode="nearest") for c in range(3)], -1)
    wanted = frame + weight * (face - frame)
    assert np.abs(result - wanted).max() < 3
    assert np.abs(result - wanted).mean() < 0.3


@pytest.mark.parametrize("scale", [0.4, 0.7, 1.0, 1.8, 3.3])
@pytest.mark.parametrize("degrees", [0, 33])
def test_taking_and_pasting_is_the_frame_again(scale: float, degrees: float) -> None:
    """Crop by area sampling and paste back: where the crop is at least as fine, almost nothing is lost or shifted."""
    frame = cv2.GaussianBlur(noise(200, 260, 3), (0, 0), 2.5).astype(np.uint8)
    size = 128 if scale <= 1.8 else 256
    m = matrix(scale, degrees, (130.2, 99.6), size)
    crop = cv2.warpAffine(frame, m, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    inner = disc(size, 0.36 * size, 4)
    result = blend.paste(frame, crop, inner, m).astype(float)
    change = np.abs(result - frame)[(result != frame).any(-1)]
    assert change.mean() < (1.5 if scale >= 0.7 else 4)
    # and half a pixel of shift would be seen: compare with the frame moved by that much
    moved = np.abs(cv2.warpAffine(frame, np.float64([[1, 0, 0.5], [0, 1, 0.5]]), (260, 200)).astype(float) - frame)
    if scale >= 0.7:
        assert change.mean() < 0.6 * moved.mean()


def test_shrinking_does_not_alias() -> None:
    """Stripes two crop pixels wide, shown 4 times smaller, are grey, not a new pattern."""
    crop = np.repeat(((np.arange(256) // 2 % 2) * 255).astype(np.uint8)[None, :, None], 256, 0).repeat(3, 2)
    frame = np.full((100, 100, 3), 127, np.uint8)
    result = blend.paste(frame, crop, disc(256, 100), matrix(4.0, 0, (50, 50), 256))
    assert np.abs(result.astype(int) - 127).max() <= 12


@pytest.mark.parametrize("mode", blend.MODES)
def test_opacity_and_empty_masks(mode: str) -> None:
    frame, crop, m = smooth(80, 80, 4), smooth(48, 48, 5), matrix(1.0, 0, (40, 40), 48)
    full = blend.paste(frame, crop, disc(48, 18, 4), m, mode=mode).astype(int)
    half = blend.paste(frame, crop, disc(48, 18, 4), m, mode=mode, opacity=0.5).astype(int)
    assert np.array_equal(blend.paste(frame, crop, disc(48, 18, 4), m, mode=mode, opacity=0.0), frame)
    assert np.abs(full - frame).max() > 20
    assert np.abs(half - (full + frame) / 2).max() <= 1
    if mode != "raw":
        assert np.array_equal(blend.paste(frame, crop, np.zeros((48, 48), np.float32), m, mode=mode), frame)


def test_raw_pastes_the_square() -> None:
    frame, crop = np.zeros((40, 40, 3), np.uint8), np.full((16, 16, 3), 200, np.uint8)
    result = blend.paste(frame, crop, np.zeros((16, 16), np.float32), matrix(1.0, 0, (19.5, 19.5), 16), mode="raw")
    assert (result[12:28, 12:28] == 200).all()
    assert int((result > 0).all(-1).sum()) == 256


def test_unknown_mode() -> None:
    with pytest.raises(InputError, match="'overlay' is not one of alpha"):
        blend.paste(
            np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8), disc(8, 3), np.eye(3)[:2], mode="overlay"
        )


def full_poisson(under: np.ndarray, over: np.ndarray, core: np.ndarray) -> np.ndarray:
    """Seamless cloning at full size by plain Jacobi-free algebra: minimise |grad f - grad over| with f = under outside."""
    from scipy.sparse import lil_matrix
    from scipy.sparse.linalg import spsolve

    ys, xs = np.nonzero(core)
    number = {(y, x): i for i, (y, x) in enumerate(zip(ys, xs, strict=True))}
    system, right = lil_matrix((len(ys), len(ys))), np.zeros(len(ys))
    for i, (y, x) in enumerate(zip(ys, xs, strict=True)):
        system[i, i] = 4
        for v, u in ((y, x + 1), (y, x - 1), (y + 1, x), (y - 1, x)):
            right[i] += over[y, x] - over[v, u]
            if (v, u) in number:
                system[i, number[v, u]] = -1
            else:
                right[i] += under[v, u]
    result = under.copy()
    result[ys, xs] = spsolve(system.tocsr(), right)
    return result


def test_poisson_is_the_solution_of_the_full_problem() -> None:
    """A face whose level is off by a gradient of light: full-size seamless cloning as the independent answer."""
    under = smooth(90, 90, 6).astype(np.float32)
    ramp = np.linspace(-40, 40, 90, dtype=np.float32)[None, :, None]
    over = smooth(90, 90, 6).astype(np.float32) * 0.8 + ramp + 10
    mask = disc(90, 30, 1)
    wanted = np.stack([full_poisson(under[..., c], over[..., c], mask > 0.5) for c in range(3)], -1)
    got = over + blend.membrane(under, over, mask)
    inside = disc(90, 26, 1) > 0.5
    assert np.abs(wanted - over)[inside].mean() > 10  # there is something to correct
    assert np.abs(got - wanted)[inside].mean() < 1.0
    big_under, big_over, big_mask = (
        cv2.resize(p, (360, 360), interpolation=cv2.INTER_CUBIC) for p in (under, over, mask)
    )
    got_big = cv2.resize(
        big_over + blend.membrane(big_under, big_over, big_mask), (90, 90), interpolation=cv2.INTER_AREA
    )
    assert np.abs(got_big - wanted)[inside].mean() < 1.5


def test_poisson_keeps_the_face_where_it_already_fits_and_its_detail() -> None:
    frame = smooth(120, 120, 7)
    m, mask = matrix(1.0, 0, (59.5, 59.5), 96), disc(96, 34, 8)
    detail = np.random.default_rng(0).normal(0, 8, (96, 96, 1))
    crop = np.clip(frame[12:108, 12:108] + detail + 30, 0, 255).astype(np.uint8)  # 30 too bright
    alpha = blend.paste(frame, crop, mask, m).astype(float)
    poisson = blend.paste(frame, crop, mask, m, mode="poisson").astype(float)
    middle = np.s_[48:72, 48:72]
    wanted = frame[middle] + detail[36:60, 36:60]
    assert (alpha[middle] - wanted).mean() > 25
    assert abs((poisson[middle] - wanted).mean()) < 3
    assert (
        np.corrcoef(
            (poisson[middle] - frame[middle]).ravel(), np.broadcast_to(detail[36:60, 36:60], (24, 24, 3)).ravel()
        )[0, 1]
        > 0.97
    )


def test_poisson_flickers_less_than_opencv_under_movement() -> None:
    """The reason for not using cv2.seamlessClone: a face moved by parts of a pixel must not jump."""
    size, footage, face = 64, smooth(120, 160, 8), smooth(64, 64, 9)
    mask = disc(size, 22, 6)
    steps = {"ours": [], "opencv": []}
    for x in np.arange(70, 74, 0.25):
        m = matrix(1.0, 0, (x, 60.0), size)
        steps["ours"].append(blend.paste(footage, face, mask, m, mode="poisson").astype(float))
        box = blend.mask_box(mask, m, 160, 120)
        over, soft = blend.warp_back(face, mask, m, box)
        solid = np.uint8(soft > 0.5) * 255
        ys, xs = np.nonzero(solid)
        centre = (box.x0 + int(xs.min() + xs.max()) // 2, box.y0 + int(ys.min() + ys.max()) // 2)
        steps["opencv"].append(
            cv2.seamlessClone(np.uint8(over.clip(0, 255)), footage, solid, centre, cv2.NORMAL_CLONE).astype(float)
        )
    second = {name: np.abs(np.diff(clip, n=2, axis=0))[:, 50:70, 62:82].mean() for name, clip in steps.items()}
    print(second)
    assert second["ours"] < 0.6 * second["opencv"]


def test_multiband_has_a_softer_seam_than_alpha_and_the_same_middle() -> None:
    """A step of light: multiband spreads it over a wide seam while keeping fine texture switched sharply."""
    frame = np.full((200, 200, 3), 100, np.uint8)
    crop = np.full((128, 128, 3), 160, np.uint8)
    m, mask = matrix(1.0, 0, (99.5, 99.5), 128), disc(128, 44, 10)
    alpha = blend.paste(frame, crop, mask, m)[100, :, 0].astype(float)
    multi = blend.paste(frame, crop, mask, m, mode="multiband")[100, :, 0].astype(float)
    assert np.abs(np.diff(multi)).max() < 0.8 * np.abs(np.diff(alpha)).max()
    assert multi[100] > 155
    same = blend.multiband(frame.astype(np.float32), frame.astype(np.float32), disc(200, 60, 5))
    assert np.abs(same - frame).max() < 1e-3


def test_grow_moves_the_contour_by_the_distance() -> None:
    for distance in (-20, -7.5, -0.25, 0.25, 6.5, 15):
        area = float(blend.grow(disc(200, 50), distance).sum())
        assert abs(np.sqrt(area / np.pi) - (50 + distance)) < 0.4
    ragged = np.random.default_rng(1).random((40, 40)) > 0.3
    ragged[:, :2] = ragged[:, -2:] = ragged[:2] = ragged[-2:] = False
    wanted = distance_transform_edt(ragged) - 0.5 > 1.6
    got = blend.grow(ragged.astype(np.float32), -1.6) > 0.5
    assert np.mean(wanted != got) < 0.01


def test_erosion_reaches_masks_that_touch_the_border() -> None:
    eroded = blend.grow(np.ones((50, 50), np.float32), -5)
    assert eroded[:4].max() == 0 and eroded[25, 25] == 1 and eroded[25, 6] == 1


@pytest.mark.parametrize("width", [2, 10, 30])
def test_feather_lies_inside_the_old_edge_and_is_as_wide_as_said(width: float) -> None:
    mask = disc(200, 70)
    soft = blend.feather(mask, width)
    assert (soft[mask == 0] < 0.03).all()
    row = soft[100, :100]
    assert row[99] > 0.99
    ten, ninety = np.interp([0.05, 0.95], row, np.arange(100))
    assert 0.5 * width < ninety - ten < 1.1 * width + 1
    assert blend.feather(np.ones((64, 64), np.float32), width)[0].max() == 0
    assert blend.feather(mask, 0) is mask


def test_combine_excludes_what_any_mask_excludes() -> None:
    a, b = disc(40, 15), np.zeros((40, 40), np.float32)
    b[:, 20:] = 0.5
    assert np.array_equal(blend.combine(a, b), a * b)


def test_sharpen_doubles_fine_detail_and_keeps_flat_areas() -> None:
    flat = np.full((128, 128, 3), 90, np.uint8)
    assert np.array_equal(blend.sharpen(flat, 1.0), flat)
    stripes = flat.copy()
    stripes[:, ::2] += 20
    contrast = blend.sharpen(stripes, 1.0)[64, 60:68, 0].astype(int)
    assert 35 <= np.ptp(contrast) <= 42
    assert blend.sharpen(stripes, 0.0) is stripes


def test_motion_blur_spreads_a_point_along_the_movement() -> None:
    image = np.zeros((61, 61, 3), np.uint8)
    image[30, 30] = 255
    assert blend.motion_blur(image, (0.3, 0.4)) is image
    blurred = blend.motion_blur(image, (9.0, 12.0))[..., 0].astype(float)  # length 15
    ys, xs = np.mgrid[:61, :61] - 30
    spread = (
        np.array([[(blurred * xs * xs).sum(), (blurred * xs * ys).sum()], [0, (blurred * ys * ys).sum()]])
        / blurred.sum()
    )
    # a uniform line of vector v has second moments v v^T / 12
    assert np.allclose([spread[0, 0], spread[0, 1], spread[1, 1]], [81 / 12, 108 / 12, 144 / 12], atol=0.8)
    assert abs((blurred * xs).sum()) / blurred.sum() < 0.1
