"""Keys: made once, private, and never silently replaced."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lib_vitface.errors import ConsentError, OutputError
from lib_vitface.provenance import keys
from lib_vitface.provenance.keys import is_signed, known_mark_key, open_keys

FILE = Path("keys", "signing.key")
_RACE = """
import sys, time
from pathlib import Path
from lib_vitface.provenance.keys import open_keys
while not Path(sys.argv[1], "go").exists():
    time.sleep(0.001)
print(open_keys(Path(sys.argv[1], "space")).public)
"""


def test_made_once_and_readable_by_the_owner_only(tmp_path: Path) -> None:
    assert known_mark_key(tmp_path) is None and not (tmp_path / FILE).exists(), "asking makes none"
    first = open_keys(tmp_path)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    again = open_keys(tmp_path)
    assert (again.public, again.mark) == (first.public, first.mark)
    assert known_mark_key(tmp_path) == first.mark and len(first.mark) == 32
    assert [p.name for p in (tmp_path / "keys").iterdir()] == ["signing.key"]


def test_other_workspaces_have_other_keys(tmp_path: Path) -> None:
    a, b = open_keys(tmp_path / "a"), open_keys(tmp_path / "b")
    assert a.public != b.public and a.mark != b.mark


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_a_damaged_key_is_named_and_kept(tmp_path: Path, content: bytes) -> None:
    open_keys(tmp_path)
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ConsentError, match=r"signing\.key: .*backup"):
        open_keys(tmp_path)
    with pytest.raises(ConsentError):
        known_mark_key(tmp_path)
    assert (tmp_path / FILE).read_bytes() == content


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match="another workspace"):
        open_keys(tmp_path / "file")


def test_two_processes_agree_on_one_key(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _RACE, str(tmp_path)]
    root = str(Path(keys.__file__).parents[2])
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root})
        for _ in range(3)
    ]
    (tmp_path / "go").touch()
    public = {process.communicate(timeout=60)[0].strip() for process in running}
    assert public == {open_keys(tmp_path / "space").public}
    assert [p.name for p in (tmp_path / "space" / "keys").iterdir()] == ["signing.key"]


_KILLED = """
import os, signal, sys
from pathlib import Path
from lib_vitface.provenance.keys import open_keys
sys.addaudithook(lambda event, given: event == sys.argv[2] and os.kill(os.getpid(), signal.SIGKILL))
open_keys(Path(sys.argv[1]))
"""


@pytest.mark.parametrize(("moment", "made"), [("os.link", False), ("os.remove", True)])
def test_no_copy_of_a_key_is_left_by_a_kill(tmp_path: Path, moment: str, made: bool) -> None:
    """Neither of one that became none, nor of one that did."""
    root = str(Path(keys.__file__).parents[2])
    dead = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), moment], cwd=root)
    assert dead.returncode == -9 and (tmp_path / FILE).exists() == made
    assert len(list((tmp_path / "keys").iterdir())) == 1 + made
    open_keys(tmp_path)
    assert [p.name for p in (tmp_path / "keys").iterdir()] == ["signing.key"]


def test_threads_of_one_process_agree_on_one_key(tmp_path: Path) -> None:
    for attempt in range(10):
        space, found = tmp_path / str(attempt), []
        barrier = threading.Barrier(4)

        def ask(space: Path = space, found: list[str] = found, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            found.append(open_keys(space).public)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4 and set(found) == {open_keys(space).public}


def test_a_disk_without_hard_links_takes_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAT and some network drives have none."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    first = open_keys(tmp_path)
    assert open_keys(tmp_path).public == first.public
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert [p.name for p in (tmp_path / "keys").iterdir()] == ["signing.key"]


def test_signatures(tmp_path: Path) -> None:
    mine = open_keys(tmp_path)
    signature = mine.sign(b"words")
    assert is_signed(mine.public, b"words", signature)
    assert not is_signed(mine.public, b"other words", signature)
    assert not is_signed(open_keys(tmp_path / "b").public, b"words", signature)
    assert not is_signed("not hex", b"words", signature)
    assert not is_signed(mine.public[:-2], b"words", signature)
    assert not is_signed(mine.public, b"words", "")
