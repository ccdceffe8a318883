"""Finding one's way about the page, whichever gradio has drawn it."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

TABS = ("Clone", "Dataset", "Train", "Swap", "Check", "Evaluate")


def enter(page: Any, address: str) -> None:
    """Opens the page; in the WebUI also the tab that holds the others."""
    page.goto(address)
    page.wait_for_selector("#vitface-tabs", state="attached", timeout=120_000)
    page.wait_for_timeout(1000)
    if not page.locator("#vitface-tabs").is_visible():
        page.locator("#tabs > .tab-nav > button", has_text="ViTFace").first.click()
    page.wait_for_selector("#vitface-tabs", timeout=30_000)


def open_tab(page: Any, name: str) -> None:
    tabs = "#vitface-tabs [role=tab]:visible, #vitface-tabs > .tab-nav > button:visible"
    tab = page.locator(tabs, has_text=name).first
    if not tab.count():  # newer gradio keeps what does not fit into the line in a menu at its end
        page.locator("#vitface-tabs .overflow-menu > button").first.click()
        tab = page.locator("#vitface-tabs .overflow-dropdown button:visible", has_text=name).first
    tab.click()
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


def choose(page: Any, name: str, text: str) -> None:
    """An entry of a dropdown, typed and taken."""
    box = page.locator(f"#{name} input").first
    box.fill(text)
    box.press("Enter")
    page.wait_for_timeout(400)


def unfold(page: Any, name: str) -> None:
    """Opens an accordion."""
    page.locator(f"#{name}").locator("button, .label-wrap").first.click()
    page.wait_for_timeout(400)


def wait_for(page: Any, condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What a condition brings once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        page.wait_for_timeout(200)
    raise AssertionError(f"{condition} did not come true")


def open_camera(page: Any, element: Any, button: str) -> None:
    """Gives a camera leave: by the button `button`, where there is one, else on the camera itself."""
    own = page.locator(f"#{button}")
    (own if own.is_visible() else element.locator("button:visible").first).click()
    wait_for(page, lambda: element.locator("video:visible").count())


def click_picture(page: Any, name: str, x: float, y: float) -> None:
    """Clicks a picture at a place given in its own pixels; it is shown whole within its element."""
    picture = page.locator(f"#{name} img").first
    picture.scroll_into_view_if_needed()
    wide, tall = picture.evaluate("image => [image.naturalWidth, image.naturalHeight]")
    box = picture.bounding_box()
    scale = min(box["width"] / wide, box["height"] / tall)
    left, top = box["x"] + (box["width"] - scale * wide) / 2, box["y"] + (box["height"] - scale * tall) / 2
    page.mouse.click(left + scale * x, top + scale * y)


def pictures_of(page: Any, selector: str) -> list[np.ndarray]:
    """What the pictures of the page show, RGB uint8 `[H, W, 3]`."""
    drawn = page.eval_on_selector_all(
        selector,
        "images => images.map(i => { const c = document.createElement('canvas'); c.width = i.naturalWidth;"
        " c.height = i.naturalHeight; c.getContext('2d').drawImage(i, 0, 0); return c.toDataURL('image/png') })",
    )
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")) for url in drawn]
