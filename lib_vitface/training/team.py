"""Several processes that train one model: who is one of them, and what they tell each other (by `accelerate`).

Every process has the whole model and learns a part of each batch; gradients are averaged before each step, so all of them always have
the same weights. The first process (the one the person started) leads: it alone reports, saves and says when to stop.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lib_vitface import device as devices
from lib_vitface.errors import InputError, MissingDependencyError, ViTFaceError
from lib_vitface.options import to_dict

if TYPE_CHECKING:
    from lib_vitface.training.settings import TrainOptions

_PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE_S = 10.0  # for a process that was asked to end


class TeamLost(ViTFaceError):  # noqa: N818 - reads as what happened
    """Another process of the training has ended; the last step was not made."""


class Team:
    """One process alone; `Accelerated` is one of several.

    `rank` 0 leads `count` processes; this one learns `part(n)` of the n clips of a batch.
    """

    rank, count = 0, 1

    def part(self, clips: int) -> slice:
        """Which clips of a batch this process learns."""
        return slice(0, clips)

    def average(self, parameters: Iterable[nn.Parameter], terms: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Replaces gradients by their means over all processes, and returns the means of loss terms."""
        return terms

    def hear(self, *said: float) -> tuple[float, ...]:
        """What the first process says; the others' own values are ignored."""
        return said

    def check_same(self, *values: float) -> None:
        """Raises `InputError` where another process has other values: it sees other files."""


class Accelerated(Team):
    """One of several processes that `accelerate` has brought together."""

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator
        self._operations: Any = importlib.import_module("accelerate.utils")
        self.rank, self.count = accelerator.process_index, accelerator.num_processes

    def part(self, clips: int) -> slice:
        """As `Team.part`. Raises `InputError` where the batch cannot be shared out evenly: its mean would be another."""
        if clips % self.count:
            raise InputError(
                f"--batch gives {clips} clips or pictures a step, which {self.count} processes cannot share evenly; choose "
                "a multiple."
            )
        each = clips // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def average(self, parameters: Iterable[nn.Parameter], terms: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """As `Team.average`, in one message. A parameter no process has a gradient of keeps having none."""
        learned = [p for p in parameters if p.requires_grad]
        there = learned[0].new_tensor([p.grad is not None for p in learned])
        values = torch.stack([value.detach() for value in terms.values()]).to(there)
        gradients = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in learned]
        with _told():
            together = self._operations.reduce(torch.cat([*gradients, there, values]), "mean")
        *means, there, values = together.split([*(p.numel() for p in learned), len(learned), len(terms)])
        for parameter, mean, known in zip(learned, means, there.tolist(), strict=True):
            if parameter.grad is not None:
                parameter.grad.copy_(mean.view_as(parameter))
            elif known:
                parameter.grad = torch.empty_like(parameter).copy_(mean.view_as(parameter))
        return dict(zip(terms, values, strict=True))

    def hear(self, *said: float) -> tuple[float, ...]:
        """As `Team.hear`."""
        values = torch.tensor(said, dtype=torch.float64, device=self._accelerator.device)
        with _told():
            return tuple(self._operations.broadcast(values).tolist())

    def check_same(self, *values: float) -> None:
        """As `Team.check_same`."""
        own = torch.tensor([values], dtype=torch.float64, device=self._accelerator.device)
        with _told():
            found = self._operations.gather(own)
        if not torch.allclose(found, found[:1].expand_as(found), rtol=1e-6, atol=0):
            raise InputError(
                "The processes of this training do not have the same facesets and model; let all of them see the same folders."
            )


@contextmanager
def _told() -> Iterator[None]:
    """What the transport raises when a process is gone, as a sentence."""
    try:
        yield
    except RuntimeError as error:
        raise TeamLost(
            f"A process of this training has ended ({str(error).splitlines()[0][:120]}); what was learned before is saved, the same "
            "command goes on from there."
        ) from error


def in_team() -> bool:
    """Whether this process was started as one of several, by `gathered` or by `accelerate launch`."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def follows() -> bool:
    """Whether this process is one of several and not the first: it reports, saves and notes nothing."""
    return in_team() and int(os.environ.get("RANK", "0")) > 0


@contextmanager
def gathered(options: TrainOptions, device: torch.device) -> Iterator[Team]:
    """The team that trains: this process alone, those it starts here (`options.processes`), or those `accelerate launch` started.

    Raises `MissingDependencyError` without accelerate. Processes that were started are ended at the end.
    """
    if not in_team() and options.processes == 1:
        yield Team()
        return
    try:
        accelerate = importlib.import_module("accelerate")
    except ImportError as error:
        raise MissingDependencyError(
            "Training in several processes needs the package accelerate: pip install accelerate."
        ) from error
    started: list[subprocess.Popen[bytes]] = []
    before, threads = {name: os.environ.get(name) for name in _PLACE}, torch.get_num_threads()
    if not in_team():
        os.environ.update(_place(0, options.processes, _free_port()))
        started = [_start(options, rank) for rank in range(1, options.processes)]
    try:
        with _told():
            accelerator = accelerate.Accelerator(cpu=device.type == "cpu")
        torch.set_num_threads(max(1, devices.threads() // int(os.environ["LOCAL_WORLD_SIZE"])))
        yield Accelerated(accelerator)
    finally:
        _part(accelerate)
        for process in started:
            _end(process)
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        torch.set_num_threads(threads)


def _part(accelerate: Any) -> None:
    """Leave the group; a later training in this process may belong to another."""
    if torch.distributed.is_initialized():
        with suppress(RuntimeError):
            torch.distributed.destroy_process_group()
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def _place(rank: int, count: int, port: int) -> dict[str, str]:
    values = (rank, count, rank, count, "127.0.0.1", port)
    return dict(zip(_PLACE, map(str, values), strict=True))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _start(options: TrainOptions, rank: int) -> subprocess.Popen[bytes]:
    """A process that follows this one."""
    place = _place(rank, options.processes, int(os.environ["MASTER_PORT"]))
    command = [sys.executable, "-m", "lib_vitface.training.follower", json.dumps(to_dict(options))]
    return subprocess.Popen(command, env={**devices.child_environment(), **place}, stdin=subprocess.DEVNULL)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
