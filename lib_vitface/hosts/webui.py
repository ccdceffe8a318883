"""The WebUI's side: its folders, its lock, its callbacks, and the script in txt2img and img2img. Alone imports `modules.*`.

`scripts/vitface.py` calls `register` each time the WebUI loads its scripts; nothing is registered when this is imported.

The script sets `p.vitface` and lets the WebUI generate; the always-on part swaps each finished picture after the WebUI has put
it together (so after face restoration, ADetailer and inpainting's composite, and before it is saved), so that infotext, file
names, grids, batches, hires fix and the API all see the finished picture.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from modules import paths, processing, script_callbacks, scripts, sd_models, shared
from modules.call_queue import queue_lock
from modules.ui_common import create_refresh_button
from PIL import Image as Pillow

from lib_vitface.errors import Cancelled, ViTFaceError
from lib_vitface.hosts import script_values, webui_diffusion, worker
from lib_vitface.hosts.accounts import guards_of
from lib_vitface.hosts.script_values import ATTRIBUTE, TITLE
from lib_vitface.hosts.statements import with_statement
from lib_vitface.types import Host
from lib_vitface.ui import form as forms
from lib_vitface.ui.runner import shared_runner
from lib_vitface.ui.site import PRIVATE, Site
from lib_vitface.ui.studio import Studio, picture_items

log = logging.getLogger("vitface")
_SECTION = ("vitface", TITLE)
_NOTE = f"{TITLE} note"  # of a picture's infotext
_DOOR = "vitface_door"  # of the processing object: who published its pictures


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
        after_long_work=take_back,
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
    """Moves the checkpoint out of the graphics memory for training and long swaps."""
    import torch

    if not torch.cuda.is_available() or not option("free_memory", True):
        return
    studio().forget()
    with queue_lock:
        try:
            sd_models.unload_model_weights()
        except Exception:
            log.exception("the checkpoint could not be moved out of the graphics memory")


def take_back() -> None:
    import torch

    if not torch.cuda.is_available() or not option("free_memory", True):
        return
    with queue_lock:
        try:
            sd_models.reload_model_weights()
        except Exception:
            log.exception("the checkpoint could not be moved back; the next generation loads it")


class ViTFaceScript(scripts.Script):
    """In the Script dropdown: says which swap is wanted."""

    def title(self) -> str:
        return TITLE

    def show(self, is_img2img: bool) -> bool:
        return True

    def ui(self, is_img2img: bool) -> list[Any]:
        prefix = f"vitface-{'img2img' if is_img2img else 'txt2img'}"
        self.form = forms.Form(make_site(), "swap", prefix)
        forms.build_items(self.form, picture_items())
        self.form.wire()
        for name in ("model", "face_picture"):
            self.form.component(name).do_not_save_to_config = True  # may be gone at the next start
        model = self.form.component("model")
        create_refresh_button(model, lambda: None, lambda: {"choices": make_site().names("model")}, f"{prefix}-refresh")
        pairs = list(zip(self.form.items, self.form.components, strict=True))
        self.infotext_fields = [(control, script_values.from_infotext(item)) for item, control in pairs]
        self.paste_field_names = [script_values.key_of(item) for item in self.form.items]
        return list(self.form.components)

    def run(self, p: Any, *values: Any) -> Any:
        items = picture_items()
        given = {item.name: value for item, value in zip(items, values, strict=False) if value not in (None, "")}
        setattr(p, ATTRIBUTE, script_values.checked(given))
        renewed_studio().prepare(getattr(p, ATTRIBUTE))
        return processing.process_images(p)


class ViTFacePictures(scripts.Script):
    """Always on, without controls: swaps finished pictures where a swap was asked for, and marks what is made of them."""

    sorting_priority = 1000  # after others that change pictures

    def title(self) -> str:
        return f"{TITLE} pictures"

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        return []

    def process(self, p: Any, *_: Any) -> None:
        values = getattr(p, ATTRIBUTE, None)
        if values:
            p.extra_generation_params.update(script_values.to_infotext(script_values.checked(values)))

    def postprocess_image_after_composite(self, p: Any, pp: Any, *_: Any) -> None:
        values = getattr(p, ATTRIBUTE, None)
        if not values or shared.state.interrupted or shared.state.skipped:
            return
        try:
            picture = np.ascontiguousarray(np.asarray(pp.image.convert("RGB"), dtype=np.uint8))
            # the WebUI holds its queue's lock while it generates, and that lock cannot be taken twice
            result = renewed_studio().swap(
                picture,
                values,
                tick,
                denoiser=webui_diffusion.CheckpointDenoiser(p),
                words=webui_diffusion.words_of(p),
                alone=True,
            )
        except ViTFaceError as error:
            left_as_it_was(p, str(error))
            return
        except Exception:
            log.exception("a picture could not be swapped")
            left_as_it_was(p, "the swap failed, and the picture is as it was generated; the console says why.")
            return
        p.extra_generation_params.pop(_NOTE, None)
        setattr(p, _DOOR, result.publisher)
        pp.image = said(Pillow.fromarray(result.image), pp.image.info, result.publisher)

    def postprocess(self, p: Any, processed: Any, *_: Any) -> None:
        """The grid is put together after the pictures were marked, and shrinking it may have washed the mark out."""
        door = getattr(p, _DOOR, None)
        for number in range(getattr(processed, "index_of_first_image", 0) if door else 0):
            processed.images[number] = marked(processed.images[number], door)


def left_as_it_was(p: Any, reason: str) -> None:
    """Says so under the picture, and in its own infotext, which is all that a program is given."""
    p.comment(f"{TITLE}: {reason}")
    p.extra_generation_params[_NOTE] = reason


def said(picture: Any, info: dict[str, Any], door: Any) -> Any:
    """The picture with the statement among its texts, which the WebUI writes into PNG files and API answers."""
    picture.info = {**info, "XML:com.adobe.xmp": door.xmp.decode("utf-8")}
    return picture


def marked(picture: Any, door: Any) -> Any:
    """With the mark in its pixels; one that bears it already stays as it is."""
    before = np.ascontiguousarray(np.asarray(picture.convert("RGB"), dtype=np.uint8))
    after = door.mark(before)
    return said(picture if after is before else Pillow.fromarray(after), picture.info, door)


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


def before_saved(params: Any) -> None:
    """Whatever the WebUI saves of a generation with a swap in it (pictures, grids) bears mark and statement."""
    door = getattr(params.p, _DOOR, None) if params.p is not None else None
    if door is not None:
        params.image = marked(params.image, door)
        params.pnginfo["XML:com.adobe.xmp"] = door.xmp.decode("utf-8")


def after_saved(params: Any) -> None:
    """The WebUI writes XMP into PNG files only, and signs none; the manifest goes in last."""
    door = getattr(params.p, _DOOR, None) if params.p is not None else None
    path = Path(params.filename)
    if door is None:
        return
    try:
        before = path.read_bytes()
        data = door.sealed(with_statement(before, door.xmp), path.suffix)
        if data != before:
            path.write_bytes(data)
    except (OSError, ViTFaceError):
        log.exception("%s: statement and manifest could not be written into the file", path)


def add_axes() -> None:
    """Axes of the X/Y/Z plot script, once for each time it was loaded."""
    for data in scripts.scripts_data:
        module = data.module
        if Path(data.path).name not in {"xyz_grid.py", "xy_grid.py"} or not hasattr(module, "axis_options"):
            continue
        known = {axis.label for axis in module.axis_options}
        for name, kind in script_values.AXES.items():
            title = script_values.axis_title(name)
            if title in known:
                continue
            choices = {"choices": lambda: make_site().names("model")} if name == "model" else {}
            module.axis_options.append(module.AxisOption(title, kind, setter(name), **choices))


def setter(name: str) -> Callable[[Any, Any, Any], None]:
    def apply(p: Any, value: Any, values: Any) -> None:
        setattr(p, ATTRIBUTE, script_values.with_value(getattr(p, ATTRIBUTE, None), name, value))

    return apply


def before_ui() -> None:
    try:
        add_axes()
    except Exception:
        log.exception("the axes of the X/Y/Z plot could not be added")


def tabs() -> list[tuple[Any, str, str]]:
    from lib_vitface.ui import tabs as pages

    return [(pages.build(shared_runner(make_site()), renewed_studio()), TITLE, "vitface")]


def started(demo: Any, app: Any) -> None:
    """Adds the routes; keys and the job store are never served as files."""
    from lib_vitface.hosts import api as routes

    if demo is not None:
        private = [str(workspace() / name) for name in PRIVATE]
        demo.blocked_paths = [*(getattr(demo, "blocked_paths", None) or []), *private]
    routes.mount(app, routes.Api(shared_runner(make_site()), renewed_studio()), guards_of(shared.cmd_opts, app))


def settings() -> None:
    add, info = shared.opts.add_option, shared.OptionInfo
    folders = info(
        "", "Further folders that ViTFace may use, one a line", gr.Textbox, {"lines": 3}, section=_SECTION
    ).info("its own folder and outputs/vitface are always allowed; the same goes for its API")
    room = info(True, "Move the checkpoint out of the graphics memory during long work", section=_SECTION)
    add("vitface_folders", folders)
    add(
        "vitface_device",
        info("auto", "Device of pictures and previews", gr.Textbox, section=_SECTION).info(
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
    script_callbacks.on_before_image_saved(before_saved, name="before-image-saved")
    script_callbacks.on_image_saved(after_saved, name="image-saved")
