"""Batches: clips with their true times, motion, views; what hides and what covers."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from lib_vitface.faces import align
from lib_vitface.faces.landmarks import five_points
from lib_vitface.training import recipes
from lib_vitface.training import sampler as sampler_module
from lib_vitface.training.augment import Augmentation, paint_cover
from lib_vitface.training.data import Person
from lib_vitface.training.sampler import PRIORITY_POINTS, Extras, Sampler

PLAIN = Augmentation(0, 0, 0, 0)


def frames_of(person: Person, pictures: np.ndarray) -> list[int]:
    """Which of the person's frames unchanged pictures `[N, 3, S, S]` are."""
    seen = (pictures.transpose(0, 2, 3, 1) * 255).round().astype(np.uint8)
    return [int(np.abs(person.images.astype(int) - p).sum(axis=(1, 2, 3)).argmin()) for p in seen]


def test_clips_are_neighbours_in_time_with_their_true_times(persons: list[Person]) -> None:
    sampler = Sampler(persons, 12, PLAIN, 0, Extras(length=3))
    for step in range(6):
        batch = sampler.batch(step)
        assert batch.image.shape == (12, 3, 64, 64) and batch.length == 3 and batch.times is not None
        assert batch.identity.tolist() == [0, 1, 0, 1]
        for clip, who in enumerate(batch.identity):
            person = persons[who]
            frames = frames_of(person, batch.wanted[clip * 3 : clip * 3 + 3])
            assert set(frames) <= set(person.training.tolist())
            times = np.array([person.times[f][1] for f in frames])
            assert (np.diff(times) >= 0).all() and np.diff(times).max() <= 0.5
            np.testing.assert_allclose(batch.times[clip], times - times[0], atol=1e-6)


def test_a_track_that_is_too_short_is_filled_with_its_last_frame(persons: list[Person]) -> None:
    lonely = [replace(p, times=[(f"/{k}.png", 0.0) for k in range(len(p.images))]) for p in persons]
    batch = Sampler(lonely, 4, PLAIN, 0, Extras(length=2)).batch(0)
    assert batch.times is not None and (batch.times == 0).all()
    np.testing.assert_array_equal(batch.image[0::2], batch.image[1::2])


def test_frames_of_a_clip_are_changed_alike(persons: list[Person]) -> None:
    lonely = [replace(p, times=[(f"/{k}.png", 0.0) for k in range(len(p.images))]) for p in persons]
    batch = Sampler(lonely, 4, Augmentation(1, 1, 1, 0.5), 0, Extras(length=2)).batch(1)
    for values in (batch.image, batch.wanted, batch.uncovered, batch.five):
        np.testing.assert_array_equal(values[0::2], values[1::2])
    assert not np.array_equal(batch.image, batch.wanted)


def test_flow_says_where_pixels_go(persons: list[Person]) -> None:
    """The second frame of every clip is the first, three pixels to the right."""
    moved = []
    for person in persons:
        big = cv2.resize(np.random.default_rng(3).integers(0, 255, (16, 16, 3)).astype(np.uint8), (64, 64))
        images = np.stack([np.roll(big, 3 * k, axis=1) for k in range(len(person.images))])
        moved.append(replace(person, images=images))
    batch = Sampler(moved, 4, PLAIN, 0, Extras(length=2, flow=True)).batch(0)
    assert batch.flow is not None and batch.visible is not None
    assert batch.flow.shape == (2, 1, 64, 64, 2) and batch.visible.shape == (2, 1, 1, 64, 64)
    inner = batch.flow[:, 0, 20:44, 20:44]
    times = batch.times[:, 1] / 0.5  # frames between the two, where one was held out
    np.testing.assert_allclose(np.median(inner[..., 0], axis=(1, 2)), 3 * times, atol=0.3)
    assert np.abs(np.median(inner[..., 1])) < 0.3 and batch.visible.mean() > 0.6


def test_views_are_from_all_sides_and_never_of_the_moment(persons: list[Person]) -> None:
    sampler = Sampler(persons, 4, PLAIN, 0, Extras(views=4))
    shown = sampler.views()
    assert shown is not None and shown.shape == (2, 4, 3, 64, 64)
    assert frames_of(persons[0], shown[0]) == persons[0].views[:4].tolist()
    for step in range(8):
        batch = sampler.batch(step)
        assert batch.views is not None and batch.views.shape == (2, 2, 3, 64, 64)
        for who, person in enumerate(persons):
            seen = frames_of(person, batch.views[who])
            assert set(seen) <= set(person.views[:4].tolist())
            assert not set(seen) & set(frames_of(person, batch.wanted[who::2]))


def test_five_points_follow_the_picture(persons: list[Person]) -> None:
    batch = Sampler(persons, 8, Augmentation(1.0, 0, 0, 1.0), 0).batch(2)
    assert (batch.five[:, 0, 0] < batch.five[:, 1, 0]).all() and (batch.five[:, 3, 0] < batch.five[:, 4, 0]).all()
    np.testing.assert_allclose(batch.five[:, 1], batch.points[:, :16].mean(axis=1), atol=1e-3)  # mirrored: sides change
    plain = Sampler(persons, 2, PLAIN, 0).batch(0)
    frame = frames_of(persons[0], plain.wanted[:1])[0]
    np.testing.assert_allclose(plain.five[0], five_points(persons[0].landmarks[frame]), atol=1e-4)


def test_heads_and_their_depth_follow_the_picture(persons: list[Person]) -> None:
    """Moved, turned, mirrored: the eyes and lips of every picture lie in face space where they lie on the head itself."""
    sampler = Sampler(persons, 8, Augmentation(1.5, 0, 0, 0.5), 0, Extras(rays=16))
    batch = sampler.batch(0)
    assert batch.picture_to_face is not None and batch.depth is not None and batch.depth_known is not None
    assert batch.picture_to_face.shape == (8, 3, 4) and batch.depth.shape == batch.depth_known.shape == (8, 1, 16, 16)
    for k in range(8):
        person, matrix = persons[batch.identity[k]], batch.picture_to_face[k].astype(np.float64)
        mirrored = np.linalg.det(matrix[:, :3]) < 0
        rest = np.stack([align.fit_head(p).canonical(p) for p in person.landmarks])[:, PRIORITY_POINTS]
        places = (rest - align.MIDDLE) * align.AXES / (align.HEIGHT_CM * align.COVERAGE / 2)
        # back into the picture: depth is free, so the two rows of x and y are compared
        back = np.linalg.inv(np.vstack([matrix, [0, 0, 0, 1]]))
        pixels = (places @ back[:2, :3].T + back[:2, 3] + 1) * 32 - 0.5
        gaps = np.abs(pixels - batch.points[k]).max(axis=(1, 2))
        assert gaps.min() < 0.05, f"mirrored: {mirrored}"
        known, depth = batch.depth_known[k, 0] > 0, batch.depth[k, 0]
        assert 0.1 < known.mean() < 0.6 and -0.7 < depth[known].min() < depth[known].max() < 0.6
    assert len(set(np.sign(np.linalg.det(batch.picture_to_face[:, :, :3])))) == 2
    assert sampler.held_out(4).depth is not None and Sampler(persons, 4, PLAIN, 0).batch(0).depth is None


def test_hands_teach_the_mask_and_nothing_else(persons: list[Person]) -> None:
    hands = np.zeros((len(persons[0].images), 64, 64), np.uint8)
    hands[:, 30:40, 20:50] = 255
    sure = np.minimum(persons[0].sure, 255 - np.stack([cv2.dilate(h, np.ones((7, 7))) for h in hands]))
    batch = Sampler([replace(persons[0], hands=hands, sure=sure), persons[1]], 2, PLAIN, 0).batch(0)
    hand, hull = hands[0] > 0, batch.hull[0, 0] > 0.99
    assert (hand & hull).sum() > 100
    assert batch.where[0, 0][hand].max() == 0 and batch.uncovered[0, 0][hand].max() == 0
    np.testing.assert_allclose(batch.mask_known[0, 0][hand & hull], 1, atol=0.02)
    about = (cv2.dilate(hands[0], np.ones((7, 7))) > 0) & ~hand  # hand or face, who knows
    assert batch.mask_known[0, 0][about].max() == 0
    assert (batch.uncovered[0, 0][~hand] == 1).all()
    np.testing.assert_array_equal(batch.mask_known[1], batch.where[1])


def test_hands_of_the_footage_lie_before_other_faces(persons: list[Person], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of frames that are learned from and show enough of one; the mask is told where, and what shall come out is the face without."""
    monkeypatch.setattr(sampler_module, "_REAL_HANDS", 1.0)
    hands = np.zeros((len(persons[1].images), 64, 64), np.uint8)
    hands[::2, 26:44, 20:50] = 255
    hands[1::2, 30:32, 30:32] = 255  # too little to be one
    pink = persons[1].images.copy()
    pink[hands > 0] = (250, 120, 200)
    sampler = Sampler([persons[0], replace(persons[1], hands=hands, images=pink)], 8, Augmentation(0, 0, 1, 0), 0)
    assert {number for number, _ in sampler._hands} == {1}
    assert {frame for _, frame in sampler._hands} == {int(f) for f in persons[1].training if f % 2 == 0}
    covered, tinted = [], []
    for seed in range(20):
        sample = sampler._sample(0, 3, np.random.default_rng(seed))
        bare, image = sample["uncovered"][..., 0], sample["image"]
        np.testing.assert_array_equal(sample["wanted"], persons[0].images[3])
        np.testing.assert_array_equal(image[bare == 1], sample["wanted"][bare == 1])
        if (bare == 0).sum() > 20:
            covered.append((bare == 0).mean())
            tinted.append(np.abs(image[bare == 0].mean(axis=0) - (250, 120, 200)).max() < 12)
    assert len(covered) > 15 and len(set(covered)) > 10
    assert 2 < sum(tinted) < len(tinted) - 2  # the others have the colours of the face
    assert Sampler(persons, 2, Augmentation(0, 0, 1, 0), 0)._hands == []


@pytest.mark.parametrize("shapes", ["plain", "objects", "all"])
def test_covers_change_what_they_cover_and_nothing_else(persons: list[Person], shapes: str) -> None:
    image = persons[0].images[0]
    points = persons[0].landmarks[0][PRIORITY_POINTS, :2]
    shares = []
    for seed in range(24):
        covered, mask = paint_cover(image, persons[1].images[0], np.random.default_rng(seed), shapes, points)
        assert covered.dtype == np.uint8 and mask.min() >= 0 and mask.max() <= 1
        np.testing.assert_array_equal(covered[mask == 0], image[mask == 0])
        shares.append(float(mask.mean()))
    assert 0.02 < np.mean(shares) < 0.7 and len(set(shares)) > 20


def test_objects_are_where_such_things_are(persons: list[Person]) -> None:
    """On the average glasses, hands and microphones cover eyes and mouth more than the corners of the picture."""
    points = persons[0].landmarks[0][PRIORITY_POINTS, :2]
    total = np.zeros((64, 64))
    for seed in range(60):
        total += paint_cover(
            persons[0].images[0], persons[1].images[0], np.random.default_rng(seed), "objects", points
        )[1]
    eyes, corners = points[:32].mean(axis=0).astype(int), (total[:6, :6].mean() + total[:6, -6:].mean()) / 2
    assert total[eyes[1] - 3 : eyes[1] + 4].max() > 3 * corners


@pytest.mark.parametrize("name", ["camera", "light", "all"])
def test_recipes_change_the_driving_picture_alone_and_the_same_way_again(persons: list[Person], name: str) -> None:
    pytest.importorskip("albumentations", reason="albumentations is not installed")
    batches = [Sampler(persons, 16, Augmentation(0, 0, 0, 0, recipe=r), 0).batch(0) for r in ("none", name, name)]
    np.testing.assert_array_equal(batches[1].image, batches[2].image)
    changed = np.abs(batches[1].image - batches[0].image).mean(axis=(1, 2, 3))
    assert (changed > 1e-3).sum() >= 6 and changed.max() < 0.35
    np.testing.assert_array_equal(batches[1].wanted, batches[0].wanted)


def test_recipes_without_the_package_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "albumentations", None)
    with pytest.raises(recipes.MissingDependencyError, match="pip install albumentations"):
        recipes.make_recipe("camera")
    assert recipes.make_recipe("none") is None
