"""The whole road once, small: clips to facesets, model, swapped and marked video, figures, and the reader that knows it."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from small_clone import FRAMES, STEPS, TINY, WITH_FACE, SmallClone, content, images, run

from lib_vitface import media
from lib_vitface.cli import main
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.faceset.store import Faceset
from lib_vitface.jobs import JobStore
from lib_vitface.metrics.settings import EvaluateOptions
from lib_vitface.models import config as model_config
from lib_vitface.models.checkpoint import open_model
from lib_vitface.options import declared
from lib_vitface.provenance import consent
from lib_vitface.provenance.label import Label
from lib_vitface.provenance.manifest import read_statement
from lib_vitface.provenance.publish import Publisher
from lib_vitface.tasks import TASKS
from lib_vitface.types import Frame

pytestmark = pytest.mark.slow
SHORT = 8  # frames of the clip that is cloned in one command
MakeVideo = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Swapped:
    """A swapped clip, what the command said, and the frames that came to the door, before they were marked."""

    path: Path
    said: dict[str, Any]
    before_the_door: list[Frame]


@contextmanager
def watched_door(patch: pytest.MonkeyPatch) -> Iterator[list[Frame]]:
    """All frames that are given to `Publisher.segment`, as they were."""
    seen: list[Frame] = []
    real = Publisher.segment

    @contextmanager
    def segment(self: Publisher, *arguments: Any) -> Iterator[Any]:
        with real(self, *arguments) as sink:

            class Watching:
                def write(self, frame: Frame) -> None:
                    seen.append(Frame(frame.index, frame.time, frame.image.copy()))
                    sink.write(frame)

            yield Watching()

    patch.setattr(Publisher, "segment", segment)
    yield seen


@pytest.fixture(scope="module")
def swapped(clone_files: SmallClone, tmp_path_factory: pytest.TempPathFactory) -> Swapped:
    folder = tmp_path_factory.mktemp("swapped")
    output = folder / "出力 video.mp4"

    with (
        pytest.MonkeyPatch.context() as patch,
        watched_door(patch) as seen,
        contextlib.redirect_stdout(io.StringIO()) as said,
    ):
        code = main(
            ["swap", "--model", str(clone_files.model), "--input", str(clone_files.clip), "--output", str(output),
             "--chunk-frames", "8", "--json", "--quiet", "--workspace", str(clone_files.workspace)]
        )  # fmt: skip
    assert code == 0
    return Swapped(output, json.loads(said.getvalue()), seen)


def audio(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(container.streams.audio[0]) if packet.size]


def test_facesets(clone_files: SmallClone) -> None:
    for folder in (clone_files.source, clone_files.target):
        with Faceset.open(folder) as faceset:
            assert faceset.finished and len(faceset) >= 8


def test_the_model_carries_a_declaration(clone_files: SmallClone) -> None:
    model = open_model(clone_files.model)
    record = consent.load_record(clone_files.model / consent.FILE)
    assert model.step == STEPS and record.id == model.consent_id and record.kind == "declaration"
    assert record.id in {kept.id for kept in consent.kept(clone_files.workspace)}
    with Faceset.open(clone_files.source) as source:
        consent.check_person(record, source.mean_embedding(), clone_files.source)


def test_what_swap_says(swapped: Swapped, clone_files: SmallClone) -> None:
    said = swapped.said
    assert (said["output"], said["frames"], said["people"], said["resumed_chunks"]) == (str(swapped.path), FRAMES, 1, 0)
    assert said["swapped_frames"] == WITH_FACE
    assert said["model_id"] == open_model(clone_files.model).model_id
    assert [p.name for p in swapped.path.parent.iterdir()] == [swapped.path.name], "nothing else is left"
    done = [
        job for job in JobStore(clone_files.workspace).list("swap", "done") if said == {**said, **(job.result or {})}
    ]
    assert len(done) == 1 and not done[0].folder.exists(), "the job's files are gone"


def test_frames_are_equal_in_number_and_time(swapped: Swapped, clone_files: SmallClone) -> None:
    before, after = (list(media.read_frames(path)) for path in (clone_files.clip, swapped.path))
    assert len(after) == len(before) == FRAMES
    assert [f.time for f in after] == [f.time for f in before]
    old, new = media.probe(clone_files.clip), media.probe(swapped.path)
    for name in (
        "width",
        "height",
        "fps",
        "duration",
        "color_range",
        "color_space",
        "color_primaries",
        "color_transfer",
    ):
        assert getattr(new, name) == getattr(old, name), name


def test_sound_is_identical(swapped: Swapped, clone_files: SmallClone) -> None:
    assert audio(swapped.path) == audio(clone_files.clip) != []


def test_frames_without_a_face_reach_the_door_untouched(swapped: Swapped, clone_files: SmallClone) -> None:
    """Bit for bit; and those with one are changed inside the face only."""
    original = list(media.read_frames(clone_files.clip))
    assert [f.index for f in swapped.before_the_door] == list(range(FRAMES))
    for before, after in zip(original, swapped.before_the_door, strict=True):
        assert before.time == after.time
        changed = (before.image != after.image).any(axis=2)
        if before.index >= WITH_FACE:
            assert not changed.any(), f"frame {before.index}"
        else:
            assert 0.005 < changed.mean() < 0.4, f"frame {before.index}"
            assert not changed[:10].any() and not changed[:, :10].any(), "far from the face nothing is touched"


def test_every_frame_has_the_label(swapped: Swapped) -> None:
    """Also those without a face; it came in at the door, stands where the file says, and away from the face."""
    said = read_statement(swapped.path)
    assert said is not None and said.label_box is not None
    x0, y0, x1, y1 = said.label_box
    for before, after in zip(swapped.before_the_door, media.read_frames(swapped.path), strict=True):
        drawn = Label("", said.label_box, after.image.shape[:2]).draw(before.image)[y0:y1, x0:x1].astype(int)
        shown = after.image[y0:y1, x0:x1].astype(int)
        assert np.abs(shown - drawn).mean() < 8 < np.abs(shown - before.image[y0:y1, x0:x1]).mean(), before.index
    faces = Analyser(make_detector(), MeshLandmarker())(swapped.before_the_door[0].image)
    assert len(faces) == 1
    box = faces[0].box
    assert x1 < box[0] or x0 > box[2] or y1 < box[1] or y0 > box[3]


def test_without_a_label_there_is_a_reason(clone_files: SmallClone, tmp_path: Path, capsys: Capture) -> None:
    command = [
        "swap",
        "--model",
        clone_files.model,
        "--input",
        clone_files.clip,
        "--output",
        tmp_path / "x.mp4",
        "--no-label",
    ]
    code, _, err = run(capsys, clone_files.workspace, *command)
    assert code == 2 and "--label-reason" in err and list(tmp_path.iterdir()) == []
    code, _, _ = run(capsys, clone_files.workspace, *command, "--label-reason", "said in the titles", "--end-s", "0.3")
    stated = read_statement(tmp_path / "x.mp4")
    assert code == 0 and stated is not None and (stated.label_box, stated.no_label) == (None, "said in the titles")


def test_pictures_too(clone_files: SmallClone, tmp_path: Path, capsys: Capture) -> None:
    """A folder of pictures, one of them see-through, one without a face."""
    folder, output = tmp_path / "in", tmp_path / "out"
    original = list(media.read_frames(clone_files.clip))
    alpha = np.full(original[0].image.shape[:2], 255, np.uint8)
    alpha[:40] = 0
    folder.mkdir()
    media.write_image(folder / "a.png", original[0].image, alpha=alpha)
    media.write_image(folder / "b.jpg", original[8].image)
    media.write_image(folder / "c.png", original[-1].image)
    code, said, _ = run(
        capsys, clone_files.workspace, "swap", "--model", clone_files.model, "--input", folder, "--output", output
    )
    assert code == 0 and said["pictures"] == 2 and said["without_face"] == [str(folder / "c.png")]
    assert sorted(p.name for p in output.iterdir()) == ["a.png", "b.jpg", "vitface.json"]
    assert all(read_statement(output / name).is_synthetic for name in ("a.png", "b.jpg"))  # type: ignore[union-attr]
    assert np.array_equal(media.read_picture(output / "a.png")[1], alpha)
    code, seen, _ = run(capsys, clone_files.workspace, "inspect", "--input", output)
    assert code == 0 and seen["synthetic"] and all(f["mark"]["authentic"] for f in seen["files"])
    (record,) = seen["folders"]
    assert (record["state"], record["own_key"], record["files"]) == ("valid", True, 2)
    assert record["made_from"] == {"folder": "in"} and record["statement"]["consent_id"] == said["consent"]


def test_evaluate_writes_its_figures(
    swapped: Swapped, clone_files: SmallClone, tmp_path: Path, capsys: Capture
) -> None:
    figures, report = tmp_path / "f.json", tmp_path / "r.html"
    arguments = (
        "--source", clone_files.source, "--target", clone_files.clip, "--result", swapped.path, "--json", figures, "--report",
        report, "--every", 8, "--pictures", 1, "--quiet", "--workspace", clone_files.workspace,
    )  # fmt: skip
    assert main(["evaluate", *map(str, arguments)]) == 0
    capsys.readouterr()
    found = json.loads(figures.read_text())
    assert found["frames"]["paired"] == FRAMES and found["frames"]["scored"] >= 2
    for group in ("identity", "geometry", "temporal", "sharpness", "outside_face", "distribution", "aims", "per_frame"):
        assert found[group], group
    assert {aim["name"] for aim in found["aims"]} >= {
        "share_nearer_source",
        "landmark_distance_median",
        "flicker_ratio",
    }
    assert 0 <= found["identity"]["share_nearer_source"] <= 1
    assert found["outside_face"]["psnr_db"]["median"] > 38
    assert "<html" in report.read_text()[:200]
    assert {item.name for item in declared(EvaluateOptions)} >= {"json", "report"}


def test_inspect_knows_it(swapped: Swapped, clone_files: SmallClone, capsys: Capture) -> None:
    """After H.264: the mark of this record, and the statement with model and record."""
    code, said, _ = run(capsys, clone_files.workspace, "inspect", "--input", swapped.path)
    assert code == 0 and said["synthetic"]
    one, model = said["files"][0], open_model(clone_files.model)
    assert (one["mark"]["present"], one["mark"]["authentic"]) == (True, True)
    assert one["mark"]["record_id"] == model.consent_id[:8]
    assert (one["statement"]["consent_id"], one["statement"]["model_id"]) == (model.consent_id, model.model_id)
    assert "compositeWithTrainedAlgorithmicMedia" in one["statement"]["source_type"]
    assert one["consent_of"]
    code, said, _ = run(capsys, clone_files.workspace, "inspect", "--input", clone_files.clip, "--no-search")
    assert code == 0 and not said["synthetic"]


def test_faces_of_a_swapped_video_are_known_as_synthetic(swapped: Swapped, tmp_path: Path, capsys: Capture) -> None:
    code, said, _ = run(
        capsys, tmp_path / "w", "faceset", "--input", swapped.path, "--output", tmp_path / "set", "--every", 8, "--size", 128,
        "--min-change", 0,
    )  # fmt: skip
    assert code == 0 and said["synthetic"] == said["faces"] > 0


def test_clone_does_it_all_and_goes_on(
    clone_files: SmallClone, make_video: MakeVideo, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(model_config.PRESETS, "cpu", TINY)
    clip = make_video(clone_files.folder / "short.mp4", images("sample_target", SHORT, every=3), 8, audio="aac")
    output, work = tmp_path / "all of it.mp4", tmp_path / "work"
    command = (
        "clone", "--source", clone_files.person, "--target", clip, "--output", output, "--work", work,
        "--steps", STEPS, "--who", "山田花子", "--device", "cpu",
    )  # fmt: skip
    code, said, _ = run(capsys, tmp_path / "space", *command)
    assert code == 0, said
    assert said["trained"]["step"] == STEPS and said["swapped"]["frames"] == SHORT
    for name in ("output", "report", "figures", "contact_sheet"):
        assert Path(said[name]).stat().st_size > 1000, name
    assert json.loads(Path(said["figures"]).read_text())["frames"]["paired"] == SHORT
    names = {output.name, *(output.with_suffix(s).name for s in (".report.html", ".report.json", ".sheet.png"))}
    assert {p.name for p in tmp_path.iterdir()} == {*names, "work", "space"}
    assert consent.load_record(work / "model" / consent.FILE).who == "山田花子"
    code, seen, _ = run(capsys, tmp_path / "space", "inspect", "--input", output, said["contact_sheet"], "--no-search")
    assert seen["synthetic"] and [f["consent_of"] for f in seen["files"]] == ["山田花子"] * 2

    made = {p: p.stat().st_mtime_ns for p in (work / "source").rglob("*.jpg")}
    code, again, err = run(capsys, tmp_path / "space", *command)
    assert code == 2 and "is there already" in err, "a finished result is not replaced unasked"
    first = content(output)
    output.unlink()
    code, again, _ = run(capsys, tmp_path / "space", *command, "--no-evaluate")
    assert code == 0 and again["trained"]["step"] == STEPS and "report" not in again
    assert content(output) == first
    assert made == {p: p.stat().st_mtime_ns for p in (work / "source").rglob("*.jpg")}, "faces are not made anew"
    shutil.rmtree(tmp_path)


def test_every_heavy_task_is_on_this_road() -> None:
    """Or, as these, on a road of its own (tests/tasks)."""
    elsewhere = {"benchmark", "export", "pretrain"}
    assert {name for name, task in TASKS.items() if task.heavy} - elsewhere == {
        "clone",
        "demo",
        "faceset",
        "train",
        "swap",
        "evaluate",
    }
