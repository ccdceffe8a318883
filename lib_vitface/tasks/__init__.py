"""The tasks: one options class and one function each. Form, command line and API are readings of `TASKS`.

Nothing heavy is imported before a task runs, so that `--help` is quick.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.metrics.settings import EvaluateOptions
from lib_vitface.provenance.settings import ConsentOptions, InspectOptions
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.tasks.settings import BenchmarkOptions, CloneOptions, DemoOptions, DoctorOptions, ExportOptions
from lib_vitface.training.settings import PretrainOptions, TrainOptions

if TYPE_CHECKING:
    from lib_vitface.types import Host


@dataclass(frozen=True)
class Task:
    """`run(options, host)` does the work and returns a JSON-ready result. `heavy` work gets a process made for it."""

    name: str
    options: type
    summary: str
    module: str
    heavy: bool = False

    @property
    def run(self) -> Callable[[Any, Host], dict[str, Any]]:
        return getattr(import_module(self.module), self.name)


_STEPS, _WHOLE, _FACTS, _RECORDS = (f"lib_vitface.tasks.{name}" for name in ("steps", "whole", "facts", "records"))

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "clone",
            CloneOptions,
            "Two sets of clips in, one swapped and marked video out: all steps in one.",
            _WHOLE,
            True,
        ),
        Task("demo", DemoOptions, "The whole way on two sample clips, in about a quarter of an hour.", _WHOLE, True),
        Task(
            "consent", ConsentOptions, "Write, show or revoke the signed record of who agrees to be cloned.", _RECORDS
        ),
        Task("faceset", FacesetOptions, "Clips and photos of a person into a set of aligned faces.", _STEPS, True),
        Task(
            "pretrain",
            PretrainOptions,
            "Many people's pictures into a base, from which a training starts warm.",
            "lib_vitface.tasks.pretrain",
            True,
        ),
        Task("train", TrainOptions, "Train a model that puts the source's face where the target's was.", _STEPS, True),
        Task("swap", SwapOptions, "Put a trained face into a video, a picture or a folder of pictures.", _STEPS, True),
        Task("evaluate", EvaluateOptions, "Measure a swapped video: whose face, how true, how steady.", _STEPS, True),
        Task(
            "benchmark",
            BenchmarkOptions,
            "Kinds of model against each other, at equal time on unseen footage.",
            "lib_vitface.tasks.benchmark",
            True,
        ),
        Task(
            "export",
            ExportOptions,
            "A trained model as an ONNX file that swaps without torch.",
            "lib_vitface.tasks.export",
            True,
        ),
        Task(
            "inspect",
            InspectOptions,
            "Tell whether a picture or video is marked as synthetic, and by which record.",
            _FACTS,
        ),
        Task(
            "doctor",
            DoctorOptions,
            "What is here and what is missing: device, codecs, weights and their licences.",
            _FACTS,
        ),
    )
}
