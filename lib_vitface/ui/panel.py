"""Start, stop and go on with the jobs of one task, and see how far they are."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from lib_vitface.errors import ViTFaceError
from lib_vitface.jobs import Job
from lib_vitface.ui import dialect, markup
from lib_vitface.ui.form import Form
from lib_vitface.ui.form import build as build_form
from lib_vitface.ui.runner import Runner, task_named, task_of

Details = Callable[[Job | None], list[Any]]
_SHOWN = 30
FIGURES = "All figures"


def no_details(job: Job | None) -> list[Any]:
    """For a task whose result is only a table."""
    return []


class Panel:
    """Placed where it is made. `details(job)` gives updates for the components handed to `wire`."""

    def __init__(self, runner: Runner, form: Form, start: str, hint: str) -> None:
        self.runner, self.form, self.task, self.hint = runner, form, form.task, hint
        name = f"vitface-{self.task}"
        jobs = self._choices()
        newest = next(iter(jobs), None)
        with gr.Column(elem_classes="vitface-panel", elem_id=f"{name}-panel"):
            with gr.Row():
                self.start = gr.Button(start, variant="primary", elem_id=f"{name}-start")
                self.stop = gr.Button("Stop", elem_id=f"{name}-stop")
                self.go_on = gr.Button("Go on", elem_id=f"{name}-go-on")
            self.job = gr.Dropdown(
                choices=jobs,
                value=newest,
                label="Job",
                elem_id=f"{name}-job",
                allow_custom_value=True,
            )
            self.progress = gr.HTML(self._shown(self._find(newest)), elem_id=f"{name}-progress")
            self.result = gr.HTML("", elem_id=f"{name}-outcome")
            with gr.Accordion("Log", open=False):
                self.log = gr.Textbox(
                    show_label=False, lines=8, max_lines=20, elem_id=f"{name}-log", interactive=False, container=False
                )
            self.poll = gr.Button("Refresh", elem_id=f"{name}-poll", elem_classes="vitface-poll")

    def wire(self, details: Details = no_details, components: Sequence[Any] = (), *, drawn: bool = False) -> None:
        """Connects the controls; `components` are updated by what `details` returns. `drawn`: they show the result, so that the table
        of all figures is folded."""
        self._details, self._drawn = details, drawn
        own = [self.progress, self.result, self.log]
        shown = [*own, *components]
        dialect.on(self.start.click, self._start, self.form.components, [self.job, *shown])
        dialect.on(self.stop.click, self._stop, [self.job], shown)
        dialect.on(self.go_on.click, self._resume, [self.job], shown)
        dialect.on(self.poll.click, self._look, [self.job], shown, quiet=True)
        dialect.on(self.job.change, self._look, [self.job], shown, quiet=True)
        self.shown = shown

    def refreshed(self) -> list[Any]:
        """For when the tab is opened: the list of jobs and the newest one's state."""
        jobs = self._choices()
        newest = next(iter(jobs), None)
        return [dialect.update(choices=jobs, value=newest), *self._look(newest)]

    def _start(self, *values: Any) -> list[Any]:
        try:
            job = self.runner.submit(self.task, self.form.read(values))
        except ViTFaceError as error:
            said = markup.message(self.form.in_words(str(error)), "bad")
            untouched = [dialect.update()] * (len(self.shown) - 1)
            return [dialect.update(), dialect.update(value=said), *untouched]
        return [dialect.update(choices=self._choices(), value=job.id), *self._look(job.id)]

    def _stop(self, job_id: str | None) -> list[Any]:
        return self._act(job_id, self.runner.cancel)

    def _resume(self, job_id: str | None) -> list[Any]:
        return self._act(job_id, self.runner.resume)

    def _act(self, job_id: str | None, act: Callable[[str], Job]) -> list[Any]:
        try:
            if job_id:
                act(job_id)
        except ViTFaceError as error:
            said = markup.message(str(error), "bad")
            return [dialect.update(value=said), *([dialect.update()] * (len(self.shown) - 1))]
        return self._look(job_id)

    def _look(self, job_id: str | None) -> list[Any]:
        """Updates of progress, result, log and details."""
        job = self._find(job_id)
        log = self.runner.log(job.id) if job else ""
        rows = markup.table(markup.facts(job.result)) if job and job.result else ""
        if rows and self._drawn:
            rows = markup.fold(FIGURES, rows)
        return [
            dialect.update(value=self._shown(job)),
            dialect.update(value=rows),
            dialect.update(value=log),
            *self._details(job),
        ]

    def _shown(self, job: Job | None) -> str:
        if job is None:
            return markup.message(self.hint)
        return markup.progress(dataclasses.replace(job, error=self.form.in_words(job.error or "")))

    def _find(self, job_id: str | None) -> Job | None:
        try:
            job = self.runner.get(job_id) if job_id else None
        except ViTFaceError:
            return None
        return job if job and task_of(job) == self.task else None

    def _choices(self) -> list[str]:
        return [job.id for job in self.runner.jobs(self.task)[:_SHOWN]]


def folded(runner: Runner, task: str, start: str, hint: str, told: Callable[[Job | None], str] | None = None) -> Panel:
    """A task that is seldom needed: its form and its jobs, behind a fold. `told` draws a job's result, below its facts."""
    with gr.Accordion(start, open=False, elem_id=f"vitface-{task}"):
        fields = build_form(runner.site, task, task_named(task).options, f"vitface-{task}")
        panel = Panel(runner, fields, start, hint)
        shown = [] if told is None else [gr.HTML("", elem_id=f"vitface-{task}-told")]
    fields.wire()
    if told is None:
        panel.wire()
    else:
        panel.wire(lambda job: [told(job)], shown, drawn=True)
    return panel


def queue_table(runner: Runner) -> str:
    """All jobs of the workspace."""
    rows = [
        (
            task_of(job),
            markup.state_of(job),
            f"{job.done / job.total:.0%}" if job.total else "–",
            markup.last_word(job),
            time.strftime("%d %b %H:%M", time.localtime(job.created)),
            job.id,
        )
        for job in runner.jobs()[:_SHOWN]
    ]
    if not rows:
        return markup.message("No job has been started yet.")
    return markup.table(rows, ("Task", "State", "Done", "Note", "Begun", "Job"))
