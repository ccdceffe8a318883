"""What is deleted when a record is revoked: everything of the workspace that holds the person's face, told one by one."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib_vitface.faceset.store import INDEX as FACESET
from lib_vitface.jobs import STORE, JobStore
from lib_vitface.models.checkpoint import INDEX as MODEL
from lib_vitface.provenance import audit
from lib_vitface.provenance import consent as records


def erase(record_id: str, workspace: Path) -> dict[str, Any]:
    """Deletes facesets, models (with their previews and backups), uploads and unfinished jobs that belong to a record.

    They are found by the record they carry, anywhere in the workspace, and at the places the audit log names. `deleted` lists each
    with its files and bytes, `left` what could not be deleted, or lies elsewhere and is somebody's own.
    """
    deleted: list[dict[str, Any]] = []
    left: list[str] = []
    folders = list(dict.fromkeys(_folders(record_id, workspace)))
    _jobs(folders, workspace, deleted, left)
    for folder in folders:
        kind = "model" if (folder / MODEL).exists() else "faceset"
        _remove(folder, kind, deleted, left)
    for path in _uploads(record_id, workspace):
        _remove(path, "upload", deleted, left)
    audit.note(workspace, "erased", record=record_id, deleted=[one["path"] for one in deleted], left=left)
    return {"deleted": deleted, "left": left}


def _folders(record_id: str, workspace: Path) -> Iterator[Path]:
    """Facesets and models that carry the record."""
    noted = [
        Path(one["folder"]) for one in audit.entries(workspace) if one.get("record") == record_id and "folder" in one
    ]
    here = [path.parent for path in sorted(workspace.rglob(records.FILE))]
    for folder in [*noted, *here]:
        ours = (folder / FACESET).is_file() or (folder / MODEL).is_file()
        if not ours and [path.name for path in folder.glob("*")] != [
            records.FILE
        ]:  # all but that: an erasing that was killed
            continue  # never a folder that is none of ours
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if json.loads((folder / records.FILE).read_text(encoding="utf-8")).get("id") == record_id:
                yield folder.resolve()


def _uploads(record_id: str, workspace: Path) -> Iterator[Path]:
    """What was uploaded for its facesets. Files elsewhere are the person's own."""
    home = (workspace / "uploads").resolve()
    for one in audit.entries(workspace):
        if one.get("record") == record_id:
            for name in one.get("inputs", ()):
                path = Path(name).resolve()
                if home in path.parents and path.exists():
                    yield path


def _jobs(folders: list[Path], workspace: Path, deleted: list[dict[str, Any]], left: list[str]) -> None:
    """Work that was begun with those facesets and models: frames and faces lie in its folder."""
    if not folders or not (workspace / STORE).is_file():
        return
    store, names = JobStore(workspace), {str(folder) for folder in folders}
    for job in store.list():
        values = job.options.get("options", job.options)
        used = {
            str(Path(v).resolve())
            for k, v in values.items()
            if k in {"model", "source", "output"} and isinstance(v, str)
        }
        if used & names:
            _remove(job.folder, "job", deleted, left)


def _remove(path: Path, kind: str, deleted: list[dict[str, Any]], left: list[str]) -> None:
    """Deletes a file or folder, and notes how much it was."""
    if not path.exists():
        return
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    entry = {"path": str(path), "kind": kind, "files": len(files), "bytes": sum(p.stat().st_size for p in files)}
    try:
        if path.is_dir():
            _empty(path)
            path.rmdir()
        else:
            path.unlink()
    except OSError as error:
        left.append(f"{path}: {error.strerror}")
        return
    deleted.append(entry)


def _empty(folder: Path) -> None:
    """Deletes what a folder holds, last what it is known by, so that after a kill the rest is still found to be deleted."""
    last = [FACESET, MODEL, records.FILE]
    for path in sorted(folder.iterdir(), key=lambda path: (path.name in last and last.index(path.name) + 1, path.name)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
