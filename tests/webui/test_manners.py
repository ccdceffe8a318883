"""Manners in the real WebUI: hires fix, inpainting, batch folder, other always-on scripts, file formats, Interrupt, being off."""

from __future__ import annotations

import base64
import io
import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image as Pillow
from running_webui import DIR, WORKSPACE, Running, webui
from test_real import arguments, ask, difference, face, is_marked, model_name, request_of

FACE = (80, 80, 176, 200)
SOON_S = 2.0  # within which a stop is obeyed on a busy machine; on a quiet one it is below a second


def painted(running: Running, **values: Any) -> dict[str, Any]:
    """txt2img in which the always-on script paints a face, and the swap is asked for."""
    return {
        "prompt": "painted", "steps": 2, "width": 256, "height": 256, "seed": 1, "script_name": "vitface",
        "script_args": arguments(running, model=model_name()), **values,
    }  # fmt: skip


def pictures(answer: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(text) for text in answer["images"]]


def test_a_face_that_another_always_on_script_painted_is_swapped(trained: Running, tmp_path: Path) -> None:
    """The order: sampling, then scripts that repaint single pictures (ADetailer), then the swap."""
    status, answer = ask(trained.url + "/sdapi/v1/txt2img", painted(trained))
    assert status == 200, answer
    (picture,) = pictures(answer)
    assert is_marked(picture, tmp_path)["mark"]["present"]
    assert difference(picture, face(), FACE) > 3, "the face is another one"
    assert difference(picture, face(), (0, 0, 40, 40)) < 6, "and the rest is what the script painted"
    assert "ViTFace note" not in answer["info"]


def test_what_a_later_script_paints_over_is_marked_again(trained: Running, tmp_path: Path) -> None:
    status, answer = ask(trained.url + "/sdapi/v1/txt2img", painted(trained, prompt="painted repainted", batch_size=2))
    assert status == 200, answer
    for picture in pictures(answer):
        assert is_marked(picture, tmp_path)["mark"]["present"]


def test_hires_fix_swaps_the_large_picture(trained: Running, tmp_path: Path) -> None:
    body = painted(trained, enable_hr=True, hr_scale=2, hr_upscaler="Latent", denoising_strength=0.5)
    body["hr_additional_modules"] = ["Use same choices"]  # Forge's form sends it, and its route does not do without
    status, answer = ask(trained.url + "/sdapi/v1/txt2img", body)
    assert status == 200, answer
    (picture,) = pictures(answer)
    image = Pillow.open(io.BytesIO(picture))
    assert image.size == (512, 512)
    assert is_marked(picture, tmp_path)["mark"]["present"]
    small = io.BytesIO()
    image.convert("RGB").resize((256, 256)).save(small, "PNG")
    assert difference(small.getvalue(), face(), FACE) > 3
    text = json.loads(answer["info"])["infotexts"][0]
    assert "Hires upscale: 2" in text
    assert "ViTFace model: " in text


def test_inpainting_at_full_resolution_swaps_the_whole_picture(trained: Running, tmp_path: Path) -> None:
    """The face lies outside what is inpainted: only the composite shows it."""
    values = arguments(trained, model=model_name())
    body = request_of(script_name="vitface", script_args=values, inpaint_full_res=True, inpaint_full_res_padding=8)
    status, answer = ask(trained.url + "/sdapi/v1/img2img", body)
    assert status == 200, answer
    picture = pictures(answer)[0]
    assert Pillow.open(io.BytesIO(picture)).size == (256, 256)
    assert is_marked(picture, tmp_path)["mark"]["present"]
    assert difference(picture, face(), FACE) > 3


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_saved_files_bear_mark_and_statement(trained: Running, tmp_path: Path, kind: str) -> None:
    before = ask(trained.url + "/sdapi/v1/options")[1]
    assert ask(trained.url + "/sdapi/v1/options", {"samples_format": kind})[0] == 200
    try:
        known = set(trained.log.parent.rglob(f"pictures/**/*.{kind}"))
        status, answer = ask(trained.url + "/sdapi/v1/txt2img", painted(trained, save_images=True))
        assert status == 200, answer
        (made,) = set(trained.log.parent.rglob(f"pictures/**/*.{kind}")) - known
    finally:
        ask(trained.url + "/sdapi/v1/options", {"samples_format": before["samples_format"]})
    found = is_marked(made.read_bytes(), tmp_path)
    assert found["mark"]["present"]
    assert found["statement"]["tool"].startswith("ViTFace")
    text = ask(trained.url + "/sdapi/v1/png-info", {"image": base64.b64encode(made.read_bytes()).decode()})[1]["info"]
    assert "ViTFace model: " in text, "the WebUI's own text is still there"


@pytest.mark.parametrize("wish", ["interrupt", "skip"])
def test_interrupt_and_skip_in_the_middle_of_swapping(trained: Running, tmp_path: Path, wish: str) -> None:
    answer: list[Any] = []
    body = painted(trained, n_iter=6)
    thread = threading.Thread(target=lambda: answer.append(ask(trained.url + "/sdapi/v1/txt2img", body)))
    thread.start()
    end = time.monotonic() + 120
    while "ViTFace" not in str(ask(trained.url + "/sdapi/v1/progress?skip_current_image=true")[1].get("textinfo")):
        assert thread.is_alive() and time.monotonic() < end, "it was never seen swapping"
        time.sleep(0.02)
    began = time.monotonic()
    ask(f"{trained.url}/sdapi/v1/{wish}", {})
    if wish == "skip":  # the picture is left; those that follow are made as ever
        while "interrupted" not in trained.said() and time.monotonic() - began < SOON_S:
            time.sleep(0.02)
        thread.join(120)
        assert answer[0][0] == 200
        notes = [text for text in json.loads(answer[0][1]["info"])["infotexts"] if "was interrupted" in text]
        assert notes
        return
    thread.join(60)
    took = time.monotonic() - began
    print(f"{wish} obeyed after {took:.2f} s")
    assert took < SOON_S
    assert answer[0][0] == 200


def test_a_job_stops_soon(trained: Running, tmp_path: Path) -> None:
    clip = tmp_path / "long.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = 256
        for _ in range(500):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(face()), format="rgb24")))
        container.mux(stream.encode(None))
    url = trained.url + "/vitface/v1"
    request = urllib.request.Request(f"{url}/uploads?name=long.mp4", clip.read_bytes(), method="POST")
    with urllib.request.urlopen(request, timeout=60) as said:
        path = json.loads(said.read())["path"]
    job = ask(url + "/swap", {"model": model_name(), "input": path, "resume": False})[1]["id"]

    def state() -> dict[str, Any]:
        found: dict[str, Any] = ask(f"{url}/jobs/{job}")[1]
        return found

    try:
        until(lambda: state()["progress"] > 0.02, 120)
        began = time.monotonic()
        ask(f"{url}/jobs/{job}/cancel", {})
        until(lambda: state()["state"] == "stopped", 30)
        took = time.monotonic() - began
        print(f"stopped after {took:.2f} s")
        assert took < SOON_S
    finally:
        ask(f"{url}/jobs/{job}/cancel", {})
        until(lambda: state()["state"] in {"stopped", "failed", "done"}, 30)
        ask(f"{url}/jobs/{job}", method="DELETE")
        shutil.rmtree(Path(path).parent)


def until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def test_a_folder_of_pictures_is_swapped(trained: Running, tmp_path: Path) -> None:
    """img2img's batch is only on the page."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium was found")
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
    for name in ("one.png", "two.png"):
        face().save(inside / name)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1400, "height": 1200})
        page.goto(trained.url)
        page.wait_for_selector("#img2img_prompt textarea", state="attached", timeout=90_000)
        page.wait_for_timeout(4000)
        page.locator("#tabs > .tab-nav > button", has_text="img2img").first.click()
        page.locator("#img2img_prompt textarea").fill("painted")
        page.locator("#mode_img2img button", has_text="Batch").first.click()
        page.wait_for_timeout(500)
        page.locator(
            "#img2img_batch_source button, #img2img_batch_source [role=tab]", has_text="directory"
        ).last.click()
        page.wait_for_timeout(500)
        for name, value in (("img2img_batch_input_dir", inside), ("img2img_batch_output_dir", outside)):
            page.locator(f"#{name} textarea").fill(str(value))
        for name, value in (("steps", 2), ("width", 256), ("height", 256)):
            page.locator(f"#img2img_{name} input[type=number]").first.fill(str(value))
        script = page.locator("#img2img_script_container #script_list input").first
        script.fill("ViTFace")
        script.press("Enter")
        page.wait_for_timeout(1000)
        page.locator("#img2img_generate").first.click()
        until(lambda: page.wait_for_timeout(300) or len(list(outside.glob("*.png"))) == 2, 120)
        page.wait_for_timeout(1000)
        browser.close()
    for path in outside.iterdir():
        assert is_marked(path.read_bytes(), tmp_path)["mark"]["present"]
        assert difference(path.read_bytes(), face(), FACE) > 3


def test_models_and_jobs_lie_where_the_flag_says(trained: Running) -> None:
    about = ask(trained.url + "/vitface/v1/")[1]
    assert about["workspace"] == str(Path(str(WORKSPACE)).resolve())
    assert model_name() in ask(trained.url + "/vitface/v1/names")[1]["models"]


def test_switched_off_it_leaves_no_trace(tmp_path: Path) -> None:
    places = [Path(str(DIR)) / "models" / "vitface", Path(str(DIR)) / "outputs" / "vitface"]
    before = [place.exists() for place in places]
    with webui(tmp_path, "--api", enabled=False) as plain:
        scripts = ask(plain.url + "/sdapi/v1/scripts")[1]
        assert not [name for kind in scripts.values() for name in kind if "vitface" in name.lower()]
        assert not [path for path in ask(plain.url + "/openapi.json")[1]["paths"] if "vitface" in path]
        assert "vitface-" not in json.dumps(ask(plain.url + "/config")[1])
        assert "vitface_" not in json.dumps(ask(plain.url + "/sdapi/v1/options")[1])
        body = {"prompt": "painted", "steps": 1, "width": 64, "height": 64}
        status, answer = ask(plain.url + "/sdapi/v1/txt2img", body)
        assert status == 200
        assert "ViTFace" not in answer["info"]
        assert b"xmpmeta" not in pictures(answer)[0]
    assert [place.exists() for place in places] == before, "not even a folder is made"
    assert "vitface" not in (tmp_path / "ui.json").read_text().lower()
