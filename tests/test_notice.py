"""NOTICE and model card: nothing that is installed or fetched is missing from them, and what they say of licences is so."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

from lib_vitface.assets import ASSETS

ROOT = Path(__file__).resolve().parent.parent
NOTICE = (ROOT / "NOTICE").read_text(encoding="utf-8")
UNTOLD = {  # read by hand
    "nudenet": "its metadata say MIT and its licence file AGPL-3.0; the stricter one is named",
    "facexlib": "its metadata say Apache-2.0 and its licence file MIT; the file is named",
    "insightface": "its metadata say nothing; its repository's README says MIT for the code",
}
LISTED = dict(re.findall(r"^  (\S+) {2,}(.+)$", NOTICE, re.MULTILINE))


def required() -> set[str]:
    """Names of the packages in all requirement files."""
    found = set()
    for path in ROOT.glob("requirements*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            name = re.match(r"[A-Za-z][A-Za-z0-9_.-]*", line)
            if name:
                found.add(name.group())
    return found


def test_every_package_and_file_is_named() -> None:
    assert required() - set(LISTED) == set()
    assert set(ASSETS) - set(LISTED) == set()


@pytest.mark.parametrize("name", sorted(ASSETS))
def test_files_have_the_licence_that_models_tell(name: str) -> None:
    said = ASSETS[name].licence
    assert LISTED[name].split(":")[0].split(" by ")[0] in said or (
        "not stated" in LISTED[name] and "not stated" in said
    )


@pytest.mark.parametrize("name", sorted(LISTED.keys() - ASSETS.keys()))
def test_packages_have_the_licence_their_metadata_tells(name: str) -> None:
    """By the family's name: metadata write the same licence in many ways."""
    try:
        facts = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    if name in UNTOLD:
        pytest.skip(UNTOLD[name])
    told = " ".join(
        [facts.get("License-Expression") or "", facts.get("License") or "", *(facts.get_all("Classifier") or [])]
    )
    told = told.lower()
    families = {
        "apache": "apache",
        "mit": "mit",
        "bsd": "bsd",
        "bsl": "boost",
        "mpl": "mpl",
        "matplotlib": "matplotlib",
    }
    named = [family for family in families if re.search(rf"\b{family}", LISTED[name].split(";")[0].lower())]
    assert named and any(families[family] in told or family in told for family in named), told[:200]


def test_the_model_card_tells_of_limits() -> None:
    card = (ROOT / "docs" / "model_card.md").read_text(encoding="utf-8")
    for words in ("Not for", "not** measured", "minors", "LICENSE", "personal data"):
        assert words in card
