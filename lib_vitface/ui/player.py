"""The result of a job: a video with sound or a picture, and the file to download; or a folder's pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from lib_vitface import media
from lib_vitface.errors import ViTFaceError
from lib_vitface.jobs import Job
from lib_vitface.ui import dialect, markup
from lib_vitface.ui.runner import Runner

GONE = "The result is no longer there, or lies in a folder that this page may not show."
_PLAYABLE = {".mp4", ".webm", ".m4v"}
_MOST = 48  # pictures of a folder that are shown
_COLUMNS, _HEIGHT = 3, 480


class Player:
    """Placed where it is made; hidden while there is nothing to show."""

    def __init__(self, prefix: str) -> None:
        self.video = gr.Video(label="Result", elem_id=f"{prefix}-video", visible=False, interactive=False)
        self.picture = dialect.picture("Result", f"{prefix}-picture", visible=False)
        self.file = gr.File(label="Download", elem_id=f"{prefix}-file", visible=False, interactive=False)
        self.pictures = dialect.gallery("Result", f"{prefix}-pictures", _COLUMNS, _HEIGHT, preview=True, visible=False)
        self.said = gr.HTML("", elem_id=f"{prefix}-pictures-said", visible=False)
        self.components = [self.video, self.picture, self.file, self.pictures, self.said]

    def show(self, runner: Runner, job: Job | None) -> list[Any]:
        """Updates for `components`."""
        hidden = dialect.update(value=None, visible=False)
        path = result_of(runner, job)
        if path is None:
            gone = markup.message(GONE) if job and job.state == "done" else None
            return [*[hidden] * (len(self.components) - 1), dialect.update(value=gone, visible=gone is not None)]
        if path.is_dir():
            return [hidden, hidden, hidden, *_folder(path, (job and job.result) or {})]
        video = path.suffix.lower() in _PLAYABLE
        picture = media.is_image(path)
        return [
            dialect.update(value=str(path) if video else None, visible=video),
            dialect.update(value=media.read_image(path) if picture else None, visible=picture),
            dialect.update(value=str(path), visible=True),
            hidden,
            hidden,
        ]


def _folder(folder: Path, facts: Mapping[str, Any]) -> list[Any]:
    """Updates for the gallery of a folder, which shows the files themselves with their marks and statements, and for what is said."""
    found: list[Path] = []
    with contextlib.suppress(ViTFaceError):  # somebody has emptied it
        found = [path for path in media.list_media([folder]) if media.is_image(path)]
    shown = [(str(path), str(path.relative_to(folder))) for path in found[:_MOST]]
    said = f"Pictures in {folder}: {len(found)}"
    said += f", of which the first {_MOST} are shown." if len(found) > _MOST else "."
    if left_out := len(facts.get("without_face", [])):
        said += f" Left out, as the face to replace was not found: {left_out}."
    return [dialect.update(value=shown, visible=bool(shown)), dialect.update(value=markup.message(said), visible=True)]


def result_of(runner: Runner, job: Job | None) -> Path | None:
    """The finished file of a job, or its folder, where it has one and it is still there."""
    named = (job.result or {}).get("output") if job and job.state == "done" else None
    if not named:
        return None
    try:
        path = runner.site.resolve(named, runner.site.outputs, "output")
    except ViTFaceError:
        return None
    if path.is_dir():
        path = next(iter(sorted(path.glob("*.mp4"))), path)
    return path if path.exists() else None
