"""Models that look at clips, remember views, run at another size, or draw together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_clone import images
from test_frame import SHADES, TINY, face_at, frame_of, memory_of, model_in

from lib_vitface import media
from lib_vitface.errors import CheckpointError, ConsentError, InputError
from lib_vitface.faces import align, mesh
from lib_vitface.faceset.morphable import COEFFICIENTS, EXPRESSIONS, SHAPES, Morphable
from lib_vitface.faceset.texture import Expression
from lib_vitface.models.checkpoint import Checkpoint, save_model
from lib_vitface.models.config import SAEHDConfig
from lib_vitface.models.swapper import build_model
from lib_vitface.options import build
from lib_vitface.provenance import consent as records
from lib_vitface.provenance.keys import open_keys
from lib_vitface.swap import references
from lib_vitface.swap.frame import ModelSwapper
from lib_vitface.swap.members import Ensemble, shares_of
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.tasks import steps
from lib_vitface.types import Pose

FACES = [face_at(Pose(yaw, 0, 0), 5, 150, 145) for yaw in (-6, 0, 6)]
FRAMES = [np.clip(frame_of().astype(int) + k * 25, 0, 255).astype(np.uint8) for k in range(3)]


def awake(network: torch.nn.Module) -> None:
    for parameter in network.parameters():
        if parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        network.decoder.head.weight.mul_(50)  # type: ignore[union-attr,operator]


def test_a_clip_is_seen_as_one_and_single_frames_are_not(tmp_path: Path) -> None:
    swap = ModelSwapper(model_in(tmp_path / "m", replace(TINY, clip_frames=3), awake), device="cpu")
    assert (swap.context, swap.clip_length) == (2, 4)
    times = [0.0, 0.04, 0.08]
    together = swap(FRAMES, FACES, times)
    alone = [swap([f], [face], [0.0])[0] for f, face in zip(FRAMES, FACES, strict=True)]
    without = swap(FRAMES, FACES)
    other = swap([FRAMES[0], FRAMES[1], FRAMES[0]], FACES, times)
    for k in range(3):
        np.testing.assert_array_equal(alone[k].image, without[k].image)
        assert np.abs(together[k].image.astype(int) - alone[k].image).max() > 2
        np.testing.assert_array_equal(together[k].frame_to_crop, alone[k].frame_to_crop)
    assert np.abs(other[0].image.astype(int) - together[0].image).max() > 2
    np.testing.assert_array_equal(together[1].image, swap(FRAMES, FACES, times)[1].image)


def remembering(folder: Path) -> Checkpoint:
    made = model_in(folder, replace(TINY, memory_tokens=4), awake)
    random = np.random.default_rng(0)
    views = {name: random.integers(0, 255, (3, 64, 64, 3)).astype(np.uint8) for name in ("source", "target")}
    return save_model(made, {"views": views})


def test_references_are_added_to_the_memory_without_training(tmp_path: Path) -> None:
    model = remembering(tmp_path / "m")
    references = np.random.default_rng(5).integers(0, 255, (2, 64, 64, 3)).astype(np.uint8)
    plain, more = (
        ModelSwapper(model, device="cpu", references=r)(FRAMES[:1], FACES[:1])[0] for r in (None, references)
    )
    assert np.abs(plain.image.astype(int) - more.image).max() > 0
    again = save_model(
        model,
        {"views": {**model.arrays("views"), "source": np.concatenate([model.arrays("views")["source"], references])}},
    )
    np.testing.assert_array_equal(ModelSwapper(again, device="cpu")(FRAMES[:1], FACES[:1])[0].image, more.image)
    with pytest.raises(InputError, match="no memory of views"):
        ModelSwapper(model_in(tmp_path / "other", TINY), device="cpu", references=references)


def test_the_morphable_face_is_told(tmp_path: Path) -> None:
    """The network hears of the footage's expression and pose, and of the shape of whom it draws."""
    frames = [
        Expression(p, np.zeros(2, np.float32))
        for p in mesh.vertices() + np.random.default_rng(0).normal(0, 0.2, (9, 468, 3))
    ]
    face = Morphable.build([(frames, mesh.vertices())])
    shapes = {"shape_source": np.full(SHAPES, 0.5, np.float32), "shape_target": np.zeros(SHAPES, np.float32)}
    made = model_in(tmp_path / "m", replace(TINY, condition="film", coefficients=COEFFICIENTS), awake)
    model = save_model(made, {"morphable": {**face.arrays(), **shapes}})
    swap = ModelSwapper(model, device="cpu")
    told = swap.inputs(FRAMES, FACES)["coefficients"]
    assert told.shape == (3, 1, COEFFICIENTS) and (told[..., -SHAPES:] == 0.5).all()
    np.testing.assert_allclose(told[:, 0, EXPRESSIONS] * 30, [-6, 0, 6], atol=0.7)
    assert (
        ModelSwapper(model, device="cpu", identity=1).inputs(FRAMES, FACES)["coefficients"][..., -SHAPES:] == 0
    ).all()
    before = swap(FRAMES[:1], FACES[:1])[0].image
    other = save_model(model, {"morphable": {**face.arrays(), **shapes, "shape_source": shapes["shape_source"] + 1}})
    after = ModelSwapper(other, device="cpu")(FRAMES[:1], FACES[:1])[0].image
    assert np.abs(before.astype(int) - after).max() > 2


def test_the_volume_is_told_where_the_head_is(tmp_path: Path) -> None:
    model = model_in(tmp_path / "m", replace(TINY, volume_side=16), awake)
    swap = ModelSwapper(model, device="cpu")
    heads = swap.inputs(FRAMES, FACES)["picture_to_face"]
    assert heads.shape == (3, 1, 3, 4)
    turns = heads[:, 0, :, :3] / np.cbrt(np.linalg.det(heads[:, 0, :, :3]))[:, None, None]
    yaws = [align.HeadFit(1, turn.T, np.zeros(3)).pose.yaw_deg for turn in turns]
    np.testing.assert_allclose(yaws, [-6, 0, 6], atol=0.7)
    plain = ModelSwapper(model_in(tmp_path / "p", TINY, awake), device="cpu")
    assert "picture_to_face" not in plain.inputs(FRAMES, FACES)
    (seen,) = swap(FRAMES[:1], FACES[:1])
    swap._volume = False
    (unseen,) = swap(FRAMES[:1], FACES[:1])
    assert np.abs(seen.image.astype(int) - unseen.image).max() > 2


def test_a_reference_is_asked_for_by_an_option(tmp_path: Path) -> None:
    """Of a model of three: its own memory is drawn from, by the network that is told its number."""
    space = tmp_path / "space"
    record = steps.declare(space, LOOK, "A")
    model = trained_under(tmp_path / "m", record, model_in(tmp_path / "m", replace(TINY, persons=3)))
    green = memory_of((60, 200, 60)).arrays()
    save_model(replace(model, notes={"references": ["me", "beard"]}), {"memory_reference2": green})
    pictures = {
        name: steps.open_swapper(asked(tmp_path, model, reference=name), space).inner(FRAMES[:1], FACES[1:2])[0]
        for name in ("", "me", "beard")
    }
    middle = pictures["me"].image.shape[0] // 2
    np.testing.assert_array_equal(pictures[""].image, pictures["me"].image)
    assert np.abs(pictures["me"].image[middle, middle] - np.array(SHADES["source"])).max() < 20
    assert np.abs(pictures["beard"].image[middle, middle] - np.array([60, 200, 60])).max() < 20
    with pytest.raises(InputError, match="has no 'hat'; it has me, beard"):
        steps.open_swapper(asked(tmp_path, model, reference="hat"), space)


def test_it_runs_at_another_size(tmp_path: Path) -> None:
    model = model_in(tmp_path / "m", TINY, awake)
    small, large = (ModelSwapper(model, device="cpu", size=s) for s in (None, 96))
    assert (small.size, large.size) == (64, 96)
    a, b = (swap(FRAMES[:1], FACES[:1])[0] for swap in (small, large))
    assert a.image.shape != b.image.shape or np.abs(a.image.astype(int) - b.image).max() > 2
    with pytest.raises(InputError, match="only vit"):
        ModelSwapper(model_in(tmp_path / "s", SAEHDConfig("saehd-df", 64, "ud", 16, 8, 8, 4)), device="cpu", size=96)


def test_an_ensemble_is_the_weighted_mean(tmp_path: Path) -> None:
    first = ModelSwapper(model_in(tmp_path / "a", TINY), device="cpu")
    second = ModelSwapper(model_in(tmp_path / "b", replace(TINY, clip_frames=2), awake), device="cpu")
    together = Ensemble([first, second], [0.25, 0.75])
    assert (together.clip_length, together.context) == (4, 1)
    a, b, mixed = (swap(FRAMES, FACES, [0, 0.1, 0.2])[1] for swap in (first, second, together))
    np.testing.assert_allclose(mixed.image, 0.25 * a.image + 0.75 * b.image.astype(float), atol=0.51)
    np.testing.assert_allclose(mixed.mask, 0.25 * a.mask + 0.75 * b.mask, atol=1e-6)
    large = ModelSwapper(first.checkpoint, device="cpu", size=96)
    with pytest.raises(CheckpointError, match="one size"):
        Ensemble([first, large], [0.5, 0.5])


def test_shares_are_inverse_to_squared_errors() -> None:
    models = [Checkpoint(Path(), TINY, "m", 1, 1, None, {"held_out": {"l1": e}}) for e in (0.01, 0.02)]
    assert shares_of(models) == pytest.approx([0.8, 0.2])
    assert shares_of([models[0], replace(models[1], notes={})]) == [0.5, 0.5]


LOOK = np.full(128, 128**-0.5, np.float32)


def trained_under(folder: Path, record: records.ConsentRecord, model: Checkpoint) -> Checkpoint:
    """The model, saved under a consent record."""
    records.save_record(record, folder / records.FILE)
    return save_model(replace(model, consent_id=record.id, notes={"held_out": {"l1": 0.01}}), {})


def asked(tmp_path: Path, model: Checkpoint, **more: object) -> SwapOptions:
    return build(
        SwapOptions, {"model": model.folder, "input": tmp_path, "output": tmp_path / "o", "device": "cpu", **more}
    )


def test_models_draw_together_only_under_one_record(tmp_path: Path) -> None:
    space = tmp_path / "space"
    record, other = steps.declare(space, LOOK, "A"), steps.declare(space, LOOK, "B")
    first, second = (trained_under(tmp_path / n, record, model_in(tmp_path / n, TINY)) for n in "ab")
    stranger = trained_under(tmp_path / "c", other, model_in(tmp_path / "c", TINY))
    together = steps.open_swapper(asked(tmp_path, first, also=[second.folder]), space)
    assert isinstance(together.inner, Ensemble) and together.inner.shares == [0.5, 0.5]
    assert isinstance(steps.open_swapper(asked(tmp_path, first), space).inner, ModelSwapper)
    with pytest.raises(ConsentError, match="another consent record"):
        steps.open_swapper(asked(tmp_path, first, also=[stranger.folder]), space)
    records.revoke(record, open_keys(space), space)
    with pytest.raises(ConsentError, match="revoked"):
        steps.open_swapper(asked(tmp_path, first, also=[second.folder]), space)


def test_references_must_show_the_person_of_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = tmp_path / "space"
    record = steps.declare(space, LOOK, "A")
    model = trained_under(tmp_path / "m", record, remembering(tmp_path / "m"))
    views = np.random.default_rng(5).integers(0, 255, (2, 64, 64, 3)).astype(np.uint8)
    looks = iter([LOOK, -LOOK])
    monkeypatch.setattr(references, "reference_views", lambda path, size, tick: (views, next(looks)))
    with_them = steps.open_swapper(asked(tmp_path, model, references=[tmp_path / "photos"]), space)
    expected = ModelSwapper(model, device="cpu", references=views)(FRAMES[:1], FACES[:1])[0]
    np.testing.assert_array_equal(with_them.inner(FRAMES[:1], FACES[:1])[0].image, expected.image)
    with pytest.raises(ConsentError, match="shows somebody else"):
        steps.open_swapper(asked(tmp_path, model, references=[tmp_path / "photos"]), space)


def test_soup_and_size_are_asked_for_by_options(tmp_path: Path) -> None:
    space = tmp_path / "space"
    record = steps.declare(space, LOOK, "A")
    model = trained_under(tmp_path / "m", record, model_in(tmp_path / "m", TINY, awake))
    with pytest.raises(CheckpointError, match="train it on with --soup"):
        steps.open_swapper(asked(tmp_path, model, weights="soup"), space)
    torch.manual_seed(9)
    save_model(model, {"soup": build_model(TINY).state_dict()})
    plain, soup = (steps.open_swapper(asked(tmp_path, model, weights=w), space) for w in ("last", "soup"))
    a, b = (swap.inner(FRAMES[:1], FACES[:1])[0].image for swap in (plain, soup))
    assert np.abs(a.astype(int) - b).max() > 2
    large = steps.open_swapper(asked(tmp_path, model, network_size=120), space)
    assert steps.members_of(large)[0].size == 96


def test_views_of_references_are_spread_and_cut_as_the_network_wants(tmp_path: Path) -> None:
    for k, image in enumerate(images("sample_source", 3, every=10)):
        media.write_image(tmp_path / f"{k}.png", image)
    views, look = references.reference_views(tmp_path, 64)
    assert views.shape == (3, 64, 64, 3) and views.dtype == np.uint8 and views.std() > 10
    assert float(np.linalg.norm(look)) == pytest.approx(1, abs=1e-5)


def test_the_sources_own_proportions_are_drawn_where_asked_for(tmp_path: Path) -> None:
    space = tmp_path / "space"
    record = steps.declare(space, LOOK, "A")
    model = trained_under(tmp_path / "m", record, model_in(tmp_path / "m", TINY))
    memory = model.arrays("memory_source")
    longer = memory["neutral"].copy()
    longer[:, 1] *= 1.25  # a longer face: eyes higher, chin lower
    save_model(model, {"memory_source": {**memory, "neutral": longer}})
    kept, half, own = (
        steps.open_swapper(asked(tmp_path, model, shape=s), space).inner(FRAMES[:1], FACES[1:2])[0] for s in (0, 0.5, 1)
    )
    rows = [np.flatnonzero(one.mask.max(axis=1) > 0.5) for one in (kept, half, own)]
    heights = [r[-1] - r[0] for r in rows]
    assert heights[0] < heights[1] < heights[2] and heights[2] > 1.1 * heights[0]
