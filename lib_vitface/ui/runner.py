"""Long work in the background: each job is a child process that outlives the page, the next one waits for its turn.

What is known of a job stands in the workspace's job store (kind `run-TASK`), so another process, or this one after a
restart, sees the same list. The child is `python -m lib_vitface.hosts.worker JOB`.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_vitface import options
from lib_vitface.device import child_environment
from lib_vitface.errors import Cancelled, InputError, OutputError
from lib_vitface.jobs import Job, JobStore
from lib_vitface.tasks import TASKS, Task
from lib_vitface.ui.site import Site

PREFIX = "run-"
LOG = "log.txt"
_TAIL = 4000


class Runner:
    """The jobs of one workspace. One runs at a time, in the order they were given; any thread may call."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.store = JobStore(site.workspace)
        self._waiting: deque[str] = deque()
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self._asked: dict[str, float] = {}  # when a job was queued that has not ended since
        self._cancelled: set[str] = set()
        self._child: tuple[str, subprocess.Popen[bytes]] | None = None

    def submit(self, name: str, values: Mapping[str, Any]) -> Job:
        """A new job, checked and queued. Raises `InputError` for what the task would refuse."""
        task = task_named(name)
        ready = options.to_dict(options.build(task.options, self.site.place(task, values)))
        job = self.store.create(PREFIX + name, ready)
        self._enqueue(job.id)
        return job

    def run_now(self, name: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """A short task, in this process."""
        task = task_named(name)
        ready: Any = options.build(task.options, self.site.place(task, values))
        return task.run(ready, self.site.host(device=getattr(ready, "device", None)))

    def jobs(self, name: str | None = None) -> list[Job]:
        """Newest first."""
        found = [job for job in self.store.list() if job.kind.startswith(PREFIX)]
        return [self._as_seen(job) for job in found if name in (None, task_of(job))]

    def get(self, job_id: str) -> Job:
        """Raises `InputError` where there is no such job."""
        job = self.store.get(job_id)
        if not job.kind.startswith(PREFIX):
            raise InputError(f"There is no job {job_id!r}.")
        return self._as_seen(job)

    def _as_seen(self, job: Job) -> Job:
        """One that was queued again still says in the store how it ended, until its new process has taken it."""
        if job.updated < self._asked.get(job.id, 0.0):
            return replace(job, state="queued", interrupted=False, error=None, note="waiting for its turn")
        return job

    def cancel(self, job_id: str) -> Job:
        """Stops a job at the next good moment; one that waits is stopped at once."""
        job = self.get(job_id)
        if job.state == "running" and not job.interrupted:
            self.store.request_stop(job_id)
        elif job.state in {"queued", "running"}:
            with self._news, contextlib.suppress(ValueError):
                self._waiting.remove(job_id)
            child = self._child
            if child is not None and child[0] == job_id:  # about to take the job
                self._cancelled.add(job_id)
                child[1].terminate()
            else:
                self._stopped(job_id)
        return self.get(job_id)

    def _stopped(self, job_id: str) -> None:
        """Notes that a job nobody works on was stopped."""
        self._asked.pop(job_id, None)
        with contextlib.suppress(Cancelled), self.store.claim(job_id):
            raise Cancelled("Stopped before it began.")

    def resume(self, job_id: str) -> Job:
        """Queues a stopped, failed or interrupted job again; it goes on from what was finished."""
        job = self.get(job_id)
        if job.state == "done":
            raise InputError(f"Job {job_id} is finished; there is nothing to go on with.")
        if job.state == "running" and not job.interrupted:
            raise InputError(f"Job {job_id} is running.")
        self._enqueue(job_id)
        return self.get(job_id)

    def delete(self, job_id: str) -> None:
        """Removes a job that is not running from the list; what it has written stays."""
        job = self.get(job_id)
        self.cancel(job_id)
        self.store.delete(job_id)
        shutil.rmtree(job.folder, ignore_errors=True)

    def log(self, job_id: str) -> str:
        """The end of what the child said."""
        with contextlib.suppress(OSError):
            return (self.get(job_id).folder / LOG).read_text(encoding="utf-8", errors="replace")[-_TAIL:]
        return ""

    def failure(self, job: Job) -> dict[str, Any] | None:
        """Kind, exit code and HTTP status of a failed job's error."""
        noted = self.store.chunks(job.id, "error").get(0)
        return noted.data if noted and job.state == "failed" else None

    def busy(self) -> bool:
        """Whether something runs or waits."""
        return any(job.state == "running" and not job.interrupted for job in self.jobs()) or bool(self._waiting)

    def _enqueue(self, job_id: str) -> None:
        with self._news:
            if job_id in self._waiting:
                return
            self._waiting.append(job_id)
            self._asked[job_id] = time.time()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, name="vitface jobs", daemon=True)
                self._thread.start()
            self._news.notify_all()

    def _work(self) -> None:
        """Starts one child after the other; ends when nothing waits any more."""
        while True:
            with self._news:
                if not self._waiting and not self._news.wait_for(lambda: bool(self._waiting), timeout=5):
                    self._thread = None
                    return
                job_id = self._waiting.popleft()
            if self.site.run_here is not None and self._needs_host(job_id):
                self.site.run_here(job_id)
                self._asked.pop(job_id, None)
                continue
            self.site.before_long_work()
            try:
                self._run(job_id)
            finally:
                self._child = None
                self._asked.pop(job_id, None)
                self.site.after_long_work()

    def _needs_host(self, job_id: str) -> bool:
        """Whether a job draws with the host's own pipeline, which a child process does not have."""
        with contextlib.suppress(InputError, OutputError):
            job = self.store.get(job_id)
            ready: Any = options.build(task_named(task_of(job)).options, job.options)
            return task_of(job) == "swap" and ready.denoise > 0 and ready.denoise_checkpoint is None
        return False

    def _run(self, job_id: str) -> None:
        command = [sys.executable, "-m", "lib_vitface.hosts.worker", job_id, "--workspace", str(self.site.workspace)]
        try:
            folder = self.get(job_id).folder
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / LOG).open("ab") as log:
                # its own session: a Ctrl-C meant for the WebUI, or the WebUI's end, leaves the work going
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=child_environment(),
                    cwd=Path(__file__).resolve().parents[2],
                    start_new_session=True,
                )
                self._child = job_id, child
                child.wait()
        except (OSError, InputError, OutputError) as error:
            with contextlib.suppress(InputError, OutputError), self.store.claim(job_id):
                raise OutputError(f"The job's process cannot be started ({error}).") from error
            return
        with contextlib.suppress(InputError, OutputError):  # it may have been deleted meanwhile
            self._settle(job_id, child.returncode)

    def _settle(self, job_id: str, code: int) -> None:
        """What the store must say after a process that ended without saying it itself."""
        job = self.store.get(job_id)
        if job_id in self._cancelled:
            self._cancelled.discard(job_id)
            if job.state != "stopped":
                self._stopped(job_id)
        elif job.state == "queued" or job.interrupted:  # died before or without a word
            with self.store.claim(job_id):
                raise OutputError(f"The job's process ended with code {code}; its log says why.")


def task_named(name: str) -> Task:
    """Raises `InputError` for a task that does not exist."""
    if name not in TASKS:
        raise InputError(f"There is no task {name!r}; known are {', '.join(TASKS)}.")
    return TASKS[name]


def task_of(job: Job) -> str:
    return job.kind.removeprefix(PREFIX)


@functools.lru_cache(maxsize=8)
def _shared(workspace: Path) -> dict[str, Runner]:
    return {}


def shared_runner(site: Site) -> Runner:
    """The one runner of a workspace in this process: a reloaded page finds the jobs and the queue of the one before."""
    kept = _shared(site.workspace.resolve())
    runner = kept.setdefault("runner", Runner(site))
    runner.site = site
    return runner
