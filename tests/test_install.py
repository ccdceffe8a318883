"""The extension's installer: nothing that is there changes, what cannot be had is a sentence, and a second start is quick."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("vitface_install", ROOT / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "vitface_install", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "NOTES", tmp_path / "tmp" / "install.json")
    monkeypatch.delenv("COMMANDLINE_ARGS", raising=False)
    return module


class Pip:
    """Stands for pip; refuses the packages it is told to."""

    def __init__(self, *refused: str) -> None:
        self.refused, self.commands, self.rules = refused, [], ""

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        self.rules = Path(command[command.index("--constraint") + 1]).read_text()
        bad = any(name in command[-1] for name in self.refused)
        return subprocess.CompletedProcess(command, int(bad), "", "WARNING: x\nERROR: no version fits\n" if bad else "")


def missing(installer: Any, monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    monkeypatch.setattr(installer, "is_there", lambda module: module not in modules)


def test_nothing_missing_nothing_done(installer: Any, monkeypatch: Any, capsys: Any) -> None:
    missing(installer, monkeypatch)
    monkeypatch.setattr(installer.subprocess, "run", lambda *_, **__: pytest.fail("pip was started"))
    assert installer.main([]) == 0
    assert capsys.readouterr().out == ""


def test_every_installed_version_is_a_constraint(installer: Any, monkeypatch: Any) -> None:
    pip = Pip()
    missing(installer, monkeypatch, "av")
    monkeypatch.setattr(installer.subprocess, "run", pip)
    assert installer.main([]) == 0
    assert [command[-1] for command in pip.commands] == ["av>=12"]
    import numpy

    assert f"numpy=={numpy.__version__}\n" in pip.rules
    assert "--only-binary=:all:" in pip.commands[0], "nothing is compiled"
    assert "--upgrade" not in pip.commands[0]


def test_a_second_copy_of_opencv_cannot_come_along(installer: Any, monkeypatch: Any) -> None:
    pip = Pip()
    missing(installer, monkeypatch, "imwatermark")
    monkeypatch.setattr(installer.subprocess, "run", pip)
    installer.main([])
    assert "--no-deps" in pip.commands[0]


def test_what_cannot_be_had_is_a_sentence_and_not_tried_again(installer: Any, monkeypatch: Any, capsys: Any) -> None:
    pip = Pip("dlib")
    missing(installer, monkeypatch, "dlib", "av")
    monkeypatch.setattr(installer.subprocess, "run", pip)
    assert installer.main([]) == 0, "a missing package must not keep the WebUI from starting"
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "ViTFace: installed av>=12."
    assert said[1].startswith("ViTFace: optional: dlib-bin>=19.24 is missing, so ")
    assert "no version fits" in said[1]
    assert len(said) == 2
    missing(installer, monkeypatch, "dlib")
    pip.commands.clear()
    installer.main([])
    assert pip.commands == [], "it failed a moment ago"
    tomorrow = time.time() + 25 * 3600
    monkeypatch.setattr(installer.time, "time", lambda: tomorrow)
    installer.main([])
    assert len(pip.commands) == 1


@pytest.mark.parametrize("way", ["flag", "environment"])
def test_skip_install_is_honoured(installer: Any, monkeypatch: Any, capsys: Any, way: str) -> None:
    missing(installer, monkeypatch, "av")
    monkeypatch.setattr(installer.subprocess, "run", lambda *_, **__: pytest.fail("pip was started"))
    if way == "environment":
        monkeypatch.setenv("COMMANDLINE_ARGS", "--api --skip-install")
    assert installer.main(["--skip-install"] if way == "flag" else []) == 0
    assert "av>=12 is missing" in capsys.readouterr().out


def test_damaged_notes_are_no_obstacle(installer: Any, monkeypatch: Any) -> None:
    installer.NOTES.parent.mkdir()
    for text in ("", "[1]", '{"a": "x"}', "{"):
        installer.NOTES.write_text(text)
        assert installer.read_notes() == {}


def test_flags_only(monkeypatch: Any) -> None:
    """preload.py is run with the WebUI's parser, before anything else is there."""
    import argparse
    import ast

    source = (ROOT / "preload.py").read_text(encoding="utf-8")
    imported = {a.name for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import) for a in n.names}
    assert imported == {"argparse"}
    space: dict[str, Any] = {}
    exec(compile(source, "preload.py", "exec"), space)
    parser = argparse.ArgumentParser()
    space["preload"](parser)
    assert parser.parse_args([]).vitface_allow == []
    assert parser.parse_args(["--vitface-dir", "x"]).vitface_dir == "x"


@pytest.mark.slow
def test_a_real_environment_keeps_every_version(tmp_path: Path) -> None:
    """A small environment with old packages: lines are added to its list, none is changed."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "v"], check=True)
    python = next(p for p in (tmp_path / "v/bin/python", tmp_path / "v/Scripts/python.exe") if p.exists())
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-q"]
    if subprocess.run([*pip, "install", "cffi<2", "packaging<24"], capture_output=True).returncode != 0:
        pytest.skip("the package index cannot be reached")
    freeze = [*pip, "freeze", "--all"]
    before = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout.splitlines()
    code = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import install; "
        "install.NOTES = pathlib.Path(sys.argv[2]) / 'notes.json'; "
        "install.WANTED = tuple(w for w in install.WANTED if w.module in {'cryptography', 'av'}); sys.exit(install.main([]))"
    )
    done = subprocess.run([python, "-c", code, ROOT, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0
    after = subprocess.run(freeze, capture_output=True, text=True, check=True).stdout.splitlines()
    assert set(before) <= set(after), done.stdout
    assert any(line.startswith("cryptography==") for line in after), done.stdout
