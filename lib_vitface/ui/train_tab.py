"""Training: what it will take, the loss as it falls, and pictures of how far it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lib_vitface import media
from lib_vitface.errors import ViTFaceError
from lib_vitface.training.settings import TrainOptions
from lib_vitface.ui import dialect, form, history, markup
from lib_vitface.ui.panel import Panel, folded
from lib_vitface.ui.runner import Runner

HINT = (
    "Choose the faceset of the face that is put in (source) and the one of the person in the footage (target), give the model a "
    "name, and press “Train”. It can be stopped at any time; training the same model again goes on where it was."
)


PRETRAIN_HINT = (
    "Learns from a folder with a folder for each person what holds for all of them. A training of the same preset can start from the "
    "base it makes."
)
ROWS = "Rows: target, redrawn as itself, with the source's face, mask"
EXPORT_HINT = "Makes a folder of the model that swaps without PyTorch: choose it in the Swap tab like any other model."


def build(runner: Runner) -> list[Panel]:
    """Places the tab; returns the panels of training, of export and of pretraining."""
    site = runner.site
    with gr.Row():
        with gr.Column(scale=5):
            fields = form.build(site, "train", TrainOptions, "vitface-train")
            with gr.Row():
                ask = gr.Button("What will it take?", elem_id="vitface-train-estimate")
            estimate = gr.HTML("", elem_id="vitface-train-estimate-said")
        with gr.Column(scale=4):
            panel = Panel(runner, fields, "Train", HINT)
            plot = gr.HTML("", elem_id="vitface-train-loss")
            picture = dialect.picture("Preview", "vitface-train-preview", visible=False)
            # not as its label, which would cover faces
            rows = gr.HTML(markup.message(ROWS), visible=False, elem_id="vitface-train-preview-rows")
            moment = gr.Slider(
                1, 2, value=1, step=1, label="Earlier previews", elem_id="vitface-train-moment", visible=False
            )
    fields.wire()
    export = folded(runner, "export", "Export", EXPORT_HINT)
    pretrain = folded(runner, "pretrain", "Pretrain", PRETRAIN_HINT)

    def details(job: Any) -> list[Any]:
        folder = Path(job.options["model"]) if job else None
        previews = history.previews(folder) if folder else []
        shown = media.read_image(previews[-1]) if previews else None
        count = max(len(previews), 2)
        slider = dialect.update(maximum=count, value=count, visible=len(previews) > 1)
        return [
            history.loss_plot(folder) if folder else "",
            dialect.update(value=shown, visible=bool(previews)),
            dialect.update(visible=bool(previews)),
            slider,
        ]

    def earlier(job_id: str | None, number: float) -> Any:
        try:
            folder = Path(runner.get(job_id or "").options["model"])
        except ViTFaceError:
            return dialect.update()
        previews = history.previews(folder)
        place = min(max(int(number), 1), len(previews)) - 1
        return dialect.update(value=media.read_image(previews[place]) if previews else None)

    def take(*values: Any) -> str:
        try:
            return history.estimate(runner, fields.read(values))
        except ViTFaceError as error:
            return markup.message(str(error), "bad")

    panel.wire(details, [plot, picture, rows, moment], drawn=True)
    dialect.on(moment.release, earlier, [panel.job, moment], [picture])
    dialect.on(ask.click, take, fields.components, [estimate])
    return [panel, export, pretrain]
