"""Every way a result can leave: the mark is decoded from what a person or a program receives, with a real model and the real door.

Videos, pictures, folders, contact sheets and clips by the command line are decoded in test_workflow; a real WebUI (its
img2img batch among them) in tests/webui.
"""

from __future__ import annotations

import base64
import io
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio", reason="gradio is not installed (requirements-ui.txt)")
pytest.importorskip("httpx", reason="httpx is not installed (requirements-dev.txt)")
sys.path.insert(0, str(Path(__file__).parent))
import fake_webui
import fastapi
from fastapi.testclient import TestClient
from PIL import Image as Pillow
from small_clone import TINY, TRAINING, SmallClone, images, run

from lib_vitface import media
from lib_vitface.hosts import api as routes
from lib_vitface.models import config as model_config
from lib_vitface.models.checkpoint import open_model
from lib_vitface.provenance.keys import known_mark_key
from lib_vitface.provenance.manifest import read_statement
from lib_vitface.provenance.reading import read
from lib_vitface.provenance.sealing import read_folder
from lib_vitface.ui.runner import Runner
from lib_vitface.ui.site import Site
from lib_vitface.ui.studio import Studio

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(clone_files: SmallClone, tmp_path_factory: pytest.TempPathFactory) -> Site:
    workspace = tmp_path_factory.mktemp("routes") / "workspace"
    (workspace / "keys").mkdir(parents=True)
    shutil.copy(clone_files.workspace / "keys" / "signing.key", workspace / "keys")
    shutil.copytree(clone_files.model, workspace / "models" / "me")
    return Site(workspace, workspace.parent / "outputs")


@pytest.fixture(scope="module")
def studio(site: Site) -> Studio:
    return Studio(site)


@pytest.fixture
def whose(site: Site) -> Callable[..., None]:
    """Asserts that pictures bear the genuine mark of the model's record."""
    record = open_model(site.models / "me").consent_id
    assert record is not None

    def check(*pictures: Any, search: bool = False) -> None:
        for one in pictures:
            image = np.ascontiguousarray(np.asarray(one.convert("RGB") if hasattr(one, "convert") else one))
            found = read([image], known_mark_key(site.workspace), search=search)
            assert (found.record_id, found.authentic) == (record[:8], True)

    return check


@pytest.fixture
def generated(site: Site, studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A picture of a generation, through the script's always-on half: the adapter, the processing object and the picture."""
    with fake_webui.installed(tmp_path) as host:
        monkeypatch.setattr(host.webui_site, "renewed_studio", lambda: studio)
        p = fake_webui.Processing(vitface={"model": "me"})
        before = Pillow.fromarray(images("sample_target", 1)[0])
        before.info["parameters"] = "Steps: 4"
        pp = types.SimpleNamespace(image=before)
        host.ViTFacePictures().postprocess_image_after_composite(p, pp)
        assert np.abs(np.asarray(pp.image, int) - np.asarray(before, int)).max() > 10, "it was swapped"
        yield types.SimpleNamespace(host=host, p=p, image=pp.image)


def test_gallery_script_and_api_of_the_webui(generated: Any, whose: Callable[..., None]) -> None:
    """txt2img and img2img, also by /sdapi: all are given the picture that the script returns."""
    whose(generated.image)
    assert "ConsentId" in generated.image.info["XML:com.adobe.xmp"]
    processed = fake_webui.Processed([generated.image], 0)
    generated.host.ViTFacePictures().postprocess(generated.p, processed)
    whose(processed.images[0])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_saved_file(generated: Any, whose: Callable[..., None], tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"00001{suffix}"
    params = types.SimpleNamespace(
        p=generated.p, image=generated.image, pnginfo={"parameters": "x"}, filename=str(path)
    )
    generated.host.webui_pictures.before_saved(params)
    from PIL.PngImagePlugin import PngInfo

    notes = PngInfo()
    for name, text in params.pnginfo.items():
        notes.add_itxt(name, text)
    params.image.save(path, quality=80, **({"pnginfo": notes} if suffix == ".png" else {}))
    generated.host.webui_pictures.after_saved(params)
    whose(media.read_image(path))
    said = read_statement(path)
    assert said is not None and said.is_synthetic


def test_grid(generated: Any, whose: Callable[..., None], tmp_path: Path) -> None:
    """Put together of marked pictures and made smaller by the WebUI."""
    width, height = generated.image.size
    grid = Pillow.new("RGB", (2 * width, 2 * height))
    for k in range(4):
        grid.paste(generated.image, (k % 2 * width, k // 2 * height))
    small = grid.resize((width, height))
    processed = fake_webui.Processed([small, generated.image], 1)
    generated.host.ViTFacePictures().postprocess(generated.p, processed)
    whose(processed.images[0])
    params = types.SimpleNamespace(p=generated.p, image=small, pnginfo={}, filename=str(tmp_path / "grid-0001.png"))
    generated.host.webui_pictures.before_saved(params)
    whose(params.image)


def test_own_api(site: Site, studio: Studio, whose: Callable[..., None], tmp_path: Path) -> None:
    app = fastapi.FastAPI()
    routes.mount(app, routes.Api(Runner(site), studio), ())
    buffer = io.BytesIO()
    Pillow.fromarray(images("sample_target", 1)[0]).save(buffer, "PNG")
    body = {"image": base64.b64encode(buffer.getvalue()).decode(), "options": {"model": "me"}}
    answer = TestClient(app).post("/vitface/v1/picture", json=body)
    assert answer.status_code == 200, answer.text
    (tmp_path / "x.png").write_bytes(base64.b64decode(answer.json()["image"]))
    whose(media.read_image(tmp_path / "x.png"))
    assert read_statement(tmp_path / "x.png").is_synthetic  # type: ignore[union-attr]


def test_preview_of_a_swap(studio: Studio, whose: Callable[..., None]) -> None:
    whose(studio.swap(images("sample_target", 1)[0], {"model": "me"}).image)


def test_preview_of_training(
    clone_files: SmallClone, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(model_config.PRESETS, "cpu", TINY)
    train = (
        "train", "--source", clone_files.source, "--target", clone_files.target, "--model", tmp_path / "m", "--steps", 1,
        *TRAINING, "--preview-steps", 1,
    )  # fmt: skip
    code, said, err = run(capsys, clone_files.workspace, *train)
    assert code == 0, err
    sheets = list((tmp_path / "m" / "previews").glob("*.png"))
    assert sheets
    for path in sheets:
        found = read([media.read_image(path)], known_mark_key(clone_files.workspace))
        assert (found.record_id, found.authentic) == (said["consent"][:8], True)


@pytest.mark.parametrize("name", ["frames", "x.gif", "x.webm", "x.mkv"])
def test_export_of_frames_and_other_containers(
    clone_files: SmallClone, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    command = (
        "swap",
        "--model",
        clone_files.model,
        "--input",
        clone_files.clip,
        "--output",
        tmp_path / name,
        "--end-s",
        0.4,
    )
    code, said, err = run(capsys, clone_files.workspace, *command)
    assert code == 0, err
    key, output = known_mark_key(clone_files.workspace), tmp_path / name
    if output.is_dir():
        pictures = [[media.read_image(path)] for path in media.folder_images(output)]
        assert len(pictures) == said["frames"] > 5
        assert all(read_statement(path).is_synthetic for path in media.folder_images(output))  # type: ignore[union-attr]
        record = read_folder(output)
        assert record is not None and (record["state"], record["files"]) == ("valid", len(pictures))
        assert record["made_from"]["file"] == clone_files.clip.name
    else:
        pictures = [[frame.image for frame in media.read_frames(output)]]
    for together in pictures:
        found = read(together, key, search=False)
        assert (found.record_id, found.authentic) == (said["consent"][:8], True)
