"""Routes under `/vitface/v1/` for any FastAPI application: the tasks as jobs, pictures at once, and what there is.

Options are those of the command line; their schemas come from the same declarations. Requests are read here rather than by
pydantic models, so that the routes are the same under its versions 1 and 2. All endpoints are plain functions (the server
runs them in threads). Every error is `{"error": sentence, "kind": name}`.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import APIRouter, Body, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse

from lib_vitface import __version__, options
from lib_vitface.errors import InputError, ViTFaceError
from lib_vitface.hosts.guarded import Guard, guarded_route, receive_upload
from lib_vitface.jobs import Job
from lib_vitface.tasks import TASKS
from lib_vitface.types import Image
from lib_vitface.ui.runner import Runner, task_named, task_of
from lib_vitface.ui.studio import Result, Studio, picture_schema

PREFIX = "/vitface/v1"
log = logging.getLogger("vitface")

Values = dict[str, Any]


class Api:
    """The endpoints, for one workspace."""

    def __init__(self, runner: Runner, studio: Studio) -> None:
        self.runner, self.studio = runner, studio

    def about(self) -> Values:
        """Version, tasks and folders."""
        site = self.runner.site
        tasks = {name: {"summary": task.summary, "job": task.heavy} for name, task in TASKS.items()}
        return {"version": __version__, "tasks": tasks, "workspace": str(site.workspace), "outputs": str(site.outputs)}

    def schema(self, task: str) -> Values:
        """JSON schema of a task's options; `picture` for those of the picture route."""
        return picture_schema() if task == "picture" else options.json_schema(task_named(task).options)

    def start(self, task: str, values: Values) -> Values:
        """Runs a short task and answers with its result, or starts a job of a long one."""
        if task_named(task).heavy:
            return self.shown(self.runner.submit(task, values))
        return {"result": self.runner.run_now(task, values)}

    def jobs(self, task: str | None = None) -> Values:
        return {"jobs": [self.shown(job) for job in self.runner.jobs(task)]}

    def job(self, job_id: str) -> Values:
        return {**self.shown(self.runner.get(job_id)), "log": self.runner.log(job_id)}

    def shown(self, job: Job) -> Values:
        """A job as JSON."""
        state = "interrupted" if job.interrupted else job.state
        return {
            "id": job.id,
            "task": task_of(job),
            "state": state,
            "progress": job.done / job.total if job.total else 0.0,
            "note": job.note,
            "options": job.options,
            "result": job.result,
            "error": job.error,
            "failure": self.runner.failure(job),
            "created": job.created,
            "updated": job.updated,
            "stop_requested": job.stop_requested,
        }

    def result_file(self, job_id: str) -> Path:
        """The file a finished job wrote."""
        job = self.runner.get(job_id)
        named = (job.result or {}).get("output")
        if job.state != "done" or not named:
            raise InputError(f"Job {job_id} has no finished file; it is {job.state}.")
        path = self.runner.site.resolve(named, self.runner.site.outputs, "output")
        if not path.is_file():
            raise InputError(f"{path}: is not there any more, or is a folder.")
        return path

    def delete(self, job_id: str) -> Values:
        self.runner.delete(job_id)
        return {"deleted": job_id}

    def picture(self, values: Values) -> Values:
        """`image` (base64) with the face replaced; `options` as the schema `picture` says. The answer is a marked PNG."""
        unknown = sorted(set(values) - {"image", "options"})
        if unknown or not isinstance(values.get("options", {}), dict):
            raise InputError(f"The request holds `image` and `options`, not {unknown[:3] or 'other kinds of them'}.")
        image = decode_picture(values.get("image"))
        result = self.studio.swap(image, values.get("options", {}))
        box = [round(float(value), 1) for value in result.face.box]
        return {"image": encode_picture(result, image), "face": box}

    def names(self) -> Values:
        site = self.runner.site
        return {"models": site.names("model"), "facesets": site.names("faceset")}


def decode_picture(text: Any) -> Image:
    """RGB of a base64 picture (a data URL too)."""
    if not isinstance(text, str) or not text:
        raise InputError("image: a picture as base64 text is needed.")
    try:
        data = base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except (binascii.Error, ValueError):
        raise InputError("image: is not base64.") from None
    from PIL import Image as Pillow
    from PIL import ImageOps, UnidentifiedImageError

    try:
        with Pillow.open(io.BytesIO(data)) as picture:
            if picture.width * picture.height > 64_000_000:
                raise InputError("image: has more than 64 million pixels.")
            return np.ascontiguousarray(np.asarray(ImageOps.exif_transpose(picture).convert("RGB"), dtype=np.uint8))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Pillow.DecompressionBombError):
        raise InputError("image: is no picture that can be read; send PNG, JPEG or WebP.") from None


def encode_picture(result: Result, before: Image) -> str:
    """Base64 PNG with statement and manifest in it; the picture is marked already. `before` is what it was made from."""
    from PIL import Image as Pillow
    from PIL.PngImagePlugin import PngInfo

    def png(image: Image, notes: PngInfo | None) -> bytes:
        buffer = io.BytesIO()
        Pillow.fromarray(image).save(buffer, "PNG", pnginfo=notes)
        return buffer.getvalue()

    notes = PngInfo()
    notes.add_itxt("XML:com.adobe.xmp", result.publisher.xmp.decode("utf-8"))
    data = result.publisher.sealed(png(result.image, notes), ".png", png(before, None))
    return base64.b64encode(data).decode("ascii")


def answered(work: Callable[[], Any], status: int = 200) -> Any:
    """What an endpoint brought, or its error as JSON."""
    try:
        found = work()
    except ViTFaceError as error:
        return JSONResponse({"error": str(error), "kind": type(error).__name__}, status_code=error.http_status)
    except Exception:
        log.exception("a request failed")
        return JSONResponse({"error": "The program failed; its log says where.", "kind": "error"}, status_code=500)
    if isinstance(found, Path):
        return FileResponse(found, filename=found.name)
    return JSONResponse(json.loads(json.dumps(found, default=str)), status_code=status)


def make_router(api: Api, guards: Sequence[Guard] = ()) -> APIRouter:
    """All routes; each asks the `guards` first."""
    errors: dict[int | str, dict[str, Any]] = {"4XX": {"description": "`error`: a sentence; `kind`: its class"}}
    router = APIRouter(prefix=PREFIX, tags=["ViTFace"], route_class=guarded_route(guards), responses=errors)

    @router.get("/", summary="Version, tasks and folders")
    def about() -> Any:
        return answered(api.about)

    @router.get("/names", summary="Models and facesets of the workspace")
    def names() -> Any:
        return answered(api.names)

    @router.get("/schema/{task}", summary="JSON schema of a task's options")
    def schema(task: str) -> Any:
        return answered(lambda: api.schema(task))

    @router.get("/doctor", summary="What is here and what is missing")
    def doctor() -> Any:
        return answered(lambda: api.runner.run_now("doctor", {}))

    @router.post("/picture", summary="Swap the face in one picture, base64 in and out")
    def picture(values: Values = Body(...)) -> Any:  # noqa: B008
        return answered(lambda: api.picture(values))

    @router.post("/uploads", summary="Bring a file into the workspace (the body is the file)")
    async def upload(request: Request, name: str) -> Any:
        path = await receive_upload(api.runner.site, request, name)
        return answered(lambda: {"path": str(path)}, 201)

    add_job_routes(router, api)
    for task in TASKS.values():
        add_task_route(router, api, task.name)
    return router


def add_job_routes(router: APIRouter, api: Api) -> None:
    @router.get("/jobs", summary="All jobs, newest first")
    def jobs(task: str | None = None) -> Any:
        return answered(lambda: api.jobs(task))

    @router.get("/jobs/{job_id}", summary="One job with the end of its log")
    def job(job_id: str) -> Any:
        return answered(lambda: api.job(job_id))

    @router.post("/jobs/{job_id}/cancel", summary="Stop a job; what was finished is kept")
    def cancel(job_id: str) -> Any:
        return answered(lambda: api.shown(api.runner.cancel(job_id)))

    @router.post("/jobs/{job_id}/resume", summary="Go on with a stopped, failed or interrupted job")
    def resume(job_id: str) -> Any:
        return answered(lambda: api.shown(api.runner.resume(job_id)))

    @router.delete("/jobs/{job_id}", summary="Take a job off the list; what it wrote stays")
    def delete(job_id: str) -> Any:
        return answered(lambda: api.delete(job_id))

    @router.get("/jobs/{job_id}/result", summary="The file a finished job wrote")
    def result(job_id: str) -> Any:
        return answered(lambda: api.result_file(job_id))


def add_task_route(router: APIRouter, api: Api, name: str) -> None:
    task = TASKS[name]
    content = {"application/json": {"schema": options.json_schema(task.options)}}

    def start(values: Values = Body(...)) -> Any:  # noqa: B008
        return answered(lambda: api.start(name, values), 202 if task.heavy else 200)

    router.add_api_route(
        f"/{name}",
        start,
        methods=["POST"],
        name=f"vitface_{name}",
        summary=task.summary,
        openapi_extra={"requestBody": {"content": content, "required": True}},
    )


def mount(app: FastAPI, api: Api, guards: Sequence[Guard] = ()) -> None:
    """Adds the routes to an application, once."""
    if getattr(app.state, "vitface", False):
        return
    app.state.vitface = True
    app.include_router(make_router(api, guards))
    app.openapi_schema = None
