"""The extension in the real WebUI, asked through the network as any program would."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow
from PIL import ImageDraw
from running_webui import WORKSPACE, Running, webui

SIZE = 256


def ask(url: str, body: Any = None, *, login: str | None = None, method: str | None = None) -> tuple[int, Any]:
    """Status and JSON of a request; a body makes it a POST."""
    headers = {"Content-Type": "application/json"}
    if login:
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def text_of(picture: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def face() -> Any:
    """A face of the workspace's target."""
    images = sorted((Path(str(WORKSPACE)) / "facesets" / "target" / "images").glob("*.jpg"))
    return Pillow.open(images[0]).convert("RGB").resize((SIZE, SIZE))


def request_of(**values: Any) -> dict[str, Any]:
    """img2img that redraws a corner only, so that the face stays (the random checkpoint paints noise)."""
    picture = face()
    mask = Pillow.new("L", picture.size, 0)
    ImageDraw.Draw(mask).rectangle((0, 0, 24, 24), fill=255)
    return {
        "init_images": [text_of(picture)], "mask": text_of(mask), "inpaint_full_res": False, "inpainting_fill": 1,
        "prompt": "a face", "steps": 2, "width": SIZE, "height": SIZE, "seed": 1, "denoising_strength": 0.5, **values,
    }  # fmt: skip


def arguments(running: Running, **values: Any) -> list[Any]:
    """`script_args` with the script's own defaults, as script-info tells them."""
    found = next(s for s in ask(running.url + "/sdapi/v1/script-info")[1] if s["name"] == "vitface" and s["is_img2img"])
    given = {re.sub(r" \(.*", "", a["label"]).lower().replace(" ", "_"): a["value"] for a in found["args"]}
    assert set(values) <= set(given)
    return list({**given, **values}.values())


def is_marked(picture: bytes, tmp_path: Path, name: str = "answer.png") -> dict[str, Any]:
    """What the free reader says."""
    path = tmp_path / name
    path.write_bytes(picture)
    command = [
        sys.executable,
        "-m",
        "lib_vitface",
        "inspect",
        "--input",
        str(path),
        "--workspace",
        str(WORKSPACE),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    found: dict[str, Any] = json.loads(done.stdout)["files"][0]
    return found


def difference(one: bytes, other: Any, box: tuple[int, int, int, int]) -> float:
    import numpy as np

    first = np.asarray(Pillow.open(io.BytesIO(one)).convert("RGB").crop(box), float)
    return float(np.abs(first - np.asarray(other.crop(box), float)).mean())


def test_it_loads_without_a_traceback(running: Running) -> None:
    assert only_git(running.said())
    assert "*** Error" not in running.said()


def only_git(said: str) -> bool:
    """A checkout without a remote makes the WebUI's extension list complain; that is not ours."""
    return said.count("Traceback") == said.count("Failed reading extension data from Git repository")


def test_scripts_and_routes_are_there(running: Running) -> None:
    scripts = ask(running.url + "/sdapi/v1/scripts")[1]
    for kind in ("txt2img", "img2img"):
        assert scripts[kind].count("vitface") == 1
        assert scripts[kind].count("vitface pictures") == 1
    status, schema = ask(running.url + "/vitface/v1/schema/swap")
    assert status == 200
    assert "model" in schema["required"]
    assert ask(running.url + "/openapi.json")[1]["paths"]["/vitface/v1/swap"]["post"]["requestBody"]


def test_generation_without_the_script_is_untouched(running: Running) -> None:
    body = {"prompt": "a face", "steps": 2, "width": SIZE, "height": SIZE, "seed": 3}
    first, second = (ask(running.url + "/sdapi/v1/txt2img", body)[1] for _ in range(2))
    assert first.get("images") == second["images"], first
    assert "ViTFace" not in first["info"]


def test_a_missing_model_is_told_before_anything_is_painted(running: Running) -> None:
    body = {"prompt": "a face", "steps": 2, "width": SIZE, "height": SIZE, "script_name": "vitface"}
    status, said = ask(running.url + "/sdapi/v1/txt2img", {**body, "script_args": ["no-such-model"]})
    assert 400 <= status < 500
    assert "no-such-model" in said["detail"]


def test_img2img_is_swapped_marked_and_described(trained: Running, tmp_path: Path) -> None:
    values = arguments(trained, model=model_name(), opacity=0.9)
    status, answer = ask(
        trained.url + "/sdapi/v1/img2img",
        request_of(script_name="vitface", script_args=values, batch_size=2, save_images=True),
    )
    assert status == 200, answer
    pictures = [base64.b64decode(text) for text in answer["images"]]
    assert len(pictures) == 3, "a grid and two pictures"
    info = json.loads(answer["info"])
    assert "ViTFace model: " in info["infotexts"][0]
    assert "ViTFace opacity: 0.9" in info["infotexts"][0]
    for picture in pictures:
        found = is_marked(picture, tmp_path)
        assert found["mark"]["present"]
        assert found["statement"]["tool"].startswith("ViTFace")
    assert difference(pictures[1], face(), (80, 80, 176, 200)) > 3, "the face is another one"


def model_name() -> str:
    found = sorted((Path(str(WORKSPACE)) / "models").glob("*/model.json"))
    return found[0].parent.name


def test_strength_zero_leaves_the_face(trained: Running) -> None:
    """The mark alone changes a pixel by little."""
    body = request_of(script_name="vitface", script_args=arguments(trained, model=model_name(), opacity=0.0))
    picture = base64.b64decode(ask(trained.url + "/sdapi/v1/img2img", body)[1]["images"][0])
    assert difference(picture, face(), (80, 80, 176, 200)) < 6


def test_a_picture_without_a_face_stays_and_is_told(trained: Running) -> None:
    body = {"prompt": "a face", "steps": 2, "width": SIZE, "height": SIZE, "script_name": "vitface"}
    status, answer = ask(
        trained.url + "/sdapi/v1/txt2img", {**body, "script_args": arguments(trained, model=model_name())}
    )
    assert status == 200
    assert "was not found" in answer["info"]


def test_infotext_pastes_back(trained: Running) -> None:
    body = request_of(script_name="vitface", script_args=arguments(trained, model=model_name(), opacity=0.4))
    info = json.loads(ask(trained.url + "/sdapi/v1/img2img", body)[1]["info"])["infotexts"][0]
    back = ask(trained.url + "/sdapi/v1/png-info", {"image": text_with_info(info)})[1]["parameters"]
    assert back["ViTFace opacity"] == "0.4"
    assert back["Script"] == "ViTFace"


def text_with_info(info: str) -> str:
    from PIL.PngImagePlugin import PngInfo

    notes, buffer = PngInfo(), io.BytesIO()
    notes.add_text("parameters", info)
    Pillow.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=notes)
    return base64.b64encode(buffer.getvalue()).decode()


def test_axes_of_the_grid_swap_by_themselves(trained: Running) -> None:
    """X: strength; Y: model. The grid script holds the dropdown, so the always-on part does the work."""
    url = trained.url
    found = next(s for s in ask(url + "/sdapi/v1/script-info")[1] if s["name"] == "x/y/z plot" and s["is_img2img"])
    names = found["args"][0]["choices"]
    at = {name.strip(): number for number, name in enumerate(names)}
    values = [a["value"] for a in found["args"]]
    values[0:3] = [at["[ViTFace] strength"], "0, 1", []]
    values[3:7] = [at["[ViTFace] model"], "", [model_name()], 0]
    status, answer = ask(url + "/sdapi/v1/img2img", request_of(script_name="x/y/z plot", script_args=values))
    assert status == 200, answer
    texts = json.loads(answer["info"])["infotexts"]
    assert any("ViTFace model: " in text for text in texts)
    assert any("ViTFace opacity: 0.0" in text for text in texts)


def test_the_public_client_library(trained: Running) -> None:
    webuiapi = pytest.importorskip("webuiapi", reason="the client library webuiapi is not installed")
    port = int(trained.url.rsplit(":", 1)[1])
    api = webuiapi.WebUIApi(host="127.0.0.1", port=port)
    found = api.img2img(
        images=[face()], prompt="a face", steps=2, width=SIZE, height=SIZE, denoising_strength=0.1, seed=1,
        script_name="vitface", script_args=arguments(trained, model=model_name()),
    )  # fmt: skip
    assert found.image.size == (SIZE, SIZE)


def test_picture_route_and_job_routes(trained: Running, tmp_path: Path) -> None:
    url = trained.url + "/vitface/v1"
    status, answer = ask(url + "/picture", {"image": text_of(face()), "options": {"model": model_name()}})
    assert status == 200, answer
    assert is_marked(base64.b64decode(answer["image"]), tmp_path)["mark"]["present"]
    status, job = ask(url + "/swap", {"model": model_name(), "input": "nothing.mp4"})
    assert status == 202
    for _ in range(120):
        state = ask(f"{url}/jobs/{job['id']}")[1]
        if state["state"] not in {"queued", "running"}:
            break
        time.sleep(0.5)
    assert state["state"] == "failed"
    assert "nothing.mp4" in state["error"]
    assert ask(f"{url}/jobs/{job['id']}", method="DELETE")[0] == 200


def test_bad_requests_are_refused_in_one_sentence(running: Running) -> None:
    url, picture = running.url + "/vitface/v1", text_of(Pillow.new("RGB", (64, 64)))
    film = {"model": "no-such-model", "input": "film.mp4"}
    bodies: list[tuple[str, Any]] = [
        *(("/swap", body) for body in ({}, [], "film", {"model": "m"}, {**film, "input": "/etc/passwd"})),
        *(
            ("/swap", {**film, **more})
            for more in ({"opacity": 7}, {"nonsense": 1}, {"also": 3}, {"resume": "perhaps"})
        ),
        *(("/inspect", {"input": given}) for given in ("nothing.png", 3, [], ["../../etc/passwd"])),
        ("/consent", {"record": "nobody", "action": "show"}),
        ("/consent", {"record": "nobody", "action": "forge"}),
        *(("/picture", body) for body in ({}, {"image": "%%%"}, {"image": picture}, {"image": picture, "more": 1})),
        *(("/picture", {"image": picture, "options": o}) for o in ({"model": "no-such-model"}, {"codec": "h264"}, [])),
        *((f"/jobs/nothing/{act}", {}) for act in ("cancel", "resume")),
        *(("/uploads", {"a": 1}), ("/uploads?name=", {"a": 1})),
    ]
    asked: list[tuple[str, Any, str]] = [(path, body, "POST") for path, body in bodies]
    asked += [(path, None, "GET") for path in ("/schema/nothing", "/jobs/nothing", "/jobs/nothing/result")]
    asked += [("/jobs/nothing", None, "DELETE")]
    for path, body, method in asked:
        status, said = ask(url + path, body, method=method)
        assert 400 <= status < 500, (method, path, body, said)
        assert set(said) == {"error", "kind"}, (method, path, body, said)
        assert re.fullmatch(r"[^\n]+\.", said["error"]), (method, path, body, said)


def test_interrupt_is_obeyed(trained: Running) -> None:
    """Interrupted while it generates: the swap is not begun, and the answer comes soon."""
    body = request_of(script_name="vitface", script_args=arguments(trained, model=model_name()), steps=100)
    answer: list[Any] = []
    thread = threading.Thread(target=lambda: answer.append(ask(trained.url + "/sdapi/v1/img2img", body)))
    thread.start()
    time.sleep(3)
    began = time.monotonic()
    ask(trained.url + "/sdapi/v1/interrupt", {})
    thread.join(60)
    assert not thread.is_alive()
    assert time.monotonic() - began < 10
    assert answer[0][0] == 200


def test_reload_leaves_one_of_everything(running: Running) -> None:
    for _ in range(2):
        before = running.said().count("Startup time")
        reload_page(running)
        end = time.monotonic() + 120
        while running.said().count("Startup time") == before and time.monotonic() < end:
            time.sleep(0.5)
        time.sleep(2)
    scripts = ask(running.url + "/sdapi/v1/scripts")[1]
    assert scripts["txt2img"].count("vitface") == 1
    found = next(
        s for s in ask(running.url + "/sdapi/v1/script-info")[1] if s["name"] == "x/y/z plot" and s["is_img2img"]
    )
    assert [name for name in found["args"][0]["choices"] if "ViTFace" in name] == [
        "[ViTFace] model", "[ViTFace] strength", "[ViTFace] denoise",
    ]  # fmt: skip
    assert ask(running.url + "/vitface/v1/")[0] == 200
    assert "*** Error" not in running.said()


def reload_page(running: Running) -> None:
    """What the "Reload UI" button does: its handler sets the server's command."""
    config = ask(running.url + "/config")[1]
    button = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "settings_restart_gradio")
    number = next(
        n for n, d in enumerate(config["dependencies"])
        if any((t[0] if isinstance(t, list) else t) == button for t in d["targets"]) and d["backend_fn"]
    )  # fmt: skip
    with contextlib.suppress(OSError):  # it closes the connection
        body = {"fn_index": number, "data": [], "session_hash": "x"}
        if ask(running.url + "/run/predict", body)[0] != 200:  # gradio 4 takes what is queued elsewhere
            ask(running.url + "/queue/join", body)


@pytest.mark.parametrize("flag", ["--api-auth", "--gradio-auth"])
def test_the_hosts_logins_guard_every_route(tmp_path: Path, flag: str) -> None:
    with webui(tmp_path, "--api", flag, "me:secret") as guarded:
        paths = [p for p in ask(guarded.url + "/openapi.json")[1]["paths"] if p.startswith("/vitface")]
        assert len(paths) > 10
        for path in paths:
            address = guarded.url + path.replace("{task}", "swap").replace("{job_id}", "x")
            for body in (None, {}):
                assert ask(address, body)[0] in {401, 405}, path
        assert ask(guarded.url + "/vitface/v1/", login="me:wrong")[0] == 401
        assert ask(guarded.url + "/vitface/v1/", login="me:secret")[0] == 200
