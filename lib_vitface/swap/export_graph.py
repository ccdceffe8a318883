"""Networks into ONNX files: written, made plain, checked, and quantised."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lib_vitface.errors import CheckpointError
from lib_vitface.models.runtime import OUTPUTS
from lib_vitface.types import Floats


def write_onnx(
    network: nn.Module, example: Mapping[str, Floats], path: Path, opset: int, facts: Mapping[str, str]
) -> None:
    """The network as an ONNX file whose first axis (clips) is free; `facts` become its metadata.

    `example` holds two clips or more, of `types.Batch`'s shapes; where they are longer than a frame, their length is free as well.
    Raises `CheckpointError` where torch or ONNX cannot express the network.
    """
    onnx = import_module("onnx")
    clips, frames = torch.export.Dim("clips"), torch.export.Dim("frames")
    free = {name: {0: clips, **({1: frames} if values.shape[1] > 1 else {})} for name, values in example.items()}
    tensors = tuple(torch.from_numpy(values) for values in example.values())
    try:
        with torch.no_grad(), _quiet():
            torch.onnx.export(
                network, tensors, str(path), dynamo=True, opset_version=opset, input_names=list(example),
                output_names=list(OUTPUTS), dynamic_shapes=(tuple(free.values()),), external_data=False,
            )  # fmt: skip
        model = onnx.load(str(path))
        fixed = [v.name for v in model.graph.input if not v.type.tensor_type.shape.dim[0].dim_param]
        if fixed:  # e.g. by a `len(tensor)` in a network, which the exporter takes for a constant
            raise RuntimeError(f"the number of clips became fixed in {', '.join(fixed)}")
        shrink_by_products(model)
        for name, value in facts.items():
            entry = model.metadata_props.add()
            entry.key, entry.value = name, value
        onnx.checker.check_model(model, full_check=True)
    except (RuntimeError, TypeError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"The network cannot be written as ONNX of opset {opset} ({reason}).") from error
    onnx.save(model, str(path))


def shrink_by_products(model: Any) -> int:
    """Replaces every antialiased resize of an ONNX model, in place, by two matrix products; returns how many there were.

    Engines differ in how they smooth, or leave it out: OpenVINO's picture was off by a grey level. The products are exact everywhere.
    """
    onnx = import_module("onnx")
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.value_info, *model.graph.input)
    }
    count = 0
    for node in list(model.graph.node):
        attributes = {a.name: a for a in node.attribute}
        if node.op_type != "Resize" or "antialias" not in attributes or not attributes["antialias"].i:
            continue
        before, after = shapes[node.input[0]], shapes[node.output[0]]
        rows, columns = (_shrinking(before[k], after[k]) for k in (-2, -1))
        names = [f"{node.name}_{part}" for part in ("rows", "columns", "half")]
        for name, values in zip(names, (rows, columns.T), strict=False):
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        place = list(model.graph.node).index(node)
        model.graph.node.remove(node)
        products = (
            onnx.helper.make_node("MatMul", [names[0], node.input[0]], [names[2]], name=f"{node.name}_down"),
            onnx.helper.make_node("MatMul", [names[2], names[1]], list(node.output), name=f"{node.name}_across"),
        )
        for offset, product in enumerate(products):
            model.graph.node.insert(place + offset, product)
        count += 1
    return count


def _shrinking(before: int, after: int) -> Floats:
    """The matrix `[after, before]` that torch's antialiased bilinear resize multiplies a row by."""
    unit = torch.eye(before)[None, None]  # resized in height only, a unit matrix becomes the one that does it
    found: Floats = F.interpolate(unit, size=(after, before), mode="bilinear", antialias=True)[0, 0].numpy()
    return found


def to_int8(path: Path, pictures: Sequence[Mapping[str, Floats]]) -> None:
    """The file with weights and activations of convolutions and matrix products in 8 bits, ranges taken from `pictures`.

    Static quantisation with a scale for each channel (Jacob et al. 2018, arXiv:1712.05877), as ONNX Runtime does it. The last layers,
    which give the pixels, stay in float32.
    """
    quantization = import_module("onnxruntime.quantization")
    onnx = import_module("onnx")
    graph = onnx.load(str(path)).graph
    names = {item.name for item in graph.input}
    reader: Any = _Reader([{k: v for k, v in one.items() if k in names} for one in pictures])
    beside = path.with_name("int8.onnx")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a preparation that changes nothing here
    try:
        quantization.quantize_static(
            str(path), str(beside), reader, per_channel=True, op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            nodes_to_exclude=_last_layers(graph), quant_format=quantization.QuantFormat.QDQ,
        )  # fmt: skip
    finally:
        root.setLevel(level)
    onnx.checker.check_model(str(beside))
    beside.replace(path)


class _Reader:
    """Calibration data as ONNX Runtime asks for it."""

    def __init__(self, pictures: Sequence[Mapping[str, Floats]]) -> None:
        self._left: Iterator[Mapping[str, Floats]] = iter(pictures)

    def get_next(self) -> Mapping[str, Floats] | None:
        return next(self._left, None)


def _last_layers(graph: Any) -> list[str]:
    """Names of the convolutions nearest to each output."""
    maker = {name: node for node in graph.node for name in node.output}
    found = []
    for output in graph.output:
        waiting, seen = [output.name], set()
        while waiting:
            node = maker.get(waiting.pop(0))
            if node is None or node.name in seen:
                continue
            seen.add(node.name)
            if node.op_type in {"Conv", "Gemm"}:
                found.append(node.name)
            else:
                waiting += node.input
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's progress off stdout, which belongs to the command's own result."""
    with redirect_stdout(StringIO()):
        yield
