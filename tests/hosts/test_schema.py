"""The published OpenAPI, walked by schemathesis: requests of each operation, right ones and wrong ones; none is a program error."""

from __future__ import annotations

from typing import Any

import pytest

fastapi = pytest.importorskip("fastapi", reason="FastAPI is not installed (requirements-ui.txt)")
schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed (requirements-dev.txt)")
from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from test_fuzz import StillRunner  # noqa: E402

from lib_vitface.hosts import api as routes  # noqa: E402
from lib_vitface.tasks import TASKS  # noqa: E402
from lib_vitface.ui.site import Site  # noqa: E402
from lib_vitface.ui.studio import Studio  # noqa: E402

REFUSED = {501, 507}  # a package that is missing, a full disk: said in a sentence


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("schema") / "home"
    return Site(folder / "workspace", folder / "outputs", upload_limit=100_000)


@pytest.fixture(scope="module")
def published(site: Site) -> Any:
    app = fastapi.FastAPI()
    routes.mount(app, routes.Api(StillRunner(site), Studio(site)))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def test_no_request_is_a_program_error(published: Any, site: Site) -> None:
    asked: dict[str, int] = {}
    for found in published.get_all_operations():
        operation = found.ok()

        @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
        def ask(case: Any) -> None:
            answer = case.call()
            asked[case.operation.label] = asked.get(case.operation.label, 0) + 1
            assert answer.status_code < 500 or answer.status_code in REFUSED, answer.text
            if answer.status_code >= 400 and answer.status_code not in {404, 405}:  # no such address
                assert isinstance(answer.json()["error"], str)

        ask()
    assert len(asked) > 15 and sum(asked.values()) > 300
    outside = {path.name for path in site.workspace.parent.parent.iterdir()} - {site.workspace.parent.name}
    assert not outside, "nothing is written outside the folders"


def test_every_task_is_published(published: Any) -> None:
    """What the walk has to walk."""
    found = {operation.ok().label for operation in published.get_all_operations()}
    assert {f"POST /vitface/v1/{name}" for name in (*TASKS, "picture", "uploads")} <= found
    assert {"GET /vitface/v1/jobs/{job_id}", "DELETE /vitface/v1/jobs/{job_id}"} <= found
