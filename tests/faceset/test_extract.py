"""From real clips to facesets; every option is seen to do what it says."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from faceset_maker import noise_image

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.errors import Cancelled, ConsentError, InputError, MissingDependencyError, NoFaceError, OutputError
from lib_vitface.faces.align import invert, warp
from lib_vitface.faceset import choice, coverage, inputs, novel
from lib_vitface.faceset.extract import extract
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.faceset.store import IMAGES, INDEX, Faceset
from lib_vitface.faceset.writer import FacesetWriter
from lib_vitface.options import build, declared
from lib_vitface.types import Frame, Image, VideoInfo

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def source() -> Path:
    """72 frames, 640x360, a woman of about 150 px."""
    return locate("sample_source")


@pytest.fixture(scope="module")
def target() -> Path:
    """472 frames, 640x360, another woman of about 200 px, with hands before her face from 3 s to 7 s."""
    return locate("sample_target")


def frames_of(path: Path, count: int, start_s: float = 0.0) -> list[Image]:
    return [frame.image for frame in islice(media.read_frames(path, start_s), count)]


def write_clip(path: Path, images: list[Image]) -> Path:
    height, width = images[0].shape[:2]
    info = VideoInfo(
        path, width, height, Fraction(25), None, Fraction(len(images), 25), 0, "h264", "yuv420p", 8, False, 1, 1, 1, 1
    )
    with media.FrameWriter(path, info, media.EncodeSettings("ffv1" if path.suffix == ".mkv" else "auto")) as writer:
        for i, image in enumerate(images):
            writer.write(Frame(i, Fraction(i, 25), image))
    return path


@pytest.fixture(scope="module")
def pair(source: Path, target: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames that show both women side by side."""
    both = zip(frames_of(source, 6), frames_of(target, 6, 12.0), strict=True)
    images = [np.hstack([a[:, 120:480], b[:, 140:500]]) for a, b in both]
    return write_clip(tmp_path_factory.mktemp("pair") / "pair.mp4", images)


def make(output: Path, *paths: Path, **values: Any) -> dict[str, Any]:
    return extract(build(FacesetOptions, {"input": list(paths), "output": output, **values}))


def save(path: Path, image: Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(path.suffix, image[..., ::-1])[1].tofile(path)
    return path


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every sixth frame of the source, nothing dropped."""
    output = tmp_path_factory.mktemp("whole") / "set"
    make(output, source, every=6, min_change=0.0)
    return output


def test_a_clip_becomes_a_faceset(whole: Path, source: Path) -> None:
    faceset = Faceset.open(whole)
    summary = faceset.summary()
    assert (summary["faces"], summary["frames"], summary["found"], summary["dropped"]) == (12, 12, 12, {})
    assert summary["identities"] == 1 and summary["finished"] and summary["synthetic"] == 0
    assert [r.frame for r in faceset.records()] == list(range(0, 72, 6))
    for record in faceset.records():
        assert record.time == Fraction(record.frame, 30) and record.source == source.name
        assert faceset.image(record).shape == (512, 512, 3)
        assert abs(record.pose.yaw_deg) < 10 and 100 < record.face_px < 200
        assert 0.4 < record.sharpness < 0.7 and record.exposure > 0.9 and record.occlusion < 0.05
        assert np.linalg.norm(record.embedding) == pytest.approx(1, abs=1e-5)
    alike = faceset.embeddings() @ faceset.mean_embedding()
    assert alike.min() > 0.85
    assert (whole / coverage.FILE).is_file() and any("turned to the left" in h for h in summary["hints"])


def test_crops_landmarks_and_matrices_fit_each_other(whole: Path, source: Path) -> None:
    faceset = Faceset.open(whole)
    record = next(islice(faceset.records(), 3, None))
    frame = next(f for f in media.read_frames(source) if f.index == record.frame)
    again = warp(frame.image, record.frame_to_crop, 512)
    assert np.abs(again.astype(int) - faceset.image(record)).mean() < 2.0
    eyes = record.landmarks[[33, 263], :2] @ invert(record.frame_to_crop)[:, :2].T + invert(record.frame_to_crop)[:, 2]
    assert eyes[0, 0] < eyes[1, 0] and 40 < np.linalg.norm(eyes[1] - eyes[0]) < 110
    middle = record.landmarks[:, :2].mean(axis=0)
    assert np.abs(middle - 256).max() < 50


def test_size_format_and_quality(tmp_path: Path, source: Path) -> None:
    make(tmp_path / "png", source, every=60, size=128, image_format="png")
    records = list(Faceset.open(tmp_path / "png").records())
    assert {r.image[-4:] for r in records} == {".png"} and {r.size for r in records} == {128}
    assert Faceset.open(tmp_path / "png").image(records[0]).shape == (128, 128, 3)
    sizes = []
    for quality in (70, 100):
        make(tmp_path / str(quality), source, every=60, quality=quality)
        sizes.append(sum(p.stat().st_size for p in (tmp_path / str(quality) / IMAGES).iterdir()))
    assert sizes[1] > 2 * sizes[0]


def test_trim(tmp_path: Path, source: Path) -> None:
    make(tmp_path / "set", source, start_s=1.0, end_s=1.2, every=2, min_change=0.0)
    times = [r.time for r in Faceset.open(tmp_path / "set").records()]
    assert times == [Fraction(30, 30), Fraction(32, 30), Fraction(34, 30)]


def test_small_faces_are_left_out(tmp_path: Path, source: Path) -> None:
    with pytest.raises(NoFaceError, match=r"No usable face in .*: 2 smaller than --min-face-px 300; lower the limit"):
        make(tmp_path / "set", source, every=60, min_face_px=300)


def test_blurred_faces_are_left_out(tmp_path: Path, source: Path) -> None:
    images = [cv2.GaussianBlur(image, (0, 0), 5) if i % 2 else image for i, image in enumerate(frames_of(source, 4))]
    clip = write_clip(tmp_path / "half.mp4", images)
    assert make(tmp_path / "set", clip, min_change=0.0)["dropped"] == {"blurred": 2}
    assert [r.frame for r in Faceset.open(tmp_path / "set").records()] == [0, 2]
    assert make(tmp_path / "all", clip, min_change=0.0, min_sharpness=0.0)["faces"] == 4


def test_covered_faces_are_left_out(tmp_path: Path, target: Path) -> None:
    asked: dict[str, Any] = {"start_s": 6.6, "end_s": 6.9, "every": 2, "min_change": 0.0}  # the hand is seen best here
    everything = make(tmp_path / "all", target, **asked)
    covered = Faceset.open(tmp_path / "all").columns("occlusion")["occlusion"]
    assert everything["faces"] == len(covered) > 2 and covered.max() > 0.08
    limit = float(np.median(covered))
    some = make(tmp_path / "some", target, **asked, max_occlusion=limit)
    assert some["dropped"] == {"covered": int((covered > limit).sum())}


def test_repeats_are_counted_for_the_face_they_repeat(tmp_path: Path, source: Path) -> None:
    still = write_clip(tmp_path / "still.mkv", frames_of(source, 1) * 10)  # lossless: nothing moves at all
    summary = make(tmp_path / "set", still)
    assert summary["faces"] == 1 and summary["dropped"] == {"repeat": 9}
    assert next(Faceset.open(tmp_path / "set").records()).seen == 10
    assert make(tmp_path / "all", still, min_change=0.0)["faces"] == 10


def test_at_most_so_many_faces_and_they_are_spread(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "set")
    paths = [Path(i["path"]) for i in Faceset.open(whole).inputs()]
    summary = make(tmp_path / "set", *paths, every=6, min_change=0.0, max_faces=4)
    assert summary["faces"] == 4 and summary["dropped"] == {"surplus": 8} and summary["frames"] == 12
    faceset = Faceset.open(tmp_path / "set")
    expression = faceset.array("expression", kept=None)
    kept = faceset.columns("kept", kept=None)["kept"].astype(bool)
    gaps = np.linalg.norm(expression[kept][:, None] - expression[kept][None], axis=2) + 9 * np.eye(4)
    everybody = np.linalg.norm(expression[:, None] - expression[None], axis=2) + 9 * np.eye(12)
    assert gaps.min(axis=1).mean() > 1.5 * everybody.min(axis=1).mean()
    assert make(tmp_path / "set", *paths, every=6, min_change=0.0)["faces"] == 12, "the surplus can be had back"


def test_two_people_need_a_reference(pair: Path, source: Path, target: Path, tmp_path: Path) -> None:
    output = tmp_path / "set"
    with pytest.raises(InputError, match=r"2 people, two of them about equally often \(50 % and 50 %.*--person"):
        make(output, pair, min_change=0.0)
    picture = save(tmp_path / "who.png", frames_of(target, 1, 13.0)[0])
    summary = make(output, pair, min_change=0.0, person=picture)
    assert summary["faces"] == 6 and summary["dropped"] == {"stranger": 6} and summary["frames"] == 6
    faceset = Faceset.open(output)
    assert all(r.landmarks.size and r.frame_to_crop[0, 0] for r in faceset.records())
    assert all(r.landmarks.size == 0 == r.embedding.size and r.image == "" for r in faceset.records(kept=False))
    assert len(list((output / IMAGES).iterdir())) == 6
    other = save(tmp_path / "other.png", frames_of(source, 1)[0])
    with pytest.raises(InputError, match=r"other\.png shows somebody else"):
        make(output, pair, min_change=0.0, person=other)
    summary = make(output, pair, min_change=0.0, person=other, exists="overwrite")
    assert summary["faces"] == 6
    assert Faceset.open(output).mean_embedding() @ faceset.mean_embedding() > 0.99  # it sees the new index
    assert len(make(tmp_path / "first", source, every=70)["path"]) > 0


def test_everybody_can_be_kept(pair: Path, tmp_path: Path) -> None:
    summary = make(tmp_path / "set", pair, min_change=0.0, keep_strangers=True, max_faces=5)
    faceset = Faceset.open(tmp_path / "set")
    counts = np.bincount(faceset.columns("cluster")["cluster"])
    assert summary["faces"] == 5 and sorted(counts.tolist()) == [2, 3] and summary["dropped"] == {"surplus": 7}


def test_a_reference_without_a_face_or_of_nobody_there(source: Path, target: Path, tmp_path: Path) -> None:
    blank = save(tmp_path / "blank.png", np.full((200, 200, 3), 90, np.uint8))
    with pytest.raises(NoFaceError, match=r"No face was found in .*blank\.png"):
        make(tmp_path / "a", source, every=60, person=blank)
    other = save(tmp_path / "other.png", frames_of(target, 1, 13.0)[0])
    with pytest.raises(NoFaceError, match="in none of the inputs"):
        make(tmp_path / "b", source, every=60, person=other)


def test_more_inputs_later_stay_with_the_same_person(whole: Path, target: Path, source: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "set")
    first = Path(Faceset.open(whole).inputs()[0]["path"])
    summary = make(tmp_path / "set", first, target, every=6, min_change=0.0, end_s=None, start_s=None, min_face_px=64)
    assert summary["faces"] == 12 and summary["dropped"]["stranger"] == summary["found"] - 12 > 60


def test_consent_is_noted_with_its_fingerprint(source: Path, tmp_path: Path) -> None:
    record = tmp_path / "consent.json"
    record.write_text("{}")
    summary = make(tmp_path / "set", source, every=60, consent=record)
    assert summary["consent"] == {"path": str(record), "sha256": hashlib.sha256(b"{}").hexdigest()}
    with pytest.raises(ConsentError, match=r"gone\.json: the consent record cannot be read"):
        make(tmp_path / "other", source, consent=tmp_path / "gone.json")


def test_what_happens_to_a_faceset_that_is_there(whole: Path, tmp_path: Path) -> None:
    path = Path(Faceset.open(whole).inputs()[0]["path"])
    shutil.copytree(whole, tmp_path / "set")
    with pytest.raises(OutputError, match="holds a faceset already"):
        make(tmp_path / "set", path, exists="fail")
    with pytest.raises(InputError, match="was begun with --size 512, not 128"):
        make(tmp_path / "set", path, size=128)
    again = make(tmp_path / "set", path, every=6, min_change=0.0)
    assert (again["faces"], again["frames"]) == (12, 12), "nothing is read twice"
    changed = make(tmp_path / "set", path, every=24, min_change=0.0)
    assert (changed["faces"], changed["frames"]) == (3, 3), "asked for something else, the input is read anew"
    new = make(tmp_path / "set", path, every=60, size=128, exists="overwrite")
    assert new["faces"] == 2 == len(list((tmp_path / "set" / IMAGES).iterdir())) and new["size"] == 128


def test_a_folder_of_something_else_is_not_touched(source: Path, tmp_path: Path) -> None:
    mine = save(tmp_path / "mine" / IMAGES / "holiday.png", noise_image(0))
    with pytest.raises(OutputError, match=r"mine holds other files \(images\)"):
        make(tmp_path / "mine", source, exists="overwrite")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "letter.txt").write_text("x")
    with pytest.raises(OutputError, match=r"text holds other files \(letter\.txt\)"):
        make(tmp_path / "text", source)
    assert mine.is_file()


def test_the_detector_is_the_named_one(monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path) -> None:
    from lib_vitface.faceset import finder

    asked = []
    original = finder.make_detector
    monkeypatch.setattr(finder, "make_detector", lambda name: asked.append(name) or original(name))
    make(tmp_path / "set", source, every=60, detector="yunet")
    assert asked == ["yunet"]
    with pytest.raises(InputError, match="--detector: 'other' is not one of"):
        build(FacesetOptions, {"input": [source], "output": tmp_path, "detector": "other"})


def test_synthetic_inputs_are_marked(source: Path, tmp_path: Path) -> None:
    still = save(tmp_path / "still.png", frames_of(source, 1)[0])
    asked = []
    options = build(
        FacesetOptions, {"input": [source, still], "output": tmp_path / "set", "every": 60, "min_change": 0.0}
    )
    summary = extract(options, is_synthetic=lambda path: asked.append(path.name) or path == still)
    assert asked == [source.name, "still.png"] and summary["synthetic"] == 1
    assert [r.synthetic for r in Faceset.open(tmp_path / "set").records()] == [False, False, True]


def test_no_face_and_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(NoFaceError, match=r"No face was found in .*no_face\.mp4; name clips"):
        make(tmp_path / "set", locate("sample_no_face"), every=40)
    with pytest.raises(InputError, match="gone"):
        make(tmp_path / "other", tmp_path / "gone.mp4")
    assert not (tmp_path / "other").exists()


def test_folders_pass_over_what_cannot_be_read_and_say_so(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "写真 of me"
    for i, image in enumerate(frames_of(source, 40)[::20]):
        save(folder / f"{i}.png", image)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not a picture")
    (folder / "notes.txt").write_text("not looked at")
    summary = make(tmp_path / "set", folder)
    assert summary["faces"] == 2
    notes = {Path(i["path"]).name: i["note"] for i in summary["inputs"]}
    assert set(notes) == {"0.png", "1.png", "broken.jpg"} and "broken.jpg" in notes["broken.jpg"] and not notes["0.png"]
    with pytest.raises(InputError, match=r"broken\.jpg"):
        make(tmp_path / "other", folder / "broken.jpg")


def test_persons_folders_say_who_is_who(source: Path, target: Path, tmp_path: Path) -> None:
    for i in range(2):
        save(tmp_path / "vox" / "id10001" / f"{i}.png", frames_of(source, 21)[20 * i])
        save(
            tmp_path / "vox" / "id10002" / f"{i}.png", frames_of(source, 61)[20 * i + 40]
        )  # the same woman, says the folder not
        save(tmp_path / "vox" / "id10003" / f"{i}.png", frames_of(target, 41, 12.0)[40 * i])
    summary = make(tmp_path / "set", tmp_path / "vox", keep_strangers=True, min_change=0.0)
    faceset = Faceset.open(tmp_path / "set")
    assert summary["identities"] == 3 and np.bincount(faceset.columns("cluster")["cluster"]).tolist() == [2, 2, 2]


def test_another_tools_points_find_what_a_detector_cannot(source: Path, tmp_path: Path) -> None:
    from test_interop import alignments

    image = frames_of(source, 1)[0]
    first = make(tmp_path / "seen", save(tmp_path / "a.png", image))
    record = next(Faceset.open(Path(first["path"])).records())
    back = invert(record.frame_to_crop)
    mesh68 = record.landmarks[np.linspace(0, 467, 68).astype(int), :2] @ back[:, :2].T + back[:, 2]
    for group, index in ((range(36, 42), 33), (range(42, 48), 263), ([30], 1), ([48], 61), ([54], 291)):
        mesh68[list(group)] = record.landmarks[index, :2] @ back[:, :2].T + back[:, 2]
    folder = tmp_path / "frames"
    save(folder / "a.png", image)
    save(folder / "b.png", image)
    alignments(folder / "alignments.fsa", {"a.png": [mesh68.astype(np.float32)], "b.png": []})
    summary = make(tmp_path / "set", folder, min_change=0.0)
    assert summary["faces"] == 1 == summary["found"], "b.png has no face, says faceswap"
    found = next(Faceset.open(tmp_path / "set").records())
    assert found.source == "a.png" and np.abs(found.landmarks - record.landmarks).max() < 4


def test_deepfacelab_pack_and_own_faceset_as_inputs(whole: Path, tmp_path: Path) -> None:
    from test_interop import deepfacelab_note, write_pak

    faceset = Faceset.open(whole)
    records = list(faceset.records())[:3]
    pictures = [
        with_note(
            faceset.image_path(r).read_bytes(),
            deepfacelab_note(landmarks=points68(r), source_filename=f"{r.frame}.png"),
        )
        for r in records
    ]
    (tmp_path / "pack").mkdir()
    write_pak(tmp_path / "pack" / "faceset.pak", pictures)
    summary = make(tmp_path / "set", tmp_path / "pack", min_change=0.0, size=128)
    assert summary["faces"] == 3
    for record, original in zip(Faceset.open(tmp_path / "set").records(), records, strict=True):
        assert record.source == f"{original.frame}.png"
        assert record.embedding @ original.embedding > 0.8
    assert make(tmp_path / "copy", whole, min_change=0.0)["found"] == 12


def points68(record: Any) -> Any:
    points = np.repeat(record.landmarks[1:2, :2], 68, axis=0)
    for group, index in ((range(36, 42), 33), (range(42, 48), 263), ([48], 61), ([54], 291), ([8], 152), ([17], 70)):
        points[list(group)] = record.landmarks[index, :2]
    return points.tolist()


def with_note(jpeg: bytes, note: Any) -> bytes:
    import struct

    length = struct.unpack(">H", jpeg[4:6])[0]
    data = pickle.dumps(note)
    return jpeg[: 4 + length] + b"\xff\xef" + struct.pack(">H", len(data) + 2) + data + jpeg[4 + length :]


def test_missing_poses_are_rendered(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume that has hardly learned yet shows nobody, so that likeness is not asked for here (see test_novel)."""
    for name, value in {"_STEPS": 2, "_SIDE": 48, "cluster": SimpleNamespace(SAME_PERSON=-1.0)}.items():
        monkeypatch.setattr(novel, name, value)
    summary = make(tmp_path / "set", source, every=6, min_change=0.0, novel_views=3)
    assert (summary["faces"], summary["novel"], summary["synthetic"]) == (15, 3, 0)
    with Faceset.open(tmp_path / "set") as made:
        views = [record for record in made.records() if record.novel]
        assert len(views) == 3 and {made.image(view).shape for view in views} == {(512, 512, 3)}
        assert all(view.synthetic and view.image.endswith(".jpg") for view in views)
    assert make(tmp_path / "set", source, every=6, min_change=0.0)["novel"] == 0


def test_workers_need_a_package(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they do: `test_workers.py`."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match="pip install ray"):
        extract(build(FacesetOptions, {"input": [source], "output": tmp_path / "out", "workers": 2}))


def test_every_option_is_tried_here() -> None:
    text = Path(__file__).read_text()
    for item in declared(FacesetOptions):
        assert f"{item.name}=" in text or f'"{item.name}"' in text, item.name


def test_progress_runs_to_the_end_and_stops_when_asked(source: Path, tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []
    options = build(FacesetOptions, {"input": [source], "output": tmp_path / "set", "every": 2, "min_change": 0.0})

    def stop(done: float, total: float, note: str = "") -> None:
        seen.append((done, total))
        if len(seen) == 20:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        extract(options, stop)
    kept = Faceset.open(tmp_path / "set", unfinished=True)
    assert kept.count() == 16 and not kept.finished, "whole stretches of eight were kept"
    kept.close()
    seen.clear()
    summary = extract(options, lambda done, total, note="": seen.append((done, total)))
    assert summary["faces"] == 36 and summary["frames"] == 36
    assert seen[-1][0] == pytest.approx(seen[-1][1]) and [s[0] for s in seen] == sorted(s[0] for s in seen)


def test_the_pool_is_thinned_without_losing_count(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "_LEAST_POOL", 8)
    summary = make(tmp_path / "set", source, every=2, min_change=0.0, max_faces=2)
    faceset = FacesetWriter.open(tmp_path / "set")
    assert summary["frames"] == 36 and summary["faces"] == 2
    dropped = summary["dropped"]
    assert dropped["thinned"] + dropped["surplus"] + 2 == 36 and dropped["thinned"] >= 16
    seen = faceset.columns("seen", kept=None, whole=True)["seen"]
    assert seen.sum() == 36
    assert len(list((tmp_path / "set" / IMAGES).iterdir())) == faceset.stored() <= 16


def test_shares_are_equal_where_they_can_be() -> None:
    assert choice.shares(np.array([10, 2, 10]), 12).tolist() == [5, 2, 5]
    assert choice.shares(np.array([1, 1]), 5).tolist() == [1, 1]
    assert choice.shares(np.array([4, 4, 4]), 5).tolist() == [2, 2, 1]
    assert choice.shares(np.array([3]), 0).tolist() == [0]


def content(folder: Path) -> tuple[list[Any], list[Any], dict[str, str]]:
    """Everything a faceset says, without the times and places it was made at."""
    with closing(sqlite3.connect(folder / INDEX)) as index:
        faces = index.execute("SELECT * FROM faces ORDER BY id").fetchall()
        arrays = index.execute("SELECT * FROM arrays ORDER BY id").fetchall()
    pictures = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (folder / IMAGES).iterdir()}
    return faces, arrays, pictures


def one_after_the_other(read: Any, work: Any, write: Any, depth: int) -> int:
    return len([write(work(item)) for item in read])


@contextmanager
def no_ray(count: int, waiting: Any) -> Iterator[Any]:
    """What workers do, done here: things go to and fro by pickle."""

    def answers(make: Any, items: Any) -> Iterator[Any]:
        call = pickle.loads(pickle.dumps(make))()
        return (pickle.loads(pickle.dumps(call(pickle.loads(pickle.dumps(item))))) for item in items)

    yield answers


def test_ahead_or_in_turn_or_shared_the_faceset_is_the_same(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {"every": 2, "end_s": 1.3, "size": 128}
    make(tmp_path / "ahead", source, **asked)
    monkeypatch.setattr("lib_vitface.faceset.extract.overlap", one_after_the_other)
    make(tmp_path / "in turn", source, **asked)
    monkeypatch.setattr("lib_vitface.faceset.extract.workers", no_ray)
    monkeypatch.setattr("lib_vitface.faceset.extract._SHARED", 16)
    make(tmp_path / "shared", source, workers=2, **asked)
    faces, arrays, pictures = content(tmp_path / "ahead")
    assert len(pictures) > 5 and len({row[3] for row in arrays}) < len(arrays), "some faces share an embedding"
    assert (faces, arrays, pictures) == content(tmp_path / "in turn") == content(tmp_path / "shared")


def test_what_was_read_before_a_fault_is_kept(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = inputs.pictures

    def cut_off(one: Any, options: Any, skip: int = 0) -> Iterator[Any]:
        yield from islice(original(one, options, skip), 10)
        raise InputError("cut off")

    monkeypatch.setattr(inputs, "pictures", cut_off)
    with pytest.raises(InputError, match="cut off"):
        make(tmp_path / "set", source, every=2, min_change=0.0, size=128)
    assert Faceset.open(tmp_path / "set", unfinished=True).count() == 8


RUN = """
import sys
sys.path.insert(0, {root!r})
from lib_vitface.faceset.extract import extract
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.options import build
extract(build(FacesetOptions, {values!r}), lambda done, total, note="": print(done, flush=True))
"""


@pytest.mark.slow
def test_killed_again_and_again_it_ends_up_the_same(source: Path, tmp_path: Path) -> None:
    values = {"input": [str(source)], "output": str(tmp_path / "whole"), "every": 2}
    make(Path(values["output"]), source, every=2)
    values["output"] = str(tmp_path / "killed")
    code = RUN.format(root=str(ROOT), values=values)
    for wanted in (3, 7, 8, 9, 1):
        running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert running.stdout is not None
        for lines, _ in enumerate(running.stdout, 1):
            if lines == wanted:
                running.send_signal(signal.SIGKILL)
                break
        running.wait()
        time.sleep(0.05)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.returncode == 0
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_inputs_are_taken_once_and_in_order(source: Path, tmp_path: Path) -> None:
    link = tmp_path / "again.mp4"
    link.symlink_to(source)
    found = inputs.expand([source, link, source])
    assert [one.path for one in found] == [source]
    with pytest.raises(InputError, match="name the video or folder"):
        inputs.expand([save(tmp_path / "x.png", noise_image(0)).with_suffix(".fsa")])
