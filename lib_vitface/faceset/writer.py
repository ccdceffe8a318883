"""Building a faceset: the only part that writes into one."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import CheckpointError, OutputError
from lib_vitface.faceset import record as rows
from lib_vitface.faceset.coverage import FILE as COVERAGE
from lib_vitface.faceset.record import Record
from lib_vitface.faceset.store import APPLICATION_ID, IMAGES, INDEX, VERSION, Faceset
from lib_vitface.media.container import beside, sweep
from lib_vitface.types import Image

LOCK = "faceset.lock"

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE inputs (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE,
    stamp TEXT NOT NULL, person TEXT NOT NULL, next_frame INTEGER NOT NULL,
    frames INTEGER NOT NULL, found INTEGER NOT NULL, done INTEGER NOT NULL, note TEXT NOT NULL);
CREATE TABLE drops (input INTEGER NOT NULL REFERENCES inputs, reason TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (input, reason)) WITHOUT ROWID;
CREATE TABLE faces (id INTEGER PRIMARY KEY, input INTEGER NOT NULL REFERENCES inputs, source TEXT NOT NULL,
    frame INTEGER NOT NULL, number INTEGER NOT NULL, time_num INTEGER NOT NULL, time_den INTEGER NOT NULL,
    image TEXT NOT NULL, size INTEGER NOT NULL, face_px REAL NOT NULL,
    yaw_deg REAL NOT NULL, pitch_deg REAL NOT NULL, roll_deg REAL NOT NULL,
    sharpness REAL NOT NULL, exposure REAL NOT NULL, occlusion REAL NOT NULL, fingerprint INTEGER NOT NULL,
    cluster INTEGER NOT NULL, kept INTEGER NOT NULL, reason TEXT NOT NULL, synthetic INTEGER NOT NULL,
    seen INTEGER NOT NULL, UNIQUE (input, frame, number));
CREATE INDEX faces_kept ON faces (kept, reason);
CREATE INDEX faces_cluster ON faces (cluster);
CREATE TABLE arrays (id INTEGER PRIMARY KEY REFERENCES faces, matrix BLOB NOT NULL, landmarks BLOB NOT NULL,
    embedding BLOB NOT NULL, expression BLOB NOT NULL, light BLOB NOT NULL);
"""


@contextmanager
def sole_right(folder: Path) -> Iterator[None]:
    """The right to build the faceset in `folder` (made when it is not there), for as long as the block runs.

    The lock is an open transaction on a database file of its own: every system gives it back when a process dies.
    Raises OutputError where another process holds it or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(folder / LOCK, timeout=1.0, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise OutputError(f"{folder} cannot be written ({error}); name a folder you may write to.") from None
    with closing(connection) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            busy = "locked" in str(error)
            reason = "another run is building it; wait for it or stop it" if busy else f"it cannot be written ({error})"
            raise OutputError(f"{folder}: {reason}.") from None
        yield


def erase(folder: Path) -> None:
    """Deletes index and pictures of a faceset; what else lies in the folder stays."""
    for name in (INDEX, f"{INDEX}-wal", f"{INDEX}-shm", COVERAGE):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / IMAGES, ignore_errors=True)


@dataclass(frozen=True)
class Progress:
    """What a stretch of an input brought: frames looked at, faces found, drops by reason, and where to go on."""

    next_frame: int
    frames: int = 0
    found: int = 0
    drops: dict[str, int] = field(default_factory=dict)
    again: dict[tuple[int, int], int] = field(default_factory=dict)  # (frame, number) of a stored face: repeats of it
    done: bool = False
    note: str = ""


class FacesetWriter(Faceset):
    """A faceset that can be added to."""

    @classmethod
    def create(cls, path: Path, settings: dict[str, Any] | None = None) -> FacesetWriter:
        """A new, empty faceset in a folder that has none. `settings` is kept as JSON, readable by `setting`.

        Raises OutputError where the folder cannot be written or holds a faceset already.
        """
        path = Path(path)
        if (path / INDEX).exists():
            raise OutputError(f"{path} holds a faceset already; overwrite or resume it, or name another folder.")
        try:
            (path / IMAGES).mkdir(parents=True, exist_ok=True)
            sweep(path / INDEX)  # left by a run that was killed
            with beside(path / INDEX) as temporary, closing(sqlite3.connect(temporary)) as connection:
                connection.execute("PRAGMA journal_mode = MEMORY")  # no second file that a kill could leave
                connection.executescript(_SCHEMA)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {VERSION}")
                values = [(k, json.dumps(v)) for k, v in (settings or {}).items()]
                connection.executemany("INSERT INTO meta VALUES (?, ?)", values)
                connection.commit()
            self = cls.open(path, unfinished=True)
            self._db.execute("PRAGMA journal_mode = WAL")
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"{path} cannot be written ({error}); name a folder you may write to.") from None
        return self

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. Raises OutputError where the index cannot be written (disk full, no right)."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"{self.path}: the index cannot be written ({error}); free the disk or the file."
            ) from None
        except sqlite3.DatabaseError as error:
            raise CheckpointError(f"{self.path / INDEX} is damaged ({error}); build the faceset again.") from None

    def note(self, key: str, value: Any) -> None:
        """Keep a JSON value under a key."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))

    def add_input(self, path: str, stamp: str, person: str = "") -> int:
        """The number of an input, new or known. One that changed since (another `stamp`) loses its faces and starts anew."""
        with self.transaction() as db:
            row = db.execute("SELECT id, stamp FROM inputs WHERE path = ?", (path,)).fetchone()
            if row is None:
                done = db.execute("INSERT INTO inputs VALUES (NULL, ?, ?, ?, 0, 0, 0, 0, '')", (path, stamp, person))
                return int(done.lastrowid or 0)
            number, known = row
            if known != stamp:
                _forget(db, number)
                db.execute("INSERT INTO inputs VALUES (?, ?, ?, ?, 0, 0, 0, 0, '')", (number, path, stamp, person))
            return int(number)

    def forget(self, path: str) -> None:
        """An input, with all its faces, as if it had never been named; pictures go with the next `sweep`."""
        with self.transaction() as db:
            for (number,) in db.execute("SELECT id FROM inputs WHERE path = ?", (path,)).fetchall():
                _forget(db, number)

    def add(self, input_id: int, found: Iterable[Record], progress: Progress) -> None:
        """Index faces whose crops are written already and what is known of their input, in one transaction.

        A face that is there already (same input, frame and number) stays as it is.
        """
        marks = ", ".join("?" * (len(rows.COLUMNS) - 1))
        with self.transaction() as db:
            for one in found:
                done = db.execute(f"INSERT OR IGNORE INTO faces VALUES (NULL, {marks})", rows.to_row(one, input_id))
                if done.rowcount:
                    db.execute("INSERT INTO arrays VALUES (?, ?, ?, ?, ?, ?)", (done.lastrowid, *rows.to_blobs(one)))
            db.execute(
                "UPDATE inputs SET next_frame = ?, frames = frames + ?, found = found + ?, done = ?, note = ? WHERE id = ?",
                (progress.next_frame, progress.frames, progress.found, progress.done, progress.note, input_id),
            )
            again = [(times, input_id, *place) for place, times in progress.again.items()]
            db.executemany("UPDATE faces SET seen = seen + ? WHERE input = ? AND frame = ? AND number = ?", again)
            count = "INSERT INTO drops VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count"
            db.executemany(count, [(input_id, *item) for item in progress.drops.items()])

    def decide(
        self,
        ids: Sequence[int] | NDArray[np.int64],
        clusters: Sequence[int] | NDArray[np.int64],
        reasons: Sequence[str],
        notes: Mapping[str, Any],
        *,
        again: Mapping[int, int] | None = None,
        erase: Sequence[str] = (),
    ) -> None:
        """Set identity and reason (`record.KEPT` or why not) of faces, and notes, in one transaction.

        `again` adds sightings to faces by id. Of the faces with a reason in `erase` everything but the row is erased:
        arrays at once, pictures by the next `sweep`.
        """
        values = [
            (int(cluster), int(reason == rows.KEPT), reason, int(one))
            for one, cluster, reason in zip(ids, clusters, reasons, strict=True)
        ]
        with self.transaction() as db:
            db.executemany("UPDATE faces SET cluster = ?, kept = ?, reason = ? WHERE id = ?", values)
            seen = [(times, one) for one, times in (again or {}).items()]
            db.executemany("UPDATE faces SET seen = seen + ? WHERE id = ?", seen)
            for reason in erase:
                own = "kept = 0 AND reason = ?"
                db.execute(f"DELETE FROM arrays WHERE id IN (SELECT id FROM faces WHERE {own})", (reason,))
                db.execute(f"UPDATE faces SET image = '', fingerprint = 0 WHERE {own}", (reason,))
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(k, json.dumps(v)) for k, v in notes.items()])

    def window(self, input_id: int, number: int) -> list[Record]:
        """The last `number` faces stored of an input, oldest first, without those whose arrays were erased."""
        query = "SELECT f.id FROM faces f JOIN arrays a ON a.id = f.id WHERE f.input = ? ORDER BY f.id DESC LIMIT ?"
        with self._reading():
            ids = [one for (one,) in self._db.execute(query, (input_id, number))]
        return list(self.records(ids=ids[::-1]))

    def stored(self) -> int:
        """How many faces there are to choose from."""
        with self._reading():
            return int(self._value("SELECT COUNT(*) FROM arrays"))

    def sweep(self) -> int:
        """Remove pictures the index does not know (of erased faces, or left by a killed run). Returns how many."""
        with self._reading():
            known = {name for (name,) in self._db.execute("SELECT image FROM faces")}
        lost = [entry.path for entry in os.scandir(self.path / IMAGES) if entry.name not in known]
        for path in lost:
            Path(path).unlink(missing_ok=True)
        return len(lost)

    def save_crop(self, name: str, image: Image, quality: int) -> None:
        """Write a crop as `images/<name>` (JPEG without colour subsampling, or PNG by its suffix), whole or not at all."""
        jpeg = [
            cv2.IMWRITE_JPEG_QUALITY,
            quality,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
            cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
        ]
        suffix = Path(name).suffix
        _, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [] if suffix == ".png" else jpeg)
        target = self.path / IMAGES / name
        beside = target.with_name(f".{name}.new")
        try:
            beside.write_bytes(data.tobytes())
            beside.replace(target)
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise OutputError(f"{target} cannot be written ({error.strerror}); free some disk space.") from None


def _forget(db: sqlite3.Connection, number: int) -> None:
    """All rows of an input."""
    db.execute("DELETE FROM arrays WHERE id IN (SELECT id FROM faces WHERE input = ?)", (number,))
    for table, column in (("faces", "input"), ("drops", "input"), ("inputs", "id")):
        db.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))
