"""Calls made in several processes, here or on other machines, through Ray (optional).

A worker that dies is replaced and its call is made again, so calls must give the same answer each time and write their files whole or
not at all. With `RAY_ADDRESS` set, the workers are those of a running cluster, whose machines must see the same folders.
"""

from __future__ import annotations

import importlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from lib_vitface.device import child_environment
from lib_vitface.errors import MissingDependencyError, ViTFaceError

A = TypeVar("A")
B = TypeVar("B")
Maker = Callable[[], Callable[[A], B]]
Map = Callable[[Maker[Any, Any], Iterable[Any]], Iterator[Any]]

_AHEAD = 2  # calls that are under way or waiting, for each worker
_TRIES = 3  # of a call whose worker dies
_POLL_S = 0.5
_STORE_BYTES = 1 << 30
_tools: dict[bytes, Callable[[Any], Any]] = {}


@contextmanager
def workers(count: int, waiting: Callable[[], object] = lambda: None) -> Iterator[Map]:
    """`map(make, items)`: answers of `make()(item)` in the order of the items, some of which are taken ahead of need.

    `make` is called once in each worker; it, items and answers must be picklable. `waiting` is called twice a second while an
    answer is waited for and may raise to stop. What a call raises of `errors` is raised here. Raises `MissingDependencyError`
    without Ray.
    """
    ray = _ray()
    mine = not ray.is_initialized()
    if mine:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = child_environment()["PYTHONPATH"]  # workers inherit it
        try:
            ray.init(**_where(count), log_to_driver=False)
        finally:
            os.environ.pop("PYTHONPATH") if before is None else os.environ.update(PYTHONPATH=before)
    try:
        yield lambda make, items: _answers(ray, count, make, items, waiting)
    finally:
        if mine:
            ray.shutdown()


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingDependencyError("Several workers need the package ray: pip install ray.") from error


def _where(count: int) -> dict[str, Any]:
    if os.environ.get("RAY_ADDRESS"):
        return {}
    return {"num_cpus": count, "include_dashboard": False, "object_store_memory": _STORE_BYTES}


def _answers(ray: Any, count: int, make: Maker[A, B], items: Iterable[A], waiting: Callable[[], object]) -> Iterator[B]:
    import pickle

    call = ray.remote(num_cpus=1, max_retries=_TRIES)(_call)
    told = ray.put(pickle.dumps(make))
    rest, under_way = iter(items), deque[Any]()
    try:
        while True:
            while len(under_way) < _AHEAD * count and (item := next(rest, rest)) is not rest:
                under_way.append(call.remote(told, item))
            if not under_way:
                return
            while not ray.wait([under_way[0]], timeout=_POLL_S)[0]:
                waiting()
            try:
                answer, error = ray.get(under_way.popleft())
            except ray.exceptions.RayError as lost:
                raise ViTFaceError(
                    f"A worker ended {_TRIES + 1} times at the same piece of work ({str(lost).splitlines()[0][:120]}); what was "
                    "finished is kept, the same command goes on; with fewer workers where memory does not suffice."
                ) from lost
            if error is not None:
                raise error
            yield answer
    finally:
        for one in under_way:
            ray.cancel(one, force=True)


def _call(told: bytes, item: Any) -> tuple[Any, ViTFaceError | None]:
    """In a worker: the answer, or what is to be raised."""
    import pickle

    try:
        if told not in _tools:
            _tools.clear()
            _tools[told] = pickle.loads(told)()
        return _tools[told](item), None
    except ViTFaceError as error:
        return None, error
