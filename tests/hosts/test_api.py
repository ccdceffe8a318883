"""The routes, asked by FastAPI's own test client; the work behind them is real where it is quick and faked where it is not."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

fastapi = pytest.importorskip("fastapi", reason="FastAPI is not installed (requirements-ui.txt)")
pytest.importorskip("httpx", reason="httpx is not installed (FastAPI's test client needs it)")
from fastapi.testclient import TestClient  # noqa: E402
from PIL import Image as Pillow  # noqa: E402

from lib_vitface import options  # noqa: E402
from lib_vitface.errors import NoFaceError  # noqa: E402
from lib_vitface.hosts import api as routes  # noqa: E402
from lib_vitface.hosts.guarded import basic_guard  # noqa: E402
from lib_vitface.tasks import TASKS  # noqa: E402
from lib_vitface.types import Face  # noqa: E402
from lib_vitface.ui.runner import Runner  # noqa: E402
from lib_vitface.ui.site import Site  # noqa: E402
from lib_vitface.ui.studio import Result, Studio  # noqa: E402

V1 = "/vitface/v1"


class Door:
    xmp = b"<x:xmpmeta>said</x:xmpmeta>"

    def sealed(self, data: bytes, suffix: str, parent: bytes | None = None) -> bytes:
        assert suffix == ".png" and data.startswith(b"\x89PNG") and parent is not None and parent.startswith(b"\x89PNG")
        return data + b"sealed"


class FakeStudio(Studio):
    """Inverts the picture; says no to black ones."""

    def swap(self, image: Any, values: Any, tick: Any = None, *, denoiser: Any = None) -> Result:
        self.asked = values
        if not image.any():
            raise NoFaceError("The face to replace was not found in the picture.")
        face = Face(np.float32([1, 2, 30, 40]), 1.0, np.zeros((5, 2), np.float32))
        return Result(255 - image, face, Door())  # type: ignore[arg-type]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "workspace", tmp_path / "outputs", upload_limit=1000)


@pytest.fixture
def client(site: Site) -> TestClient:
    return make_client(site)


def make_client(site: Site, *guards: Any) -> TestClient:
    app = fastapi.FastAPI()
    routes.mount(app, routes.Api(Runner(site), FakeStudio(site)), guards)
    return TestClient(app, raise_server_exceptions=False)


def picture(colour: int = 200) -> str:
    buffer = io.BytesIO()
    Pillow.new("RGB", (40, 32), (colour, 10 * (colour > 0), 0)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_schema_is_the_declaration(client: TestClient) -> None:
    """Every option of every task is published as declared, on the schema route and in OpenAPI."""
    published = client.get("/openapi.json").json()["paths"]
    for name, task in TASKS.items():
        wanted = options.json_schema(task.options)
        assert client.get(f"{V1}/schema/{name}").json() == wanted
        body = published[f"{V1}/{name}"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert body["properties"].keys() == {item.name for item in options.declared(task.options)}


def test_picture_goes_in_and_out(client: TestClient) -> None:
    answer = client.post(f"{V1}/picture", json={"image": picture(), "options": {"model": "me", "face_index": 1}})
    assert answer.status_code == 200, answer.text
    data = base64.b64decode(answer.json()["image"])
    image = np.asarray(Pillow.open(io.BytesIO(data)))
    assert image.shape == (32, 40, 3)
    assert image[0, 0].tolist() == [55, 245, 255]
    assert b"said" in data, "the statement must stand in the file"
    assert answer.json()["face"] == [1.0, 2.0, 30.0, 40.0]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"image": "%%%"}, 400, "base64"),
        ({"image": base64.b64encode(b"no picture").decode()}, 400, "picture"),
        ({"image": 7}, 400, "base64"),
        ({}, 400, "base64"),
        ({"image": "", "other": 1}, 400, "other"),
        ({"image": "x", "options": []}, 400, "options"),
        ([1, 2], 400, "cannot be read"),
        ({"image": picture(0)}, 422, "not found"),
    ],
)
def test_faults_are_sentences(client: TestClient, body: Any, status: int, word: str) -> None:
    answer = client.post(f"{V1}/picture", json=body)
    assert answer.status_code == status
    assert word in answer.json()["error"]


def test_body_that_is_no_json(client: TestClient) -> None:
    answer = client.post(f"{V1}/swap", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "cannot be read" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "keys/signing.pem", "a\x00b", "~root/x"])
def test_paths_outside_are_refused(client: TestClient, path: str) -> None:
    answer = client.post(f"{V1}/inspect", json={"input": [path]})
    assert answer.status_code == 400, answer.text
    assert "error" in answer.json()
    assert "root:" not in answer.text


def test_links_out_of_the_folders_are_refused(client: TestClient, site: Site) -> None:
    site.uploads.mkdir(parents=True)
    (site.uploads / "way-out").symlink_to("/etc")
    answer = client.post(f"{V1}/inspect", json={"input": ["way-out/passwd"]})
    assert answer.status_code == 400
    assert "outside" in answer.json()["error"]


def test_keys_cannot_be_written_over(client: TestClient, site: Site) -> None:
    body = {"record": str(site.workspace / "keys" / "mark.key"), "action": "write", "who": "x"}
    answer = client.post(f"{V1}/consent", json=body)
    assert answer.status_code == 400
    assert "outside" in answer.json()["error"]


def test_options_are_checked_before_a_job_is_made(client: TestClient) -> None:
    answer = client.post(f"{V1}/swap", json={"model": "m", "input": "v.mp4", "output": "o.mp4", "erode": 1000})
    assert answer.status_code == 400
    assert "--erode" in answer.json()["error"]
    assert client.get(f"{V1}/jobs").json() == {"jobs": []}


def test_upload(client: TestClient, site: Site) -> None:
    answer = client.post(f"{V1}/uploads", params={"name": "../../a b.png"}, content=b"x" * 999)
    assert answer.status_code == 201, answer.text
    kept = Path(answer.json()["path"])
    assert kept.is_file()
    assert site.uploads.resolve() in kept.resolve().parents
    for body, status in ((b"x" * 1001, 413), (b"", 400)):
        assert client.post(f"{V1}/uploads", params={"name": "b.png"}, content=body).status_code == status
    nameless = client.post(f"{V1}/uploads", params={"name": " "}, content=b"x")
    assert (nameless.status_code, nameless.json()["error"]) == (400, "name: a file name is needed.")
    left = [path for path in site.uploads.rglob("*") if path.is_file()]
    assert left == [kept], "a refused upload leaves nothing behind"


def test_every_route_asks_for_credentials(site: Site) -> None:
    client = make_client(site, basic_guard({"me": "secret"}))
    found = client.get("/openapi.json").json()["paths"]
    for path, ways in found.items():
        for way in ways:
            address = path.replace("{task}", "swap").replace("{job_id}", "x")
            answer = client.request(way, address, json={})
            assert answer.status_code == 401, f"{way} {path}"
            assert "error" in answer.json()
            assert answer.headers["www-authenticate"] == "Basic"
    assert client.get(f"{V1}/", auth=("me", "wrong")).status_code == 401
    assert client.get(f"{V1}/", auth=("nobody", "")).status_code == 401
    assert client.get(f"{V1}/", auth=("me", "secret")).status_code == 200


def test_jobs_are_listed_cancelled_and_deleted(client: TestClient, site: Site) -> None:
    runner = Runner(site)
    waiting = runner.store.create("run-swap", {"model": "m"})
    listed = client.get(f"{V1}/jobs").json()["jobs"]
    assert [job["id"] for job in listed] == [waiting.id]
    assert client.post(f"{V1}/jobs/{waiting.id}/cancel").json()["state"] == "stopped"
    assert client.get(f"{V1}/jobs/{waiting.id}/result").status_code == 400
    assert client.delete(f"{V1}/jobs/{waiting.id}").json() == {"deleted": waiting.id}
    for way in ("get", "delete"):
        assert client.request(way, f"{V1}/jobs/{waiting.id}").status_code == 400
    foreign = runner.store.create("swap", {})  # what a task keeps for itself is nobody's business
    assert client.get(f"{V1}/jobs/{foreign.id}").status_code == 400


def test_result_outside_the_folders_is_not_sent(client: TestClient, site: Site) -> None:
    runner = Runner(site)
    job = runner.store.create("run-swap", {})
    with runner.store.claim(job.id) as claim:
        claim.finish({"output": "/etc/passwd"})
    answer = client.get(f"{V1}/jobs/{job.id}/result")
    assert answer.status_code == 400
    assert "outside" in answer.json()["error"]


@pytest.mark.slow
def test_a_failing_job_says_why(client: TestClient, site: Site) -> None:
    """A real child process; the options are right, the file is not."""
    site.uploads.mkdir(parents=True)
    (site.uploads / "v.mp4").write_bytes(b"no video")
    body = {"source": "v.mp4", "target": "v.mp4", "result": str(site.uploads / "v.mp4")}
    answer = client.post(f"{V1}/evaluate", json=body)
    assert answer.status_code == 202, answer.text
    job = wait_for(client, answer.json()["id"])
    assert job["state"] == "failed"
    assert "v.mp4" in job["error"]
    assert job["failure"]["http_status"] == 400
    assert job["failure"]["exit_code"] == 2


def wait_for(client: TestClient, job_id: str, seconds: float = 120) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        job: dict[str, Any] = client.get(f"{V1}/jobs/{job_id}").json()
        if job["state"] not in {"queued", "running"}:
            return job
        time.sleep(0.2)
    raise AssertionError(f"{job_id} did not end: {job}")


def test_mounting_twice_adds_nothing(site: Site) -> None:
    app = fastapi.FastAPI()
    api = routes.Api(Runner(site), FakeStudio(site))
    routes.mount(app, api)
    before = len(app.routes)
    routes.mount(app, api)
    assert len(app.routes) == before


def test_a_program_error_is_no_traceback(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fall(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret place")

    monkeypatch.setattr(FakeStudio, "swap", fall)
    answer = client.post(f"{V1}/picture", json={"image": picture()})
    assert answer.status_code == 500
    assert "secret" not in answer.text
