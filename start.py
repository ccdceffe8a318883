"""Starts ViTFace on a fresh machine: makes `.venv` beside this file, installs what is needed once, runs a command.

    python start.py demo                clone, train, swap and mark two sample clips
    python start.py doctor              what is here and what is missing
    python start.py ui [options]        the same tabs as in the WebUI, in a page of their own; `ui --help` lists its options
    python start.py TASK [options]      any task of `python -m lib_vitface`; `TASK --help` lists its options
    python start.py test [options]      linters and tests; options go to pytest (--browser: those of the page in a browser, too)
    python start.py lint                linters only

Only the standard library is used here. `VITFACE_VENV` names another folder for the environment.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST, NEWEST = (3, 10), (3, 12)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH = "torch>=2.1"
REQUIREMENTS = {"test": "requirements-dev.txt", "lint": "requirements-dev.txt", "ui": "requirements-ui.txt"}
LINTERS = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])


class StartError(Exception):
    """Something on this machine is in the way; the message says what to do."""


def python_problem(version: tuple[int, int]) -> str | None:
    """A sentence where this Python cannot be used, else None."""
    if OLDEST <= version <= NEWEST:
        return None
    names = [f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
    there = [name for name in names if shutil.which(name) and runs(name)]
    remedy = f"try `{there[0]} start.py`" if there else "install one from https://www.python.org"
    return f"ViTFace needs Python 3.10, 3.11 or 3.12; this is {version[0]}.{version[1]}: {remedy}."


def runs(program: str) -> bool:
    """Whether a Python starts; a pyenv shim is there also for versions that are not."""
    return subprocess.run([program, "-c", ""], capture_output=True).returncode == 0


def venv_folder(environment: dict[str, str]) -> Path:
    named = environment.get("VITFACE_VENV")
    return Path(named).expanduser().resolve() if named else ROOT / ".venv"


def venv_python(folder: Path, windows: bool = os.name == "nt") -> Path:
    return folder / ("Scripts/python.exe" if windows else "bin/python")


def child_environment(environment: dict[str, str]) -> dict[str, str]:
    """For everything started from here: finds `lib_vitface` from any folder, and may keep compiled bytecode."""
    child = {k: v for k, v in environment.items() if k not in {"PYTHONDONTWRITEBYTECODE", "PYTHONHOME"}}
    child["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    return child


def stamp(requirements: list[Path], version: tuple[int, int]) -> str:
    """Changes whenever the requirements or the Python version do."""
    digest = hashlib.sha256(f"{version[0]}.{version[1]}".encode())
    for file in requirements:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def torch_attempts(platform: str, nvidia: bool) -> list[list[str]]:
    """pip arguments that may get a small CPU build of torch; each may fail, `requirements.txt` has the last word.

    Only Linux needs this: there the package index's own build brings gigabytes of CUDA libraries along. First a
    folder of wheels the person has configured (`PIP_FIND_LINKS`; asks no server), then PyTorch's index, which is not
    reachable from everywhere.
    """
    if nvidia or not platform.startswith("linux"):
        return []
    return [
        ["--no-index", "--no-deps", TORCH],
        ["--index-url", CPU_INDEX, "--retries", "0", "--timeout", "15", TORCH],
    ]


def has_nvidia() -> bool:
    """Whether an NVIDIA driver answers."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and "GPU" in done.stdout


def make_venv(folder: Path) -> tuple[Path, tuple[int, int]]:
    """The environment's Python and its version; makes the environment where there is none or it no longer runs."""
    python = venv_python(folder)
    version = probe(python)
    if version is None:
        if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
            raise StartError(f"{folder} is there and is not a Python environment; name another folder in VITFACE_VENV.")
        say(f"Making a Python environment in {folder} …")
        made = subprocess.run([sys.executable, "-m", "venv", "--clear", folder], capture_output=True, text=True)
        version = probe(python)
        if made.returncode != 0 or version is None:
            raise StartError(
                f"The environment {folder} cannot be made: {(made.stdout + made.stderr).strip() or 'no reason given'}\n"
                "On Debian and Ubuntu `apt install python3-venv` is needed once."
            )
    problem = python_problem(version)
    if problem:
        raise StartError(f"{folder}: {problem}")
    return python, version


def probe(python: Path) -> tuple[int, int] | None:
    """Version of an environment's Python; None where it does not run or has no pip (made halfway, or moved)."""
    try:
        done = subprocess.run(
            [python, "-I", "-c", "import pip, sys; print(*sys.version_info[:2])"], capture_output=True, text=True
        )
        major, minor = done.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError):
        return None


def install(folder: Path, python: Path, version: tuple[int, int], requirements: Path) -> None:
    """Installs a requirements file (and those it names) unless exactly these are in the environment already."""
    files = sorted({requirements, ROOT / "requirements.txt"})
    mark = folder / f"vitface-{requirements.stem}.stamp"
    wanted = stamp(files, version)
    if mark.is_file() and mark.read_text(encoding="utf-8") == wanted:
        return
    say(f"Installing {requirements.name} (once; this can take some minutes) …")
    pip = [str(python), "-m", "pip", "--no-input", "install", "--disable-pip-version-check"]
    environment = child_environment(dict(os.environ))
    environment.pop("PYTHONPATH")  # packages seen through it would count as installed
    for attempt in torch_attempts(sys.platform, has_nvidia()):
        # pip talks on stderr: stdout belongs to the command's own result. The first attempt may fail unseen.
        output = subprocess.DEVNULL if "--no-index" in attempt else sys.stderr
        if subprocess.run([*pip, *attempt], env=environment, stdout=output, stderr=output).returncode == 0:
            break
        if "--index-url" in attempt:
            say("PyTorch's own index cannot be used; torch comes from the default index (a larger build).")
    if subprocess.run([*pip, "-r", str(requirements)], env=environment, stdout=sys.stderr).returncode != 0:
        raise StartError(
            f"{requirements.name} cannot be installed (see pip's message above); with internet, or with PIP_INDEX_URL "
            "or PIP_FIND_LINKS naming a mirror, run the same command again."
        )
    mark.write_text(wanted, encoding="utf-8")


def commands(arguments: list[str], python: Path) -> list[list[str]]:
    """What is run for the arguments, in order, after installation."""
    task, *rest = arguments
    linters = [[str(python), "-m", *linter] for linter in LINTERS]
    if task == "lint":
        return linters
    if task == "test":
        return [*linters, [str(python), "-m", "pytest", "-ra", *rest]]
    if task == "ui":
        return [[str(python), "-m", "lib_vitface.hosts.standalone", *rest]]
    return [[str(python), "-m", "lib_vitface", *arguments]]


def run_all(steps: list[list[str]], environment: dict[str, str]) -> int:
    """Runs every step in the checkout, also after one failed; the last step's code, or that of the first failure."""
    codes = []
    for step in steps:
        codes.append(wait(subprocess.Popen(step, cwd=ROOT, env=environment)))
        if codes[-1] != 0 and len(codes) < len(steps):
            say(f"`{' '.join(step[2:])}` failed with code {codes[-1]}.")
    return codes[-1] or next((code for code in codes if code), 0)


def wait(process: subprocess.Popen[bytes]) -> int:
    """The exit code. An interrupt reaches the child too, which needs its time to save; so it is waited for."""
    while True:
        try:
            code = process.wait()
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:
            continue


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    problem = python_problem(sys.version_info[:2])
    if problem:
        say(problem)
        return 1
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(__doc__)
        return 0 if arguments else 2
    if arguments[0] == "lint" and len(arguments) > 1:
        say("`lint` takes no options.")
        return 2
    checking = arguments[0] in {"test", "lint"}
    requirements = REQUIREMENTS.get(arguments[0], "requirements.txt")
    try:
        folder = venv_folder(dict(os.environ))
        python, version = make_venv(folder)
        install(folder, python, version, ROOT / requirements)
    except StartError as error:
        say(str(error))
        return 5
    except OSError as error:
        say(f"The environment cannot be made: {error}.")
        return 6
    except KeyboardInterrupt:
        say("Stopped; the same command goes on from here.")
        return 130
    steps, environment = commands(arguments, python), child_environment(dict(os.environ))
    if checking:
        # The tests' networks are too small for two threads, which only wait for each other on a busy machine.
        environment.setdefault("OMP_NUM_THREADS", "1")
        return run_all(steps, environment)
    if os.name == "nt":
        return wait(subprocess.Popen(steps[0], env=environment))
    os.execve(steps[0][0], steps[0], environment)  # signals and the exit code are the command's own


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
