"""Swapping: whom to replace, how a single moment will look, and the queue."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np

from lib_vitface.errors import InputError, ViTFaceError
from lib_vitface.swap.settings import SwapOptions
from lib_vitface.types import Image
from lib_vitface.ui import dialect, faces, footage, form, markup, player
from lib_vitface.ui.panel import Panel, queue_table
from lib_vitface.ui.runner import Runner
from lib_vitface.ui.studio import Studio, picture_items

HINT = (
    "Choose a trained model, drop the footage, and press “Swap”. “Show” lists the people in it: click one to replace that "
    "person; “Try” shows this moment before and after."
)


def build(runner: Runner, studio: Studio) -> tuple[Panel, Any]:
    """Places the tab; returns its panel and the queue's table."""
    with gr.Row():
        with gr.Column(scale=5):
            fields = form.build(runner.site, "swap", SwapOptions, "vitface-swap")
        with gr.Column(scale=4):
            moment = Moment(runner, studio, fields)
            panel = Panel(runner, fields, "Swap", HINT)
            shown = player.Player("vitface-swap")
            with gr.Accordion("Queue", open=False, elem_id="vitface-queue"):
                queue = gr.HTML(queue_table(runner), elem_id="vitface-queue-table")
    fields.wire()
    moment.wire()

    def details(job: Any) -> list[Any]:
        return [queue_table(runner), *shown.show(runner, job)]

    panel.wire(details, [queue, *shown.components], drawn=True)
    return panel, queue


class Moment:
    """One frame of the footage: its people, and how it will look."""

    def __init__(self, runner: Runner, studio: Studio, fields: form.Form) -> None:
        self.site, self.studio, self.fields = runner.site, studio, fields
        self.time = gr.Slider(0, 100, value=0, step=0.5, label="Moment of the footage (%)", elem_id="vitface-moment")
        with gr.Row():
            self.show = gr.Button("Show", elem_id="vitface-moment-show")
            self.attempt = gr.Button("Try", elem_id="vitface-moment-try")
        self.frame = dialect.picture("Click the person to replace", "vitface-moment-frame", height=320)
        self.compare = gr.HTML("", elem_id="vitface-moment-compare")
        self.said = gr.HTML("", elem_id="vitface-moment-said")
        self.image = gr.State(None)

    def wire(self) -> None:
        names = ("input", "detector", "face", "face_picture")
        source, detector, people, picture = (self.fields.component(name) for name in names)
        for event in (self.show.click, self.time.release):
            dialect.on(event, self._show, [source, self.time, detector], [self.frame, self.image, self.said])
        dialect.on(self.attempt.click, self._try, [self.time, *self.fields.components], [self.compare, self.said])

        def pick(event: gr.SelectData, image: Any, detector: str) -> list[Any]:
            return self._pick(event.index, image, detector)

        pick.__annotations__["event"] = gr.SelectData
        dialect.on(self.frame.select, pick, [self.image, detector], [people, picture, self.said])

    def _show(self, source: str, share: float, detector: str) -> list[Any]:
        try:
            image = self._frame(source, share)
            found = self.studio.faces(image, detector)
        except ViTFaceError as error:
            return [dialect.update(), dialect.update(), markup.message(str(error), "bad")]
        said = f"{len(found)} faces, numbered from the left." if len(found) != 1 else "One face."
        return [
            footage.marked(image, found),
            image,
            markup.message(said if found else "No face here; choose another moment."),
        ]

    def _frame(self, source: str, share: float) -> Image:
        if not source:
            raise InputError("Name or drop the footage first.")
        return footage.frame_at(self.site.find(source, self.site.uploads, "Input"), share / 100)

    def _pick(self, place: Any, image: Any, detector: str) -> list[Any]:
        if image is None:
            raise gr.Error("Press “Show” first.")
        image = np.asarray(image, np.uint8)
        face = footage.face_at(self.studio.faces(image, detector), float(place[0]), float(place[1]))
        if face is None:
            return [dialect.update(), dialect.update(), markup.message("There is no face at this place; click on one.")]
        path = faces.keep_picture(self.site, footage.cut_out(image, face), "person")
        said = markup.message("This person is replaced wherever they appear.", "good")
        return [dialect.update(value="picture"), dialect.update(value=str(path)), said]

    def _try(self, share: float, *values: Any) -> list[Any]:
        given = self.fields.read(values)
        known = {item.name for item in picture_items()}
        try:
            image = self._frame(given.get("input", ""), share)
            result = self.studio.swap(image, {k: v for k, v in given.items() if k in known})
        except ViTFaceError as error:
            return [dialect.update(), markup.message(str(error), "bad")]
        return [markup.before_after(image, result.image), ""]
