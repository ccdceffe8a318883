"""Fixtures of the faceset's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from faceset_maker import SIZE, make_record, noise_image

from lib_vitface.faceset.writer import FacesetWriter, Progress


@pytest.fixture
def make_faceset(tmp_path: Path) -> Callable[..., FacesetWriter]:
    """Builds a finished faceset of `count` kept records, with pictures where `pictures` says so."""

    def build(count: int, pictures: bool = False, folder: str = "set", **changes: object) -> FacesetWriter:
        faceset = FacesetWriter.create(tmp_path / folder, {"size": SIZE})
        source = faceset.add_input("/clip.mp4", "1")
        records = [make_record(i, **{"kept": True, "reason": "", "cluster": 0, **changes}) for i in range(count)]
        for record in records if pictures else []:
            faceset.save_crop(record.image, noise_image(record.frame), 95)
        faceset.add(source, records, Progress(count, frames=count, found=count, done=True))
        faceset.note("finished", True)
        return faceset

    return build
