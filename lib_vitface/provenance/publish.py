"""The only door through which a result leaves: the mark goes into the pixels last, the statement into the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from lib_vitface import media
from lib_vitface.provenance import manifest
from lib_vitface.provenance.watermark import FRAME, Watermark
from lib_vitface.types import Frame, Image, VideoInfo


class FrameSink(Protocol):
    """Takes the frames of a segment in order."""

    def write(self, frame: Frame) -> None: ...


class Publisher:
    """Writes pictures and video of one model. The same frames give the same bytes, so a resumed job agrees with itself."""

    def __init__(self, consent_id: str, model_id: str, key: bytes | None = None) -> None:
        """`consent_id` goes into the mark (its first 8 hex digits), `key` makes the mark's keyed code. Raises `InputError`."""
        self.said = manifest.statement(model_id, consent_id)
        self._watermark = Watermark(consent_id, key)

    @property
    def xmp(self) -> bytes:
        """The packet every file carries."""
        return manifest.xmp_packet(self.said)

    def mark(self, image: Image) -> Image:
        """RGB uint8 `[H, W, 3]` with the mark in it; one that bears it already is given back as it is."""
        return self._watermark.ensure(image)

    def image(self, path: Path, image: Image, *, quality: int = 95, alpha: Image | None = None) -> None:
        """Marks and writes a picture (PNG, JPEG, WebP), whole or not at all. Raises `InputError`, `OutputError`."""
        media.write_image(path, self.mark(image), quality=quality, xmp=self.xmp, alpha=alpha)

    @contextmanager
    def segment(self, path: Path, info: VideoInfo, settings: media.EncodeSettings) -> Iterator[FrameSink]:
        """A part of a video; every frame is marked on its way in."""
        with media.FrameWriter(path, info, settings) as writer:
            yield _Marking(writer, self._watermark)

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
    ) -> None:
        """The finished video from marked segments, with the sound of `source` and the statement. `finish` as in `media`."""

        def complete(temporary: Path) -> None:
            if temporary.is_file():
                manifest.add_xmp(temporary, self.xmp, output.suffix)
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
        )


class _Marking:
    def __init__(self, writer: media.FrameWriter, watermark: Watermark) -> None:
        self._writer, self._watermark = writer, watermark

    def write(self, frame: Frame) -> None:
        # embed, not ensure: a frame of footage that was marked before gets its own mark all the same, at half the cost
        self._writer.write(replace(frame, image=self._watermark.embed(frame.image, FRAME)))
