"""Pieces of HTML: progress, tables, messages, the before/after slider. Colours come from style.css, for light and dark themes."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import cv2
import numpy as np

from lib_vitface.jobs import Job
from lib_vitface.types import Image

STATES = {
    "queued": "waiting",
    "running": "running",
    "done": "done",
    "failed": "failed",
    "stopped": "stopped",
    "interrupted": "interrupted",
}


def message(text: str, kind: str = "hint", about: str = "") -> str:
    """A sentence: `hint`, `good` or `bad`. `about` names in front what it is said of; the page translates the sentence alone."""
    name = f"<b>{escape(about)}:</b> <span>" if about else ""
    return (
        f'<div class="vitface-message vitface-{kind}">{name}{escape(text)}{"</span>" if name else ""}</div>'
        if text
        else ""
    )


def fold(title: str, html: str) -> str:
    """Something that is opened by a click on its title."""
    return f'<details class="vitface-fold"><summary>{escape(title)}</summary>{html}</details>'


def prompts(texts: Sequence[str]) -> str:
    """What is to be done, in order, to be read from a distance; what stands behind a colon stands out."""
    rows = []
    for text in texts:
        words, _, rest = text.partition(": ")
        rows.append(f"<li><span>{escape(words)}</span>{f' <b>{escape(rest)}</b>' if rest else ''}</li>")
    return f'<ol class="vitface-prompts">{"".join(rows)}</ol>'


def messages(texts: Iterable[str], kind: str = "hint") -> str:
    return "".join(message(text, kind) for text in texts)


def state_of(job: Job) -> str:
    return "interrupted" if job.interrupted else job.state


def last_word(job: Job) -> str:
    """What a job says of itself: why it failed, else what it is at; nothing once it is done."""
    return {"done": "", "failed": job.error or job.note}.get(state_of(job), job.note)


def progress(job: Job | None) -> str:
    """How far a job is. While it lives, the page asks again (class `vitface-live`)."""
    if job is None:
        return ""
    state = state_of(job)
    share = 1.0 if state == "done" else min(job.done / job.total, 1.0) if job.total else 0.0
    live = " vitface-live" if state in {"queued", "running"} else ""
    note = "stopping …" if job.stop_requested and state == "running" else "" if state == "done" else job.note
    left = f" · about {seconds(_left(job, share))} left" if live and share > 0.03 else ""
    head = f'<span class="vitface-state vitface-state-{state}">{STATES[state]}</span> {share:.0%} {escape(note)}{left}'
    bar = f'<div class="vitface-bar"><div style="width:{100 * share:.1f}%"></div></div>'
    return f'<div class="vitface-progress{live}" role="status" data-job="{escape(job.id)}">{head}{bar}</div>' + message(
        job.error or "", "bad" if state == "failed" else "hint"
    )


def _left(job: Job, share: float) -> float:
    return max(job.updated - job.created, 0.0) / share * (1 - share)


def seconds(value: float) -> str:
    """A length of time as a person says it."""
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def table(rows: Sequence[Sequence[Any]], head: Sequence[str] = ()) -> str:
    """A table; values that are numbers stand to the right."""
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    top = "<thead><tr>" + "".join(f"<th>{escape(name)}</th>" for name in head) + "</tr></thead>" if head else ""
    return f'<div class="vitface-scroll"><table class="vitface-table">{top}<tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"<td{' class=vitface-number' if number else ''}>{escape(text_of(value))}</td>"


def text_of(value: Any) -> str:
    """A JSON value as a person reads it."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        texts = [text_of(one) for one in value]
        return (" " if all(text.endswith(".") for text in texts) else ", ").join(texts) or "–"  # sentences, or words
    return str(value)


def facts(values: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested JSON, each with its way as a name."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        label = f"{above}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            found += facts(value, f"{label} · ")
        elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            for number, one in enumerate(value[:20]):
                found += facts(one, f"{label} {number + 1} · ") if isinstance(one, Mapping) else [(label, one)]
        else:
            found.append((label, value))
    return found


def data_url(image: Image, largest: int = 1280) -> str:
    """A picture to stand in a page, as JPEG; larger ones are shrunk."""
    scale = largest / max(image.shape[:2])
    if scale < 1:
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")


def before_after(before: Image, after: Image) -> str:
    """Two pictures, one over the other, and a handle between them (javascript/vitface.js moves it; keys do too)."""
    one, two = data_url(before), data_url(after)
    return (
        '<div class="vitface-slider" style="--cut:50%">'
        f'<img src="{one}" alt="before"><img class="vitface-after" src="{two}" alt="after">'
        '<input type="range" min="0" max="100" value="50" aria-label="before and after">'
        '<span class="vitface-tag vitface-tag-before">before</span><span class="vitface-tag vitface-tag-after">after</span></div>'
    )
