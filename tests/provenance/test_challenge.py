"""Challenges: drawn by chance, not to be forged, answered once, and soon."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lib_vitface.errors import ConsentError, OutputError
from lib_vitface.provenance import audit, challenge
from lib_vitface.provenance.challenge import HEADS, Challenge
from lib_vitface.provenance.keys import Keys, open_keys

LENGTH_S = 0.5


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return open_keys(tmp_path)


@pytest.fixture
def made(tmp_path: Path, keys: Keys) -> Challenge:
    return challenge.issue(tmp_path, keys)


def file_of(workspace: Path, made: Challenge) -> Path:
    return workspace / "consent" / "challenges" / f"{made.id}.json"


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.time() + seconds
    monkeypatch.setattr(challenge.time, "time", lambda: now)


def test_what_is_drawn() -> None:
    drawn = [challenge.draw() for _ in range(3000)]
    for prompts in drawn:
        heads = [p.kind for p in prompts if p.kind in HEADS]
        assert len(prompts) == 5 and len(heads) == 3
        assert all(a != b for a, b in itertools.pairwise(heads)), "two alike in a row would be one"
        (blink,) = (p for p in prompts if p.kind == "blink")
        (read,) = (p for p in prompts if p.kind == "read")
        assert blink.detail in ("2", "3") and len(read.detail) == 5 and read.detail.isdigit()
    orders = Counter(tuple((p.kind, p.kind == "blink" and p.detail) for p in prompts) for prompts in drawn)
    assert len(orders) > 0.85 * 1440 * (1 - (1 - 1 / 1440) ** 3000), "every order is about equally likely"
    assert max(orders.values()) < 15
    firsts = Counter(prompts[0].kind for prompts in drawn)
    assert {"blink", "read", *HEADS} == set(firsts)


def test_it_is_used_once(tmp_path: Path, keys: Keys, made: Challenge) -> None:
    path = file_of(tmp_path, made)
    shutil.copy(path, tmp_path / "kept.json")
    assert challenge.use_up(tmp_path, keys, made.id, LENGTH_S) == made
    assert not path.exists()
    with pytest.raises(ConsentError, match=f"{made.id} was answered before; ask for a new one"):
        challenge.use_up(tmp_path, keys, made.id, LENGTH_S)
    shutil.copy(tmp_path / "kept.json", path)
    with pytest.raises(ConsentError, match="was answered before"):
        challenge.use_up(tmp_path, keys, made.id, LENGTH_S)
    assert [one["event"] for one in audit.entries(tmp_path)] == ["challenge made", "challenge used"]
    assert audit.verify(tmp_path)["sound"]


def test_of_many_at_once_one_succeeds(tmp_path: Path, keys: Keys, made: Challenge) -> None:
    def use(_: int) -> bool:
        try:
            return challenge.use_up(tmp_path, keys, made.id, LENGTH_S) == made
        except ConsentError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(use, range(16))) == 1


@pytest.mark.parametrize(
    ("seconds", "words"), [(301, "ended 5 minutes after"), (-10, "of a later time than the clock's")]
)
def test_it_ends(
    tmp_path: Path, keys: Keys, made: Challenge, monkeypatch: pytest.MonkeyPatch, seconds: int, words: str
) -> None:
    later(monkeypatch, seconds)
    with pytest.raises(ConsentError, match=words):
        challenge.use_up(tmp_path, keys, made.id, LENGTH_S)


def test_it_lasts_until_then(tmp_path: Path, keys: Keys, made: Challenge, monkeypatch: pytest.MonkeyPatch) -> None:
    later(monkeypatch, 295)
    assert challenge.use_up(tmp_path, keys, made.id, 60.0) == made


def test_a_clip_older_than_the_prompts(
    tmp_path: Path, keys: Keys, made: Challenge, monkeypatch: pytest.MonkeyPatch
) -> None:
    later(monkeypatch, 10)
    with pytest.raises(ConsentError, match=r"is 1\d s old and the clip lasts 20 s; film after the prompts"):
        challenge.use_up(tmp_path, keys, made.id, 20.0)
    assert challenge.use_up(tmp_path, keys, made.id, 8.0) == made, "it was not used up by that"


def test_those_that_have_ended_are_deleted(
    tmp_path: Path, keys: Keys, made: Challenge, monkeypatch: pytest.MonkeyPatch
) -> None:
    later(monkeypatch, 400)
    again = challenge.issue(tmp_path, keys)
    assert [p.stem for p in file_of(tmp_path, made).parent.iterdir()] == [again.id]


@pytest.mark.parametrize("field", ["issued", "prompts", "id", "format"])
def test_a_change_is_noticed(tmp_path: Path, keys: Keys, made: Challenge, field: str) -> None:
    path = file_of(tmp_path, made)
    values = json.loads(path.read_text())
    other: dict[str, Any] = {
        "issued": values["issued"] + 250,
        "prompts": [*values["prompts"][::-1], {"kind": "up", "detail": ""}],
        "id": "0" * 16,
        "format": "x",
    }
    path.write_text(json.dumps({**values, field: other[field]}))
    with pytest.raises(ConsentError, match="was changed after it was made; ask for a new one"):
        challenge.use_up(tmp_path, keys, made.id, LENGTH_S)


def test_one_signed_by_another_workspace(tmp_path: Path, keys: Keys) -> None:
    """Its file would be sound there, and is not here."""
    other = tmp_path / "other"
    made = challenge.issue(other, open_keys(other))
    file_of(tmp_path, made).parent.mkdir(parents=True)
    shutil.copy(file_of(other, made), file_of(tmp_path, made))
    with pytest.raises(ConsentError, match="was changed after it was made"):
        challenge.use_up(tmp_path, keys, made.id, LENGTH_S)


@pytest.mark.parametrize("given", ["", "abc", "../../../keys/x", "A" * 16, "0" * 15 + "\n", "é" * 16])
def test_what_is_no_challenge(tmp_path: Path, keys: Keys, given: str) -> None:
    with pytest.raises(ConsentError, match="is no challenge; ask for one with `consent --action challenge`"):
        challenge.use_up(tmp_path, keys, given, LENGTH_S)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "5", '{"signature": "", "prompts": 3}'])
def test_a_file_that_is_none(tmp_path: Path, keys: Keys, made: Challenge, content: str | None) -> None:
    path = file_of(tmp_path, made)
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConsentError, match=r"has none that is called|cannot be read .*; ask for a new one"):
        challenge.use_up(tmp_path, keys, made.id, LENGTH_S)


def test_nobody_asks_until_the_prompts_fit(tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(challenge, "MOST_AN_HOUR", 3)
    for _ in range(3):
        challenge.issue(tmp_path, keys)
    with pytest.raises(ConsentError, match="3 challenges were asked for within an hour"):
        challenge.issue(tmp_path, keys)
    later(monkeypatch, 3700)
    challenge.issue(tmp_path, keys)


def test_what_a_killed_process_left_goes_when_it_is_old(tmp_path: Path, keys: Keys, made: Challenge) -> None:
    left = [file_of(tmp_path, made).with_name(f".{name}.json.0123.part") for name in ("old", "new")]
    for path, age_s in zip(left, (challenge.LIFE_S + 60, 0), strict=True):
        path.write_text("{")
        os.utime(path, (time.time() - age_s,) * 2)
    challenge.issue(tmp_path, keys)
    assert [path.exists() for path in left] == [False, True] and file_of(tmp_path, made).exists()


def test_a_place_that_cannot_be_written(tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "consent").write_text("no folder")
    with pytest.raises(OutputError, match="choose another place"):
        challenge.issue(tmp_path, keys)
    (tmp_path / "consent").unlink()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="the disk is full"):
        challenge.issue(tmp_path, keys)
    assert list((tmp_path / "consent" / "challenges").iterdir()) == []
    assert audit.entries(tmp_path) == [], "what could not be kept was not made"
