"""Training over many people, so that a training of two starts warm: the loop of `trainer`, with a sampler of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lib_vitface import device as devices
from lib_vitface.errors import Cancelled, NoFaceError
from lib_vitface.faceset.store import Faceset
from lib_vitface.models.config import ViTSwapperConfig
from lib_vitface.models.swapper import build_model
from lib_vitface.options import build, to_dict
from lib_vitface.training import trainer
from lib_vitface.training.augment import Augmentation
from lib_vitface.training.base import write_base
from lib_vitface.training.data import Person, load_person
from lib_vitface.training.objective import Objective
from lib_vitface.training.optimizer import make_optimizer
from lib_vitface.training.sampler import Extras, Sampler, Samples
from lib_vitface.training.settings import PretrainOptions, TrainOptions
from lib_vitface.training.team import Team
from lib_vitface.types import Tick, no_tick

BASE, STATE = "base.safetensors", "state"
_ROUND = 1000  # steps with the same people in memory
_RATE = 4e-4
_DISGUISE = 0.5  # share of the driving faces that wear another's looks
_SHARED = tuple(item for item in PretrainOptions.__dataclass_fields__ if item in TrainOptions.__dataclass_fields__)


class ManySampler(Sampler):
    """Batches of people in turn, all told to the network as person 0: it learns what holds for everyone."""

    def _turn(self, k: int, step: int = 0) -> int:
        return (k + step * max(2, self.size // self.extras.length)) % len(self.persons)

    def _others(self, who: int) -> list[int]:
        return [k for k in range(len(self.persons)) if k != who]

    def batch(self, step: int) -> Samples:
        return _of_nobody(super().batch(step))

    def held_out(self, count: int) -> Samples:
        return _of_nobody(super().held_out(count))


def _of_nobody(samples: Samples) -> Samples:
    return replace(samples, identity=np.zeros_like(samples.identity))


class Rotation(Sampler):
    """A sampler over more people than fit into memory: others every `_ROUND` steps. Which, depends on seed and step alone.

    It is judged by held-out frames of the first of them.
    """

    def __init__(self, people: Sequence[Path], options: PretrainOptions, resolution: int, tick: Tick = no_tick) -> None:
        self.people, self.options, self.resolution = people, options, resolution
        self._round, self._now = -1, self._sampler(people[: options.at_once], tick)
        self._judge = self._now
        super().__init__(self._now.persons, options.batch, self._now.augmentation, options.seed, self._now.extras)

    def batch(self, step: int) -> Samples:
        if len(self.people) > self.options.at_once and step // _ROUND != self._round:
            self._round = step // _ROUND
            random = np.random.default_rng((self.options.seed, 5, self._round))
            chosen = random.choice(len(self.people), self.options.at_once, replace=False)
            self._now = self._sampler([self.people[int(k)] for k in chosen])
        return self._now.batch(step)

    def held_out(self, count: int) -> Samples:
        return self._judge.held_out(count)

    def _sampler(self, people: Sequence[Path], tick: Tick = no_tick) -> ManySampler:
        persons = []
        for number, path in enumerate(people):
            tick(0, 1, f"loading people, {number} of {len(people)}")  # the bar is the training's
            persons.append(self._load(path))
        return ManySampler(
            persons,
            self.options.batch,
            Augmentation(disguise=_DISGUISE),
            self.options.seed,
            Extras(self.options.clip_frames),
        )

    def _load(self, path: Path) -> Person:
        with Faceset.open(path) as faceset:
            return load_person(faceset, self.resolution, self.options.views, seed=self.options.seed)


def pretrain(options: PretrainOptions, people: Sequence[Path], tick: Tick = no_tick) -> dict[str, Any]:
    """Trains on the facesets `people` until the asked steps or minutes are reached, and writes the base. Goes on where it stopped.

    Raises `NoFaceError` for fewer than two people, `CheckpointError` where the folder holds another architecture; `Cancelled` after a
    save where `tick` cancels.
    """
    if len(people) < 2:
        raise NoFaceError(
            f"{options.input}: holds usable faces of {len(people)} people; at least two are needed, each in a folder of their own."
        )
    state = options.output / STATE
    values = {name: value for name, value in to_dict(options).items() if name in _SHARED}
    asked = build(
        TrainOptions, {**values, "source": people[0], "target": people[1], "model": state, "preview_steps": 0}
    )
    config = trainer.make_config(asked)
    assert isinstance(config, ViTSwapperConfig)
    config = replace(config, own_decoders=False)  # a base is nobody's own
    device = devices.pick_device(options.device)
    dtype = trainer._precision(options.precision, device)
    torch.manual_seed(options.seed)
    model = build_model(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    rate = options.learning_rate or _RATE
    run = trainer.Run(
        model,
        {},
        make_optimizer(model, config.kind, rate),
        devices.gradient_scaler(device, dtype),
        Objective(asked, config.kind, device),
    )
    checkpoint = trainer._resume(state, config, run, device, None)
    sampler = Rotation(people, options, config.resolution, tick)
    loop = trainer._Loop(asked, config, run, sampler, device, dtype, rate, None, Team())
    trainer._cut_logs(loop)
    try:
        for event in loop.steps(tick):
            if event == "save":
                checkpoint = trainer._save(loop, checkpoint, {})
    except Cancelled:
        trainer._save(loop, checkpoint, {})
        raise
    checkpoint = trainer._save(loop, checkpoint, {})
    facts = {
        "preset": options.preset,
        "step": run.step,
        "minutes": round(run.elapsed_s / 60, 2),
        "people": len(people),
        "licence": options.licence,
        "held_out_loss": checkpoint.notes["held_out"]["total"],
    }
    write_base(options.output / BASE, config, run.average, facts)
    size = (options.output / BASE).stat().st_size
    return {"base": str(options.output / BASE), "bytes": size, **facts, "finite": math.isfinite(facts["held_out_loss"])}
