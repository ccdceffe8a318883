"""Requests made up from the published schemas, and damaged uploads: no program error, nothing outside the folders, nothing left."""

from __future__ import annotations

import base64
import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

fastapi = pytest.importorskip("fastapi", reason="FastAPI is not installed (requirements-ui.txt)")
pytest.importorskip("httpx", reason="httpx is not installed (FastAPI's test client needs it)")
from fastapi.testclient import TestClient  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from PIL import Image as Pillow  # noqa: E402

from lib_vitface.hosts import api as routes  # noqa: E402
from lib_vitface.tasks import TASKS  # noqa: E402
from lib_vitface.ui.runner import Runner  # noqa: E402
from lib_vitface.ui.site import Site  # noqa: E402
from lib_vitface.ui.studio import Studio, picture_schema  # noqa: E402

V1 = "/vitface/v1"


class StillRunner(Runner):
    """Takes jobs and does not start them."""

    def _enqueue(self, job_id: str) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("fuzz")
    return Site(folder / "workspace", folder / "outputs", upload_limit=100_000)


@pytest.fixture(scope="module")
def client(site: Site) -> TestClient:
    app = fastapi.FastAPI()
    routes.mount(app, routes.Api(StillRunner(site), Studio(site)))
    return TestClient(app, raise_server_exceptions=False)


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def likely(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Mostly what a property's schema allows, sometimes anything at all."""
    if "anyOf" in schema:
        return st.one_of(*(likely(one) for one in schema["anyOf"])) | anything
    if "enum" in schema:
        return st.sampled_from(schema["enum"]) | anything
    kind = schema.get("type")
    if kind == "array":
        return st.lists(likely(schema["items"]), max_size=3) | anything
    if kind in {"number", "integer"}:
        low, high = schema.get("minimum", -1000), schema.get("maximum", 1000)
        return st.integers(int(low) - 1, int(high) + 1) | anything
    names = st.sampled_from(["a.mp4", "../x", "/etc/passwd", "keys", "", " ", "a\x00b", "x" * 300, "models/../../y"])
    return {"boolean": st.booleans(), "null": st.none()}.get(str(kind), names) | anything


def bodies(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    known = {name: likely(one) for name, one in schema["properties"].items()}
    return st.fixed_dictionaries({}, optional=known) | anything


BODIES = st.one_of(
    *(
        st.tuples(st.just(name), bodies(routes.options.json_schema(task.options)))
        for name, task in TASKS.items()
        if name != "doctor"
    ),
    st.tuples(
        st.just("picture"),
        st.fixed_dictionaries(
            {"image": st.text(max_size=30) | anything, "options": bodies(picture_schema())}, optional={"more": anything}
        ),
    ),
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(asked=BODIES)
def test_made_up_requests(client: TestClient, site: Site, asked: tuple[str, Any]) -> None:
    name, body = asked
    answer = client.post(f"{V1}/{name}", json=body)
    assert answer.status_code < 500 or answer.status_code in {501, 507}, answer.text
    if answer.status_code >= 400:
        assert isinstance(answer.json()["error"], str)
        assert "Traceback" not in answer.text
    else:
        for value in _paths(answer.json().get("options", {})):
            inside = [site.workspace.resolve(), site.outputs.resolve()]
            assert any(folder in Path(value).parents for folder in inside), value


def _paths(options: dict[str, Any]) -> list[str]:
    flat = [one for value in options.values() for one in (value if isinstance(value, list) else [value])]
    return [one for one in flat if isinstance(one, str) and one.startswith("/")]


@pytest.mark.parametrize("way", ["GET", "POST", "DELETE", "PUT"])
def test_made_up_addresses(client: TestClient, way: str) -> None:
    for tail in (
        "",
        "x",
        "jobs/..",
        "jobs/%00",
        "jobs/x/result",
        "jobs/run-swap-1/cancel",
        "schema/none",
        "schema/%2e%2e",
    ):
        answer = client.request(way, f"{V1}/{tail}")
        assert answer.status_code < 500, (way, tail, answer.text)


def test_two_hundred_damaged_pictures(client: TestClient, site: Site) -> None:
    chance = random.Random(0)
    originals = []
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
        buffer = io.BytesIO()
        pixels = np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)
        Pillow.fromarray(pixels).save(buffer, kind)
        originals.append(buffer.getvalue())
    for number in range(200):
        data = bytearray(originals[number % len(originals)])
        for _ in range(chance.randint(1, 30)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        data = data[: chance.randrange(len(data)) + 1] if number % 2 else data
        body = {"image": base64.b64encode(bytes(data)).decode(), "options": {"model": "no-such-model"}}
        answer = client.post(f"{V1}/picture", json=body)
        assert 400 <= answer.status_code < 500, answer.text
        answer = client.post(f"{V1}/uploads", params={"name": f"{number}.png"}, content=bytes(data))
        assert answer.status_code == 201
        answer = client.post(f"{V1}/inspect", json={"input": [answer.json()["path"]], "search": False, "frames": 1})
        assert answer.status_code < 500, answer.text
    left = [path.name for path in site.uploads.rglob(".*")]
    assert left == [], "no half-written file stays"
    assert not (site.workspace.parent / "x").exists()
