"""What the WebUI has finished is swapped and marked before it is shown, saved or sent.

After face restoration, ADetailer and inpainting's composite, and before it is saved: so infotext, file names, grids, batches,
hires fix and the API all see the finished picture.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from modules import scripts
from PIL import Image as Pillow

from lib_vitface.errors import ViTFaceError
from lib_vitface.hosts import script_values, webui_diffusion, webui_site
from lib_vitface.hosts.script_values import ATTRIBUTE, TITLE
from lib_vitface.hosts.statements import with_statement
from lib_vitface.hosts.webui_room import room

log = logging.getLogger("vitface")
_NOTE = f"{TITLE} note"  # of a picture's infotext
_DOOR = "vitface_door"  # of the processing object: who published its pictures
_SWAPPED = "vitface_swapped"  # of the processing object: for each picture whether it was swapped


class ViTFacePictures(scripts.Script):
    """Always on, without controls: swaps finished pictures where a swap was asked for, and marks what is made of them."""

    sorting_priority = 1000  # after others that change pictures

    def title(self) -> str:
        return f"{TITLE} pictures"

    def show(self, is_img2img: bool) -> Any:
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        return []

    def before_process(self, p: Any, *_: Any) -> None:
        """Any generation, with a swap in it or not, needs the checkpoint that long work may have moved out."""
        room.give_back_held()

    def process(self, p: Any, *_: Any) -> None:
        values = getattr(p, ATTRIBUTE, None)
        if values:
            setattr(p, _SWAPPED, [])
            p.extra_generation_params.update(script_values.to_infotext(script_values.checked(values)))

    def postprocess_image_after_composite(self, p: Any, pp: Any, *_: Any) -> None:
        values = getattr(p, ATTRIBUTE, None)
        if not values:
            return
        try:
            webui_site.tick(0, 3)
            picture = np.ascontiguousarray(np.asarray(pp.image.convert("RGB"), dtype=np.uint8))
            # the WebUI holds its queue's lock while it generates, and that lock cannot be taken twice
            result = webui_site.renewed_studio().swap(
                picture,
                values,
                webui_site.tick,
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
        note_swapped(p, True)
        pp.image = said(Pillow.fromarray(result.image), pp.image.info, result.publisher)

    def postprocess(self, p: Any, processed: Any, *_: Any) -> None:
        """The grid is put together after the pictures were marked, and shrinking it may have washed the mark out; a script
        that came later may have painted over a picture's."""
        door = getattr(p, _DOOR, None)
        if door is None:
            return
        first = getattr(processed, "index_of_first_image", 0)
        swapped = getattr(p, _SWAPPED, [])
        for number, picture in enumerate(processed.images):
            place = number - first
            if place < 0 or (place < len(swapped) and swapped[place]):
                processed.images[number] = marked(picture, door)


def note_swapped(p: Any, swapped: bool) -> None:
    setattr(p, _SWAPPED, [*getattr(p, _SWAPPED, []), swapped])


def left_as_it_was(p: Any, reason: str) -> None:
    """Says so under the picture, and in its own infotext, which is all that a program is given."""
    note_swapped(p, False)
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


def door_of(params: Any) -> Any:
    """Who publishes what is being saved; None for a picture without a swap, also beside others with one."""
    grid = Path(params.filename).name.startswith("grid")
    if params.p is None or (not grid and _NOTE in params.pnginfo.get("parameters", "")):
        return None
    return getattr(params.p, _DOOR, None)


def before_saved(params: Any) -> None:
    """Whatever the WebUI saves of a generation with a swap in it (pictures, grids) bears mark and statement."""
    door = door_of(params)
    if door is not None:
        params.image = marked(params.image, door)
        params.pnginfo["XML:com.adobe.xmp"] = door.xmp.decode("utf-8")


def after_saved(params: Any) -> None:
    """The WebUI writes XMP into PNG files only, and signs none; the manifest goes in last."""
    door = door_of(params)
    if door is None:
        return
    path = Path(params.filename)
    beside = path.with_name(f"{path.name}.part")
    try:
        before = path.read_bytes()
        data = door.sealed(with_statement(before, door.xmp), path.suffix)
        if data != before:
            beside.write_bytes(data)
            beside.replace(path)
    except (OSError, ViTFaceError):
        beside.unlink(missing_ok=True)
        log.exception("%s: statement and manifest could not be written into the file", path)
