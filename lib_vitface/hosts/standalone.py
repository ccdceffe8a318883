"""The tabs and routes without a WebUI: `python start.py ui` (which runs `python -m lib_vitface.hosts.standalone`)."""

from __future__ import annotations

import argparse
import ipaddress
import json
import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib_vitface.errors import InputError, MissingDependencyError, ViTFaceError
from lib_vitface.ui.site import Site

log = logging.getLogger("vitface")
ROOT = Path(__file__).resolve().parents[2]


def make_parser() -> argparse.ArgumentParser:
    from lib_vitface.cli import default_workspace

    parser = argparse.ArgumentParser(prog="start.py ui", description="The tabs of ViTFace in a browser.")
    parser.add_argument(
        "--host", default="127.0.0.1", help="Address to listen on; anything but loopback needs --login."
    )
    parser.add_argument("--port", type=int, default=7870, help="Port; 0 takes a free one. Default: 7870.")
    parser.add_argument("--login", action="append", default=[], metavar="NAME:PASSWORD", help="Ask for this login.")
    parser.add_argument(
        "--workspace", type=Path, default=default_workspace(), metavar="DIR", help="Folder of everything."
    )
    parser.add_argument(
        "--outputs", type=Path, metavar="DIR", help="Folder of results. Default: outputs in the workspace."
    )
    parser.add_argument(
        "--allow", type=Path, action="append", default=[], metavar="DIR", help="A further folder to use."
    )
    parser.add_argument("--device", default="auto", help="Device where a form says auto: auto, cpu, cuda, cuda:1, mps.")
    parser.add_argument("--open", action="store_true", help="Open the page in the browser.")
    return parser


def read_logins(given: Sequence[str]) -> dict[str, str]:
    """Names and passwords. Raises `InputError` for an entry without both."""
    found = {}
    for one in given:
        name, colon, password = one.partition(":")
        if not (name and colon and password):
            raise InputError("--login: write NAME:PASSWORD.")
        found[name] = password
    return found


def is_loopback(host: str) -> bool:
    try:
        return all(ipaddress.ip_address(a[4][0]).is_loopback for a in socket.getaddrinfo(host, None))
    except (OSError, ValueError):
        return False


def make_app(site: Site, logins: dict[str, str]) -> Any:
    """A FastAPI application with page and routes; a login guards both."""
    try:
        import fastapi

        from lib_vitface.ui import dialect, tabs
    except ImportError as error:
        raise MissingDependencyError(f"{error.name} is missing: pip install -r requirements-ui.txt") from None
    from lib_vitface.hosts import api as routes
    from lib_vitface.hosts.guarded import basic_guard
    from lib_vitface.ui.runner import shared_runner
    from lib_vitface.ui.studio import Studio

    runner, studio = shared_runner(site), Studio(site)
    page = tabs.build(runner, studio)
    app = fastapi.FastAPI(title="ViTFace")
    routes.mount(app, routes.Api(runner, studio), [basic_guard(logins)] if logins else [])
    css, script = ((ROOT / name).read_text(encoding="utf-8") for name in ("style.css", "javascript/vitface.js"))
    site.outputs.mkdir(parents=True, exist_ok=True)
    script = f"window.vitfaceTexts = {json.dumps(languages())};\n{script}"
    return dialect.mount(app, page, site.outputs, logins, css, script)


def languages() -> dict[str, dict[str, str]]:
    """Texts of the page in other languages, from the files the WebUI reads; ja: {English: Japanese}."""
    found = {}
    for path in sorted((ROOT / "localizations").glob("*.json")):
        found[path.stem.partition("_")[0]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def serve(arguments: Sequence[str]) -> None:
    """Serves until interrupted."""
    given = make_parser().parse_args(arguments)
    logins = read_logins(given.login)
    if not logins and not is_loopback(given.host):
        raise InputError("--host: an address others can reach needs --login NAME:PASSWORD.")
    workspace = given.workspace.expanduser().resolve()
    outputs = (given.outputs or workspace / "outputs").expanduser().resolve()
    allowed = tuple(folder.expanduser().resolve() for folder in given.allow)
    app = make_app(Site(workspace, outputs, allowed, given.device), logins)
    import uvicorn

    if given.open:
        import threading
        import webbrowser

        threading.Timer(1.5, webbrowser.open, [f"http://{given.host}:{given.port}/"]).start()
    log.warning("ViTFace: http://%s:%s/  (Ctrl-C ends it; jobs go on)", given.host, given.port)
    uvicorn.run(app, host=given.host, port=given.port, log_level="warning")


def main(arguments: Sequence[str]) -> int:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        serve(arguments)
    except ViTFaceError as error:
        log.error("vitface: %s", error)
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
