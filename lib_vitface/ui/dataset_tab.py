"""Consent, building a faceset, and looking through it: sort, filter, keep and remove, what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lib_vitface.errors import ViTFaceError
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.provenance.settings import ConsentOptions
from lib_vitface.ui import dialect, faces, form, markup
from lib_vitface.ui.panel import Panel
from lib_vitface.ui.runner import Runner

HINT = (
    "Drop clips and photos of one person, best from all sides and in different light, and press “Build”. Clips of 10 to 30 "
    "seconds in which the head turns slowly are ideal."
)
LIVE = (
    "Fill in the record above, show the prompts, and film yourself doing them one after the other, alone, in good light. Left and "
    "right are your own; the picture is not mirrored. Look straight between them, do nothing else, and keep your mouth shut except "
    "to read. The prompts hold for five minutes and for one try. It shows that you sat before the camera now, not who you are."
)
SEEN = "What was asked for is seen, in its order. The record is written."
NO_PROMPTS, NO_CLIP = "Show the prompts first.", "Film yourself first."
WHICH = ("kept", "removed", "all")
_COLUMNS, _HEIGHT = 5, 460


def build(runner: Runner) -> tuple[Panel, list[Any], Any]:
    """Places the tab; returns its panel, and the lists to renew when the tab is opened with the function that does."""
    with gr.Row():
        with gr.Column(scale=5):
            fields = form.build(runner.site, "faceset", FacesetOptions, "vitface-faceset")
            _camera(runner, fields)
            _consent(runner)
        with gr.Column(scale=4):
            panel = Panel(runner, fields, "Build", HINT)
            browser = Browser(runner)
    fields.wire()
    browser.wire()

    def details(job: Any) -> list[Any]:
        return [dialect.update(choices=runner.site.names("faceset"))]

    panel.wire(details, [browser.name])
    return panel, [browser.name], lambda: [dialect.update(choices=runner.site.names("faceset"))]


def _camera(runner: Runner, fields: form.Form) -> None:
    """Pictures and clips from the webcam, added to the inputs."""
    with gr.Accordion("Webcam", open=False, elem_id="vitface-faceset-camera"):
        camera = dialect.camera_button("vitface-faceset-camera-open")
        shot = dialect.webcam("Look straight, then turn slowly; take a picture at each step", "vitface-faceset-webcam")
        add = gr.Button("Add to the inputs", elem_id="vitface-faceset-webcam-add")
        clip = dialect.recorder("Or film yourself for 10 to 30 seconds", "vitface-faceset-film")
        add_clip = gr.Button("Add the clip to the inputs", elem_id="vitface-faceset-film-add")

    def keep(image: Any, text: str) -> Any:
        if image is None:
            raise gr.Error("Take a picture first.")
        path = faces.keep_picture(runner.site, image, "webcam")
        return dialect.update(value="\n".join([*(text or "").splitlines(), str(path)]))

    def keep_clip(film: str | None, text: str) -> Any:
        if not film:
            raise gr.Error(NO_CLIP)
        try:
            path = str(runner.site.keep_upload(Path(film)))
        except ViTFaceError as error:
            raise gr.Error(str(error)) from None
        return dialect.update(value="\n".join([*(text or "").splitlines(), path]))

    dialect.opens(camera, shot, clip)
    box = fields.component("input")
    dialect.on(add.click, keep, [shot, box], [box])
    dialect.on(add_clip.click, keep_clip, [clip, box], [box])


def _consent(runner: Runner) -> None:
    """The signed record of who agrees."""
    with gr.Accordion("Consent record", open=False, elem_id="vitface-consent"):
        gr.HTML(
            markup.message(
                "The record says whose face this is and what was agreed to; it is signed with a key that stays on this machine. "
                "Without one, you declare at training that it is your own face."
            )
        )
        fields = form.build(runner.site, "consent", ConsentOptions, "vitface-consent")
        run = gr.Button("Do it", elem_id="vitface-consent-run")
        said = gr.HTML("", elem_id="vitface-consent-result")
        live = Live(runner, fields)
    fields.wire()
    live.wire()

    def act(*values: Any) -> str:
        try:
            return markup.table(markup.facts(runner.run_now("consent", fields.read(values))))
        except ViTFaceError as error:
            return markup.message(str(error), "bad")

    dialect.on(run.click, act, fields.components, [said])


class Live:
    """A record whose reference is filmed here: prompts are shown, done before the camera, and checked."""

    def __init__(self, runner: Runner, fields: form.Form) -> None:
        self.runner = runner
        self.fields = fields
        with gr.Accordion("Live capture", open=False, elem_id="vitface-live"):
            gr.HTML(markup.message(LIVE))
            self.show = gr.Button("Show prompts", elem_id="vitface-live-show")
            self.prompts = gr.HTML("", elem_id="vitface-live-prompts")
            self.camera = dialect.camera_button("vitface-live-open")
            self.clip = dialect.recorder("Do the prompts in their order", "vitface-live-film")
            self.write = gr.Button("Check the clip and write the record", elem_id="vitface-live-write")
            self.said = gr.HTML("", elem_id="vitface-live-result")

    def wire(self) -> None:
        number = self.fields.component("challenge")
        dialect.opens(self.camera, self.clip)
        dialect.on(self.show.click, self._show, self.fields.components, [self.prompts, number, self.said])
        dialect.on(self.write.click, self._write, [self.clip, *self.fields.components], [self.said, number])

    def _show(self, *values: Any) -> list[Any]:
        asked = {**self.fields.read(values), "action": "challenge"}
        try:
            made = self.runner.run_now("consent", asked)
        except ViTFaceError as error:
            return ["", "", markup.message(str(error), "bad")]
        return [markup.prompts(made["prompts"]), made["challenge"], ""]

    def _write(self, film: str | None, *values: Any) -> list[Any]:
        """A clip that fails is deleted, and its challenge is used up."""
        asked = {**self.fields.read(values), "action": "write"}
        if not asked.get("challenge"):
            return [markup.message(NO_PROMPTS, "bad"), dialect.update()]
        if not film:
            return [markup.message(NO_CLIP, "bad"), dialect.update()]
        kept: Path | None = None
        try:
            kept = self.runner.site.keep_upload(Path(film))
            written = self.runner.run_now("consent", {**asked, "source": [str(kept)]})
        except ViTFaceError as error:
            if kept is not None:
                kept.unlink(missing_ok=True)
            return [markup.message(str(error), "bad"), dialect.update()]
        good = markup.message(SEEN, "good")
        return [good + markup.table(markup.facts(written)), ""]


class Browser:
    """The gallery of a faceset."""

    def __init__(self, runner: Runner) -> None:
        self.site = runner.site
        names = self.site.names("faceset")
        with gr.Row():
            self.name = gr.Dropdown(
                names, value=None, label="Look at the faceset", elem_id="vitface-gallery-name", scale=3
            )
            self.show = gr.Button("Show", elem_id="vitface-gallery-show", scale=1)
        with gr.Row():
            self.order = gr.Dropdown(list(faces.ORDERS), value="as found", label="Sort", elem_id="vitface-gallery-sort")
            self.only = gr.Radio(list(WHICH), value="kept", label="Which", elem_id="vitface-gallery-which")
        self.share = gr.Slider(
            5, 100, value=100, step=5, label="First part of the order (%)", elem_id="vitface-gallery-share"
        )
        self.page = gr.Slider(
            1, 2, value=1, step=1, label=f"Page of {faces.PAGE} faces", elem_id="vitface-gallery-page", visible=False
        )
        self.pictures = dialect.gallery("Click a face to remove or keep it", "vitface-gallery", _COLUMNS, _HEIGHT)
        self.said = gr.HTML(markup.message("Choose a faceset to see its faces."), elem_id="vitface-gallery-said")
        self.coverage = gr.HTML("", elem_id="vitface-gallery-coverage")
        self.ids = gr.State([])

    def wire(self) -> None:
        asked = [self.name, self.order, self.only, self.share, self.page]
        shown = [self.pictures, self.ids, self.page, self.said, self.coverage]
        dialect.on(self.show.click, self._look, asked, shown)
        for control in (self.name, self.order, self.only, self.share):
            dialect.on(control.change, self._first, asked[:-1], shown)
        dialect.on(self.page.release, self._look, asked, shown)

        def pick(event: gr.SelectData, ids: list[int], *values: Any) -> list[Any]:
            return self._toggle(event.index, ids, values)

        pick.__annotations__["event"] = gr.SelectData
        dialect.on(self.pictures.select, pick, [self.ids, *asked], shown)

    def _first(self, *values: Any) -> list[Any]:
        name, order, only, share = values
        return self._look(name, order, only, share, 1)

    def _look(self, name: str, order: str, only: str, share: float, page: float) -> list[Any]:
        if not name:
            return [[], [], dialect.update(), markup.message("Choose a faceset to see its faces."), ""]
        try:
            folder = self.site.resolve(name, self.site.facesets, "faceset")
            found = faces.look(folder, order, only, share, int(page or 1))
        except ViTFaceError as error:
            return [[], [], dialect.update(), markup.message(str(error), "bad"), ""]
        several = found.pages > 1
        at = min(int(page or 1), found.pages)
        pages = dialect.update(maximum=max(found.pages, 2), value=at, visible=several)
        return [found.pictures, found.ids, pages, found.said, found.coverage]

    def _toggle(self, index: Any, ids: list[int], values: Any) -> list[Any]:
        number = int(index[0] if isinstance(index, (list, tuple)) else index)
        try:
            folder = self.site.resolve(values[0] or "", self.site.facesets, "faceset")
            if 0 <= number < len(ids):
                faces.toggle(folder, ids[number])
        except ViTFaceError as error:
            raise gr.Error(str(error)) from None
        return self._look(*values)
