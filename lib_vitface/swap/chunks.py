"""Chunks of a video's second pass, each by itself, in workers that may be on other machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_vitface import media
from lib_vitface.errors import InputError
from lib_vitface.swap.person import CheckedSwapper
from lib_vitface.swap.plan import read_plan
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.swap.stream import FrameStream
from lib_vitface.types import SwapModel

if TYPE_CHECKING:
    from lib_vitface.provenance.publish import Publisher


@dataclass(frozen=True)
class ChunkWork:
    """What a worker needs: called, it loads the model and gives a function that writes segment `number` into `folder` and returns
    whose face it saw (see `CheckedSwapper.hand_over`). `count` frames are in the video."""

    options: SwapOptions
    folder: Path
    count: int
    publisher: Publisher
    settings: media.EncodeSettings
    suffix: str
    make: Callable[[], SwapModel]

    def __call__(self) -> Callable[[int], list[Any]]:
        swapper, info = self.make(), media.probe(self.options.input)
        plan, length = read_plan(self.folder, self.options.chunk_frames), self.options.chunk_frames

        def write(number: int) -> list[Any]:
            start, stop = number * length, min((number + 1) * length, self.count)
            stream = FrameStream(self.options, swapper, plan, self.count, start)
            path = self.folder / segment_name(number, self.suffix)
            written = start
            frames = media.read_frames(self.options.input, self.options.start_s, self.options.end_s, stream.begin)
            with self.publisher.segment(path, info, self.settings) as writer:
                for frame in frames:
                    for done in stream(frame)[: stop - written]:
                        writer.write(done)
                        written += 1
                    if written == stop:
                        break
                if written < stop:
                    raise InputError(changed(self.options.input))
            return swapper.hand_over() if isinstance(swapper, CheckedSwapper) else []

        return write


def segment_name(number: int, suffix: str) -> str:
    """Name of a chunk's file in the job's folder."""
    return f"video-{number:05}{suffix}"


def changed(path: Path) -> str:
    """The sentence for an input that is being written to."""
    return f"{path}: gave other frames when it was read again; is it being written to?"
