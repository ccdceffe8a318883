"""Stages at once: in order, bounded, and stopped as one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

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
    written.clear()
    stages = {"before": lambda x: x + 1, "after": lambda x: -x}
    assert overlap(items, lambda x: x * 2, written.append, depth, **stages) == len(items)
    assert written == [-(x + 1) * 2 for x in items]


def test_work_stays_in_the_callers_thread_and_the_others_do_not() -> None:
    names: dict[str, str] = {}

    def read() -> Iterator[int]:
        names["read"] = threading.current_thread().name
        yield 1

    def work(item: int) -> int:
        names["work"] = threading.current_thread().name
        return item

    def noting(name: str) -> Callable[[int], str]:
        return lambda _: names.setdefault(name, threading.current_thread().name)

    overlap(read(), work, noting("write"))
    assert names["work"] == threading.current_thread().name
    assert len(set(names.values())) == 3
    names.clear()
    overlap(read(), work, noting("write"), before=noting("before"), after=noting("after"))
    assert names["work"] == threading.current_thread().name
    assert len(set(names.values())) == 5


def test_all_stages_work_at_the_same_time() -> None:
    together = threading.Barrier(4, timeout=20)

    def meeting_at(item: int) -> Callable[[int], int]:
        def stage(k: int) -> int:
            if k == item:
                together.wait()
            return k

        return stage

    # Each stage waits, with an item of its own in hand, for the three others.
    stages = {"before": meeting_at(3), "after": meeting_at(1)}
    assert overlap(range(5), meeting_at(2), meeting_at(0), 4, **stages) == 5


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


@pytest.mark.parametrize("stage", ["read", "before", "work", "after", "write"])
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

    def step(name: str) -> Callable[[int], int]:
        def work(k: int) -> int:
            fail(name, k)
            return k

        return work

    there = threading.active_count()
    with pytest.raises(KeyError, match=stage):
        overlap(read(), step("work"), step("write"), depth=2, before=step("before"), after=step("after"))
    assert closed.is_set() and threading.active_count() == there
