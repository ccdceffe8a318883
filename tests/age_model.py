"""A network of the input and output of insightface's genderage.onnx that says what a picture's red is: 255 is 100 years."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest


def age_model(folder: Path, patch: pytest.MonkeyPatch, scale: float = 1.0) -> Path:
    """The file where insightface would have put it, and known as the published one. `scale`: years of a picture without red are 0,
    of one that is all red 100 times this. Its first nodes are called as those of the real one, by which insightface knows that
    colours go in as they are. Skips without onnx or onnxruntime."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    from lib_vitface.faces import age

    def constant(name: str, values: object, kind: object) -> object:
        return numpy_helper.from_array(np.array(values, kind), name)

    nodes = [
        helper.make_node("ReduceMean", ["data", "sides"], ["mean"], keepdims=0, name="_minus0"),  # [N, 3], red first
        helper.make_node("Gather", ["mean", "red"], ["one"], axis=1),  # [N, 1]
        helper.make_node("Mul", ["one", "factor"], ["age"], name="_mul0"),
        helper.make_node("Concat", ["gender", "age"], ["fc1"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "red as years",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["None", 3, 96, 96])],
        [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, [1, 3])],
        [
            constant("sides", [2, 3], np.int64),
            constant("red", [0], np.int64),
            constant("factor", scale / 255, np.float32),
            constant("gender", [[0.4, -0.4]], np.float32),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path = folder / "buffalo_l" / "genderage.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    patch.setattr(age, "HOME", folder)
    patch.setattr(age.InsightFaceAge, "sha256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path
