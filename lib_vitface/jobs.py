"""Long work that survives a kill: a SQLite store of jobs, their finished chunks, and who is working on them.

One process at a time works on a job. It holds a *claim* (a random token); every write it makes is conditional on the token,
so a process that was thought dead and wakes up cannot spoil what its successor does. Whether a holder still lives is
asked of the operating system (process id and start time) where it ran on this machine, and otherwise by watching its
beat counter change. Wall-clock times are only shown to people, never compared, so clock jumps do no harm.

Everything is JSON, text and numbers. The store is `<folder>/jobs.sqlite3`, the files of a job lie in `<folder>/jobs/<id>/`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_vitface.errors import Cancelled, InputError, OutputError

STORE = "jobs.sqlite3"
STATES = ("queued", "running", "done", "failed", "stopped")
BEAT_S = 2.0
LOOK_S = 0.25
WATCH_S = 10.0
NOTE_S = 0.5
_VERSION = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, options TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL,
    updated REAL NOT NULL, claim TEXT, pid INTEGER, place TEXT, started TEXT, beats INTEGER NOT NULL DEFAULT 0,
    stop INTEGER NOT NULL DEFAULT 0, done REAL NOT NULL DEFAULT 0, total REAL NOT NULL DEFAULT 0,
    note TEXT NOT NULL DEFAULT '', result TEXT, error TEXT
);
CREATE TABLE IF NOT EXISTS chunks (
    job TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE, stage TEXT NOT NULL, number INTEGER NOT NULL,
    file TEXT, data TEXT NOT NULL, PRIMARY KEY (job, stage, number)
) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Job:
    """A job as it stood when it was read. `created` and `updated` are Unix seconds, for people only."""

    id: str
    kind: str
    options: dict[str, Any]
    state: str
    folder: Path
    created: float
    updated: float
    pid: int | None
    done: float
    total: float
    note: str
    result: dict[str, Any] | None
    error: str | None
    stop_requested: bool
    interrupted: bool  # says "running", but its process on this machine is gone: it can be resumed


@dataclass(frozen=True)
class Chunk:
    """A finished part of a job. `file` is a name inside the job's folder, `data` any JSON."""

    number: int
    file: str | None
    data: dict[str, Any]


class JobStore:
    """All jobs of a workspace. Safe to use from several threads and processes: each call opens its own connection."""

    def __init__(self, folder: Path) -> None:
        """Opens or makes the store in `folder`. Raises `OutputError` or `InputError` when that cannot be."""
        self.folder = Path(folder)
        self.path = self.folder / STORE
        _make(self.folder)
        with self._open() as db:
            self._prepare(db)

    def _prepare(self, db: sqlite3.Connection) -> None:
        # Network and some cloud drives have no shared memory, so no WAL; the rollback journal is as safe, only slower.
        with contextlib.suppress(sqlite3.OperationalError):
            db.execute("PRAGMA journal_mode=WAL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise InputError(f"{self.path}: was written by a newer ViTFace (version {version}); update this one.")
        if version < _VERSION:
            db.executescript(_TABLES + f"PRAGMA user_version={_VERSION};")

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection in autocommit mode; SQLite's errors become sentences."""
        try:
            db = sqlite3.connect(self.path, timeout=30.0, isolation_level=None)
            try:
                db.row_factory = sqlite3.Row
                db.execute("PRAGMA foreign_keys=ON")
                yield db
            finally:
                db.close()
        except sqlite3.OperationalError as error:
            raise OutputError(f"{self.path}: the job store cannot be used ({error}).") from None
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{self.path}: the job store is damaged ({error}); move it away to start afresh."
            ) from None

    @contextlib.contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: all of it or nothing."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def create(self, kind: str, options: Mapping[str, Any]) -> Job:
        """A new queued job with its folder. Raises `OutputError` where that cannot be made."""
        now = time.time()
        name = f"{kind}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}-{secrets.token_hex(3)}"
        row = (name, kind, _plain(options), "queued", now, now)
        with self._change() as db:
            db.execute("INSERT INTO jobs (id, kind, options, state, created, updated) VALUES (?,?,?,?,?,?)", row)
            _make(self._folder(name))
        return self.get(name)

    def get(self, job_id: str) -> Job:
        """Raises `InputError` when there is no such job."""
        with self._open() as db:
            return self._job(self._row(db, job_id))

    def list(self, kind: str | None = None, state: str | None = None) -> list[Job]:
        """Jobs, newest first."""
        with self._open() as db:
            rows = db.execute("SELECT * FROM jobs ORDER BY rowid DESC").fetchall()
        jobs = [self._job(row) for row in rows]
        return [job for job in jobs if kind in (None, job.kind) and state in (None, job.state)]

    def find(self, kind: str, options: Mapping[str, Any]) -> Job | None:
        """The newest unfinished job of the same kind with equal options: what a repeated command goes on with."""
        with self._open() as db:
            row = db.execute(
                "SELECT * FROM jobs WHERE kind=? AND options=? AND state<>'done' ORDER BY rowid DESC LIMIT 1",
                (kind, _plain(options)),
            ).fetchone()
        return None if row is None else self._job(row)

    def delete(self, job_id: str) -> None:
        """Removes a job that nobody works on from the store; its files stay to the caller. Raises `InputError` if held."""
        with self._change() as db:
            row = self._row(db, job_id)
            if row["claim"] is not None and _holder(row) == "alive":
                raise InputError(f"Job {job_id} is being worked on by process {row['pid']}; stop it first.")
            db.execute("DELETE FROM jobs WHERE id=?", (job_id,))

    def request_stop(self, job_id: str) -> None:
        """Asks whoever works on the job to stop at the next good moment (see `Claim.check`)."""
        with self._change() as db:
            self._row(db, job_id)
            db.execute("UPDATE jobs SET stop=1 WHERE id=?", (job_id,))

    def chunks(self, job_id: str, stage: str) -> dict[int, Chunk]:
        """Finished chunks of a stage by number; those whose file has gone are left out."""
        with self._open() as db:
            rows = db.execute(
                "SELECT * FROM chunks WHERE job=? AND stage=? ORDER BY number", (job_id, stage)
            ).fetchall()
        found = [Chunk(row["number"], row["file"], json.loads(row["data"])) for row in rows]
        folder = self._folder(job_id)
        return {chunk.number: chunk for chunk in found if chunk.file is None or (folder / chunk.file).is_file()}

    def claim(self, job_id: str, *, watch_s: float = WATCH_S) -> Claim:
        """Takes a job to work on it (state "running"); use as a context manager.

        Raises `InputError` when another process works on it. A holder on another machine (or in another container) that
        has not let go is watched for `watch_s` seconds first; this is the only wait.
        """
        with self._open() as db:
            row = self._row(db, job_id)
        if row["claim"] is not None:
            fate = _holder(row)
            if fate == "unknown":
                time.sleep(watch_s)
            if fate == "alive":
                raise InputError(
                    f"Job {job_id} is being worked on by process {row['pid']}; wait for it, or stop it first."
                )
        token = secrets.token_hex(8)
        with self._change() as db:
            taken = db.execute(
                "UPDATE jobs SET claim=?, pid=?, place=?, started=?, beats=beats+1, state='running', error=NULL,"
                " stop=CASE state WHEN 'queued' THEN stop ELSE 0 END,"
                " updated=? WHERE id=? AND claim IS ? AND beats=?",
                (
                    token,
                    os.getpid(),
                    _place(),
                    _start_time(os.getpid()),
                    time.time(),
                    job_id,
                    row["claim"],
                    row["beats"],
                ),
            ).rowcount
        if not taken:
            raise InputError(f"Job {job_id} is being worked on by another process; wait for it, or stop it first.")
        return Claim(self, self.get(job_id), token)

    def _folder(self, job_id: str) -> Path:
        return self.folder / "jobs" / job_id

    def _row(self, db: sqlite3.Connection, job_id: str) -> sqlite3.Row:
        row = db.execute("SELECT * FROM jobs WHERE id=?", (job_id,)).fetchone()
        if row is None:
            raise InputError(f"There is no job {job_id!r} in {self.path}.")
        return row

    def _job(self, row: sqlite3.Row) -> Job:
        return Job(
            id=row["id"],
            kind=row["kind"],
            options=json.loads(row["options"]),
            state=row["state"],
            folder=self._folder(row["id"]),
            created=row["created"],
            updated=row["updated"],
            pid=row["pid"],
            done=row["done"],
            total=row["total"],
            note=row["note"],
            result=None if row["result"] is None else json.loads(row["result"]),
            error=row["error"],
            stop_requested=bool(row["stop"]),
            interrupted=row["state"] == "running" and _holder(row) == "gone",
        )


class Claim:
    """The right to work on one job. As a context manager it beats every two seconds and looks four times a second whether it
    shall stop; at the end it says how it went:

    no error: "done"; `Cancelled`: "stopped"; any other error: "failed" with its sentence. A killed process says nothing,
    and the next claim goes on from the finished chunks.
    """

    def __init__(self, store: JobStore, job: Job, token: str) -> None:
        self.store = store
        self.job = job
        self._token = token
        self._result: dict[str, Any] | None = None
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._end = threading.Event()
        self._next_note = 0.0
        self._beater = threading.Thread(target=self._beat_on, name=f"beat {job.id}", daemon=True)

    def __enter__(self) -> Claim:
        if self.job.stop_requested:  # already before anybody began
            self._stop.set()
        self._beater.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        self._end.set()
        self._beater.join()
        state = (
            "done" if error is None else "stopped" if isinstance(error, (Cancelled, KeyboardInterrupt)) else "failed"
        )
        sentence = None if error is None else str(error) or type(error).__name__
        result = None if self._result is None else _plain(self._result)
        with contextlib.ExitStack() as stack:
            if error is not None:
                # A full disk often is the very error that ends the job; it must not be hidden by failing to note it.
                stack.enter_context(contextlib.suppress(OutputError, InputError, Cancelled))
            self._update("state=?, error=?, result=?, claim=NULL", (state, sentence, result))

    def finish(self, result: Mapping[str, Any]) -> None:
        """What the job brought; stored when the claim ends without an error."""
        self._result = dict(result)

    def check(self) -> None:
        """Raises `Cancelled` when somebody asked to stop or took the job over; costs nothing."""
        if self._lost.is_set():
            raise Cancelled(f"Job {self.job.id} was taken over by another process.")
        if self._stop.is_set():
            raise Cancelled(f"Job {self.job.id} was stopped; start it again to go on.")

    def progress(self, done: float, total: float, note: str = "") -> None:
        """A `Tick`: notes how far the job is (twice a second at most) and raises `Cancelled` when asked to stop."""
        now = time.monotonic()
        if now >= self._next_note or done >= total:
            self._next_note = now + NOTE_S
            self._update("done=?, total=?, note=?", (done, total, note))
        self.check()

    def beat(self) -> None:
        """Says "still alive" and reads the wish to stop."""
        self._update("beats=beats+1", ())
        self.look()

    def look(self) -> None:
        """Reads the wish to stop."""
        if self.store.get(self.job.id).stop_requested:
            self._stop.set()

    def add_chunk(
        self, stage: str, number: int, file: str | None = None, data: Mapping[str, Any] | None = None
    ) -> None:
        """Notes a finished chunk; its file must already be whole and in the job's folder. Writing it again replaces it."""
        with self.store._change() as db:
            self._hold(db)
            row = (self.job.id, stage, number, file, _plain(data or {}))
            db.execute("INSERT OR REPLACE INTO chunks (job, stage, number, file, data) VALUES (?,?,?,?,?)", row)

    def _hold(self, db: sqlite3.Connection) -> None:
        row = db.execute("SELECT claim FROM jobs WHERE id=?", (self.job.id,)).fetchone()
        if row is None or row["claim"] != self._token:
            self._lost.set()
            self.check()

    def _update(self, assignments: str, values: tuple[Any, ...]) -> None:
        with self.store._change() as db:
            self._hold(db)
            row = (*values, time.time(), self.job.id)
            db.execute(f"UPDATE jobs SET {assignments}, updated=? WHERE id=?", row)

    def _beat_on(self) -> None:
        due = time.monotonic() + BEAT_S
        while not self._end.wait(min(LOOK_S, BEAT_S)):
            # A missed beat (disk full, store locked for long) is no reason to end work that may well go on.
            with contextlib.suppress(OutputError, InputError, Cancelled):
                if time.monotonic() >= due:
                    due = time.monotonic() + BEAT_S
                    self.beat()
                else:
                    self.look()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: the folder cannot be made ({error.strerror}); free some space, or choose another workspace."
        ) from None


def _plain(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), sort_keys=True, ensure_ascii=False, allow_nan=False)


def _holder(row: sqlite3.Row) -> str:
    """What is known of the process that holds a job: "alive", "gone", or "unknown" (it runs elsewhere)."""
    if row["claim"] is None or row["pid"] is None:
        return "gone"
    if row["place"] != _place():
        return "unknown"
    if not _process_exists(row["pid"]):
        return "gone"
    # The id may have been given to another program since.
    return "alive" if row["started"] == _start_time(row["pid"]) else "gone"


def _place() -> str:
    """Where process ids mean the same as here: machine, boot and (on Linux) container."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _start_time(pid: int) -> str:
    """When a process started, in ticks since boot, where the system tells (Linux); else empty."""
    with contextlib.suppress(OSError, IndexError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # The second field is the program's name in brackets and may itself hold spaces and brackets.
        return stat.rsplit(")", 1)[1].split()[19]
    return ""


def _process_exists(pid: int) -> bool:
    if sys.platform == "win32":
        import ctypes

        query, still_active = 0x1000, 259
        kernel = ctypes.windll.kernel32
        handle = kernel.OpenProcess(query, False, pid)
        if not handle:
            return False
        code = ctypes.c_ulong()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return code.value == still_active
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """A killed child whose parent has not asked for it yet still has an id but does nothing any more."""
    with contextlib.suppress(OSError, IndexError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return stat.rsplit(")", 1)[1].split()[0] in {"Z", "X"}
    return False
