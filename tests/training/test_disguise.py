"""Driving faces with somebody else's looks: they hide who it is, not what the face does, and the truth stays the frame."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from made_faceset import write_faceset
from test_pretrain import asked
from test_sampler import PLAIN, frames_of
from test_trainer import options

from lib_vitface.faces import align, mesh
from lib_vitface.training import disguise, trainer
from lib_vitface.training.augment import Augmentation, lookup
from lib_vitface.training.data import Person
from lib_vitface.training.disguise import Disguises
from lib_vitface.training.pretrain import Rotation
from lib_vitface.training.sampler import PRIORITY_POINTS, Extras, Sampler

DISGUISED = Augmentation(0, 0, 0, 0, disguise=1)


def parts(person: Person, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Well inside the face, well outside of it, and inside eyes or mouth."""
    hull, eyes, mouth = (person.layers[0, frame, ..., k] for k in (1, 2, 3))
    rows, columns = np.mgrid[: len(hull), : len(hull)]
    inside = np.argwhere(hull > 250)
    middle = (np.abs(np.stack([rows, columns], -1) - inside.mean(axis=0)) < inside.std(axis=0) * 0.7).all(axis=-1)
    opening = np.maximum(eyes, mouth) > 250
    return middle & (np.maximum(eyes, mouth) == 0), hull == 0, opening


def test_looks_are_the_other_persons_and_all_else_is_the_frame(persons: list[Person]) -> None:
    person = persons[0]
    disguises = Disguises(persons)
    for frame in (0, 5, 9):
        driving, looks, _ = disguises(0, frame, 1)
        image = person.images[frame].astype(float)
        middle, outside, opening = parts(person, frame)
        assert middle.sum() > 100
        np.testing.assert_array_equal(driving[outside], person.images[frame][outside])
        assert np.abs(driving.astype(float) - image)[opening].max(initial=0) <= 2  # soft at its edge
        # in the middle it is what the other's memory draws there, in the frame's colours
        sure = middle & (person.sure[frame] == 255)
        other = persons[1]
        wanted = trainer.dataclasses.replace(
            person.expressions[frame],
            points=person.expressions[frame].points + other.memory.neutral - person.memory.neutral,
        )
        drawn = other.memory.resized(128).render(person.landmarks[frame], 64, wanted).image
        like = [np.corrcoef(looks[middle].astype(float)[:, c], drawn[middle][:, c])[0, 1] for c in range(3)]
        assert min(like) > 0.99
        hull = person.layers[0, frame, ..., 1] > 250
        gaps = [np.abs(p[hull].mean(axis=0) - image[hull].mean(axis=0)).mean() for p in (looks, drawn)]
        assert gaps[0] < max(gaps[1], 10)  # the frame's colours
        left = np.abs(driving.astype(float) - looks)[sure].mean() / np.abs(image - looks)[sure].mean()
        assert left < 0.8  # as far as the memory is sure, which of these made-up faces it hardly is
    again = Disguises(persons)
    again(1, 2, 0)
    np.testing.assert_array_equal(again(0, 9, 1)[0], driving)


def test_what_is_kept_of_them_is_bounded(persons: list[Person], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disguise, "_KEPT_BYTES", 3 * 2 * 64 * 64 * 3)
    few, all_kept = Disguises(persons), {}
    for frame in [*range(6), 0, 1]:
        driving = few(0, frame, 1)[0]
        np.testing.assert_array_equal(all_kept.setdefault(frame, driving), driving)
        assert len(few._drawn) <= 3


def unshaped(sampler: Sampler) -> Sampler:
    """The sampler, in whose disguises faces keep their shape."""
    reshape = sampler._disguises.reshape
    sampler._disguises.reshape = lambda who, frame, other, share: reshape(who, frame, other, 0.0)  # type: ignore[method-assign]
    return sampler


def test_what_shall_come_out_stays_the_frame(persons: list[Person]) -> None:
    batch, plain = (unshaped(Sampler(persons, 6, change, 0)).batch(3) for change in (DISGUISED, PLAIN))
    for k, who in enumerate(batch.identity):
        person = persons[who]
        (frame,) = frames_of(person, batch.wanted[k : k + 1])
        np.testing.assert_allclose(batch.wanted[k].transpose(1, 2, 0) * 255, person.images[frame], atol=1e-3)
        variants = person.references[:, frame].transpose(0, 3, 1, 2) / 255
        assert np.abs(variants - batch.reference[k]).max(axis=(1, 2, 3)).min() < 1e-6  # its own person's
        driving, looks, worn = Disguises(persons)(int(who), frame, 1 - int(who))
        np.testing.assert_allclose(batch.image[k].transpose(1, 2, 0) * 255, driving, atol=1e-3)
        share = worn / 255.0
        expected = batch.reference[k].transpose(1, 2, 0) * 255 * (1 - share) + looks * share
        np.testing.assert_allclose(batch.own_reference[k].transpose(1, 2, 0) * 255, expected, atol=0.51)
    np.testing.assert_array_equal(plain.image, plain.wanted)
    np.testing.assert_array_equal(plain.own_reference, plain.reference)


def test_it_is_moved_mirrored_and_coloured_with_the_frame(persons: list[Person]) -> None:
    """Outside of the face, driving and wanted picture stay the same whatever is done to both."""
    batch = Sampler(persons, 8, Augmentation(0, 0, 0, 1, disguise=1), 0).batch(0)
    outside = np.broadcast_to(batch.hull == 0, batch.image.shape)
    np.testing.assert_array_equal(batch.image[outside], batch.wanted[outside])
    assert not np.array_equal(batch.image, batch.wanted)
    moved = Sampler(persons, 8, Augmentation(1, 0, 0, 1, disguise=1), 0)
    state: dict[str, Any] = {}
    original = moved._driving
    moved._driving = lambda seen, points, random: original(state.setdefault("seen", seen), points, random)  # type: ignore[method-assign]
    sample = moved._sample(0, 3, np.random.default_rng(0))
    away = sample["hull"][..., 0] == 0
    np.testing.assert_array_equal(state["seen"][away], sample["wanted"][away])


def test_faces_take_the_other_ones_shape_and_keep_what_they_do(persons: list[Person]) -> None:
    disguises = Disguises(persons)
    own, other = (p.memory.neutral for p in persons)
    other = own + (mesh.vertices() - mesh.vertices().mean(axis=0)) * np.array([0.25, -0.1, 0])  # broader, less high
    persons = [persons[0], replace(persons[1], memory=replace(persons[1].memory, neutral=other.astype(np.float32)))]
    disguises = Disguises(persons)
    before, size = persons[0].landmarks[4], 64
    for share in (0.0, 0.5, 1.0):
        after, shift = disguises.reshape(0, 4, 1, share)
        wanted = persons[0].expressions[4].points + share * (other - own)
        np.testing.assert_allclose(align.fit_head(before).canonical(after), wanted, atol=0.02)  # cm
        columns, rows = lookup(np.eye(2, 3), size, shift)
        found = np.stack(
            [cv2.remap(m, *after[:, :2].T.astype(np.float32), cv2.INTER_LINEAR) for m in (columns, rows)], -1
        )
        inner = ((after[:, :2] > 2) & (after[:, :2] < size - 3)).all(axis=1)
        assert inner.sum() > 300
        # where a point is now, is found what was where it had been
        assert np.abs(found[:, 0][inner] - before[inner, :2]).max() < (0.05 if share == 0 else 0.8)
    assert np.abs(after - before).max() > 2


def test_all_parts_of_a_sample_are_reshaped_alike(persons: list[Person]) -> None:
    """A picture that says of every pixel where it was: image, reference and the openings tell the same place."""
    size = 64
    ramp = np.dstack([*np.meshgrid(np.arange(size), np.arange(size)), np.zeros((size, size))]).astype(np.uint8) * 3
    told = replace(
        persons[0],
        images=np.repeat(ramp[None], len(persons[0].images), 0),
        references=np.repeat(ramp[None, None], len(persons[0].images), 1).repeat(3, 0),
    )
    sampler = Sampler([told, persons[1]], 2, Augmentation(1, 0, 0, 0.5, disguise=1), 0)
    moves = []
    for seed in range(6):
        sample = sampler._sample(0, 3, np.random.default_rng(seed))
        np.testing.assert_array_equal(sample["wanted"], sample["reference"])
        frame = persons[0].layers[0, 3, ..., 1] / 255.0
        places = sample["wanted"][..., :2].astype(np.float32) / 3
        hull = cv2.remap(frame.astype(np.float32), places[..., 0], places[..., 1], cv2.INTER_LINEAR)
        assert np.abs(hull - sample["hull"][..., 0])[4:-4, 4:-4].mean() < 0.03
        points = persons[0].landmarks[3][PRIORITY_POINTS, :2]
        now = sample["points"]
        seen = cv2.remap(places, now[:, 0], now[:, 1], cv2.INTER_LINEAR)[:, 0]
        assert np.abs(seen - points).max() < 1.5
        moves.append(np.abs(now - points).max())
    assert min(moves) > 0.3


def test_frames_of_a_clip_wear_the_same_and_half_of_them_nothing(persons: list[Person]) -> None:
    sampler = Sampler(persons, 4, Augmentation(0, 0, 0, 0, disguise=0.5), 0, Extras(length=2))
    worn = []
    for step in range(20):
        batch = sampler.batch(step)
        changed = (batch.image != batch.wanted).any(axis=(1, 2, 3)).reshape(-1, 2)
        assert (changed[:, 0] == changed[:, 1]).all()
        worn += changed[:, 0].tolist()
    assert 10 < sum(worn) < 30


def test_who_somebody_else_is(persons: list[Person], tmp_path: Path) -> None:
    three = Sampler([*persons, persons[0]], 4, PLAIN, 0)
    assert [three._others(k) for k in range(3)] == [[1], [0, 2], [1]]
    people = [write_faceset(tmp_path / f"p{k}", 20 + k, count=6) for k in range(3)]
    many = Rotation(people, asked(tmp_path, at_once=3), 64)
    assert many._now._others(1) == [0, 2] and many._now.augmentation.disguise == 0.5
    batch = many.batch(0)
    assert any(not np.array_equal(a, b) for a, b in zip(batch.own_reference, batch.reference, strict=True))


@pytest.mark.usefixtures("tiny")
def test_the_option_is_for_vit_alone(facesets: tuple[Path, Path], persons: list[Person], tmp_path: Path) -> None:
    asked_for = options(facesets, tmp_path / "m", disguise=0.25)
    assert trainer.make_sampler(asked_for, persons, "vit").augmentation.disguise == 0.25
    assert trainer.make_sampler(asked_for, persons, "saehd-df").augmentation.disguise == 0
    assert trainer.make_sampler(options(facesets, tmp_path / "m"), persons, "vit").augmentation.disguise == 0.5
