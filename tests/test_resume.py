"""Killed without warning at random moments, started again: the same result as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_clone import FRAMES, TRAINING, SmallClone, content

from lib_vitface import media
from lib_vitface.jobs import JobStore
from lib_vitface.models.checkpoint import open_model
from lib_vitface.provenance import consent
from lib_vitface.training.trainer import LOG

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX systems")]

TESTS = Path(__file__).resolve().parent
LIMIT_S = 240
# The command line with the tiny network in the place of preset cpu.
_CHILD = """
import sys
from lib_vitface.models import config as model_config
from small_clone import TINY
model_config.PRESETS["cpu"] = TINY
from lib_vitface.cli import main
sys.exit(main(sys.argv[1:]))
"""


def start(*arguments: object, before: str = "") -> subprocess.Popen[str]:
    """A command in a process of its own, after the line `before`. One thread: sums over several come in any order."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "VITFACE_CHILD": "1"}
    command = [sys.executable, "-c", f"{before}\n{_CHILD}", *map(str, arguments), "--json", "--quiet"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The result of a command that is let run to its end."""
    out, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, err
    return json.loads(out)


def killed(process: subprocess.Popen[str], when: Callable[[], bool], delay_s: float = 0.0) -> bool:
    """Kills a command `delay_s` after `when` holds; False where it was quicker."""
    began = time.monotonic()
    while process.poll() is None and not when():
        assert time.monotonic() - began < LIMIT_S
        time.sleep(0.002)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode in {0, -signal.SIGKILL}, err
    return process.returncode != 0


def chunks(workspace: Path) -> int:
    """How many parts of work are noted as finished."""
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"file:{workspace / 'jobs.sqlite3'}?mode=ro", uri=True)) as store,
    ):
        return int(store.execute("SELECT COUNT(*) FROM chunks").fetchone()[0])
    return 0


def fresh(made: SmallClone, folder: Path) -> SmallClone:
    """The same keys, so the same marks, and the log that goes with them, but no jobs yet."""
    for name in ("keys", "consent"):
        shutil.copytree(made.workspace / name, folder / "workspace" / name)
    shutil.copy(made.workspace / "audit.sqlite3", folder / "workspace")
    return replace(made, workspace=folder / "workspace")


def swap(made: SmallClone, output: Path) -> tuple[object, ...]:
    return (
        "swap", "--model", made.model, "--input", made.clip, "--output", output, "--chunk-frames", 8, "--device", "cpu",
        "--workspace", made.workspace,
    )  # fmt: skip


def test_swap_killed_and_resumed_writes_the_same_bytes(clone_files: SmallClone, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    made = fresh(clone_files, whole)
    finished(start(*swap(made, whole / "out.mp4")))
    made = fresh(clone_files, parts)
    output = parts / "out.mp4"
    command = swap(made, output)
    draw = random.Random(20)
    # once while faces are looked for, once while they are swapped, and once while the file is put together
    total = 2 * -(-FRAMES // 8) + 2
    moments: list[tuple[Callable[[], bool], float]] = [
        (lambda: chunks(made.workspace) >= draw_first, draw.uniform(0, 0.3)),
        (lambda: chunks(made.workspace) >= draw_second, draw.uniform(0, 0.2)),
        (lambda: any(parts.glob(".*.part")), 0.0),
    ]
    draw_first, draw_second = draw.randrange(1, total // 2), draw.randrange(total // 2 + 1, total - 1)
    kills = 0
    for when, delay_s in moments:
        kills += killed(start(*command), when, delay_s)
        assert not output.exists() or kills < 3, "nothing half-finished is ever seen under the name"
    jobs = JobStore(made.workspace).list("swap")
    assert kills >= 2 and len(jobs) == 1 and jobs[0].interrupted
    # and once between the rename and its note: the same command must find its own work, not say that it is there already
    process = start(
        *command, before="import lib_vitface.jobs as j, os; j.Claim.finish = lambda *a: os.kill(os.getpid(), 9)"
    )
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == -signal.SIGKILL
    assert content(output) == content(whole / "out.mp4")
    result = finished(start(*command))
    assert result["frames"] == FRAMES and result["resumed_chunks"] >= draw_second - 2
    assert content(output) == content(whole / "out.mp4")
    for one, other in zip(media.read_frames(output), media.read_frames(whole / "out.mp4"), strict=True):
        assert one.time == other.time and np.array_equal(one.image, other.image)
    assert JobStore(made.workspace).get(jobs[0].id).state == "done"
    assert not list(parts.glob(".*.part")), "what the kill left beside the output is gone"
    assert list((made.workspace / "jobs").iterdir()) == [], "the job's files are gone"


def train(made: SmallClone, model: Path, steps: int) -> tuple[object, ...]:
    return (
        "train", "--source", made.source, "--target", made.target, "--model", model, "--steps", steps, *TRAINING,
        "--save-minutes", 0.01, "--seed", 7, "--workspace", made.workspace,
    )  # fmt: skip


def steps_done(model: Path) -> int:
    with suppress(OSError):
        return (model / LOG).read_text().count("\n")
    return 0


def saved_step(model: Path) -> int:
    return open_model(model).step if (model / "model.json").exists() else 0


def test_training_killed_and_resumed_gives_the_same_weights(clone_files: SmallClone, tmp_path: Path) -> None:
    steps = 40
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finished(start(*train(fresh(clone_files, whole), whole / "m", steps)))
    made, model = fresh(clone_files, parts), parts / "m"
    command = train(made, model, steps)
    draw = random.Random(21)
    kills = 0
    # once before anything was saved, once while a save is written, once somewhere between two steps
    kills += killed(start(*command), lambda: steps_done(model) >= 1)
    begun = steps_done(model)
    kills += killed(start(*command), lambda: steps_done(model) > begun + 3 and any(model.glob(".*.tmp")))
    saved = saved_step(model)
    assert saved < steps
    written = steps_done(model)
    kills += killed(
        start(*command), lambda: saved_step(model) > saved or steps_done(model) > written + 20, draw.uniform(0, 0.5)
    )
    assert kills >= 2
    record = consent.load_record(model / consent.FILE)
    if (model / "model.json").exists():
        found = open_model(model)
        assert found.consent_id == record.id and found.tensors("weights") and found.tensors("state"), (
            "whole at every moment"
        )
    assert finished(start(*command))["step"] == steps
    ends = [open_model(folder / "m") for folder in (whole, parts)]
    assert [end.step for end in ends] == [steps, steps]
    for part in ("weights", "state", "memory_source", "memory_target"):
        one, other = (end.tensors(part) for end in ends)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[k].nan_to_num(-9), other[k].nan_to_num(-9)) for k in one), part
    assert not list(model.glob(".*.tmp")), "nothing half-written is left"
    assert {p.name for p in model.glob("*.safetensors")} == set(ends[1].files.values())
    assert {job.state for job in JobStore(made.workspace).list("train")} == {"done"}
