"""The standalone page in a real browser: opened, filled in, started, read; in wide and narrow windows, light and dark."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driving import TABS, enter, open_tab, type_into, wait_for, wait_text
from environments import WEBUI

ROOT = Path(__file__).resolve().parents[2]


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
    enter(page, address)
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


def test_a_generated_picture_is_sent_to_the_check_tab(page: Any, place: str) -> None:
    """Also where the tabs bear names in another language."""
    if place != WEBUI:
        pytest.skip("the page on its own has no galleries of generated pictures")
    page.evaluate("document.querySelectorAll('#vitface-tabs > .tab-nav > button').forEach(b => b.textContent = '確認')")
    page.locator("#tabs > .tab-nav > button", has_text="txt2img").first.click()
    page.evaluate(
        "() => { const c = document.createElement('canvas'); c.width = c.height = 64; const i = new Image();"
        " i.src = c.toDataURL(); document.querySelector('#txt2img_gallery').append(i) }"
    )
    page.locator("#image_buttons_txt2img .vitface-send").click()
    wait_for(page, lambda: page.locator("#vitface-inspect-run").is_visible())
    box = page.locator("#vitface-inspect-input textarea")
    wait_for(page, lambda: box.input_value().endswith("txt2img.png"))


@pytest.mark.parametrize("width", [360, 700, 1920])
def test_nothing_sticks_out_of_the_window(browser: Any, address: str, width: int) -> None:
    """Nor out of the WebUI's, which in a narrow one does itself."""
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(address)
    page.wait_for_timeout(1000)
    own = page.evaluate("document.documentElement.scrollWidth") if page.locator("#tabs").count() else width
    enter(page, address)
    for name in TABS:
        open_tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= max(width, own) + 1, name
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
        enter(page, f"{address}/?__theme={theme}")
        page.wait_for_timeout(800)
        text, back = page.evaluate(
            "() => { const e = document.querySelector('#vitface-tabs .vitface-message'); const s = getComputedStyle(e);"
            " return [s.color, s.backgroundColor] }"
        )
        numbers = [[float(v) for v in c[c.index("(") + 1 : -1].split(",")[:3]] for c in (text, back)]
        assert abs(np.mean(numbers[0]) - np.mean(numbers[1])) > 90, (theme, text, back)
        page.close()


@pytest.mark.usefixtures("python")
def test_a_login_guards_page_and_routes(browser: Any, serve: Any, tmp_path: Path) -> None:
    with serve(tmp_path / "w", "--login", "me:secret") as address:
        page = browser.new_page()
        page.goto(address)
        page.wait_for_selector("input[type=password]", timeout=30_000)
        assert page.locator("#vitface-tabs").count() == 0
        page.close()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{address}/vitface/v1/", timeout=10)
        assert refused.value.code == 401


def test_an_open_address_needs_a_login(python: Path, tmp_path: Path) -> None:
    command = [str(python), "-m", "lib_vitface.hosts.standalone", "--host", "0.0.0.0", "--workspace", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "--login" in done.stderr


@pytest.mark.usefixtures("python")
def test_the_page_speaks_japanese(browser: Any, address: str) -> None:
    """By the browser's own language, by choice, and still after it was opened again."""
    context = browser.new_context(locale="ja-JP", viewport={"width": 1300, "height": 900})
    page = context.new_page()
    page.goto(address)
    start = page.locator("#vitface-clone-start")
    wait_for(page, lambda: start.count() and start.inner_text() == "クローン")
    assert page.get_attribute("html", "lang") == "ja"
    assert (
        page.locator("#vitface-clone-source textarea").first.get_attribute("placeholder").startswith("ワークスペース")
    )
    page.locator("#vitface-language").select_option("en")
    wait_for(page, lambda: start.inner_text() == "Clone")
    page.reload()
    wait_for(page, lambda: start.count() and page.locator("#vitface-language").count())
    assert start.inner_text() == "Clone"
    page.locator("#vitface-language").select_option("ja")
    page.locator(
        "#vitface-tabs [role=tab]:visible, #vitface-tabs > .tab-nav > button:visible", has_text="評価"
    ).first.click()
    wait_for(page, lambda: "測定" in page.locator("#vitface-evaluate-start").inner_text())
    context.close()
