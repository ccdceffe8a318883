"""The diffusion pass in the real WebUI: through API, tab and script; U-Net calls counted; nothing of the host changed.

Needs what `running_webui.py` says, and a clip with a face: VITFACE_CLIP, or the first of the target's faceset as a still.
"""

from __future__ import annotations

import base64
import json
import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running_webui import DIR, WORKSPACE, Running, webui
from test_real import SIZE, arguments, ask, face, is_marked, model_name, request_of, text_of, text_with_info

CLIP = os.environ.get("VITFACE_CLIP")
PASS = {"denoise": 0.4, "denoise_steps": 2, "denoise_size": 128, "denoise_sampler": "Euler", "denoise_light": 0.0}
SECONDS = float(os.environ.get("VITFACE_CLIP_SECONDS", "1"))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    if WORKSPACE is None or CLIP is None or DIR is None:
        pytest.skip(
            "VITFACE_WEBUI_WORKSPACE names no workspace with a trained model, or VITFACE_CLIP no clip with a face"
        )
    link = Path(DIR).resolve() / "extensions" / "vitface-watcher"
    link.symlink_to(Path(__file__).parent / "watcher")
    try:
        with webui(tmp_path_factory.mktemp("webui"), "--api", workspace=Path(WORKSPACE)) as found:
            body = {"prompt": "a hat", "steps": 1, "width": 64, "height": 64}
            assert ask(found.url + "/sdapi/v1/txt2img", body)[0] == 200, "loads the checkpoint"
            ask(found.url + "/watcher/calls")
            yield found
    finally:
        link.unlink()


@pytest.fixture(scope="module")
def clip(watched: Running) -> str:
    assert CLIP is not None
    data = Path(CLIP).read_bytes()
    address = f"{watched.url}/vitface/v1/uploads?name={Path(CLIP).name}"
    with urllib.request.urlopen(urllib.request.Request(address, data), timeout=60) as answer:
        said = json.loads(answer.read())
    return str(said.get("path") or said)


def calls(running: Running) -> int:
    return int(ask(running.url + "/watcher/calls")[1]["calls"])


def state(running: Running) -> dict[str, Any]:
    found: dict[str, Any] = ask(running.url + "/watcher/state")[1]
    return found


def settled(running: Running, job: str, seconds: float = 1500) -> dict[str, Any]:
    """The job, once it has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found: dict[str, Any] = ask(f"{running.url}/vitface/v1/jobs/{job}")[1]
        if found["state"] not in {"queued", "running"}:
            return found
        time.sleep(0.5)
    raise AssertionError(found)


def begin(running: Running, clip: str, **values: Any) -> str:
    body = {"model": model_name(), "input": clip, "end_s": SECONDS, "device": "cpu", **PASS, **values}
    status, job = ask(running.url + "/vitface/v1/swap", body)
    assert status == 202, job
    return str(job["id"])


def file_of(running: Running, job: str) -> bytes:
    with urllib.request.urlopen(f"{running.url}/vitface/v1/jobs/{job}/result", timeout=60) as answer:
        return bytes(answer.read())


def test_a_video_through_the_api(watched: Running, clip: str, tmp_path: Path) -> None:
    """Calls are key frames times steps; state, caches, options, seeds, model and the last generation's text stay."""
    before, counted = state(watched), calls(watched)
    job = settled(watched, begin(watched, clip))
    assert job["state"] == "done", job
    told = job["result"]["denoise"]
    assert told["frames"] == job["result"]["swapped_frames"] > 0
    assert calls(watched) - counted == told["key_frames"] * PASS["denoise_steps"]
    assert told["key_frames"] <= told["frames"] / 8 + 2
    assert state(watched) == before
    assert is_marked(file_of(watched, job["id"]), tmp_path, "answer.mp4")["mark"]["present"]


def test_frames_are_drawn_together_and_look_at_the_first(watched: Running, clip: str) -> None:
    """One call of the U-Net a step for all of them; the host is as it was."""
    before, made = state(watched), []
    for attention in (False, True):
        counted = calls(watched)
        values = {"denoise_every": 4, "denoise_batch": 3, "denoise_attention": attention, "denoise_light": 1.0}
        values |= {"denoise_likeness": 0, "denoise_drift": 100}  # the guard would take back what noise does to a face
        job = settled(watched, begin(watched, clip, end_s=min(SECONDS, 1.0), **values))
        assert job["state"] == "done", job
        together = -(-(job["result"]["denoise"]["key_frames"] - 1) // 3)
        assert together > 1 and calls(watched) - counted == (1 + together) * PASS["denoise_steps"]
        made.append(file_of(watched, job["id"]))
    assert made[0] != made[1]
    assert state(watched) == before


def test_interrupt_stops_the_job_and_it_goes_on(watched: Running, clip: str) -> None:
    before, counted = state(watched), calls(watched)
    job = begin(watched, clip, denoise_steps=30)
    end = time.monotonic() + 600
    while calls(watched) < counted + 2 and time.monotonic() < end:
        time.sleep(0.2)
    preview = None
    while preview is None and time.monotonic() < end:
        progress = ask(watched.url + "/sdapi/v1/progress")[1]
        preview = progress["current_image"]
    assert progress["state"]["job"] == "vitface" and preview, "the live preview shows the face being drawn"
    ask(watched.url + "/sdapi/v1/interrupt", {})
    found = settled(watched, job)
    assert found["state"] == "stopped", found
    assert calls(watched) - counted < 60
    assert state(watched) == before
    assert ask(f"{watched.url}/vitface/v1/jobs/{job}", method="DELETE")[0] == 200


def test_a_failing_checkpoint_fails_the_job_only(watched: Running, clip: str) -> None:
    before = state(watched)
    ask(f"{watched.url}/watcher/fail?after=3", {})
    job = settled(watched, begin(watched, clip, end_s=0.5))
    assert job["state"] == "failed" and "wants this U-Net to fail" in job["error"]
    assert state(watched) == before
    status, made = ask(watched.url + "/sdapi/v1/txt2img", {"prompt": "a", "steps": 1, "width": 64, "height": 64})
    assert status == 200 and made["images"]


@pytest.mark.parametrize("kind", ["img2img", "txt2img"])
def test_the_script_redraws_and_tells_how(watched: Running, tmp_path: Path, kind: str) -> None:
    values = arguments(watched, model=model_name(), **PASS, denoise_prompt="{prompt}, calm, smooth")
    counted = calls(watched)
    if kind == "img2img":
        body = request_of(script_name="vitface", script_args=values)
    else:
        body = {"prompt": "a face", "steps": 2, "width": SIZE, "height": SIZE, "seed": 1}
        body |= {"script_name": "vitface", "script_args": values}
    status, answer = ask(f"{watched.url}/sdapi/v1/{kind}", body)
    assert status == 200, answer
    text = json.loads(answer["info"])["infotexts"][0]
    back = ask(watched.url + "/sdapi/v1/png-info", {"image": text_with_info(text)})[1]["parameters"]
    told = {name.removeprefix("ViTFace "): value for name, value in back.items()}
    assert (told["denoise"], told["denoise steps"], told["denoise sampler"]) == ("0.4", "2", "Euler")
    assert told["denoise prompt"] == "{prompt}, calm, smooth"
    own = 2
    if kind == "txt2img":  # the random checkpoint paints no face
        assert "was not found" in answer["info"] and calls(watched) - counted == own
        return
    assert calls(watched) - counted == own + PASS["denoise_steps"]
    assert is_marked(base64.b64decode(answer["images"][0]), tmp_path)["mark"]["present"]
    plain = request_of(script_name="vitface", script_args=arguments(watched, model=model_name()))
    assert ask(f"{watched.url}/sdapi/v1/{kind}", plain)[1]["images"] != answer["images"]


def test_a_lora_in_the_prompt_changes_what_is_drawn(watched: Running) -> None:
    if (Path(str(DIR)) / "modules_forge").is_dir():
        pytest.skip("the tiny network of tests/webui/make_checkpoint.py is for the WebUI; Forge knows whole ones only")
    from safetensors.numpy import save_file

    weights, name = np.random.default_rng(0), "lora_unet_conv_out"
    path = Path(str(DIR)) / "models" / "Lora" / "vitface-test.safetensors"
    down, up = (weights.normal(size=size).astype(np.float32) for size in ((4, 32, 3, 3), (4, 4, 1, 1)))
    save_file(
        {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": np.array(4.0, np.float32)},
        path,
    )
    try:
        drawn = []
        for tag in ("", " <lora:vitface-test:1>", ""):
            free = {"denoise_likeness": 0, "denoise_drift": 100, "denoise_prompt": "a face" + tag}
            body = {"image": text_of(face()), "options": {"model": model_name(), **PASS, **free}}
            drawn.append(ask(watched.url + "/vitface/v1/picture", body)[1]["image"])
    finally:
        path.unlink()
    assert drawn[0] == drawn[2] != drawn[1]


def test_the_picture_route_uses_the_loaded_checkpoint(watched: Running) -> None:
    before, counted = state(watched), calls(watched)
    body = {"image": text_of(face()), "options": {"model": model_name(), **PASS}}
    status, answer = ask(watched.url + "/vitface/v1/picture", body)
    assert status == 200, answer
    assert calls(watched) - counted == PASS["denoise_steps"]
    assert state(watched) == before


def test_a_video_through_the_tab(watched: Running, clip: str) -> None:
    """What pressing “Swap” sends: every field of the form in its order."""
    config = ask(watched.url + "/config")[1]
    by_id = {c["id"]: c for c in config["components"]}
    at = {c["props"].get("elem_id"): c["id"] for c in config["components"]}
    number = next(
        n for n, d in enumerate(config["dependencies"])
        if any((t[0] if isinstance(t, list) else t) == at["vitface-swap-start"] for t in d["targets"]) and d["backend_fn"]
    )  # fmt: skip
    wanted = {"model": model_name(), "input": clip, "end_s": str(SECONDS), "device": "cpu", **PASS}
    data = []
    for place in config["dependencies"][number]["inputs"]:
        props = by_id[place]["props"]
        name = str(props.get("elem_id", "")).removeprefix("vitface-swap-").replace("-", "_")
        data.append(wanted.pop(name, props.get("value")))
    assert not wanted
    sampler = by_id[at["vitface-swap-denoise-sampler"]]["props"]
    assert "Euler" in str(sampler["choices"])
    known = {job["id"] for job in ask(watched.url + "/vitface/v1/jobs")[1]["jobs"]}
    counted = calls(watched)
    body = {"fn_index": number, "data": data, "session_hash": "x"}
    if ask(watched.url + "/run/predict", body)[0] != 200:  # gradio 4 takes what is queued elsewhere
        ask(watched.url + "/queue/join", body)
    end, new = time.monotonic() + 60, set()
    while not new and time.monotonic() < end:
        new = {job["id"] for job in ask(watched.url + "/vitface/v1/jobs")[1]["jobs"]} - known
        time.sleep(0.3)
    job = settled(watched, new.pop())
    assert job["state"] == "done", job
    assert calls(watched) - counted == job["result"]["denoise"]["key_frames"] * PASS["denoise_steps"] > 0
