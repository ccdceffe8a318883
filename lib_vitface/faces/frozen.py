"""The landmark network and the identity network in torch, with fixed weights: judges whose verdict has a gradient.

Both read the very files that OpenCV runs elsewhere, so what a loss asks for is what the pipeline measures by. SFace is not
the embedder that results are scored with (that is dlib's).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from lib_vitface.assets import locate
from lib_vitface.errors import InputError
from lib_vitface.faces import mesh
from lib_vitface.faces.align import ARCFACE_TEMPLATE
from lib_vitface.faces.graphs import Graph, Node, read_onnx, read_tflite

_MESH_SIZE = 192
_CHIP_SIZE = 112


class FrozenGraph(nn.Module):
    """A graph of `faces.graphs` as a module without parameters; its constants are buffers in float32."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self._names = {name: f"c{k}" for k, name in enumerate(graph.constants)}
        for name, values in graph.constants.items():
            tensor = torch.from_numpy(values.copy())
            self.register_buffer(self._names[name], tensor.float() if tensor.is_floating_point() else tensor)
        self._fold()
        self.requires_grad_(False).eval()

    def _fold(self) -> None:
        """What depends on constants alone (weights kept in fewer bits) is worked out once."""
        values = {name: getattr(self, short) for name, short in self._names.items()}
        left = []
        for node in self.graph.nodes:
            if node.kind != "Dropout" and all(i in values for i in node.inputs):
                values[node.outputs[0]] = result = _run(node, [values[i] for i in node.inputs])
                self._names[node.outputs[0]] = f"c{len(self._names)}"
                self.register_buffer(self._names[node.outputs[0]], result)
            else:
                left.append(node)
        used = {i for node in left for i in node.inputs}
        for name in [n for n in self._names if n not in used]:
            delattr(self, self._names.pop(name))
        self._nodes = left

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The graph's outputs for its one input."""
        values = {name: getattr(self, short) for name, short in self._names.items()}
        values[self.graph.inputs[0]] = x
        for node in self._nodes:
            values[node.outputs[0]] = _run(node, [values[i] for i in node.inputs])
        return tuple(values[name] for name in self.graph.outputs)


def _run(node: Node, x: list[torch.Tensor]) -> torch.Tensor:
    """One operation. TFLite's pictures are channels first here, too; only its weights come channels last."""
    kind, given = node.kind, node.settings
    if kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        deep = kind == "DEPTHWISE_CONV_2D"
        weight = x[1].permute(3, 0, 1, 2) if deep else x[1].permute(0, 3, 1, 2)
        padded = _same(x[0], weight.shape[-2:], given["stride"], 0.0) if given["same"] else x[0]
        return F.conv2d(padded, weight, x[2], stride=given["stride"], groups=weight.shape[0] if deep else 1)
    if kind == "MAX_POOL_2D":
        padded = _same(x[0], given["kernel"], given["stride"], -torch.inf) if given["same"] else x[0]
        return F.max_pool2d(padded, given["kernel"], given["stride"])
    if kind == "PRELU":
        return torch.where(x[0] >= 0, x[0], x[0] * x[1].permute(2, 0, 1))
    if kind == "PAD":
        (_, _), (top, bottom), (left, right), (before, after) = x[1].tolist()
        return F.pad(x[0], (left, right, top, bottom, before, after))
    if kind == "DEQUANTIZE":
        return x[0]
    if kind == "ADD":
        return x[0] + x[1]
    return _run_onnx(node, x)


def _run_onnx(node: Node, x: list[torch.Tensor]) -> torch.Tensor:
    kind, given = node.kind, node.settings
    if kind == "Conv":
        top, left, bottom, right = given["pads"]
        padded = F.pad(x[0], (left, right, top, bottom))
        bias = x[2] if len(x) > 2 else None
        return F.conv2d(padded, x[1], bias, tuple(given["strides"]), groups=given["group"])
    if kind == "BatchNormalization":
        return F.batch_norm(x[0], x[3], x[4], x[1], x[2], eps=given["epsilon"])
    if kind == "PRelu":
        return torch.where(x[0] >= 0, x[0], x[0] * x[1])
    if kind == "DequantizeLinear":
        axis, block = given["axis"], given["block_size"]
        scale, zero = (t.float().repeat_interleave(block, dim=axis) for t in (x[1], x[2]))
        length = x[0].shape[axis]
        return (x[0].float() - zero.narrow(axis, 0, length)) * scale.narrow(axis, 0, length)
    if kind == "Reshape":
        return x[0].reshape(x[1].tolist())
    if kind == "Gemm":
        return F.linear(x[0], x[1] if given.get("transB") else x[1].t(), x[2])
    if kind == "Constant":
        return torch.from_numpy(given["value"].copy())
    if kind in ("Sub", "Mul"):
        return x[0] - x[1] if kind == "Sub" else x[0] * x[1]
    if kind == "Flatten":
        return x[0].flatten(1)
    if kind == "Dropout":
        return x[0]
    raise InputError(
        f"The operation {kind} is not one this version can run; use the weights named in models/README.md."
    )


def _same(x: torch.Tensor, kernel: tuple[int, ...], stride: tuple[int, int], value: float) -> torch.Tensor:
    """TensorFlow's padding "same": what is uneven goes to the right and bottom."""
    sizes = []
    for side, k, s in zip(x.shape[-2:], kernel, stride, strict=True):
        total = max((-(-side // s) - 1) * s + k - side, 0)
        sizes.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = sizes
    return F.pad(x, (left, right, top, bottom), value=value) if top + bottom + left + right else x


class FrozenMesh(nn.Module):
    """468 points of face crops (Kartynnik et al. 2019, arXiv:1907.06724), without refinement of the eyes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = FrozenGraph(read_tflite(locate("face_mesh")))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Points `[N, 468, 2]` in shares 0..1 of the crop's side, of upright crops `[N, 3, S, S]` 0..1 as `align.take_crop` cuts
        them: they hold the face much as the network's own square does."""
        if image.shape[-1] != _MESH_SIZE:
            image = F.interpolate(
                image, size=(_MESH_SIZE, _MESH_SIZE), mode="bilinear", antialias=image.shape[-1] > _MESH_SIZE
            )
        points = next(o for o in self.net(image) if o[0].numel() == mesh.POINT_COUNT * 3)
        return points.reshape(len(image), mesh.POINT_COUNT, 3)[..., :2] / _MESH_SIZE


class FrozenIdentity(nn.Module):
    """SFace (Zhong et al. 2021, arXiv:2205.12010): unit vectors `[N, 128]`."""

    def __init__(self) -> None:
        super().__init__()
        self.net = FrozenGraph(read_onnx(locate("sface")))

    def forward(self, image: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Of crops `[N, 3, S, S]` 0..1 and their five points `[N, 5, 2]` in px, as `faces.landmarks.five_points` orders them."""
        chips = chip(image, points)
        return F.normalize(self.net(chips * 255)[0].flatten(1), dim=1)


def chip(image: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """`align.five_point_chip` with a gradient: `[N, 3, 112, 112]` of crops `[N, 3, S, S]` and points `[N, 5, 2]` px."""
    template = torch.as_tensor(ARCFACE_TEMPLATE, device=image.device)
    target, source = template[None], points.float()
    a, b = target - target.mean(1, keepdim=True), source - source.mean(1, keepdim=True)
    # the best similarity in the plane, chip to crop, as one complex number
    spread = a.square().sum((1, 2))
    real = (a * b).sum((1, 2)) / spread
    imaginary = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(1) / spread
    rows, columns = torch.meshgrid(*(torch.arange(_CHIP_SIZE, device=image.device).float(),) * 2, indexing="ij")
    x, y = columns - target[0, :, 0].mean(), rows - target[0, :, 1].mean()
    real, imaginary = real[:, None, None], imaginary[:, None, None]
    place = torch.stack([real * x - imaginary * y, imaginary * x + real * y], dim=-1) + source.mean(1)[:, None, None]
    size = image.new_tensor([image.shape[-1], image.shape[-2]])
    return F.grid_sample(image, (place + 0.5) / size * 2 - 1, align_corners=False)
