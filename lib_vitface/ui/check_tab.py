"""Whether something is marked as synthetic, and what this machine can do."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from lib_vitface import media
from lib_vitface.errors import ViTFaceError
from lib_vitface.provenance.settings import InspectOptions
from lib_vitface.tasks.settings import DoctorOptions
from lib_vitface.types import Image
from lib_vitface.ui import dialect, form, markup, plots
from lib_vitface.ui.runner import Runner

HINT = (
    "Drop any picture or video: the invisible mark in its pixels, manifest and statement in its file are looked for, and faces are "
    "scored for traces of a swap where the detector was trained."
)
_PLOTTED = 60
PLOT = "Traces of a swapped face in single frames (0 to 1)"
HEAT = "Frame with the highest score; the redder, the more it looks like a swap there."
MARKED = "marked as synthetic."
UNMARKED = "no mark, no manifest and no statement was found; it may still be synthetic."
DAMAGED = "its signed record cannot be read; what it said of the files is lost."
EDITED = "its signed record was edited after it was signed; what it says of the files proves nothing."
HEAD = ("File", "Synthetic", "Mark", "Manifest", "File’s statement", "Consent of")
_NAMED = 20  # files named in a row, and files whose facts are listed
_OF_NO_MARK = ("present", "score", "false_alarm", "frames_used")
_TOLD = ("lowest", "median", "highest", "real_in_100_at_median", "real_in_100_at_highest")


def build(runner: Runner) -> None:
    """Places the tab."""
    with gr.Row():
        with gr.Column(scale=4):
            fields = form.build(runner.site, "inspect", InspectOptions, "vitface-inspect")
            run = gr.Button("Check", variant="primary", elem_id="vitface-inspect-run")
        with gr.Column(scale=5):
            said = gr.HTML(markup.message(HINT), elem_id="vitface-inspect-result")
            plot = gr.HTML("", elem_id="vitface-inspect-plot")
            traces = gr.HTML("", elem_id="vitface-inspect-scores")
    with gr.Accordion("This machine", open=False, elem_id="vitface-doctor"):
        machine = form.build(runner.site, "doctor", DoctorOptions, "vitface-doctor")
        look = gr.Button("Look", elem_id="vitface-doctor-run")
        report = gr.HTML("", elem_id="vitface-doctor-result")
    fields.wire()

    def check(*values: Any) -> list[Any]:
        try:
            found = runner.run_now("inspect", fields.read(values))
        except ViTFaceError as error:
            return [markup.message(str(error), "bad"), "", ""]
        files = found["files"]
        first = Path(files[0]["file"])
        shown = traces_of(first) if files[0]["detector"]["frames"] else ""
        told = [folder_verdict(one) for one in found["folders"]] + [verdicts(files)]
        return [markup.message(found["audit_log"]["problem"], "bad") + "".join(told), mark_plot(runner, first), shown]

    def doctor(*values: Any) -> str:
        try:
            found = runner.run_now("doctor", machine.read(values))
        except ViTFaceError as error:
            return markup.message(str(error), "bad")
        return markup.messages(found["problems"], "bad") + markup.table(markup.facts(found))

    dialect.on(run.click, check, fields.components, [said, plot, traces])
    dialect.on(look.click, doctor, machine.components, [report])


def verdicts(files: Sequence[dict[str, Any]]) -> str:
    """One file in full; several in a table, and the first of them in full behind folds."""
    if len(files) == 1:
        return verdict(files[0])
    names, rows = _short_names([Path(one["file"]) for one in files]), []
    for name, one in zip(names, files, strict=True):
        found = (one["synthetic"], one["mark"]["present"] or one["other_generator"])
        state = (one["manifest"] or {}).get("state")
        rows.append((name, *map(_tick, found), state, _tick(one["statement"]), one["consent_of"]))
    count = sum(one["synthetic"] for one in files)
    tone = "good" if count == len(files) else "hint"
    folds = (markup.fold(name, verdict(one)) for name, one in zip(names[:_NAMED], files, strict=False))
    head = markup.message(f"{count} of {len(files)} files are marked as synthetic.", tone)
    return head + markup.table(rows, HEAD) + "".join(folds)


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Paths from the folder that holds them all."""
    try:
        above = os.path.commonpath([path.parent for path in paths])
    except ValueError:  # on several drives
        return [str(path) for path in paths]
    return [str(path.relative_to(above)) for path in paths]


def _tick(found: Any) -> str:
    return "✓" if found else "–"


def verdict(found: dict[str, Any]) -> str:
    """One file's answer and what it rests on: the mark, what the file says of itself, and last the detector's hint."""
    name = Path(found["file"]).name
    if found["synthetic"]:
        whose = f"marked as synthetic, by consent of {found['consent_of']}."
        head = markup.message(whose if found["consent_of"] else MARKED, "good", about=name)
    else:
        head = markup.message(UNMARKED, about=name)
    mark = found["mark"]
    told = {
        # how an absent mark lies is chance
        "mark": mark if mark["present"] else {name: mark[name] for name in _OF_NO_MARK},
        **{name: found[name] or "none" for name in ("other_generator", "manifest", "statement", "signed_record")},
    }
    hint = found["detector"]
    told["detector"] = {name: hint[name] for name in _TOLD if hint[name] is not None} or "nothing was scored"
    return head + markup.table(markup.facts(told)) + markup.message(hint["said"])


def folder_verdict(found: dict[str, Any]) -> str:
    """What the signed record of a folder says of its files."""
    name = Path(found["folder"]).name
    if found["state"] == "damaged":
        return markup.message(DAMAGED, "bad", about=name)
    told = {part: _first(found[part]) for part in ("changed", "missing", "added")}
    told |= {"statement": found["statement"], "made_from": found["made_from"] or "none"}
    return markup.message(*_said_of(found), about=name) + markup.table(markup.facts(told))


def _said_of(found: dict[str, Any]) -> tuple[str, str]:
    """The sentence about a folder whose record can be read, and its tone."""
    if not found["signed"]:
        return EDITED, "bad"
    if found["state"] != "valid":
        counts = ", ".join(f"{len(found[part])} {part}" for part in ("changed", "missing", "added"))
        return f"its files are not as they were signed: {counts}.", "bad"
    whole = f"all {found['files']} files are as they were signed"
    if not found["own_key"]:
        return f"{whole}, though not with this workspace's key; anybody can sign with a key of their own.", "hint"
    return f"{whole}, with this workspace's key.", "good"


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more or "none"


def mark_plot(runner: Runner, path: Path) -> str:
    """How strongly single frames of a video carry the mark; empty for a picture."""
    from lib_vitface.provenance.keys import known_mark_key
    from lib_vitface.provenance.reading import read

    if not media.is_video(path):
        return ""
    key = known_mark_key(runner.site.workspace)
    times, scores = [], []
    for time_s, image in _spread(path):
        times.append(time_s)
        scores.append(read([image], key, search=False).score)
    return plots.lines({"mark": scores}, "Mark in single frames (standard deviations above chance)", "second", times)


def traces_of(path: Path) -> str:
    """The detector's score of single frames as a plot (of a video), and the heat map over the frame that scores highest."""
    from lib_vitface.provenance.detector import NO_PROOF, SwapDetector, overlay

    detector, found = SwapDetector(), []
    highest: tuple[float, str] = (-math.inf, "")
    for time_s, image in _spread(path):
        one = detector.look(image, time_s)
        if one is None:
            continue
        found.append(one)
        if one.logit > highest[0]:
            highest = (one.logit, markup.data_url(overlay(image, one), 640))
    if not found:
        return ""
    times, scores = [one.time_s for one in found], [one.score for one in found]
    plot = plots.lines({"score": scores}, PLOT, "second", times, limits=(0.0, 1.0)) if len(found) > 1 else ""
    picture = f'<img class="vitface-heat" src="{highest[1]}" alt="{HEAT}">'
    return plot + picture + markup.message(HEAT) + markup.message(NO_PROOF)


def _spread(path: Path) -> Iterator[tuple[float, Image]]:
    """The picture, or about `_PLOTTED` frames over the whole video, with their times in seconds."""
    if not media.is_video(path):
        yield 0.0, media.read_image(path)
        return
    info = media.probe(path)
    step = max(1, int(info.duration * info.fps) // _PLOTTED)
    yield from ((float(frame.time), frame.image) for frame in itertools.islice(media.read_frames(path), 0, None, step))
