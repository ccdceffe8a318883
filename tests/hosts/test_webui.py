"""The adapter against a small fake host (see fake_webui.py for what it stands for)."""

from __future__ import annotations

import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

gr = pytest.importorskip("gradio", reason="gradio is not installed (requirements-ui.txt)")
sys.path.insert(0, str(Path(__file__).parent))
import fake_webui  # noqa: E402
from fastapi import HTTPException  # noqa: E402
from PIL import Image as Pillow  # noqa: E402

from lib_vitface.errors import Cancelled, ConsentError, InputError, NoFaceError  # noqa: E402
from lib_vitface.hosts import script_values  # noqa: E402
from lib_vitface.types import Face  # noqa: E402
from lib_vitface.ui.studio import Result, picture_items  # noqa: E402


class Door:
    """Marks by setting the first pixel."""

    xmp = "<x:xmpmeta>\ufeffsaid</x:xmpmeta>".encode()

    def sealed(self, data: bytes, suffix: str, parent: bytes | None = None) -> bytes:
        return data + b"sealed"

    def mark(self, image: np.ndarray) -> np.ndarray:
        if image[0, 0].tolist() == [1, 2, 3]:
            return image
        marked = image.copy()
        marked[0, 0] = (1, 2, 3)
        return marked


class FakeStudio:
    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.prepared, self.asked, self.site = error, [], [], None

    def prepare(self, values: Any) -> None:
        self.prepared.append(values)
        if isinstance(self.error, ConsentError):
            raise self.error

    def swap(self, image: Any, values: Any, tick: Any, *, denoiser: Any, words: Any, alone: bool) -> Result:
        assert alone, "the lock is held by the WebUI"
        tick(0, 3, "swapping")
        if self.error is not None:
            raise self.error
        self.asked.append((values, denoiser))
        face = Face(np.float32([0, 0, 9, 9]), 1.0, np.zeros((5, 2), np.float32))
        return Result(Door().mark(255 - image), face, Door())  # type: ignore[arg-type]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Any]:
    with fake_webui.installed(tmp_path) as adapter:
        yield adapter


def with_studio(host: Any, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> FakeStudio:
    studio = FakeStudio(error)
    monkeypatch.setattr(host.webui_site, "renewed_studio", lambda: studio)
    return studio


def picture(value: int = 100) -> Any:
    made = Pillow.new("RGB", (32, 24), (value, value, value))
    made.info["parameters"] = "Steps: 4"
    return made


def swap(host: Any, p: Any, image: Any) -> Any:
    pp = types.SimpleNamespace(image=image)
    host.ViTFacePictures().postprocess_image_after_composite(p, pp)
    return pp.image


def test_importing_registers_nothing_and_register_once_each(host: Any) -> None:
    callbacks = sys.modules["modules.script_callbacks"]
    assert callbacks.registered == {}
    host.register()
    assert {name: len(found) for name, found in callbacks.registered.items()} == dict.fromkeys(
        ("on_before_ui", "on_ui_settings", "on_ui_tabs", "on_app_started", "on_before_image_saved", "on_image_saved"), 1
    )


def test_the_script_file_shows_exactly_two_scripts(host: Any) -> None:
    """The WebUI registers every `Script` subclass that it finds in the file's namespace."""
    space: dict[str, Any] = {
        "__file__": str(Path(__file__).parents[2] / "scripts" / "vitface.py"),
        "__name__": "vitface",
    }
    exec(compile(Path(space["__file__"]).read_text(), space["__file__"], "exec"), space)
    found = [v for v in space.values() if isinstance(v, type) and issubclass(v, fake_webui.Script)]
    assert {cls.__name__ for cls in found} == {"ViTFaceScript", "ViTFacePictures"}


def test_run_asks_for_the_swap_and_checks_it_first(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = with_studio(host, monkeypatch)
    p = fake_webui.Processing()
    names = [item.name for item in picture_items()]
    values: list[Any] = [None] * len(names)
    with pytest.raises(InputError, match="choose a model"):
        host.ViTFaceScript().run(p, *values)
    values[names.index("model")], values[names.index("opacity")] = "me", 0.5
    host.ViTFaceScript().run(p, *values)
    assert p.vitface == {"model": "me", "opacity": 0.5}
    assert studio.prepared == [p.vitface]
    values[names.index("opacity")] = 7
    with pytest.raises(InputError, match="--opacity"):
        host.ViTFaceScript().run(p, *values)
    p.is_api = True  # Forge tells a program nothing of other errors
    with pytest.raises(HTTPException, match="--opacity") as told:
        host.ViTFaceScript().run(p, *values)
    assert told.value.status_code == 400


def test_no_consent_no_generation(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_studio(host, monkeypatch, ConsentError("revoked"))
    monkeypatch.setattr(sys.modules["modules.processing"], "process_images", lambda p: pytest.fail("it was generated"))
    with pytest.raises(ConsentError):
        host.ViTFaceScript().run(fake_webui.Processing(), "me")


def test_pictures_are_swapped_marked_and_said(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_studio(host, monkeypatch)
    p = fake_webui.Processing(vitface={"model": "me"})
    made = swap(host, p, picture())
    assert made.getpixel((5, 5)) == (155, 155, 155)
    assert made.getpixel((0, 0)) == (1, 2, 3)
    assert made.info["parameters"] == "Steps: 4", "the WebUI's own text stays"
    assert "said" in made.info["XML:com.adobe.xmp"]


def test_without_the_script_nothing_is_touched(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_studio(host, monkeypatch)
    image, p = picture(), fake_webui.Processing()
    assert swap(host, p, image) is image
    host.ViTFacePictures().process(p)
    assert p.extra_generation_params == {}
    params = types.SimpleNamespace(p=p, image=image, pnginfo={}, filename="a.png")
    host.webui_pictures.before_saved(params)
    assert params.image is image
    assert params.pnginfo == {}


@pytest.mark.parametrize("error", [NoFaceError("nobody there"), Cancelled("stopped"), RuntimeError("oops")])
def test_what_cannot_be_swapped_stays_and_is_told(host: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    with_studio(host, monkeypatch, error)
    p, image = fake_webui.Processing(vitface={"model": "me"}), picture()
    assert swap(host, p, image) is image
    assert len(p.comments) == 1
    assert p.comments[0].startswith("ViTFace: ")
    assert "oops" not in p.comments[0]
    assert p.extra_generation_params["ViTFace note"] in p.comments[0], "programs see the infotext only"
    with_studio(host, monkeypatch)
    swap(host, p, image)
    assert "ViTFace note" not in p.extra_generation_params, "the next picture of the batch went well"


def test_interrupt_and_skip_are_obeyed(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    studio = with_studio(host, monkeypatch)
    state = sys.modules["modules.shared"].state
    p, image = fake_webui.Processing(vitface={"model": "me"}), picture()
    for name in ("interrupted", "skipped"):
        setattr(state, name, True)
        assert swap(host, p, image) is image
        with pytest.raises(Cancelled):
            host.webui_site.tick(1, 3, "x")
        setattr(state, name, False)
    assert studio.asked == []


def test_saved_pictures_and_grids_bear_the_mark(host: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_studio(host, monkeypatch)
    p = fake_webui.Processing(vitface={"model": "me"})
    made = swap(host, p, picture())
    params = types.SimpleNamespace(p=p, image=made, pnginfo={"parameters": "x"}, filename="a.png")
    host.webui_pictures.before_saved(params)
    assert params.image is made, "marked already: a second mark would only do harm"
    assert "said" in params.pnginfo["XML:com.adobe.xmp"]
    washed = types.SimpleNamespace(p=p, image=picture(), pnginfo={}, filename="grid.png")
    host.webui_pictures.before_saved(washed)
    assert washed.image.getpixel((0, 0)) == (1, 2, 3)
    processed = fake_webui.Processed([picture(), made], 1)
    host.ViTFacePictures().postprocess(p, processed)
    assert processed.images[0].getpixel((0, 0)) == (1, 2, 3)
    path = tmp_path / "a.jpg"
    made.save(path)
    host.webui_pictures.after_saved(types.SimpleNamespace(p=p, pnginfo={}, filename=str(path)))
    assert b"said" in path.read_bytes() and path.read_bytes().endswith(b"sealed")
    assert Pillow.open(path).size == (32, 24)
    assert [file.name for file in tmp_path.glob("*.jpg*")] == ["a.jpg"], "nothing is left beside it"


def test_a_picture_without_its_face_bears_no_mark_beside_one_with(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    p = fake_webui.Processing(vitface={"model": "me"})
    with_studio(host, monkeypatch)
    made = swap(host, p, picture())
    with_studio(host, monkeypatch, NoFaceError("nobody there"))
    plain = swap(host, p, picture())
    text = f"Steps: 4, ViTFace note: {p.extra_generation_params['ViTFace note']}"
    params = types.SimpleNamespace(p=p, image=plain, pnginfo={"parameters": text}, filename="b.png")
    host.webui_pictures.before_saved(params)
    assert params.image is plain
    assert "XML:com.adobe.xmp" not in params.pnginfo
    repainted = picture(9)  # by a script that came after
    processed = fake_webui.Processed([picture(), repainted, plain], 1)
    host.ViTFacePictures().postprocess(p, processed)
    assert [one.getpixel((0, 0)) == (1, 2, 3) for one in processed.images] == [True, True, False]
    assert made.getpixel((0, 0)) == (1, 2, 3)


def test_axes_are_added_once_and_change_a_copy_only(host: Any) -> None:
    options = sys.modules["modules.scripts"].scripts_data[0].module.axis_options
    host.before_ui()
    host.before_ui()
    assert [axis.label for axis in options] == ["[ViTFace] model", "[ViTFace] strength", "[ViTFace] denoise"]
    first = fake_webui.Processing(vitface={"model": "me"})
    second = fake_webui.Processing(**first.__dict__)
    options[1].apply(second, 0.25, [])
    assert second.vitface == {"model": "me", "opacity": 0.25}
    assert first.vitface == {"model": "me"}


def test_settings_have_hints_and_reach_the_site(host: Any, tmp_path: Path) -> None:
    shared = sys.modules["modules.shared"]
    host.settings()
    assert set(shared.opts.added) == {"vitface_folders", "vitface_device", "vitface_free_memory"}
    assert all(info.said for info in shared.opts.added.values())
    shared.opts.data = {"vitface_folders": f"{tmp_path}/a\n\n{tmp_path}/b", "vitface_device": "cpu"}
    site = host.webui_site.make_site()
    assert [folder.name for folder in site.allowed] == ["a", "b"]
    assert site.device == "cpu"
    assert site.workspace == (tmp_path / "vitface").resolve()


def test_the_checkpoint_makes_room_only_on_a_graphics_card(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    models, calls = sys.modules["modules.sd_models"], []
    models.unload_model_weights = lambda: calls.append("out")
    models.send_model_to_device = lambda model: calls.append("back")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    host.webui_site.make_room()
    host.webui_site.room.give_back()
    assert calls == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    host.webui_site.make_room()
    host.webui_site.room.give_back()
    assert calls == ["out", "back"]
    host.webui_site.make_room()
    with sys.modules["modules.call_queue"].queue_lock:  # a generation has it
        host.ViTFacePictures().before_process(fake_webui.Processing())
    host.webui_site.room.give_back()
    assert calls == ["out", "back", "out", "back"], (
        "a generation takes it back, the end of the work has nothing left to do"
    )
    calls.clear()
    sys.modules["modules.shared"].opts.data = {"vitface_free_memory": False}
    host.webui_site.make_room()
    assert calls == [], "the setting turns it off"


def test_a_job_that_fails_gives_the_checkpoint_back(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The true queue with a task whose process fails."""
    import torch

    from lib_vitface.ui.runner import Runner

    models, calls = sys.modules["modules.sd_models"], []
    models.unload_model_weights = lambda: calls.append("out")
    models.send_model_to_device = lambda model: calls.append("back")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    runner = Runner(host.webui_site.make_site())
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    job = runner.submit("swap", {"model": "m", "input": "v.mp4"})
    end = time.monotonic() + 20
    while len(calls) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert calls == ["out", "back"]
    assert runner.get(job.id).state == "failed"


def test_keys_are_never_served_and_routes_mounted_once(host: Any, tmp_path: Path) -> None:
    fastapi = pytest.importorskip("fastapi")
    for _ in range(2):  # a reloaded WebUI has a new page and a new application
        app, demo = fastapi.FastAPI(), types.SimpleNamespace(blocked_paths=[])
        host.started(demo, app)
        host.started(demo, app)
        assert str((tmp_path / "vitface").resolve() / "keys") in demo.blocked_paths
        assert "/vitface/v1/picture" in app.openapi()["paths"]


def test_infotext_goes_out_and_comes_back() -> None:
    values = {"model": "me", "face": "leftmost", "opacity": 0.5, "occlusion": False, "erode": 2.0, "face_picture": "/x"}
    values |= {"denoise": 0.25, "denoise_steps": 7, "denoise_prompt": "me, close", "denoise_checkpoint": "/y"}
    values |= {"denoise_sampler": "DPM++ 2M", "denoise_control": "tile"}
    text = script_values.to_infotext(values)
    assert text["Script"] == "ViTFace"
    assert not {"/x", "/y"} & set(map(str, text.values())), "private paths stay private"
    assert "ViTFace erode" not in text, "defaults are left out"
    as_text = {key: str(value) for key, value in text.items()}
    for item in picture_items():
        back = script_values.from_infotext(item)(as_text)
        if item.name in script_values._LOCAL:
            assert back is None
        else:
            empty = "" if item.default is None else item.default  # of a field that was left empty
            assert back == values.get(item.name, empty), item.name
        assert script_values.from_infotext(item)({"Steps": "4"}) is None, "another picture's text changes nothing"


def test_the_script_page_has_fields_to_paste(host: Any) -> None:
    script = host.ViTFaceScript()
    with gr.Blocks():
        controls = script.ui(is_img2img=True)
    assert len(controls) == len(picture_items())
    assert [control for control, _ in script.infotext_fields] == controls
    assert "ViTFace model" in script.paste_field_names
    assert controls[0].elem_id == "vitface-img2img-model"


def test_every_control_of_the_script_reaches_the_swap(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each control, set to another value, changes the options that the swap is made with."""
    from lib_vitface.ui.studio import read_picture_options

    def effect(values: list[Any]) -> tuple[Any, Any]:
        with_studio(host, monkeypatch)
        p = fake_webui.Processing()
        host.ViTFaceScript().run(p, *values)
        return read_picture_options(p.vitface)

    script = host.ViTFaceScript()
    with gr.Blocks():
        controls = script.ui(is_img2img=False)
    usual = [control.value for control in controls]
    usual[0] = "me"
    assert script.form.items[0].name == "model"
    before = effect(usual)
    for number, item in enumerate(script.form.items):
        spec = item.spec
        if item.type is bool:
            other: Any = not item.default
        elif spec.choices:
            other = next(choice for choice in spec.choices if choice != item.default)
        elif item.type in {int, float}:
            ends = [end for end in (spec.low, spec.high, 7) if end is not None and end != item.default]
            other = item.type(ends[0])
        else:
            other = "other"
        values = [*usual[:number], [other] if item.many and spec.choices else other, *usual[number + 1 :]]
        assert effect(values) != before, f"{item.name} has no effect"
