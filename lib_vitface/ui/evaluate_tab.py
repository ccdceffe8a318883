"""Measuring a result, and judging two of them without knowing which is which."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from lib_vitface.errors import ViTFaceError
from lib_vitface.jobs import Job
from lib_vitface.metrics.settings import EvaluateOptions
from lib_vitface.ui import blind, dialect, form, markup, plots
from lib_vitface.ui.panel import Panel, folded
from lib_vitface.ui.runner import Runner

HINT = (
    "Name the source (a faceset or clips), the footage before and after, and press “Measure”: whose face it is, how true it is to "
    "the footage, and how steady."
)
BENCHMARK_HINT = (
    "Trains models of several kinds equally long on the same footage and measures them where they have not looked."
)
_CURVES = {"source_cosine": "to the source", "target_cosine": "to the target"}


class MeasureForm(form.Form):
    """Always writes figures and report, so that they can be shown; a name is made up where none is given."""

    def read(self, values: Sequence[Any]) -> dict[str, Any]:
        found = super().read(values)
        stamp = time.strftime("%Y%m%d-%H%M%S")
        found.setdefault("json", f"evaluate-{stamp}.json")
        found.setdefault("report", f"evaluate-{stamp}.html")
        return found


def build(runner: Runner) -> list[Panel]:
    """Places the tab; returns the panels of measuring and of the benchmark."""
    with gr.Row():
        with gr.Column(scale=5):
            fields = MeasureForm(runner.site, "evaluate", "vitface-evaluate")
            form.build_items(fields, form.options.declared(EvaluateOptions))
        with gr.Column(scale=4):
            panel = Panel(runner, fields, "Measure", HINT)
            curves = gr.HTML("", elem_id="vitface-evaluate-curves")
            report = gr.File(label="Report", elem_id="vitface-evaluate-report-file", visible=False, interactive=False)
    with gr.Accordion("Blind comparison", open=False, elem_id="vitface-blind"):
        _blind(runner)
    benchmark = folded(runner, "benchmark", "Benchmark", BENCHMARK_HINT, compared)
    fields.wire()

    def details(job: Any) -> list[Any]:
        if job is None or job.state != "done":
            return ["", dialect.update(value=None, visible=False)]
        path = Path(job.options.get("report") or "")
        return [curves_of(job), dialect.update(value=str(path) if path.is_file() else None, visible=path.is_file())]

    panel.wire(details, [curves, report], drawn=True)
    return [panel, benchmark]


def curves_of(job: Any) -> str:
    """Aims and curves of a finished measurement."""
    rows = [
        (aim.get("name", aim.get("figure", "")), aim.get("value"), aim.get("aim"), aim.get("met"))
        for aim in (job.result or {}).get("aims", [])
    ]
    shown = markup.table(rows, ("Figure", "Measured", "Aim", "Met")) if rows else ""
    try:
        frames = json.loads(Path(job.options["json"]).read_text(encoding="utf-8"))["per_frame"]
    except (OSError, ValueError, KeyError, TypeError):
        return shown
    series = {
        label: [float("nan") if v is None else float(v) for v in frames[name]]
        for name, label in _CURVES.items()
        if name in frames
    }
    return shown + plots.lines(series, "Likeness over time (cosine)", "second", frames.get("time_s"))


def compared(job: Job | None) -> str:
    """The models of a finished benchmark in a table, and why the videos of some are withheld."""
    from lib_vitface.tasks.benchmark import COLUMNS, value_of, withheld

    models = (job.result or {}).get("models", {}) if job and job.state == "done" else {}
    if not models:
        return ""
    rows = [(name, *(value_of(row, column) for column in COLUMNS)) for name, row in models.items()]
    reasons = {name: reason for name, row in models.items() if (reason := withheld(row))}
    said = (markup.message(f"its video is withheld: {why}", "bad", about=name) for name, why in reasons.items())
    return markup.table(rows, ("Model", *COLUMNS)) + "".join(said)


def _blind(runner: Runner) -> None:
    """Two results of the same footage side by side, in random order."""
    gr.HTML(markup.message("Name two results of the same footage. Sides are drawn by chance and told after the vote."))
    with gr.Row():
        one = gr.Textbox(label="First result", elem_id="vitface-blind-one")
        two = gr.Textbox(label="Second result", elem_id="vitface-blind-two")
    draw = gr.Button("Draw a moment", elem_id="vitface-blind-draw")
    with gr.Row():
        left = dialect.picture("Left", "vitface-blind-left", height=300)
        right = dialect.picture("Right", "vitface-blind-right", height=300)
    with gr.Row():
        votes = [
            gr.Button(text, elem_id=f"vitface-blind-{name}")
            for name, text in (
                ("vote-left", "Left is better"),
                ("vote-tie", "No difference"),
                ("vote-right", "Right is better"),
            )
        ]
    said = gr.HTML(blind.tally(runner.site), elem_id="vitface-blind-said")
    pair = gr.State(None)

    def show(first: str, second: str) -> list[Any]:
        try:
            found = blind.draw(runner.site, first, second)
        except ViTFaceError as error:
            return [dialect.update(), dialect.update(), None, markup.message(str(error), "bad")]
        return [found.left, found.right, found.key, blind.tally(runner.site)]

    def voter(choice: str) -> Any:
        def vote(key: Any) -> list[Any]:
            try:
                return [None, blind.vote(runner.site, key, choice)]
            except ViTFaceError as error:
                return [None, markup.message(str(error), "bad")]

        return vote

    dialect.on(draw.click, show, [one, two], [left, right, pair, said])
    for button, choice in zip(votes, ("left", "tie", "right"), strict=True):
        dialect.on(button.click, voter(choice), [pair], [pair, said])
