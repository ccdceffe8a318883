"""Pickles of plain face data are read as pickle itself reads them; everything else is refused and nothing of it runs."""

from __future__ import annotations

import collections
import datetime
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_vitface.errors import InputError
from lib_vitface.faceset import pickle_values

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.tuples(inner, inner, inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(value=PLAIN, protocol=st.sampled_from(PROTOCOLS))
def test_plain_values_as_pickle_reads_them(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    assert pickle_values.read(data, "x") == pickle.loads(data) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("code", ["<f4", ">f8", "<i8", "u1", "?", "<f2", "<u2"])
def test_numeric_arrays_of_every_protocol(protocol: int, code: str) -> None:
    array = (np.arange(24).reshape(2, 3, 4) % 7).astype(code)
    for value in (array, np.asfortranarray(array), array[:, ::2], np.zeros((0, 2), code), array[0, 0, 1]):
        found = pickle_values.read(pickle.dumps(value, protocol), "x")
        np.testing.assert_array_equal(found, value)
        assert found.dtype == value.dtype and found.shape == value.shape


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_array_in_several_places(protocol: int) -> None:
    array = np.arange(6, dtype=np.float32)
    found = pickle_values.read(
        pickle.dumps({"a": array, "b": [array, array], "s": {1, 2}, "y": bytearray(b"z")}, protocol), "x"
    )
    np.testing.assert_array_equal(found["b"][1], array)
    np.testing.assert_array_equal(found["a"], array)
    assert found["s"] == {1, 2}
    assert found["y"] == b"z"


def test_names_of_old_and_new_numpy() -> None:
    data = pickle.dumps(np.arange(3.0), 2)
    for module in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        renamed = data.replace(b"numpy._core.multiarray", module).replace(b"numpy.core.multiarray", module)
        np.testing.assert_array_equal(pickle_values.read(renamed, "x"), np.arange(3.0))


class Command:
    """What a hostile file holds."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_code_is_refused_and_does_not_run(protocol: int, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    for hostile in (
        Command(os.system, f"touch {trace}"),
        Command(eval, f"open({str(trace)!r}, 'w')"),
        Command(getattr, "", "join"),
        {"landmarks": [Command(os.mkdir, str(trace))]},
    ):
        with pytest.raises(InputError, match=r"face\.jpg: its metadata holds a call of"):
            pickle_values.read(pickle.dumps(hostile, protocol), "face.jpg")
    assert not trace.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [datetime.date(2020, 1, 1), collections.Counter("a"), np.array([None, {}]), np.array(["text"]), Path("x"), print],
)
def test_other_objects_are_refused(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    try:
        found = pickle_values.read(data, "x")
    except InputError:
        return
    assert isinstance(found, pickle_values._Name), "a bare name is inert: it was never looked up"


def test_bombs_are_refused_without_being_built() -> None:
    huge = pickle.dumps(Command(bytearray, 10**13), 2)
    with pytest.raises(InputError):
        pickle_values.read(huge, "x")
    far = b"\x80\x02N" + b"r" + struct.pack("<I", 0x7FFFFFFF) + b"."  # LONG_BINPUT of a far place
    assert pickle_values.read(far, "x") is None
    array = pickle.dumps(np.zeros(4, np.uint8), 2)
    with pytest.raises(InputError):
        pickle_values.read(array.replace(b"K\x04\x85", b"J\xff\xff\xff\x7f\x85"), "x")
    with pytest.raises(InputError, match="more than any face data needs"):
        pickle_values.MAX_STEPS, keep = 1000, pickle_values.MAX_STEPS
        try:
            pickle_values.read(pickle.dumps(list(range(5000))), "x")
        finally:
            pickle_values.MAX_STEPS = keep


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_is_an_input_error_and_nothing_else(data: st.DataObject) -> None:
    whole = bytearray(
        pickle.dumps(
            {"landmarks": np.zeros((68, 2)), "face_type": "head", "x": [1, (2, 3)]}, data.draw(st.integers(0, 5))
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    for one in (bytes(whole), cut):
        try:
            pickle_values.read(one, "face.jpg")
        except InputError as error:
            assert str(error).startswith("face.jpg: its metadata")
