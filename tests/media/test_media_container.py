"""Files that may not be opened are not, and a name is only ever given to a whole file."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lib_vitface.errors import InputError, OutputError
from lib_vitface.media import container

MakeVideo = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[2]


def test_a_playlist_opens_nothing_else(tmp_path: Path, make_video: MakeVideo) -> None:
    """A file from a stranger must not make the library read other files, whatever it is called."""
    secret = make_video(tmp_path / "secret.ts", 3, 25)
    for name in ("a.m3u8", "a.mp4"):
        (tmp_path / name).write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret.name}\n#EXT-X-ENDLIST\n")
        with pytest.raises(InputError):
            container.open_input(tmp_path / name)
    (tmp_path / "a.ffconcat").write_text(f"ffconcat version 1.0\nfile {secret.name}\n")
    with pytest.raises(InputError):
        container.open_input(tmp_path / "a.ffconcat")


@pytest.mark.parametrize("name", ["with space & ünï.mp4", "http:x.mp4", "%03d.mp4", "-i.mp4"])
def test_odd_names_are_only_names(tmp_path: Path, make_video: MakeVideo, name: str) -> None:
    made = make_video(tmp_path / "plain.mp4", 3, 25)
    made.rename(tmp_path / name)
    with container.open_input(tmp_path / name) as opened:
        stream = container.video_stream(opened, tmp_path / name)
        assert container.codec_name(stream) == "h264"


def test_what_is_wrong_is_said(tmp_path: Path, make_video: MakeVideo) -> None:
    cut = make_video(tmp_path / "cut.mp4", 5, 25)
    cut.write_bytes(cut.read_bytes()[:600])
    (tmp_path / "text.mp4").write_text("hello " * 100)
    (tmp_path / "empty.mp4").touch()
    cases = {"cut": "cut off", "text": "not a video that can be read", "empty": "zero bytes", "gone": "no such file"}
    for name, words in cases.items():
        with pytest.raises(InputError, match=words):
            container.open_input(tmp_path / f"{name}.mp4")


def test_nothing_but_a_whole_file_gets_the_name(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "out.bin"
    with container.beside(path, lambda p: p.write_bytes(p.read_bytes() + b"!")) as temporary:
        temporary.write_bytes(b"whole")
        assert not path.exists() and temporary.parent == path.parent
    assert path.read_bytes() == b"whole!" and list(path.parent.iterdir()) == [path]
    with pytest.raises(RuntimeError), container.beside(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"whole!" and list(path.parent.iterdir()) == [path]


def test_folders_replace_only_empty_ones(tmp_path: Path) -> None:
    target = tmp_path / "frames"
    for _ in range(2):
        target.mkdir(exist_ok=True)
        for old in target.iterdir():
            old.unlink()
        with container.beside(target) as temporary:
            temporary.mkdir()
            (temporary / "1.png").write_bytes(b"x")
        assert [p.name for p in target.iterdir()] == ["1.png"]
    with pytest.raises(OutputError, match="not empty"), container.beside(target) as temporary:
        temporary.mkdir()
    assert [p.name for p in tmp_path.iterdir()] == ["frames"]


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EACCES, "may not be written"), (errno.EIO, "cannot")]
)
def test_errors_of_the_system_become_sentences(tmp_path: Path, code: int, words: str) -> None:
    with pytest.raises(OutputError, match=words), container.writing(tmp_path / "a.mp4"):
        raise OSError(code, "no")


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX systems")
def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path: Path) -> None:
    """Of that very file, and never what a living process is writing or one on another machine."""
    target, other = tmp_path / "a.json", tmp_path / "b.json"
    program = (
        "import os, sys; from pathlib import Path; from lib_vitface.media.container import beside\n"
        "blocks = [beside(Path(name)) for name in sys.argv[1:]]\n"
        "for block in blocks:\n    block.__enter__().write_text('half')\n"
        "os.kill(os.getpid(), 9)"
    )
    dead = subprocess.run([sys.executable, "-c", program, target, other], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert dead.returncode == -9 and len(list(tmp_path.iterdir())) == 2
    with container.beside(target) as living:
        living.write_text("mine")
        elsewhere = living.with_name(living.name.replace(container._machine(), "zzzz"))
        elsewhere.write_text("theirs")
        with container.beside(target) as temporary:
            temporary.write_text("whole")
        assert living.exists() and elsewhere.exists()
        assert target.read_text() == "whole"
        assert len(list(tmp_path.iterdir())) == 4, "these three, and what is left of the other file"
    assert target.read_text() == "mine"
