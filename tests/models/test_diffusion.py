"""A tiny random checkpoint through diffusers: as folder and as one file, offline, the same picture for the same request."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed (requirements-optional.txt)")
sys.path.insert(0, str(Path(__file__).parent))
import tiny_diffusion

from lib_vitface.errors import CheckpointError, InputError
from lib_vitface.models.diffusion import SAMPLERS, DiffusersDenoiser, looking_at_the_first, whole_steps
from lib_vitface.types import Redraw

SIDE = 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny checkpoint")
    tiny_diffusion.make(folder)
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object) -> None:
        raise OSError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def drawer(made: Path) -> DiffusersDenoiser:
    return DiffusersDenoiser(made / "diffusers", device="cpu")


def asked(**values: Any) -> Redraw:
    image = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), np.float32)
    mask[:, SIDE // 2 :] = 1
    return dataclasses.replace(Redraw(image, mask, 0.3, 3, 5, "a face"), **values)


def calls(drawer: DiffusersDenoiser, request: Redraw) -> int:
    """How often the U-Net is run for a request."""
    counted: list[int] = []
    hook = drawer._pipeline.unet.register_forward_hook(lambda *_: counted.append(1))
    try:
        drawer([request])
    finally:
        hook.remove()
    return len(counted)


def test_the_same_request_gives_the_same_picture(drawer: DiffusersDenoiser) -> None:
    first, second = drawer([asked()])[0], drawer([asked()])[0]
    assert first.shape == (SIDE, SIDE, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, second)
    for name, value in (("seed", 6), ("strength", 0.8), ("steps", 6), ("prompt", "a hat"), ("sampler", "Euler")):
        assert (drawer([asked(**{name: value})])[0] != first).any(), name
    np.testing.assert_array_equal(drawer([asked()])[0], first), "a sampler asked for once is not kept"


def test_one_file_draws_what_the_folder_draws(made: Path, drawer: DiffusersDenoiser) -> None:
    single = DiffusersDenoiser(made / "single.safetensors", device="cpu", config=made / "diffusers")
    own, other = drawer._pipeline.unet.state_dict(), single._pipeline.unet.state_dict()
    assert own.keys() == other.keys() and all((own[name] == other[name]).all() for name in own)
    assert np.abs(single([asked()])[0].astype(int) - drawer([asked()])[0]).max() <= 1
    assert single.name != drawer.name


@pytest.mark.parametrize("strength", [0.1, 0.15, 0.3, 0.35, 0.9, 1.0])
def test_as_many_steps_are_made_as_were_asked_for(drawer: DiffusersDenoiser, strength: float) -> None:
    for steps in (1, 3, 8):
        whole, given = whole_steps(steps, strength)
        assert int(whole * given) == steps and abs(given - strength) < 0.01
    assert calls(drawer, asked(strength=strength)) == 3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_each_sampler_draws_and_calls_once_a_step(drawer: DiffusersDenoiser, sampler: str) -> None:
    assert calls(drawer, asked(sampler=sampler.lower())) == 3


def test_schedules_change_the_picture(drawer: DiffusersDenoiser) -> None:
    plain = drawer([asked(sampler="Euler")])[0]
    assert (drawer([asked(sampler="Euler", schedule="Karras")])[0] != plain).any()


def test_what_does_not_go_is_said(drawer: DiffusersDenoiser, made: Path, tmp_path: Path) -> None:
    for values, said in (
        ({"sampler": "Nonsense"}, "denoise-sampler"),
        ({"schedule": "Nonsense"}, "denoise-schedule"),
        ({"schedule": "karras", "sampler": "DDIM"}, "does not go with"),
        ({"control": "tile"}, "ControlNet"),
    ):
        with pytest.raises(InputError, match=said):
            drawer([asked(**values)])
    with pytest.raises(InputError, match="no such checkpoint"):
        DiffusersDenoiser(tmp_path / "gone.safetensors")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="is no checkpoint"):
        DiffusersDenoiser(tmp_path / "a.txt")
    (tmp_path / "bad.safetensors").write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match="damaged"):
        DiffusersDenoiser(tmp_path / "bad.safetensors", device="cpu")
    with pytest.raises(CheckpointError, match="cannot be opened"):
        DiffusersDenoiser(tmp_path, device="cpu")
    with pytest.raises(InputError, match="--denoise-config"):
        DiffusersDenoiser(made / "single.safetensors", device="cpu")


@pytest.mark.parametrize(
    ("room", "tiled", "offloaded"), [("plenty", False, False), ("tight", True, False), ("parts", True, True)]
)
def test_memory_decides_how_it_is_placed(
    made: Path, monkeypatch: pytest.MonkeyPatch, room: str, tiled: bool, offloaded: bool
) -> None:
    from diffusers import DiffusionPipeline

    from lib_vitface import device as devices

    moved: list[Any] = []
    monkeypatch.setattr(devices, "room_for", lambda device, size: room if size > 1_000_000 else "nonsense")
    monkeypatch.setattr(DiffusionPipeline, "enable_model_cpu_offload", lambda self, device: moved.append(device))
    found = DiffusersDenoiser(made / "diffusers", device="cpu")
    assert found._pipeline.vae.use_tiling == tiled
    assert bool(moved) == offloaded


def several() -> list[Redraw]:
    """Three unlike pictures, the first not at all like the others."""
    pictures = np.random.default_rng(1).integers(0, 255, (3, SIDE, SIDE, 3)).astype(np.uint8)
    return [asked(image=picture, prompt=word) for picture, word in zip(pictures, ("a", "b", "a hat"), strict=True)]


def test_pictures_drawn_together_are_those_drawn_alone(drawer: DiffusersDenoiser) -> None:
    work, counted = several(), []
    hook = drawer._pipeline.unet.register_forward_hook(lambda *_: counted.append(1))
    together = drawer(work)
    hook.remove()
    assert len(counted) == work[0].steps, "one call of the network for all"
    for picture, one in zip(together, work, strict=True):
        assert np.abs(picture.astype(int) - drawer([one])[0]).mean() < 0.5, "rounded to bfloat16 on the way"


def test_frames_look_at_the_first(drawer: DiffusersDenoiser) -> None:
    work = [dataclasses.replace(one, attention=True) for one in several()]
    plain, looked = drawer(several()), drawer(work)
    assert min(np.abs(looked[k].astype(int) - plain[k]).mean() for k in (1, 2)) > 1
    # the first sees itself twice, which changes nothing: softmax weights of pairs add up to what one had
    assert np.abs(looked[0].astype(int) - plain[0]).mean() < 0.5
    other = [dataclasses.replace(work[0], image=work[0].image[::-1].copy()), *work[1:]]
    assert np.abs(drawer(other)[1].astype(int) - looked[1]).mean() > 1, "another first picture changes the second"
    swapped = drawer([work[0], work[2], work[1]])
    assert np.abs(swapped[2].astype(int) - looked[1]).mean() < 0.5, "and a third does not"
    assert np.abs(drawer(several())[1].astype(int) - plain[1]).max() == 0, "nothing stays"


def test_attention_by_hand() -> None:
    """Of [conditioned a, b, other a, b] each b takes keys and values from its own half's a and from itself."""
    torch = pytest.importorskip("torch")
    from diffusers.models.attention_processor import Attention

    torch.manual_seed(0)
    network = torch.nn.ModuleDict({"attn1": Attention(8, heads=1, dim_head=8)})
    tokens, layer = torch.randn(4, 5, 8), network["attn1"]
    with torch.no_grad(), looking_at_the_first(network, 2):
        found = layer(tokens)
    keys = torch.cat([tokens[2], tokens[3]])
    weights = torch.softmax(layer.to_q(tokens[3]) @ layer.to_k(keys).T / 8**0.5, -1)
    expected = layer.to_out[0](weights @ layer.to_v(keys))
    torch.testing.assert_close(found[3], expected.detach())
