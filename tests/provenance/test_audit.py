"""The audit log: only added to, and every kind of tampering shows."""

from __future__ import annotations

import datetime
import itertools
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from lib_vitface.provenance import audit
from lib_vitface.provenance.keys import open_keys

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def space(tmp_path: Path) -> Path:
    for number in range(5):
        audit.note(tmp_path, "swapped" if number % 2 else "faceset built", record=f"{number:032x}", who="山田")
    return tmp_path


def change(space: Path, *statements: str) -> None:
    """As somebody would who has the file: without the triggers."""
    with closing(sqlite3.connect(space / audit.FILE)) as log:
        for name in ("kept", "kept_unchanged"):
            log.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            log.execute(statement)
        log.commit()


def test_entries_are_kept_in_order(space: Path) -> None:
    found = audit.entries(space)
    assert [one["number"] for one in found] == [1, 2, 3, 4, 5] and found[4]["who"] == "山田"
    assert [one["number"] for one in audit.entries(space, "swapped")] == [2, 4]
    assert audit.verify(space) == {"entries": 5, "sound": True, "problem": ""}


def test_entries_of_one_kind_are_those_and_no_others(tmp_path: Path) -> None:
    """Whatever else an entry says, and whatever the kind is called."""
    for event in ("revoked", 'a "b"', "取消"):
        audit.note(tmp_path, event, said='"event": "revoked"', inner={"event": "revoked", "time": "x"})
    for number, event in enumerate(("revoked", 'a "b"', "取消"), 1):
        assert [one["number"] for one in audit.entries(tmp_path, event)] == [number]
    assert audit.entries(tmp_path, "revok") == [] and len(audit.entries(tmp_path)) == 3


@pytest.mark.parametrize(
    ("day", "facts", "fits"),
    [
        ("2026-01-31", {}, True), ("2026-02-01", {}, True), ("2026-01-30", {}, True), ("2026-02-02", {}, False),
        ("2026-01-3", {}, False), ("", {}, False), ("2000-01-01", {"inner": {"time": "2000-01-01"}}, False),
        ("2000-01-01", {"said": '"time": "2000-01-01"'}, False), ("2026-01-31", {"inner": {"time": "2000-01-01"}}, True),
    ],
)  # fmt: skip
def test_the_day_of_an_entry_is_that_of_its_time(day: str, facts: dict[str, object], fits: bool) -> None:
    body = json.dumps({"number": 1, "time": "2026-01-31T12:00:00+00:00", "event": "x", **facts}, sort_keys=True)
    assert audit._fits(day, body) is fits
    assert not audit._fits(day, body.replace("2026-01-31T", "soon")) and not audit._fits(day, "{}")


def test_without_a_log_nothing_is_made(tmp_path: Path) -> None:
    assert audit.verify(tmp_path / "no") == {"entries": 0, "sound": True, "problem": ""}
    assert audit.fault(tmp_path / "no") == ""
    assert audit.entries(tmp_path / "no") == [] and audit.latest_day(tmp_path / "no") == ""
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("statement", ["DELETE FROM entries WHERE number = 5", "UPDATE entries SET day = '2000-01-01'"])
def test_the_file_itself_only_takes_more(space: Path, statement: str) -> None:
    with (
        closing(sqlite3.connect(space / audit.FILE)) as log,
        pytest.raises(sqlite3.IntegrityError, match="append only"),
    ):
        log.execute(statement)


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (lambda s: change(s, "UPDATE entries SET body = replace(body, '山田', 'X') WHERE number = 3"), "entry 3 was changed"),
        (lambda s: change(s, "UPDATE entries SET day = '2000-01-01' WHERE number = 4"), "entry 4 was changed"),
        (lambda s: change(s, "DELETE FROM entries WHERE number = 2"), "entry 2 is missing"),
        (lambda s: change(s, "DELETE FROM entries WHERE number = 5"), "it ends after entry 4, and 5 were in it"),
        (lambda s: (s / audit.FILE).unlink(), "it is gone; 5 entries were in it"),
        (lambda s: (s / audit.FILE).write_bytes(b"rubbish" * 1000), "it cannot be read"),
    ],
)  # fmt: skip
def test_tampering_shows(space: Path, tamper: Callable[[Path], None], words: str) -> None:
    tamper(space)
    found = audit.verify(space)
    assert not found["sound"] and words in found["problem"] and "was tampered with" in found["problem"]
    assert words.split(";")[0] in audit.fault(space) and audit.fault(space).endswith(
        "in a new workspace with new records."
    )


def test_what_was_whole_a_moment_ago_is_read_again(space: Path) -> None:
    """A revocation that is taken out after a check shows at the next one, however old the entry is."""
    assert audit.fault(space) == ""
    change(space, "UPDATE entries SET body = replace(body, 'faceset built', 'nothing at all') WHERE number = 1")
    assert "entry 1 was changed" in audit.fault(space)


def test_what_is_noted_later_hides_no_end_that_was_cut_off(space: Path) -> None:
    assert audit.fault(space) == ""
    change(space, "DELETE FROM entries WHERE number > 3")
    for _ in range(4):
        audit.note(space, "swapped")
    assert "entry 5 is another one than was noted" in audit.verify(space)["problem"]
    assert "entry 5 is another one than was noted" in audit.fault(space)


def test_a_head_of_ones_own_making_is_not_signed(space: Path) -> None:
    path = space / "keys" / "audit.head"
    change(space, "DELETE FROM entries WHERE number > 3")
    with closing(sqlite3.connect(space / audit.FILE)) as log:
        (digest,) = log.execute("SELECT hash FROM entries WHERE number = 3").fetchone()
    path.write_text(json.dumps({"number": 3, "hash": digest, "signature": "00" * 64}), encoding="utf-8")
    assert "its end is not signed" in audit.fault(space)


def test_a_chain_that_was_computed_anew_is_not_signed(space: Path) -> None:
    """Hashes can be made by anybody."""
    with closing(sqlite3.connect(space / audit.FILE)) as log:
        before, body = log.execute("SELECT before, body FROM entries WHERE number = 5").fetchone()
    body = json.dumps({**json.loads(body), "who": "X"}, sort_keys=True, ensure_ascii=False)
    digest = audit._hash(before, body)
    change(space, f"UPDATE entries SET body = '{body}', hash = '{digest}' WHERE number = 5")
    assert "entry 5 was not signed by this workspace" in audit.verify(space)["problem"]


def test_an_entry_whose_note_was_killed_is_sound(space: Path) -> None:
    head = (space / "keys" / "audit.head").read_bytes()
    audit.note(space, "swapped")
    (space / "keys" / "audit.head").write_bytes(head)
    assert audit.verify(space) == {"entries": 6, "sound": True, "problem": ""}


def test_a_clock_that_is_set_meanwhile_spoils_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time and day of an entry are of one moment; else it would look like one that was changed, for ever."""
    days = itertools.count(0, 3)

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Clock:
            return cls.fromtimestamp(1.8e9 + next(days) * 24 * 3600, tz)

    class Calendar(datetime.date):
        @classmethod
        def today(cls) -> Calendar:
            return cls.fromtimestamp(1.8e9 + next(days) * 24 * 3600)

    monkeypatch.setattr(audit.datetime, "datetime", Clock)
    monkeypatch.setattr(audit.datetime, "date", Calendar)
    for _ in range(3):
        audit.note(tmp_path, "swapped")
    monkeypatch.undo()
    assert audit.verify(tmp_path) == {"entries": 3, "sound": True, "problem": ""}


_KILLED = """
import os, signal, sys
from pathlib import Path
from lib_vitface.provenance import audit
sys.addaudithook(lambda event, given: event == "os.rename" and os.kill(os.getpid(), signal.SIGKILL))
audit.note(Path(sys.argv[1]), "swapped")
"""


def test_what_a_killed_note_left_goes_with_the_next(tmp_path: Path) -> None:
    audit.note(tmp_path, "swapped")
    dead = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], cwd=ROOT)
    assert dead.returncode == -9 and len(list((tmp_path / "keys").iterdir())) == 3
    audit.note(tmp_path, "swapped")
    assert sorted(p.name for p in (tmp_path / "keys").iterdir()) == ["audit.head", "signing.key"]
    assert audit.verify(tmp_path) == {"entries": 3, "sound": True, "problem": ""}


def test_several_processes_make_one_chain(tmp_path: Path) -> None:
    open_keys(tmp_path)
    program = "import sys; from pathlib import Path; from lib_vitface.provenance import audit\n" + (
        "for k in range(10): audit.note(Path(sys.argv[1]), 'swapped', k=k)"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert audit.verify(tmp_path) == {"entries": 30, "sound": True, "problem": ""}
