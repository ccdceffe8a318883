"""The loaded checkpoint as a pipeline, against the fake host: what it is asked for, and that nothing of the host changes."""

from __future__ import annotations

import dataclasses
import random
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio", reason="gradio is not installed (requirements-ui.txt)")
torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parent))
import fake_webui  # noqa: E402

from lib_vitface.errors import Cancelled, InputError  # noqa: E402
from lib_vitface.faces import mesh  # noqa: E402
from lib_vitface.jobs import JobStore  # noqa: E402
from lib_vitface.types import Redraw  # noqa: E402
from lib_vitface.ui.runner import Runner  # noqa: E402


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Any]:
    with fake_webui.installed(tmp_path) as adapter:
        yield adapter


@pytest.fixture
def made(host: Any) -> list[Any]:
    found: list[Any] = sys.modules["modules.processing"].made  # type: ignore[attr-defined]
    return found


def asked(**values: Any) -> Redraw:
    flat = mesh.vertices()[:, :3].astype(np.float32)
    landmarks = (flat - flat.min(0)) / np.ptp(flat[:, 0]) * 60 * np.float32([1, 1, -1])
    plain: dict[str, Any] = {"strength": 0.25, "steps": 12, "seed": 5, "prompt": "one", "landmarks": landmarks}
    image = np.full((128, 128, 3), 77, np.uint8)
    return Redraw(image, np.ones((128, 128), np.float32), **{**plain, **values})


def dump(host: Any, folder: Path) -> dict[str, Any]:
    """Everything of the host that a generation touches."""
    processing, shared = sys.modules["modules.processing"], sys.modules["modules.shared"]
    return {
        "state": dict(vars(shared.state)),  # type: ignore[attr-defined]
        "options": dict(shared.opts.data),  # type: ignore[attr-defined]
        "caches": (
            processing.StableDiffusionProcessing.cached_c,
            processing.StableDiffusionProcessingTxt2Img.cached_hr_c,
        ),  # type: ignore[attr-defined]
        "random": (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()),
        "text": (folder / "params.txt").read_text(),
    }


def test_an_inner_generation_of_its_own(host: Any, made: list[Any]) -> None:
    p = fake_webui.Processing(sampler_name="Euler", scheduler="Karras")
    (drawn,) = host.webui_site.webui_diffusion.CheckpointDenoiser(p)([asked()])
    (inner,) = made
    assert drawn.shape == (128, 128, 3)
    assert (inner.prompt, inner.seed, inner.denoising_strength) == (["one"], [5], 0.25)
    assert (inner.sampler_name, inner.scheduler) == ("Euler", "Karras"), "auto is the generation's own"
    assert int(0.25 * inner.steps) + 1 == 12, "img2img makes a part of the steps it is told"
    assert not hasattr(inner, "vitface"), "the inner generation must not swap again"
    assert inner.do_not_save_samples and inner.do_not_save_grid and inner.closed
    assert inner.cached_c == [None, None] == inner.cached_uc


@pytest.mark.parametrize("masks", [False, True])
def test_several_are_one_generation(host: Any, made: list[Any], masks: bool) -> None:
    """Also where a setting has the WebUI return each picture's mask behind it."""
    sys.modules["modules.shared"].opts.data["return_mask"] = masks  # type: ignore[attr-defined]
    left, right = np.zeros((2, 128, 128), np.float32)
    left[:, :64] = right[:, 64:] = 1
    work = [
        dataclasses.replace(asked(prompt=str(k)), image=np.full((128, 128, 3), 50 * k, np.uint8), mask=mask)
        for k, mask in enumerate((left, right, left))
    ]
    drawn = host.webui_site.webui_diffusion.CheckpointDenoiser()(work)
    (inner,) = made
    assert [int(picture[0, 0, 0]) for picture in drawn] == [0, 50, 100]
    assert (inner.batch_size, inner.prompt, inner.seed) == (3, ["0", "1", "2"], [5, 5, 5])
    assert (np.asarray(inner.mask) == 255).all(), "one mask for all"


def test_frames_look_at_the_first_where_there_is_a_unet(host: Any) -> None:
    shared = sys.modules["modules.shared"]
    draw = host.webui_site.webui_diffusion.CheckpointDenoiser()
    with pytest.raises(InputError, match="no U-Net with self-attention"):
        draw([asked(attention=True), asked(attention=True)])
    assert draw([asked(attention=True)]), "alone there is nothing to look at"
    seen = []

    class Layer(torch.nn.Module):
        def forward(self, x: Any, context: Any = None) -> Any:
            seen.append((x.shape, None if context is None else context.shape))
            return x

    unet = torch.nn.ModuleDict({"attn1": Layer(), "attn2": Layer()})
    forge = types.SimpleNamespace(unet=types.SimpleNamespace(model=types.SimpleNamespace(diffusion_model=unet)))
    model = types.SimpleNamespace(diffusion_model=unet)
    found = host.webui_site.webui_diffusion.network
    for loaded in (types.SimpleNamespace(forge_objects=forge), types.SimpleNamespace(model=model)):
        shared.sd_model = loaded  # type: ignore[attr-defined]
        assert found() is unet
    assert len(draw([asked(attention=True), asked(attention=True)])) == 2
    unet["attn1"](torch.zeros(4, 9, 8))
    assert seen == [((4, 9, 8), None)], "no hook stays"


def test_names_come_from_the_host(host: Any, made: list[Any]) -> None:
    site = host.webui_site.make_site()
    assert site.samplers() == ["DPM++ 2M", "Euler"] and site.schedules() == ["Automatic", "Karras"]
    host.webui_site.webui_diffusion.CheckpointDenoiser()([asked(sampler="euler", schedule="karras")])
    host.webui_site.webui_diffusion.CheckpointDenoiser()([asked()])
    assert [(inner.sampler_name, inner.scheduler) for inner in made] == [
        ("Euler", "Karras"),
        ("DPM++ 2M", "Automatic"),
    ]
    for wrong in ({"sampler": "Heun"}, {"schedule": "Odd"}):
        with pytest.raises(InputError, match="is not one of"):
            host.webui_site.webui_diffusion.CheckpointDenoiser()([asked(**wrong)])


@pytest.mark.parametrize("strength", [0.05, 0.1, 0.3, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 20])
def test_steps_are_those_that_are_made(host: Any, strength: float, steps: int) -> None:
    told = host.webui_site.webui_diffusion.given_steps(steps, strength)
    made = int(min(strength, 0.999) * told) + 1  # modules/sd_samplers_common.py, setup_img2img_steps
    assert made == steps or (steps == 1 and made <= 2)
    sys.modules["modules.shared"].opts.data["img2img_fix_steps"] = True  # type: ignore[attr-defined]
    assert host.webui_site.webui_diffusion.given_steps(steps, strength) == steps


def test_words_keep_the_tags_of_extra_networks(host: Any) -> None:
    """While a picture is finished, `prompts` has lost its LoRA tags; `all_prompts` has not."""
    p = fake_webui.Processing(
        all_prompts=["a", "b", "c <lora:me:0.7>", "d"], all_negative_prompts=["1", "2", "3", "4"], iteration=1,
        batch_size=2, batch_index=0, prompts=["c", "d"],
    )  # fmt: skip
    assert host.webui_site.webui_diffusion.words_of(p) == ("c <lora:me:0.7>", "3")
    assert host.webui_site.webui_diffusion.words_of(fake_webui.Processing()) == ("a face", "")


@pytest.mark.parametrize("fails", ["no", "exception", "interrupt"])
def test_the_host_is_left_as_it_was(host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    processing, shared = sys.modules["modules.processing"], sys.modules["modules.shared"]
    generate = processing.process_images  # type: ignore[attr-defined]

    def shaky(p: Any) -> Any:
        found = generate(p)
        torch.manual_seed(p.seed[0]), random.random(), np.random.seed(3)
        shared.state.current_latent = "half a picture"  # type: ignore[attr-defined]
        if fails == "exception":
            raise RuntimeError("out of memory")
        shared.state.interrupted = fails == "interrupt"  # type: ignore[attr-defined]
        return found

    monkeypatch.setattr(processing, "process_images", shaky)
    (tmp_path / "params.txt").write_text("the person's last generation")
    before = dump(host, tmp_path)
    expected = {"no": None, "exception": RuntimeError, "interrupt": Cancelled}[fails]
    if expected is None:
        host.webui_site.webui_diffusion.CheckpointDenoiser()([asked()])
    else:
        with pytest.raises(expected):
            host.webui_site.webui_diffusion.CheckpointDenoiser()([asked()])
    if fails == "interrupt":
        assert shared.state.interrupted, "the generation around it must see it as well"  # type: ignore[attr-defined]
        shared.state.interrupted = False  # type: ignore[attr-defined]
    assert dump(host, tmp_path) == before
    with host.webui_site.webui_diffusion.held():
        assert shared.state.job == "vitface" and sys.modules["modules.call_queue"].queue_lock.held  # type: ignore[attr-defined]
        shared.state.interrupted = True  # type: ignore[attr-defined]
    assert dump(host, tmp_path) == before and not sys.modules["modules.call_queue"].queue_lock.held  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", ["internal_controlnet.external_code", "lib_controlnet.global_state"])
def test_controlnet_is_used_where_it_is_installed(
    host: Any, made: list[Any], monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """In the WebUI and in Forge, which keeps the names of its models elsewhere."""
    scripts = sys.modules["modules.scripts"]
    draw = host.webui_site.webui_diffusion.CheckpointDenoiser()
    with pytest.raises(InputError, match="not installed"):
        draw([asked(control="tile")])
    net = types.SimpleNamespace(title=lambda: "ControlNet", args_from=7, args_to=9)
    monkeypatch.setattr(scripts, "scripts_img2img", types.SimpleNamespace(alwayson_scripts=[net]))
    names = ["None", "control_v11f1e_sd15_tile [a371b31b]", "sd15_depth [1]"]
    outside = types.SimpleNamespace(get_models=lambda: names, get_all_controlnet_names=lambda: names)
    monkeypatch.setitem(sys.modules, f"{module.partition('.')[0]}", types.SimpleNamespace(__path__=[]))
    monkeypatch.setitem(sys.modules, module, outside)
    for kind, model in (("tile", "control_v11f1e_sd15_tile [a371b31b]"), ("depth", "sd15_depth [1]")):
        draw([asked(control=kind)])
        (unit,) = made[-1].script_args
        assert unit["model"] == model and unit["image"].shape == (128, 128, 3)
        (script,) = made[-1].scripts.alwayson_scripts
        assert (script.args_from, script.args_to) == (0, 1) and (net.args_from, net.args_to) == (7, 9)
    with pytest.raises(InputError, match="openpose"):
        draw([asked(control="face")])


def test_a_video_with_denoise_is_done_in_this_process(
    host: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And one without in a child; a job that fails here leaves its reason and the queue going."""
    site, seen = host.webui_site.make_site(), []
    site.workspace.mkdir(parents=True)
    monkeypatch.setattr(host.webui_site, "make_site", lambda: site)
    monkeypatch.setattr(Runner, "_run", lambda self, job: seen.append(("child", job)))
    real = host.webui_site.worker.perform

    def noted(job: str, given: Any) -> None:
        seen.append(("here", job))
        assert given.denoiser is site.denoiser
        real(job, given)

    monkeypatch.setattr(host.webui_site.worker, "perform", noted)
    runner = Runner(site)
    (site.workspace / "models" / "m").mkdir(parents=True)
    jobs = [
        runner.submit("swap", {"model": "m", "input": "a.mp4", **more}).id
        for more in ({"denoise": 0.2}, {}, {"denoise": 0.2, "denoise_checkpoint": "x.safetensors"})
    ]
    assert runner._thread is not None
    runner._thread.join(15)
    assert seen == [("here", jobs[0]), ("child", jobs[1]), ("child", jobs[2])]
    job = JobStore(site.workspace).get(jobs[0])
    assert job.state == "failed" and "a.mp4" in (job.error or "")
