"""`export` and a swap from what it wrote, in a process that can import neither torch nor transformers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lib_vitface import media
from lib_vitface.cli import main
from lib_vitface.provenance import consent
from lib_vitface.provenance.keys import open_keys

if TYPE_CHECKING:
    from small_clone import SmallClone

ROOT = Path(__file__).resolve().parents[2]
_NEEDED = [name for name in ("onnx", "onnxscript", "onnxruntime") if util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(_NEEDED), reason=f"exporting needs {', '.join(_NEEDED)}")
WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers"}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
from lib_vitface.cli import main
code = main(sys.argv[1:])
assert not {"torch", "transformers"} & set(sys.modules)
sys.exit(code)
"""


def swap_without_torch(workspace: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    given = ["swap", *map(str, arguments), "--json", "--quiet", "--workspace", str(workspace)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COV")} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", WITHOUT, *given], capture_output=True, text=True, env=environment)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(clone_files: SmallClone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if _NEEDED:
        pytest.skip(f"exporting needs {', '.join(_NEEDED)}")
    made = tmp_path_factory.mktemp("exported") / "made"
    code = main(
        ["export", "--model", str(clone_files.model), "--output", str(made), "--workspace", str(clone_files.workspace)]
    )
    assert code == 0
    return made


def test_swaps_with_neither_torch_nor_transformers(clone_files: SmallClone, folder: Path, tmp_path: Path) -> None:
    """The same video as with torch, to a few grey levels where bfloat16 is used, and marked and bound to the record alike."""
    plain, light = tmp_path / "plain.mp4", tmp_path / "light.mp4"
    common = ("--input", clone_files.clip, "--end-s", "0.3", "--quality", "4")
    values = map(str, ("swap", "--model", clone_files.model, "--output", plain, *common))
    assert main([*values, "--quiet", "--workspace", str(clone_files.workspace)]) == 0
    code, result = swap_without_torch(clone_files.workspace, "--model", folder, "--output", light, *common)
    assert code == 0, result
    pairs = list(zip(media.read_frames(plain), media.read_frames(light), strict=True))
    assert len(pairs) == result["frames"] and result["swapped_frames"] == len(pairs)
    for a, b in pairs:
        gap = np.abs(a.image.astype(int) - b.image)
        assert gap.mean() < 0.3 and np.quantile(gap, 0.999) < 6
    original = next(iter(media.read_frames(clone_files.clip))).image
    assert np.abs(pairs[0][1].image.astype(int) - original).max() > 40, "a face was put in"
    assert main(["inspect", "--input", str(light), "--workspace", str(clone_files.workspace)]) == 0


def test_the_mark_names_the_record(
    clone_files: SmallClone, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import small_clone

    frame, result = tmp_path / "in.png", tmp_path / "out.png"
    media.write_image(frame, next(iter(media.read_frames(clone_files.clip))).image)
    code, told = swap_without_torch(clone_files.workspace, "--model", folder, "--input", frame, "--output", result)
    assert code == 0 and told["consent"] == json.loads((folder / "consent.json").read_text())["id"]
    code, seen, _ = small_clone.run(capsys, clone_files.workspace, "inspect", "--input", result)
    assert code == 0 and told["consent"] in json.dumps(seen)


def test_consent_is_asked_for_as_before(clone_files: SmallClone, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "consent.json").unlink()
    inputs = ("--input", clone_files.clip, "--output", tmp_path / "o.mp4")
    code, told = swap_without_torch(clone_files.workspace, "--model", copy, *inputs)
    assert code == 4, told
    workspace = tmp_path / "ws"
    shutil.copytree(clone_files.workspace, workspace)
    # The command `consent --action revoke` would also delete the model that other tests use.
    consent.revoke(consent.load_record(folder / consent.FILE), open_keys(workspace), workspace)
    code, told = swap_without_torch(workspace, "--model", folder, *inputs)
    assert code == 4, told
    again = [
        "export",
        "--model",
        str(clone_files.model),
        "--output",
        str(tmp_path / "e"),
        "--workspace",
        str(workspace),
    ]
    assert main(again) == 4 and not (tmp_path / "e").exists()


def test_torch_is_asked_for_clearly(clone_files: SmallClone, tmp_path: Path) -> None:
    """A model that was not exported does need torch; that is an error of the kind "package missing"."""
    inputs = ("--input", clone_files.clip, "--output", tmp_path / "o.mp4")
    code, told = swap_without_torch(clone_files.workspace, "--model", clone_files.model, *inputs)
    assert code == 5 and "torch" in told["error"]["message"] and "export" in told["error"]["message"]


def test_nothing_is_overwritten(clone_files: SmallClone, folder: Path, tmp_path: Path) -> None:
    values = ["export", "--model", str(clone_files.model), "--workspace", str(clone_files.workspace), "--output"]
    before = sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir())
    assert main([*values, str(folder)]) == 2
    assert main([*values, str(clone_files.model), "--overwrite"]) == 2, "a trained model is no exported one"
    (tmp_path / "other").mkdir()
    assert main([*values, str(tmp_path / "other"), "--overwrite"]) == 2
    assert sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir()) == before
    exported = ["export", "--model", str(folder), "--workspace", str(clone_files.workspace), "--output"]
    assert main([*exported, str(tmp_path / "twice")]) == 7
