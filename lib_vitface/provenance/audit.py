"""The workspace's audit log: what was done under which consent record, and what was refused. Entries are only ever added.

Each entry holds the hash of the one before (a hash chain, Haber and Stornetta 1991) and is signed with the workspace's key, so that a
changed, removed or inserted entry shows. How long the chain was is noted beside the key, so that cutting its end off shows, too. It
holds names, ids, paths and numbers; no pictures and no embeddings.

Who has the key and takes the trouble can write another log: it is proof against mistakes and second thoughts, not against the owner
of the machine.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib_vitface.errors import OutputError
from lib_vitface.media.container import beside
from lib_vitface.provenance.keys import Keys, is_signed, open_keys

FILE = "audit.sqlite3"
_HEAD = "audit.head"
_START = "0" * 64
_BUSY_S = 30.0
_TIME, _DAY = '"time": "', len("2026-01-31")
_TABLE = """
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY, day TEXT NOT NULL, body TEXT NOT NULL, before TEXT NOT NULL, hash TEXT NOT NULL,
    signature TEXT NOT NULL
);
CREATE TRIGGER IF NOT EXISTS kept_unchanged BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER IF NOT EXISTS kept BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append only'); END;
"""


def note(workspace: Path, event: str, **facts: Any) -> None:
    """Adds an entry (JSON-ready facts). Raises `OutputError` where it cannot be written: what cannot be noted is not done."""
    keys = open_keys(workspace)
    try:
        with contextlib.closing(sqlite3.connect(workspace / FILE, timeout=_BUSY_S, isolation_level=None)) as log:
            log.executescript(_TABLE)
            log.execute("BEGIN IMMEDIATE")
            whole = _ends_as_noted(log, _head(workspace / "keys" / _HEAD))
            row = log.execute("SELECT number, hash FROM entries ORDER BY number DESC LIMIT 1").fetchone()
            number, before = (1, _START) if row is None else (row[0] + 1, row[1])
            now = datetime.datetime.now(datetime.timezone.utc).replace(
                microsecond=0
            )  # once: the clock may be set meanwhile
            body = json.dumps(
                {"number": number, "time": now.isoformat(), "event": event, **facts}, sort_keys=True, ensure_ascii=False
            )
            digest = _hash(before, body)
            day = now.astimezone().date().isoformat()
            values = (number, day, body, before, digest, keys.sign(digest.encode()))
            log.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", values)
            log.execute("COMMIT")
        if whole:  # else what is noted beside the key is all that tells of the entries that are gone
            _write_head(workspace, keys, number, digest)
    except (sqlite3.Error, OSError) as error:
        raise OutputError(
            f"{workspace / FILE}: the audit log cannot be written ({error}); free some space, or choose another workspace."
        ) from None


def _hash(before: str, body: str) -> str:
    return hashlib.sha256(f"{before}\n{body}".encode()).hexdigest()


def _ends_as_noted(log: sqlite3.Connection, head: dict[str, Any] | None) -> bool:
    """Whether the log holds the entry that was the last one when the head was written."""
    if head is None:
        return True
    row = log.execute("SELECT hash FROM entries WHERE number = ?", (head["number"],)).fetchone()
    return row is not None and row[0] == head["hash"]


def _write_head(workspace: Path, keys: Keys, number: int, digest: str) -> None:
    path = workspace / "keys" / _HEAD
    known = _head(path)
    if known is not None and known["number"] > number:
        return  # another process was quicker
    text = {"number": number, "hash": digest, "signature": keys.sign(f"{number} {digest}".encode())}
    with beside(path) as temporary:
        temporary.write_text(json.dumps(text), encoding="utf-8")


def _head(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"number": int(found["number"]), "hash": str(found["hash"]), "signature": str(found["signature"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def _reading(workspace: Path) -> Iterator[sqlite3.Connection | None]:
    """The log for reading; None where there is none. Asking makes none."""
    path = workspace / FILE
    if not path.is_file():
        yield None
        return
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as log:
        yield log


def entries(workspace: Path, event: str | None = None) -> list[dict[str, Any]]:
    """All entries (of one kind), oldest first; empty where there is no log or it cannot be read (see `verify`)."""
    with contextlib.suppress(sqlite3.Error, ValueError), _reading(workspace) as log:
        if log is not None:
            said = "" if event is None else f'"event": {json.dumps(event, ensure_ascii=False)}'  # as `note` writes it
            bodies = log.execute("SELECT body FROM entries WHERE instr(body, ?) ORDER BY number", (said,))
            found = [json.loads(body) for (body,) in bodies]
            return [one for one in found if event is None or one["event"] == event]
    return []


def latest_day(workspace: Path) -> str:
    """The latest day (ISO) an entry was made on, empty without one: the clock cannot be earlier than that."""
    with contextlib.suppress(sqlite3.Error), _reading(workspace) as log:
        if log is not None:
            return str(log.execute("SELECT MAX(day) FROM entries").fetchone()[0] or "")
    return ""


def verify(workspace: Path) -> dict[str, Any]:
    """`entries` (how many), `sound`, and `problem`: a sentence that says what is wrong, empty where nothing is."""
    count, problem = 0, ""
    try:
        with _reading(workspace) as log:
            head = _head(workspace / "keys" / _HEAD)
            if log is None:
                problem = "" if head is None else f"it is gone; {head['number']} entries were in it"
            else:
                count, problem = _check(log, open_keys(workspace).public, head)
    except sqlite3.Error as error:
        problem = f"it cannot be read ({error})"
    sentence = f"{workspace / FILE}: the audit log was tampered with: {problem}." if problem else ""
    return {"entries": count, "sound": not problem, "problem": sentence}


def fault(workspace: Path) -> str:
    """The sentence where entries are gone or changed, so that nobody knows what was revoked; empty where the chain is whole.

    Quicker than `verify`, for it leaves out the signatures of single entries: that of the last one stands for the chain. The chain is
    read from its first entry each time. A note of how far it was found whole, however signed, says what the file held then and not
    what it holds now: whoever takes a revocation out of that part would be believed. What tells the two apart is its content alone.
    """
    head = _head(workspace / "keys" / _HEAD)
    try:
        with _reading(workspace) as log:
            if log is None:
                problem = "" if head is None else "it is gone"
            else:
                problem = _check(log, None, head)[1]
                if head is not None and not problem:
                    said = f"{head['number']} {head['hash']}".encode()
                    problem = (
                        ""
                        if is_signed(open_keys(workspace).public, said, head["signature"])
                        else "its end is not signed"
                    )
    except sqlite3.Error as error:
        problem = f"it cannot be read ({error})"
    if not problem:
        return ""
    return (
        f"{workspace / FILE}: the audit log was tampered with ({problem}), so what was revoked is not known; put it back from a "
        "backup, or work in a new workspace with new records."
    )


def _fits(day: str, body: str) -> bool:
    """Whether the day that stands beside an entry is that of its time; where one lives makes a day's difference."""
    _, _, after = body.partition(_TIME)
    if after.startswith(day) and len(day) == _DAY and _TIME not in after:
        return True  # no other key is called so: the common case, at a fifth of the time
    try:
        apart = datetime.date.fromisoformat(day) - datetime.date.fromisoformat(str(json.loads(body)["time"])[:10])
    except (ValueError, KeyError, TypeError):
        return False
    return abs(apart.days) <= 1


def _check(log: sqlite3.Connection, public: str | None, head: dict[str, Any] | None) -> tuple[int, str]:
    """How many entries there are and what is wrong with the chain; with the key `public` signatures are looked at, too."""
    before, count, seen_head = _START, 0, head is None
    rows = log.execute("SELECT number, day, body, before, hash, signature FROM entries ORDER BY number")
    for number, day, body, noted, digest, signature in rows:
        count += 1
        if number != count:
            return count, f"entry {count} is missing"
        if noted != before or digest != _hash(before, body) or not _fits(day, body):
            return count, f"entry {count} was changed"
        if public is not None and not is_signed(public, digest.encode(), signature):
            return count, f"entry {count} was not signed by this workspace"
        if head is not None and number == head["number"]:
            if digest != head["hash"]:
                return count, f"entry {count} is another one than was noted"
            seen_head = True
        before = digest
    if not seen_head and head is not None:
        return count, f"it ends after entry {count}, and {head['number']} were in it"
    return count, ""
