"""A form for an options class: one control per declared option, in its groups, and back to names and values."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from lib_vitface import options
from lib_vitface.errors import ViTFaceError
from lib_vitface.options import Declared
from lib_vitface.ui import dialect
from lib_vitface.ui.site import Site, role_of

_UNITS = {"s": "s", "px": "px", "deg": "°"}
_SLIDER_STEPS = 2000
_LONG = 60  # characters of a text that takes two lines
_FLAG = re.compile(r"--([a-z][a-z-]*[a-z])")
# ids of the panel beside the form, which no option may have
_PANEL = {"start", "stop", "job", "progress", "outcome", "log", "poll", "panel"}
_ROLE_NAMES = {"model": "model", "faceset": "faceset"}


@dataclass
class Form:
    """The controls of one task. `read` turns their values, in the order of `components`, into names and values."""

    site: Site
    task: str
    prefix: str
    items: list[Declared] = field(default_factory=list)
    components: list[Any] = field(default_factory=list)
    uploads: list[tuple[Any, Any, bool]] = field(default_factory=list)  # file control, text control, many

    def read(self, values: Sequence[Any]) -> dict[str, Any]:
        """Only what was filled in; empty means the default."""
        return filled(self.items, values)

    def in_words(self, text: str) -> str:
        """A message with the names of controls in place of the task's flags; flags of other programs stay."""
        names = {item.flag: label_of(item) for item in self.items}
        return _FLAG.sub(lambda found: f"“{names[found[0]]}”" if found[0] in names else found[0], text)

    def component(self, name: str) -> Any:
        """The control of one option."""
        return self.components[[item.name for item in self.items].index(name)]

    def refreshed(self) -> list[Any]:
        """Updates of the lists of models and facesets, one per control of `lists`."""
        return [dialect.update(choices=self.site.names(kind)) for kind, _ in self._listed()]

    @property
    def lists(self) -> list[Any]:
        """The controls that list models or facesets."""
        return [component for _, component in self._listed()]

    def _listed(self) -> list[tuple[str, Any]]:
        pairs = zip(self.items, self.components, strict=True)
        return [(r, c) for item, c in pairs if (r := role_of(self.task, item.name)) in _ROLE_NAMES]

    def wire(self) -> None:
        """Uploaded files are kept in the workspace and named in the text beside them."""
        for file, text, many in self.uploads:
            dialect.on(file.upload, _keeper(self.site, many), [file, text], [text, file])


def filled(items: Sequence[Declared], values: Sequence[Any]) -> dict[str, Any]:
    """Values in the order of `items`, by name, without those that were left empty. There may be fewer values than items."""
    found = {}
    for item, value in zip(items, values, strict=False):
        if value in (None, "", []):
            continue
        found[item.name] = value.splitlines() if item.many and isinstance(value, str) else value
    return found


def _keeper(site: Site, many: bool) -> Callable[[Any, str], tuple[Any, Any]]:
    def keep(value: Any, text: str) -> tuple[Any, Any]:
        try:
            kept = [str(site.keep_upload(path)) for path in dialect.uploaded(value)]
        except ViTFaceError as error:
            raise gr.Error(str(error)) from None
        before = (text or "").splitlines() if many else []
        shown = "\n".join([*before, *(k for k in kept if k not in before)]) if many else (kept[-1] if kept else text)
        return dialect.update(value=shown), dialect.update(value=None)

    return keep


def build(site: Site, task: str, cls: type, prefix: str, *, without: Collection[str] = (), files: bool = True) -> Form:
    """Places the controls where it is called (inside a gradio container). `prefix` begins every element id."""
    items = [item for item in options.declared(cls) if item.name not in without]
    form = Form(site, task, prefix)
    build_items(form, items, files=files)
    return form


def build_items(form: Form, items: Sequence[Declared], *, files: bool = True) -> None:
    """Groups in order of declaration, the first one open; what is advanced comes last, folded."""
    groups: dict[str, list[Declared]] = {}
    for item in items:
        groups.setdefault("Advanced" if item.spec.advanced else item.spec.group, []).append(item)
    if "Advanced" in groups:
        groups["Advanced"] = groups.pop("Advanced")
    made: dict[str, Any] = {}
    for number, (title, members) in enumerate(groups.items()):
        name = title.lower().replace(" ", "-")
        with gr.Accordion(title, open=number == 0, elem_id=f"{form.prefix}-group-{name}", elem_classes="vitface-group"):
            for row in _rows(members):
                with gr.Row():
                    for item in row:
                        made[item.name] = control(form, item, files=files)
    for item in items:
        form.items.append(item)
        form.components.append(made[item.name])


def _rows(items: Sequence[Declared]) -> list[list[Declared]]:
    """Paths, lists and long texts take a whole row, other controls go in pairs."""
    rows: list[list[Declared]] = []
    for item in items:
        if rows and not _is_wide(item) and len(rows[-1]) == 1 and not _is_wide(rows[-1][0]):
            rows[-1].append(item)
        else:
            rows.append([item])
    return rows


def _is_wide(item: Declared) -> bool:
    return item.spec.kind != "value" or item.many or _is_long(item)


def _is_long(item: Declared) -> bool:
    return item.type is str and not item.required and len(item.default or "") > _LONG


def label_of(item: Declared) -> str:
    """`start_s` becomes "Start (s)"."""
    words = item.name.split("_")
    unit = _UNITS.get(words[-1]) if len(words) > 1 else None
    words = words[:-1] if unit else words
    text, unit = " ".join(words).capitalize(), unit or item.spec.unit
    return f"{text} ({unit})" if unit and unit not in words else text


def info_of(item: Declared) -> str:
    """The declaration's help; flags become names of controls."""
    text = _FLAG.sub(lambda m: f"“{m.group(1).replace('-', ' ').capitalize()}”", item.spec.help).replace("`", "")
    limits = options.range_text(item.spec)
    return f"{text} ({limits})" if limits and not _is_slider(item) else text


def _is_slider(item: Declared) -> bool:
    low, high = item.spec.low, item.spec.high
    if item.optional or low is None or high is None or item.type not in {int, float}:
        return False
    return high - low <= _SLIDER_STEPS and (item.type is float or high - low > 1)


def control(form: Form, item: Declared, *, files: bool = True) -> Any:
    """The control that fits a declared option."""
    shared: dict[str, Any] = {
        "label": label_of(item),
        "info": info_of(item),
        "elem_id": f"{form.prefix}-{item.name.replace('_', '-')}{'-option' if item.name in _PANEL else ''}",
    }
    default = None if item.required else item.default
    if item.spec.kind != "value":
        return _path_control(form, item, shared, files)
    if item.name in {"denoise_sampler", "denoise_schedule"}:  # what there is to choose from, the host knows
        names = form.site.samplers() if item.name == "denoise_sampler" else form.site.schedules()
        if names:
            return gr.Dropdown(choices=["auto", *names], value=default, allow_custom_value=True, **shared)
    if item.many:
        return gr.Dropdown(choices=list(item.spec.choices), value=default or [], multiselect=True, **shared)
    if item.type is bool:
        return gr.Checkbox(value=bool(default), **shared)
    if item.spec.choices:
        kind = gr.Radio if len(item.spec.choices) <= 4 else gr.Dropdown
        return kind(choices=list(item.spec.choices), value=default, **shared)
    if _is_slider(item):
        return gr.Slider(item.spec.low, item.spec.high, value=default, step=_step(item), **shared)
    if item.optional:  # an empty number field of gradio 3 is zero
        return gr.Textbox(value="", placeholder="empty: by itself", **shared)
    if item.type in {int, float}:
        digits = {"precision": 0} if item.type is int else {}
        return gr.Number(value=default, **digits, **shared)
    return gr.Textbox(value=default or "", lines=2 if _is_long(item) else 1, **shared)


def _step(item: Declared) -> float:
    if item.type is int:
        return 1
    span = float(item.spec.high or 0) - float(item.spec.low or 0)
    return 0.001 if "likeness" in item.name else 0.01 if span <= 10 else 0.5


def _path_control(form: Form, item: Declared, shared: Mapping[str, Any], files: bool) -> Any:
    role = role_of(form.task, item.name)
    default = [] if item.required or item.default is None else item.default
    text = "\n".join(map(str, default)) if isinstance(default, list) else str(default)
    if role in _ROLE_NAMES:
        names = form.site.names(str(role))
        if item.many:
            return dialect.several(names, default, **shared)
        first = next(iter(names), None) if role == "model" and form.task == "swap" else None
        return gr.Dropdown(choices=names, value=text or first, allow_custom_value=True, **shared)
    hint = (
        "a name is made up" if item.required and item.name in {"output", "record"} else "name or path in the workspace"
    )
    box = gr.Textbox(value=text, placeholder=hint, lines=2 if item.many else 1, scale=3, **shared)
    if files and item.spec.kind in {"file", "path", "paths"} and role is None:
        drop = gr.File(
            label=f"{label_of(item)}: files" if item.many else f"{label_of(item)}: file",
            show_label=False,
            file_count="multiple" if item.many else "single",
            elem_id=f"{shared['elem_id']}-drop",
            elem_classes="vitface-drop",
            scale=1,
            height=108,
        )
        form.uploads.append((drop, box, item.many))
    return box
