"""The Colab notebook: its format, its Python, its command lines, and all of it run from top to bottom with the tiny setting."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from test_docs import check_command, commands

if TYPE_CHECKING:
    from small_clone import SmallClone

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


# Every code cell as it stands, by IPython, as Colab does it; between two of them only values are set: shorter clips, less time.
_RUN = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
values = json.loads(sys.argv[2])
for cell in json.load(open(sys.argv[1], encoding="utf-8"))["cells"]:
    if cell["cell_type"] != "code":
        continue
    print("cell", cell["id"], flush=True)
    if not shell.run_cell("".join(cell["source"])).success:
        sys.exit("failed: " + cell["id"])
    if shell.user_ns.get("_exit_code"):
        sys.exit("its command failed: " + cell["id"])
    shell.user_ns.update(values.get(cell["id"], {}))
print(json.dumps({name: str(shell.user_ns[name]) for name in ("OUTPUT", "REPORT", "ROOT")}))
"""


@pytest.mark.slow
def test_runs_from_top_to_bottom(clone_files: SmallClone, tmp_path: Path) -> None:
    """In a checkout of its own. Nothing is replaced but the values of `MINUTES` and of the two clips, which are a second long."""
    pytest.importorskip("IPython", reason="IPython is not installed (requirements-dev.txt)")
    here = tmp_path / "check out"
    ignored = shutil.ignore_patterns("__pycache__", ".git", ".venv*", "cache", "workspace", "tmp", "tests", "docs")
    shutil.copytree(FILE.parent.parent, here, ignore=ignored)
    clips = {"SOURCE": str(clone_files.person), "TARGET": str(clone_files.clip)}
    values = json.dumps({"settings": {"MINUTES": 0.05}, "clips": clips})
    cache = os.environ.get("VITFACE_CACHE") or str(FILE.parent.parent / "models" / "cache")
    own = str(FILE.parent.parent)
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and not path.startswith(own)]
    environment = {k: v for k, v in os.environ.items() if k not in {"VITFACE_CHILD", "VITFACE_WORKSPACE"}}
    environment["PYTHONPATH"] = os.pathsep.join(paths)  # this very checkout is not to be found through it
    environment |= {"VITFACE_CACHE": cache, "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(tmp_path / "ipython")}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(here / "notebooks" / FILE.name), values],
        cwd=here / "notebooks", env=environment, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    cells = re.findall(r"^cell (\S+)$", done.stdout, re.MULTILINE)
    assert cells == [cell["id"] for cell in CELLS if cell["cell_type"] == "code"]
    made = json.loads(done.stdout.splitlines()[-1])
    assert Path(made["ROOT"]) == here and Path(made["OUTPUT"]).parent == here / "colab_output"
    assert Path(made["OUTPUT"]).stat().st_size > 10_000 and "</html>" in Path(made["REPORT"]).read_text(
        encoding="utf-8"
    )
    assert re.search(r"synthetic: yes", done.stdout), "the last command finds the mark"
