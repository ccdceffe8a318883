"""A stand-in for the WebUI's `modules` package: only what `hosts/webui.py` touches, each with the real file it stands for.

The real one (A1111 v1.10.1) runs the same script in tests/webui, where a checkout is at hand.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class Script:  # modules/scripts.py
    sorting_priority = 0

    def __init__(self) -> None:
        self.infotext_fields: list[Any] | None = None
        self.paste_field_names: list[str] | None = None


class ScriptRunner:  # modules/scripts.py
    pass


class OptionInfo:  # modules/options.py
    def __init__(self, default: Any, label: str, *_: Any, section: tuple[str, str], **__: Any) -> None:
        self.default, self.label, self.section, self.said = default, label, section, ""

    def info(self, text: str) -> OptionInfo:
        self.said = text
        return self


@dataclass
class State:  # modules/shared_state.py
    interrupted: bool = False
    skipped: bool = False
    textinfo: str | None = None


@dataclass
class Opts:  # modules/options.py
    data: dict[str, Any] = field(default_factory=dict)
    added: dict[str, OptionInfo] = field(default_factory=dict)

    def add_option(self, name: str, info: OptionInfo) -> None:
        self.added[name] = info


class Lock:  # modules/fifo_lock.py: cannot be taken twice
    def __init__(self) -> None:
        self.held = False

    def __enter__(self) -> None:
        assert not self.held, "the WebUI would wait for itself for ever"
        self.held = True

    def __exit__(self, *_: object) -> None:
        self.held = False


@dataclass
class Processed:  # modules/processing.py
    images: list[Any]
    index_of_first_image: int = 0


class Processing:  # modules/processing.py, StableDiffusionProcessing
    prompt, negative_prompt, sampler_name, steps, cfg_scale, batch_index = "a face", "", "Euler", 4, 7.0, 0

    def __init__(self, **values: Any) -> None:
        self.extra_generation_params: dict[str, Any] = {}
        self.comments: list[str] = []
        self.closed = False
        self.__dict__.update(values)

    def comment(self, text: str) -> None:
        self.comments.append(text)

    def close(self) -> None:
        self.closed = True


class AxisOption:  # scripts/xyz_grid.py
    def __init__(self, label: str, type: Any, apply: Callable[..., None], choices: Any = None) -> None:
        self.label, self.type, self.apply, self.choices = label, type, apply, choices


class Callbacks:  # modules/script_callbacks.py
    def __init__(self) -> None:
        self.registered: dict[str, list[Callable[..., Any]]] = {}

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith("on_"):
            raise AttributeError(name)

        def register(callback: Callable[..., Any], *, name_: str | None = None, **_: Any) -> None:
            self.registered.setdefault(name, []).append(callback)

        return register


def make(folder: Path) -> dict[str, Any]:
    """Fresh modules by full name; `modules.processing.made` lists inner generations."""
    shared = types.SimpleNamespace(
        cmd_opts=types.SimpleNamespace(vitface_dir=str(folder / "vitface"), vitface_allow=[], api_auth=None),
        opts=Opts(),
        state=State(),
        sd_model=object(),
        OptionInfo=OptionInfo,
    )
    made: list[Processing] = []

    def inner(**values: Any) -> Processing:
        made.append(Processing(**values))
        return made[-1]

    def process_images(p: Any) -> Processed:
        return Processed([p.init_images[0]] if hasattr(p, "init_images") else [])

    xyz = types.SimpleNamespace(axis_options=[], AxisOption=AxisOption)
    scripts = types.SimpleNamespace(
        Script=Script,
        ScriptRunner=ScriptRunner,
        AlwaysVisible=object(),
        scripts_data=[types.SimpleNamespace(module=xyz, path="/webui/scripts/xyz_grid.py")],
    )
    return {
        "modules.paths": types.SimpleNamespace(models_path=str(folder / "models"), data_path=str(folder)),
        "modules.processing": types.SimpleNamespace(
            StableDiffusionProcessingImg2Img=inner, process_images=process_images, made=made
        ),
        "modules.script_callbacks": Callbacks(),
        "modules.scripts": scripts,
        "modules.sd_models": types.SimpleNamespace(calls=[]),
        "modules.shared": shared,
        "modules.call_queue": types.SimpleNamespace(queue_lock=Lock()),
        "modules.ui_common": types.SimpleNamespace(create_refresh_button=lambda *values: values),
    }


@contextlib.contextmanager
def installed(folder: Path) -> Iterator[Any]:
    """The fake in `sys.modules`, and the adapter freshly imported on top of it."""
    fakes = make(folder)
    package: Any = types.ModuleType("modules")
    for name, module in fakes.items():
        setattr(package, name.partition(".")[2], module)
    adapter = "lib_vitface.hosts.webui"
    before = {name: sys.modules.pop(name, None) for name in ("modules", adapter, *fakes)}
    sys.modules.update({"modules": package, **fakes})
    try:
        import importlib

        yield importlib.import_module(adapter)
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
