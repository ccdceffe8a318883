"""The engines against each other, on the networks and pictures they are for."""

from __future__ import annotations

from importlib import util
from itertools import islice
from typing import Any

import cv2
import numpy as np
import pytest

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.faces import engines
from lib_vitface.faces.graphs import unpacked_onnx
from lib_vitface.types import Image

SIZES = {"face_mesh": (192, 1 / 255), "iris": (64, 1 / 255), "palm_detection": (192, 1 / 255), "sface": (112, 1.0)}


def picture(size: int) -> Image:
    """The woman of the sample clip, her face in the middle."""
    frame = next(islice(media.read_frames(locate("sample_target"), 12.0), 1)).image
    return cv2.resize(frame[20:340, 280:600], (size, size), interpolation=cv2.INTER_AREA)


@pytest.mark.skipif(util.find_spec("openvino") is None, reason="OpenVINO is not installed")
@pytest.mark.parametrize("name", SIZES)
def test_openvino_says_what_opencv_says(name: str) -> None:
    size, scale = SIZES[name]
    seen = picture(size)
    found, expected = (
        sorted(make(name, scale)(seen), key=lambda one: one.size)
        for make in (engines.OpenVinoNetwork, engines.OpenCvNetwork)
    )
    assert [one.size for one in found] == [one.size for one in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.ravel(), other.ravel(), rtol=1e-4, atol=1e-3)


@pytest.mark.skipif(util.find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_two_networks_of_one_file_do_not_disturb_each_other() -> None:
    one, two = engines.OpenVinoNetwork("iris", 1 / 255), engines.OpenVinoNetwork("iris", 1 / 255)
    first = [out.copy() for out in one(picture(64))]
    kept = one(picture(64))
    two(np.zeros((64, 64, 3), np.uint8))
    one(np.full((64, 64, 3), 200, np.uint8))
    for a, b in zip(kept, first, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("there", [True, False])
def test_openvino_goes_first_where_it_is(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(util, "find_spec", lambda name: object() if there else None)
    monkeypatch.setattr(engines, "OpenVinoNetwork", lambda *given: made.append(("openvino", *given)))
    monkeypatch.setattr(engines, "OpenCvNetwork", lambda *given: made.append(("opencv", *given)))
    engines.network("iris", 0.5)
    assert made == [("openvino" if there else "opencv", "iris", 0.5)]


def test_an_unpacked_network_is_the_same_network() -> None:
    """OpenCV reads both; its own way of unpacking is the judge."""
    data = unpacked_onnx(locate("sface"))
    nets = [cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8)), cv2.dnn.readNetFromONNX(str(locate("sface")))]
    results = []
    for net in nets:
        net.setInput(cv2.dnn.blobFromImage(picture(112)))
        results.append(net.forward().ravel())
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-5)
    assert len(data) > 3 * locate("sface").stat().st_size and b"DequantizeLinear" not in data
