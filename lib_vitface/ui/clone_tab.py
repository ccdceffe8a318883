"""All steps in one: clips of a person, footage, and the finished video."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_vitface.tasks.settings import CloneOptions
from lib_vitface.ui import form, player
from lib_vitface.ui.panel import Panel
from lib_vitface.ui.runner import Runner

HINT = (
    "Drop clips or photos of yourself on the left, the footage below it, and press “Clone”. Facesets, training, swapping and "
    "measuring follow by themselves; on a processor alone it takes half an hour, and can be stopped and gone on with."
)


def build(runner: Runner) -> Panel:
    """Places the tab."""
    with gr.Row():
        with gr.Column(scale=5):
            fields = form.build(runner.site, "clone", CloneOptions, "vitface-clone")
        with gr.Column(scale=4):
            panel = Panel(runner, fields, "Clone", HINT)
            shown = player.Player("vitface-clone")
    fields.wire()

    def details(job: Any) -> list[Any]:
        return shown.show(runner, job)

    panel.wire(details, shown.components, drawn=True)
    return panel
