"""Training in several processes: the same batches, the same weights, and nothing lost where one is killed."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lib_vitface.errors import Cancelled, InputError, MissingDependencyError
from lib_vitface.models.checkpoint import open_model
from lib_vitface.options import build
from lib_vitface.training import team
from lib_vitface.training.augment import Augmentation
from lib_vitface.training.data import Person
from lib_vitface.training.sampler import Extras, Sampler
from lib_vitface.training.settings import TrainOptions
from lib_vitface.training.trainer import train

"""Largest difference of a weight after `STEPS` steps. Means of halves are rounded otherwise than means of wholes (1e-7 of a gradient),
and Adam's step, up to the learning rate, does not shrink with the gradient. The learning rate is 4e-4."""
STEPS = 4


def options(facesets: tuple[Path, Path], model: Path, **changes: Any) -> TrainOptions:
    values = {
        "source": facesets[0], "target": facesets[1], "model": model, "steps": STEPS, "batch": 4, "views": 6, "resolution": 64,
        "precision": "float32", "device": "cpu", "preview_steps": 0, "warm_up": 0, **changes,
    }  # fmt: skip
    return build(TrainOptions, values)


def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_file(model / open_model(model).files["weights"])


@pytest.mark.parametrize("extras", [Extras(), Extras(views=2), Extras(length=2, flow=True)])
def test_parts_of_a_batch_are_the_batch(persons: list[Person], extras: Extras) -> None:
    change = Augmentation(1, 1, 0.5, 0.5)
    whole = Sampler(persons, 8, change, 0, extras).batch(3)
    halves = [Sampler(persons, 8, change, 0, extras, part).batch(3) for part in (first_half, second_half)]
    for field in dataclasses.fields(whole):
        value = getattr(whole, field.name)
        if not isinstance(value, np.ndarray):
            continue
        parts = [getattr(half, field.name) for half in halves]
        if field.name == "views":  # all see the same
            np.testing.assert_array_equal(parts[0], parts[1])
            parts = parts[:1]
        np.testing.assert_array_equal(np.concatenate(parts), value, err_msg=field.name)


def first_half(clips: int) -> slice:
    return slice(0, clips // 2)


def second_half(clips: int) -> slice:
    return slice(clips // 2, clips)


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Mean difference of all weights."""
    return float(torch.cat([(one[k] - other[k]).abs().flatten() for k in one]).mean())


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"weight_gan": 0.1}])
def test_two_processes_give_the_weights_of_one(
    facesets: tuple[Path, Path], tmp_path: Path, changes: dict[str, Any]
) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    train(options(facesets, tmp_path / "one", **changes))
    result = train(options(facesets, tmp_path / "two", processes=2, **changes))
    assert result["step"] == STEPS and not torch.distributed.is_initialized() and not team.in_team()
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert one.keys() == two.keys()
    # sums are rounded in another order, and where a gradient is next to nothing the optimizer makes a step of any sign of it
    train(options(facesets, tmp_path / "less", steps=1, **changes))
    assert apart(one, two) < 0.01 * apart(one, weights(tmp_path / "less"))


@pytest.mark.slow
def test_a_killed_process_loses_nothing(
    facesets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    train(options(facesets, tmp_path / "whole", processes=2))
    started: list[subprocess.Popen[bytes]] = []
    start = team._start
    monkeypatch.setattr(team, "_start", lambda *a: started.append(start(*a)) or started[-1])

    def tick(done: float, total: float, note: str = "") -> None:
        if note.startswith("step 2,"):
            started[0].kill()
            started[0].wait()

    with pytest.raises(team.TeamLost, match="the same command goes on"):
        train(options(facesets, tmp_path / "parts", processes=2), tick)
    assert open_model(tmp_path / "parts").step == 2
    train(options(facesets, tmp_path / "parts", processes=2))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    assert all(process.poll() is not None for process in started)


@pytest.mark.slow
def test_whoever_stops_the_first_stops_all(
    facesets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("accelerate", reason="accelerate is not installed")
    started: list[subprocess.Popen[bytes]] = []
    start = team._start
    monkeypatch.setattr(team, "_start", lambda *a: started.append(start(*a)) or started[-1])

    def tick(done: float, total: float, note: str = "") -> None:
        if note.startswith("step 1,"):
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        train(options(facesets, tmp_path / "m", processes=2), tick)
    assert open_model(tmp_path / "m").step == 1 and started[0].returncode == 0


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    class Three:
        process_index, num_processes = 1, 3

    pytest.importorskip("accelerate", reason="accelerate is not installed")
    assert team.Accelerated(Three()).part(9) == slice(3, 6)
    with pytest.raises(InputError, match="8 clips or pictures a step, which 3 processes cannot share"):
        team.Accelerated(Three()).part(8)


def test_without_accelerate(facesets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingDependencyError, match="pip install accelerate"):
        train(options(facesets, tmp_path / "m", processes=2))
    assert not (tmp_path / "m").exists()


def test_who_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not team.in_team() and not team.follows()
    for rank, follows in (("0", False), ("1", True)):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", rank)
        assert team.in_team() and team.follows() is follows
