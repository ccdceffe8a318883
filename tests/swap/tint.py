"""Stand-ins that swap tests share: a swapper that tints the face, a door that marks nothing, and a run that may die.

As a program (`python tint.py FOLDER DIES_AT KEY=VALUE ...`) it swaps a video and kills itself at a given tick.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from lib_vitface import media  # noqa: E402
from lib_vitface.errors import ViTFaceError  # noqa: E402
from lib_vitface.faces import align  # noqa: E402
from lib_vitface.jobs import JobStore  # noqa: E402
from lib_vitface.options import build  # noqa: E402
from lib_vitface.swap.settings import SwapOptions  # noqa: E402
from lib_vitface.types import Clip, Face, Image, Neighbours, SwapModel, SwappedFace  # noqa: E402


class AtOnce(SwapModel):
    """A stand-in that does all in one step, `swap`: the network's."""

    def prepare(self, clip: Clip) -> Clip:
        return clip

    def draw(self, prepared: Clip) -> list[SwappedFace]:
        return self.swap(*prepared)

    def finish(self, drawn: Any) -> list[SwappedFace]:
        return drawn

    @abstractmethod
    def swap(
        self, frames: Sequence[Image], faces: Sequence[Face], times: Sequence[float] | None, nearby: Any
    ) -> list[SwappedFace]: ...


class Tint(AtOnce):
    """Colours the whole face. What it draws depends on all frames of the clip, as a temporal model's does."""

    def __init__(self, clip_length: int = 4, size: int = 96, context: int = 0) -> None:
        self.clip_length, self.size, self.context = clip_length, size, context
        self.clips: list[int] = []

    def swap(
        self,
        frames: Sequence[Image],
        faces: Sequence[Face],
        times: Sequence[float] | None = None,
        nearby: Sequence[Neighbours] | None = None,
    ) -> list[SwappedFace]:
        assert 0 < len(frames) <= self.clip_length + 2 * self.context
        assert times is None or (len(times) == len(frames) and list(times) == sorted(times))
        self.clips.append(len(frames))
        crops = [align.take_crop(image, face, self.size) for image, face in zip(frames, faces, strict=True)]
        mean = np.mean([crop.image.mean() for crop in crops])
        mask = np.ones((self.size, self.size), np.float32)
        tint = np.array([0.5, 1.2, 0.7]) * (1 + mean / 2550)
        return [
            SwappedFace(np.clip(crop.image * tint, 0, 255).astype(np.uint8), mask, crop.frame_to_crop) for crop in crops
        ]


class PlainDoor:
    """Publishes without label and mark, so that pixels can be compared to the last bit."""

    def labelled(self, label: Any, reason: str = "") -> PlainDoor:
        return self

    def strength(self, frames: Sequence[Image]) -> float:
        return 0.0

    def of_strength(self, strength: float) -> PlainDoor:
        return self

    def segment(self, path: Path, info: Any, settings: media.EncodeSettings) -> AbstractContextManager[Any]:
        return media.FrameWriter(path, info, settings)

    def join(self, segments: Sequence[Path], output: Path, **facts: Any) -> None:
        media.join_segments(segments, output, **facts)

    def image(self, path: Path, image: Image, *, quality: int = 95, alpha: Image | None = None, **facts: Any) -> None:
        media.write_image(path, image, quality=quality, alpha=alpha)

    def folder(self, folder: Path, files: Sequence[Path], parent: Path | None = None) -> None:
        """No record."""


def options(folder: Path, **values: Any) -> SwapOptions:
    """Options with a model folder of their own; small chunks, lossless."""
    model = folder / "model"
    model.mkdir(exist_ok=True)
    defaults = {"model": model, "output": folder / "out.mkv", "codec": "ffv1", "chunk_frames": 8}
    return build(SwapOptions, {**defaults, **values})


def _die_at_joined(number: int) -> None:
    """Killed when so many segments lie in the output, the last one noted and not yet deleted."""
    from lib_vitface.jobs import Claim

    real, seen = Claim.add_chunk, 0

    def add_chunk(self: Claim, stage: str, *given: Any, **named: Any) -> None:
        nonlocal seen
        real(self, stage, *given, **named)
        seen += stage == "joined"
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    Claim.add_chunk = add_chunk  # type: ignore[method-assign]


def main(folder: Path, dies_at: int, values: dict[str, str]) -> int:
    """Swaps; before tick number `dies_at` the process is killed as by `kill -9`."""
    from grain import Grain

    from lib_vitface.swap.video import swap_video

    limit = values.pop("file_limit", None)
    if limit is not None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    joined = int(values.pop("dies_at_joined", 0))
    if joined:
        _die_at_joined(joined)
    ticks = 0

    def tick(done: float, total: float, note: str = "") -> None:
        nonlocal ticks
        ticks += 1
        if ticks == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    grain = Grain() if float(values.get("denoise", 0)) > 0 else None
    try:
        result = swap_video(options(folder, **values), Tint(), PlainDoor(), JobStore(folder / "work"), tick, grain)
    except ViTFaceError as error:
        sys.stdout.write(f"{type(error).__name__}: {error}\n")
        return error.exit_code
    import resource

    result["peak_kb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result["ticks"] = ticks
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    pairs = (argument.split("=", 1) for argument in sys.argv[3:])
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), dict(pairs)))
