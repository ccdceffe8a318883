"""What the WebUI is to the tabs, the routes and the script: folders, device, lock, progress, and single pictures in its process."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

from modules import paths, shared
from modules.call_queue import queue_lock

from lib_vitface.errors import Cancelled, ViTFaceError
from lib_vitface.hosts import webui_diffusion, worker
from lib_vitface.hosts.webui_room import room
from lib_vitface.types import Host
from lib_vitface.ui.site import Site
from lib_vitface.ui.studio import Studio

log = logging.getLogger("vitface")


def workspace() -> Path:
    named = getattr(shared.cmd_opts, "vitface_dir", None)
    return Path(named or Path(paths.models_path) / "vitface").expanduser().resolve()


def make_site() -> Site:
    """The WebUI's folders and device."""
    folders = [*getattr(shared.cmd_opts, "vitface_allow", []), *str(option("folders", "")).splitlines()]
    allowed = tuple(Path(folder.strip()).expanduser().resolve() for folder in folders if folder.strip())
    return Site(
        workspace(),
        Path(paths.data_path, "outputs", "vitface").resolve(),
        allowed,
        device=str(option("device", "auto")) or "auto",
        exclusive=lambda: queue_lock,
        denoiser=webui_diffusion.CheckpointDenoiser(),
        run_here=run_here,
        samplers=webui_diffusion.sampler_names,
        schedules=webui_diffusion.schedule_names,
        before_long_work=make_room,
        after_long_work=room.give_back,
    )


def option(name: str, default: Any) -> Any:
    return shared.opts.data.get(f"vitface_{name}", default)


@functools.lru_cache(maxsize=1)
def studio() -> Studio:
    """Kept over "Reload UI", with the model it has loaded; its site is renewed."""
    return Studio(make_site())


def renewed_studio() -> Studio:
    found = studio()
    found.site = make_site()
    return found


def make_room() -> None:
    """Before training and long swaps: neither the checkpoint nor our own model stays in the graphics memory."""
    if room.wanted():
        studio().forget()
        room.make()


def tick(done: float, total: float, note: str = "") -> None:
    """Shows what is done in the WebUI's progress bar, and obeys Interrupt and Skip."""
    if shared.state.interrupted or shared.state.skipped:
        raise Cancelled("the swap was interrupted; the picture is as it was generated.")
    shared.state.textinfo = f"ViTFace: {note}" if note else None


def run_here(job_id: str) -> None:
    """A job that draws with the loaded checkpoint, in this process and under the queue's lock; how it went stands in the store."""
    site = make_site()

    def obeying(done: float, total: float, note: str = "") -> None:
        webui_diffusion.check_interrupt()
        shared.state.job_count, shared.state.job_no = max(int(total), 1), int(done)
        shared.state.textinfo = f"ViTFace: {note}" if note else None

    host = Host(site.workspace, site.device, obeying, webui_diffusion.held, site.denoiser)
    try:
        worker.perform(job_id, host)
    except ViTFaceError as error:
        log.error("job %s: %s", job_id, error)
    except Exception:
        log.exception("job %s failed", job_id)
