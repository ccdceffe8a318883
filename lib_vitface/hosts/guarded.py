"""How requests get in: credentials are asked for before the body is read, and no body is larger than its route allows."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException as AnyHTTPException

from lib_vitface.errors import InputError, OutputError, ViTFaceError
from lib_vitface.ui.site import Site

Guard = Callable[[Request], None]
Handler = Callable[[Request], Any]
BODY_LIMIT = 96 << 20  # a 64 MB picture as base64, and some options


class TooLargeError(InputError):
    """A request's body is larger than the route takes."""

    http_status = 413


def refused(error: ViTFaceError) -> JSONResponse:
    return JSONResponse({"error": str(error), "kind": type(error).__name__}, status_code=error.http_status)


def guarded_route(guards: Sequence[Guard], limit: int = BODY_LIMIT) -> type[APIRoute]:
    """A route class that asks the guards first, counts the body, and says what is wrong with a request in a sentence."""

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()

            async def guarded(request: Request) -> Response:
                try:
                    own_site(request)
                    for guard in guards:
                        guard(request)
                    if not self.path.endswith("/uploads"):
                        await read_limited(request, limit)
                    answer: Response = await handle(request)
                    return answer
                except ViTFaceError as error:
                    return refused(error)
                except RequestValidationError as error:
                    return refused(InputError(describe(error)))
                except AnyHTTPException as error:  # FastAPI's own, and of a body that cannot be read
                    body = {"error": str(error.detail), "kind": "HTTPException"}
                    return JSONResponse(body, status_code=error.status_code, headers=dict(error.headers or {}))

            return guarded

    return GuardedRoute


def own_site(request: Request) -> None:
    """Refuses what a page of another site makes a browser send; programs and the own page do not say cross-site."""
    if request.headers.get("sec-fetch-site") == "cross-site":
        raise HTTPException(403, "Requests from other sites' pages are not taken.")


async def read_limited(request: Request, limit: int) -> None:
    """Reads the body into the request's own cache, or raises `TooLargeError`."""
    parts, size = [], 0
    async for part in counted(request, limit):
        parts.append(part)
        size += len(part)
    request._body = b"".join(parts)


async def counted(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body, piece by piece, up to `limit` bytes."""
    said = request.headers.get("content-length", "")
    if said.isdigit() and int(said) > limit:
        raise TooLargeError(f"The request is larger than {limit >> 20} MiB.")
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise TooLargeError(f"The request is larger than {limit >> 20} MiB.")
        yield part


def describe(error: RequestValidationError) -> str:
    """The first of a request's faults."""
    faults = error.errors()
    first: Mapping[str, Any] = faults[0] if faults else {}
    where = ".".join(str(part) for part in first.get("loc", ()) if part != "body")
    return f"The request cannot be read: {where + ': ' if where else ''}{first.get('msg', 'it is not valid')}."


async def receive_upload(site: Site, request: Request, name: str) -> Path:
    """Streams the body into the workspace's uploads; raises `TooLargeError`, `InputError` or `OutputError`."""
    if not name.strip():
        raise InputError("name: a file name is needed.")
    site.uploads.mkdir(parents=True, exist_ok=True)
    temporary = site.uploads / f".{os.getpid()}-{time.monotonic_ns()}.upload"
    try:
        with temporary.open("wb") as file:
            async for part in counted(request, site.upload_limit):
                file.write(part)
        if temporary.stat().st_size == 0:
            raise InputError("The upload is empty; send the file as the request's body.")
        return site.keep_upload(temporary, name)
    except OSError as error:
        raise OutputError(f"{site.uploads}: the upload cannot be kept ({error.strerror}); free some space.") from None
    finally:
        temporary.unlink(missing_ok=True)


def basic_guard(accounts: Mapping[str, str]) -> Guard:
    """Asks for HTTP basic credentials out of `accounts` (name: password)."""

    def guard(request: Request) -> None:
        kind, _, code = request.headers.get("authorization", "").partition(" ")
        try:
            name, _, password = base64.b64decode(code, validate=True).decode("utf-8").partition(":")
        except (binascii.Error, ValueError):
            kind, name, password = "", "", ""
        known = accounts.get(name, "")
        right = secrets.compare_digest(password.encode(), known.encode())
        if kind.lower() != "basic" or not right or name not in accounts:
            raise HTTPException(401, "Name and password are needed.", {"WWW-Authenticate": "Basic"})

    return guard


def either(*guards: Guard) -> Guard:
    """Lets in whoever one of the guards lets in."""

    def guard(request: Request) -> None:
        last: HTTPException | None = None
        for one in guards:
            try:
                one(request)
                return
            except HTTPException as error:
                last = error
        if last is not None:
            raise last

    return guard
