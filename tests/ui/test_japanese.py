"""Every text that stands on the page, in the script and in the settings has its Japanese, and no entry is left over."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio", reason="gradio is not installed (requirements-ui.txt)")

from lib_vitface.provenance import challenge  # noqa: E402
from lib_vitface.provenance.detector import NO_PROOF  # noqa: E402
from lib_vitface.ui import check_tab, dataset_tab, dialect, faces, markup, panel, player, tabs  # noqa: E402
from lib_vitface.ui import form as forms  # noqa: E402
from lib_vitface.ui.runner import Runner  # noqa: E402
from lib_vitface.ui.site import Site  # noqa: E402
from lib_vitface.ui.studio import Studio, picture_items  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
JAPANESE: dict[str, str] = json.loads((ROOT / "localizations" / "ja_JP.json").read_text(encoding="utf-8"))
WORDS = re.compile(r"[A-Za-z]{2}")
# the same in every language: "ViTFace", versions
NAMES = re.compile(r"\d+\.\d+\.\d+|ViTFace")


class Texts(HTMLParser):
    """The text nodes of a piece of HTML, as a browser has them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.found.append(data.strip())


def texts_of(config: dict[str, Any]) -> Iterator[str]:
    for component in config["components"]:
        props = component["props"]
        yield from (props.get(name) for name in ("label", "info", "placeholder"))
        if component["type"] == "button":
            yield props.get("value")
        if component["type"] == "html":
            yield from Texts(props.get("value") or "").found


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What a person reads, before anything was done."""
    folder = tmp_path_factory.mktemp("site")
    site = Site(folder / "w", folder / "out")
    found = set(texts_of(tabs.build(Runner(site), Studio(site)).get_config_file()))
    with gr.Blocks() as script:
        forms.build_items(forms.Form(site, "swap", "p"), picture_items())
    found |= set(texts_of(script.get_config_file()))
    return {
        text.strip() for text in found if isinstance(text, str) and WORDS.search(text) and not NAMES.fullmatch(text)
    }


def further() -> set[str]:
    """What appears later: states, orders of the gallery, the queue's head, settings of the WebUI."""
    found = {*faces.ORDERS, *dataset_tab.WHICH, *markup.STATES.values(), "before", "after"}
    found |= {"Task", "State", "Done", "Note", "Begun", check_tab.PLOT, check_tab.HEAT, NO_PROOF}
    found |= {panel.FIGURES, *check_tab.HEAD, check_tab.MARKED, check_tab.UNMARKED, check_tab.DAMAGED, check_tab.EDITED}
    found |= {*challenge.WORDS.values(), dataset_tab.SEEN, dataset_tab.NO_PROMPTS, dataset_tab.NO_CLIP}
    settings = (ROOT / "lib_vitface" / "hosts" / "webui.py").read_text(encoding="utf-8")
    found |= {text for text in JAPANESE if f'"{text}"' in settings}
    return found | {dialect.OPEN_CAMERA, player.GONE, "Send the picture to ViTFace's Check tab"}


def test_every_text_is_there_in_japanese(shown: set[str]) -> None:
    missing = sorted((shown | further()) - set(JAPANESE))
    assert missing == [], "write their Japanese into localizations/ja_JP.json"


def test_no_entry_is_left_over(shown: set[str]) -> None:
    assert sorted(set(JAPANESE) - shown - further()) == []


def test_the_entries_are_japanese() -> None:
    for english, japanese in JAPANESE.items():
        assert re.search(r"[ぁ-んァ-ヶ一-龠]", japanese) or english in {"Json", "auto, cpu, cuda, cuda:1, mps"}, english
        for kept in re.findall(r"\{\w+\}", english):
            assert kept in japanese, f"{english}: a placeholder is lost"


def test_settings_of_the_webui_are_among_them() -> None:
    settings = (ROOT / "lib_vitface" / "hosts" / "webui.py").read_text(encoding="utf-8")
    for text in re.findall(r'info\(\s*(?:"[^"]*"|True), "([^"]+)"', settings) + re.findall(
        r'\.info\(\s*"([^"]+)"', settings
    ):
        assert text in JAPANESE, text


def test_the_japanese_readme_keeps_up_with_the_english_one() -> None:
    """Its commands are the English one's, and it names every task and links to no page that is gone."""
    english, japanese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ja.md"))
    commands, tasks = r"^python start\.py .+$", r"^\| \[\w+\]\(docs/\w+\.md\)"
    for pattern in (commands, tasks):
        first, second = (re.findall(pattern, text, re.MULTILINE) for text in (english, japanese))
        assert second == first
    for link in re.findall(r"\]\(([^)#:]+)[)#]", japanese):
        assert (ROOT / link).exists(), link
