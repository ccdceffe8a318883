"""Whether something is marked as synthetic, and what this machine can do."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gradio as gr

from lib_vitface import media
from lib_vitface.errors import ViTFaceError
from lib_vitface.provenance.settings import InspectOptions
from lib_vitface.tasks.settings import DoctorOptions
from lib_vitface.ui import dialect, form, markup, plots
from lib_vitface.ui.runner import Runner

HINT = "Drop any picture or video: the invisible mark in its pixels, manifest and statement in its file are looked for."
_PLOTTED = 60


def build(runner: Runner) -> None:
    """Places the tab."""
    with gr.Row():
        with gr.Column(scale=4):
            fields = form.build(runner.site, "inspect", InspectOptions, "vitface-inspect")
            run = gr.Button("Check", variant="primary", elem_id="vitface-inspect-run")
        with gr.Column(scale=5):
            said = gr.HTML(markup.message(HINT), elem_id="vitface-inspect-result")
            plot = gr.HTML("", elem_id="vitface-inspect-plot")
    with gr.Accordion("This machine", open=False, elem_id="vitface-doctor"):
        machine = form.build(runner.site, "doctor", DoctorOptions, "vitface-doctor")
        look = gr.Button("Look", elem_id="vitface-doctor-run")
        report = gr.HTML("", elem_id="vitface-doctor-result")
    fields.wire()

    def check(*values: Any) -> list[Any]:
        try:
            found = runner.run_now("inspect", fields.read(values))
        except ViTFaceError as error:
            return [markup.message(str(error), "bad"), ""]
        files = found["files"]
        return ["".join(verdict(one) for one in files), mark_plot(runner, Path(files[0]["file"]))]

    def doctor(*values: Any) -> str:
        try:
            found = runner.run_now("doctor", machine.read(values))
        except ViTFaceError as error:
            return markup.message(str(error), "bad")
        return markup.messages(found["problems"], "bad") + markup.table(markup.facts(found))

    dialect.on(run.click, check, fields.components, [said, plot])
    dialect.on(look.click, doctor, machine.components, [report])


def verdict(found: dict[str, Any]) -> str:
    """One file's answer and what it rests on."""
    name = Path(found["file"]).name
    if found["synthetic"]:
        whose = f", by consent of {found['consent_of']}" if found["consent_of"] else ""
        head = markup.message(f"{name}: marked as synthetic{whose}.", "good")
    else:
        head = markup.message(
            f"{name}: no mark, no manifest and no statement was found. It may still be synthetic.", "hint"
        )
    told = {
        "mark": found["mark"],
        **{name: found[name] or "none" for name in ("manifest", "statement", "signed_record")},
    }
    return head + markup.table(markup.facts(told))


def mark_plot(runner: Runner, path: Path) -> str:
    """How strongly single frames of a video carry the mark; empty for a picture."""
    from lib_vitface.provenance.keys import known_mark_key
    from lib_vitface.provenance.reading import read

    if not media.is_video(path):
        return ""
    info = media.probe(path)
    step = max(1, int(info.duration * info.fps) // _PLOTTED)
    key = known_mark_key(runner.site.workspace)
    times, scores = [], []
    for frame in itertools.islice(media.read_frames(path), 0, None, step):
        times.append(float(frame.time))
        scores.append(read([frame.image], key, search=False).score)
    return plots.lines({"mark": scores}, "Mark in single frames (standard deviations above chance)", "second", times)
