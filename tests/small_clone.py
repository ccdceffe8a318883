"""Two short real clips, their facesets and a model of a few steps, made once for all tests that go the whole road."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.cli import main
from lib_vitface.models.config import EncoderConfig, ViTSwapperConfig
from lib_vitface.provenance import credentials

RATE = Fraction(24000, 1001)
WITH_FACE, WITHOUT_FACE = 20, 6
FRAMES = WITH_FACE + WITHOUT_FACE
STEPS = 2
TINY = ViTSwapperConfig(64, EncoderConfig(32, 8, 32, 2, 2), (8, 16, 24, 32), 8)
TRAINING = ("--batch", "2", "--views", "4", "--precision", "float32", "--preview-steps", "0", "--device", "cpu")


@dataclass(frozen=True)
class SmallClone:
    """`clip` [FRAMES frames, AAC sound, no face in the last ones], facesets, model and the workspace they were made in."""

    folder: Path
    person: Path
    clip: Path
    source: Path
    target: Path
    model: Path
    workspace: Path


def run(capsys: pytest.CaptureFixture[str], workspace: Path, *arguments: object) -> tuple[int, dict[str, Any], str]:
    """Exit code, JSON of stdout (exactly one object) and stderr of a command."""
    capsys.readouterr()
    code = main([*map(str, arguments), "--json", "--workspace", str(workspace)])
    out, err = capsys.readouterr()
    assert out.count("\n") == 1, out
    return code, json.loads(out), err


def images(name: str, count: int, size: tuple[int, int] = (640, 360), every: int = 1) -> list[np.ndarray]:
    """Frames of a sample clip."""
    found = itertools.islice(media.read_frames(locate(name)), 0, count * every, every)
    return [cv2.resize(f.image, size, interpolation=cv2.INTER_AREA) for f in found]


def content(path: Path) -> object:
    """What two runs must agree in to the last bit: the file, or its packets where it holds a manifest, which has a new number
    each time."""
    if not credentials.is_there():
        return path.read_bytes()
    with av.open(str(path)) as container:
        return [(packet.stream.index, packet.pts, packet.dts, bytes(packet)) for packet in container.demux()]


def small_clone(folder: Path, write_video: Callable[..., Path]) -> SmallClone:
    """Makes it all in `folder`, by the command line, with the tiny network."""
    clip, person = folder / "clip.mp4", folder / "person.mp4"
    pictures = [*images("sample_target", WITH_FACE), *images("sample_no_face", WITHOUT_FACE)]
    options = {"crf": "14", "preset": "veryfast"}
    write_video(clip, pictures, RATE, audio="aac", options=options, tags=(1, 1, 1, 1))
    write_video(person, images("sample_source", 12, every=4), 10, options=options)
    made = SmallClone(folder, person, clip, *(folder / n for n in ("source", "target", "model", "workspace")))
    quiet = ("--quiet", "--workspace", str(made.workspace))
    few = ("--min-change", "0", "--size", "128")
    assert main(["faceset", "--input", str(person), "--output", str(made.source), *few, *quiet]) == 0
    assert main(["faceset", "--input", str(clip), "--output", str(made.target), "--every", "2", *few, *quiet]) == 0
    people = ("--source", str(made.source), "--target", str(made.target), "--model", str(made.model))
    assert main(["train", *people, "--steps", str(STEPS), *TRAINING, *quiet]) == 0
    return made
