"""start.py: its pure parts, and real environments, pip runs and child processes where these are quick."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
POSIX = pytest.mark.skipif(os.name == "nt", reason="POSIX shell and signals")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vitface_start", ROOT / "start.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


start = load()
SOURCE = (ROOT / "start.py").read_text(encoding="utf-8")


def test_old_python_can_read_the_file_to_the_sentence() -> None:
    ast.parse(SOURCE, feature_version=(3, 8))


def test_standard_library_only() -> None:
    for node in ast.walk(ast.parse(SOURCE)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        for name in names:
            assert name.split(".")[0] in sys.stdlib_module_names


@pytest.mark.parametrize(("version", "fits"), [((3, 9), 0), ((3, 10), 1), ((3, 11), 1), ((3, 12), 1), ((3, 13), 0)])
def test_python_versions(version: tuple[int, int], fits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    said = start.python_problem(version)
    assert (said is None) == bool(fits)
    if said:
        assert f"this is 3.{version[1]}" in said and "python.org" in said


@POSIX
def test_another_python_on_the_path_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python3.10").symlink_to(sys.executable)
    (tmp_path / "python3.12").write_text("#!/bin/sh\nexit 127\n")  # as a pyenv shim of a version that is not there
    (tmp_path / "python3.12").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "`python3.10 start.py`" in start.python_problem((3, 14))


def test_places(tmp_path: Path) -> None:
    assert start.venv_folder({}) == ROOT / ".venv"
    assert start.venv_folder({"VITFACE_VENV": str(tmp_path / "a" / ".." / "b")}) == tmp_path.resolve() / "b"
    assert start.venv_python(Path("v"), windows=True) == Path("v/Scripts/python.exe")
    assert start.venv_python(Path("v"), windows=False) == Path("v/bin/python")


def test_stamp_follows_content_and_python(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("a\n")
    first = start.stamp([file], (3, 11))
    os.utime(file, (1, 1))
    assert start.stamp([file], (3, 11)) == first
    assert start.stamp([file], (3, 12)) != first
    file.write_text("b\n")
    assert start.stamp([file], (3, 11)) != first


def test_torch_on_each_system() -> None:
    assert start.torch_attempts("linux", nvidia=True) == []
    assert start.torch_attempts("darwin", nvidia=False) == start.torch_attempts("win32", nvidia=True) == []
    local, index = start.torch_attempts("linux", nvidia=False)
    assert "--no-index" in local and "--no-deps" in local and not any("://" in part for part in local)
    assert index[index.index("--index-url") + 1] == "https://download.pytorch.org/whl/cpu"
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert local[-1] == index[-1] and local[-1] in required, "both places must ask for the same torch"


def test_requirements_are_named_once_and_dev_includes_all() -> None:
    from packaging.requirements import Requirement

    for name in ("requirements.txt", "requirements-dev.txt", "requirements-optional.txt", "requirements-ui.txt"):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        wanted = [Requirement(line).name.lower() for line in lines if line and line[0] not in "#-"]
        assert wanted and len(set(wanted)) == len(wanted)
    for name in start.REQUIREMENTS.values():
        assert "-r requirements.txt" in (ROOT / name).read_text(encoding="utf-8").splitlines()


def test_commands() -> None:
    python = Path("/v/bin/python")
    head = [str(python), "-m"]
    linters = [[*head, "ruff", "check", "."], [*head, "ruff", "format", "--check", "."], [*head, "mypy"]]
    assert start.commands(["lint"], python) == linters
    assert start.commands(["test", "-k", "x y"], python) == [*linters, [*head, "pytest", "-ra", "-k", "x y"]]
    assert start.commands(["ui", "--port", "0"], python) == [[*head, "lib_vitface.hosts.standalone", "--port", "0"]]
    assert start.commands(["swap", "--input", "a b"], python) == [[*head, "lib_vitface", "swap", "--input", "a b"]]


def exits(code: int, text: str = "") -> list[str]:
    return [sys.executable, "-S", "-c", f"import sys; print({text!r}, flush=True); sys.exit({code})"]


def test_every_step_runs_and_the_first_failure_counts(capfd: pytest.CaptureFixture[str]) -> None:
    environment = dict(os.environ)
    assert start.run_all([exits(0), exits(0)], environment) == 0
    assert start.run_all([exits(3), exits(4), exits(0, "last")], environment) == 3
    assert start.run_all([exits(3), exits(5, "last")], environment) == 5
    said = capfd.readouterr()
    assert said.out.split() == ["last", "last"], "the last step's own output comes last"
    assert "failed with code 3" in said.err and "failed with code 4" in said.err


@POSIX
def test_death_by_signal_is_a_failure() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    process.send_signal(signal.SIGTERM)
    assert start.wait(process) == 128 + signal.SIGTERM


@POSIX
def test_interrupt_waits_for_the_child_to_save() -> None:
    """Ctrl-C reaches parent and child; the child's own exit code is what counts."""
    # A shell that runs the tests in the background lets them ignore Ctrl-C; the two here shall not.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    child = (
        heed + "import time, sys\n"
        "try:\n print('up', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt:\n time.sleep(0.5); sys.exit(130)"
    )
    parent = (
        heed + f"import sys, subprocess; sys.path.insert(0, {str(ROOT)!r}); import start\n"
        f"sys.exit(start.wait(subprocess.Popen([sys.executable, '-S', '-c', {child!r}])))"
    )
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", parent], stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) == 130
    process.stdout.close()


def test_child_environment(tmp_path: Path) -> None:
    child = start.child_environment({"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "own", "A": "1"})
    assert child == {"A": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}own"}
    code = "import lib_vitface; print(lib_vitface.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=start.child_environment(dict(os.environ)), capture_output=True
    )
    assert done.stdout.decode().strip() == str(ROOT / "lib_vitface" / "__init__.py")


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("env") / "with space"
    python, version = start.make_venv(folder)
    assert version == sys.version_info[:2] and python.is_file()
    return folder


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pip that knows only one folder of wheels, with one small wheel in it."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "vitface_probe-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("vitface_probe.py", "answer = 42\n")
        info = "vitface_probe-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: vitface-probe\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "vitface_probe.py,,\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


def test_environment_is_made_once(venv: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mark = venv / "kept"
    mark.touch()
    assert start.make_venv(venv) == (start.venv_python(venv), sys.version_info[:2])
    assert mark.is_file() and capfd.readouterr().err == ""


def test_install_once_and_again_after_a_change(
    venv: Path, offline: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    python, version = start.make_venv(venv)
    requirements = tmp_path / "requirements-probe.txt"
    requirements.write_text("vitface-probe==1.0\n")
    start.install(venv, python, version, requirements)
    said = capfd.readouterr()
    assert "Installing requirements-probe.txt" in said.err
    assert said.out == "", "stdout belongs to the command's result"
    answer = subprocess.run(
        [python, "-c", "import vitface_probe as p; print(p.answer)"], capture_output=True, text=True
    )
    assert answer.stdout == "42\n"
    start.install(venv, python, version, requirements)
    assert capfd.readouterr().err == "", "nothing to do the second time"
    stamp = venv / "vitface-requirements-probe.stamp"
    before = stamp.read_text()
    requirements.write_text("vitface-probe==1.0\nvitface-not-there==9\n")
    with pytest.raises(start.StartError, match=r"requirements-probe\.txt cannot be installed"):
        start.install(venv, python, version, requirements)
    assert stamp.read_text() == before, "a failed installation is not marked as done"


@pytest.mark.slow
def test_halfway_made_environment_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "half"
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text("home = /nowhere\n")
    python, _ = start.make_venv(folder)
    assert start.probe(python) == sys.version_info[:2]


def test_somebodys_folder_is_not_cleared(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(start.StartError, match="VITFACE_VENV"):
        start.make_venv(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", ROOT / "start.py", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_usage() -> None:
    asked, bare = call("--help"), call()
    assert asked.returncode == 0 and bare.returncode == 2
    assert asked.stdout == bare.stdout and "start.py test" in asked.stdout
    wrong = call("lint", "--fast")
    assert wrong.returncode == 2 and "lint" in wrong.stderr


def test_problems_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    taken = call("doctor", VITFACE_VENV=str(tmp_path))
    assert taken.returncode == 5 and "Traceback" not in taken.stderr and str(tmp_path) in taken.stderr
    below_file = call("doctor", VITFACE_VENV=str(tmp_path / "thesis.txt"))
    assert below_file.returncode == 6 and "Traceback" not in below_file.stderr


@POSIX
def test_ci_takes_the_first_python_that_fits(tmp_path: Path) -> None:
    """A shim that exists but does not run (pyenv) is passed over."""
    bash = shutil.which("bash")
    assert bash and os.access(ROOT / ".ci" / "run", os.X_OK)
    dirname = shutil.which("dirname")
    assert dirname
    (tmp_path / "dirname").symlink_to(dirname)

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [bash, ROOT / ".ci" / "run", "-k", "a b"], env={"PATH": str(tmp_path)}, capture_output=True, text=True
        )

    nothing = run()
    assert nothing.returncode == 1 and "No Python 3.10, 3.11 or 3.12" in nothing.stderr
    for name, body in (
        ("python3.11", "exit 127"),
        ("python3.12", '[ "$1" = -c ] || { pwd; printf "<%s>" "$@"; exit 7; }'),
    ):
        (tmp_path / name).write_text(f"#!{bash}\n{body}\n")
        (tmp_path / name).chmod(0o755)
    found = run()
    assert found.returncode == 7
    assert found.stdout == f"{ROOT}\n<start.py><test><-k><a b>"
