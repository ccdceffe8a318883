"""The list of tasks: what form, command line and API read."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from lib_vitface import options
from lib_vitface.tasks import TASKS

KINDS = {"value", "file", "folder", "path", "paths", "output"}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_whole(name: str) -> None:
    task = TASKS[name]
    assert task.name == name and task.summary.endswith(".") and task.options.__doc__
    assert list(inspect.signature(task.run).parameters)[:2] == ["options", "host"]
    assert dataclasses.is_dataclass(task.options) and task.options.__dataclass_params__.frozen  # type: ignore[attr-defined]
    declared = options.declared(task.options)
    assert len(declared) == len(dataclasses.fields(task.options)), "every field is declared"
    for item in declared:
        spec = item.spec
        assert spec.help and spec.kind in KINDS, item.name
        number = item.type in {int, float}
        assert not number or spec.low is not None or spec.high is not None or spec.choices, f"{item.name} has no range"
        if not item.required and item.default not in (None, []):
            options.build(task.options, {**needed(name), item.name: item.default})


def needed(name: str) -> dict[str, object]:
    items = options.declared(TASKS[name].options)
    return {i.name: ["x"] if i.many else "x" for i in items if i.required}


@pytest.mark.parametrize("name", TASKS)
def test_options_survive_json(name: str) -> None:
    ready = options.build(TASKS[name].options, needed(name))
    assert options.build(type(ready), options.to_dict(ready)) == ready
