"""Work shared by Ray's workers is the same as work of one process, and one that is killed loses nothing."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lib_vitface.assets import locate
from lib_vitface.errors import Cancelled, InputError, MissingDependencyError, ViTFaceError
from lib_vitface.faceset import extract
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.faceset.store import IMAGES, INDEX
from lib_vitface.jobs import JobStore
from lib_vitface.options import build
from lib_vitface.swap.video import redrawer_of, swap_video
from lib_vitface.workers import workers

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "swap"))
from tint import PlainDoor, Tint, options  # noqa: E402

PLAIN = {
    "color": "none",
    "occlusion": False,
    "sharpen": 0,
    "start_s": 0.0,
    "end_s": 0.8,
    "input": locate("sample_source"),
}
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two workers, which can import the tests' stand-ins."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), str(HERE), str(HERE / "swap")])
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=1 << 29)
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


def busy_workers() -> list[int]:
    """Processes of our own workers that are making a call now (Linux)."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if place.joinpath("cmdline").read_bytes().startswith(b"ray::_call") and os.getpid() in ancestors(
                int(place.name)
            ):
                found.append(int(place.name))
    return found


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        found.append(pid)
    return found


class Killer:
    """A tick that kills the first worker it sees at work after `after` calls, once."""

    def __init__(self, after: int = 0) -> None:
        self.after, self.killed, self.calls = after, 0, 0

    def __call__(self, *_: object) -> None:
        self.calls += 1
        if self.calls > self.after and not self.killed and (found := busy_workers()):
            os.kill(found[0], signal.SIGKILL)
            self.killed = found[0]


def squares() -> Callable[[int], int]:
    return square


def square(number: int) -> int:
    if number == 13:
        raise InputError("13 is no number to square; choose another.")
    time.sleep(0.2)
    return number * number


@slow
def test_answers_come_in_order_and_errors_as_they_are(cluster: None) -> None:
    with workers(2) as answers:
        assert list(answers(squares, range(9))) == [k * k for k in range(9)]
        assert list(answers(squares, [])) == []
        with pytest.raises(InputError, match="13 is no number"):
            list(answers(squares, [1, 13, 2]))


@slow
def test_a_call_whose_worker_dies_is_made_again(cluster: None) -> None:
    killer = Killer()
    with workers(2, killer) as answers:
        assert list(answers(slow_squares, range(6))) == [k * k for k in range(6)]
    assert killer.killed


def slow_squares() -> Callable[[int], int]:
    return lambda number: time.sleep(1.5) or number * number


@slow
def test_a_call_that_kills_every_worker_ends_with_a_sentence(cluster: None) -> None:
    with workers(2) as answers, pytest.raises(ViTFaceError, match="A worker ended 4 times at the same piece of work"):
        list(answers(killing, [1]))


def killing() -> Callable[[int], int]:
    return lambda number: os.kill(os.getpid(), signal.SIGKILL) or number


@slow
def test_waiting_may_stop_it(cluster: None) -> None:
    def stop() -> None:
        raise Cancelled("enough")

    with workers(2, stop) as answers, pytest.raises(Cancelled):
        list(answers(slow_squares, range(6)))


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match="pip install ray"), workers(2):
        pass


def of_faceset(folder: Path) -> tuple[Any, ...]:
    """Everything a faceset holds, its pictures too."""
    with sqlite3.connect(folder / INDEX) as database:
        faces, arrays = (database.execute(f"SELECT * FROM {t} ORDER BY id").fetchall() for t in ("faces", "arrays"))
        rest = database.execute("SELECT next_frame, frames, found, done FROM inputs").fetchall()
        drops = database.execute("SELECT * FROM drops ORDER BY reason").fetchall()
    return faces, arrays, rest, drops, {p.name: p.read_bytes() for p in (folder / IMAGES).iterdir()}


def take_faces(folder: Path, tick: Any = lambda *_: None, **values: Any) -> tuple[Any, ...]:
    given = {"input": [locate("sample_source")], "output": folder, "size": 128, "end_s": 1.5, "every": 2, **values}
    extract.extract(build(FacesetOptions, given), tick)
    return of_faceset(folder)


@slow
def test_faces_taken_by_two_workers_are_those_of_one(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "_SHARED", 16)
    alone = take_faces(tmp_path / "alone")
    assert len(alone[0]) > 5 and alone[3]
    assert take_faces(tmp_path / "shared", workers=2) == alone
    killer = Killer()
    assert take_faces(tmp_path / "killed", killer, workers=2) == alone and killer.killed


def swap(folder: Path, tick: Any = lambda *_: None, make: Any = Tint, **values: Any) -> dict[str, Any]:
    folder.mkdir()
    chosen = options(folder, **PLAIN, **values)
    return swap_video(chosen, Tint(), PlainDoor(), JobStore(folder / "work"), tick, make=make)  # type: ignore[arg-type]


@slow
def test_a_video_by_two_workers_is_that_of_one(cluster: None, tmp_path: Path) -> None:
    one = swap(tmp_path / "one")
    two = swap(tmp_path / "two", workers=2)
    assert (tmp_path / "two" / "out.mkv").read_bytes() == (tmp_path / "one" / "out.mkv").read_bytes()
    assert two["frames"] == one["frames"] == 24 and two["swapped_frames"] == one["swapped_frames"]
    killer = KillerOfSwaps()
    swap(tmp_path / "killed", killer, partial(Slow, 8), workers=2)
    assert (
        killer.killed and (tmp_path / "killed" / "out.mkv").read_bytes() == (tmp_path / "one" / "out.mkv").read_bytes()
    )


class KillerOfSwaps(Killer):
    def __call__(self, done: float, total: float, note: str = "") -> None:  # type: ignore[override]
        if "workers" in note:
            super().__call__()


class Slow(Tint):
    """Takes long enough to be killed at work."""

    def __init__(self, _: int) -> None:
        super().__init__()

    def __call__(self, *given: Any, **named: Any) -> Any:
        time.sleep(0.5)
        return super().__call__(*given, **named)


@slow
def test_what_one_process_began_workers_finish(cluster: None, tmp_path: Path) -> None:
    swap(tmp_path / "whole")

    def stop(done: float, total: float, note: str = "") -> None:
        if note == "swapping" and done > 24 + 12:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        swap(tmp_path / "parts", stop)
    chosen = options(tmp_path / "parts", **PLAIN, workers=2)
    store = JobStore(tmp_path / "parts" / "work")
    result = swap_video(chosen, Tint(), PlainDoor(), store, make=Tint)  # type: ignore[arg-type]
    assert result["resumed_chunks"] >= 3
    assert (tmp_path / "parts" / "out.mkv").read_bytes() == (tmp_path / "whole" / "out.mkv").read_bytes()


def test_the_diffusion_pass_is_not_shared(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--workers.*--denoise"):
        redrawer_of(options(tmp_path, **PLAIN, workers=2, denoise=0.2), object())  # type: ignore[arg-type]
