"""What the buttons of the tabs do, called as gradio would call them."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

gr = pytest.importorskip("gradio", reason="gradio is not installed (requirements-ui.txt)")

from lib_vitface import media  # noqa: E402
from lib_vitface.assets import locate  # noqa: E402
from lib_vitface.errors import InputError  # noqa: E402
from lib_vitface.jobs import Job  # noqa: E402
from lib_vitface.metrics.settings import EvaluateOptions  # noqa: E402
from lib_vitface.provenance.detector import NO_PROOF  # noqa: E402
from lib_vitface.provenance.inspect import inspect  # noqa: E402
from lib_vitface.provenance.keys import open_keys  # noqa: E402
from lib_vitface.provenance.publish import Publisher  # noqa: E402
from lib_vitface.provenance.sealing import open_seal  # noqa: E402
from lib_vitface.provenance.settings import InspectOptions  # noqa: E402
from lib_vitface.swap.settings import SwapOptions  # noqa: E402
from lib_vitface.types import Face  # noqa: E402
from lib_vitface.ui import blind, check_tab, dialect, faces, footage, history, markup  # noqa: E402
from lib_vitface.ui import form as forms  # noqa: E402
from lib_vitface.ui import panel as panels  # noqa: E402
from lib_vitface.ui.evaluate_tab import MeasureForm, compared  # noqa: E402
from lib_vitface.ui.panel import Panel  # noqa: E402
from lib_vitface.ui.runner import Runner  # noqa: E402
from lib_vitface.ui.site import Site  # noqa: E402


class StillRunner(Runner):
    """Queues and never starts."""

    def _enqueue(self, job_id: str) -> None:
        pass


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return StillRunner(Site(tmp_path / "w", tmp_path / "out"))


@pytest.fixture
def panel(runner: Runner) -> Panel:
    with gr.Blocks():
        fields = forms.build(runner.site, "swap", SwapOptions, "p")
        made = Panel(runner, fields, "Swap", "a hint")
        made.wire()
    return made


def start(panel: Panel, **values: Any) -> list[Any]:
    given = [values.get(i.name, i.default if i.type is bool else None) for i in panel.form.items]
    return panel._start(*given)


def test_all_figures_are_folded_where_the_result_is_drawn(panel: Panel, runner: Runner) -> None:
    job = runner.store.create("run-swap", {})
    with runner.store.claim(job.id) as claim:
        claim.finish({"frames": 7})
    plain = panel._look(job.id)[1]["value"]
    assert "<td>frames</td>" in plain and "<details" not in plain
    with gr.Blocks():
        panel.wire(drawn=True)
    assert panel._look(job.id)[1]["value"] == markup.fold(panels.FIGURES, plain)


def test_starting_makes_a_job_and_shows_it(panel: Panel, runner: Runner) -> None:
    job, progress, *_ = start(panel, model="m", input="v.mp4", opacity=0.5)
    made = runner.jobs("swap")[0]
    assert job["value"] == made.id
    assert made.options["opacity"] == 0.5
    assert "waiting" in progress["value"]
    _, progress, *_ = panel._stop(made.id) and ["", panel._look(made.id)[0]]
    assert "stopped" in progress["value"]


def test_what_is_wrong_is_said_and_no_job_is_made(panel: Panel, runner: Runner) -> None:
    _, progress, *_ = start(panel, model="m", input="/etc/passwd")
    assert "outside" in progress["value"]
    _, progress, *_ = start(panel, model="m")
    assert "“Input”" in progress["value"] and "--" not in progress["value"]
    assert runner.jobs() == []


def test_why_a_job_failed_names_controls_and_leaves_other_programs_alone(panel: Panel, runner: Runner) -> None:
    job = runner.store.create("run-swap", {})
    with pytest.raises(InputError), runner.store.claim(job.id):
        raise InputError("--start-s: too late; pip install --no-deps may help.")
    said = panel._look(job.id)[0]["value"]
    assert "“Start (s)”: too late; pip install --no-deps may help." in said


def test_before_the_first_job_there_is_a_hint(panel: Panel) -> None:
    assert "a hint" in panel._look(None)[0]["value"]
    assert "a hint" in panel._look("run-swap-that-is-gone")[0]["value"]


def test_measuring_always_leaves_figures(runner: Runner) -> None:
    with gr.Blocks():
        fields = MeasureForm(runner.site, "evaluate", "p")
        forms.build_items(fields, forms.options.declared(EvaluateOptions))
    found = fields.read([None] * len(fields.items))
    assert found["json"].endswith(".json")
    assert found["report"].endswith(".html")


def test_one_update_for_one_output_is_no_list() -> None:
    assert dialect._single(lambda: [dialect.update(value=1)])() == dialect.update(value=1)
    assert dialect._single(lambda: "text")() == "text"


def test_uploads_of_every_version_are_read(tmp_path: Path) -> None:
    class Wrapper:
        name = str(tmp_path / "a")

    assert dialect.uploaded(None) == []
    assert dialect.uploaded(str(tmp_path / "a")) == [tmp_path / "a"]
    assert dialect.uploaded([Wrapper(), str(tmp_path / "b")]) == [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(InputError):
        dialect.uploaded([7])


def test_a_click_picks_the_smallest_face_there() -> None:
    def face(*box: float) -> Face:
        return Face(np.float32(box), 1.0, np.zeros((5, 2), np.float32))

    large, small = face(0, 0, 100, 100), face(40, 40, 60, 60)
    assert footage.face_at([large, small], 50, 50) is small
    assert footage.face_at([large, small], 10, 10) is large
    assert footage.face_at([large, small], 200, 10) is None
    image = np.zeros((120, 130, 3), np.uint8)
    assert footage.cut_out(image, small).shape == (44, 44, 3)
    drawn = footage.marked(image, [small])
    assert drawn.any()
    assert not image.any(), "the frame itself is left alone"


def test_frames_of_videos_pictures_and_folders(tmp_path: Path, make_video: Any) -> None:
    video = make_video(tmp_path / "v.mp4", 20, 10)
    first, last = footage.frame_at(video, 0.0), footage.frame_at(video, 1.0)
    assert first.shape == last.shape == (48, 64, 3)
    assert np.abs(first.astype(int) - last).mean() > 5
    folder = tmp_path / "f"
    folder.mkdir()
    for number in range(3):
        faces.keep_picture(Site(tmp_path, tmp_path), np.full((16, 16, 3), number * 100, np.uint8), "x").rename(
            folder / f"{number}.png"
        )
    assert footage.frame_at(folder, 0.0).max() == 0
    assert footage.frame_at(folder, 1.0).min() == 200
    assert footage.frame_at(folder / "1.png", 0.5).max() == 100
    with pytest.raises(InputError):
        footage.frame_at(tmp_path / "none.mp4", 0)


def test_blind_votes_hide_and_keep_which_is_which(tmp_path: Path) -> None:
    site = Site(tmp_path, tmp_path / "out")
    (tmp_path / "out").mkdir()
    for name, value in (("one.png", 10), ("two.png", 200)):
        picture = faces.keep_picture(site, np.full((16, 16, 3), value, np.uint8), name)
        picture.rename(tmp_path / "out" / name)
    sides = set()
    for seed in range(8):
        pair = blind.draw(site, "one.png", "two.png", random.Random(seed))
        assert pair.left.max() == (10 if pair.key["left"].endswith("one.png") else 200)
        sides.add(Path(pair.key["left"]).name)
        said = blind.vote(site, pair.key, "left")
        assert "Left was" in said
    assert sides == {"one.png", "two.png"}, "sides are drawn by chance"
    votes = [json.loads(line) for line in (tmp_path / blind.FILE).read_text().splitlines()]
    assert len(votes) == 8
    names = [str(site.outputs / name) for name in ("one.png", "two.png")]
    wins = [sum(one["left"] == name for one in votes) for name in names]
    blind.vote(site, {"left": names[1], "right": names[0], "moment": 0.5}, "tie")
    with (tmp_path / blind.FILE).open("a") as file:
        file.write('{"left": "cut')  # the disk was full
    assert blind.counts(site) == {(names[0], names[1]): (wins[0], wins[1], 1)}
    assert f"{wins[0] / 8:.0%} (" in blind.tally(site) and "not decided" in blind.tally(site)
    for _ in range(30):
        blind.vote(site, {"left": names[0], "right": names[1], "moment": 0.5}, "right")
    assert "the second is better" in blind.tally(site)
    with pytest.raises(InputError):
        blind.vote(site, None, "left")
    with pytest.raises(InputError):
        blind.draw(site, "one.png", "/etc/passwd")


def test_loss_and_speed_are_read_from_the_log(tmp_path: Path) -> None:
    assert history.loss_plot(tmp_path) == ""
    assert history.seconds_per_step(tmp_path) is None
    steps = [{"step": n, "s": n * 0.5, "total": 3.0 / n, "dssim": 0.1} for n in range(1, 31)]
    text = "\n".join(json.dumps(step) for step in steps)
    (tmp_path / "loss.jsonl").write_text(text + '\n{"step": 31, "s"')
    assert "<path" in history.loss_plot(tmp_path)
    assert history.seconds_per_step(tmp_path) == pytest.approx(0.5)


def test_estimate_is_honest_about_what_is_not_known(runner: Runner) -> None:
    values = {"source": "a", "target": "b", "model": "m", "resolution": "96"}
    said = history.estimate(runner, values)
    assert "million parameters" in said
    assert "not measured" in said
    small = history.size_of(history.options.build(history.TrainOptions, {**values, "preset": "cpu"}))
    large = history.size_of(history.options.build(history.TrainOptions, {**values, "preset": "small"}))
    assert small[0] < large[0]
    assert small[1] == 96


def test_results_outside_the_folders_are_not_shown(runner: Runner) -> None:
    from lib_vitface.ui.player import GONE, Player, result_of

    job = runner.store.create("run-swap", {})
    with runner.store.claim(job.id) as claim:
        claim.finish({"output": "/etc/passwd"})
    found: Job = runner.get(job.id)
    assert result_of(runner, found) is None
    assert result_of(runner, None) is None
    with gr.Blocks():
        player = Player("p")
    *files, said = player.show(runner, found)
    assert not any(update["visible"] for update in files) and said["visible"] and GONE in said["value"]
    assert not any(update["visible"] for update in player.show(runner, None))


def test_a_swapped_folder_is_shown_as_a_gallery(runner: Runner) -> None:
    """The written files by their paths, not copies without statement; the first of many, and what was left out."""
    from lib_vitface.ui.player import Player

    folder = runner.site.outputs / "album"
    names = [f"{number}.png" for number in range(60)]
    for name in [*names, ".hidden.png", "deeper/a.jpg"]:
        media.write_image(folder / name, np.full((20, 20, 3), 9, np.uint8))
    (folder / "vitface.json").write_text("{}")
    job = runner.store.create("run-swap", {})
    with runner.store.claim(job.id) as claim:
        claim.finish({"output": str(folder), "pictures": 61, "without_face": ["x.png", "y.png"]})
    with gr.Blocks():
        player = Player("p")
    *others, pictures, told = player.show(runner, runner.get(job.id))
    assert pictures["visible"] and not any(update["visible"] for update in others)
    assert pictures["value"] == [(str(folder / name), name) for name in names[:48]]
    said = told["value"]
    assert "Pictures in" in said and ": 61, of which the first 48" in said and "not found: 2." in said
    for name in [*names[10:], "deeper/a.jpg"]:
        (folder / name).unlink()
    *_, pictures, told = player.show(runner, runner.get(job.id))
    assert len(pictures["value"]) == 10 and ": 10. Left out" in told["value"]
    for path in folder.glob("*.png"):
        path.unlink()
    assert not player.show(runner, runner.get(job.id))[3]["visible"]
    assert [update["visible"] for update in player.show(runner, None)] == [False] * len(player.components)


def a_folder(tmp_path: Path, workspace: Path) -> Path:
    """Three marked pictures of noise with their signed record."""
    folder = tmp_path / "frames"
    door = Publisher("ab" * 16, "model", open_keys(workspace).mark, open_seal(workspace))
    noise = np.random.default_rng(0)
    files = [folder / f"{number}.png" for number in range(3)]
    folder.mkdir()
    for path in files:
        door.image(path, noise.integers(0, 255, (160, 160, 3), np.uint8))
    door.folder(folder, files)
    return folder


def test_the_check_tab_tells_what_became_of_a_folder(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, tmp_path / "w")

    def said(workspace: str = "w") -> str:
        found = inspect(InspectOptions([folder], search=False, detector=False), tmp_path / workspace)
        (one,) = found["folders"]
        return check_tab.folder_verdict(one)

    assert "all 3 files are as they were signed, with this workspace" in said() and "vitface-good" in said()
    assert "not with this workspace" in said("other") and "vitface-good" not in said("other")
    (folder / "0.png").unlink()
    media.write_image(folder / "<b>.png", np.full((40, 40, 3), 9, np.uint8))
    assert "0 changed, 1 missing, 1 added" in said() and "vitface-bad" in said()
    assert "<td>missing</td><td>0.png</td>" in said() and "<td>added</td><td>&lt;b&gt;.png</td>" in said()
    record = folder / "vitface.json"
    record.write_text(record.read_text().replace("0.png", "4.png"))
    assert check_tab.EDITED in said()
    record.write_text("{")
    assert check_tab.DAMAGED in said()


def test_the_check_tab_lists_several_files_in_a_table(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, tmp_path / "w")
    (folder / "below").mkdir()
    media.write_image(folder / "below" / "plain.png", np.full((80, 80, 3), 90, np.uint8))
    found = inspect(InspectOptions([folder], search=False, detector=False), tmp_path / "w")
    said = check_tab.verdicts(found["files"])
    assert "3 of 4 files are marked as synthetic." in said and "vitface-good" not in said.partition("<table")[0]
    assert said.count("<details") == 4 and "<summary>below" in said
    rows = re.findall(r"<tr><td>([^<]*png)</td><td>([^<])</td><td>[^<]</td><td>[^<]*</td><td>([^<])</td>", said)
    marked = [(f"{number}.png", "✓", "✓") for number in range(3)]
    assert sorted(rows) == [*marked, ("below/plain.png", "–", "–")]
    assert "<details" not in check_tab.verdicts(found["files"][:1])


def test_a_benchmark_is_shown_as_a_table_with_what_is_withheld(runner: Runner) -> None:
    job = runner.store.create("run-benchmark", {})
    good = {
        "training": {"samples_per_s": 12.5},
        "redrawn": {"face_psnr_db": 27.25},
        "swapped": {"identity_cosine": 0.5},
    }
    poor = {
        "training": {"samples_per_s": 3.0},
        "redrawn": {"face_found": False},
        "swapped": {"withheld": "nobody's face."},
    }
    with runner.store.claim(job.id) as claim:
        claim.finish({"models": {"cpu": good, "saehd-df": poor}})
    said = compared(runner.get(job.id))
    rows = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", said)][1:]
    assert [row[:2] for row in rows] == [["cpu", "27.25"], ["saehd-df", "–"]]
    assert all(len(row) == said.count("<th>") for row in rows)
    assert "<b>saehd-df:</b> <span>its video is withheld: nobody&#x27;s face.</span>" in said
    assert "<b>cpu:</b>" not in said
    assert compared(None) == compared(runner.store.create("run-benchmark", {})) == ""


def test_people_are_looked_for_with_the_detector_that_is_chosen(runner: Runner) -> None:
    from lib_vitface.ui.studio import Studio
    from lib_vitface.ui.swap_tab import Moment

    class Asked(Studio):
        def faces(self, image: Any, detector: str = "auto") -> list[Face]:
            asked.append(detector)
            return []

    asked: list[str] = []
    runner.site.outputs.mkdir()
    media.write_image(runner.site.outputs / "result.png", np.full((40, 40, 3), 9, np.uint8))
    with gr.Blocks():
        moment = Moment(runner, Asked(runner.site), forms.build(runner.site, "swap", SwapOptions, "p"))
    shown = moment._show("result.png", 0, "blazeface")
    moment._pick((1, 1), shown[1], "facexlib")
    assert asked == ["blazeface", "facexlib"]


@pytest.mark.usefixtures("detector_here")
def test_the_check_tab_shows_the_detectors_scores_over_time_and_where(tmp_path: Path) -> None:
    """Every frame's score in a plot from 0 to 1, the heat map, and beside them that it is no proof."""
    found = inspect(InspectOptions([locate("sample_source")], frames=3, search=False), tmp_path)["files"][0]
    said = check_tab.verdict(found)
    names = [said.index(f"<td>{name} · ") for name in ("mark", "detector")]
    assert names == sorted(names) and said.index("<td>manifest") < names[1] < said.index("of every 100 real frames")
    assert said.rstrip().endswith("not.</div>")
    shown = check_tab.traces_of(locate("sample_source"))
    line = re.search(r'class="vitface-line vitface-line-0" d="([^"]+)"', shown)
    assert line is not None and line.group(1).count("L") >= 30, "a point for each frame that is looked at"
    assert ">0<" in shown and ">1<" in shown, "the whole range, so that small scores look small"
    assert "data:image/jpeg" in shown and check_tab.HEAT in shown and NO_PROOF in shown


@pytest.mark.usefixtures("detector_here")
def test_the_check_tab_scores_a_picture_without_a_plot(tmp_path: Path) -> None:
    image = next(iter(media.read_frames(locate("sample_source")))).image
    media.write_image(tmp_path / "x.png", image)
    shown = check_tab.traces_of(tmp_path / "x.png")
    assert "<svg" not in shown and "data:image/jpeg" in shown
    media.write_image(tmp_path / "none.png", np.full((80, 80, 3), 90, np.uint8))
    assert check_tab.traces_of(tmp_path / "none.png") == ""
