"""The Colab notebook as a file: its format, its Python, and its command lines. Running it is not for tests: it trains."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from test_docs import check_command, commands

FILE = Path(__file__).resolve().parent.parent / "notebooks" / "vitface_colab.ipynb"
NOTEBOOK: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
CELLS: list[dict[str, Any]] = NOTEBOOK["cells"]
# what the notebook's variables stand for in its shell lines
VALUES = {"PYTHON": "python", "SOURCE": "a b.mp4", "TARGET": "b.mp4", "OUTPUT": "c.mp4", "WHO": "me",
          "MINUTES": "3", "PRESET": "cpu"}  # fmt: skip


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def shell_lines(text: str) -> list[str]:
    """Lines that IPython hands to a shell, with variables filled in."""
    joined = text.replace("\\\n", " ").splitlines()
    return [re.sub(r"\{(\w+)\}", lambda m: VALUES[m[1]], line[1:]) for line in joined if line.startswith("!")]


def python_part(text: str) -> str:
    """A cell without its shell lines and magics."""
    joined = text.replace("\\\n", " ").splitlines()
    return "\n".join("" if line.startswith(("!", "%")) else line for line in joined)


CODE = [pytest.param(source(cell), id=cell["id"]) for cell in CELLS if cell["cell_type"] == "code"]


def test_is_a_notebook_of_format_4() -> None:
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert set(NOTEBOOK) == {"cells", "metadata", "nbformat", "nbformat_minor"}
    assert NOTEBOOK["metadata"]["kernelspec"]["name"] == "python3"
    for cell in CELLS:
        code = {"execution_count", "outputs"} if cell["cell_type"] == "code" else set()
        assert set(cell) == {"cell_type", "id", "metadata", "source"} | code
        assert cell["cell_type"] in {"code", "markdown"}
        assert isinstance(cell["source"], list) and all(isinstance(line, str) for line in cell["source"])
        assert all(line.endswith("\n") for line in cell["source"][:-1])
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", cell["id"])
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)


def test_is_kept_without_outputs() -> None:
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.parametrize("text", CODE)
def test_cell_compiles(text: str) -> None:
    compile(python_part(text), "cell", "exec")


def test_every_command_parses() -> None:
    found = [command for cell in CELLS for line in shell_lines(source(cell)) for command in commands(line)]
    for command in found:
        check_command(command)
    assert [command.split()[0] for command in found] == ["doctor", "clone", "inspect"]


def test_tiny_switch_changes_time_and_size() -> None:
    """The settings cell, once with the switch on and once with it off."""
    settings = next(source(cell) for cell in CELLS if cell["id"] == "settings")
    assert "TINY = True " in settings
    on: dict[str, Any] = {}
    off: dict[str, Any] = {}
    exec(settings, on)
    exec(settings.replace("TINY = True", "TINY = False"), off)
    assert on["MINUTES"] < off["MINUTES"]
    for values in (on, off):
        check_command(
            f"clone --source a --target b --output c --minutes {values['MINUTES']} --preset {values['PRESET']}"
        )


def test_variables_of_shell_lines_are_set_before() -> None:
    known: set[str] = set()
    for cell in CELLS:
        if cell["cell_type"] != "code":
            continue
        for line in source(cell).splitlines():
            if line.startswith("!"):
                assert set(re.findall(r"\{(\w+)\}", line)) <= known, line
        known |= set(re.findall(r"\b([A-Z]+)\b(?=[^=\n]*=)", source(cell)))
