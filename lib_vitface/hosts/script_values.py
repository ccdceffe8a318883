"""The script's options as infotext and as XYZ axes: plain values, without the WebUI."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lib_vitface.errors import InputError
from lib_vitface.options import Declared
from lib_vitface.ui.form import label_of
from lib_vitface.ui.studio import picture_items, read_picture_options

TITLE = "ViTFace"
ATTRIBUTE = "vitface"  # of the WebUI's processing object: names and values of the swap that was asked for
AXES = {"model": str, "opacity": float, "denoise": float}
_AXIS_NAMES = {"model": "model", "opacity": "strength", "denoise": "denoise"}
_LOCAL = {  # mean nothing on another machine, or name a private file
    *("device", "backend", "detector", "denoise_checkpoint", "denoise_config"),
    *("face_picture", "also", "reference", "references"),
}


def key_of(item: Declared) -> str:
    """The infotext's name of an option."""
    return f"{TITLE} {label_of(item).split(' (')[0].lower()}"


def to_infotext(values: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in a picture's generation parameters: the model, and whatever is not the default."""
    found: dict[str, Any] = {"Script": TITLE}
    for item in picture_items():
        value = values.get(item.name)
        if value is None or item.name in _LOCAL or (not item.required and value == item.default):
            continue
        found[key_of(item)] = value
    return found


def from_infotext(item: Declared) -> Callable[[Mapping[str, Any]], Any]:
    """Reads an option back; None (leave the control as it is) where the picture was not made with the script."""
    model = next(key_of(one) for one in picture_items() if one.name == "model")

    def read(parameters: Mapping[str, Any]) -> Any:
        if model not in parameters or item.name in _LOCAL:
            return None
        given = parameters.get(key_of(item))
        if given is None:
            return "" if item.default is None else item.default
        try:
            if item.type is bool:
                return str(given).strip().lower() == "true"
            return item.type(float(given)) if item.type in {int, float} else str(given)
        except ValueError:
            return item.default

    return read


def checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, once they have been found usable. Raises `InputError`."""
    ready = dict(values)
    if not ready.get("model"):
        raise InputError("ViTFace: choose a model; train one on the ViTFace tab first.")
    read_picture_options(ready)
    return ready


def axis_title(name: str) -> str:
    return f"[ViTFace] {_AXIS_NAMES[name]}"


def with_value(before: Mapping[str, Any] | None, name: str, value: Any) -> dict[str, Any]:
    """New values with one changed: grids copy the processing object only on the surface."""
    return {**(before or {}), name: value}
