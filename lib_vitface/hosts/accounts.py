"""Who may use the routes: whoever the WebUI itself lets in, by its API login or by its page's login."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import HTTPException, Request

from lib_vitface.hosts.guarded import Guard, basic_guard, either


def pairs(text: str) -> dict[str, str]:
    """`a:b,c:d` (commas or lines) as names and passwords."""
    found = {}
    for one in text.replace("\n", ",").split(","):
        name, colon, password = one.strip().partition(":")
        if name and colon:
            found[name] = password
    return found


def page_guard(app: Any) -> Guard:
    """Lets in whoever is logged in on the page: gradio keeps its logins in `app.tokens` and names them in a cookie."""

    def guard(request: Request) -> None:
        known = getattr(app, "tokens", {})
        for name, value in request.cookies.items():
            if name.startswith("access-token") and value in known:
                return
        raise HTTPException(401, "Log in on the page, or send name and password.", {"WWW-Authenticate": "Basic"})

    return guard


def guards_of(cmd_opts: Any, app: Any) -> list[Guard]:
    """Guards for the WebUI's `--api-auth`, `--gradio-auth` and `--gradio-auth-path`; none where it asks nobody."""
    for_api = pairs(getattr(cmd_opts, "api_auth", None) or "")
    for_page = pairs(getattr(cmd_opts, "gradio_auth", None) or "")
    path = getattr(cmd_opts, "gradio_auth_path", None)
    if path and Path(path).is_file():
        for_page |= pairs(Path(path).read_text(encoding="utf-8"))
    ways: list[Guard] = []
    if for_api or for_page:
        ways.append(basic_guard(for_api or for_page))
    if for_page:
        ways.append(page_guard(app))
    return [either(*ways)] if ways else []
