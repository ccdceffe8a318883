"""A faceset on disk: `faceset.sqlite` (index and measures) and `images/` (aligned crops)."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import CheckpointError, InputError
from lib_vitface.faceset import record as rows
from lib_vitface.faceset.record import Record
from lib_vitface.types import Floats, Image

INDEX = "faceset.sqlite"
IMAGES = "images"
VERSION = 1
APPLICATION_ID = 0x56544653  # "VTFS"
BUSY_S = 60.0
_AT_ONCE = 20_000  # rows that are Python numbers at a time: as such they take ten times the room

_Self = TypeVar("_Self", bound="Faceset")


class Faceset:
    """Aligned faces and their measures. Made by `writer.FacesetWriter`; safe to hand to worker processes (each opens
    its own connection), readable while another process writes. Not for several threads at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._connection: sqlite3.Connection | None = None
        self._owner = 0
        self._file: tuple[int, int] | None = None

    # making and opening

    @classmethod
    def open(cls: type[_Self], path: Path, *, unfinished: bool = False) -> _Self:
        """An existing faceset. `unfinished=True` also opens one whose building was stopped before the selection.

        Raises InputError where there is none, CheckpointError where it is damaged, of another version or unfinished.
        """
        self = cls(path)
        try:
            there = (self.path / INDEX).is_file()
        except OSError as error:
            raise InputError(f"{path} may not be read ({error.strerror}); change its permissions.") from None
        if not there:
            raise InputError(f"{path} is not a faceset ({INDEX} is not there); make one with the faceset command.")
        try:
            self._check(unfinished)
        except CheckpointError:
            self.close()
            raise
        return self

    def _check(self, unfinished: bool) -> None:
        index = self.path / INDEX
        with self._reading():
            found = self._value("PRAGMA application_id"), self._value("PRAGMA user_version")
        if found[0] != APPLICATION_ID:
            raise CheckpointError(f"{index} is not the index of a faceset; name a folder the faceset command made.")
        if found[1] != VERSION:
            raise CheckpointError(
                f"{self.path} is a faceset of format {found[1]} and this version reads format {VERSION}; build it again."
            )
        if not unfinished and not self.finished:
            raise CheckpointError(f"{self.path} is unfinished; run the faceset command on it once more to complete it.")

    def close(self) -> None:
        """Let go of the index; the next use opens it again."""
        if self._connection is not None and self._owner == os.getpid():
            self._connection.close()
        self._connection = None

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_connection": None, "_owner": 0, "_file": None}

    # reading

    def __len__(self) -> int:
        """Number of kept faces."""
        return self.count(kept=True)

    def count(self, kept: bool | None = None) -> int:
        """Number of faces in the index: kept ones, dropped ones, or all."""
        with self._reading():
            return int(self._value(f"SELECT COUNT(*) FROM faces f {_where(kept)}"))

    @property
    def finished(self) -> bool:
        """Whether the selection has been made over everything that was read."""
        return bool(self.setting("finished", False))

    def setting(self, key: str, default: Any = None) -> Any:
        """A value of the faceset's own notes."""
        with self._reading():
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
            return default if row is None else json.loads(row[0])

    def records(
        self, kept: bool | None = True, ids: Sequence[int] | None = None, *, novel: bool = True
    ) -> Iterator[Record]:
        """Faces in order of id (or of `ids`), one at a time; `novel=False` leaves out those that were rendered."""
        names = ", ".join([*(f"f.{c}" for c in rows.COLUMNS), *(f"a.{c}" for c in rows.ARRAYS)])
        query = f"SELECT {names} FROM faces f LEFT JOIN arrays a ON a.id = f.id"
        with self._reading():
            if ids is None:
                for row in self._db.execute(f"{query} {_where(kept, novel)} ORDER BY f.id"):
                    yield self._record(row)
                return
            for one in ids:
                row = self._db.execute(f"{query} WHERE f.id = ?", (int(one),)).fetchone()
                if row is None:
                    raise InputError(f"{self.path} has no face number {one}.")
                yield self._record(row)

    def columns(
        self, *names: str, kept: bool | None = True, whole: bool = False, novel: bool = True
    ) -> dict[str, NDArray[Any]]:
        """Numbers of all faces in order of id, as arrays `[N]`: int64 or float64. Names as `record.NUMBERS`.

        `whole=True` leaves out faces whose arrays were erased, as `array` does; `novel=False` those that were rendered.
        """
        unknown = set(names) - set(rows.NUMBERS)
        if unknown:
            raise ValueError(f"no such column: {sorted(unknown)}")
        table = "faces f JOIN arrays a ON a.id = f.id" if whole else "faces f"
        query = f"SELECT {', '.join(f'f.{n}' for n in names)} FROM {table} {_where(kept, novel)} ORDER BY f.id"
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
        with self._reading():
            found = self._db.execute(query)
            while many := found.fetchmany(_AT_ONCE):
                for name, values in zip(names, zip(*many, strict=True), strict=True):
                    parts[name].append(np.asarray(values))
        arrays = {name: np.concatenate(own) if own else np.zeros(0) for name, own in parts.items()}
        if lacking := [name for name, values in arrays.items() if values.dtype.kind not in "if"]:
            raise self._damaged(f"{lacking[0]} is no number")
        return arrays

    def array(
        self, name: str, kept: bool | None = True, ids: NDArray[np.int64] | None = None, *, novel: bool = True
    ) -> Floats:
        """One of `embedding` `[N, D]`, `expression` `[N, E]`, `light` `[N, L]`, `landmarks` `[N, 1404]` of all faces, or of
        those of `ids` in their order, whether kept or not."""
        if name not in rows.ARRAYS[1:]:
            raise ValueError(f"no such array: {name}")
        with self._reading():
            if ids is None:
                join = f"FROM faces f JOIN arrays a ON a.id = f.id {_where(kept, novel)}"
                total = int(self._value(f"SELECT COUNT(*) {join}"))
                found: Iterator[Any] = self._db.execute(f"SELECT a.{name} {join} ORDER BY f.id")
            else:
                total = len(ids)
                one = f"SELECT {name} FROM arrays WHERE id = ?"
                found = (row for k in ids for row in self._db.execute(one, (int(k),)))
            out = np.zeros((total, 0), dtype=np.float32)
            for i, (blob,) in enumerate(found):
                try:
                    values = np.frombuffer(blob, dtype="<f4")
                    if i == 0:
                        out = np.zeros((total, len(values)), dtype=np.float32)
                except (TypeError, ValueError) as error:
                    raise self._damaged(error) from None
                if len(values) != out.shape[1]:
                    raise self._damaged(f"{name} has {len(values)} numbers")
                out[i] = values
        return out

    def landmarks(self, kept: bool | None = True, ids: NDArray[np.int64] | None = None) -> Floats:
        """`[N, 468, 3]` in crop pixels; of which faces, as `array`."""
        flat = self.array("landmarks", kept, ids)
        return flat.reshape(len(flat), -1, 3)

    def embeddings(self, kept: bool | None = True) -> Floats:
        """`[N, D]`, each of unit length."""
        return self.array("embedding", kept)

    def mean_embedding(self) -> Floats:
        """`[D]` of unit length: the person of the kept faces that were not rendered. Raises CheckpointError where none is kept."""
        vectors = self.array("embedding", novel=False)
        if not len(vectors):
            raise CheckpointError(f"{self.path} holds no face; build it again from clips that show one.")
        mean = vectors.mean(axis=0)
        return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)

    def image_path(self, record: Record) -> Path:
        """Where the crop lies."""
        return self.path / IMAGES / record.image

    def image(self, record: Record) -> Image:
        """The crop, RGB `[size, size, 3]`. Raises CheckpointError where it is missing or damaged."""
        path = self.image_path(record)
        try:
            data = np.fromfile(path, dtype=np.uint8)
        except OSError:
            raise CheckpointError(f"{path} is missing from the faceset; build the faceset again.") from None
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        if picture is None:
            raise CheckpointError(f"{path} is damaged; build the faceset again.")
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def inputs(self) -> list[dict[str, Any]]:
        """Every input: path, frames looked at, faces found, whether it is done, a note where it could not be used."""
        names = ("id", "path", "stamp", "person", "next_frame", "frames", "found", "done", "note")
        with self._reading():
            found = self._db.execute(f"SELECT {', '.join(names)} FROM inputs ORDER BY id").fetchall()
        return [dict(zip(names, row, strict=True)) for row in found]

    def dropped(self) -> dict[str, int]:
        """How many faces were dropped, by reason; those that were never stored are in it too."""
        with self._reading():
            total = dict(self._db.execute("SELECT reason, SUM(count) FROM drops GROUP BY reason").fetchall())
            query = "SELECT reason, COUNT(*) FROM faces WHERE kept = 0 GROUP BY reason"
            for reason, number in self._db.execute(query):
                total[reason] = (total.get(reason) or 0) + number
        return {reason: int(total[reason] or 0) for reason in sorted(total, key=str)}

    def summary(self) -> dict[str, Any]:
        """What the faceset holds, JSON-ready."""
        inputs = self.inputs()
        with self._reading():
            identities = self._value("SELECT COUNT(DISTINCT cluster) FROM faces WHERE cluster >= 0")
            counts = (
                self._value(f"SELECT COUNT(*) FROM faces f WHERE kept = 1 AND synthetic = 1 AND {rendered}")
                for rendered in (f"NOT ({_NOVEL})", _NOVEL)
            )
            synthetic, novel = (int(n) for n in counts)
        return {
            "path": str(self.path),
            "finished": self.finished,
            "faces": len(self),
            "frames": sum(i["frames"] or 0 for i in inputs),
            "found": sum(i["found"] or 0 for i in inputs),
            "dropped": self.dropped(),
            "identities": int(identities),
            "synthetic": synthetic,
            "novel": novel,
            "inputs": [{k: i[k] for k in ("path", "frames", "found", "note")} for i in inputs],
            **{key: self.setting(key) for key in ("size", "image_format", "consent", "spread", "hints", "pictures")},
        }

    # the connection

    @property
    def _db(self) -> sqlite3.Connection:
        """This process's connection; a forked child must not use its parent's. An index that was replaced is opened anew."""
        index = self.path / INDEX
        if self._connection is not None and _identity(index) != self._file:
            self.close()
        if self._connection is None or self._owner != os.getpid():
            self._file = _identity(index)
            # A WAL index needs a writable folder even for reading, unless it is declared to be at rest.
            way = "mode=rw" if os.access(self.path, os.W_OK) and os.access(index, os.W_OK) else "immutable=1"
            uri = f"{index.resolve().as_uri()}?{way}"
            self._connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
            self._owner = os.getpid()
        return self._connection

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise CheckpointError(f"{self.path / INDEX} cannot be read ({error}); build the faceset again.") from None

    def _record(self, row: Sequence[Any]) -> Record:
        try:
            return rows.from_row(row)
        except (TypeError, ValueError, ArithmeticError) as error:  # SQLite holds values of any type in any column
            raise self._damaged(error) from None

    def _damaged(self, what: object) -> CheckpointError:
        return CheckpointError(f"{self.path / INDEX} holds a damaged face ({what}); build the faceset again.")

    def _value(self, query: str) -> Any:
        return self._db.execute(query).fetchone()[0]


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file lies at a path; another one after it was replaced."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


_NOVEL = f"f.synthetic = 1 AND f.source = '{rows.NOVEL}'"


def _where(kept: bool | None, novel: bool = True) -> str:
    asked = [f"f.kept = {int(kept)}"] if kept is not None else []
    asked += [] if novel else [f"NOT ({_NOVEL})"]
    return f"WHERE {' AND '.join(asked)}" if asked else ""
