"""ViTFace in the Script dropdown, and its axes of the X/Y/Z plot: they say which swap is wanted, by `p.vitface`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from modules import processing, scripts
from modules.ui_common import create_refresh_button

from lib_vitface.errors import ViTFaceError
from lib_vitface.hosts import script_values, webui_site
from lib_vitface.hosts.script_values import ATTRIBUTE, TITLE
from lib_vitface.ui import form as forms
from lib_vitface.ui.studio import picture_items


class ViTFaceScript(scripts.Script):
    """In the Script dropdown: says which swap is wanted."""

    def title(self) -> str:
        return TITLE

    def show(self, is_img2img: bool) -> bool:
        return True

    def ui(self, is_img2img: bool) -> list[Any]:
        prefix = f"vitface-{'img2img' if is_img2img else 'txt2img'}"
        self.form = forms.Form(webui_site.make_site(), "swap", prefix)
        forms.build_items(self.form, picture_items())
        self.form.wire()
        for item, component in zip(self.form.items, self.form.components, strict=True):
            component.do_not_save_to_config = item.type is Path  # may be gone at the next start
        create_refresh_button(
            self.form.lists,
            lambda: None,
            lambda: {"choices": webui_site.make_site().names("model")},
            f"{prefix}-refresh",
        )
        pairs = list(zip(self.form.items, self.form.components, strict=True))
        self.infotext_fields = [(control, script_values.from_infotext(item)) for item, control in pairs]
        self.paste_field_names = [script_values.key_of(item) for item in self.form.items]
        return list(self.form.components)

    def run(self, p: Any, *values: Any) -> Any:
        try:
            setattr(p, ATTRIBUTE, script_values.checked(forms.filled(picture_items(), values)))
            webui_site.renewed_studio().prepare(getattr(p, ATTRIBUTE))
        except ViTFaceError as error:
            if getattr(p, "is_api", False):  # Forge would answer a program with a bare “Internal Server Error”
                raise HTTPException(error.http_status, str(error)) from None
            raise
        return processing.process_images(p)


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
            choices = {"choices": lambda: webui_site.make_site().names("model")} if name == "model" else {}
            module.axis_options.append(module.AxisOption(title, kind, setter(name), **choices))


def setter(name: str) -> Callable[[Any, Any, Any], None]:
    def apply(p: Any, value: Any, values: Any) -> None:
        setattr(p, ATTRIBUTE, script_values.with_value(getattr(p, ATTRIBUTE, None), name, value))

    return apply
