"""Several facesets of one person: codes and memories of their own, one network, chosen by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from made_faceset import write_faceset
from test_trainer import options, stop_at, weights

from lib_vitface.errors import Cancelled, CheckpointError, ConsentError, InputError
from lib_vitface.faceset.store import Faceset
from lib_vitface.models.checkpoint import open_model
from lib_vitface.models.decoder import Modulation
from lib_vitface.provenance import consent
from lib_vitface.provenance.keys import open_keys
from lib_vitface.swap.frame import ModelSwapper
from lib_vitface.tasks import steps
from lib_vitface.training.augment import Augmentation
from lib_vitface.training.data import load_person
from lib_vitface.training.sampler import Extras, Sampler
from lib_vitface.training.trainer import train
from lib_vitface.types import Host

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def further(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("further")
    return [write_faceset(root / "glasses", 11), write_faceset(root / "beard", 12)]


def test_a_reference_is_the_person_and_what_is_its_own() -> None:
    tell = Modulation(4, 2)
    with torch.no_grad():
        tell.table.weight.copy_(torch.arange(16.0).view(4, 4) / 10)
    x = torch.ones(4, 2, 1, 1)
    found = tell(x, torch.arange(4))[:, :, 0, 0]
    rows = tell.table.weight.detach()
    for number, row in enumerate((rows[0], rows[1], rows[0] + rows[2], rows[0] + rows[3])):
        assert torch.allclose(found[number], 1 + row[:2] + row[2:])


def test_batches_hold_the_target_half_and_the_sources_in_turn(facesets: tuple[Path, Path], further: list[Path]) -> None:
    persons = []
    for path in (*facesets, *further):
        with Faceset.open(path) as faceset:
            persons.append(load_person(faceset, 64, 6))
    sampler = Sampler(persons, 6, Augmentation(0, 0, 0, 0), 0, Extras(views=3))
    seen = np.concatenate([sampler.batch(step).identity for step in range(6)])
    assert np.bincount(seen).tolist() == [6, 18, 6, 6]
    for sample, who in zip(sampler.batch(3).wanted, sampler.batch(3).identity, strict=True):
        picture = (sample.transpose(1, 2, 0) * 255).round()
        gaps = [np.abs(p.images.astype(float) - picture).mean(axis=(1, 2, 3)).min() for p in persons]
        assert int(np.argmin(gaps)) == who
    assert sampler.views().shape == (4, 3, 3, 64, 64)  # type: ignore[union-attr]
    assert set(sampler.held_out(12).identity) == {0, 1, 2, 3}
    alone = Sampler(persons[:2], 6, Augmentation(0, 0, 0, 0), 0)
    assert alone.batch(1).identity.tolist() == [0, 1] * 3


def test_they_train_resume_and_swap_by_name(facesets: tuple[Path, Path], further: list[Path], tmp_path: Path) -> None:
    values = {"more_sources": further, "memory_views": 3, "morphable": "film", "renderer": True, "steps": 3}
    shown = {}
    train(
        options(facesets, tmp_path / "whole", preview_steps=3, **values),
        publish=lambda path, image: shown.setdefault(path.name, image),
    )
    assert shown["step-00000003.png"].shape[0] == (4 + 2) * 64
    with pytest.raises(Cancelled):
        train(options(facesets, tmp_path / "parts", **values), stop_at(1))
    for other in ([], further[:1], further[::-1]):
        with pytest.raises(CheckpointError):
            train(options(facesets, tmp_path / "parts", **{**values, "more_sources": other}))
    train(options(facesets, tmp_path / "parts", **values))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert [k for k in whole if not torch.equal(whole[k], parts[k])] == []

    model = open_model(tmp_path / "parts")
    assert model.notes["references"] == ["source", "glasses", "beard"]
    assert [model.person(n) for n in ("", "source", "glasses", "beard")] == [0, 0, 2, 3]
    assert set(model.arrays("views")) == {"source", "target", "reference2", "reference3"}
    with pytest.raises(InputError, match="has no 'hat'; it has source, glasses, beard"):
        model.person("hat")
    for number, path in zip((2, 3), further, strict=True):
        with Faceset.open(path) as faceset:
            expected = load_person(faceset, 64, 6).memory.textures
        swapper = ModelSwapper(model, device="cpu", reference=path.name)
        np.testing.assert_array_equal(swapper.source.textures, expected)
        assert swapper.network._identity == number  # type: ignore[attr-defined]
        np.testing.assert_array_equal(swapper._shapes[0], model.arrays("morphable")[f"shape_reference{number}"])
    plain = ModelSwapper(model, device="cpu")
    assert plain.network._identity == 0 and plain.network._memory.shape[0] == 4  # type: ignore[attr-defined]
    views = np.zeros((2, 64, 64, 3), np.uint8)
    changed = ModelSwapper(model, device="cpu", reference="glasses", references=views).network._memory  # type: ignore[attr-defined]
    differs = (changed - plain.network._memory).abs().amax(dim=(1, 2)) > 1e-6  # type: ignore[attr-defined]
    assert differs.tolist() == [False, False, True, False]


def test_what_cannot_be_told_apart_or_held_is_refused(
    facesets: tuple[Path, Path], further: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="one name"):
        train(options(facesets, tmp_path / "m", more_sources=[further[0], further[0]]))
    with pytest.raises(InputError, match="saehd"):
        train(options(facesets, tmp_path / "m", more_sources=further, encoder="saehd-df", resolution=64))
    train(options(facesets, tmp_path / "m", steps=1))
    with pytest.raises(InputError, match="one faceset of the source only"):
        ModelSwapper(open_model(tmp_path / "m"), device="cpu", reference="source")


def test_all_must_be_of_the_person_who_agreed(
    facesets: tuple[Path, Path], further: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what lies there, and by the record that lies with it."""
    look = np.full(128, 128**-0.5, np.float32)
    looks = {facesets[0]: look, further[0]: look, further[1]: -look}
    monkeypatch.setattr(steps, "front_look", lambda faceset: looks[faceset.path])
    monkeypatch.setattr(steps, "sampled_looks", lambda faceset: looks[faceset.path][None])
    host = Host(tmp_path)
    record = steps._training_record(options(facesets, tmp_path / "m", more_sources=further[:1]), host, "A", "")
    steps._bind(record, options(facesets, tmp_path / "m", more_sources=further[:1]), tmp_path)
    assert consent.load_record(further[0] / consent.FILE).id == record.id
    with pytest.raises(ConsentError, match=r"beard: shows somebody else"):
        steps._training_record(options(facesets, tmp_path / "m", more_sources=further), host, "A", "")
    other = consent.make_record(open_keys(tmp_path), "B", "yes", look)
    consent.save_record(other, further[1] / consent.FILE)
    with pytest.raises(ConsentError, match="another consent record"):
        steps._training_record(options(facesets, tmp_path / "m", more_sources=further), host, "A", "")
    for folder in (facesets[0], *further):
        (folder / consent.FILE).unlink(missing_ok=True)
