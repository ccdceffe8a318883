"""Reading, working and writing at the same time, with bounded queues between."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")
_END = object()
_POLL_S = 0.05  # how soon a blocked stage notices that another one failed


class _Stopped(BaseException):
    """Another stage failed; unwinds a blocked one."""


class _Lane:
    """A bounded queue whose two ends give up when the run was stopped."""

    def __init__(self, depth: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._stop = stop

    def put(self, item: Any) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
        raise _Stopped

    def get(self) -> Any:
        while not self._stop.is_set():
            try:
                return self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                continue
        raise _Stopped


def overlap(read: Iterable[A], work: Callable[[A], B], write: Callable[[B], object], depth: int = 4) -> int:
    """`write(work(item)) for item in read`, in order, the three at the same time; returns how many items went through.

    `read` runs in one thread and `write` in another; `work` runs in the caller's, so that it keeps the caller's device, grad
    mode and signals. At most `depth` items wait between two stages, so memory is bounded. The first error of any stage
    stops the other two, the threads are joined, `read` is closed if it is a generator, and the error is raised here.
    """
    stop = threading.Event()
    errors: list[BaseException] = []
    fresh, done = _Lane(depth, stop), _Lane(depth, stop)

    def guarded(stage: Callable[[], None]) -> None:
        try:
            stage()
        except _Stopped:
            pass
        except BaseException as error:  # handed to the caller's thread, whatever it is
            errors.append(error)
            stop.set()

    def reading() -> None:
        iterator = iter(read)
        try:
            for item in iterator:
                fresh.put(item)
            fresh.put(_END)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def writing() -> None:
        while (item := done.get()) is not _END:
            write(item)

    count = 0

    def working() -> None:
        nonlocal count
        while (item := fresh.get()) is not _END:
            done.put(work(item))
            count += 1
        done.put(_END)

    threads = [
        threading.Thread(target=guarded, args=(stage,), name=f"vitface-{name}", daemon=True)
        for name, stage in (("read", reading), ("write", writing))
    ]
    for thread in threads:
        thread.start()
    try:
        guarded(working)
        for thread in threads:
            thread.join()
    except BaseException:  # an interrupt while joining: let no thread work on behind the caller's back
        stop.set()
        for thread in threads:
            thread.join()
        raise
    if errors:
        raise errors[0]
    return count
