"""Three stages at once: in order, bounded, and stopped as one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_vitface.media import overlap


@given(st.lists(st.integers(), max_size=30), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_everything_goes_through_in_order(items: list[int], depth: int) -> None:
    written: list[int] = []
    assert overlap(items, lambda x: x * 2, written.append, depth) == len(items)
    assert written == [x * 2 for x in items]


def test_work_stays_in_the_callers_thread_and_the_others_do_not() -> None:
    names: dict[str, str] = {}

    def read() -> Iterator[int]:
        names["read"] = threading.current_thread().name
        yield 1

    def work(item: int) -> int:
        names["work"] = threading.current_thread().name
        return item

    overlap(read(), work, lambda _: names.setdefault("write", threading.current_thread().name))
    assert names["work"] == threading.current_thread().name
    assert len(set(names.values())) == 3


def test_no_more_than_the_queues_hold_is_read_ahead() -> None:
    ahead, read_count, written = [], 0, 0

    def read() -> Iterator[int]:
        nonlocal read_count
        for k in range(60):
            read_count += 1
            yield k

    def write(_: int) -> None:
        nonlocal written
        time.sleep(0.002)
        ahead.append(read_count - written)
        written += 1

    overlap(read(), lambda x: x, write, depth=3)
    assert max(ahead) <= 3 + 3 + 3  # two queues, and one item in each hand


@pytest.mark.parametrize("stage", ["read", "work", "write"])
def test_the_first_error_stops_the_others_and_comes_out(stage: str) -> None:
    closed = threading.Event()

    def fail(name: str, k: int) -> None:
        if stage == name and k == 5:
            raise KeyError(name)

    def read() -> Iterator[int]:
        try:
            for k in range(10_000_000):
                fail("read", k)
                yield k
        finally:
            closed.set()

    def work(k: int) -> int:
        fail("work", k)
        return k

    before = threading.active_count()
    with pytest.raises(KeyError, match=stage):
        overlap(read(), work, lambda k: fail("write", k), depth=2)
    assert closed.is_set() and threading.active_count() == before
