"""Erasing that is killed at any moment and begun again leaves nothing of the person."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lib_vitface.provenance import audit, consent
from lib_vitface.tasks import erasure

if TYPE_CHECKING:
    from small_clone import SmallClone


class Killed(BaseException):
    """As sudden as a kill: nothing in the code catches it."""


@pytest.mark.parametrize("noted", [True, False])
def test_killed_before_any_deletion_and_begun_again(
    clone_files: SmallClone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted: bool
) -> None:
    record = consent.load_record(clone_files.model / consent.FILE)
    real = {name: getattr(os, name) for name in ("unlink", "rmdir")}
    left, counts = 0, [0]

    def counted(name: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            counts[0] += 1
            if counts[0] == left:
                raise Killed
            return real[name](*given, **named)

        return call

    for at in range(0, 400):
        workspace, counts[0], left = tmp_path / f"w{at}", 0, 0
        shutil.copytree(clone_files.workspace / "keys", workspace / "keys")
        faces = workspace / "facesets" / "me"
        shutil.copytree(clone_files.source, faces)
        consent.save_record(record, faces / consent.FILE)
        if noted:
            audit.note(workspace, "faceset used", record=record.id, folder=str(faces))
        left = at
        counts[0] = 0
        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(os, name, counted(name))
            try:
                erasure.erase(record.id, workspace)
                done = at > 0
            except Killed:
                done = False
            left = 0
        erasure.erase(record.id, workspace)
        assert not [p for p in faces.rglob("*") if p.is_file()], f"killed at deletion {at}"
        if done:
            break
    assert at > 10
