"""The gallery's controls change what it shows: order, which faces, how many of them, which page; and a click decides."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "training"))
from made_faceset import write_faceset

from lib_vitface.faceset.store import Faceset
from lib_vitface.ui import faces

COUNT = 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_faceset(tmp_path / "person", 3, COUNT)


def yaws(folder: Path, ids: list[int]) -> np.ndarray:
    with Faceset.open(folder, unfinished=True) as faceset:
        return np.array([record.pose.yaw_deg for record in faceset.records(ids=ids)])


def test_orders_are_what_they_say(folder: Path) -> None:
    def order(name: str) -> list[int]:
        return faces.look(folder, name, "all", 100, 1).ids

    assert order("as found") == sorted(order("as found"))
    assert (np.diff(yaws(folder, order("left to right"))) >= 0).all()
    assert (np.diff(np.abs(yaws(folder, order("most turned first")))) <= 0).all()
    for name in faces.ORDERS:
        assert sorted(order(name)) == order("as found"), f"{name} loses nobody"


def test_share_which_and_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everybody = faces.look(folder, "as found", "all", 100, 1).ids
    assert faces.look(folder, "as found", "all", 25, 1).ids == everybody[: COUNT // 4]
    monkeypatch.setattr(faces, "PAGE", 6)
    pages = [faces.look(folder, "as found", "all", 100, page) for page in (1, 2, 3)]
    assert [page.pages for page in pages] == [3, 3, 3]
    assert [one for page in pages for one in page.ids] == everybody


def test_a_click_removes_and_takes_back(folder: Path) -> None:
    kept = faces.look(folder, "as found", "kept", 100, 1).ids
    assert not faces.toggle(folder, kept[0])
    assert faces.look(folder, "as found", "removed", 100, 1).ids == [kept[0]]
    assert kept[0] not in faces.look(folder, "as found", "kept", 100, 1).ids
    assert faces.toggle(folder, kept[0])
    assert faces.look(folder, "as found", "kept", 100, 1).ids == kept
