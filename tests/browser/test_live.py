"""A consent record by the webcam: prompts are shown, done before the camera, filmed by the page, checked, and the record is written.

Who sits before the camera is drawn after the prompts were (`acting`), as the camera's file is read when the camera is opened.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from acting import DRAWN, acted, play
from camera import launched, write_camera
from driving import enter, open_camera, open_tab, type_into, unfold, wait_for

from lib_vitface.provenance.challenge import WORDS, Prompt
from lib_vitface.provenance.consent import load_record

FPS = 20
SIZE = (320, 240)  # small, so that a slow machine films every frame
LEAD_S, TAIL_S = 6.0, 3.0
NOTE_CAMERA = """const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
  const stream = await open(wanted); window.cameraSince = window.cameraSince || Date.now(); return stream; };"""


@pytest.fixture
def camera(tmp_path: Path) -> Path:
    path = tmp_path / "camera.y4m"
    write_camera(path)
    return path


@pytest.fixture
def stage(browser: Any, serve: Any, camera: Path, tmp_path: Path) -> Iterator[Any]:
    """The page in a browser of its own, whose camera shows the file."""
    own = launched(browser.browser_type, camera)
    page = own.new_context(viewport={"width": 1300, "height": 900}, permissions=["camera"]).new_page()
    page.add_init_script(NOTE_CAMERA)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    with serve(tmp_path / "workspace") as address:
        try:
            enter(page, address)
            yield page
        finally:
            own.close()
    assert [text for text in faults if text != "Failed to fetch"] == [], "but requests that the page was left with"


def to_the_record(page: Any) -> None:
    open_tab(page, "Dataset")
    for part in ("vitface-consent", "vitface-consent-group-record", "vitface-live"):
        unfold(page, part)


def prompts_of(page: Any) -> list[Prompt]:
    kinds = {words: kind.split() for kind, words in WORDS.items()}
    found = []
    for text in page.locator("#vitface-live-prompts li").all_inner_texts():
        words = next(w for w in kinds if text.startswith(w))
        kind, *count = kinds[words]
        found.append(Prompt(kind, "".join(count) or text.removeprefix(words).replace(" ", "")))
    return found


def filmed(page: Any, until_s: float) -> None:
    """Presses the recorder's button, and again `until_s` after the camera was opened."""
    film = page.locator("#vitface-live-film")
    film.scroll_into_view_if_needed()
    open_camera(page, film, "vitface-live-open")
    wait_for(page, lambda: film.locator("video").first.evaluate("v => v.readyState >= 2 && v.videoWidth > 0"))
    shutter = film.locator(
        "[aria-label='start recording']:visible, [aria-label='capture photo']:visible, button:visible"
    )
    shutter.first.click()
    left = page.evaluate("window.cameraSince") / 1000 + until_s - time.time()
    assert left > 0, "the machine is too slow for this clip"
    page.wait_for_timeout(1000 * left)
    stop = film.locator("[aria-label='stop recording']:visible, button:visible")
    stop.first.click()
    wait_for(page, lambda: film.locator("video").first.evaluate("v => v.currentSrc && !v.srcObject"), 60)


def test_a_record_by_live_capture(stage: Any, camera: Path, tmp_path: Path) -> None:
    from small_clone import images

    page = stage
    to_the_record(page)
    page.locator("#vitface-live-show").click()
    wait_for(page, lambda: page.locator("#vitface-live-prompts li").count() == 5)
    number = page.locator("#vitface-consent-challenge textarea, #vitface-consent-challenge input").first.input_value()
    assert len(number) == 16
    prompts = prompts_of(page)
    assert page.evaluate("window.cameraSince") is None, "no camera before it is asked for"
    moments = acted(prompts, FPS, **DRAWN)
    lead = moments[:1] * round(LEAD_S * FPS)
    moments = [*lead, *moments, *moments[-1:] * round(TAIL_S * FPS)]
    write_camera(camera, play(images("sample_target", 1, SIZE)[0], moments), FPS)
    type_into(page, "vitface-consent-record", "ann.json")
    type_into(page, "vitface-consent-who", "Ann")
    page.locator("#vitface-consent-adult input").check()
    filmed(page, len(moments) / FPS - TAIL_S)
    page.locator("#vitface-live-write").click()
    said = wait_for(page, page.locator("#vitface-live-result .vitface-message").all_inner_texts, 240)[0]
    assert "The record is written" in said, said
    record = load_record(tmp_path / "workspace" / "records" / "ann.json")
    assert record.who == "Ann" and record.proof.startswith(f"live: challenge {number} of ")
    assert record.proof.count(" s)") == len(prompts)
