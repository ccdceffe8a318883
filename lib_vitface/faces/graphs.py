"""Small readers of two network formats, so that networks which OpenCV runs can also be run by torch and carry gradients.

ONNX is protobuf (https://onnx.ai/onnx/repo-docs/IR.html), TFLite is a flatbuffer (TensorFlow's `schema.fbs`). Only what the
networks of `assets` contain is read; anything else is named in an `InputError`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import InputError

Array = NDArray[Any]


@dataclass(frozen=True)
class Node:
    """One operation: its name in the format's own words, the names of what it reads and writes, its settings."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Operations in an order in which they can run, constants by name, and the names of inputs and outputs."""

    nodes: tuple[Node, ...]
    constants: dict[str, Array]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def read_onnx(path: Path) -> Graph:
    """A network in ONNX. Raises `InputError` where the file is damaged."""
    try:
        model = dict(_fields(memoryview(path.read_bytes())))
        parts = list(_fields(model[7]))
        constants = dict(_onnx_tensor(v) for f, v in parts if f == 5)
        nodes = [_onnx_node(v) for f, v in parts if f == 1]
        named = {f: [_text(dict(_fields(v))[1]) for g, v in parts if g == f] for f in (11, 12)}
    except (OSError, KeyError, ValueError, IndexError, struct.error) as error:
        raise InputError(
            f"{path} is no readable ONNX network ({error}); delete it so that it is fetched again."
        ) from None
    inputs = tuple(n for n in named[11] if n not in constants)
    return Graph(_ordered(nodes, {*constants, *inputs}, path), constants, inputs, tuple(named[12]))


def unpacked_onnx(path: Path) -> bytes:
    """The same network with weights in float32, where they are whole numbers with a factor for each block of them: not every engine
    reads those. Raises `InputError` where the file is damaged."""
    graph = read_onnx(path)
    known, made = dict(graph.constants), set[str]()
    for node in graph.nodes:
        if node.kind in ("DequantizeLinear", "Reshape") and all(i in known for i in node.inputs):
            known[node.outputs[0]] = _unpacked(node, [known[i] for i in node.inputs])
            made.add(node.outputs[0])
    read = {i for node in graph.nodes if node.outputs[0] not in made for i in node.inputs}

    def stays(number: int, value: Any) -> bool:
        if number == 1:
            return _onnx_node(value).outputs[0] not in made
        if number == 5:
            return _onnx_tensor(value)[0] in read
        return number != 13 and (number != 11 or _text(dict(_fields(value))[1]) not in known)  # 13: what lies between

    data = list(_fields(memoryview(path.read_bytes())))
    parts = [part for part in _fields(dict(data)[7]) if stays(*part)]
    parts += [(5, _written_tensor(name, known[name])) for name in sorted(made & read)]
    return _message([(number, _message(parts) if number == 7 else value) for number, value in data])


def _unpacked(node: Node, x: list[Array]) -> Array:
    if node.kind == "Reshape":
        return x[0].reshape(x[1].tolist())
    axis, block = node.settings["axis"], node.settings["block_size"]
    length = x[0].shape[axis]
    scale, zero = (np.repeat(one.astype(np.float32), block, axis).take(range(length), axis) for one in x[1:])
    return (x[0].astype(np.float32) - zero) * scale


def _written_tensor(name: str, values: Array) -> bytes:
    shape: list[tuple[int, Any]] = [(1, side) for side in values.shape]
    return _message([*shape, (2, 1), (8, name.encode()), (9, values.astype("<f4").tobytes())])


def _message(fields: list[tuple[int, Any]]) -> bytes:
    """A protobuf message of numbers and bytes; the opposite of `_fields`."""
    out = bytearray()
    for number, value in fields:
        whole = isinstance(value, int)
        out += _written_number(number << 3 | (0 if whole else 2)) + _written_number(value if whole else len(value))
        out += b"" if whole else value
    return bytes(out)


def _written_number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _ordered(nodes: list[Node], known: set[str], path: Path) -> tuple[Node, ...]:
    """The nodes so that each comes after those it reads from."""
    done: list[Node] = []
    left = list(nodes)
    while left:
        ready = [n for n in left if all(i in known or not i for i in n.inputs)]
        if not ready:
            raise InputError(f"{path}: its operations go round in circles; delete it so that it is fetched again.")
        done += ready
        known = known | {o for n in ready for o in n.outputs}
        taken = {id(n) for n in ready}
        left = [n for n in left if id(n) not in taken]
    return tuple(done)


def _fields(data: Any) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of a protobuf message: int for numbers, bytes-like for what has a length."""
    place, end = 0, len(data)

    def number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < end:
        key = number()
        wire = key & 7
        if wire == 0:
            yield key >> 3, number()
            continue
        length = {1: 8, 5: 4}.get(wire) or number()
        if place + length > end:
            raise ValueError("it ends too early")
        yield key >> 3, data[place : place + length]
        place += length


def _text(value: Any) -> str:
    return bytes(value).decode()


_ONNX_TYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 10: "<f2"}


def _onnx_tensor(data: Any) -> tuple[str, Array]:
    shape: list[int] = []
    name, kind, raw, listed = "", 1, b"", []
    for number, value in _fields(data):
        if number == 1:
            shape += [value] if isinstance(value, int) else _packed(value)
        elif number == 2:
            kind = value
        elif number == 4:
            raw += bytes(value)  # float_data is packed little-endian as raw_data is
        elif number in (5, 7):
            listed += [value] if isinstance(value, int) else _packed(value)
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = bytes(value)
    if kind not in _ONNX_TYPES:
        raise ValueError(f"tensor type {kind}")
    values = np.frombuffer(raw, _ONNX_TYPES[kind]) if raw else np.array(listed, _ONNX_TYPES[kind])
    return name, values.reshape(shape)


def _packed(data: Any) -> list[int]:
    """Whole numbers written one after the other."""
    found = []
    value = shift = 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            found.append(value - (1 << 64) if value >> 63 else value)
            value = shift = 0
    return found


def _onnx_node(data: Any) -> Node:
    inputs, outputs, kind, settings = [], [], "", {}
    for number, value in _fields(data):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:
            kind = _text(value)
        elif number == 5:
            name, setting = _onnx_setting(value)
            settings[name] = setting
    return Node(kind, tuple(inputs), tuple(outputs), settings)


def _onnx_setting(data: Any) -> tuple[str, Any]:
    name, found, many = "", None, []
    for number, value in _fields(data):
        if number == 1:
            name = _text(value)
        elif number == 2:
            found = struct.unpack("<f", bytes(value))[0]
        elif number == 3:
            found = value
        elif number == 5:
            found = _onnx_tensor(value)[1]
        elif number == 8:
            many += [value] if isinstance(value, int) else _packed(value)
    return name, many or found


_TFLITE_KINDS = {
    0: "ADD",
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    6: "DEQUANTIZE",
    17: "MAX_POOL_2D",
    34: "PAD",
    54: "PRELU",
}
_TFLITE_TYPES = {0: "<f4", 1: "<f2", 2: "<i4"}


def read_tflite(path: Path) -> Graph:
    """A network in TFLite. Raises `InputError` where the file is damaged or holds operations this cannot read."""
    try:
        data = path.read_bytes()
        model = _Table(data, struct.unpack_from("<I", data)[0])
        kinds = [max(c.number(0, "b"), c.number(3, "i")) for c in model.tables(1)]
        buffers, graph = model.tables(4), model.tables(2)[0]
        tensors = graph.tables(0)
        constants = {}
        for index, tensor in enumerate(tensors):
            raw = buffers[tensor.number(2, "I")].numbers(0, "u1")
            if len(raw):
                constants[str(index)] = np.frombuffer(raw.tobytes(), _TFLITE_TYPES[tensor.number(1, "b")]).reshape(
                    tensor.numbers(0, "<i4")
                )
        nodes = [_tflite_node(o, kinds) for o in graph.tables(3)]
        inputs, outputs = (tuple(map(str, graph.numbers(k, "<i4"))) for k in (1, 2))
    except (OSError, KeyError, ValueError, IndexError, struct.error) as error:
        raise InputError(
            f"{path} is no readable TFLite network ({error}); delete it so that it is fetched again."
        ) from None
    return Graph(tuple(nodes), constants, inputs, outputs)


def _tflite_node(operator: _Table, kinds: list[int]) -> Node:
    kind = kinds[operator.number(0, "I")]
    if kind not in _TFLITE_KINDS:
        raise ValueError(f"operation {kind}")
    name, given = _TFLITE_KINDS[kind], operator.table(4)
    settings: dict[str, Any] = {}
    if given is not None and name in ("CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D"):
        settings = {"same": given.number(0, "b") == 0, "stride": (given.number(2, "i"), given.number(1, "i"))}
        activation = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 4, "MAX_POOL_2D": 5}[name]
        if given.number(activation, "b"):
            raise ValueError(f"an activation inside {name}")
        if name == "MAX_POOL_2D":
            settings["kernel"] = (given.number(4, "i"), given.number(3, "i"))
    inputs, outputs = (tuple(map(str, operator.numbers(k, "<i4"))) for k in (1, 2))
    return Node(name, inputs, outputs, settings)


class _Table:
    """A flatbuffer table: `number`, `numbers`, `table`, `tables` read its fields by their place in the schema."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data, self._start = data, start
        self._fields = start - self._unpack("i", start)
        self._length = self._unpack("H", self._fields)

    def _unpack(self, code: str, place: int) -> Any:
        return struct.unpack_from("<" + code, self._data, place)[0]

    def _at(self, field_number: int) -> int:
        place = 4 + 2 * field_number
        offset = self._unpack("H", self._fields + place) if place < self._length else 0
        return self._start + offset if offset else 0

    def number(self, field_number: int, code: str) -> Any:
        place = self._at(field_number)
        return self._unpack(code, place) if place else 0

    def numbers(self, field_number: int, kind: str) -> Array:
        place, count = self._vector(field_number)
        return np.frombuffer(self._data, kind, count, place) if count else np.zeros(0, kind)

    def table(self, field_number: int) -> _Table | None:
        place = self._at(field_number)
        return _Table(self._data, place + self._unpack("I", place)) if place else None

    def tables(self, field_number: int) -> list[_Table]:
        place, count = self._vector(field_number)
        places = (place + 4 * k for k in range(count))
        return [_Table(self._data, p + self._unpack("I", p)) for p in places]

    def _vector(self, field_number: int) -> tuple[int, int]:
        place = self._at(field_number)
        if not place:
            return 0, 0
        place += self._unpack("I", place)
        return place + 4, self._unpack("I", place)
