"""What people hand in by mistake, through the command line: one clear sentence, the exit code, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_clone import RATE, STEPS, TINY, TRAINING, SmallClone, images, run

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.models import config as model_config
from lib_vitface.models.checkpoint import open_model
from lib_vitface.provenance import consent
from lib_vitface.provenance.keys import open_keys

MakeVideo = Callable[..., Path]
NOBODY = 65534


@dataclass
class Bench:
    """A folder for one test, its own workspace, and the made clone (to be read only)."""

    folder: Path
    made: SmallClone
    capsys: pytest.CaptureFixture[str]

    @property
    def output(self) -> Path:
        return self.folder / "out.mp4"

    def run(self, *arguments: object) -> tuple[int, dict[str, Any], str]:
        return run(self.capsys, self.made.workspace, *arguments, "--quiet")

    def fails(self, code: int, words: str, *arguments: object) -> str:
        """Runs a command that must fail like this; returns the sentence."""
        before = self.files()
        got, said, err = self.run(*arguments)
        assert got == code, err
        message = said["error"]["message"]
        assert said["error"]["exit_code"] == code and err == f"vitface: {message}\n", "one line"
        assert re.search(words, message), message
        assert not re.search(r"\. [A-Z]", message), f"one sentence: {message}"
        assert "Error" not in message and "Traceback" not in message
        assert self.files() == before, "nothing is left behind"
        return message

    def files(self) -> dict[str, bytes]:
        found = (p for p in self.folder.rglob("*") if p.is_file() and "workspace" not in p.parts)
        return {p.relative_to(self.folder).as_posix(): p.read_bytes() for p in found}

    def swap(self, path: object, output: Path | None = None, model: Path | None = None) -> tuple[object, ...]:
        return ("swap", "--model", model or self.made.model, "--input", path, "--output", output or self.output)

    def copy_of_model(self) -> Path:
        return Path(shutil.copytree(self.made.model, self.folder / "model"))


@pytest.fixture
def bench(
    clone_files: SmallClone, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Bench:
    monkeypatch.setitem(model_config.PRESETS, "cpu", TINY)
    return Bench(tmp_path, clone_files, capsys)


def commands(bench: Bench, path: Path) -> dict[str, tuple[object, ...]]:
    """Every task with a bad file in the place where it takes footage."""
    made, out = bench.made, bench.folder
    return {
        "swap": bench.swap(path),
        "faceset": ("faceset", "--input", path, "--output", out / "set"),
        "evaluate": ("evaluate", "--source", made.source, "--target", made.clip, "--result", path),
        "inspect": ("inspect", "--input", path),
        "consent": (
            "consent",
            "--action",
            "write",
            "--adult",
            "--record",
            out / "r.json",
            "--who",
            "Ann",
            "--source",
            path,
        ),
        "clone source": (
            "clone",
            "--source",
            path,
            "--target",
            made.clip,
            "--output",
            bench.output,
            "--work",
            out / "work",
        ),
        "clone target": (
            "clone",
            "--source",
            made.person,
            "--target",
            path,
            "--output",
            bench.output,
            "--work",
            out / "work",
        ),
    }


TAKING_FOOTAGE = ("swap", "faceset", "evaluate", "inspect", "consent", "clone source", "clone target")


@pytest.mark.parametrize("task", TAKING_FOOTAGE)
def test_missing_file(bench: Bench, task: str) -> None:
    path = bench.folder / "無い clip.mp4"
    bench.fails(2, r"無い clip\.mp4: there is no such file; check the name", *commands(bench, path)[task])
    assert not (bench.folder / "set").exists() and not (bench.folder / "work").exists()


@pytest.mark.parametrize("task", TAKING_FOOTAGE)
def test_zero_bytes(bench: Bench, task: str) -> None:
    path = bench.folder / "empty.mp4"
    path.touch()
    bench.fails(2, r"empty\.mp4: the file is empty \(zero bytes\); copy or download", *commands(bench, path)[task])


@pytest.mark.parametrize("task", TAKING_FOOTAGE)
def test_text_named_mp4(bench: Bench, task: str) -> None:
    path = bench.folder / "notes.mp4"
    path.write_text("Dear diary, this is no video. " * 100)
    bench.fails(2, r"notes\.mp4: it is not a video that can be read; give an MP4", *commands(bench, path)[task])


@pytest.mark.parametrize("task", TAKING_FOOTAGE)
def test_truncated_mp4(bench: Bench, task: str) -> None:
    """A recording that was broken off: the index, which is written last, is missing."""
    path = bench.folder / "cut.mp4"
    data = bench.made.clip.read_bytes()
    path.write_bytes(data[: data.index(b"moov") // 2])
    bench.fails(2, r"cut\.mp4: the video is cut off.*copy or record it again", *commands(bench, path)[task])


def test_truncated_mp4_with_its_index(bench: Bench, make_video: MakeVideo) -> None:
    """A broken download: the index tells of frames that are not there. What is there is used, or it is said."""
    whole = make_video(
        bench.folder / "whole.mp4", images("sample_target", 20), RATE, container_options={"movflags": "faststart"}
    )
    path = bench.folder / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    code, said, err = bench.run(*bench.swap(path))
    if code:
        assert code == 2 and "cut.mp4" in err and not bench.output.exists()
    else:
        assert 0 < said["frames"] < 20 and len(list(media.read_frames(bench.output))) == said["frames"]


@pytest.mark.parametrize("task", TAKING_FOOTAGE)
def test_sound_only(bench: Bench, make_video: MakeVideo, task: str) -> None:
    import av

    path = bench.folder / "song.mp4"
    make_video(bench.folder / "with.mp4", 10, audio="aac")
    with av.open(str(bench.folder / "with.mp4")) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    bench.fails(2, r"song\.mp4: it holds sound but no picture; give a video", *commands(bench, path)[task])


@pytest.mark.parametrize("task", ["swap", "faceset", "evaluate", "consent", "clone source"])
def test_no_face(bench: Bench, make_video: MakeVideo, task: str) -> None:
    path = make_video(bench.folder / "empty street.mp4", images("sample_no_face", 8), RATE)
    arguments = commands(bench, path)[task]
    if task == "evaluate":
        arguments = ("evaluate", "--source", path, "--target", bench.made.clip, "--result", bench.made.clip)
    before = set(bench.files())
    code, said, err = bench.run(*arguments)
    assert code == 3 and said["error"]["kind"] == "NoFaceError"
    assert re.search(r"empty street\.mp4|set|source", err) and "face" in err and err.count("\n") == 1
    assert not bench.output.exists() and not (bench.folder / "r.json").exists()
    if task in {"swap", "evaluate", "consent"}:
        assert set(bench.files()) == before


def test_no_face_on_a_picture(bench: Bench) -> None:
    path = bench.folder / "street.png"
    media.write_image(path, images("sample_no_face", 1)[0])
    bench.fails(3, r"street\.png: .*not found.*clearer picture", *bench.swap(path, bench.folder / "o.png"))


def test_two_people_in_the_source(bench: Bench, make_video: MakeVideo) -> None:
    """Nobody is chosen by chance; with a picture of the person it goes on."""
    left, right = images("sample_source", 8, every=4), images("sample_target", 8, every=4)
    pairs = [np.hstack([a[:, 120:480], b[:, 200:560]]) for a, b in zip(left, right, strict=True)]
    path = make_video(bench.folder / "both.mp4", pairs, 10, options={"crf": "12"})
    arguments = ("faceset", "--input", path, "--output", bench.folder / "set", "--size", "128", "--min-change", 0)
    code, _, err = bench.run(*arguments)
    assert code == 2 and "--person" in err and err.count("\n") == 1
    media.write_image(bench.folder / "left.png", left[0])
    code, said, err = bench.run(*arguments, "--person", bench.folder / "left.png")
    assert code == 0 and said["faces"] > 0 and said["dropped"]


def test_one_frame_video(bench: Bench, make_video: MakeVideo) -> None:
    """Is a video like any other."""
    path = make_video(bench.folder / "one.mp4", images("sample_target", 1), RATE, audio="aac")
    code, said, err = bench.run(*bench.swap(path))
    assert code == 0, err
    assert (said["frames"], said["swapped_frames"]) == (1, 1)
    assert [f.time for f in media.read_frames(bench.output)] == [0]
    code, said, err = bench.run("inspect", "--input", bench.output, "--no-search")
    assert code == 0 and said["files"][0]["mark"]["authentic"]
    code, said, err = bench.run("faceset", "--input", path, "--output", bench.folder / "set", "--size", 128)
    assert code == 0 and said["faces"] == 1


@contextlib.contextmanager
def ordinary_person() -> Iterator[None]:
    """Root may read and write anything; within the block the process is nobody, as an ordinary person would be."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that an ordinary person can reach; pytest's own is for its user only."""
    if not hasattr(os, "seteuid"):
        pytest.skip("no users to change to on this system")
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.mark.parametrize("task", ["swap", "faceset", "inspect", "consent"])
def test_unreadable_folder(bench: Bench, outside: Path, task: str) -> None:
    folder = outside / "private"
    folder.mkdir()
    media.write_image(folder / "a.png", images("sample_target", 1)[0])
    bench.made = replace(bench.made, workspace=outside / "workspace")
    bench.folder = outside / "out"
    for path in (bench.folder, bench.made.workspace):
        path.mkdir()
    arguments = commands(bench, folder)[task]
    bench.run("inspect", "--input", folder)  # loads what an ordinary person could not load from here
    for path in (outside, bench.folder, bench.made.workspace):
        path.chmod(0o777)
    folder.chmod(0o000)
    with ordinary_person():
        got, said, err = bench.run(*arguments)
    folder.chmod(0o700)
    assert got == 2 and re.search(r"private: .*may not be read; change its permissions", err), err
    assert said["error"]["exit_code"] == 2 and list(bench.folder.iterdir()) == []


def test_output_not_writable(outside: Path) -> None:
    folder = outside / "locked"
    folder.mkdir(mode=0o555)
    outside.chmod(0o777)
    image = images("sample_target", 1)[0]
    with (
        ordinary_person(),
        pytest.raises(Exception, match=r"locked.*it may not be written; choose another folder") as caught,
    ):
        media.write_image(folder / "x.png", image)
    assert getattr(caught.value, "exit_code", None) == 6 and list(folder.iterdir()) == []


@pytest.mark.parametrize("task", ["swap", "swap picture", "faceset", "train", "consent", "evaluate"])
def test_output_below_a_file(bench: Bench, task: str) -> None:
    """A place where nothing can be written, whoever asks."""
    (bench.folder / "file").write_text("no folder")
    media.write_image(bench.folder / "a.png", images("sample_target", 1)[0])
    made, place = bench.made, bench.folder / "file"
    arguments: tuple[object, ...] = {
        "swap": bench.swap(made.clip, place / "o.mp4"),
        "swap picture": bench.swap(bench.folder / "a.png", place / "o.png"),
        "faceset": ("faceset", "--input", made.person, "--output", place / "set"),
        "train": (
            "train",
            "--source",
            made.source,
            "--target",
            made.target,
            "--model",
            place / "m",
            "--steps",
            1,
            *TRAINING,
        ),
        "consent": (
            "consent",
            "--action",
            "write",
            "--adult",
            "--record",
            place / "r.json",
            "--who",
            "Ann",
            "--source",
            made.person,
        ),
        "evaluate": (
            "evaluate",
            "--source",
            made.source,
            "--target",
            made.clip,
            "--result",
            made.clip,
            "--report",
            place / "r",
        ),
    }[task]
    bench.fails(6, r"file.*(choose|name) ", *arguments)


@pytest.mark.parametrize("existing", ["file", "folder", "input"])
def test_output_exists(bench: Bench, existing: str) -> None:
    path = shutil.copy(bench.made.clip, bench.folder / "clip.mp4")
    output = bench.output
    if existing == "file":
        output.write_bytes(b"precious")
    elif existing == "folder":
        output.mkdir()
        (output / "precious").write_bytes(b"x")
    else:
        output = path
    bench.fails(
        2, r"(is there already; name another output or use --overwrite|is the input itself)", *bench.swap(path, output)
    )


def test_output_exists_elsewhere(bench: Bench) -> None:
    made = bench.made
    record = bench.folder / "r.json"
    shutil.copy(made.model / consent.FILE, record)
    write = ("consent", "--action", "write", "--adult", "--who", "Ann", "--source", made.person, "--record", record)
    bench.fails(2, r"r\.json: is there already; name another", *write)
    bench.output.write_bytes(b"precious")
    clone = (
        "clone",
        "--source",
        made.person,
        "--target",
        made.clip,
        "--output",
        bench.output,
        "--work",
        bench.folder / "w",
    )
    bench.fails(2, r"out\.mp4: is there already", *clone)
    taken = bench.folder / "taken"
    taken.mkdir()
    (taken / "holiday.txt").write_text("x")
    bench.fails(6, r"taken holds other files", "faceset", "--input", made.person, "--output", taken)
    bench.fails(6, "--exists", "faceset", "--input", made.person, "--output", made.source, "--exists", "fail")


def test_paths_with_spaces_and_japanese(bench: Bench) -> None:
    folder = bench.folder / "私の 動画 (1)" / "デ ータ's & #1%"
    folder.mkdir(parents=True)
    clip = Path(shutil.copy(bench.made.clip, folder / "目標: クリップ 1.mp4"))
    model = shutil.copytree(bench.made.model, folder / "モデル m")
    code, said, err = bench.run(
        "faceset", "--input", clip, "--output", folder / "顔 セット", "--size", 128, "--every", 4
    )
    assert code == 0 and said["faces"] > 0, err
    code, said, err = bench.run(*bench.swap(clip, folder / "出力 1.mp4", model), "--end-s", "0.3")
    assert code == 0 and said["output"].endswith("出力 1.mp4"), err
    picture = folder / "写真 #1.png"
    media.write_image(picture, images("sample_target", 1)[0])
    code, said, err = bench.run(*bench.swap(picture, folder / "新 しい" / "写真.webp", model))
    assert code == 0, err
    code, said, err = bench.run("inspect", "--input", folder / "出力 1.mp4", folder / "新 しい", "--no-search")
    assert code == 0 and said["synthetic"] and len(said["files"]) == 2


def spoil(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
    elif how == "text":
        path.write_text("hello")
    else:
        path.unlink()


@pytest.mark.parametrize("part", ["weights", "memory_source", "model.json"])
@pytest.mark.parametrize("how", ["cut", "flipped", "text", "gone"])
def test_corrupt_checkpoint(bench: Bench, part: str, how: str) -> None:
    model = bench.copy_of_model()
    path = model / (part if part == "model.json" else open_model(model).files[part])
    if part == "model.json" and how == "flipped":
        path.write_text(path.read_text().replace('"step"', '"stop"'))
    else:
        spoil(path, how)
    bench.fails(7, r"model.*(backup|train)", *bench.swap(bench.made.clip, model=model))


def test_corrupt_checkpoint_is_not_trained_on(bench: Bench) -> None:
    model = bench.copy_of_model()
    spoil(model / open_model(model).files["state"], "flipped")
    made = bench.made
    arguments = (
        "train",
        "--source",
        made.source,
        "--target",
        made.target,
        "--model",
        model,
        "--steps",
        STEPS + 1,
        *TRAINING,
    )
    bench.fails(7, r"state-.*damaged.*backup", *arguments)


@pytest.mark.parametrize("change", [("--preset", "small"), ("--encoder", "saehd-df"), ("--resolution", "96")])
def test_checkpoint_of_another_preset(bench: Bench, change: tuple[str, str]) -> None:
    model, made = bench.copy_of_model(), bench.made
    arguments = (
        "train",
        "--source",
        made.source,
        "--target",
        made.target,
        "--model",
        model,
        "--steps",
        STEPS + 1,
        *TRAINING,
    )
    bench.fails(
        7, r"model holds a model of another architecture.*choose its options or another folder", *arguments, *change
    )


def test_faceset_of_another_version(bench: Bench) -> None:
    made = bench.made
    other = shutil.copytree(made.target, bench.folder / "set")
    with contextlib.closing(sqlite3.connect(other / "faceset.sqlite")) as index:
        index.execute("PRAGMA user_version=99")
    words = r"set is a faceset of format 99 and this version reads format 1; build it again"
    train = ("train", "--model", bench.folder / "m", "--steps", 1, *TRAINING)
    bench.fails(7, words, *train, "--source", made.source, "--target", other)
    bench.fails(7, words, *train, "--source", other, "--target", made.target)
    bench.fails(7, words, "evaluate", "--source", other, "--target", made.clip, "--result", made.clip)
    bench.fails(7, words, "faceset", "--input", made.person, "--output", other)


def test_folders_that_are_none_of_ours(bench: Bench) -> None:
    made, empty = bench.made, bench.folder / "empty"
    empty.mkdir()
    bench.fails(7, r"empty holds no model.*train one", *bench.swap(made.clip, model=empty))
    bench.fails(7, r"none holds no model.*train one", *bench.swap(made.clip, model=bench.folder / "none"))
    train = ("train", "--model", bench.folder / "m", "--steps", 1, *TRAINING)
    bench.fails(2, r"empty is not a faceset.*faceset command", *train, "--source", empty, "--target", made.target)
    bench.fails(
        2, r"none is not a faceset.*faceset command", *train, "--source", made.source, "--target", bench.folder / "none"
    )
    bench.fails(2, r"empty: no video or picture is there; name another path", "inspect", "--input", empty)
    bench.fails(2, r"empty", *bench.swap(empty, bench.folder / "o"))


# consent


def test_model_without_its_record(bench: Bench) -> None:
    model = bench.copy_of_model()
    (model / consent.FILE).unlink()
    bench.fails(
        4, r"model.consent\.json: there is no consent record; write one", *bench.swap(bench.made.clip, model=model)
    )


def test_model_with_a_changed_record(bench: Bench) -> None:
    model = bench.copy_of_model()
    values = json.loads((model / consent.FILE).read_text())
    (model / consent.FILE).write_text(json.dumps({**values, "who": "somebody else"}))
    bench.fails(
        4,
        r"model.consent\.json: .*changed after it was signed; use an unchanged copy",
        *bench.swap(bench.made.clip, model=model),
    )


def test_model_with_another_record(bench: Bench) -> None:
    model = bench.copy_of_model()
    look = np.asarray(consent.load_record(model / consent.FILE).reference, np.float32)
    consent.save_record(
        consent.make_record(open_keys(bench.folder / "workspace"), "B", "yes", look), model / consent.FILE
    )
    words = r"model: its consent record is not the one it was trained under; put the right consent\.json back"
    bench.fails(4, words, *bench.swap(bench.made.clip, model=model))


def test_model_with_a_revoked_record(bench: Bench) -> None:
    """In the workspace it was revoked in, nothing is made with it any more, and what was made there is gone; a copy of the
    model that was put aside does not load."""
    made = bench.made
    workspace = bench.folder / "workspace"  # the audit log of the shared one names the shared model
    for name in ("keys/signing.key", "consent"):
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (made.workspace / name).is_dir() else shutil.copy
        copy(made.workspace / name, workspace / name)
    shutil.copytree(made.model, workspace / "models" / "me")
    shutil.copytree(made.source, workspace / "facesets" / "me")
    aside = shutil.copytree(made.model, bench.folder / "put aside")
    record = shutil.copy(made.model / consent.FILE, bench.folder / "record.json")
    bench.made = made = replace(made, workspace=workspace, model=aside)
    code, said, _ = bench.run("consent", "--action", "revoke", "--record", record)
    assert code == 0 and "was revoked" in said["state"]
    assert sorted((one["kind"], Path(one["path"]).parent.name) for one in said["deleted"]) == [
        ("faceset", "facesets"),
        ("model", "models"),
    ]
    assert not list((workspace / "models").iterdir()) and not list((workspace / "facesets").iterdir())
    assert all(one["files"] > 3 and one["bytes"] > 1000 for one in said["deleted"]) and said["left"] == []
    bench.fails(4, r"was revoked; its models may not be used", *bench.swap(made.clip, model=aside))
    train = ("train", "--source", made.source, "--target", made.target, "--model", aside, "--steps", STEPS + 1)
    bench.fails(4, "was revoked", *train, *TRAINING)
    code, said, _ = bench.run("consent", "--record", record)
    assert code == 0 and "was revoked" in said["state"], "showing it is no error"
    for note in (workspace / "consent").glob("*.revoked.json"):
        note.unlink()
    bench.fails(4, "was revoked", *bench.swap(made.clip, model=aside))


def test_faceset_of_somebody_else_than_the_record(bench: Bench) -> None:
    made, record = bench.made, bench.folder / "r.json"
    write = ("consent", "--action", "write", "--adult", "--record", record, "--who", "山田", "--source", made.person)
    code, said, err = bench.run(*write)
    assert code == 0 and said["state"] == "valid" and said["who"] == "山田", err
    arguments = ("faceset", "--input", made.clip, "--output", bench.folder / "set", "--size", 128, "--every", 4)
    code, said, err = bench.run(*arguments, "--consent", record)
    assert code == 4 and "somebody else than the consent record" in err
    assert not (bench.folder / "set" / consent.FILE).exists()
    assert not list((bench.folder / "set" / "images").iterdir()), "nothing of that person is kept"
    source = shutil.copytree(made.target, bench.folder / "wrong")
    shutil.copy(record, source / consent.FILE)
    train = (
        "train",
        "--source",
        source,
        "--target",
        made.target,
        "--model",
        bench.folder / "m",
        "--steps",
        1,
        *TRAINING,
    )
    bench.fails(4, "somebody else", *train)


def test_training_under_another_record_leaves_the_model_usable(bench: Bench) -> None:
    made, model = bench.made, bench.copy_of_model()
    source = Path(shutil.copytree(made.source, bench.folder / "source"))
    (source / consent.FILE).unlink()  # the declaration that the training made
    write = (
        "consent",
        "--action",
        "write",
        "--adult",
        "--record",
        source / consent.FILE,
        "--who",
        "Ann",
        "--source",
        made.person,
    )
    assert bench.run(*write)[0] == 0
    train = ("train", "--source", source, "--target", made.target, "--model", model, "--steps", STEPS + 1, *TRAINING)
    bench.fails(7, r"model belongs to another consent record .*choose another folder", *train)
    consent.load_record(model / consent.FILE)
    assert consent.load_record(model / consent.FILE).id == open_model(model).consent_id


def test_a_missing_or_foreign_record_file(bench: Bench) -> None:
    made, record = bench.made, bench.folder / "r.json"
    arguments = ("faceset", "--input", made.person, "--output", bench.folder / "set", "--consent", record)
    bench.fails(4, r"r\.json: there is no consent record; write one", *arguments)
    record.write_text('{"format": "shopping list"}')
    bench.fails(4, r"r\.json: is no consent record; write one", *arguments)
    bench.fails(4, r"r\.json: is no consent record; write one", "consent", "--record", record)


# a full disk


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A disk of that size mounted at `folder`; skips with the reason where that is not allowed."""
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
        )
    except OSError as error:
        pytest.skip(f"no disk can be mounted here ({error})")
    if done.returncode:
        pytest.skip(f"no disk can be mounted here ({done.stderr.strip()})")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(bench: Bench) -> None:
    """What was finished is kept in the workspace; when there is room, the same command goes on."""
    disk = bench.folder / "disk"
    with small_disk(disk, "24k"):
        output = disk / "out.mp4"
        code, said, err = bench.run(*bench.swap(bench.made.clip, output))
        assert (
            code == 6
            and said["error"]["message"] == f"{output}: the disk is full; free some space or choose another place."
        )
        assert list(disk.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        code, said, err = bench.run(*bench.swap(bench.made.clip, output))
        assert code == 0 and said["resumed_chunks"] > 0, err
        assert [p.name for p in disk.iterdir()] == ["out.mp4"]


def test_full_disk_of_the_workspace(bench: Bench) -> None:
    disk = bench.folder / "disk"
    with small_disk(disk, "200k"):
        bench.made = replace(bench.made, workspace=disk)
        code, _, err = bench.run(*bench.swap(bench.made.clip))
        assert code == 6 and str(disk) in err and err.count("\n") == 1
        assert not bench.output.exists()


def test_full_disk_while_a_model_is_saved(bench: Bench) -> None:
    made, disk = bench.made, bench.folder / "disk"
    with small_disk(disk, "1m"):
        model = disk / "m"
        train = ("train", "--source", made.source, "--target", made.target, "--model", model, "--steps", 1, *TRAINING)
        code, _, err = bench.run(*train)
        assert code == 6 and "disk" in err and "No space left" in err and err.count("\n") == 1
        assert not (model / "model.json").exists() and list(model.glob(".*.tmp")) == []


def test_full_disk_by_injection(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same without a disk of its own: the system refuses when the finished file is made safe."""
    real = os.fsync

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    bench.fails(6, "the disk is full; free some space", *bench.swap(bench.made.clip))
    monkeypatch.setattr(os, "fsync", real)
    assert bench.run(*bench.swap(bench.made.clip))[0] == 0


def test_a_face_picture_without_face_and_without_file(bench: Bench) -> None:
    media.write_image(bench.folder / "street.png", images("sample_no_face", 1)[0])
    by_picture = (*bench.swap(bench.made.clip), "--face", "picture")
    bench.fails(
        3,
        r"street\.png: no face was found on it; give a clear picture",
        *by_picture,
        "--face-picture",
        bench.folder / "street.png",
    )
    bench.fails(2, r"--face picture needs --face-picture", *by_picture)
    bench.fails(2, r"none\.png: there is no such file", *by_picture, "--face-picture", bench.folder / "none.png")


def test_an_ending_that_cannot_be_written(bench: Bench) -> None:
    bench.fails(
        2,
        r"out\.avi: .*cannot be written; end the name with one of \.mp4",
        *bench.swap(bench.made.clip, bench.folder / "out.avi"),
    )
    bench.fails(
        2, r"out\.webm: .*cannot hold h264", *bench.swap(bench.made.clip, bench.folder / "out.webm"), "--codec", "h264"
    )
    media.write_image(bench.folder / "a.png", images("sample_target", 1)[0])
    bench.fails(2, r"out\.bmp", *bench.swap(bench.folder / "a.png", bench.folder / "out.bmp"))


def test_times_beyond_the_end(bench: Bench) -> None:
    bench.fails(2, r"clip\.mp4", *bench.swap(bench.made.clip), "--start-s", "99")
    bench.fails(2, r"clip\.mp4", *bench.swap(bench.made.clip), "--start-s", "0.5", "--end-s", "0.2")


def test_samples_are_where_they_should_be() -> None:
    assert locate("sample_no_face").is_file()
