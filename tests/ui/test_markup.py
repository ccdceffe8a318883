"""Pieces of HTML: nothing of a person's text becomes markup, and plots survive odd numbers."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from lib_vitface.jobs import Job
from lib_vitface.ui import markup, plots

EVIL = "<script>alert(1)</script>"


def job(state: str, **values: object) -> Job:
    base = {"id": "run-swap-1", "kind": "run-swap", "options": {}, "state": state, "folder": Path(), "created": 0.0}
    base |= {"updated": 50.0, "pid": 1, "done": 25.0, "total": 100.0, "note": EVIL, "result": None, "error": None}
    base |= {"stop_requested": False, "interrupted": False}
    return Job(**{**base, **values})  # type: ignore[arg-type]


def test_text_is_escaped() -> None:
    pieces = [
        markup.message(EVIL),
        markup.progress(job("failed", error=EVIL)),
        markup.table([(EVIL, 1)], (EVIL, "x")),
        plots.lines({EVIL: [1, 2]}, EVIL, EVIL),
    ]
    for piece in pieces:
        assert "<script>" not in piece
        assert "&lt;script&gt;" in piece


def test_a_done_job_is_at_nothing_and_a_failed_one_says_why() -> None:
    assert "joining" in markup.progress(job("running", note="joining"))
    assert "joining" not in markup.progress(job("done", note="joining"))
    assert markup.last_word(job("failed", note="joining", error="The disk is full.")) == "The disk is full."
    assert markup.last_word(job("stopped", note="joining")) == "joining"


def test_progress_tells_state_share_and_what_is_left() -> None:
    running = markup.progress(job("running"))
    assert "vitface-live" in running
    assert "25%" in running
    assert "2 min left" in running or "150 s left" in running
    assert "vitface-live" not in markup.progress(job("done"))
    assert "interrupted" in markup.progress(job("running", interrupted=True))
    assert "stopping" in markup.progress(job("running", stop_requested=True))


def test_times_are_said_as_people_do() -> None:
    assert [markup.seconds(s) for s in (12, 600, 9000)] == ["12 s", "10 min", "2.5 h"]


def test_facts_flatten_nested_results() -> None:
    found = markup.facts({"a": {"b_c": 1}, "files": [{"x": True}, {"x": None}], "list": [1, 2]})
    assert found == [("a · b c", 1), ("files 1 · x", True), ("files 2 · x", None), ("list", [1, 2])]
    assert [markup.text_of(v) for v in (None, True, 0.12345, [], [1, 2])] == ["–", "yes", "0.1235", "–", "1, 2"]


def test_lines_is_valid_svg_for_odd_numbers() -> None:
    assert plots.lines({}, "t", "x") == ""
    assert plots.lines({"a": [math.nan, math.inf]}, "t", "x") == ""
    for values in ([5.0], [1.0, 1.0, 1.0], [1.0, math.nan, 3.0], list(np.random.default_rng(0).normal(size=500))):
        figure = plots.lines({"a": values, "b": values[:1]}, "title", "x")
        ElementTree.fromstring(figure)
        assert "nan" not in figure
        assert "inf" not in figure


def test_thinning_keeps_means() -> None:
    places, means = plots.thin([float(v) for v in range(1000)], 10)
    assert len(places) == len(means) == 10
    assert means[0] == 49.5
    assert places == means


def test_before_after_holds_both_pictures() -> None:
    shown = markup.before_after(np.zeros((20, 30, 3), np.uint8), np.full((20, 30, 3), 255, np.uint8))
    assert shown.count("data:image/jpeg;base64,") == 2
    assert 'type="range"' in shown
