"""The WebUI tests' mark, and one that runs for all of them (see `running_webui.py` for what must be set)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from running_webui import DIR, WORKSPACE, Running, webui


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.webui)
            if DIR is None:
                item.add_marker(pytest.mark.skip(reason="VITFACE_WEBUI_DIR names no WebUI checkout"))


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With the API and without logins."""
    with webui(tmp_path_factory.mktemp("webui"), "--api", workspace=Path(WORKSPACE) if WORKSPACE else None) as found:
        yield found


@pytest.fixture
def trained(running: Running) -> Running:
    if WORKSPACE is None:
        pytest.skip("VITFACE_WEBUI_WORKSPACE names no workspace with a trained model")
    return running
