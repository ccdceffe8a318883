"""A base: learned from many, resumed exactly, holding nobody, and worth something to who starts from it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_faceset import write_faceset
from safetensors import safe_open
from safetensors.torch import load_file
from test_trainer import options, stop_at, weights

from lib_vitface.errors import Cancelled, CheckpointError, InputError, NoFaceError
from lib_vitface.models.checkpoint import INDEX, open_model
from lib_vitface.models.config import PRESETS, EncoderConfig, ViTSwapperConfig
from lib_vitface.models.swapper import build_model
from lib_vitface.options import build, declared
from lib_vitface.training import pretrain as module
from lib_vitface.training import trainer
from lib_vitface.training.base import load_base
from lib_vitface.training.pretrain import BASE, STATE, Rotation, pretrain
from lib_vitface.training.sampler import Sampler
from lib_vitface.training.settings import PretrainOptions, TrainOptions
from lib_vitface.training.trainer import LOG, train

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("people")
    return [write_faceset(root / f"p{k}", 20 + k, count=8) for k in range(4)]


def asked(output: Path, **changes: Any) -> PretrainOptions:
    values = {
        "input": output, "output": output, "licence": "made up", "steps": 6, "batch": 4, "views": 4, "at_once": 2,
        "precision": "float32", "device": "cpu", **changes,
    }  # fmt: skip
    return build(PretrainOptions, values)


def test_what_it_shares_with_training_is_declared_alike() -> None:
    """But for the words, and for what a base takes fewer of."""
    own, trains = ({item.name: item for item in declared(cls)} for cls in (PretrainOptions, TrainOptions))
    shared = [name for name in own if name in trains]
    assert len(shared) == 13 and own["views"].default == 12
    for name in shared:
        spec, other = (dataclasses.replace(item.spec, help="") for item in (own[name], trains[name]))
        assert spec == other and own[name].type == trains[name].type, name
        assert name == "views" or own[name].default == trains[name].default, name


def test_people_come_in_turn_and_others_every_round(people: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ROUND", 3)
    sampler = Rotation(people, asked(people[0], batch=4), 64)
    seen = {}
    loaded = module.Rotation._load
    monkeypatch.setattr(Rotation, "_load", lambda self, path: seen.setdefault(path, loaded(self, path)))
    batches = [sampler.batch(step) for step in range(12)]
    assert len(seen) > 2 and all((b.identity == 0).all() for b in batches)
    again = Rotation(people, asked(people[0], batch=4), 64)
    np.testing.assert_array_equal(again.batch(7).image, batches[7].image)  # whatever came before
    assert (sampler.held_out(4).wanted == again.held_out(4).wanted).all() and (sampler.held_out(4).identity == 0).all()
    all_at_once = Rotation(people, asked(people[0], at_once=4), 64)
    means = [p.images.mean(axis=(0, 1, 2)) for p in all_at_once.persons]
    who = [
        [
            int(np.argmin([np.abs(m - w.mean(axis=(1, 2)) * 255).sum() for m in means]))
            for w in all_at_once.held_out(4).wanted
        ]
    ]
    assert who == [[0, 1, 2, 3]]


def test_a_base_is_resumed_exactly_and_holds_nobody(people: list[Path], tmp_path: Path) -> None:
    result = pretrain(asked(tmp_path / "whole"), people)
    with pytest.raises(Cancelled):
        pretrain(asked(tmp_path / "parts"), people, stop_at(2))
    assert open_model(tmp_path / "parts" / STATE).step == 2
    pretrain(asked(tmp_path / "parts"), people)
    whole, parts = (load_file(tmp_path / n / BASE) for n in ("whole", "parts"))
    assert [k for k in whole if not torch.equal(whole[k], parts[k])] == []
    assert (
        result["step"] == 6 and result["people"] == 4 and result["bytes"] == (tmp_path / "whole" / BASE).stat().st_size
    )
    assert all(v.dtype == torch.float16 for v in whole.values())
    assert {len(v) for k, v in whole.items() if k.endswith(".table.weight")} == {1}
    with safe_open(tmp_path / "whole" / BASE, "pt") as file:
        facts = json.loads(file.metadata()["facts"])
    assert (facts["licence"], facts["preset"], facts["people"]) == ("made up", "cpu", 4)
    # no pictures, and no model that could be swapped with
    assert not any(name.startswith("memory") for name in open_model(tmp_path / "whole" / STATE).files)


def test_a_killed_base_tells_of_each_step_once(people: list[Path], tmp_path: Path) -> None:
    def killed(done: float, total: float, note: str = "") -> None:
        if note.startswith("step 3,"):
            raise SystemExit  # nothing is saved, as after `kill -9`

    with pytest.raises(SystemExit):
        pretrain(asked(tmp_path / "parts"), people, killed)
    pretrain(asked(tmp_path / "parts"), people)
    state = tmp_path / "parts" / STATE
    assert [json.loads(line)["step"] for line in (state / LOG).read_text().splitlines()] == [1, 2, 3, 4, 5, 6]
    before = (state / INDEX).read_bytes()
    pretrain(asked(tmp_path / "parts"), people)
    assert (state / INDEX).read_bytes() == before, "nothing was left to do"


def test_a_training_starts_from_it(
    people: list[Path], facesets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Sampler.batch
    with monkeypatch.context() as patch:  # one batch, step after step, so that nothing scatters
        patch.setattr(Sampler, "batch", lambda self, step: draw(self, 0))
        many = asked(tmp_path / "base", steps=60, at_once=4, learning_rate=2e-3)
        pretrain(many, people)
    base = tmp_path / "base" / BASE
    config = dataclasses.replace(PRESETS["cpu"], own_decoders=True)
    model = build_model(config)
    facts = load_base(base, model)
    assert facts["share"] == 1 and facts["step"] == 60
    found = load_file(base)
    assert not any(name.startswith("target_decoder.") for name in found)
    for name, value in model.state_dict().items():
        expected = found[name.removeprefix("target_")].float()  # both decoders begin as the base's one
        assert torch.equal(value, expected.expand_as(value)), name
    warm = train(options(facesets, tmp_path / "warm", steps=1, learning_rate=1e-7, base=base))
    cold = train(options(facesets, tmp_path / "cold", steps=1, learning_rate=1e-7))
    assert warm["base"]["share"] == 1 and cold["base"] is None
    # its weights are those of the base, but for one very small step, and it knows what covers what the base was shown
    samples = Rotation(people, many, 64).batch(0)
    errors, apart = {}, {}
    for name in ("warm", "cold"):
        own = weights(tmp_path / name)
        apart[name] = max(float((own[k] - v.float().expand_as(own[k])).abs().max()) for k, v in found.items())
        model.load_state_dict(own)
        with torch.no_grad():
            mask = model.eval()(trainer.make_batch(samples, torch.device("cpu"))).mask.flatten(0, 1)
        errors[name] = float((mask - torch.from_numpy(samples.uncovered)).square().mean())
    assert apart["warm"] < 1e-5 < 0.01 < apart["cold"], apart
    assert errors["warm"] < 0.75 * errors["cold"], errors
    # further training does not go back to it
    again = train(options(facesets, tmp_path / "warm", steps=2, base=base))
    assert again["base"] is None and again["step"] == 2


def test_a_vit_of_another_picture_takes_its_places_between(people: list[Path], tmp_path: Path) -> None:
    pretrain(asked(tmp_path / "base", steps=1), people)
    config = PRESETS["cpu"]
    own = config.encoder.image_size // config.encoder.patch_size
    for side in (own, 2 * own):
        encoder = dataclasses.replace(config.encoder, image_size=side * config.encoder.patch_size)
        model = build_model(dataclasses.replace(config, encoder=encoder))
        assert load_base(tmp_path / "base" / BASE, model)["share"] == 1
        places = model.state_dict()["encoder.vit.embeddings.position_embeddings"]
        known = load_file(tmp_path / "base" / BASE)["encoder.vit.embeddings.position_embeddings"].float()
        assert torch.equal(places[:, 0], known[:, 0])  # the class token's
        grid, given = (p[:, 1:].unflatten(1, (n, n)) for p, n in ((places, side), (known, own)))
        # the mean of a place's four lies nearer to it than to any other place's
        small = grid.unflatten(1, (own, -1)).unflatten(3, (own, -1)).mean(dim=(2, 4)).flatten(0, 2)
        distances = torch.cdist(small, given.flatten(0, 2))
        assert torch.equal(distances.argmin(dim=1), torch.arange(own * own))


def test_what_it_does_not_know_stays_fresh(people: list[Path], facesets: tuple[Path, Path], tmp_path: Path) -> None:
    pretrain(asked(tmp_path / "base", steps=1), people)
    result = train(
        options(facesets, tmp_path / "m", steps=1, base=tmp_path / "base" / BASE, local_features="concat", renderer=True,
                more_sources=[people[0]])
    )  # fmt: skip
    assert 0.1 < result["base"]["share"] < 1
    config = trainer.make_config(options(facesets, tmp_path / "m", more_sources=[people[0]]))
    torch.manual_seed(0)
    model = build_model(config)
    load_base(tmp_path / "base" / BASE, model)
    table = model.state_dict()["decoder.tell.0.table.weight"]
    assert torch.equal(table[0], table[1]) and (table[2] == 0).all()


def test_what_is_no_base_is_refused(
    people: list[Path], facesets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoFaceError, match="at least two"):
        pretrain(asked(tmp_path / "x"), people[:1])
    pretrain(asked(tmp_path / "base", steps=1), people)
    base = tmp_path / "base" / BASE
    with pytest.raises(InputError, match="only vit"):
        train(options(facesets, tmp_path / "s", base=base, encoder="saehd-df", resolution=64))
    with pytest.raises(InputError, match="is not there"):
        train(options(facesets, tmp_path / "n", base=tmp_path / "none"))
    with pytest.raises(InputError, match="is no base"):
        model = tmp_path / "base" / STATE
        train(options(facesets, tmp_path / "n", base=model / open_model(model).files["weights"]))
    other = ViTSwapperConfig(64, EncoderConfig(32, 8, 48, 2, 2), (8, 16, 24, 32), 8)
    monkeypatch.setitem(PRESETS, "cpu", other)
    with pytest.raises(CheckpointError, match="other sizes"):
        train(options(facesets, tmp_path / "n", base=base))
    with pytest.raises(CheckpointError, match="another architecture"):
        pretrain(asked(tmp_path / "base", steps=2), people)
    base.write_bytes(base.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="damaged"):
        train(options(facesets, tmp_path / "n", base=base))
