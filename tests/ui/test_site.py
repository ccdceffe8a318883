"""Which paths may be used, where bare names lie, and what becomes of uploads."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lib_vitface.errors import InputError, OutputError
from lib_vitface.tasks import TASKS
from lib_vitface.ui.site import Site, safe_name


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "w", tmp_path / "out", (tmp_path / "extra",), upload_limit=100)


def test_bare_names_lie_where_their_kind_does(site: Site) -> None:
    placed = site.place(TASKS["train"], {"source": "me", "target": "her", "model": "m"})
    assert placed["source"] == str(site.facesets.resolve() / "me")
    assert placed["model"] == str(site.models.resolve() / "m")
    placed = site.place(TASKS["swap"], {"model": "m", "input": "a.mp4", "output": "b.mp4"})
    assert placed["input"] == str(site.uploads.resolve() / "a.mp4")
    assert placed["output"] == str(site.outputs.resolve() / "b.mp4")


def test_a_name_that_is_not_there_is_looked_for_elsewhere(site: Site) -> None:
    """A result is checked, a faceset measured, by its bare name; what is written goes where its kind does."""
    for place in (site.outputs / "b.mp4", site.facesets / "me", site.facesets / "b.mp4"):
        place.mkdir(parents=True)
    inputs = site.place(TASKS["inspect"], {"input": "b.mp4\nnew.png"})["input"]
    assert inputs == [str(site.outputs.resolve() / "b.mp4"), str(site.uploads.resolve() / "new.png")]
    placed = site.place(TASKS["evaluate"], {"source": "me", "target": "b.mp4", "result": "b.mp4", "json": "b.mp4"})
    assert placed["source"] == str(site.facesets.resolve() / "me")
    assert placed["result"] == placed["json"] == str(site.outputs.resolve() / "b.mp4")
    (site.uploads / "b.mp4").mkdir(parents=True)
    assert site.place(TASKS["inspect"], {"input": "b.mp4"})["input"] == [str(site.uploads.resolve() / "b.mp4")]
    for outside in ("../../etc/passwd", "keys/signing.key"):
        with pytest.raises(InputError, match="outside"):
            site.find(outside, site.uploads if ".." in outside else site.workspace, "--input")


def test_further_models_lie_among_the_models(site: Site) -> None:
    placed = site.place(TASKS["swap"], {"model": "m", "input": "a.mp4", "also": ["n", "o"]})
    assert placed["also"] == [str(site.models.resolve() / name) for name in ("n", "o")]
    for given in ({"output": "light"}, {}):  # the Swap tab lists what is exported
        assert Path(site.place(TASKS["export"], {"model": "m", **given})["output"]).parent == site.models.resolve()


def test_auto_is_the_hosts_device(site: Site) -> None:
    from dataclasses import replace

    here = replace(site, device="cuda:1")
    assert here.place(TASKS["train"], {"source": "a", "target": "b", "model": "m"})["device"] == "cuda:1"
    assert here.place(TASKS["swap"], {"model": "m", "input": "a", "device": "auto"})["device"] == "cuda:1"
    assert here.place(TASKS["swap"], {"model": "m", "input": "a", "device": "cpu"})["device"] == "cpu"
    assert "device" not in here.place(TASKS["inspect"], {"input": "a"})


def test_names_are_made_up_for_outputs(site: Site) -> None:
    placed = site.place(TASKS["swap"], {"model": "m", "input": "a.mov"})
    made = Path(placed["output"])
    assert made.parent == site.outputs.resolve()
    assert made.suffix == ".mov"
    placed = site.place(TASKS["faceset"], {"input": "a.mp4"})
    assert Path(placed["output"]).parent == site.facesets.resolve()


def test_lists_of_paths_come_as_lines_or_lists(site: Site) -> None:
    for given in ("a.mp4\n\nb.mp4\n", ["a.mp4", "b.mp4"]):
        placed = site.place(TASKS["faceset"], {"input": given, "output": "f"})
        assert [Path(p).name for p in placed["input"]] == ["a.mp4", "b.mp4"]


@pytest.mark.parametrize("bad", ["/etc/passwd", "../../x", "..", "~/x", 7, {"a": 1}, ["/etc/passwd"], [3]])
def test_paths_outside_or_of_other_kinds_are_refused(site: Site, bad: object) -> None:
    with pytest.raises(InputError):
        site.place(TASKS["swap"], {"model": "m", "input": bad, "output": "b.mp4"})


@pytest.mark.parametrize("bad", ["keys", "keys/mark.key", "jobs.sqlite3", "jobs.sqlite3-wal"])
def test_keys_and_jobs_are_private(site: Site, bad: str) -> None:
    with pytest.raises(InputError, match="outside"):
        site.resolve(site.workspace / bad, site.uploads, "--input")


def test_folders_themselves_are_never_written_over(site: Site) -> None:
    with pytest.raises(InputError, match="outside"):
        site.resolve(site.outputs, site.outputs, "--output", writing=True)


def test_allowed_folders_and_links(site: Site, tmp_path: Path) -> None:
    inside = tmp_path / "extra" / "clip.mp4"
    assert site.resolve(inside, site.uploads, "--input") == inside.resolve()
    site.uploads.mkdir(parents=True)
    (site.uploads / "out").symlink_to("/etc")
    with pytest.raises(InputError, match="outside"):
        site.resolve("out/passwd", site.uploads, "--input")


def test_uploads_are_kept_once_and_limited(site: Site, tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(b"12345")
    first, second = site.keep_upload(source), site.keep_upload(source)
    assert first == second
    assert first.read_bytes() == b"12345"
    assert [p for p in site.uploads.rglob("*") if p.is_file()] == [first]
    source.write_bytes(b"x" * 101)
    with pytest.raises(InputError, match="limit"):
        site.keep_upload(source)


def test_an_upload_that_cannot_be_kept_leaves_nothing(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(b"12345")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OutputError, match="the disk is full"):
        site.keep_upload(source)
    assert [p for p in site.uploads.rglob("*") if p.is_file()] == [] and source.exists()


@pytest.mark.parametrize(
    ("given", "kept"),
    [("../../etc/x", "x"), ("a\\b\\c.png", "c.png"), ("..", "file"), ("ä b;c.png", "ä b_c.png"), ("", "file")],
)
def test_names_of_uploads(given: str, kept: str) -> None:
    assert safe_name(given) == kept


def test_models_and_facesets_are_listed_newest_first(site: Site) -> None:
    import os

    for number, name in enumerate(("old", "new")):
        folder = site.models / name
        folder.mkdir(parents=True)
        (folder / "model.json").write_text("{}")
        os.utime(folder / "model.json", (number, number))
    (site.models / "empty").mkdir()
    shutil.copytree(site.models / "new", site.models / ".new.exported")
    assert site.names("model") == ["new", "old"]
    assert site.names("faceset") == []
