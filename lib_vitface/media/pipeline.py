"""Reading, working and writing at the same time, with bounded queues between."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

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


def overlap(
    read: Iterable[Any],
    work: Callable[[Any], Any],
    write: Callable[[Any], object],
    depth: int = 4,
    *,
    before: Callable[[Any], Any] | None = None,
    after: Callable[[Any], Any] | None = None,
) -> int:
    """`write(after(work(before(item)))) for item in read`, in order, all at the same time; returns how many items went through.

    `work` runs in the caller's thread, so that it keeps the caller's device, grad mode and signals; each of the others in one of
    its own (`before` and `after` only where they are given). At most `depth` items wait between two stages, so memory is bounded.
    The first error of any stage stops the others, the threads are joined, `read` is closed if it is a generator, and the error is
    raised here.
    """
    stop = threading.Event()
    errors: list[BaseException] = []
    count = 0

    def guarded(stage: Callable[[], None]) -> None:
        try:
            stage()
        except _Stopped:
            pass
        except BaseException as error:  # handed to the caller's thread, whatever it is
            errors.append(error)
            stop.set()

    def reading(out: _Lane) -> None:
        iterator = iter(read)
        try:
            for item in iterator:
                out.put(item)
            out.put(_END)
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()

    def passing(stage: Callable[[Any], Any], given: _Lane, out: _Lane) -> None:
        while (item := given.get()) is not _END:
            out.put(stage(item))
        out.put(_END)

    def counted(item: Any) -> Any:
        nonlocal count
        result = work(item)
        count += 1
        return result

    def writing(given: _Lane) -> None:
        while (item := given.get()) is not _END:
            write(item)

    lane = _Lane(depth, stop)
    aside: list[tuple[str, Callable[[], None]]] = [("read", partial(reading, lane))]
    for name, stage in (("before", before), ("work", counted), ("after", after)):
        if stage is None:
            continue
        following = _Lane(depth, stop)
        run = partial(passing, stage, lane, following)
        lane = following
        if name == "work":
            working = run
        else:
            aside.append((name, run))
    aside.append(("write", partial(writing, lane)))
    threads = [threading.Thread(target=guarded, args=(run,), name=f"vitface-{n}", daemon=True) for n, run in aside]
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
