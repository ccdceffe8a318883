"""Starts a real WebUI, where one is named.

VITFACE_WEBUI_DIR        a checkout of the WebUI with its requirements installed and a checkpoint (see make_checkpoint.py)
VITFACE_WEBUI_PYTHON     its Python; by default `venv/bin/python` in it or beside it
VITFACE_WEBUI_WORKSPACE  a workspace with a trained model and the facesets `source` and `target` (for the swapping tests)
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIR = os.environ.get("VITFACE_WEBUI_DIR")
WORKSPACE = os.environ.get("VITFACE_WEBUI_WORKSPACE")
FLAGS = (
    *("--skip-prepare-environment", "--skip-torch-cuda-test", "--skip-install"),
    *("--no-download-sd-model", "--disable-console-progressbars", "--ui-settings-file"),
)


@dataclass(frozen=True)
class Running:
    """A started WebUI: its address and what it has said so far."""

    url: str
    log: Path

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def extension(webui: Path) -> Iterator[None]:
    """This checkout among the WebUI's extensions."""
    linked = [path for path in (webui / "extensions").iterdir() if path.is_symlink() and path.resolve() == ROOT]
    link = webui / "extensions" / "vitface-under-test"
    if not linked:
        link.symlink_to(ROOT)
    try:
        yield
    finally:
        link.unlink(missing_ok=True)


@contextlib.contextmanager
def webui(folder: Path, *arguments: str, workspace: Path | None = None) -> Iterator[Running]:
    """A running WebUI with fresh settings; ended at the end."""
    home = Path(str(DIR)).resolve()
    python = os.environ.get("VITFACE_WEBUI_PYTHON")
    places = [home / "venv/bin/python", home.parent / "venv/bin/python"]
    python = python or str(next(place for place in places if place.exists()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "webui.log"
    settings = folder / "settings.json"
    settings.write_text(json.dumps({"outdir_samples": str(folder / "pictures"), "outdir_grids": str(folder / "grids")}))
    command = [
        python,
        "launch.py",
        *FLAGS,
        str(settings),
        "--ui-config-file",
        str(folder / "ui.json"),
        "--port",
        str(port),
    ]
    command += ["--always-cpu"] if (home / "modules_forge").is_dir() else ["--no-half", "--use-cpu", "all"]
    command += ["--vitface-dir", str(workspace or folder / "workspace"), *arguments]
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}}
    environment |= {"SD_WEBUI_RESTARTING": "1", "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    with extension(home), log.open("wb") as out:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            wait_for(process, f"http://127.0.0.1:{port}/vitface/v1/", log)
            yield Running(f"http://127.0.0.1:{port}", log)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(process: subprocess.Popen[bytes], url: str, log: Path, seconds: float = 180) -> None:
    """Until the routes answer, with whatever status."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            if error.code in {401, 403}:
                return
        except OSError:
            pass
        time.sleep(0.5)
    raise AssertionError("the WebUI did not start: " + log.read_text(errors="replace")[-3000:])
