"""The training loop, read from top to bottom: load, go on where it stopped, step, save, stop."""

from __future__ import annotations

import dataclasses
import json
import math
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lib_vitface import device as devices
from lib_vitface.errors import Cancelled, CheckpointError, InputError, ViTFaceError
from lib_vitface.faceset.morphable import COEFFICIENTS
from lib_vitface.faceset.store import Faceset
from lib_vitface.media.container import beside, writing
from lib_vitface.models.checkpoint import INDEX, Checkpoint, back_up, open_model, save_model
from lib_vitface.models.config import (
    IDENTITIES,
    LOCAL_WIDTHS,
    PRESETS,
    Config,
    ViTSwapperConfig,
    person_name,
    saehd_config,
)
from lib_vitface.models.swapper import ViTSwapper, build_model
from lib_vitface.training import ensemble
from lib_vitface.training.augment import Augmentation
from lib_vitface.training.base import load_base
from lib_vitface.training.data import Person, load_person, told_persons
from lib_vitface.training.masking import guide
from lib_vitface.training.objective import Objective
from lib_vitface.training.optimizer import clip_gradients, make_optimizer, rate_at
from lib_vitface.training.preview import preview_sheet, views_sheet
from lib_vitface.training.sampler import Extras, Sampler, Samples
from lib_vitface.training.settings import DEFAULT_MINUTES, TrainOptions
from lib_vitface.training.team import Team, TeamLost, gathered
from lib_vitface.types import Batch, Image, Tick, no_tick

LOG, JUDGED = "loss.jsonl", "held_out.jsonl"
_HELD_OUT = 16  # samples the quality is judged on at each save
_MEMORY_TOKENS = 16  # made of the views of a person, where there are any
_BAD_STEPS = 25  # steps in a row without a finite loss after which training gives up


@dataclass
class Run:
    """Everything that changes while training."""

    model: nn.Module
    average: dict[str, torch.Tensor]
    optimizer: torch.optim.Optimizer
    scaler: torch.cuda.amp.GradScaler
    objective: Objective
    step: int = 0
    elapsed_s: float = 0.0
    best: float = math.inf
    since_best: int = 0
    bad: int = 0


def make_config(options: TrainOptions) -> Config:
    """The architecture that the options ask for."""
    reference_names(options)
    if options.encoder != "vit":
        if options.more_sources:
            raise InputError(
                "--more-sources: saehd knows one faceset of the source; train a vit model, or leave them out."
            )
        return saehd_config(options.encoder, (options.resolution or 128) // 32 * 32)
    preset = PRESETS[options.preset]
    seen, patch = options.encoder_resolution or preset.encoder.image_size, preset.encoder.patch_size
    return dataclasses.replace(
        preset,
        encoder=dataclasses.replace(preset.encoder, image_size=seen // patch * patch),
        persons=IDENTITIES + len(options.more_sources),
        resolution=options.resolution // 32 * 32 if options.resolution else preset.resolution,
        fusion=options.local_features,
        local_width=preset.local_width if options.local_features == "none" else LOCAL_WIDTHS[options.preset],
        clip_frames=options.clip_frames,
        memory_tokens=_MEMORY_TOKENS if options.memory_views else 0,
        condition=options.morphable,
        coefficients=0 if options.morphable == "none" else COEFFICIENTS,
        volume_side=(options.resolution or preset.resolution) // 32 * 8 if options.renderer else 0,
        own_decoders=True,
    )


def _as_before(config: Config, known: Config) -> Config:
    """The configuration with as many decoders as the model has that training goes on with; there is no option for that."""
    if isinstance(config, ViTSwapperConfig) and isinstance(known, ViTSwapperConfig):
        return dataclasses.replace(config, own_decoders=known.own_decoders)
    return config


def train(
    options: TrainOptions,
    tick: Tick = no_tick,
    *,
    consent_id: str | None = None,
    publish: Callable[[Path, Image], object] | None = None,
) -> dict[str, Any]:
    """Train until the asked steps or minutes are reached, and save. Returns figures of the run.

    `publish` writes a preview picture (through the only door, which marks it); without it no previews are made. Raises
    `CheckpointError` where the folder holds another kind of model; `Cancelled` after a save where `tick` cancels; `TeamLost` after
    a save where another process of the training ended. A process that follows (see `team`) returns nothing.
    """
    device = devices.device_of_process(options.device)
    dtype = _precision(options.precision, device)
    if dtype != torch.float16:  # which is no choice of a person's
        options = dataclasses.replace(options, precision=str(dtype).removeprefix("torch."))  # all processes the same
    with gathered(options, device) as team:
        return _train(options, tick, consent_id, publish, team, device, dtype)


def _train(
    options: TrainOptions,
    tick: Tick,
    consent_id: str | None,
    publish: Callable[[Path, Image], object] | None,
    team: Team,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    config = make_config(options)
    if (options.model / INDEX).exists():
        config = _as_before(config, open_model(options.model).config)
    torch.manual_seed(options.seed)
    model = build_model(config).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    kind = config.kind
    if isinstance(model, ViTSwapper):
        model.encoder.checkpointing = options.checkpointing
    base = None
    if options.base is not None and not (options.model / INDEX).exists():
        base = load_base(options.base, model)
    rate = options.learning_rate or (5e-5 if kind.startswith("saehd") else 4e-4)
    objective = Objective(options, kind, device)
    run = Run(model, {}, make_optimizer(model, kind, rate), devices.gradient_scaler(device, dtype), objective)
    checkpoint = _resume(options.model, config, run, device, consent_id)
    if checkpoint.step and checkpoint.notes.get("references", []) != reference_names(options):
        raise CheckpointError(
            f"{options.model} was trained with other facesets of the source ({', '.join(checkpoint.notes['references'])}); name "
            "the same ones in the same order, or another folder."
        )

    def loading(done: float, total: float, note: str = "") -> None:
        tick(0, 1, f"{note}, {done:.0f} of {total:.0f}")  # the bar is the training's

    persons = []
    for path in (options.source, options.target, *options.more_sources):
        with Faceset.open(path) as faceset:
            persons.append(
                load_person(
                    faceset, config.resolution, options.views, references=kind == "vit", seed=options.seed, tick=loading
                )
            )
    memories = {f"memory_{person_name(number)}": person.memory.arrays() for number, person in enumerate(persons)}
    if kind == "vit" and options.morphable != "none":
        persons, memories["morphable"] = told_persons(persons, options.morphable_file)
    sampler = make_sampler(options, persons, kind, team)
    with torch.no_grad():
        size = float(sum(value.double().abs().sum() for value in model.state_dict().values()))
    team.check_same(run.step, size, dtype.itemsize, *(float(person.landmarks.sum()) for person in persons))
    loop = _Loop(options, config, run, sampler, device, dtype, rate, publish, team)
    if team.rank:
        for _ in loop.steps(no_tick):
            pass
        return {}
    _cut_logs(loop)
    if (pictures := sampler.views()) is not None:
        memories["views"] = {
            person_name(number): p.images[p.views[: options.memory_views]] for number, p in enumerate(persons)
        }
        if publish is not None and options.preview_steps:
            publish(options.model / "previews" / "views.png", views_sheet(pictures))
    try:
        for event in loop.steps(tick):
            if event == "save":
                checkpoint = _save(loop, checkpoint, memories)
                memories = {}
    except (Cancelled, TeamLost):
        _save(loop, checkpoint, memories)
        raise
    checkpoint = _save(loop, checkpoint, memories)
    if options.soup:
        checkpoint = _save_soup(loop, checkpoint)
    loop.preview()
    return {
        "model": str(options.model),
        "kind": kind,
        "step": run.step,
        "minutes": run.elapsed_s / 60,
        "held_out_loss": checkpoint.notes["held_out"]["total"],
        "soup": checkpoint.notes.get("soup"),
        "base": base,
        "samples_per_s": run.step * options.batch / max(run.elapsed_s, 1e-9),
        "wait_share": loop.waited_s / loop.worked_s if loop.worked_s else None,
        "precision": str(dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def reference_names(options: TrainOptions) -> list[str]:
    """The names of the source's facesets, where there are several: those of their folders. Raises `InputError` for two of one name."""
    names = [path.resolve().name for path in (options.source, *options.more_sources)] if options.more_sources else []
    if len(set(names)) < len(names):
        raise InputError(
            "--more-sources: two facesets of the source have folders of one name; `swap --reference` could not tell them "
            "apart, so rename one."
        )
    return names


def make_sampler(options: TrainOptions, persons: list[Person], kind: str, team: Team | None = None) -> Sampler:
    """Batches as the options ask for. Raises `InputError` where they contradict each other."""
    vit = kind == "vit"
    if options.weight_temporal and vit and options.clip_frames == 1:
        raise InputError("--weight-temporal compares frames of a clip: give --clip-frames 2 or more with it.")
    augmentation = Augmentation(
        options.random_warp,
        options.color_jitter,
        options.covers if vit else 0.0,
        0.5 if options.flip else 0.0,
        options.cover_shapes,
        options.recipe,
        options.disguise if vit else 0.0,
    )
    rays = persons[0].images.shape[1] // 4 if options.renderer else 0
    extras = Extras(options.clip_frames, options.weight_temporal > 0, options.memory_views, rays) if vit else Extras()
    return Sampler(persons, options.batch, augmentation, options.seed, extras, (team or Team()).part)


def _precision(name: str, device: torch.device) -> torch.dtype:
    return devices.fast_dtype(device) if name == "auto" else getattr(torch, name)


def _resume(folder: Path, config: Config, run: Run, device: torch.device, consent_id: str | None) -> Checkpoint:
    """The folder's model loaded into `run`, or a new one's record."""
    if not (folder / INDEX).exists():
        run.average = {k: v.detach().clone() for k, v in run.model.state_dict().items()}
        return Checkpoint(folder, config, uuid.uuid4().hex[:16], 0, 0.0, consent_id)
    found = open_model(folder)
    if found.config != config:
        raise CheckpointError(
            f"{folder} holds a model of another architecture ({found.config}); choose its options or another folder."
        )
    if found.consent_id != consent_id:
        raise CheckpointError(
            f"{folder} belongs to another consent record ({found.consent_id}); choose another folder."
        )
    state = found.tensors("state")
    run.model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    run.average = {k.removeprefix("average."): v.to(device) for k, v in state.items() if k.startswith("average.")}
    _restore_optimizer(run.optimizer, run.model, "optimizer", state)
    critic, optimizer = run.objective.critic, run.objective.critic_optimizer
    if critic is not None and optimizer is not None and any(k.startswith("critic.") for k in state):
        critic.load_state_dict({k.removeprefix("critic."): v for k, v in state.items() if k.startswith("critic.")})
        _restore_optimizer(optimizer, critic, "critic_optimizer", state)
    if "scale" in state:
        run.scaler.load_state_dict({**run.scaler.state_dict(), "scale": float(state["scale"])})
    run.step, run.elapsed_s = found.step, found.elapsed_s
    run.best, run.since_best = found.notes.get("best", math.inf), found.notes.get("since_best", 0)
    return found


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, part: str, state: dict[str, torch.Tensor]
) -> None:
    for name, parameter in _named_parameters(model):
        prefix = f"{part}.{name}."
        values = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if values:
            # As the parameter lies in memory, not as the file has it: a fused step does not look at strides.
            optimizer.state[parameter] = {
                k: v if k == "step" else torch.empty_like(parameter).detach().copy_(v) for k, v in values.items()
            }


def _optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module, part: str) -> dict[str, torch.Tensor]:
    return {
        f"{part}.{name}.{key}": torch.as_tensor(value)
        for name, parameter in _named_parameters(model)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters by the names they are saved under, which do not depend on the version of `transformers` as their order does."""
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, nn.Parameter):
            yield name, value


def _state(run: Run) -> dict[str, torch.Tensor]:
    """Everything needed to go on with the very same next step."""
    state = {f"model.{k}": v for k, v in run.model.state_dict().items()}
    state |= {f"average.{k}": v for k, v in run.average.items()}
    state |= _optimizer_state(run.optimizer, run.model, "optimizer")
    critic, optimizer = run.objective.critic, run.objective.critic_optimizer
    if critic is not None and optimizer is not None:
        state |= {f"critic.{k}": v for k, v in critic.state_dict().items()}
        state |= _optimizer_state(optimizer, critic, "critic_optimizer")
    if run.scaler.is_enabled():
        state["scale"] = torch.tensor(run.scaler.get_scale())
    return state


def _save(loop: _Loop, checkpoint: Checkpoint, memories: dict[str, Any]) -> Checkpoint:
    """Judge on held-out frames, then write state, weights to swap with and, if they are the best so far, best weights.

    Where no step was made since the last save the model stays as it is, so that what was made with it is still known to be of it.
    """
    run = loop.run
    if run.step == checkpoint.step and (loop.options.model / INDEX).exists():
        return checkpoint
    held_out = loop.judge()
    _log(loop.options.model / JUDGED, {"step": run.step, "s": round(run.elapsed_s, 2), **held_out})
    parts: dict[str, Any] = {**memories, "state": _state(run), "weights": run.average}
    if held_out["total"] < run.best:
        run.best, run.since_best = held_out["total"], 0
        parts["best"] = run.average
    else:
        run.since_best += 1
    notes = {
        "best": run.best,
        "since_best": run.since_best,
        "held_out": held_out,
        "references": reference_names(loop.options),
        "preset": loop.options.preset if loop.config.kind == "vit" else loop.config.kind,
    }
    return save_model(dataclasses.replace(checkpoint, step=run.step, elapsed_s=run.elapsed_s, notes=notes), parts)


def _save_soup(loop: _Loop, checkpoint: Checkpoint) -> Checkpoint:
    """The averaged weights that held-out frames choose, as the part `soup`."""
    weights, shares, loss = ensemble.soup(
        ensemble.candidates(checkpoint), lambda weights: loop.judge(dict(weights))["total"]
    )
    notes = {**checkpoint.notes, "soup": {"shares": shares, "held_out_loss": loss}}
    return save_model(dataclasses.replace(checkpoint, notes=notes), {"soup": weights})


class _Loop:
    """One training run."""

    def __init__(
        self,
        options: TrainOptions,
        config: Config,
        run: Run,
        sampler: Sampler,
        device: torch.device,
        dtype: torch.dtype,
        rate: float,
        publish: Callable[[Path, Image], object] | None,
        team: Team,
    ) -> None:
        self.team = team
        self.options, self.config, self.run, self.sampler = options, config, run, sampler
        self.device, self.dtype, self.rate, self.publish = device, dtype, rate, publish
        self.budget_s = math.inf
        if options.minutes is not None or options.steps is None:
            self.budget_s = (options.minutes or DEFAULT_MINUTES) * 60
        self.limit = options.steps or math.inf
        self.waited_s = self.worked_s = 0.0
        """Of this run: how long steps waited for their batch, and took in all."""

    def progress(self) -> float:
        """Share 0..1 of the asked training that is done."""
        return max(self.run.step / self.limit, self.run.elapsed_s / self.budget_s)

    def goes_on(self, enough: bool = False) -> bool:
        """Whether there is another step. All processes hear that, and the time so far, from the first."""
        more, self.run.elapsed_s = self.team.hear(float(self.progress() < 1 and not enough), self.run.elapsed_s)
        return bool(more)

    def steps(self, tick: Tick) -> Iterator[str]:
        """Train. The first process yields "save" whenever a save is due, and tells the others where it is stopped."""
        try:
            yield from self._steps(tick)
        except (Cancelled, GeneratorExit):
            with suppress(TeamLost):
                self.goes_on(enough=True)
            raise

    def _steps(self, tick: Tick) -> Iterator[str]:
        """The next batch is made while this one is learned."""
        options, run, enough = self.options, self.run, False
        saved = backed_up = time.monotonic()
        with ThreadPoolExecutor(1, "batches") as pool:
            coming = pool.submit(self.sampler.batch, run.step)
            while self.goes_on(enough):
                began = time.monotonic()
                samples = coming.result()
                waited = time.monotonic() - began
                coming = pool.submit(self.sampler.batch, run.step + 1)
                terms = self.step(samples)
                run.step += 1
                taken = time.monotonic() - began
                run.elapsed_s += taken
                self.waited_s, self.worked_s = self.waited_s + waited, self.worked_s + taken
                if self.team.rank:
                    continue
                said = {"step": run.step, "s": round(run.elapsed_s, 2), "wait": round(waited, 4), **terms}
                _log(options.model / LOG, said)
                tick(self.progress(), 1, f"step {run.step}, loss {terms.get('total', math.nan):.3f}")
                if options.preview_steps and run.step % options.preview_steps == 0:
                    self.preview()
                if time.monotonic() - saved > options.save_minutes * 60:
                    yield "save"
                    saved = time.monotonic()
                    if options.backup_hours and saved - backed_up > options.backup_hours * 3600:
                        back_up(open_model(options.model))
                        backed_up = saved
                    enough = 0 < options.patience <= run.since_best

    def step(self, samples: Samples) -> dict[str, float]:
        """One update; a step without finite loss or gradient changes nothing."""
        run = self.run
        run.model.train()
        for group in run.optimizer.param_groups:
            group["lr"] = self.rate * rate_at(run.step, self.progress(), self.options.warm_up)
        terms = self.losses(samples)
        run.optimizer.zero_grad()
        run.scaler.scale(terms["total"]).backward()
        run.scaler.unscale_(run.optimizer)
        terms = self.team.average(run.model.parameters(), terms)
        norm = clip_gradients(run.model.parameters(), self.options.clip or math.inf)
        if not (torch.isfinite(norm) and torch.isfinite(terms["total"])):
            run.scaler.update()  # float16: too large a scale is what usually went wrong, it is halved now
            run.bad += 1
            if run.bad >= _BAD_STEPS:
                raise ViTFaceError(
                    f"Training diverged: {run.bad} steps in a row had no finite loss; train on with a lower --learning-rate."
                )
            return {"bad": float(run.bad)}
        run.bad = 0
        run.scaler.step(run.optimizer)
        run.scaler.update()
        decay = min(self.options.averaging, (1 + run.step) / (10 + run.step)) if self.options.averaging else 0.0
        with torch.no_grad():
            current = run.model.state_dict()
            floats = [k for k, v in run.average.items() if v.is_floating_point()]
            torch._foreach_lerp_([run.average[k] for k in floats], [current[k] for k in floats], 1 - decay)
            for name in run.average.keys() - set(floats):  # counters of batch normalisation
                run.average[name].copy_(current[name])
        return {**{k: float(v.detach()) for k, v in terms.items()}, **run.objective.learn(self.team)}

    def losses(self, samples: Samples) -> dict[str, torch.Tensor]:
        """Named loss terms and their `total` for a batch."""
        batch, emphasis = make_batch(samples, self.device), None
        model = self.run.model
        with devices.autocast(self.device, self.dtype):
            if isinstance(model, ViTSwapper) and model.training:
                random = np.random.default_rng((self.options.seed, 4, self.run.step, self.team.rank))
                points = torch.from_numpy(samples.points).to(self.device)
                batch, emphasis = guide(batch, points, model.encoder, self.options, random)
            output = model(batch)
        return self.run.objective(output, samples, emphasis)

    @torch.no_grad()
    def judge(self, weights: dict[str, torch.Tensor] | None = None) -> dict[str, float]:
        """Loss terms on held-out frames, of the averaged weights or given ones."""
        with averaged(self.run, weights):
            return {k: float(v) for k, v in self.losses(self.sampler.held_out(_HELD_OUT)).items()}

    @torch.no_grad()
    def preview(self) -> None:
        """A picture of progress: driving faces, themselves redrawn, and swapped."""
        if self.publish is None or not self.options.preview_steps:
            return
        with averaged(self.run), devices.autocast(self.device, self.dtype):
            sheet = preview_sheet(self.run.model, self.sampler, self.device)
        self.publish(self.options.model / "previews" / f"step-{self.run.step:08d}.png", sheet)


class averaged:  # noqa: N801 - reads as an adverb where it is used
    """Within it the model has its averaged weights (or those given) and is in evaluation mode."""

    def __init__(self, run: Run, weights: dict[str, torch.Tensor] | None = None) -> None:
        self.run, self.weights = run, run.average if weights is None else weights

    def __enter__(self) -> None:
        self.kept = {k: v.detach().clone() for k, v in self.run.model.state_dict().items()}
        self.run.model.load_state_dict(self.weights)
        self.run.model.eval()

    def __exit__(self, *_: object) -> None:
        self.run.model.load_state_dict(self.kept)
        self.run.model.train()


def make_batch(samples: Samples, device: torch.device) -> Batch:
    """Clips `[B, T, C, S, S]` on the device."""

    def ready(values: np.ndarray) -> torch.Tensor:
        pictures = torch.from_numpy(values).to(device).to(memory_format=torch.channels_last)
        return pictures.unflatten(0, (-1, samples.length))

    def numbers(values: np.ndarray | None) -> torch.Tensor | None:
        return None if values is None else torch.from_numpy(values).to(device).unflatten(0, (-1, samples.length))

    return Batch(
        ready(samples.image),
        ready(samples.reference),
        ready(samples.reference_mask),
        ready(samples.own_reference),
        ready(samples.geometry),
        torch.from_numpy(samples.identity).to(device),
        times=None if samples.times is None else torch.from_numpy(samples.times).to(device),
        coefficients=numbers(samples.coefficients),
        picture_to_face=numbers(samples.picture_to_face),
        views=None if samples.views is None else torch.from_numpy(samples.views).to(device),
    )


def _log(path: Path, facts: dict[str, float]) -> None:
    """A line more. Raises `OutputError`."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(facts) + "\n")


def _cut_logs(loop: _Loop) -> None:
    """Where a run begins or goes on: nothing in the logs is of later steps."""
    for name in (LOG, JUDGED):
        _cut(loop.options.model / name, loop.run.step)


def _cut(path: Path, step: int) -> None:
    """Takes out of a log what a run noted after `step` that was killed before it could save. Raises `OutputError`."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if _step_of(line) <= step]
    if len(kept) < len(lines):
        with beside(path) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")


def _step_of(line: str) -> float:
    """The step a line is about; infinity for one that was not written to its end."""
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


__all__ = ["Person", "averaged", "make_batch", "make_config", "train"]
