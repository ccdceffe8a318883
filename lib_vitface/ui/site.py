"""What a host tells the tabs and the routes: which folders, which device, and what a path may point at."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_vitface import options
from lib_vitface.assets import digest
from lib_vitface.errors import InputError
from lib_vitface.tasks import Task
from lib_vitface.types import Denoiser, Host, Tick, no_tick

UPLOAD_LIMIT = 2 << 30
UPLOAD_COUNT = 500
_BESIDE = ("", "-wal", "-shm", "-journal")  # what SQLite writes beside a file
PRIVATE = ("keys", *(f"{name}.sqlite3{more}" for name in ("jobs", "audit") for more in _BESIDE))


@dataclass(frozen=True)
class Site:
    """Facts of a host, the same for form and API.

    `workspace` holds facesets, models, jobs, keys and uploads; `outputs` is where results go; `allowed` are further folders
    that paths may lie in. `device` is what "auto" stands for. `exclusive` gives sole use of it, `denoiser` is there where a
    diffusion pipeline is; `run_here` then does a job (by its id) in this process, whatever comes of it. `samplers` and
    `schedules` are what the pipeline has. `before_long_work` and `after_long_work` let the host make room on its device and
    come back.
    """

    workspace: Path
    outputs: Path
    allowed: tuple[Path, ...] = ()
    device: str = "auto"
    exclusive: Callable[[], AbstractContextManager[object]] = nullcontext
    denoiser: Denoiser | None = None
    run_here: Callable[[str], None] | None = None
    samplers: Callable[[], list[str]] = field(default=list)
    schedules: Callable[[], list[str]] = field(default=list)
    before_long_work: Callable[[], None] = field(default=lambda: None)
    after_long_work: Callable[[], None] = field(default=lambda: None)
    upload_limit: int = UPLOAD_LIMIT

    @property
    def models(self) -> Path:
        return self.workspace / "models"

    @property
    def facesets(self) -> Path:
        return self.workspace / "facesets"

    @property
    def uploads(self) -> Path:
        return self.workspace / "uploads"

    @property
    def records(self) -> Path:
        return self.workspace / "records"

    def host(self, tick: Tick = no_tick, device: str | None = None) -> Host:
        """The host as a task sees it."""
        return Host(self.workspace, device or self.device, tick, self.exclusive, self.denoiser)

    def names(self, kind: str) -> list[str]:
        """Folders that are a `model` or a `faceset`, by name, newest first; names stand for paths in every option."""
        index = {"model": "model.json", "faceset": "faceset.sqlite"}[kind]
        folder = self.models if kind == "model" else self.facesets
        found = sorted(folder.glob(f"*/{index}"), key=lambda path: path.stat().st_mtime, reverse=True)
        return [
            path.parent.name for path in found if not path.parent.name.startswith(".")
        ]  # else it is still being written

    def resolve(self, given: str | Path, home: Path, flag: str, writing: bool = False) -> Path:
        """An absolute path inside the folders that may be used; a bare name lies in `home`. Raises `InputError`."""
        text = str(given).strip().strip('"') if isinstance(given, (str, Path)) else ""
        if not text or "\x00" in text:
            raise InputError(f"{flag}: {given!r} is not a path.")
        try:
            path = (home / Path(text).expanduser()).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{flag}: {text[:200]!r} cannot be used ({error}).") from None
        workspace = self.workspace.resolve()
        folders = [workspace, self.outputs.resolve(), *(folder.resolve() for folder in self.allowed)]
        private = path == workspace or any(
            path == workspace / name or workspace / name in path.parents for name in PRIVATE
        )
        if private or (writing and path in folders) or not any(path == f or f in path.parents for f in folders):
            allowed = ", ".join(str(folder) for folder in folders)
            raise InputError(f"{flag}: {text[:200]} is outside the folders ViTFace may use ({allowed}).")
        return path

    def find(self, given: str | Path, home: Path, flag: str) -> Path:
        """As `resolve`, of what is there already: a name that `home` does not have is looked for among uploads, results, facesets
        and models. Raises `InputError`."""
        own = self.resolve(given, home, flag)
        if _is_there(own):
            return own
        for folder in (self.uploads, self.outputs, self.facesets, self.models):
            with contextlib.suppress(InputError):
                path = self.resolve(given, folder, flag)
                if _is_there(path):
                    return path
        return own

    def place(self, task: Task, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a form or request with every path made absolute and checked; outputs get a name where they have none, and
        "auto" is this host's device."""
        ready = {name: value for name, value in values.items() if value not in (None, "", [])}
        for item in options.declared(task.options):
            if item.name == "device" and ready.get("device", item.default) == item.default:
                ready["device"] = self.device
            if item.type is not Path:
                continue
            if item.name not in ready and _is_written(item) and item.required:
                ready[item.name] = self.fresh_name(task.name, ready)
            if item.name in ready:
                ready[item.name] = self.paths_of(task.name, item, ready[item.name])
        return ready

    def paths_of(self, task: str, item: options.Declared, given: Any) -> str | list[str] | None:
        """What was given for an option that is a path, or several (a list, or one a line), made absolute and checked."""
        listed = isinstance(given, list) and item.many
        if not listed and not isinstance(given, (str, Path)):
            raise InputError(f"{item.flag}: {given!r} is not a path.")
        many = given if isinstance(given, list) else str(given).splitlines() if item.many else [given]
        home, writing = self._home(task, item), _is_written(item)
        chosen = writing or role_of(task, item.name) is not None
        paths = [
            str(self.resolve(one, home, item.flag, writing) if chosen else self.find(one, home, item.flag))
            for one in many
            if str(one).strip()
        ]
        return paths if item.many else (paths[0] if paths else None)

    def _home(self, task: str, item: options.Declared) -> Path:
        """Where a bare name lies."""
        role = role_of(task, item.name)
        if role is not None:
            return {"model": self.models, "faceset": self.facesets, "record": self.records}[role]
        return self.outputs if item.spec.kind == "output" or item.name in {"output", "result"} else self.uploads

    def fresh_name(self, task: str, values: Mapping[str, Any]) -> str:
        """A name that is not taken, with the input's own suffix where there is one."""
        stamp = time.strftime("%Y%m%d-%H%M%S")
        if role_of(task, "output") == "faceset":
            return f"faceset-{stamp}"
        given = values.get("input") or values.get("target") or ""
        suffix = Path(str(given)).suffix.lower()
        folder = suffix == "" or task == "demo"
        return f"{task}-{stamp}{'' if folder else '.png' if suffix in {'.heic', '.bmp', '.tif', '.tiff'} else suffix}"

    def keep_upload(self, source: Path, name: str | None = None) -> Path:
        """A copy of an uploaded file in the workspace; the same content is kept once. Raises `InputError`, `OutputError`."""
        from lib_vitface.media.container import beside, writing

        size = source.stat().st_size
        if size > self.upload_limit:
            raise InputError(
                f"{name or source.name}: is larger than {self.upload_limit >> 20} MiB, the limit of uploads."
            )
        with writing(self.uploads):
            path = self.uploads / digest(source)[:12] / safe_name(name or source.name)
            with beside(path) as temporary:
                shutil.copyfile(source, temporary)
        return path


def _is_there(path: Path) -> bool:
    with contextlib.suppress(OSError):  # a name that is too long for a file
        return path.exists()
    return False


def _is_written(item: options.Declared) -> bool:
    return item.spec.kind == "output" or item.name == "output"


def role_of(task: str, name: str) -> str | None:
    """Whether an option names a model, a faceset or a consent record of the workspace."""
    if name == "model" or (task, name) in {("swap", "also"), ("export", "output")}:
        return "model"
    if (task == "train" and name in {"source", "target", "more_sources"}) or (task == "faceset" and name == "output"):
        return "faceset"
    if name in {"record", "consent"}:
        return "record"
    return None


def safe_name(name: str) -> str:
    """A file name without folders and without characters that mean something to a shell or a disk."""
    clean = re.sub(r"[^\w.\- ]", "_", Path(name.replace("\\", "/")).name).strip(". ")
    return clean[-100:] or "file"
