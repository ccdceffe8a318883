"""The command line: every task of `tasks.TASKS`, its options as flags.

Results go to stdout (with `--json` as one JSON object), progress to stderr. Exit codes are those of `errors` (docs/conventions.md).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from lib_vitface import __version__, options
from lib_vitface.errors import Cancelled, InputError, ViTFaceError
from lib_vitface.tasks import TASKS

if TYPE_CHECKING:
    from rich.progress import Progress

EXIT_CODES = (
    "exit codes: 0 done, 1 error of the program, 2 unusable input or option, 3 no usable face, 4 consent, 5 package or weights "
    "missing, 6 output cannot be written, 7 model or faceset damaged or of another kind, 130 stopped"
)

_STDOUT = "-"


class _Parser(argparse.ArgumentParser):
    """Raises `InputError` where argparse would leave the program, so that `--json` is answered with JSON then too."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` lists what can be given.")


def make_parser() -> argparse.ArgumentParser:
    """All tasks and their flags. Parsing raises `InputError` for flags that are missing or unknown."""
    parser = _Parser(
        prog="vitface",
        description="A digital clone of your own face, in video, always marked as synthetic.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=__version__)
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    for task in TASKS.values():
        doc = f"{task.summary} {(task.options.__doc__ or '').strip()}".replace("%", "%%")
        sub = tasks.add_parser(task.name, help=task.summary, description=doc, epilog=EXIT_CODES)
        options.add_arguments(sub, task.options)
        common = sub.add_argument_group("All tasks")
        if "json" in {item.name for item in options.declared(task.options)}:
            # one flag with two uses: with a file it is the task's own option, alone it asks for JSON on stdout
            flag = sub._option_string_actions["--json"]
            flag.nargs, flag.const = "?", _STDOUT
            sub.set_defaults(_json=False)
        else:
            common.add_argument(
                "--json", dest="_json", action="store_true", help="Print the result as one JSON object on stdout."
            )
        common.add_argument("--quiet", dest="_quiet", action="store_true", help="No progress on stderr.")
        common.add_argument(
            "--workspace", dest="_workspace", type=Path, default=default_workspace(), metavar="DIR",
            help="Folder of jobs, keys and records. Default: VITFACE_WORKSPACE, else a folder beside the program.",
        )  # fmt: skip
    return parser


def default_workspace() -> Path:
    """`VITFACE_WORKSPACE`, else `workspace` beside the program, else `~/vitface` where that cannot be written."""
    named = os.environ.get("VITFACE_WORKSPACE")
    if named:
        return Path(named).expanduser()
    beside = Path(__file__).resolve().parent.parent
    return beside / "workspace" if os.access(beside, os.W_OK) else Path.home() / "vitface"


def wants_own_process(arguments: Sequence[str]) -> bool:
    """Whether a heavy task is asked for (and not just its help)."""
    name = next((a for a in arguments if not a.startswith("-")), "")
    return name in TASKS and TASKS[name].heavy and not {"-h", "--help"} & set(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run one task; returns the exit code."""
    try:
        given = make_parser().parse_args(arguments)
    except InputError as error:
        return _fail(str(error), "InputError", error.exit_code, _wants_json(arguments))
    values = {k: v for k, v in vars(given).items() if not k.startswith("_") and k != "task"}
    if values.get("json") == _STDOUT:
        given._json = True
        del values["json"]
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    progress = _Progress(quiet=given._quiet)
    try:
        task = TASKS[given.task]
        ready: Any = options.build(task.options, values)
        from lib_vitface.types import Host

        with progress:
            result = task.run(ready, Host(given._workspace, getattr(ready, "device", "auto"), progress.tick))
    except ViTFaceError as error:
        return _fail(str(error), type(error).__name__, error.exit_code, given._json)
    except KeyboardInterrupt:
        return _fail("Stopped.", "Cancelled", Cancelled.exit_code, given._json)
    if given._json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        _tell(result)
    return int(result.get("exit_code", 0))


def _wants_json(arguments: Sequence[str]) -> bool:
    """Before they are parsed: whether `--json` is among the arguments, without a file behind it."""
    at = list(arguments).index("--json") if "--json" in arguments else -1
    return at >= 0 and all(after.startswith("-") for after in arguments[at + 1 : at + 2])


def _fail(message: str, kind: str, code: int, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": {"kind": kind, "message": message, "exit_code": code}}, ensure_ascii=False))
    print(f"vitface: {message}", file=sys.stderr)
    return code


def _tell(result: dict[str, Any], indent: str = "") -> None:
    """A result as lines of text."""
    for name, value in result.items():
        label = f"{indent}{name.replace('_', ' ')}:"
        if isinstance(value, dict):
            print(label)
            _tell(value, indent + "  ")
        elif isinstance(value, (list, tuple)) and any(isinstance(v, dict) for v in value):
            print(label)
            for item in value:
                if any(isinstance(v, dict) for v in item.values()):
                    print(f"{indent}  -")
                    _tell(item, indent + "    ")
                    continue
                print(f"{indent}  - " + ", ".join(f"{k} {_text(v)}" for k, v in item.items() if v not in (None, "")))
        elif isinstance(value, list) and value and isinstance(value[0], list):
            print(label, f"{len(value)} x {len(value[0])} numbers (see --json)")
        elif isinstance(value, (list, tuple)):
            print(label, "; ".join(map(_text, value)) or "none")
        else:
            print(label, _text(value))


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class _Progress:
    """Progress on stderr: a bar with the time left on a terminal, now and then a line elsewhere. Ctrl-C and SIGTERM stop softly."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.stopped = False
        self.bar: Progress | None = None
        self.began = self.told = time.monotonic()
        self.before: dict[int, Any] = {}

    def __enter__(self) -> _Progress:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._stop)
        except ValueError:  # not the main thread: the caller handles signals
            pass
        if not self.quiet and sys.stderr.isatty() and util.find_spec("rich"):
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.bar.start()
            self.bar.add_task("starting", total=1.0)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True

    def tick(self, done: float, total: float, note: str = "") -> None:
        """As `types.Tick`."""
        if self.stopped:
            raise Cancelled("Stopped; what was finished is kept, the same command goes on from there.")
        share = done / total if total else 0.0
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=share, description=note)
        elif not self.quiet and time.monotonic() - self.told > 10:
            self.told = time.monotonic()
            spent = self.told - self.began
            left = f", about {spent / share - spent:.0f} s left" if share > 0.02 else ""
            print(f"{share:4.0%} {note}{left}", file=sys.stderr, flush=True)
