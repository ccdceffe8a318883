"""One declaration per option: form field, command-line flag and API schema are three readings of it.

An options class is a dataclass whose fields are made by `option(...)`. Everything a surface needs to
know (help, range, choices, group, kind) stands in the field's metadata.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lib_vitface.errors import InputError

T = TypeVar("T")
_KEY = "vitface"


@dataclass(frozen=True)
class Spec:
    """What is declared of one option.

    `kind` tells a form which control fits: "value", "file", "folder", "path" (file or folder), "paths", "output".
    `group` is the heading it stands under; `advanced` hides it behind a fold; `alias` is a second flag.
    """

    help: str
    group: str = "General"
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    unit: str = ""
    kind: str = "value"
    advanced: bool = False


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    group: str = "General",
    choices: tuple[Any, ...] = (),
    low: float | None = None,
    high: float | None = None,
    unit: str = "",
    kind: str = "value",
    advanced: bool = False,
) -> Any:
    """A dataclass field with its declaration. No default means the option is required."""
    spec = Spec(help, group, choices, low, high, unit, kind, advanced)
    metadata = {_KEY: spec}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def same_option(cls: type, name: str, **changes: Any) -> Any:
    """A dataclass field with the declaration that the options class `cls` has under `name`, but for `changes`: `default`, or what
    `option` takes."""
    field = cls.__dataclass_fields__[name]  # type: ignore[attr-defined]
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return option(changes.pop("default", default), **{**vars(field.metadata[_KEY]), **changes})


@dataclass(frozen=True)
class Declared:
    """An option as read back: its name, element type and whether it is optional or a list."""

    name: str
    type: type
    optional: bool
    many: bool
    required: bool
    default: Any
    spec: Spec

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")


_READ: dict[type, tuple[Declared, ...]] = {}


def declared(cls: type) -> tuple[Declared, ...]:
    """Every option of an options class, in order of declaration. Read once, because a WebUI that starts asks hundreds of times."""
    if cls not in _READ:
        _READ[cls] = _read(cls)
    return _READ[cls]


def _read(cls: type) -> tuple[Declared, ...]:
    hints = typing.get_type_hints(cls)
    found = []
    for item in dataclasses.fields(cls):
        spec = item.metadata.get(_KEY)
        if spec is None:
            continue
        kind, optional, many = _read_type(hints[item.name])
        if item.default is not dataclasses.MISSING:
            default = item.default
        elif item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        else:
            default = dataclasses.MISSING
        found.append(Declared(item.name, kind, optional, many, default is dataclasses.MISSING, default, spec))
    return tuple(found)


def _read_type(hint: Any) -> tuple[type, bool, bool]:
    """`(element type, may be None, is a list)` of a type hint."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [a for a in typing.get_args(hint) if a is not type(None)]
        kind, _, many = _read_type(inner[0])
        return kind, True, many
    if origin is list:
        return typing.get_args(hint)[0], False, True
    return hint, False, False


def _convert(item: Declared, value: Any) -> Any:
    """One value as the declared type, or an `InputError` with the option's name."""
    if item.many:
        values = [value] if isinstance(value, (str, Path)) else list(value)
        return [_convert(dataclasses.replace(item, many=False, optional=False), v) for v in values]
    if value is None or (value == "" and item.optional):
        if item.optional:
            return None
        raise InputError(f"{item.flag}: a value is needed.")
    try:
        if item.type is bool:
            return _as_bool(value)
        if item.type is int and isinstance(value, float) and not value.is_integer():
            raise ValueError(value)
        result = item.type(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{item.flag}: {value!r} is not a {item.type.__name__}.") from None
    if item.type is str and "\x00" in result:
        raise InputError(f"{item.flag}: the text holds a zero byte; remove it.")
    return result


def _as_bool(value: Any) -> bool:
    """Truth of a form, JSON or text value; `bool("False")` would be True."""
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.lower() in {"true", "yes", "on", "1"}:
        return True
    if isinstance(value, str) and value.lower() in {"false", "no", "off", "0"}:
        return False
    raise ValueError(value)


def _check(item: Declared, value: Any) -> None:
    """Range and choices of one converted value."""
    spec = item.spec
    if value is None:
        return
    for each in value if item.many else [value]:
        if spec.choices and each not in spec.choices:
            raise InputError(f"{item.flag}: {each!r} is not one of {', '.join(map(str, spec.choices))}.")
        if isinstance(each, (int, float)) and not isinstance(each, bool):
            low = -math.inf if spec.low is None else spec.low
            high = math.inf if spec.high is None else spec.high
            if not low <= each <= high:
                raise InputError(f"{item.flag}: {each} is outside {range_text(spec)}.")
    if item.required and item.many and not value:
        raise InputError(f"{item.flag}: at least one value is needed.")


def range_text(spec: Spec) -> str:
    """The allowed range in words, e.g. `0 to 1` or `at least 1 px`; empty where there is none."""
    unit = f" {spec.unit}" if spec.unit else ""
    low, high = ("" if limit is None else f"{limit:.15g}" for limit in (spec.low, spec.high))  # 10000000, not 1e+07
    if low and high:
        return f"{low} to {high}{unit}"
    if low:
        return f"at least {low}{unit}"
    return f"at most {high}{unit}" if high else ""


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """An options object from names and values (form, JSON, job store), converted and checked.

    Raises `InputError` naming the option for unknown names, wrong types, values out of range, or missing ones.
    """
    items = {item.name: item for item in declared(cls)}
    unknown = sorted(set(values) - set(items))
    if unknown:
        raise InputError(f"Unknown option {unknown[0]!r}; known are {', '.join(sorted(items))}.")
    ready = {}
    for name, item in items.items():
        if name in values:
            ready[name] = _convert(item, values[name])
            _check(item, ready[name])
        elif item.required:
            raise InputError(f"{item.flag}: a value is needed ({item.spec.help.rstrip('.')}).")
    return cls(**ready)


def to_dict(options: Any) -> dict[str, Any]:
    """Names and JSON-ready values of an options object; `build(type(o), to_dict(o)) == o`."""
    return {item.name: _plain(getattr(options, item.name)) for item in declared(type(options))}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def help_text(item: Declared) -> str:
    """Help with range and default, as shown by `--help` and under a form field."""
    parts = [item.spec.help]
    limits = range_text(item.spec)
    if limits:
        parts.append(f"Range: {limits}.")
    if not item.required and item.default not in (None, [], "") and item.type is not bool:
        parts.append(f"Default: {str(_plain(item.default)).rstrip('.')}.")
    return " ".join(parts)


def add_arguments(parser: argparse.ArgumentParser, cls: type) -> None:
    """One flag per option, in groups; values stay text here and are converted by `build`."""
    groups: dict[str, Any] = {}
    for item in declared(cls):
        group = groups.setdefault(item.spec.group, parser.add_argument_group(item.spec.group))
        text = help_text(item).replace("%", "%%")
        if item.type is bool:
            group.add_argument(
                item.flag, dest=item.name, default=argparse.SUPPRESS, help=text, action=argparse.BooleanOptionalAction
            )
            continue
        group.add_argument(
            item.flag,
            dest=item.name,
            default=argparse.SUPPRESS,
            required=item.required,
            help=text,
            nargs="+" if item.many else None,
            choices=[str(c) for c in item.spec.choices] or None,
            metavar=None if item.spec.choices else _metavar(item),
        )


def _metavar(item: Declared) -> str:
    if item.spec.kind in {"file", "output"}:
        return "FILE"
    if item.spec.kind == "folder":
        return "DIR"
    if item.type is Path:
        return "PATH"
    return "N" if item.type in {int, float} else "TEXT"


def json_schema(cls: type) -> dict[str, Any]:
    """JSON schema (draft 2020-12) of an options class, as the API publishes it."""
    names: dict[type, str] = {bool: "boolean", int: "integer", float: "number"}
    properties: dict[str, Any] = {}
    for item in declared(cls):
        one: dict[str, Any] = {"type": names.get(item.type, "string")}
        if item.spec.choices:
            one["enum"] = list(item.spec.choices)
        if item.spec.low is not None:
            one["minimum"] = item.spec.low
        if item.spec.high is not None:
            one["maximum"] = item.spec.high
        schema = {"type": "array", "items": one} if item.many else one
        if item.optional:
            schema = {"anyOf": [schema, {"type": "null"}]}
        schema["description"] = help_text(item)
        if not item.required:
            schema["default"] = _plain(item.default)
        properties[item.name] = schema
    required = [item.name for item in declared(cls) if item.required]
    return {
        "title": cls.__name__,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
