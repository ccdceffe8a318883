"""The job store with real processes that are really killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib_vitface import jobs
from lib_vitface.errors import Cancelled, InputError, OutputError
from lib_vitface.jobs import JobStore

ROOT = Path(__file__).resolve().parent.parent


def child(code: str, *args: object) -> subprocess.Popen:
    """A Python process with the library on its path that prints a line when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    return process


HOLD = """
import sys, time
from pathlib import Path
from lib_vitface.jobs import JobStore
with JobStore(Path(sys.argv[1])).claim(sys.argv[2]) as claim:
    for number in range(int(sys.argv[3])):
        name = f"part {number}.bin"
        (claim.job.folder / name).write_bytes(bytes(8))
        claim.add_chunk("video", number, name, {"frames": number})
    print("ready", flush=True)
    while True:
        claim.check()
        time.sleep(0.02)
"""


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "作業 space")


def test_a_job_comes_back_as_it_was_made(store: JobStore) -> None:
    options = {"input": "ü 日本.mp4", "steps": 3, "rate": 0.1, "end_s": None, "flag": True}
    job = store.create("swap", options)
    assert store.get(job.id) == job
    assert job.options == options and job.state == "queued" and job.folder.is_dir()
    assert job.folder == store.folder / "jobs" / job.id
    other = store.create("train", {})
    assert [j.id for j in store.list()] == [other.id, job.id]
    assert [j.id for j in store.list(kind="swap")] == [job.id]
    assert store.list(state="done") == []
    with pytest.raises(InputError, match="no job 'nope'"):
        store.get("nope")


def test_find_goes_on_with_equal_options_only(store: JobStore) -> None:
    job = store.create("swap", {"a": 1, "b": [1, 2]})
    assert store.find("swap", {"b": [1, 2], "a": 1}).id == job.id
    assert store.find("swap", {"a": 1}) is None
    assert store.find("train", {"a": 1, "b": [1, 2]}) is None
    with store.claim(job.id) as claim:
        claim.finish({"frames": 7})
    assert store.find("swap", {"a": 1, "b": [1, 2]}) is None
    assert store.get(job.id).result == {"frames": 7}


@pytest.mark.parametrize(
    ("error", "state", "sentence"),
    [(None, "done", None), (Cancelled("enough"), "stopped", "enough"), (InputError("bad file"), "failed", "bad file")],
)
def test_the_end_of_a_claim_is_the_state(store: JobStore, error: Exception | None, state: str, sentence: str) -> None:
    job = store.create("swap", {})

    def work() -> None:
        with store.claim(job.id) as claim:
            assert store.get(job.id).state == "running"
            claim.progress(3, 9, "frames")
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(type(error)):
            work()
    after = store.get(job.id)
    assert (after.state, after.error, after.done, after.total, after.note) == (state, sentence, 3, 9, "frames")
    with store.claim(job.id):  # it can always be taken up again, and the old error is gone then
        assert store.get(job.id).error is None


def test_kill_9_leaves_a_resumable_job_with_all_its_chunks(store: JobStore) -> None:
    job = store.create("swap", {})
    process = child(HOLD, store.folder, job.id, 5)
    assert process.stdout.readline() == "ready\n"
    assert store.get(job.id).state == "running" and not store.get(job.id).interrupted
    with pytest.raises(InputError, match=f"worked on by process {process.pid}"):
        store.claim(job.id)
    with pytest.raises(InputError, match="stop it first"):
        store.delete(job.id)
    process.send_signal(signal.SIGKILL)
    time.sleep(0.1)  # not waited for: a zombie counts as gone too
    assert store.get(job.id).interrupted
    began = time.monotonic()
    with store.claim(job.id) as claim:
        assert time.monotonic() - began < 2
        chunks = store.chunks(job.id, "video")
        assert sorted(chunks) == [0, 1, 2, 3, 4]
        assert chunks[3].data == {"frames": 3} and chunks[3].file == "part 3.bin"
        (claim.job.folder / "part 2.bin").unlink()
        assert sorted(store.chunks(job.id, "video")) == [0, 1, 3, 4]
    process.wait()
    store.delete(job.id)
    assert store.list() == []


def test_kill_9_at_random_moments_never_damages_the_store(store: JobStore) -> None:
    """A process that writes chunks as fast as it can is killed again and again; what it noted is there in full."""
    code = (
        HOLD.replace("int(sys.argv[3])", "10**9")
        .replace('print("ready", flush=True)', "pass")
        .replace("claim.add_chunk(", "print(number, flush=True); claim.add_chunk(")
    )
    job = store.create("swap", {})
    for attempt in range(4):
        process = child(code, store.folder, job.id)
        for _ in range(3 + attempt):
            process.stdout.readline()
        process.kill()
        printed = process.stdout.read().split()
        process.wait()
        last = int(printed[-1]) if printed else 2 + attempt
        chunks = store.chunks(job.id, "video")
        assert sorted(chunks) == list(range(len(chunks)))
        assert len(chunks) >= last  # number `last` was announced before it was noted
        db = sqlite3.connect(store.path)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        db.close()


def test_of_many_processes_one_gets_the_job(store: JobStore) -> None:
    code = """
import sys, time
from pathlib import Path
from lib_vitface.errors import InputError
from lib_vitface.jobs import JobStore
store = JobStore(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
try:
    claim = store.claim(sys.argv[2])
    print("mine", flush=True)
    sys.stdin.readline()
except InputError as error:
    print("refused" if "being worked on" in str(error) else error, flush=True)
"""
    job = store.create("swap", {})
    processes = [child(code, store.folder, job.id) for _ in range(4)]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = sorted(process.stdout.readline().strip() for process in processes)
    assert answers == ["mine", "refused", "refused", "refused"]
    for process in processes:
        process.communicate()


def test_stop_reaches_another_process(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job = store.create("swap", {})
    seldom = HOLD.replace("import sys, time", "import sys, time\nfrom lib_vitface import jobs\njobs.BEAT_S = 60.0")
    process = child(seldom, store.folder, job.id, 0)
    process.stdout.readline()
    asked = time.monotonic()
    store.request_stop(job.id)
    while store.get(job.id).state == "running":
        assert time.monotonic() - asked < 1, "the wish is looked for between two beats"
        time.sleep(0.02)
    assert process.wait(timeout=10) != 0
    assert store.get(job.id).state == "stopped"
    with store.claim(job.id) as claim:  # taking it up again forgets the wish
        claim.beat()
        claim.check()


def test_stop_before_anybody_began_is_kept(store: JobStore) -> None:
    job = store.create("swap", {})
    store.request_stop(job.id)
    with pytest.raises(Cancelled), store.claim(job.id) as claim:
        claim.check()


def claimed_elsewhere(store: JobStore, job_id: str) -> None:
    """As if a process on another machine that shares the folder had claimed the job."""
    db = sqlite3.connect(store.path)
    db.execute("UPDATE jobs SET claim='theirs', pid=?, place='other machine', state='running'", (os.getpid(),))
    db.commit()
    db.close()


def test_a_holder_elsewhere_is_watched(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job = store.create("swap", {})
    claimed_elsewhere(store, job.id)
    assert not store.get(job.id).interrupted

    def beat(_seconds: float) -> None:
        db = sqlite3.connect(store.path)
        db.execute("UPDATE jobs SET beats=beats+1")
        db.commit()
        db.close()

    with monkeypatch.context() as patch:
        patch.setattr(jobs.time, "sleep", beat)
        with pytest.raises(InputError, match="being worked on"):
            store.claim(job.id)
    with store.claim(job.id, watch_s=0.05) as claim:  # silent: taken over
        assert claim.job.state == "running"


def test_who_lost_the_job_cannot_write_any_more(store: JobStore) -> None:
    job = store.create("swap", {})
    with pytest.raises(Cancelled, match="taken over"), store.claim(job.id) as old:
        old.add_chunk("video", 0, data={"by": "old"})
        claimed_elsewhere(store, job.id)
        with store.claim(job.id, watch_s=0.0) as new:
            with pytest.raises(Cancelled):
                old.add_chunk("video", 1, data={"by": "old"})
            new.add_chunk("video", 1, data={"by": "new"})
            with pytest.raises(Cancelled):
                old.check()
    assert [c.data["by"] for c in store.chunks(job.id, "video").values()] == ["old", "new"]
    assert store.get(job.id).state == "done"


def test_another_program_with_the_same_process_id_is_not_the_holder(store: JobStore) -> None:
    job = store.create("swap", {})
    store.claim(job.id)
    with pytest.raises(InputError):
        store.claim(job.id)
    db = sqlite3.connect(store.path)
    db.execute("UPDATE jobs SET started='1'")
    db.commit()
    db.close()
    with store.claim(job.id) as claim:
        claim.check()


@pytest.mark.parametrize("jump", [-1e8, 1e8])
def test_clock_jumps_change_nothing(store: JobStore, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    job = store.create("swap", {})
    with store.claim(job.id) as claim:
        real = time.time
        with monkeypatch.context() as patch:
            patch.setattr(jobs.time, "time", lambda: real() + jump)
            claim.beat()
            with pytest.raises(InputError, match="being worked on"):
                store.claim(job.id)
            newer = store.create("swap", {"n": 2})
    assert store.get(job.id).state == "done"
    assert store.list()[0].id == newer.id


def test_progress_is_not_written_for_every_frame(store: JobStore) -> None:
    job = store.create("swap", {})
    with store.claim(job.id) as claim:
        began = time.monotonic()
        for frame in range(2000):
            claim.progress(frame, 2000)
        assert time.monotonic() - began < 1.5
        claim.progress(2000, 2000, "end")
        assert store.get(job.id).note == "end"


def test_damaged_newer_and_unwritable_stores_say_so(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "jobs.sqlite3").write_bytes(b"this is not a database, not at all" * 50)
    with pytest.raises(InputError, match="damaged"):
        JobStore(tmp_path / "a")
    JobStore(tmp_path / "b")
    db = sqlite3.connect(tmp_path / "b" / "jobs.sqlite3")
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(InputError, match="newer ViTFace"):
        JobStore(tmp_path / "b")
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be made"):
        JobStore(tmp_path / "file" / "deeper")
    store = JobStore(tmp_path / "b2")
    (tmp_path / "b2" / "jobs").write_text("no folder")
    with pytest.raises(OutputError, match="cannot be made"):
        store.create("swap", {})
    assert store.list() == []


def test_only_json_goes_in(store: JobStore) -> None:
    with pytest.raises((TypeError, ValueError)):
        store.create("swap", {"path": Path("x")})
    with pytest.raises(ValueError):
        store.create("swap", {"rate": float("nan")})
    assert store.list() == []
    db = sqlite3.connect(store.path)
    store.create("swap", {"a": 1})
    assert json.loads(db.execute("SELECT options FROM jobs").fetchone()[0]) == {"a": 1}
    db.close()
