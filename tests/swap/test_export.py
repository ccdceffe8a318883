"""Exported networks against the trained ones: same answers, other engines, other numbers of clips, facts in the file."""

from __future__ import annotations

from dataclasses import replace
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch
from test_frame import TINY, face_at, frame_of, model_in

from lib_vitface.errors import CheckpointError, InputError
from lib_vitface.models.checkpoint import Checkpoint, open_model, save_model
from lib_vitface.models.config import Config, SAEHDConfig
from lib_vitface.models.runtime import open_network, pick_backend
from lib_vitface.swap.export import Exporting, TrainedSource, export_model
from lib_vitface.swap.frame import TARGET, ModelSwapper
from lib_vitface.types import Image, Pose

_NEEDED = [name for name in ("onnx", "onnxscript", "onnxruntime") if util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(_NEEDED), reason=f"exporting needs {', '.join(_NEEDED)}")
FACE = face_at(Pose(8, 4, 15), 5.0, 150, 145)


def stirred(network: torch.nn.Module) -> None:
    """Weights that do something: fresh ones give the reference back."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def exported(folder: Path, config: Config, quantize: str = "none") -> tuple[Checkpoint, Checkpoint, dict[str, object]]:
    trained = model_in(folder / "trained", config, stirred)
    found = export_model(trained, folder / "made", Exporting("last", 18, quantize))
    return trained, open_model(folder / "made"), found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint, dict[str, object]]:
    return exported(tmp_path_factory.mktemp("export"), replace(TINY, own_decoders=True))


def picture() -> Image:
    return np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)


@needs_onnx
def test_the_same_pixels(
    made: tuple[Checkpoint, Checkpoint, dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the whole swapper, in float32 on both sides; and the fresh weights of `test_frame` would not do."""
    from lib_vitface import device

    monkeypatch.setattr(device, "fast_dtype", lambda _: torch.float32)
    trained, ready, found = made
    a = ModelSwapper(trained, device="cpu")([picture(), frame_of()], [FACE] * 2)
    exact = open_network(ready, device="cpu", backend="onnx", exact=True)
    b = ModelSwapper(ready, device="cpu", network=exact)([picture(), frame_of()], [FACE] * 2)
    for one, other in zip(a, b, strict=True):
        assert np.abs(one.image.astype(int) - other.image).max() <= 1
        np.testing.assert_allclose(one.mask, other.mask, atol=1e-4)
    assert np.abs(a[0].image.astype(int) - a[1].image).max() > 3, "the network sees the footage"
    stated = found["max_difference"]["onnx"]  # type: ignore[index]
    assert stated["picture_grey_levels"] < 0.01 and stated["mask"] < 1e-4


@needs_onnx
@pytest.mark.skipif(util.find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_openvino_gives_nearly_the_same(made: tuple[Checkpoint, Checkpoint, dict[str, object]]) -> None:
    _, ready, _ = made
    assert pick_backend(ready, "auto") == "openvino"
    inputs = ModelSwapper(ready, device="cpu").inputs([picture()], [FACE])
    a, b = (open_network(ready, device="cpu", backend=name)(inputs) for name in ("onnx", "openvino"))
    assert np.abs(a[0] - b[0]).max() < 4 / 255 and np.abs(a[1] - b[1]).max() < 0.05
    with pytest.raises(InputError, match="OpenVINO has no device 'cuda'"):
        open_network(ready, device="cuda", backend="openvino")


@needs_onnx
def test_the_file_says_what_it_is(made: tuple[Checkpoint, Checkpoint, dict[str, object]]) -> None:
    import onnx

    _, ready, _ = made
    model = onnx.load(str(ready.file("onnx")))
    onnx.checker.check_model(model, full_check=True)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["vitface.model_id"] == "m" and facts["vitface.kind"] == "vit" and facts["vitface.resolution"] == "64"
    assert "vitface.consent_id" in facts and facts["torch.version"] == torch.__version__
    assert [entry.version for entry in model.opset_import if not entry.domain] == [18]
    assert all(value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input), "clips are free"
    assert not [
        n for n in model.graph.node for a in n.attribute if n.op_type == "Resize" and a.name == "antialias" and a.i
    ]
    assert set(ready.files) == {"onnx", "memory_source", "memory_target"}


@needs_onnx
def test_what_an_exported_model_cannot_do(made: tuple[Checkpoint, Checkpoint, dict[str, object]]) -> None:
    trained, ready, _ = made
    for wrong, words in (
        ({"identity": TARGET}, "source only"),
        ({"backend": "torch"}, "no weights for torch"),
        ({"weights": "best"}, "last weights only"),
    ):
        with pytest.raises(CheckpointError, match=words):
            ModelSwapper(ready, device="cpu", **wrong)
    with pytest.raises(CheckpointError, match="was exported to swap with"):
        ready.tensors("state")
    with pytest.raises(CheckpointError, match="run `export`"):
        ModelSwapper(trained, device="cpu", backend="onnx")
    with pytest.raises(InputError, match="'cuda'"):
        open_network(ready, device="cuda", backend="onnx")


@needs_onnx
def test_a_damaged_network_is_not_run(made: tuple[Checkpoint, Checkpoint, dict[str, object]], tmp_path: Path) -> None:
    _, ready, _ = made
    data = bytearray(ready.file("onnx").read_bytes())
    data[len(data) // 2] ^= 255
    (tmp_path / "network.onnx").write_bytes(bytes(data))
    moved = replace(ready, folder=tmp_path)
    with pytest.raises(CheckpointError, match="checksum"):
        open_network(moved, device="cpu", backend="onnx")
    (tmp_path / "network.onnx").write_bytes(b"not a network")
    import hashlib

    forged = replace(moved, digests={**ready.digests, "onnx": hashlib.sha256(b"not a network").hexdigest()})
    with pytest.raises(CheckpointError, match="onnxruntime cannot run"):
        open_network(forged, device="cpu", backend="onnx")


@needs_onnx
@pytest.mark.parametrize("kind", ["saehd-df", "saehd-liae"])
def test_an_autoencoder_draws_the_source(kind: str, tmp_path: Path) -> None:
    config = SAEHDConfig(kind, 64, "ud", 16, 8, 8, 4)
    trained, ready, found = exported(tmp_path, config)
    stated = found["max_difference"]["onnx"]  # type: ignore[index]
    assert stated["picture_grey_levels"] < 0.05
    swapper = ModelSwapper(ready, device="cpu", backend="onnx")
    inputs = swapper.inputs([picture()], [FACE])
    source, target = (open_network(trained, device="cpu", identity=who)(inputs)[0] for who in (0, TARGET))
    drawn = swapper.network(inputs)[0]
    assert np.abs(drawn - source).mean() < 0.3 * np.abs(drawn - target).mean()


@needs_onnx
def test_what_a_network_knows_of_time_and_views_goes_along(tmp_path: Path) -> None:
    """Attention over time, in clips of any length, and the source's remembered views, against the trained network."""
    config = replace(TINY, clip_frames=3, memory_tokens=4, fusion="attention")
    trained = model_in(tmp_path / "trained", config, stirred)
    random = np.random.default_rng(2)
    views = {who: random.integers(0, 256, (5, 64, 64, 3)).astype(np.uint8) for who in ("source", "target")}
    trained = save_model(trained, {"views": views})
    found = export_model(trained, tmp_path / "made", Exporting("last", 18, "none"))
    stated = found["max_difference"]["onnx"]
    assert stated["picture_grey_levels"] < 0.05
    ready = open_model(tmp_path / "made")
    exact = open_network(ready, device="cpu", backend="onnx", exact=True)
    swapper = ModelSwapper(ready, device="cpu", network=exact)
    frames, faces = [picture(), frame_of(), picture()[::-1].copy()], [FACE] * 3
    alone, together = swapper(frames, faces), swapper(frames, faces, [0.0, 0.04, 0.08])
    gap = max(np.abs(a.image.astype(int) - b.image).max() for a, b in zip(alone, together, strict=True))
    assert gap > 1, "neighbours count where their times are known"
    for k, face in enumerate(faces):
        np.testing.assert_array_equal(swapper([frames[k]], [face])[0].image, alone[k].image)
    forgetful = save_model(replace(trained, folder=tmp_path / "other"), {
        **{name: trained.arrays(name) for name in ("memory_source", "memory_target")}, "weights": trained.tensors("weights"),
        "views": {**views, "source": views["target"]},
    })  # fmt: skip
    inputs = swapper.inputs(frames, faces)
    a, b = (TrainedSource(model, "weights")(inputs)[0] for model in (trained, forgetful))
    np.testing.assert_allclose(swapper.network(inputs)[0], a, atol=2e-4)
    assert np.abs(a - b).max() > 2e-3, "the views say whom it draws"


@needs_onnx
def test_int8_is_smaller_and_says_what_it_costs(
    made: tuple[Checkpoint, Checkpoint, dict[str, object]], tmp_path: Path
) -> None:
    _, ready, found = exported(tmp_path, TINY, "int8")
    _, whole, _ = made
    assert ready.file("onnx").stat().st_size < 0.75 * whole.file("onnx").stat().st_size
    stated = found["max_difference"]["onnx"]  # type: ignore[index]
    assert stated["picture_grey_levels"] > 0.01 and stated["psnr_db"] > 30
    assert "openvino" not in found["max_difference"] and pick_backend(ready, "auto") == "onnx"  # type: ignore[operator]
    with pytest.raises(CheckpointError, match="int8"):
        pick_backend(ready, "openvino")


def test_shrinking_is_torchs_own() -> None:
    from lib_vitface.swap.export_graph import _shrinking

    image = torch.rand(2, 3, 192, 128, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.interpolate(image, size=(96, 50), mode="bilinear", antialias=True)
    rows, columns = (torch.from_numpy(_shrinking(a, b)) for a, b in ((192, 96), (128, 50)))
    torch.testing.assert_close(rows @ image @ columns.T, wanted)
