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
def extension(webui: Path) -> Iterator[str]:
    """This checkout among the WebUI's extensions, and the always-on script of the tests; the name it has there."""
    folder = webui / "extensions"
    linked = [path.name for path in folder.iterdir() if path.is_symlink() and path.resolve() == ROOT]
    links = {"vitface-painter": Path(__file__).parent / "painter"}
    if not linked:
        links["vitface-under-test"] = ROOT
    made = [
        name for name in links if not (folder / name).is_symlink()
    ]  # another one may be running from the same checkout
    for name in made:
        (folder / name).symlink_to(links[name])
    try:
        yield linked[0] if linked else "vitface-under-test"
    finally:
        for name in made:
            (folder / name).unlink(missing_ok=True)


def painted_face(folder: Path) -> Path:
    """What the always-on script of the tests paints: a face of the workspace's target."""
    images = sorted((Path(str(WORKSPACE)) / "facesets" / "target" / "images").glob("*.jpg")) if WORKSPACE else []
    return images[0] if images else folder / "none.jpg"


@contextlib.contextmanager
def webui(folder: Path, *arguments: str, workspace: Path | None = None, enabled: bool = True) -> Iterator[Running]:
    """A running WebUI with fresh settings, and with the extension unless it is not `enabled`; ended at the end."""
    home = Path(str(DIR)).resolve()
    python = os.environ.get("VITFACE_WEBUI_PYTHON")
    places = [home / "venv/bin/python", home.parent / "venv/bin/python"]
    python = python or str(next(place for place in places if place.exists()))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "webui.log"
    settings = folder / "settings.json"
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
    if enabled:  # of an extension that is off the WebUI knows no flags
        command += ["--vitface-dir", str(workspace or folder / "workspace")]
    command += arguments
    environment = {k: v for k, v in os.environ.items() if k not in {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}}
    environment |= {"SD_WEBUI_RESTARTING": "1", "HF_HUB_OFFLINE": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
    environment["PAINTER_FACE"] = str(painted_face(folder))
    chosen = {"outdir_samples": str(folder / "pictures"), "outdir_grids": str(folder / "grids")}
    chosen |= {f"outdir_{kind}_samples": str(folder / "pictures") for kind in ("txt2img", "img2img")}  # the API's
    with extension(home) as name, log.open("wb") as out:
        settings.write_text(json.dumps({**chosen, "disabled_extensions": [] if enabled else [name]}))
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            first = "vitface/v1/" if enabled else "sdapi/v1/scripts"
            wait_for(process, f"http://127.0.0.1:{port}/{first}", log)
            yield Running(f"http://127.0.0.1:{port}", log)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(process: subprocess.Popen[bytes], url: str, log: Path, seconds: float = 420) -> None:
    """Until the routes answer, with whatever status. Whoever asks before the WebUI has put its own parts in ends its start."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        said = log.read_text(errors="replace")
        assert process.poll() is None, said[-3000:]
        if "Startup time" not in said:
            time.sleep(0.5)
            continue
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
