"""A headless Chromium, and the page served by the gradio of each WebUI and by a real one (see `environments.py`)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from camera import CHROMIUM, launched, write_camera
from driving import enter
from environments import NAMES, WEBUI, CannotBeMadeError, python_of

if TYPE_CHECKING:
    from small_clone import SmallClone

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "webui"))
SHOTS = os.environ.get("VITFACE_SHOTS")
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
def serving_webui(folder: Path, workspace: Path, *arguments: str) -> Iterator[str]:
    """The real WebUI with the extension in it; its address."""
    from running_webui import webui

    with webui(folder, *arguments, workspace=workspace) as running:
        yield running.url


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
def place(request: pytest.FixtureRequest) -> str:
    """One environment after the other."""
    return str(request.param)


@pytest.fixture(scope="module")
def python(place: str) -> Path:
    """Its Python, where the page is served on its own."""
    if place == WEBUI:
        pytest.skip("of the page on its own; the WebUI has logins and languages of its own (tests/webui)")
    try:
        return python_of(place)
    except CannotBeMadeError as error:
        pytest.skip(f"the environment {place} cannot be made: {error}")


@pytest.fixture(scope="module")
def serve(place: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """`with serve(workspace, "--login", ...) as address`."""
    if place == WEBUI:
        folder = tmp_path_factory.mktemp("webui")
        return lambda workspace, *arguments: serving_webui(folder, workspace, *arguments)
    python = request.getfixturevalue("python")
    return lambda workspace, *arguments: serving(python, workspace, *arguments)


@pytest.fixture(scope="module")
def workspace(place: str, tmp_path_factory: pytest.TempPathFactory, clone_files: SmallClone) -> Path:
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


@pytest.fixture
def outputs(address: str) -> Iterator[Path]:
    """Where results are written; in a WebUI this is its own folder, which is left as it was."""
    with urllib.request.urlopen(f"{address}/vitface/v1/", timeout=30) as answer:
        folder = Path(json.loads(answer.read())["outputs"])
    folder.mkdir(parents=True, exist_ok=True)
    before = {*folder.iterdir()}
    yield folder
    for path in {*folder.iterdir()} - before:
        path.unlink() if path.is_file() else shutil.rmtree(path)


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
def page(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    """An opened page; at the end it must not have complained. VITFACE_SHOTS names a folder for a picture of how it ends."""
    context = browser.new_context(viewport={"width": 1300, "height": 900}, permissions=["camera"])
    found = context.new_page()
    faults: list[str] = []
    found.on("pageerror", lambda error: faults.append(f"{error}\n{error.stack}"))
    enter(found, address)
    yield found
    if SHOTS is not None:
        found.screenshot(path=Path(SHOTS) / f"{request.node.name}.png", full_page=True)
    context.close()
    assert faults == []
