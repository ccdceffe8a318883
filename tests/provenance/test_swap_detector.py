"""The detector of swapped faces: its file, its scores and map, and that it is never the one to decide."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from lib_vitface import media  # noqa: E402
from lib_vitface.assets import models_folder  # noqa: E402
from lib_vitface.errors import CheckpointError, MissingDependencyError  # noqa: E402
from lib_vitface.faces import align  # noqa: E402
from lib_vitface.models.detector import DetectorNet, SameConv, pooled  # noqa: E402
from lib_vitface.provenance import detector as detectors  # noqa: E402
from lib_vitface.provenance.detector import FILE, NO_PROOF, Calibration, FaceScore, SwapDetector, overlay, report  # noqa: E402
from lib_vitface.provenance.inspect import inspect  # noqa: E402
from lib_vitface.provenance.settings import InspectOptions  # noqa: E402
from lib_vitface.training.selfblend import self_blended  # noqa: E402
from lib_vitface.types import Face, Image  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = models_folder() / FILE
trained = pytest.mark.skipif(
    not WEIGHTS.is_file(),
    reason=f"no trained weights: put {FILE} into models/ (models/detector.md tells how to train it)",
)


@pytest.fixture(scope="module")
def detector(detector_file: Path) -> SwapDetector:
    return SwapDetector(detector_file)


@pytest.fixture(scope="module")
def seen(frames: list[Image], detector: SwapDetector) -> list[tuple[Image, Face]]:
    """Frames of the sample clip, each with its face."""
    found = [(image, detector.faces(image)) for image in frames[:8]]
    return [(image, faces[0]) for image, faces in found if faces]


def crops(seen: list[tuple[Image, Face]]) -> list[Image]:
    return [align.take_crop(image, face, 224).image for image, face in seen]


# --------------------------------------------------------------------------------------------------------------- the file


@trained
def test_the_trained_file_is_small_and_of_this_network() -> None:
    assert WEIGHTS.stat().st_size <= 10 * 2**20
    assert set(load_file(WEIGHTS)) == set(DetectorNet().state_dict())


def test_the_card_tells_of_the_weights() -> None:
    card = (ROOT / "models" / "detector.md").read_text(encoding="utf-8")
    for said in ("What it is for", "What it is not for", "Trained on", "Measured", "Licence"):
        assert f"## {said}" in card, said
    assert "train_detector.py train" in card and "No weights come with this version" in card


def test_the_network_is_small() -> None:
    assert sum(p.numel() for p in DetectorNet().parameters()) <= 2_500_000


def test_a_missing_and_a_damaged_file_are_told(tmp_path: Path, detector_file: Path) -> None:
    with pytest.raises(MissingDependencyError, match=FILE) as told:
        SwapDetector(tmp_path / FILE)
    assert "train_detector.py" in str(told.value) and "\n" not in str(told.value)
    (tmp_path / "torn.safetensors").write_bytes(detector_file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="damaged"):
        SwapDetector(tmp_path / "torn.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="damaged"):
        SwapDetector(tmp_path / "other.safetensors")


# ------------------------------------------------------------------------------------------------------------ the network


@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 1, 8), (3, 2, 8), (5, 2, 9), (5, 1, 7)])
def test_padding_is_tensorflows(kernel: int, stride: int, side: int) -> None:
    """Against the definition, written out: output i reads from `i * stride - before`, where what is uneven lies behind."""
    layer = SameConv(1, 1, kernel, stride)
    torch.nn.init.ones_(layer.weight)
    picture = torch.arange(float(side * side)).reshape(1, 1, side, side)
    out = -(-side // stride)
    before = max((out - 1) * stride + kernel - side, 0) // 2
    expected = torch.zeros(out, out)
    for y in range(out):
        for x in range(out):
            rows, columns = (
                range(max(k * stride - before, 0), min(k * stride - before + kernel, side)) for k in (y, x)
            )
            expected[y, x] = sum(picture[0, 0, r, c] for r in rows for c in columns)
    torch.testing.assert_close(layer(picture)[0, 0], expected)


def test_the_pooled_score_lies_between_mean_and_maximum() -> None:
    cells = torch.randn(5, 14, 14) * 3
    score = pooled(cells)
    assert (score <= cells.amax((1, 2)) + 1e-5).all() and (score >= cells.mean((1, 2)) - 1e-5).all()
    torch.testing.assert_close(pooled(torch.full((1, 14, 14), 1.5)), torch.tensor([1.5]))


def test_scores_do_not_depend_on_the_batch(detector: SwapDetector, seen: list[tuple[Image, Face]]) -> None:
    pictures = crops(seen)
    together, maps = detector.logits(pictures)
    assert together.shape == (len(pictures),) and maps.shape == (len(pictures), 14, 14)
    alone = np.concatenate([detector.logits([picture])[0] for picture in pictures])
    np.testing.assert_allclose(together, alone, atol=1e-3)
    assert detector.logits([])[1].shape == (0, 14, 14)


@trained
def test_a_self_blended_face_scores_higher_than_the_face(seen: list[tuple[Image, Face]]) -> None:
    detector, blended = SwapDetector(WEIGHTS), []
    for number, (image, face) in enumerate(seen):
        assert face.landmarks is not None
        blended.append((self_blended(image, face.landmarks, 50 + number)[0], face))
    real, fake = (detector.logits(crops(pairs))[0] for pairs in (seen, blended))
    assert fake.mean() > real.mean()


# ------------------------------------------------------------------------------------------------------------ calibration


def test_how_many_real_frames_score_so_high() -> None:
    known = Calibration(2.0, -1.0, np.array([-3, -2, -1, 0, 1], np.float32), {})
    assert known.score(0.5) == pytest.approx(0.5) and known.score(1.5) == pytest.approx(1 / (1 + np.exp(-2)))
    assert known.real_in_100(0.0) == pytest.approx(100 * 3 / 6), "two of five, and one that was not seen"
    assert known.real_in_100(9.0) == pytest.approx(100 / 6) and known.real_in_100(-9.0) == pytest.approx(100)
    assert 0 <= known.score(-1e9) < 1e-9 and known.score(1e9) <= 1


@trained
def test_the_trained_calibration_has_real_frames_and_rises() -> None:
    known = SwapDetector(WEIGHTS).calibration
    assert len(known.real) >= 100 and known.scale > 0 and (np.diff(known.real) >= 0).all()
    assert known.facts["training_people"] >= 1 and known.facts["calibration_people"] >= 1


# -------------------------------------------------------------------------------------------------------- what is reported


def faked(logit: float, known: Calibration, time_s: float = 0.0) -> FaceScore:
    cells = np.full((14, 14), logit, np.float32)
    box = np.array([10, 10, 60, 60], np.float32)
    return FaceScore(time_s, logit, known.score(logit), known.real_in_100(logit), cells, box, np.eye(2, 3) * 2)


@pytest.mark.parametrize("logits", [[-5.0], [9.0], [-4.0, 0.0, 6.0]])
def test_never_a_bare_verdict(detector: SwapDetector, logits: list[float]) -> None:
    told = report([faked(v, detector.calibration, k) for k, v in enumerate(logits)], len(logits))
    json.dumps(told, allow_nan=False)
    assert "of every 100 real frames" in told["said"] and told["said"].endswith(NO_PROOF)
    for score in (told["lowest"], told["median"], told["highest"]):
        assert f"{score:.2f}" in told["said"]
    assert not re.search(r"\b(fake|genuine|authentic|is synthetic|is real)\b", told["said"], re.IGNORECASE)
    assert told["frames"] == len(logits) == len(told["scores"]) == len(told["times_s"])
    assert told["real_in_100_at_highest"] <= told["real_in_100_at_median"] <= 100
    assert np.shape(told["heat_map"]) == (14, 14)


def test_no_face_is_said() -> None:
    told = report([], 5)
    assert told["frames"] == 0 and told["median"] is None and "No face" in told["said"] and "5 frames" in told["said"]


def test_the_heat_map_lies_on_the_face_only(detector: SwapDetector) -> None:
    image = np.full((120, 160, 3), 90, np.uint8)
    hot = replace(faked(20.0, detector.calibration), frame_to_crop=np.array([[4.0, 0, -80], [0, 4.0, -80]]))
    shown = overlay(image, hot)
    assert shown.shape == image.shape and shown.dtype == np.uint8
    changed = np.abs(shown.astype(int) - image).sum(axis=2) > 8
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    # the crop's 224 px are 56 px of the frame, from (20, 20) on
    assert (
        abs(rows[0] - 20) <= 1 and abs(rows[-1] - 75) <= 1 and abs(columns[0] - 20) <= 1 and abs(columns[-1] - 75) <= 1
    )
    assert (shown[45, 45, 0] > shown[45, 45, 2]) and not changed[:15].any()
    cold = replace(hot, cells=np.full((14, 14), -20, np.float32))
    np.testing.assert_array_equal(overlay(image, cold), image)


# ------------------------------------------------------------------------------------------------------------ in `inspect`


@pytest.mark.usefixtures("detector_here")
def test_inspect_tells_mark_manifest_detector_in_this_order(frames: list[Image], tmp_path: Path) -> None:
    media.write_image(tmp_path / "x.png", frames[0])
    said = inspect(InspectOptions([tmp_path / "x.png"], search=False), tmp_path)["files"][0]
    names = list(said)
    assert names.index("mark") < names.index("manifest") < names.index("detector")
    assert said["detector"]["frames"] == 1 and 0 <= said["detector"]["median"] <= 1
    assert "real_in_100_at_median" in said["detector"] and NO_PROOF in said["detector"]["said"]


def test_the_detector_never_decides(
    frames: list[Image], tmp_path: Path, detector: SwapDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A score of 1 makes nothing synthetic, and a score of 0 clears nothing."""
    media.write_image(tmp_path / "x.png", frames[0])
    hot = replace(detector.calibration, offset=1e6)
    monkeypatch.setattr(detectors, "_load", lambda file: (DetectorNet().eval(), hot))
    said = inspect(InspectOptions([tmp_path / "x.png"], search=False), tmp_path)
    assert said["files"][0]["detector"]["median"] == pytest.approx(1)
    assert not said["synthetic"] and not said["files"][0]["synthetic"]


def test_inspect_goes_on_without_the_detector(
    frames: list[Image], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media.write_image(tmp_path / "x.png", frames[0])
    monkeypatch.setattr(detectors, "models_folder", lambda: tmp_path)
    said = inspect(InspectOptions([tmp_path / "x.png"], search=False), tmp_path)["files"][0]
    assert said["detector"]["frames"] == 0 and "weights are not here" in said["detector"]["said"]
    assert said["mark"]["frames_used"] == 1
    unasked = inspect(InspectOptions([tmp_path / "x.png"], search=False, detector=False), tmp_path)["files"][0]
    assert "not asked for" in unasked["detector"]["said"] and set(unasked["detector"]) == set(said["detector"])


def test_inspect_goes_on_without_torch(
    frames: list[Image], tmp_path: Path, detector_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media.write_image(tmp_path / "x.png", frames[0])
    shutil.copy(detector_file, tmp_path / FILE)
    monkeypatch.setattr(detectors, "models_folder", lambda: tmp_path)  # one that is not loaded yet
    monkeypatch.setattr(detectors.importlib.util, "find_spec", lambda name: None)
    said = inspect(InspectOptions([tmp_path / "x.png"], search=False), tmp_path)["files"][0]
    assert "needs torch" in said["detector"]["said"] and said["mark"]["frames_used"] == 1


@pytest.mark.usefixtures("detector_here")
def test_a_clip_is_scored_frame_by_frame(clip: Path, tmp_path: Path) -> None:
    said = inspect(InspectOptions([clip], frames=6, search=False), tmp_path)["files"][0]["detector"]
    assert 1 <= said["frames"] <= 6 and len(said["scores"]) == said["frames"]
    assert said["times_s"] == sorted(said["times_s"]) and said["times_s"][-1] > 5, "at several places of the clip"
    assert said["lowest"] <= said["median"] <= said["highest"]
    assert said["highest_at"]["time_s"] in said["times_s"]
