"""A headless Chromium, and the page served by the gradio of each WebUI (see `environments.py`)."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from environments import NAMES, CannotBeMadeError, python_of

if TYPE_CHECKING:
    from small_clone import SmallClone

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("VITFACE_CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
WIDTH, HEIGHT = 640, 480  # of the camera
Serve = Callable[..., AbstractContextManager[str]]


def missing() -> str | None:
    """What these tests lack, else None."""
    if CHROMIUM is None:
        return "no Chromium was found (VITFACE_CHROMIUM names one)"
    for name in ("gradio", "playwright"):
        try:
            __import__(name)
        except ImportError:
            return f"{name} is not installed (requirements-dev.txt)"
    return None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    own = [item for item in items if Path(item.fspath).parent == Path(__file__).parent]
    asked = config.getoption("--browser")
    reason = missing() if own and asked else None if asked else "asked for by `python start.py test --browser`"
    for item in own:
        item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.browser)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@contextmanager
def serving(python: Path, workspace: Path, *arguments: str) -> Iterator[str]:
    """The page as `start.py ui` serves it; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python), "-m", "lib_vitface.hosts.standalone", "--port", str(port), "--workspace", str(workspace)]
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"}
    process = subprocess.Popen([*command, *arguments], cwd=ROOT, env=environment)
    try:
        end = time.monotonic() + 120
        while True:
            assert process.poll() is None, "the page ended by itself"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/vitface/v1/", timeout=5).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                assert time.monotonic() < end, "the page does not answer"
                time.sleep(0.25)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="module", params=NAMES)
def python(request: pytest.FixtureRequest) -> Path:
    """The Python of one environment after the other."""
    try:
        return python_of(request.param)
    except CannotBeMadeError as error:
        pytest.skip(f"the environment {request.param} cannot be made: {error}")


@pytest.fixture(scope="module")
def serve(python: Path) -> Serve:
    """`with serve(workspace, "--login", ...) as address`."""
    return lambda workspace, *arguments: serving(python, workspace, *arguments)


@pytest.fixture(scope="module")
def workspace(python: Path, tmp_path_factory: pytest.TempPathFactory, clone_files: SmallClone) -> Path:
    """With the facesets, the model and the clip of the small clone; each environment has one of its own."""
    folder = tmp_path_factory.mktemp("page") / "workspace"
    shutil.copytree(clone_files.workspace, folder)
    for part, name in (("facesets", "source"), ("facesets", "target"), ("models", "model")):
        shutil.copytree(getattr(clone_files, name), folder / part / name)
    (folder / "uploads").mkdir(exist_ok=True)
    shutil.copy(clone_files.clip, folder / "uploads" / "film.mp4")
    return folder


@pytest.fixture(scope="module")
def address(serve: Serve, workspace: Path) -> Iterator[str]:
    with serve(workspace) as found:
        yield found


def write_camera(path: Path, pictures: Sequence[np.ndarray] = (), fps: int = 10) -> None:
    """What the camera sees, over and over: a face of the sample clip, or pictures `[H, W, 3]`, as the raw video (YUV4MPEG2)
    that Chromium takes for one. A file that is open already is left to who reads it."""
    from small_clone import images

    shown = list(pictures) or images("sample_source", 1, (WIDTH, HEIGHT)) * 10
    height, width = shown[0].shape[:2]
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{fps}:1 Ip A1:1 C420jpeg\n".encode())
        for picture in shown:
            planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)
            file.write(b"FRAME\n" + np.ascontiguousarray(planes).tobytes())
    temporary.replace(path)


def launched(chromium: Any, camera: Path) -> Any:
    """A browser with a camera before which a file is shown."""
    flags = ["--no-sandbox", "--disable-gpu", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    return chromium.launch(executable_path=CHROMIUM, args=[*flags, f"--use-file-for-fake-video-capture={camera}"])


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """With a camera before which a person sits."""
    from playwright.sync_api import sync_playwright

    camera = tmp_path_factory.mktemp("camera") / "camera.y4m"
    write_camera(camera)
    with sync_playwright() as playwright:
        found = launched(playwright.chromium, camera)
        yield found
        found.close()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """An opened page; at the end it must not have complained."""
    context = browser.new_context(viewport={"width": 1300, "height": 900}, permissions=["camera"])
    found = context.new_page()
    faults: list[str] = []
    found.on("pageerror", lambda error: faults.append(str(error)))
    found.goto(address)
    found.wait_for_selector("#vitface-tabs", timeout=60_000)
    yield found
    context.close()
    assert faults == []
