"""facexlib and insightface, played by stand-ins that answer in the packages' own formats."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from lib_vitface.errors import MissingDependencyError
from lib_vitface.faces import align
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.embed import make_embedder
from lib_vitface.types import Face, Image

FIVE = np.array([[40, 50], [80, 50], [60, 70], [45, 90], [75, 90]], np.float32)
BOX = np.array([20, 20, 100, 110], np.float32)


def install(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    """A stand-in for a module and the packages it lies in."""
    parts = name.split(".")
    for k in range(1, len(parts) + 1):
        dotted = ".".join(parts[:k])
        module = ModuleType(dotted)
        module.__path__ = []  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, dotted, module)
    for key, value in members.items():
        setattr(sys.modules[name], key, value)


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """insightface runs on onnxruntime, which tells what it can run on."""
    install(monkeypatch, "onnxruntime", get_available_providers=lambda: ["CPUExecutionProvider"])


class FakeRetinaFace:
    """Answers two faces in rows of 15, the weaker first, and keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[Image] = []

    def detect_faces(self, image: Image, conf_threshold: float) -> np.ndarray:
        assert 0 < conf_threshold < 1
        self.shown.append(image)
        rows = [
            np.concatenate([BOX + shift, [score], (FIVE + shift).ravel()]) for shift, score in ((200, 0.7), (0, 0.95))
        ]
        return np.stack(rows).astype(np.float32)


def test_facexlib_sees_bgr_and_answers_in_frame_pixels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    net = FakeRetinaFace()

    def make(name: str, device: str) -> FakeRetinaFace:
        print("Downloading: ...")
        return net

    install(monkeypatch, "facexlib.detection", init_detection_model=make)
    detect = make_detector("facexlib")
    assert capsys.readouterr().out == ""  # stdout is the command's own
    image = np.zeros((400, 600, 3), np.uint8)
    image[..., 0] = 200
    first, second = detect(image)
    assert net.shown[0][0, 0].tolist() == [0, 0, 200]
    assert first.score == pytest.approx(0.95) and second.score == pytest.approx(0.7)
    np.testing.assert_allclose(first.points, FIVE, atol=1e-4)
    np.testing.assert_allclose(first.box, BOX, atol=1e-4)
    large = detect(np.zeros((2560, 1280, 3), np.uint8))[0]
    assert net.shown[1].shape == (1280, 640, 3)
    np.testing.assert_allclose(large.points, FIVE * 2 + 0.5, atol=1e-3)  # pixel centres are at integers


def test_no_face_is_an_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    net = FakeRetinaFace()
    net.detect_faces = lambda image, conf_threshold: np.zeros((0, 15), np.float32)  # type: ignore[method-assign]
    install(monkeypatch, "facexlib.detection", init_detection_model=lambda name, device: net)
    assert make_detector("facexlib")(np.zeros((40, 40, 3), np.uint8)) == []


class FakeAnalysis:
    """insightface's FaceAnalysis: prints, prepares, and holds models by task."""

    def __init__(self, name: str, allowed_modules: list[str], providers: list[str]) -> None:
        print("find model: ...")
        assert name == "buffalo_l" and "detection" in allowed_modules and "CPUExecutionProvider" in providers
        self.models: dict[str, Any] = dict.fromkeys(allowed_modules, self)
        self.threshold = 0.0

    def prepare(self, ctx_id: int, det_thresh: float, det_size: tuple[int, int]) -> None:
        print("set det-size:")
        self.threshold = det_thresh

    def detect(self, image: Image) -> tuple[np.ndarray, np.ndarray]:
        assert image[0, 0].tolist() == [0, 0, 200]
        scores = np.array([[0.65], [0.9]], np.float32)
        boxes = np.hstack([np.stack([BOX + 200, BOX]), scores])
        keep = scores[:, 0] >= self.threshold
        return boxes[keep], np.stack([FIVE + 200, FIVE])[keep]

    def get_feat(self, chip: Image) -> np.ndarray:
        """A vector that depends on the pixels, not of unit length, as ArcFaceONNX gives it."""
        assert chip.shape == (112, 112, 3)
        return cv2.resize(chip, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32).reshape(1, -1)


@pytest.fixture
def insightface(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "insightface.app", FaceAnalysis=FakeAnalysis)


@pytest.mark.usefixtures("insightface")
def test_insightface_detects(capsys: pytest.CaptureFixture[str]) -> None:
    image = np.zeros((400, 600, 3), np.uint8)
    image[..., 0] = 200
    best, weak = make_detector("insightface")(image)
    assert capsys.readouterr().out == "" and (best.score, weak.score) == pytest.approx((0.9, 0.65))
    np.testing.assert_array_equal(best.points, FIVE)
    assert len(make_detector("insightface", 0.8)(image)) == 1


@pytest.mark.usefixtures("insightface")
def test_insightface_embeds_the_aligned_chip_in_bgr() -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    face = Face(BOX, 0.9, FIVE)
    look = make_embedder("insightface")(image, face)
    chip = align.five_point_chip(image, FIVE)[..., ::-1]
    expected = cv2.resize(np.ascontiguousarray(chip), (16, 16), interpolation=cv2.INTER_AREA).astype(float).ravel()
    np.testing.assert_allclose(look, expected / np.linalg.norm(expected), atol=1e-6)
    assert look.dtype == np.float32 and np.linalg.norm(look) == pytest.approx(1, abs=1e-5)


def test_a_pack_without_its_part_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Empty(FakeAnalysis):
        def __init__(self, *values: Any, **named: Any) -> None:
            super().__init__(*values, **named)
            self.models = {"detection": self}

    install(monkeypatch, "insightface.app", FaceAnalysis=Empty)
    with pytest.raises(MissingDependencyError, match="no recognition model"):
        make_embedder("insightface")


@pytest.mark.parametrize("make", [lambda: make_detector("insightface"), lambda: make_embedder("insightface")])
@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("Failed downloading"), AssertionError()])
def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, make: Any, error: Exception) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    install(monkeypatch, "insightface.app", FaceAnalysis=refuse)
    with pytest.raises(
        MissingDependencyError, match=r"cannot be loaded \((no route|Failed|AssertionError).*buffalo_l\.zip"
    ):
        make()


def test_facexlib_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, device: str) -> None:
        raise OSError("no route")

    install(monkeypatch, "facexlib.detection", init_detection_model=refuse)
    with pytest.raises(MissingDependencyError, match=r"\(no route\).*detection_Resnet50_Final\.pth"):
        make_detector("facexlib")


@pytest.mark.parametrize("name", ["insightface", "facexlib"])
def test_an_absent_package_names_its_remedy(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(MissingDependencyError, match=f"pip install {name}"):
        make_detector(name)
