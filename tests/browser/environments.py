"""Python environments with the gradio and pydantic of each WebUI, made once beside the tests' own.

Each holds what its requirements file names, and borrows the rest (torch, OpenCV, …) from the environment the tests run in.
Where `VITFACE_WEBUI_DIR` names a WebUI, that one comes last: the same tests on the tabs in it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
OWN, WEBUI = "own", "webui"
NAMES = (OWN, *sorted(path.stem for path in HERE.glob("gradio-*.txt")))
if os.environ.get("VITFACE_WEBUI_DIR"):
    NAMES = (*NAMES, WEBUI)
_LONGEST_S = 900


class CannotBeMadeError(Exception):
    """An environment cannot be had on this machine; the text says why."""


def python_of(name: str) -> Path:
    """The environment's Python, made where it is not there yet. Raises `CannotBeMadeError`."""
    if name == OWN:
        return Path(sys.executable)
    requirements = HERE / f"{name}.txt"
    folder = Path(sys.prefix) / "browser-tests" / name
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    mark = folder / "made.stamp"
    wanted = hashlib.sha256(sys.version.encode() + requirements.read_bytes()).hexdigest()
    if mark.is_file() and mark.read_text(encoding="utf-8") == wanted:
        return python
    run([sys.executable, "-m", "venv", "--clear", str(folder)])
    pip = [str(python), "-I", "-m", "pip", "--no-input", "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", "--requirement", str(requirements)])
    # named last, so that what the environment has itself goes first
    lent = [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]
    site = run([str(python), "-I", "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]).strip()
    Path(site, "zz-lent.pth").write_text("\n".join(lent), encoding="utf-8")
    mark.write_text(wanted, encoding="utf-8")
    return python


def run(command: list[str]) -> str:
    """What a command says. Raises `CannotBeMadeError`."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBeMadeError(str(error)) from None
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise CannotBeMadeError(said[-1] if said else f"{command[0]} ended with code {done.returncode}")
    return done.stdout
