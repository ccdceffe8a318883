"""A stand-in for the WebUI's `modules` package: only what `hosts/webui*.py` touch, each with the real file it stands for.

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
    job: str = ""
    job_no: int = 0
    job_count: int = 0

    def begin(self, job: str = "(unknown)") -> None:
        self.job, self.job_count, self.interrupted, self.skipped = job, -1, False, False


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
    cached_c: Any = ("kept", 0)

    def __init__(self, **values: Any) -> None:
        self.extra_generation_params: dict[str, Any] = {}
        self.comments: list[str] = []
        self.closed = False
        self.__dict__.update(values)

    def comment(self, text: str) -> None:
        self.comments.append(text)

    def close(self) -> None:
        self.closed = True


@dataclass
class Img2Img(Processing):  # modules/processing.py, StableDiffusionProcessingImg2Img
    """What `hosts/webui_diffusion.py` gives it; any other name is an error, as it is there."""

    sd_model: Any = None
    prompt: str = ""
    negative_prompt: str = ""
    seed: int = -1
    batch_size: int = 1
    sampler_name: str | None = None
    scheduler: str | None = None
    steps: int = 50
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    init_images: Any = None
    mask: Any = None
    mask_blur: int = 4
    inpainting_fill: int = 0
    inpaint_full_res: bool = True
    denoising_strength: float = 0.75
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    do_not_reload_embeddings: bool = False
    restore_faces: bool | None = None
    tiling: bool | None = None

    def __post_init__(self) -> None:
        self.closed = False


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

    class Inner(Img2Img):
        def __post_init__(self) -> None:
            super().__post_init__()
            made.append(self)

    def process_images(p: Any) -> Processed:
        shared.state.job_no += 1  # as a generation does
        prompt = p.prompt if isinstance(p.prompt, str) else p.prompt[0]
        Processing.cached_c = [prompt, None]
        (folder / "params.txt").write_text(prompt, encoding="utf-8")
        drawn = [*(getattr(p, "init_images", None) or [])]
        if shared.opts.data.get("return_mask"):
            drawn = [picture for one in drawn for picture in (one, p.mask)]
        return Processed(drawn)

    xyz = types.SimpleNamespace(axis_options=[], AxisOption=AxisOption)
    scripts = types.SimpleNamespace(
        Script=Script,
        ScriptRunner=ScriptRunner,
        AlwaysVisible=object(),
        scripts_img2img=types.SimpleNamespace(alwayson_scripts=[]),
        scripts_data=[types.SimpleNamespace(module=xyz, path="/webui/scripts/xyz_grid.py")],
    )
    return {
        "modules.paths": types.SimpleNamespace(models_path=str(folder / "models"), data_path=str(folder)),
        "modules.processing": types.SimpleNamespace(
            StableDiffusionProcessingImg2Img=Inner,
            StableDiffusionProcessing=Processing,
            StableDiffusionProcessingTxt2Img=type("Txt2Img", (), {"cached_hr_c": ["kept", 1]}),
            process_images=process_images,
            made=made,
        ),
        "modules.sd_samplers": types.SimpleNamespace(
            samplers_for_img2img=[types.SimpleNamespace(name=name) for name in ("DPM++ 2M", "Euler")]
        ),
        "modules.sd_schedulers": types.SimpleNamespace(
            schedulers=[types.SimpleNamespace(label=label) for label in ("Automatic", "Karras")]
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
    own = [name for name in sys.modules if name.startswith(adapter)]
    before = {name: sys.modules.pop(name, None) for name in ("modules", *own, *fakes)}
    sys.modules.update({"modules": package, **fakes})
    hosts = sys.modules.get("lib_vitface.hosts")
    for name in [name for name in vars(hosts or object) if name.startswith("webui")]:
        delattr(hosts, name)  # `from … import` takes a package's attribute before it looks for the module
    try:
        import importlib

        yield importlib.import_module(adapter)
    finally:
        for name in [name for name in sys.modules if name.startswith(adapter)]:
            del sys.modules[name]
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
