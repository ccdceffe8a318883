"""The documentation against the code: every option with its default and range, commands that parse, links that lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest

from lib_vitface import __version__, options
from lib_vitface.cli import make_parser
from lib_vitface.errors import ViTFaceError
from lib_vitface.hosts import standalone
from lib_vitface.options import Declared, declared, range_text
from lib_vitface.tasks import TASKS

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "README.ja.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(DOCS.glob("*.md")),
]
COMMON = {"--json", "--quiet", "--workspace", "--help"}
NOT_TASKS = {"test", "lint"}  # what `start.py` runs besides tasks
_FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_COMMAND = re.compile(r"(?:start\.py|-m lib_vitface)(?: |$)(.*)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_NAMES = {path: path.relative_to(ROOT).as_posix() for path in PAGES}


def commands(text: str) -> list[str]:
    """What follows `start.py` or `-m lib_vitface` in each line of a text, long lines that end in a backslash joined."""
    lines = text.replace("\\\n", " ").splitlines()
    return [found.group(1).strip() for line in lines if (found := _COMMAND.search(line))]


def check_command(text: str) -> None:
    """Raises what the command line would: `SystemExit` for flags and tasks it does not know, `InputError` for values."""
    arguments = shlex.split(text, comments=True)
    if not arguments or arguments[0] in NOT_TASKS:
        return
    if arguments[0] == "ui":
        standalone.make_parser().parse_args(arguments[1:])
        return
    given = vars(make_parser().parse_args(arguments))
    values = {k: v for k, v in given.items() if not k.startswith("_") and k != "task"}
    if values.get("json") == "-":
        del values["json"]
    options.build(TASKS[given["task"]].options, values)


def row(page: str, flag: str) -> list[str]:
    """The cells of the table row that begins with a flag."""
    found = [line for line in page.splitlines() if line.startswith(f"| `{flag}` |")]
    assert len(found) == 1, f"{flag} has {len(found)} rows"
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", found[0])[1:-1]]


def shown_default(item: Declared) -> str | None:
    """As the tables write it; None where it is told in words."""
    if item.required:
        return "required"
    if item.type is bool:
        return "yes" if item.default else "no"
    if item.default in (None, "", []):
        return "–"
    text = ", ".join(map(str, item.default)) if item.many else str(item.default)
    return text if len(text) < 40 else None


def test_every_task_has_its_page() -> None:
    assert [name for name in TASKS if not (DOCS / f"{name}.md").is_file()] == []
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in TASKS if f"(docs/{name}.md)" not in readme] == []


@pytest.mark.parametrize("task", TASKS)
def test_page_lists_every_option_with_default_and_range(task: str) -> None:
    page = (DOCS / f"{task}.md").read_text(encoding="utf-8")
    for item in declared(TASKS[task].options):
        _, default, allowed, help_text = row(page, item.flag)
        expected = shown_default(item)
        assert expected is None or default == expected, item.flag
        assert range_text(item.spec) in allowed, item.flag
        assert allowed.split(", ") == list(map(str, item.spec.choices)) or not item.spec.choices, item.flag
        assert help_text, item.flag


@pytest.mark.parametrize("task", TASKS)
def test_page_mentions_no_option_that_is_not_there(task: str) -> None:
    page = (DOCS / f"{task}.md").read_text(encoding="utf-8")
    flags = {item.flag for item in declared(TASKS[task].options)}
    switches = {f"--no-{item.name.replace('_', '-')}" for item in declared(TASKS[task].options) if item.type is bool}
    assert set(_FLAG.findall(_FENCE.sub("", page))) - flags - switches - COMMON == set()


@pytest.mark.parametrize("path", PAGES, ids=_NAMES.get)
def test_commands_parse(path: Path) -> None:
    for block in _FENCE.findall(path.read_text(encoding="utf-8")):
        for command in commands(block):
            try:
                check_command(command)
            except (SystemExit, ViTFaceError) as error:
                pytest.fail(f"{command}: {error}")


@pytest.mark.parametrize("path", PAGES, ids=_NAMES.get)
def test_links_lead_somewhere(path: Path) -> None:
    for link in _LINK.findall(path.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        name, _, part = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        if part:
            assert part in anchors(target.read_text(encoding="utf-8")), link


def anchors(text: str) -> set[str]:
    """Names of a page's headings as links to them are written."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_both_readmes_have_the_same_content() -> None:
    """Word by word only a reader can tell; commands, links, flags, and the number of points of each section are compared."""
    one, other = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ja.md"))
    assert _FENCE.findall(one) == _FENCE.findall(other)
    sections = [re.split(r"^## .+$", text, flags=re.MULTILINE)[1:] for text in (one, other)]
    assert len(sections[0]) == len(sections[1])
    for english, japanese in zip(*sections, strict=True):
        where = english.strip()[:60]
        links = [sorted(k for k in _LINK.findall(text) if not k.startswith("#")) for text in (english, japanese)]
        assert links[0] == links[1], where
        assert sorted(set(_FLAG.findall(english))) == sorted(set(_FLAG.findall(japanese))), where
        points = [len(re.findall(r"^(?:- |\d\. |\| )", text, re.MULTILINE)) for text in (english, japanese)]
        assert points[0] == points[1], where


def test_changelog_tells_of_this_version() -> None:
    assert f"## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "wrong", ["swap --model m --input a.mp4 --output b.mp4 --colour rct", "dance", "demo --minutes 1"]
)
def test_wrong_commands_are_found(wrong: str) -> None:
    with pytest.raises((SystemExit, ViTFaceError)):
        check_command(wrong)


def messages() -> list[str]:
    """Every text in the code, with `…` where a value is put in."""
    found = []
    for path in (ROOT / "lib_vitface").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_quoted_messages_are_given() -> None:
    said = messages()
    quoted = re.findall("“([^”]+)” \\|", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"))
    assert len(quoted) > 30
    assert [text for text in quoted if not any(text in one for one in said)] == []


def test_files_named_beside_other_tools_are_there() -> None:
    """The column of ViTFace in the table of peers."""
    rows = [
        line.split("|")
        for line in (DOCS / "peers.md").read_text(encoding="utf-8").split("\n## ")[0].splitlines()
        if line.startswith("| ")
    ]
    assert len(rows) > 30 and all(len(row) == 11 for row in rows)
    for row in rows[1:]:
        for name in re.findall(r"`([^`]+)`", row[2]):
            assert (ROOT / "lib_vitface" / name).exists() or (ROOT / name).exists(), name
