"""Every declared option has a control, every control reaches its option, and nothing on the page is wired to nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio", reason="gradio is not installed (requirements-ui.txt)")

from lib_vitface import options  # noqa: E402
from lib_vitface.options import Declared, declared  # noqa: E402
from lib_vitface.tasks import TASKS  # noqa: E402
from lib_vitface.ui import form as forms  # noqa: E402
from lib_vitface.ui import tabs  # noqa: E402
from lib_vitface.ui.runner import Runner  # noqa: E402
from lib_vitface.ui.site import Site  # noqa: E402
from lib_vitface.ui.studio import Studio, picture_items  # noqa: E402

# what is only shown; every other control has to lead somewhere
SHOWN_ONLY = {"html", "accordion", "row", "column", "tabs", "tabitem", "form", "group", "state", "markdown", "label"}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "w", tmp_path / "out")


def other_value(item: Declared, site: Site) -> Any:
    """A value that is not the default, as a person would leave it in the control."""
    spec = item.spec
    if item.type is Path:
        return "a.png\nb.png" if item.many else "a.png"
    if item.many:
        return [spec.choices[-1]]
    if item.type is bool:
        return not item.default
    if spec.choices:
        return next(choice for choice in spec.choices if choice != item.default)
    if item.type in {int, float}:
        value = spec.high if spec.high is not None else (spec.low or 0) + 1
        value = spec.low if value == item.default else value
        return str(item.type(value)) if item.optional else item.type(value)
    return "2030-01-02"


@pytest.mark.parametrize("name", TASKS)
def test_every_option_has_a_control_that_reaches_it(site: Site, name: str) -> None:
    task = TASKS[name]
    with gr.Blocks():
        form = forms.build(site, name, task.options, "p")
    assert [item.name for item in form.items] == [item.name for item in declared(task.options)]
    base = [None if item.type is not bool else item.default for item in form.items]
    required = {item.name: other_value(item, site) for item in form.items if item.required}
    for number, item in enumerate(form.items):
        values = [required.get(one.name, base[k]) for k, one in enumerate(form.items)]
        values[number] = other_value(item, site)
        ready = options.build(task.options, site.place(task, form.read(values)))
        found = getattr(ready, item.name)
        assert found != item.default, f"{name}: {item.name} has no effect"
        component = form.components[number]
        assert component.label == forms.label_of(item)
        assert "--" not in component.info, f"{item.name}: a form has no flags"


@pytest.mark.parametrize("name", TASKS)
def test_an_untouched_form_means_the_defaults(site: Site, name: str) -> None:
    """What the controls show at first is what the command line would do."""
    task = TASKS[name]
    with gr.Blocks():
        form = forms.build(site, name, task.options, "p")
    required = {item.name: other_value(item, site) for item in form.items if item.required}
    values = [required.get(i.name, c.value) for i, c in zip(form.items, form.components, strict=True)]
    ready = options.build(task.options, site.place(task, form.read(values)))
    for item in form.items:
        if item.name not in required and (item.type is not Path or item.default in (None, [])):
            assert getattr(ready, item.name) == item.default, item.name


def test_labels_and_hints_are_for_people(site: Site) -> None:
    by_name = {item.name: item for item in declared(TASKS["swap"].options)}
    assert forms.label_of(by_name["start_s"]) == "Start (s)"
    assert forms.label_of(by_name["max_yaw_deg"]) == "Max yaw (°)"
    assert forms.label_of(by_name["fade_frames"]) == "Fade frames"
    assert "“Face index”" in forms.info_of(by_name["face"])


def page(site: Site) -> Any:
    return tabs.build(Runner(site), Studio(site))


def test_nothing_is_wired_to_nothing(site: Site) -> None:
    """Every control is read by an event or starts one."""
    config = page(site).get_config_file()
    used: set[int] = set()
    for event in config["dependencies"]:
        used |= set(event["inputs"])
        used |= {target[0] if isinstance(target, (list, tuple)) else target for target in event["targets"]}
    shown = {output for event in config["dependencies"] for output in event["outputs"]}
    for component in config["components"]:
        if component["type"] in SHOWN_ONLY or component["id"] in used:
            continue
        props = component["props"]
        only_shown = component["id"] in shown and not props.get("interactive", False)
        assert only_shown, f"{component['type']} {props.get('label') or props.get('elem_id')} leads nowhere"


def test_ids_are_ours_and_given_once(site: Site) -> None:
    config = page(site).get_config_file()
    ids = [c["props"].get("elem_id") for c in config["components"] if c["props"].get("elem_id")]
    assert not {one for one in ids if ids.count(one) > 1}
    assert all(one.startswith("vitface-") for one in ids)


def test_the_webui_keeps_no_start_values_of_the_tabs(site: Site) -> None:
    assert all(block.do_not_save_to_config for block in page(site).blocks.values())


def test_the_script_has_the_picture_options(site: Site) -> None:
    with gr.Blocks():
        form = forms.Form(site, "swap", "p")
        forms.build_items(form, picture_items())
    assert [item.name for item in form.items] == [item.name for item in picture_items()]
