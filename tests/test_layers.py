"""The layers of CONTRIBUTING.md, held by reading every import."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lib_vitface"

LAYERS = [
    {"errors"},
    {"types", "options"},
    {"device", "assets", "media", "jobs"},
    {"faces", "models", "losses", "workers"},
    {"faceset", "metrics", "provenance"},
    {"training", "swap"},
    {"tasks"},
    {"ui", "cli"},
    {"hosts"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """The part a file belongs to: its sub-package, or its own name at the top level."""
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports_of(path: Path) -> list[str]:
    """Full dotted names of everything a file imports, at any depth of nesting."""
    found = []
    package = ["lib_vitface", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = ".".join([*base, node.module] if node.module else base)
            found += [f"{stem}.{alias.name}" for alias in node.names]
    return found


def test_the_layers_are_those_that_are_written_down() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("Imports go down this list only")[2]
    listed = text.partition("\n\n")[2].partition("\n\n")[0]
    assert [set(re.findall(r"`(\w+)`", layer)) for layer in listed.split("→")] == LAYERS
    parts = {part_of(path) for path in FILES} - {"__init__", "__main__"}
    assert parts == set(RANK), "every part has a layer, and none is left of one that is gone"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    part = part_of(path)
    if part in {"__init__", "__main__"}:
        return
    assert part in RANK, f"{part} has no layer"
    for name in imports_of(path):
        if not name.startswith("lib_vitface."):
            continue
        other = name.split(".")[1]
        if other in {part, "__version__"}:
            continue
        assert other in RANK, f"{path.name}: imports {name}, which has no layer"
        assert RANK[other] < RANK[part], f"{path.name}: {part} may not import {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_libraries_stay_in_their_layer(path: Path) -> None:
    part = part_of(path)
    for name in imports_of(path):
        top = name.split(".")[0]
        if top == "gradio":
            assert part in {"ui", "hosts"}, f"{path.name} imports gradio"
        if top in {"fastapi", "starlette"}:
            assert part == "hosts", f"{path.name} imports {top}"
        if top == "av":
            assert part == "media", f"{path.name} imports av; only media touches a video library"
        if top == "modules":
            assert path.name.startswith("webui"), f"{path.name} imports the WebUI's modules"


def test_only_publish_opens_the_writer() -> None:
    """Pixels leave through provenance/publish.py; no other file constructs a FrameWriter or saves an image result."""
    for path in FILES:
        if path.name == "publish.py" or part_of(path) == "media":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                assert name not in {"FrameWriter", "write_image"}, f"{path.relative_to(PACKAGE)} writes past publish.py"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_habits(path: Path) -> None:
    """No `global`, no bare `except`, no `except Exception` outside hosts, no `print` outside the command line."""
    part = part_of(path)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        assert not isinstance(node, ast.Global), f"{path.name}:{node.lineno} uses global"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path.name}:{node.lineno} bare except"
            if part != "hosts":
                names = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)}
                assert "Exception" not in names, f"{path.name}:{node.lineno} except Exception"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            assert path.name in {"cli.py", "__main__.py"}, f"{path.name}:{node.lineno} print"
