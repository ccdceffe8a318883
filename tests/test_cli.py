"""The command line: complete help, quick start, JSON in and out, exit codes, soft stops."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib_vitface import cli, errors, options
from lib_vitface.cli import main, make_parser, wants_own_process
from lib_vitface.tasks import TASKS
from lib_vitface.types import Host

ROOT = Path(cli.__file__).parent.parent
HEAVY = ("torch", "cv2", "numpy", "av", "onnxruntime", "transformers", "scipy", "PIL", "cryptography", "rich")
ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ViTFaceError)]


def help_of(task: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as left:
        main([task, "--help"])
    assert left.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def instead(task: str, run: Callable[[Any, Host], dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a function in the place of a task's own."""
    from importlib import import_module

    monkeypatch.setattr(import_module(TASKS[task].module), TASKS[task].name, run)


@pytest.mark.parametrize("name", TASKS)
def test_help_tells_every_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(name, capsys)
    squeezed = text.replace(" ", "")
    for item in options.declared(TASKS[name].options):
        assert item.flag in text
        assert item.spec.help.replace(" ", "") in squeezed, item.flag
        limits = options.range_text(item.spec)
        if limits:
            assert f"Range:{limits}.".replace(" ", "") in squeezed, item.flag
        for choice in item.spec.choices:
            assert str(choice) in text, item.flag
        if item.type is bool:
            assert item.flag.replace("--", "--no-", 1) in text
    for flag in ("--json", "--quiet", "--workspace"):
        assert flag in text
    assert "exit codes: 0 done" in text and "130 stopped" in text


def test_help_of_the_program_names_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for task in TASKS.values():
        assert task.name in text and task.summary in text


def test_help_names_the_exit_codes_of_all_errors() -> None:
    for kind in ERRORS:
        assert f" {kind.exit_code} " in cli.EXIT_CODES, kind
    documented = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    for code in {0, *(kind.exit_code for kind in ERRORS)}:
        assert f"| {code} |" in documented


@pytest.mark.parametrize("arguments", [["--help"], ["swap", "--help"], ["clone", "--help"], ["--version"]])
def test_help_is_quick_and_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from lib_vitface.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print({m.split('.')[0] for m in sys.modules}, file=sys.stderr)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COV")} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stdout
    assert not [name for name in HEAVY if f"'{name}'" in done.stderr]
    # Processor time, which a busy machine does not stretch, against that of the standard library's part alone.
    plain = "import argparse, contextlib, dataclasses, importlib.util, json, logging, pathlib, typing"
    best = [
        min(_processor_s([sys.executable, "-c", what, *arguments], environment) for _ in range(4))
        for what in (code, plain)
    ]
    assert best[0] < 0.3 and best[0] < 5 * best[1] + 0.05


def test_the_help_of_no_task_imports_anything_heavy() -> None:
    """All of them in one process, and what `start.py` needs besides: the standard library."""
    code = (
        "import contextlib, io, sys\n"
        "from lib_vitface.cli import main\n"
        "from lib_vitface.tasks import TASKS\n"
        "for name in TASKS:\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n        main([name, '--help'])\n"
        "import start\nstart.main(['--help'])\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COV")} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "python start.py demo" in done.stdout
    loaded = set(done.stderr.split())
    assert "lib_vitface" in loaded
    also = {
        "matplotlib",
        "safetensors",
        "dlib",
        "gradio",
        "fastapi",
        "diffusers",
        "accelerate",
        "ray",
        "faiss",
        "sqlite3",
    }
    assert not loaded & (set(HEAVY) | also)


def test_an_option_of_another_class_is_declared_once() -> None:
    @dataclasses.dataclass(frozen=True)
    class First:
        needed: str = options.option(help="Needed.")
        several: list[str] = options.option(["a"], help="Some.", group="G", kind="paths")
        number: int = options.option(3, help="One.", group="G", low=1, high=9, unit="px")

    @dataclasses.dataclass(frozen=True)
    class Second:
        needed: str = options.same_option(First, "needed")
        number: int = options.same_option(First, "number", default=4, help="Another.")
        several: list[str] = options.same_option(First, "several")

    first, second = ({f.name: f.metadata["vitface"] for f in dataclasses.fields(cls)} for cls in (First, Second))
    assert list(second) == ["needed", "number", "several"]
    assert first["several"] == second["several"] and first["needed"] == second["needed"]
    assert second["number"] == dataclasses.replace(first["number"], help="Another.")
    made = Second("x")
    assert (made.several, made.number, First(needed="y").number) == (["a"], 4, 3)
    assert made.several is not Second("x").several


def _processor_s(command: list[str], environment: dict[str, str]) -> float:
    """Processor seconds of a child process."""
    before = os.times()
    subprocess.run(command, capture_output=True, env=environment)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from lib_vitface import __version__

    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0 and capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["swap"], "--model, --input, --output"),
        (["nonsense"], "nonsense"),
        ([], "TASK"),
        (["swap", "--model", "m", "--input", "i", "--output", "o", "--codec", "mpeg1"], "--codec"),
        (["swap", "--model", "m", "--input", "i", "--output", "o", "--nothing", "1"], "--nothing"),
        (["swap", "--model", "m", "--input", "i", "--output", "o", "--feather", "wide"], "--feather"),
        (["swap", "--model", "m", "--input", "i", "--output", "o", "--feather", "90"], "0 to 50 %"),
        (["swap", "--model", "m", "--input", "i", "--output", "o", "--feather", "nan"], "--feather"),
        (["swap", "--model", "m", "--input", "i", "--output", "o", "--quality", "1.5"], "--quality"),
        (["faceset", "--input", "--output", "o"], "--input"),
        (["train", "--source", "s", "--target", "t", "--model", "m", "--device", "quantum"], "quantum|faceset"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_wrong_arguments(
    arguments: list[str], words: str, as_json: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import re

    more = (["--workspace", str(tmp_path)] if arguments and arguments[0] in TASKS else []) + ["--json"] * as_json
    assert main([*arguments, *more]) == 2
    out, err = capsys.readouterr()
    assert re.search(words, err) and err.startswith("vitface: ") and err.count("\n") == 1
    if as_json:
        error = json.loads(out)["error"]
        assert error == {"kind": "InputError", "message": err.removeprefix("vitface: ").rstrip("\n"), "exit_code": 2}
    else:
        assert out == ""


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("as_json", [False, True])
def test_errors_of_a_task(
    kind: type[errors.ViTFaceError], as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(ready: Any, host: Host) -> dict[str, Any]:
        raise kind("x.mp4: 写真 is bad; mend it.")

    instead("doctor", run, monkeypatch)
    assert main(["doctor", *["--json"] * as_json]) == kind.exit_code
    out, err = capsys.readouterr()
    assert err == "vitface: x.mp4: 写真 is bad; mend it.\n"
    if as_json:
        assert out.count("\n") == 1
        expected = {"kind": kind.__name__, "message": "x.mp4: 写真 is bad; mend it.", "exit_code": kind.exit_code}
        assert json.loads(out) == {"error": expected}
    else:
        assert out == ""


def test_a_second_interrupt_is_a_stop_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(ready: Any, host: Host) -> dict[str, Any]:
        raise KeyboardInterrupt

    instead("doctor", run, monkeypatch)
    assert main(["doctor", "--json"]) == 130
    assert json.loads(capsys.readouterr().out)["error"]["exit_code"] == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_at_the_next_tick(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)

    def run(ready: Any, host: Host) -> dict[str, Any]:
        host.tick(1, 2, "half")
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        host.tick(2, 2, "whole")
        raise AssertionError("not reached")

    instead("doctor", run, monkeypatch)
    assert main(["doctor"]) == 130
    assert "what was finished is kept" in capsys.readouterr().err
    assert signal.getsignal(number) is before, "the caller's handler is back"


def test_the_result_is_one_json_object(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []

    def run(ready: Any, host: Host) -> dict[str, Any]:
        seen.append((ready, host))
        host.tick(0.5, 1, "half")
        return {"名": "山田", "nested": {"list": [1, 2.5, None]}, "exit_code": 5}

    instead("doctor", run, monkeypatch)
    assert main(["doctor", "--fetch", "--json", "--workspace", "w"]) == 5
    out, err = capsys.readouterr()
    assert out.count("\n") == 1 and json.loads(out)["名"] == "山田" and err == ""
    assert seen[0][0].fetch is True and seen[0][1].workspace == Path("w")


def test_the_result_as_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    result = {
        "output": "a b.mp4", "marked": True, "left_out": [], "seconds": {"swap": 1.23456}, "names": ["x", "y"],
        "rows": [{"name": "n", "empty": None, "value": 0.5}],
        "files": [{"file": "x", "mark": {"present": False, "id": None}, "map": [[0.1, 0.2]]}],
    }  # fmt: skip
    instead("doctor", lambda ready, host: result, monkeypatch)
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "output: a b.mp4", "marked: yes", "left out: none", "seconds:", "  swap: 1.235", "names: x; y", "rows:",
        "  - name n, value 0.5", "files:", "  -", "    file: x", "    mark:", "      present: no", "      id: none",
        "    map: 1 x 2 numbers (see --json)",
    ]  # fmt: skip


def test_progress_lines_are_on_stderr_and_can_be_turned_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(cli.time, "monotonic", lambda: now[0])

    def run(ready: Any, host: Host) -> dict[str, Any]:
        for second in range(0, 60, 3):
            now[0] = float(second)
            host.tick(second, 60, "working")
        return {}

    instead("doctor", run, monkeypatch)
    main(["doctor", "--json"])
    out, err = capsys.readouterr()
    assert json.loads(out) == {}
    assert err.splitlines()[0] == " 20% working, about 48 s left" and len(err.splitlines()) == 4
    main(["doctor", "--json", "--quiet"])
    assert capsys.readouterr().err == ""


def test_evaluate_uses_one_flag_for_two_things(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a file `--json` is where the figures go, alone it asks for JSON on stdout."""
    seen: list[Any] = []

    def run(ready: Any, host: Host) -> dict[str, Any]:
        seen.append(ready.json)
        return {"a": 1}

    instead("evaluate", run, monkeypatch)
    inputs = ["--source", "s", "--target", "t", "--result", "r"]
    assert main(["evaluate", *inputs, "--json", "f.json"]) == 0
    assert capsys.readouterr().out == "a: 1\n"
    assert main(["evaluate", *inputs, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    assert seen == [Path("f.json"), None]


def test_values_become_the_tasks_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    instead("swap", lambda ready, host: seen.append((ready, host)) or {}, monkeypatch)
    given = [
        "swap",
        "--model",
        "m",
        "--input",
        "山 田.mp4",
        "--output",
        "o.mp4",
        "--no-occlusion",
        "--feather",
        "3",
        "--device",
        "cpu",
    ]
    assert main([*given, "--start-s", "1.5", "--overwrite"]) == 0
    ready, host = seen[0]
    assert (ready.input, ready.occlusion, ready.feather, ready.start_s, ready.overwrite) == (
        Path("山 田.mp4"),
        False,
        3.0,
        1.5,
        True,
    )
    assert host.device == "cpu"


@pytest.mark.parametrize("name", TASKS)
def test_only_heavy_tasks_get_their_own_process(name: str) -> None:
    assert wants_own_process([name]) == TASKS[name].heavy
    assert not wants_own_process([name, "--help"]) and not wants_own_process([name, "-h"])
    assert not wants_own_process([]) and not wants_own_process(["--version"]) and not wants_own_process(["other"])


def test_flags_of_the_command_line_hide_no_option() -> None:
    for task in TASKS.values():
        names = {item.name for item in options.declared(task.options)}
        assert not names & {"quiet", "workspace"}
    make_parser()


def test_workspace_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITFACE_WORKSPACE", "~/somewhere")
    assert cli.default_workspace() == Path.home() / "somewhere"
    monkeypatch.delenv("VITFACE_WORKSPACE")
    assert cli.default_workspace() in {ROOT / "workspace", Path.home() / "vitface"}


def test_doctor_and_inspect_as_a_program(tmp_path: Path) -> None:
    """The one test that goes through `python -m lib_vitface` for light tasks."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [
        sys.executable,
        "-m",
        "lib_vitface",
        "inspect",
        "--json",
        "--workspace",
        str(tmp_path),
        "--input",
        "無い.mp4",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, encoding="utf-8", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["message"] == "無い.mp4: there is no such file; check the name."
    assert done.stderr == "vitface: 無い.mp4: there is no such file; check the name.\n"
