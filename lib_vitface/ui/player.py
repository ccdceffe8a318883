"""The result of a job: a video with sound or a picture, and the file to download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lib_vitface import media
from lib_vitface.errors import ViTFaceError
from lib_vitface.jobs import Job
from lib_vitface.ui import dialect
from lib_vitface.ui.runner import Runner

_PLAYABLE = {".mp4", ".webm", ".m4v"}


class Player:
    """Placed where it is made; hidden while there is nothing to show."""

    def __init__(self, prefix: str) -> None:
        self.video = gr.Video(label="Result", elem_id=f"{prefix}-video", visible=False, interactive=False)
        self.picture = dialect.picture("Result", f"{prefix}-picture", visible=False)
        self.file = gr.File(label="Download", elem_id=f"{prefix}-file", visible=False, interactive=False)
        self.components = [self.video, self.picture, self.file]

    def show(self, runner: Runner, job: Job | None) -> list[Any]:
        """Updates for `components`."""
        path = result_of(runner, job)
        if path is None:
            empty = dialect.update(value=None, visible=False)
            return [empty, empty, empty]
        video = path.suffix.lower() in _PLAYABLE
        picture = media.is_image(path)
        return [
            dialect.update(value=str(path) if video else None, visible=video),
            dialect.update(value=media.read_image(path) if picture else None, visible=picture),
            dialect.update(value=str(path), visible=True),
        ]


def result_of(runner: Runner, job: Job | None) -> Path | None:
    """The finished file of a job, where it has one and it is still there."""
    named = (job.result or {}).get("output") if job and job.state == "done" else None
    if not named:
        return None
    try:
        path = runner.site.resolve(named, runner.site.outputs, "output")
    except ViTFaceError:
        return None
    if path.is_dir():
        path = next(iter(sorted(path.glob("*.mp4"))), path)
    return path if path.is_file() else None
