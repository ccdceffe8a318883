"""Jobs in child processes: one after the other, stopped, gone on with, and told apart when they fail."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lib_vitface.errors import InputError
from lib_vitface.jobs import Job
from lib_vitface.ui import runner as runners
from lib_vitface.ui.runner import Runner, shared_runner
from lib_vitface.ui.site import Site


class FakeChild:
    """Stands for the process; ends when told to, or when terminated."""

    made: list[FakeChild]

    def __init__(self, command: list[str], **_: Any) -> None:
        self.job, self.end, self.returncode = command[3], threading.Event(), 0
        FakeChild.made.append(self)

    def wait(self) -> int:
        assert self.end.wait(20)
        return self.returncode

    def terminate(self) -> None:
        self.returncode = -15
        self.end.set()


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    FakeChild.made = []
    monkeypatch.setattr(runners.subprocess, "Popen", FakeChild)
    return Runner(Site(tmp_path / "w", tmp_path / "out"))


def until(condition: Any, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)


def submit(runner: Runner) -> Job:
    return runner.submit("swap", {"model": "m", "input": "v.mp4"})


def finish(runner: Runner, number: int) -> None:
    child = FakeChild.made[number]
    with runner.store.claim(child.job) as claim:
        claim.finish({"output": "x"})
    child.end.set()


def test_one_after_the_other(runner: Runner) -> None:
    first, second = submit(runner), submit(runner)
    until(lambda: len(FakeChild.made) == 1)
    time.sleep(0.05)
    assert [c.job for c in FakeChild.made] == [first.id], "the second waits"
    assert runner.busy()
    finish(runner, 0)
    until(lambda: len(FakeChild.made) == 2)
    assert FakeChild.made[1].job == second.id
    finish(runner, 1)
    until(lambda: not runner.busy())
    assert [job.state for job in runner.jobs("swap")] == ["done", "done"]


def test_a_waiting_job_is_stopped_at_once(runner: Runner) -> None:
    submit(runner)
    second = submit(runner)
    until(lambda: len(FakeChild.made) == 1)
    assert runner.cancel(second.id).state == "stopped"
    finish(runner, 0)
    time.sleep(0.1)
    assert len(FakeChild.made) == 1, "it must not start after all"


def test_a_starting_job_is_stopped(runner: Runner) -> None:
    job = submit(runner)
    until(lambda: len(FakeChild.made) == 1)
    runner.cancel(job.id)
    until(lambda: runner.get(job.id).state == "stopped")


def test_going_on_waits_and_then_runs(runner: Runner) -> None:
    job = submit(runner)
    until(lambda: len(FakeChild.made) == 1)
    runner.cancel(job.id)
    until(lambda: runner.get(job.id).state == "stopped")
    assert runner.resume(job.id).state == "queued", "not what the store says of its first end"
    until(lambda: len(FakeChild.made) == 2)
    finish(runner, 1)
    until(lambda: runner.get(job.id).state == "done")
    with pytest.raises(InputError, match="finished"):
        runner.resume(job.id)


def test_a_child_that_dies_without_a_word(runner: Runner) -> None:
    job = submit(runner)
    until(lambda: len(FakeChild.made) == 1)
    FakeChild.made[0].returncode = 9
    FakeChild.made[0].end.set()
    until(lambda: runner.get(job.id).state == "failed")
    assert "code 9" in (runner.get(job.id).error or "")


def test_room_is_made_and_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    FakeChild.made = []
    monkeypatch.setattr(runners.subprocess, "Popen", FakeChild)
    site = Site(
        tmp_path / "w",
        tmp_path / "out",
        before_long_work=lambda: said.append("before"),
        after_long_work=lambda: said.append("after"),
    )
    runner = Runner(site)
    submit(runner)
    until(lambda: len(FakeChild.made) == 1)
    assert said == ["before"]
    finish(runner, 0)
    until(lambda: said == ["before", "after"])


def test_a_reloaded_page_finds_the_same_runner(tmp_path: Path) -> None:
    site = Site(tmp_path / "w", tmp_path / "out")
    again = Site(tmp_path / "w", tmp_path / "elsewhere")
    assert shared_runner(site) is shared_runner(again)
    assert shared_runner(again).site is again


def test_unknown_jobs_and_tasks(runner: Runner) -> None:
    for call in (runner.get, runner.cancel, runner.resume, runner.delete):
        with pytest.raises(InputError):
            call("run-none")
    with pytest.raises(InputError, match="known are"):
        runner.submit("nothing", {})


@pytest.mark.slow
def test_a_real_child(tmp_path: Path) -> None:
    """The true process: a record that is not there fails with the command line's own error class."""
    assert subprocess.Popen is not FakeChild
    runner = Runner(Site(tmp_path / "w", tmp_path / "out"))
    job = runner.submit("consent", {"record": "nobody.json"})
    until(lambda: runner.get(job.id).state == "failed", 90)
    job = runner.get(job.id)
    assert "nobody.json" in (job.error or "")
    failure = runner.failure(job)
    assert failure is not None
    assert failure["exit_code"] in {2, 4}
    assert "nobody.json" in runner.log(job.id)
    runner.delete(job.id)
    assert runner.jobs() == []
