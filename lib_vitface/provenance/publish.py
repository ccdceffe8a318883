"""The only door through which a result leaves: label, mark (last) and statement are put in, and the file is signed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from lib_vitface import media
from lib_vitface.provenance import manifest
from lib_vitface.provenance.label import Label
from lib_vitface.provenance.sealing import Seal
from lib_vitface.provenance.watermark import FRAME, Watermark
from lib_vitface.types import Frame, Image, VideoInfo


class FrameSink(Protocol):
    """Takes the frames of a segment in order."""

    def write(self, frame: Frame) -> None: ...


class Publisher:
    """Writes pictures and video of one model. The same frames give the same bytes, so a resumed job agrees with itself; only a
    C2PA manifest, where one is put in, has a new number each time."""

    def __init__(self, consent_id: str, model_id: str, key: bytes | None = None, seal: Seal | None = None) -> None:
        """`consent_id` goes into the mark (its first 8 hex digits), `key` makes the mark's keyed code, `seal` signs finished
        files. Raises `InputError`."""
        self.said = manifest.statement(model_id, consent_id)
        self._watermark = Watermark(consent_id, key)
        self._seal = seal
        self._label: Label | None = None
        self._strength = FRAME

    def labelled(self, label: Label | None, reason: str = "") -> Publisher:
        """The same door for a video with this visible label; without one the `reason` goes into the statement."""
        door = copy.copy(self)
        door._label = label
        door.said = replace(self.said, label_box=None if label is None else label.box, no_label=reason)
        return door

    def strength(self, frames: Sequence[Image]) -> float:
        """How strongly a video with these frames `[H, W, 3]` in it is to be marked, see `Watermark.strength`."""
        return self._watermark.strength([self._labelled(image) for image in frames])

    def of_strength(self, strength: float) -> Publisher:
        """The same door for a video whose every frame is marked so strongly: a change between frames would be seen as a flicker."""
        door = copy.copy(self)
        door._strength = strength
        return door

    @property
    def xmp(self) -> bytes:
        """The packet every file carries."""
        return manifest.xmp_packet(self.said)

    def mark(self, image: Image) -> Image:
        """RGB uint8 `[H, W, 3]` with the mark in it; one that bears it already is given back as it is."""
        return self._watermark.ensure(image)

    def image(
        self, path: Path, image: Image, *, quality: int = 95, alpha: Image | None = None, parent: Path | None = None
    ) -> None:
        """Marks and writes a picture (PNG, JPEG, WebP), whole or not at all; `parent` is the file it was made from.

        Raises `InputError`, `OutputError`.
        """

        def finish(temporary: Path) -> None:
            if self._seal is not None:
                self._seal.file(temporary, path, self.said, parent)

        media.write_image(path, self.mark(image), quality=quality, xmp=self.xmp, alpha=alpha, finish=finish)

    def folder(self, folder: Path, files: Sequence[Path], parent: Path | None = None) -> None:
        """Puts the signed record of these finished pictures, made from `parent`, into their folder. Raises `OutputError`."""
        if self._seal is not None:
            self._seal.folder(folder, files, self.said, parent)

    def sealed(self, data: bytes, suffix: str, parent: bytes | None = None) -> bytes:
        """A finished, marked file of kind `suffix` with a signed manifest where one can be put in. `parent` as PNG."""
        return data if self._seal is None else self._seal.inside(data, suffix, self.said, parent)

    @contextmanager
    def segment(self, path: Path, info: VideoInfo, settings: media.EncodeSettings) -> Iterator[FrameSink]:
        """A part of a video; every frame is labelled and marked on its way in."""
        with media.FrameWriter(path, info, settings) as writer:
            yield _Marking(writer, self._frame)

    def _labelled(self, image: Image) -> Image:
        return image if self._label is None else self._label.draw(image)

    def _frame(self, image: Image) -> Image:
        # embed, not ensure: a frame of footage that was marked before gets its own mark all the same, at half the cost
        return self._watermark.embed(self._labelled(image), self._strength)

    def join(
        self,
        segments: Sequence[Path],
        output: Path,
        *,
        source: Path,
        settings: media.EncodeSettings,
        start_s: float | None = None,
        end_s: float | None = None,
        finish: Callable[[Path], None] | None = None,
        taken: Callable[[int, Path, media.Place], None] | None = None,
    ) -> None:
        """The finished video from marked segments, with the sound of `source` and the statement. `finish`, `taken` as in `media`."""

        def complete(temporary: Path) -> None:
            if temporary.is_file():
                manifest.add_xmp(temporary, self.xmp, output.suffix)
                if self._seal is not None:
                    self._seal.file(temporary, output, self.said, source)
            else:
                self.folder(temporary, list(temporary.iterdir()), source)
            if finish is not None:
                finish(temporary)

        media.join_segments(
            segments,
            output,
            source=source,
            settings=settings,
            start_s=start_s,
            end_s=end_s,
            metadata=manifest.container_tags(self.said, output.suffix),
            finish=complete,
            xmp=self.xmp,
            taken=taken,
        )


class _Marking:
    def __init__(self, writer: media.FrameWriter, change: Callable[[Image], Image]) -> None:
        self._writer, self._change = writer, change

    def write(self, frame: Frame) -> None:
        self._writer.write(replace(frame, image=self._change(frame.image)))
