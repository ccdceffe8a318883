"""Finding one's way about the page, whichever gradio has drawn it."""

from __future__ import annotations

import time
from typing import Any

TABS = ("Clone", "Dataset", "Train", "Swap", "Check", "Evaluate")


def open_tab(page: Any, name: str) -> None:
    page.locator(
        "#vitface-tabs [role=tab]:visible, #vitface-tabs > .tab-nav > button:visible", has_text=name
    ).first.click()
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
