"""Every long job killed with `kill -9` at random moments and started again: the same files as undisturbed, and nothing left over.

    python benchmarks/kill_rounds.py --rounds 50 --folder DIR [--seed 0] [--only swap train] [--kinds kill full clock]

The tiny network of the tests and two short clips. Each job first runs twice undisturbed, at the same place: what differs between
those two (times, what is measured by the clock) is not compared later. What is known of a job is kept in the folder for another start
of this script: after a change of the program begin with an empty one. Every round takes the next job, kills it one to three times,
at a random moment of its processor time or just before a random one of the changes it makes to files (counted by Python's audit
hooks), looks whether what lies under its final name is whole, lets the same command run to its end, and checks the audit log. Of the
other kinds of rounds `full` has the disk full from such a change on until the command ends, which must say so and be able to go on
later; in `clock` the time jumps by up to a week, both ways, whenever it is asked for. A command that was killed when all was done may
say that its output is there already. Kinds may be named more than once. One JSON object comes out; the exit code is 1 where a round
went wrong. Linux only.
"""

from __future__ import annotations

import argparse
import datetime
import errno
import hashlib
import importlib
import json
import math
import os
import random
import re
import shutil
import signal
import sqlite3
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
import small_clone  # noqa: E402
from conftest import write_video  # noqa: E402
from small_clone import TRAINING, SmallClone  # noqa: E402

from lib_vitface import media  # noqa: E402
from lib_vitface.cli import main as run_here  # noqa: E402
from lib_vitface.errors import InputError, OutputError  # noqa: E402
from lib_vitface.models import config as model_config  # noqa: E402
from lib_vitface.provenance import audit, consent  # noqa: E402
from lib_vitface.tasks import TASKS  # noqa: E402

LIMIT_S = 3600.0
FULL = OutputError.exit_code
BUILT = "workspace/facesets/me"  # where in a run's folder a faceset under the record lies
KNOWN = "known.json"  # what is known of each job's undisturbed runs
DONE = "made"  # an empty file beside the material once it is whole
_KEPT = ("jobs.sqlite3", "audit.sqlite3", "-wal", "-shm")  # of the workspace; everything else of it is compared
_NAMES = "workspace/keys/"  # here the names are
# In JSON, what is measured of time and memory; small figures may be the same twice by chance.
_MEASURED = re.compile(r"\.(seconds|wait|s|peak_memory_mb|network_s|frames_per_s|wall_over_network)(\.|$)")
_STEP = re.compile(r"-\d{8}(?=\.safetensors)")  # at which a part of a model was written, which the clock decides


class Running:
    """A command in a process of its own, forked from this one, which has imported everything already but done nothing."""

    def __init__(self, words: list[str], place: Path, kind: str, at: int = 0, count: Path | None = None) -> None:
        self.said = place.parent / "said.txt"
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                code = _command(words, place, self.said, kind, at, count)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        self.code: int | None = None
        self.worked_s = 0.0

    def wait(self, seconds: float = LIMIT_S, worked_s: float = math.inf) -> bool:
        """Whether it has ended within so many seconds by the clock and of processor time; then `code` is its exit code, or less than 0
        for a signal, and `worked_s` its processor time."""
        until = time.monotonic() + seconds
        while self.code is None:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.code, self.worked_s = os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime
            elif time.monotonic() > until or _worked_s(self.pid) > worked_s:
                return False
            else:
                time.sleep(0.03)
        return True

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def end(self) -> int:
        if not self.wait():
            self.kill()
            return 1
        assert self.code is not None
        return self.code

    def says_done(self) -> bool:
        """Refused because the output is there; whether that is whole is looked at otherwise."""
        return self.code == InputError.exit_code and "is there already" in self.words()

    def words(self) -> str:
        return self.said.read_text(errors="replace").strip()[-500:]


def _worked_s(pid: int) -> float:
    """Processor time of a running child."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _command(words: list[str], place: Path, said: Path, kind: str, at: int, count: Path | None) -> int:
    """In the child: the command line, its words into a file. Before change `at` of a file below `place` the process is killed
    (`kill`), or the disk is full from then on (`full`)."""
    os.setsid()
    handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(handle, number)
    seen = 0

    def changes(event: str, given: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "open":
            if not (isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return
        elif event not in {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "sqlite3.connect", "shutil.rmtree"}:
            return
        if isinstance(given[0], (str, bytes)) and os.fsdecode(given[0]).startswith(str(place)):
            seen += 1
            if kind == "kill" and seen == at:
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "full" and seen >= at and event in {"open", "os.mkdir"}:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sys.addaudithook(changes)
    if kind == "clock":
        real, draw = time.time, random.Random(at)
        time.time = lambda: real() + draw.uniform(-7, 7) * 24 * 3600
        audit.datetime = _calendar(time.time)  # type: ignore[assignment]
        consent.datetime = _calendar(real)  # type: ignore[assignment]  # a record's day is part of its id, which is compared
    code = run_here(words)
    if count is not None:
        count.write_text(str(seen))
    return code


def _calendar(clock: Callable[[], float]) -> SimpleNamespace:
    """What the program uses of the module `datetime`, by a clock in Unix seconds."""

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Clock:
            return cls.fromtimestamp(clock(), tz)

    class Calendar(datetime.date):
        @classmethod
        def today(cls) -> Calendar:
            return cls.fromtimestamp(clock())

    return SimpleNamespace(datetime=Clock, date=Calendar, timezone=datetime.timezone)


@dataclass
class Job:
    """A command, what must be there before it, and what is known of its undisturbed runs."""

    name: str
    command: Callable[[SmallClone, Path], tuple[object, ...]]
    before: tuple[tuple[str, str], ...] = ()  # what is copied (from the made folder) into the run's folder first
    clocked: tuple[str, ...] = ()  # begins of names of what is made when so much time has passed
    timed: tuple[str, ...] = ()  # begins of names of files whose contents depend on how far a training came in its time
    seconds: float = 0.0
    changes: int = 0
    truth: dict[str, str] = field(default_factory=dict)
    varying: set[str] = field(default_factory=set)


def jobs() -> list[Job]:
    """All tasks that write; `demo` is `clone` on other clips, `doctor` and `inspect` write nothing."""
    few = ("--min-change", 0, "--size", 128)

    def faceset(made: SmallClone, run: Path) -> tuple[object, ...]:
        return ("faceset", "--input", made.person, "--output", run / "set", "--consent", made.folder / "me.json", *few)

    def train(made: SmallClone, run: Path) -> tuple[object, ...]:
        people = ("--source", made.source, "--target", made.target, "--model", run / "model")
        return ("train", *people, "--steps", 12, *TRAINING, "--save-minutes", 0.01, "--seed", 7)

    def pretrain(made: SmallClone, run: Path) -> tuple[object, ...]:
        ready = ("--batch", 2, "--views", 2, "--size", 128, "--device", "cpu", "--precision", "float32", "--seed", 7)
        return (
            "pretrain",
            "--input",
            made.folder / "tree",
            "--output",
            run / "base",
            *ready,
            "--steps",
            4,
            "--licence",
            "x",
        )

    def swap(made: SmallClone, run: Path) -> tuple[object, ...]:
        files = ("--model", made.model, "--input", made.clip, "--output", run / "out.mp4")
        return ("swap", *files, "--chunk-frames", 8, "--device", "cpu")

    def swap_beside(made: SmallClone, run: Path) -> tuple[object, ...]:
        files = ("--model", made.model, "--input", made.clip, "--output", run / "out.mkv")
        return ("swap", *files, "--chunk-frames", 8, "--device", "cpu", "--end-s", 0.4)

    def pictures(made: SmallClone, run: Path) -> tuple[object, ...]:
        return (
            "swap",
            "--model",
            made.model,
            "--input",
            made.folder / "tree",
            "--output",
            run / "out",
            "--device",
            "cpu",
        )

    def clone(made: SmallClone, run: Path) -> tuple[object, ...]:
        clips = ("--source", made.person, "--target", made.short, "--output", run / "out.mp4", "--work", run / "work")
        return ("clone", *clips, "--consent", made.folder / "me.json", "--steps", 2, "--device", "cpu")

    def export(made: SmallClone, run: Path) -> tuple[object, ...]:
        return ("export", "--model", made.model, "--output", run / "exported")

    def evaluate(made: SmallClone, run: Path) -> tuple[object, ...]:
        files = ("--source", made.source, "--target", made.short, "--result", made.short)
        return ("evaluate", *files, "--json", run / "f.json", "--report", run / "r.html", "--every", 4, "--pictures", 1)

    def benchmark(made: SmallClone, run: Path) -> tuple[object, ...]:
        clips = ("--source", made.person, "--target", made.short, "--output", run / "out")
        return (
            "benchmark",
            *clips,
            "--models",
            "cpu",
            "--minutes",
            0.05,
            "--resolution",
            64,
            "--seen",
            0.5,
            "--device",
            "cpu",
        )

    def write(made: SmallClone, run: Path) -> tuple[object, ...]:
        return (
            "consent",
            "--action",
            "write",
            "--adult",
            "--record",
            run / "record.json",
            "--who",
            "A",
            "--source",
            made.person,
        )

    def revoke(made: SmallClone, run: Path) -> tuple[object, ...]:
        return ("consent", "--action", "revoke", "--record", made.folder / "me.json")

    built = ("with consent", BUILT)
    index = (f"model.json#0.{name}" for name in ("files", "digests.best", "notes"))
    by_the_clock = tuple(f"model/{name}" for name in ("held_out", "best", *index))
    return [
        Job("revoke", revoke, (built,)), Job("swap", swap), Job("export", export), Job("clone", clone), Job("consent", write),
        Job("faceset", faceset), Job("evaluate", evaluate), Job("pretrain", pretrain), Job("swap to mkv", swap_beside),
        Job("pictures", pictures), Job("benchmark", benchmark, timed=("out/cpu", "out/benchmark")),
        Job("train", train, clocked=by_the_clock),
    ]  # fmt: skip


@dataclass(frozen=True)
class Material(SmallClone):
    short: Path = Path()


def make_material(folder: Path, run: Path) -> int:
    """Clips, facesets, model, record of consent, a tree of three people, a faceset under the record, which the log knows to lie in
    the folder of the runs: a revocation erases what the log names."""
    folder.mkdir(parents=True)
    made = small_clone.small_clone(folder, write_video)
    pictures = small_clone.images("sample_target", 8)
    write_video(folder / "short.mp4", pictures, 10, audio="aac", options={"crf": "14", "preset": "veryfast"})
    tree = {"id10001": small_clone.images("sample_source", 3, every=20), "anna": pictures[:2], "b": pictures[5:6]}
    for person, found in tree.items():
        (folder / "tree" / person).mkdir(parents=True)
        for k, image in enumerate(found):
            media.write_image(folder / "tree" / person / f"{k:05d}.png", image)
    quiet = ("--quiet", "--workspace", str(made.workspace))
    record = ("consent", "--action", "write", "--adult", "--who", "A", "--source", str(made.person))
    built = (
        "faceset",
        "--input",
        str(made.person),
        "--min-change",
        "0",
        "--size",
        "128",
        "--consent",
        str(folder / "me.json"),
    )
    place = run / BUILT
    shutil.rmtree(run, ignore_errors=True)
    for command in ([*record, "--record", str(folder / "me.json")], [*built, "--output", str(place)]):
        if run_here([*command, *quiet]):
            return 1
    shutil.move(place, folder / "with consent")
    return 0


def material(folder: Path, run: Path) -> Material:
    """What `make_material` made, by another process: this one must have no threads when it is forked."""
    if not (folder / DONE).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = make_material(folder, run)
            finally:
                os._exit(code)
        if os.waitpid(pid, 0)[1]:
            sys.exit("The material could not be made; see the message above.")
        (folder / DONE).touch()
    clips, made = (
        (folder / "person.mp4", folder / "clip.mp4"),
        (folder / n for n in ("source", "target", "model", "workspace")),
    )
    return Material(folder, *clips, *made, short=folder / "short.mp4")


class Place:
    """The folder of a run, always the same one, so that paths which are kept in files agree."""

    def __init__(self, folder: Path, made: Material) -> None:
        self.folder, self.made = folder, made

    def begin(self, job: Job) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("keys", "consent"):
            shutil.copytree(self.made.workspace / name, self.folder / "workspace" / name)
        shutil.copy(self.made.workspace / audit.FILE, self.folder / "workspace")
        for source, target in job.before:
            shutil.copytree(self.made.folder / source, self.folder / target)

    def start(self, job: Job, kind: str = "", at: int = 0, count: Path | None = None) -> Running:
        words = [*job.command(self.made, self.folder), "--workspace", self.folder / "workspace", "--quiet"]
        return Running(list(map(str, words)), self.folder, kind, at, count)

    def whole(self, job: Job) -> None:
        """Twice undisturbed; sets what the job knows of itself."""
        found = []
        for _ in range(2):
            self.begin(job)
            count = self.folder.parent / "count"
            done = self.start(job, count=count)
            if done.end():
                sys.exit(f"{job.name}: an undisturbed run failed: {done.words()}")
            job.seconds, job.changes = done.worked_s, int(count.read_text())
            found.append(snapshot(self.folder))
        job.truth = found[1]
        job.varying = {k for k in found[0].keys() | found[1].keys() if found[0].get(k) != found[1].get(k)}

    def know(self, job: Job) -> None:
        """As `whole`, where that was not done before."""
        path = self.folder.parent / KNOWN
        known = json.loads(path.read_text()) if path.exists() else {}
        if job.name in known:
            seconds, changes, job.truth, varying = known[job.name]
            job.seconds, job.changes, job.varying = seconds, changes, set(varying)
            return
        self.whole(job)
        known[job.name] = (job.seconds, job.changes, job.truth, sorted(job.varying))
        path.write_text(json.dumps(known))

    def round(self, job: Job, kind: str, draw: random.Random) -> dict[str, Any]:
        """One round; `wrong` says what was not as it must be."""
        self.begin(job)
        said: dict[str, Any] = {"job": job.name, "kind": kind, "moments": [], "wrong": []}
        for _ in range(draw.choice((1, 1, 2, 3)) if kind == "kill" else 1):
            process, moment = self.disturbed(job, kind, draw)
            said["moments"].append(f"{moment}, code {process.code}")
            if process.says_done():
                break
            if process.code not in {"kill": {0, -signal.SIGKILL}, "full": {0, FULL}, "clock": {0}}[kind]:
                said["wrong"].append(f"{moment}, code {process.code}: {process.words()}")
            said["wrong"] += broken(self.folder, job)
            if process.code == 0:
                break
        else:
            last = self.start(job)
            if last.end() and not last.says_done():
                said["wrong"].append(f"started again it ended with {last.code}: {last.words()}")
        if not said["wrong"]:
            said["wrong"] = differences(job, snapshot(self.folder))
            problem = audit.verify(self.folder / "workspace")["problem"]
            said["wrong"] += [problem] if problem else []
        return said

    def disturbed(self, job: Job, kind: str, draw: random.Random) -> tuple[Running, str]:
        """A run that was killed, found the disk full, or had a jumping clock; and when."""
        if kind == "kill" and draw.random() < 0.5:
            delay = draw.uniform(0.02, 1.0) * job.seconds
            process = self.start(job)
            if not process.wait(worked_s=delay):
                process.kill()
            return process, f"{delay:.2f} s of {job.seconds:.2f} s"
        at = draw.randint(1, job.changes)
        process = self.start(job, kind, at)
        process.end()
        return process, "all the time" if kind == "clock" else f"change {at} of {job.changes}"


def snapshot(folder: Path) -> dict[str, str]:
    """What a folder holds, by name: files by their content, JSON by its values, SQLite by its rows, video by its packets."""
    found: dict[str, str] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if not any(part in name for part in _KEPT):
            found[name] = "file"
            if name.startswith(_NAMES):
                continue
            for part, value in _parts(path):
                found[f"{name}#{part}"] = value
    return found


def _parts(path: Path) -> list[tuple[str, str]]:
    if path.suffix == ".json" or path.suffix == ".jsonl":
        lines = [path.read_text()] if path.suffix == ".json" else path.read_text().splitlines()
        return [(f"{n}{key}", value) for n, line in enumerate(lines) for key, value in _leaves(json.loads(line))]
    if path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as database:
            return [(str(n), line) for n, line in enumerate(database.iterdump())]
    if path.suffix == ".mp4":
        return [("packets", _digest(repr(small_clone.content(path)).encode()))]
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return [(key, _digest(value.tobytes())) for key, value in load_file(path).items()]
    return [("content", _digest(path.read_bytes()))]


def _leaves(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [leaf for key, one in value.items() for leaf in _leaves(one, f"{name}.{key}")]
    if isinstance(value, list):
        return [leaf for key, one in enumerate(value) for leaf in _leaves(one, f"{name}[{key}]")]
    return [(name, repr(value))]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def differences(job: Job, found: dict[str, str]) -> list[str]:
    """What is not as in the undisturbed run, a few of them."""
    truth, found = without_steps(job.truth), without_steps(found)
    keys = (truth.keys() | found.keys()) - job.varying - without_steps(dict.fromkeys(job.varying, "")).keys()
    keys = {k for k in keys if not k.startswith(job.clocked) and not _MEASURED.search(k)}
    keys = {k for k in keys if "#" not in k or not k.startswith(job.timed)}
    wrong = sorted(k for k in keys if truth.get(k) != found.get(k))
    what = {True: "is left over", False: "differs"}
    return [f"{k}: {what[k not in truth]}" if k in found else f"{k}: is missing" for k in wrong[:8]]


def without_steps(facts: dict[str, str]) -> dict[str, str]:
    """The same with parts of a model by their names alone. One that is there from two steps keeps its names: it is left over."""
    files = [name for name in facts if "#" not in name]
    plain = {name: _STEP.sub("", name) for name in files}
    seen = Counter(plain.values())
    names = {name: short for name, short in plain.items() if seen[short] == 1}

    def renamed(key: str) -> str:
        name, mark, part = key.partition("#")
        return names.get(name, name) + mark + part

    return {renamed(key): value for key, value in facts.items()}


def broken(folder: Path, job: Job) -> list[str]:
    """Files under their final name that are not whole right after a kill. What a job knows as its own unfinished work is none."""
    wrong = []
    names = {name for name, value in job.truth.items() if value == "file"}
    for path in (folder / name for name in sorted(names) if (folder / name).is_file()):
        try:
            if path.suffix in {".json"}:
                json.loads(path.read_text())
            elif path.suffix in {".mp4", ".mkv"}:
                assert math.isfinite(float(sum(f.time for f in media.read_frames(path))))
            elif path.suffix in {".png", ".jpg"}:
                assert cv2.imdecode(np.fromfile(path, np.uint8), 1) is not None
            elif path.suffix == ".html":
                assert path.read_text().rstrip().endswith("</html>")
            elif path.suffix == ".onnx":
                import onnx

                onnx.checker.check_model(str(path))
        except Exception as error:
            wrong.append(f"{path.relative_to(folder)}: not whole after a kill ({error})")
    return wrong


def _disturbed(rounds: list[dict[str, Any]], kind: str) -> int:
    """How often a run was cut short, or had such a clock."""
    moments = [moment for one in rounds if one["kind"] == kind for moment in one["moments"]]
    return sum(kind == "clock" or not moment.endswith("code 0") for moment in moments)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[""], help="Jobs with one of these in their name.")
    parser.add_argument("--kinds", nargs="+", default=["kill"], choices=("kill", "full", "clock"), help="In turns.")
    given = parser.parse_args()
    folder = given.folder.resolve()
    model_config.PRESETS["cpu"] = small_clone.TINY
    for module in {task.module for task in TASKS.values()} | {"torch", "transformers", "onnxruntime", "scipy.spatial"}:
        importlib.import_module(module)
    run = folder / "run"
    place, draw = Place(run, material(folder / "made", run)), random.Random(given.seed)
    known = [job for job in jobs() if any(name in job.name for name in given.only)]
    rounds: list[dict[str, Any]] = []
    for number in range(given.rounds):
        job = known[number % len(known)]
        if not job.truth:
            place.know(job)
            print(job.name, f"{job.seconds:.1f} s, {job.changes} changes of files,", len(job.truth), "facts, of which",
                  len(job.varying), "vary by themselves", file=sys.stderr, flush=True)  # fmt: skip
        kind = given.kinds[(number + number // len(known)) % len(given.kinds)]
        rounds.append(place.round(job, kind, draw))
        print(number + 1, json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    result = {
        "rounds": {kind: sum(one["kind"] == kind for one in rounds) for kind in given.kinds},
        "disturbed": {kind: _disturbed(rounds, kind) for kind in given.kinds},
        "wrong": [one for one in rounds if one["wrong"]],
        "jobs": {
            job.name: {
                "seconds": round(job.seconds, 1), "changes": job.changes, "compared": len(job.truth.keys() - job.varying),
                "not_compared": len(job.varying),
            } for job in known if job.truth
        },
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    return int(bool(result["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
