"""Plain values out of a pickle, without unpickling it.

DeepFaceLab and faceswap keep what they know of a face as pickles, and whoever loads a pickle runs whatever program its author
put into it. Here nothing is loaded: the standard library's `pickletools.genops` splits the file into its instructions, and the
few that build numbers, texts, lists, dicts and numeric numpy arrays are carried out on plain data. No name in the file is ever
imported, no object of a class from the file is ever made; an instruction or a name that is not listed here is refused.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import InputError

MAX_STEPS = 50_000_000
_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|\?)")


class _RefusedError(ValueError):
    """The pickle holds something other than plain values."""


@dataclass(frozen=True)
class _Name:
    """A global the pickle asks for; only ever compared with the table below, never imported."""

    path: str


@dataclass
class _Dtype:
    """A numpy dtype under construction: kind and size, then the byte order."""

    code: str

    def set_state(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"
        self.code = (order if order in ("<", ">") else "") + self.code.lstrip("<>|=")

    def dtype(self) -> np.dtype[Any]:
        if not _DTYPE.fullmatch(self.code):
            raise _RefusedError(f"an array of type {self.code[:20]!r}")
        return np.dtype(self.code)


@dataclass
class _Array:
    """A numpy array whose content comes with a later instruction; `places` are the memo entries that refer to it."""

    places: list[int] = field(default_factory=list)


@dataclass
class Foreign:
    """What stands for an object of a class that is not made here: the class's name, and the plain values it was saved with."""

    path: str
    arguments: Any = ()
    state: Any = None


def read(data: bytes, name: str, *, foreign: bool = False) -> Any:
    """The value a pickle stands for: None, bool, int, float, str, bytes, list, tuple, dict, set, numeric array, of any nesting.

    With `foreign` objects of other classes come as `Foreign`; nothing of theirs is run either. Raises InputError naming the file
    (`name`) where it is damaged or holds anything else.
    """
    try:
        return _Machine(foreign).run(data)
    except _RefusedError as refused:
        raise InputError(
            f"{name}: its metadata holds {refused}, which plain face data never does; it was not read."
        ) from None
    except (ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError, RecursionError) as error:
        raise InputError(f"{name}: its metadata is damaged ({type(error).__name__}); extract it again.") from None


class _Machine:
    """Stack, marks and memo of one pickle."""

    def __init__(self, foreign: bool = False) -> None:
        self.foreign = foreign
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for step, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if step > MAX_STEPS:
                raise _RefusedError("more than any face data needs")
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in _PUSH_ARGUMENT:
                self.stack.append(argument)
            elif opcode.name in _PUSH_VALUE:
                self.stack.append(_PUSH_VALUE[opcode.name]())
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](self, argument)
            elif opcode.name not in {"PROTO", "FRAME"}:
                raise _RefusedError(f"the instruction {opcode.name}")
        raise ValueError("the pickle has no end")

    def to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def last(self, number: int) -> list[Any]:
        if len(self.stack) < number:
            raise ValueError("too few values")
        items = self.stack[len(self.stack) - number :]
        del self.stack[len(self.stack) - number :]
        return items

    def mark(self, _: Any) -> None:
        self.marks.append(len(self.stack))

    def put(self, place: Any) -> None:
        place = len(self.memo) if place is None else int(place)
        self.memo[place] = self.stack[-1]
        if isinstance(self.stack[-1], _Array):
            self.stack[-1].places.append(place)

    def get(self, place: Any) -> None:
        self.stack.append(self.memo[int(place)])

    def pop(self, _: Any) -> None:
        self.stack.pop()

    def append(self, _: Any) -> None:
        (item,) = self.last(1)
        self._list().append(item)

    def appends(self, _: Any) -> None:
        items = self.to_mark()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        if not isinstance(self.stack[-1], list):
            raise ValueError("not a list")
        return self.stack[-1]

    def set_items(self, _: Any, count: int | None = None) -> None:
        items = self.to_mark() if count is None else self.last(count)
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise ValueError("not a dict")
        target.update(zip(items[0::2], items[1::2], strict=True))

    def add_items(self, _: Any) -> None:
        items = self.to_mark()
        if not isinstance(self.stack[-1], set):
            raise ValueError("not a set")
        self.stack[-1].update(items)

    def name(self, argument: Any) -> None:
        self.stack.append(_Name(str(argument).replace(" ", ".")))

    def stack_name(self, _: Any) -> None:
        module, name = self.last(2)
        self.stack.append(_Name(f"{module}.{name}"))

    def reduce(self, _: Any) -> None:
        function, arguments = self.last(2)
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise _RefusedError("a call")
        if function.path in _CALLS:
            self.stack.append(_CALLS[function.path](arguments))
        elif self.foreign:
            self.stack.append(_stand_in(function, arguments))
        else:
            raise _RefusedError(f"a call of {function.path[:60]}")

    def new_object(self, _: Any) -> None:
        made, arguments = self.last(2)
        if not self.foreign or not isinstance(made, _Name):
            raise _RefusedError("the instruction NEWOBJ")
        self.stack.append(_stand_in(made, arguments))

    def build(self, _: Any) -> None:
        target, state = self.last(2)
        if isinstance(target, _Dtype):
            target.set_state(state)
            self.stack.append(target)
        elif isinstance(target, _Array):
            array = _filled(state)
            for place in target.places:
                self.memo[place] = array
            self.stack.append(array)
        elif isinstance(target, Foreign):
            target.state = state
            self.stack.append(target)
        else:
            raise _RefusedError("an object of an own class")


def _stand_in(function: _Name, arguments: tuple[Any, ...]) -> Foreign:
    """`copyreg._reconstructor(class, base, state)` names the class among its arguments."""
    made = next((a for a in arguments if isinstance(a, _Name)), None) if "_reconstructor" in function.path else None
    return Foreign((made or function).path, tuple(a for a in arguments if not isinstance(a, _Name)))


def _filled(state: Any) -> NDArray[Any]:
    """An array from numpy's state `(version, shape, dtype, is_fortran, bytes)`."""
    _, shape, dtype, fortran, raw = state
    return _array(raw, dtype, shape, "F" if fortran else "C")


def _array(raw: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(dtype, _Dtype) or not isinstance(raw, (bytes, bytearray)):
        raise _RefusedError("an array of objects")
    flat = np.frombuffer(bytes(raw), dtype=dtype.dtype())
    return flat.reshape(tuple(int(n) for n in shape), order="F" if order == "F" else "C")


def _encoded(arguments: tuple[Any, ...]) -> bytes:
    """Bytes as protocols 0 to 2 write them: text of the same code points."""
    text = arguments[0]
    if not isinstance(text, str) or arguments[1:] not in (("latin1",), ("latin-1",)):
        raise _RefusedError("an unusual encoding")
    return text.encode("latin-1")


def _plain_bytes(arguments: tuple[Any, ...]) -> bytes:
    """`bytearray(b"...")` and `bytes()`, but not `bytearray(10**12)`."""
    if not arguments:
        return b""
    if isinstance(arguments[0], (bytes, bytearray)) and len(arguments) == 1:
        return bytes(arguments[0])
    return _encoded(arguments)


def _plain_set(arguments: tuple[Any, ...]) -> set[Any]:
    """`set([...])` as protocols 0 to 3 write it."""
    (items,) = arguments
    if not isinstance(items, list):
        raise _RefusedError("an unusual set")
    return set(items)


def _scalar(arguments: tuple[Any, ...]) -> Any:
    dtype, raw = arguments
    return _array(raw, dtype, (), "C")[()]


_CALLS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "_codecs.encode": _encoded,
    "numpy.dtype": lambda arguments: _Dtype(str(arguments[0])),
    "collections.OrderedDict": lambda arguments: {},
}
for _module in ("builtins", "__builtin__"):
    _CALLS[f"{_module}.bytearray"] = _CALLS[f"{_module}.bytes"] = _plain_bytes
    _CALLS[f"{_module}.set"] = _CALLS[f"{_module}.frozenset"] = _plain_set
for _module in ("numpy.core", "numpy._core"):
    _CALLS[f"{_module}.multiarray._reconstruct"] = lambda arguments: _Array()
    _CALLS[f"{_module}.multiarray.scalar"] = _scalar
    _CALLS[f"{_module}.numeric._frombuffer"] = lambda arguments: _array(*arguments)

_PUSH_ARGUMENT = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_PUSH_VALUE: dict[str, Callable[[], Any]] = {
    **{"NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False},
    **{"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set},
}


def _tuple_of(number: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(tuple(machine.last(number)))


def _dict_of_mark(machine: _Machine, _: Any) -> None:
    items = machine.to_mark()
    machine.stack.append(dict(zip(items[0::2], items[1::2], strict=True)))


_STEPS: dict[str, Callable[[_Machine, Any], None]] = {
    **{"MARK": _Machine.mark, "POP": _Machine.pop, "POP_MARK": lambda machine, _: machine.to_mark().clear()},
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    **{"APPEND": _Machine.append, "APPENDS": _Machine.appends, "ADDITEMS": _Machine.add_items},
    **{"SETITEM": lambda machine, _: machine.set_items(_, 2), "SETITEMS": _Machine.set_items},
    **{"LIST": lambda machine, _: machine.stack.append(machine.to_mark()), "DICT": _dict_of_mark},
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.to_mark())),
    **{"TUPLE1": _tuple_of(1), "TUPLE2": _tuple_of(2), "TUPLE3": _tuple_of(3)},
    "FROZENSET": lambda machine, _: machine.stack.append(frozenset(machine.to_mark())),
    **{
        "GLOBAL": _Machine.name,
        "STACK_GLOBAL": _Machine.stack_name,
        "REDUCE": _Machine.reduce,
        "BUILD": _Machine.build,
        "NEWOBJ": _Machine.new_object,
    },
}
