"""The live capture of the Dataset tab, its buttons called as gradio would call them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio", reason="gradio is not installed (requirements-ui.txt)")

from lib_vitface.errors import ConsentError  # noqa: E402
from lib_vitface.provenance.settings import ConsentOptions  # noqa: E402
from lib_vitface.ui import dataset_tab, dialect, form, markup  # noqa: E402
from lib_vitface.ui.dataset_tab import Live  # noqa: E402
from lib_vitface.ui.runner import Runner  # noqa: E402
from lib_vitface.ui.site import Site  # noqa: E402


@pytest.fixture
def live(tmp_path: Path) -> Live:
    runner = Runner(Site(tmp_path / "w", tmp_path / "out"))
    with gr.Blocks():
        made = Live(runner, form.build(runner.site, "consent", ConsentOptions, "c"))
        made.wire()
    return made


def values(live: Live, **given: Any) -> list[Any]:
    return [given.get(i.name, i.default if i.type is bool else None) for i in live.fields.items]


def film(tmp_path: Path) -> Path:
    path = tmp_path / "recorded.webm"
    path.write_bytes(b"a clip")
    return path


def test_prompts_are_shown_with_their_number(live: Live) -> None:
    shown, number, said = live._show(*values(live))
    assert said == "" and len(number) == 16
    assert shown.count("<li>") == 5 and shown.count("<b>") == 1, "the digits stand out"
    assert (live.runner.site.workspace / "consent" / "challenges" / f"{number}.json").is_file()


def test_prompts_for_a_record_that_is_there_are_not_shown(live: Live) -> None:
    live.runner.site.records.mkdir(parents=True)
    (live.runner.site.records / "me.json").write_text("{}")
    shown, number, said = live._show(*values(live, record="me.json"))
    assert (shown, number) == ("", "") and "is there already" in said


def test_the_filmed_clip_is_the_source(live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def run_now(task: str, asked: dict[str, Any]) -> dict[str, Any]:
        given.update(asked, task=task)
        return {"state": "valid", "proof": "live: …"}

    monkeypatch.setattr(live.runner, "run_now", run_now)
    said, number = live._write(str(film(tmp_path)), *values(live, challenge="ab" * 8, who="Ann", source="other.mp4"))
    assert dataset_tab.SEEN in said and "live: …" in said and number == ""
    (path,) = given["source"]
    assert Path(path).read_bytes() == b"a clip" and live.runner.site.uploads in Path(path).parents
    assert (given["task"], given["action"], given["who"], given["challenge"]) == ("consent", "write", "Ann", "ab" * 8)


def test_a_refused_clip_is_not_kept(live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_now(task: str, asked: dict[str, Any]) -> dict[str, Any]:
        raise ConsentError("keep the order.")

    monkeypatch.setattr(live.runner, "run_now", run_now)
    said, _ = live._write(str(film(tmp_path)), *values(live, challenge="ab" * 8))
    assert "keep the order" in said and "vitface-bad" in said
    assert [p for p in live.runner.site.uploads.rglob("*") if p.is_file()] == []


def test_what_is_missing_is_said(live: Live, tmp_path: Path) -> None:
    assert dataset_tab.NO_PROMPTS in live._write(str(film(tmp_path)), *values(live))[0]
    assert dataset_tab.NO_CLIP in live._write(None, *values(live, challenge="ab" * 8))[0]


def test_texts_of_prompts_are_escaped() -> None:
    assert "<script" not in markup.prompts(["a<script>", "Read: <b>"])


def test_a_recording_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without sound and unmirrored; and gradio needs no ffmpeg for it."""
    from gradio.components import video

    monkeypatch.setattr(video, "FFmpeg", None)
    with gr.Blocks():
        made = dialect.recorder("Film", "film")
    config = made.get_config()
    assert config["include_audio"] is False
    options = config.get("webcam_options")
    assert (options["mirror"] if options else config["mirror_webcam"]) is False
    assert made.preprocess.__self__ is not made and made.preprocess.__self__.include_audio is True
