"""The standalone page in a real browser: opened, filled in, started, read; in wide and narrow windows, light and dark."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio", reason="gradio is not installed (requirements-ui.txt)")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("VITFACE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium was found (VITFACE_CHROMIUM names one)"),
]
TABS = ("Clone", "Dataset", "Train", "Swap", "Check", "Evaluate")


@contextmanager
def serving(workspace: Path, *arguments: str) -> Iterator[str]:
    """The page as `start.py ui` serves it; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "lib_vitface.hosts.standalone", "--port", str(port), "--workspace", str(workspace)]
    process = subprocess.Popen([*command, *arguments], cwd=ROOT)
    try:
        for _ in range(240):
            assert process.poll() is None, "the page ended by itself"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/vitface/v1/", timeout=5).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                time.sleep(0.25)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("page") / "workspace") as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """An opened page; at the end it must not have complained."""
    found = browser.new_page(viewport={"width": 1300, "height": 900})
    faults: list[str] = []
    found.on("pageerror", lambda error: faults.append(str(error)))
    found.goto(address)
    found.wait_for_selector("#vitface-tabs", timeout=60_000)
    yield found
    found.close()
    # a machine without a camera lets the webcam's control complain
    assert [fault for fault in faults if "device not found" not in fault] == []


def open_tab(page: Any, name: str) -> None:
    page.locator("#vitface-tabs [role=tab]:visible", has_text=name).first.click()
    page.wait_for_timeout(700)


def type_into(page: Any, name: str, text: str) -> None:
    page.locator(f"#{name} textarea, #{name} input").first.fill(text)
    page.keyboard.press("Tab")


def wait_text(page: Any, name: str, text: str, seconds: float = 60) -> str:
    """Waits until an element says something; the page itself has to ask the server."""
    end = time.monotonic() + seconds
    said = ""
    while time.monotonic() < end:
        said = page.locator(f"#{name}").first.inner_text()
        if text in said:
            return said
        page.wait_for_timeout(250)
    raise AssertionError(f"{name} says {said!r}, not {text!r}")


def test_every_tab_has_a_hint_and_a_start(page: Any) -> None:
    for name in TABS:
        open_tab(page, name)
        assert page.locator(".vitface-message:visible").count() >= 1, name
        assert page.locator("button.primary:visible").count() == 1, name


def test_a_mistake_is_told_at_once(page: Any) -> None:
    open_tab(page, "Swap")
    type_into(page, "vitface-swap-input", "/etc/passwd")
    page.locator("#vitface-swap-model input").first.fill("m")
    page.keyboard.press("Enter")
    page.locator("#vitface-swap-start").click()
    assert "outside the folders" in wait_text(page, "vitface-swap-progress", "outside")


def test_a_job_is_followed_to_its_end_and_found_again(page: Any, address: str) -> None:
    open_tab(page, "Evaluate")
    for name in ("source", "target", "result"):
        type_into(page, f"vitface-evaluate-{name}", "nothing.mp4")
    page.locator("#vitface-evaluate-start").click()
    said = wait_text(page, "vitface-evaluate-progress", "failed")
    assert "nothing.mp4" in said
    page.goto(address)
    page.wait_for_selector("#vitface-tabs")
    open_tab(page, "Evaluate")
    assert "nothing.mp4" in wait_text(page, "vitface-evaluate-progress", "failed")


def test_an_upload_is_kept_and_checked(page: Any, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "plain picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    open_tab(page, "Check")
    page.locator("#vitface-inspect-input-drop input[type=file]").set_input_files(str(path))
    page.wait_for_function(
        "document.querySelector('#vitface-inspect-input textarea').value.includes('plain')", timeout=20_000
    )
    page.locator("#vitface-inspect-run").click()
    assert "no mark" in wait_text(page, "vitface-inspect-result", "plain picture.png")


@pytest.mark.parametrize("width", [360, 700, 1920])
def test_nothing_sticks_out_of_the_window(browser: Any, address: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(address)
    page.wait_for_selector("#vitface-tabs")
    page.wait_for_timeout(1000)
    assert page.evaluate("document.documentElement.scrollWidth") <= width + 1
    page.close()


def test_the_handle_moves_by_mouse_and_keys(page: Any) -> None:
    from lib_vitface.ui.markup import before_after

    html = before_after(np.zeros((40, 60, 3), np.uint8), np.full((40, 60, 3), 255, np.uint8))
    page.evaluate("html => { document.querySelector('#vitface-note').innerHTML = html }", html)
    handle = page.locator(".vitface-slider input").first
    handle.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.querySelector('.vitface-slider').style.getPropertyValue('--cut')") == "51%"


def test_light_and_dark_are_readable(browser: Any, address: str) -> None:
    """Text and its background differ clearly in both themes."""
    for theme in ("light", "dark"):
        page = browser.new_page()
        page.goto(f"{address}/?__theme={theme}")
        page.wait_for_selector(".vitface-message")
        page.wait_for_timeout(800)
        text, back = page.evaluate(
            "() => { const e = document.querySelector('.vitface-message'); const s = getComputedStyle(e);"
            " return [s.color, s.backgroundColor] }"
        )
        numbers = [[float(v) for v in c[c.index("(") + 1 : -1].split(",")[:3]] for c in (text, back)]
        assert abs(np.mean(numbers[0]) - np.mean(numbers[1])) > 90, (theme, text, back)
        page.close()


def test_a_login_guards_page_and_routes(browser: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "w", "--login", "me:secret") as address:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("input[type=password]", timeout=30_000)
        assert page.locator("#vitface-tabs").count() == 0
        page.close()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}/vitface/v1/", timeout=10)
        assert refused.value.code == 401


def test_an_open_address_needs_a_login(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lib_vitface.hosts.standalone", "--host", "0.0.0.0", "--workspace", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "--login" in done.stderr
