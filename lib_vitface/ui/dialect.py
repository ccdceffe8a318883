"""Where gradio 3.41, 4.40 and 6 differ; nothing else of the tabs knows which one it is."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from lib_vitface.errors import InputError

MAJOR = int(gr.__version__.split(".")[0])
# gradio 3 opens the camera as soon as the page is there, though nobody has asked for it; so there a button makes it live
CAMERA_AT_ONCE = MAJOR < 4
OPEN_CAMERA = "Open the camera"


def on(
    event: Callable[..., Any],
    act: Callable[..., Any] | None,
    inputs: Sequence[Any] = (),
    outputs: Sequence[Any] = (),
    *,
    quiet: bool = False,
    js: str | None = None,
) -> Any:
    """Connects an event of a component. `quiet` shows no spinner and does not wait in the queue."""
    known = inspect.signature(event).parameters
    wanted: dict[str, Any] = {"show_progress": "hidden" if quiet else "full"}
    if quiet:
        wanted["queue"] = False
    if js is not None:
        wanted["js" if "js" in known else "_js"] = js
    if "api_visibility" in known:
        wanted["api_visibility"] = "private"
    else:
        wanted["api_name"] = False
    if act is not None and len(outputs) == 1:
        act = _single(act)
    return event(act, list(inputs), list(outputs), **wanted)


def _single(act: Callable[..., Any]) -> Callable[..., Any]:
    """A list of one update as that update: for a single output gradio takes a list to be the value."""

    @functools.wraps(act)
    def unpacked(*values: Any) -> Any:
        found = act(*values)
        return found[0] if isinstance(found, list) and len(found) == 1 else found

    return unpacked


def webcam(label: str, elem_id: str) -> Any:
    """A picture taken with the camera, as an RGB array."""
    if "sources" in inspect.signature(gr.Image.__init__).parameters:
        return gr.Image(sources=["webcam"], type="numpy", label=label, elem_id=elem_id)
    return gr.Image(source="webcam", type="numpy", label=label, elem_id=elem_id, interactive=False)


def recorder(label: str, elem_id: str) -> Any:
    """A clip filmed with the camera, without sound and as the camera sees it (not mirrored), as the path of a file."""
    known = inspect.signature(gr.Video.__init__).parameters
    kind: dict[str, Any] = {"sources": ["webcam"]} if "sources" in known else {"source": "webcam", "interactive": False}
    if "webcam_options" in known:
        kind["webcam_options"] = gr.WebcamOptions(mirror=False)
    else:
        kind["mirror_webcam"] = False
    made = gr.Video(include_audio=False, label=label, elem_id=elem_id, **kind)
    # gradio would call the program ffmpeg, which need not be there, to take out the sound that was never recorded
    twin = copy.copy(made)
    twin.include_audio = True
    made.preprocess = twin.preprocess
    return made


def camera_button(elem_id: str) -> Any:
    """A button for `opens`; None where a camera waits to be asked."""
    return gr.Button(OPEN_CAMERA, elem_id=elem_id) if CAMERA_AT_ONCE else None


def opens(button: Any, *cameras: Any) -> None:
    """Connects a `camera_button` with what is made by `webcam` and `recorder`."""
    if button is not None:
        on(button.click, lambda: [update(interactive=True)] * len(cameras), [], cameras, quiet=True)


def picture(label: str, elem_id: str, *, height: int | None = None, visible: bool = True) -> Any:
    """An RGB array that is shown."""
    return gr.Image(type="numpy", label=label, elem_id=elem_id, interactive=False, height=height, visible=visible)


def gallery(label: str, elem_id: str, columns: int, height: int, *, preview: bool = False, visible: bool = True) -> Any:
    """Pictures that are only looked at and clicked; a click enlarges with `preview`."""
    extra = {"interactive": False} if "interactive" in inspect.signature(gr.Gallery.__init__).parameters else {}
    return gr.Gallery(
        label=label,
        elem_id=elem_id,
        columns=columns,
        height=height,
        allow_preview=preview,
        object_fit="contain",
        visible=visible,
        **extra,
    )


def several(names: Sequence[str], chosen: Sequence[Any], **shared: Any) -> Any:
    """A dropdown of which more than one can be taken; gradio 3 takes only what is in the list."""
    own = {"allow_custom_value": True} if MAJOR >= 4 else {}
    return gr.Dropdown(choices=[*names], value=[*chosen], multiselect=True, **own, **shared)


def uploaded(value: Any) -> list[Path]:
    """The files of a `gr.File`, whatever the version gives for them. Raises `InputError` for anything else."""
    found = []
    for one in value if isinstance(value, list) else [value]:
        if one is None:
            continue
        name = one if isinstance(one, (str, Path)) else getattr(one, "name", None)
        if name is None:
            raise InputError("The upload cannot be read; try it again.")
        found.append(Path(str(name)))
    return found


def mount(app: Any, page: Any, folder: Path, logins: Mapping[str, str], css: str, script: str) -> Any:
    """The page at the root of a FastAPI application, with its style and script; files of `folder` are served with it."""
    known = inspect.signature(gr.mount_gradio_app).parameters
    # fonts of the system: the usual theme asks a font server of somebody else's
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    extra: dict[str, Any] = {"auth": list(logins.items())} if logins else {}
    head = f"<script>{script}</script>"
    if "css" in known:
        extra.update(css=css, head=head, theme=theme)
    else:
        page.css, page.head, page.theme, page.theme_css = css, head, theme, theme._get_theme_css()
        page.stylesheets = theme._stylesheets
    if "allowed_paths" in known:
        extra["allowed_paths"] = [str(folder)]
    else:
        page.allowed_paths, page.auth, page.auth_message = [str(folder)], extra.pop("auth", None), None
        page.favicon_path = None
        with page:  # it has no head of one's own
            on(page.load, None, js=f"() => {{ {script} }}")
    page.queue()
    return gr.mount_gradio_app(app, page, "/", **extra)


def update(**values: Any) -> Any:
    """A change of a component's value or properties."""
    return gr.update(**values)
