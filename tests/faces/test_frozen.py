"""The torch networks against the same files run by OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from lib_vitface.assets import locate
from lib_vitface.errors import InputError
from lib_vitface.faces import align
from lib_vitface.faces.embed import SFaceEmbedder, cosine
from lib_vitface.faces.frozen import FrozenIdentity, FrozenMesh, chip
from lib_vitface.faces.graphs import read_onnx, read_tflite
from lib_vitface.types import Face, Image

POINTS = np.array([[70, 80], [125, 78], [98, 112], [76, 140], [121, 139]], np.float32)


def smooth_picture(seed: int, size: int = 192) -> Image:
    coarse = np.random.default_rng(seed).integers(0, 255, (12, 12, 3)).astype(np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


def as_tensor(*images: Image) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


def test_mesh_points_are_those_of_opencv() -> None:
    images = [smooth_picture(1), smooth_picture(2)]
    net = cv2.dnn.readNetFromTFLite(str(locate("face_mesh")))
    found = FrozenMesh()(as_tensor(*images))
    for image, points in zip(images, found, strict=True):
        net.setInput(cv2.dnn.blobFromImage(image, 1 / 255))
        expected = next(o for o in net.forward(net.getUnconnectedOutLayersNames()) if o.size == 1404).reshape(-1, 3)
        np.testing.assert_allclose(points.numpy() * 192, expected[:, :2], atol=0.05)


def test_identity_is_that_of_opencv() -> None:
    images = [smooth_picture(3), smooth_picture(4)]
    points = torch.from_numpy(np.stack([POINTS, POINTS + 3]))
    found = FrozenIdentity()(as_tensor(*images), points)
    embed = SFaceEmbedder()
    for image, five, vector in zip(images, points.numpy(), found.numpy(), strict=True):
        expected = embed(image, Face(np.zeros(4, np.float32), 1.0, five))
        assert cosine(vector, expected) > 0.995
    assert cosine(found[0].numpy(), found[1].numpy()) < 0.95


def test_chip_is_that_of_align() -> None:
    image = smooth_picture(5)
    (found,) = chip(as_tensor(image), torch.from_numpy(POINTS[None])).permute(0, 2, 3, 1).numpy() * 255
    expected = align.five_point_chip(image, POINTS).astype(float)  # beyond the crop the two fade to black otherwise
    np.testing.assert_allclose(found[4:, 4:-4], expected[4:, 4:-4], atol=6)


@pytest.mark.parametrize("kind", ["mesh", "identity"])
def test_gradients_reach_the_picture_and_nothing_else(kind: str) -> None:
    image = as_tensor(smooth_picture(6)).requires_grad_()
    net = FrozenMesh() if kind == "mesh" else FrozenIdentity()
    result = net(image) if kind == "mesh" else net(image, torch.from_numpy(POINTS[None]))
    result.square().mul(torch.arange(1.0, result[0].numel() + 1).reshape(result[0].shape)).sum().backward()
    assert image.grad is not None and torch.isfinite(image.grad).all() and image.grad.abs().max() > 0
    assert not any(b.requires_grad for b in net.buffers()) and not list(net.parameters())


def test_damaged_networks_are_named(tmp_path: Path) -> None:
    path = tmp_path / "net"
    for name, read in (("sface", read_onnx), ("face_mesh", read_tflite)):
        path.write_bytes(locate(name).read_bytes()[:900])
        with pytest.raises(InputError, match="no readable"):
            read(path)
