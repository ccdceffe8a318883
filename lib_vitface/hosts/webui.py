"""The extension in the WebUI (A1111, Forge): its tabs, routes, settings and callbacks. Only `webui*.py` import `modules.*`.

`scripts/vitface.py` calls `register` each time the WebUI loads its scripts; nothing is registered when this is imported. The
script (`webui_script`) sets `p.vitface` and lets the WebUI generate; the always-on part (`webui_pictures`) swaps.
"""

from __future__ import annotations

import logging
from typing import Any

import gradio as gr
from modules import script_callbacks, shared

from lib_vitface.hosts import webui_pictures, webui_script, webui_site
from lib_vitface.hosts.accounts import guards_of
from lib_vitface.hosts.script_values import TITLE
from lib_vitface.hosts.webui_pictures import ViTFacePictures
from lib_vitface.hosts.webui_script import ViTFaceScript
from lib_vitface.ui.runner import shared_runner
from lib_vitface.ui.site import PRIVATE

log = logging.getLogger("vitface")
_SECTION = ("vitface", TITLE)


def before_ui() -> None:
    try:
        webui_script.add_axes()
    except Exception:
        log.exception("the axes of the X/Y/Z plot could not be added")


def tabs() -> list[tuple[Any, str, str]]:
    from lib_vitface.ui import tabs as pages

    return [(pages.build(shared_runner(webui_site.make_site()), webui_site.renewed_studio()), TITLE, "vitface")]


def started(demo: Any, app: Any) -> None:
    """Adds the routes; keys and the job store are never served as files."""
    from lib_vitface.hosts import api as routes

    if demo is not None:
        private = [str(webui_site.workspace() / name) for name in PRIVATE]
        demo.blocked_paths = [*(getattr(demo, "blocked_paths", None) or []), *private]
    routes.mount(
        app,
        routes.Api(shared_runner(webui_site.make_site()), webui_site.renewed_studio()),
        guards_of(shared.cmd_opts, app),
    )


def settings() -> None:
    add, info = shared.opts.add_option, shared.OptionInfo
    folders = info(
        "", "Further folders that ViTFace may use, one a line", gr.Textbox, {"lines": 3}, section=_SECTION
    ).info("its own folder and outputs/vitface are always allowed; the same goes for its API")
    room = info(True, "Move the checkpoint out of the graphics memory during long work", section=_SECTION)
    add("vitface_folders", folders)
    add(
        "vitface_device",
        info("auto", "Device where a form leaves it at “auto”", gr.Textbox, section=_SECTION).info(
            "auto, cpu, cuda, cuda:1, mps"
        ),
    )
    add("vitface_free_memory", room.info("training and video swaps run in a process of their own"))


def register() -> None:
    """Called at every load of the scripts; the WebUI forgets what was registered before."""
    script_callbacks.on_before_ui(before_ui, name="before-ui")
    script_callbacks.on_ui_settings(settings, name="settings")
    script_callbacks.on_ui_tabs(tabs, name="ui-tabs")
    script_callbacks.on_app_started(started, name="app-started")
    script_callbacks.on_before_image_saved(webui_pictures.before_saved, name="before-image-saved")
    script_callbacks.on_image_saved(webui_pictures.after_saved, name="image-saved")


__all__ = ["ViTFacePictures", "ViTFaceScript", "register"]
