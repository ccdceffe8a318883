"""The whole evaluation on real faces: results whose figures are known beforehand."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lib_vitface.assets import locate
from lib_vitface.errors import Cancelled, InputError, NoFaceError, OutputError
from lib_vitface.faces import align
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.media import EncodeSettings, FrameWriter, probe, read_frames
from lib_vitface.metrics.evaluate import _write, evaluate
from lib_vitface.metrics.image import psnr
from lib_vitface.metrics.settings import EvaluateOptions
from lib_vitface.options import build, to_dict
from lib_vitface.types import Face, Frame, Image

COUNT, SIDE, EVERY = 14, 288, 4  # frames of a clip, their size, and which of them are scored
SCORED = [0, 4, 8, 12]


def face_in(image: Image) -> Face:
    return Analyser(make_detector(), MeshLandmarker())(image)[0]


@pytest.fixture(scope="session")
def people() -> tuple[list[Image], list[Image]]:
    """The same number of frames of two people, cut so that their faces are upright at the same place."""
    clips = []
    for name in ("sample_source", "sample_target"):
        frames = [f.image for f in islice(read_frames(locate(name)), COUNT)]
        matrix = align.crop_matrix(face_in(frames[0]), SIDE, coverage=2.2)
        clips.append([align.warp(image, matrix, SIDE) for image in frames])
    return clips[0], clips[1]


@pytest.fixture(scope="session")
def save(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes frames as a lossless clip of 25 frames a second."""
    info = probe(locate("sample_source"))
    folder = tmp_path_factory.mktemp("clips")

    def write(name: str, frames: list[Image], fps: int = 25) -> Path:
        height, width = frames[0].shape[:2]
        shape = replace(info, width=width, height=height, fps=Fraction(fps), time_base=Fraction(1, 1000))
        with FrameWriter(folder / f"{name}.mkv", shape, EncodeSettings(codec="ffv1")) as writer:
            for index, image in enumerate(frames):
                writer.write(Frame(index, Fraction(index, fps), image))
        return folder / f"{name}.mkv"

    return write


@pytest.fixture(scope="session")
def clips(people: tuple[list[Image], list[Image]], save: Callable[..., Path]) -> dict[str, Path]:
    source, target = people
    rng = np.random.default_rng(0)
    shaken = [np.clip(x + rng.normal(0, 12, x.shape), 0, 255).astype(np.uint8) for x in target]
    shifted = [np.roll(x, 3, axis=1) for x in target]
    return {
        "source": save("source", source),
        "target": save("target", target),
        "shaken": save("shaken", shaken),
        "shifted": save("shifted", shifted),
    }


@pytest.fixture(scope="session")
def run(clips: dict[str, Path], people: tuple[list[Image], list[Image]]) -> Callable[..., dict[str, Any]]:
    face = face_in(people[0][0])
    own = [(image, face_in(image).landmarks) for image in people[0][1::4]]
    assert face.landmarks is not None

    def go(name: str, **options: Any) -> dict[str, Any]:
        values = {"source": clips["source"], "target": clips["target"], "result": clips[name], "every": EVERY}
        quick = {"features": [], "scorer": "sface"}  # where whose face it is is not the point
        return evaluate(EvaluateOptions(**{**values, **quick, **options}), source_faces=own)

    return go


@pytest.fixture(scope="session")
def unchanged(
    run: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """The target as its own result, every figure taken, with the files."""
    folder = tmp_path_factory.mktemp("files")
    found = run(
        "target",
        features=["sface", "dlib"],
        json=folder / "a b" / "figures.json",
        report=folder / "結果.html",
        pictures=3,
    )
    return found, folder


def test_an_unchanged_video_is_the_target(unchanged: tuple[dict[str, Any], Path]) -> None:
    found, _ = unchanged
    assert found["frames"] == {
        "paired": COUNT,
        "every": EVERY,
        "scored": len(SCORED),
        "without_face_in_target": 0,
        "face_lost_in_result": 0,
        "share_face_found": 1.0,
    }
    assert found["temporal"]["flicker"]["ratio"] == 1 and found["temporal"]["warping_error"]["ratio"] == 1
    assert found["temporal"]["flicker"]["target"] > 0.1
    assert found["temporal"]["landmark_jitter"]["added"] == 0
    assert found["geometry"]["landmark_distance"]["p95"] == 0 and found["geometry"]["pose_error_deg"]["p95"] == 0
    assert found["geometry"]["expression"]["error"] == 0
    assert found["outside_face"]["psnr_db"]["median"] == 100  # stands for equal
    assert found["sharpness"]["ratio"] == 1
    assert found["identity"]["share_nearer_source"] == 0 and found["identity"]["retrieval_rank1"] == 0
    assert found["identity"]["attained"] == pytest.approx(0, abs=1e-6)
    assert found["identity"]["same_frame_target_cosine"] == pytest.approx(1, abs=1e-5)
    assert found["likeness"] is None
    assert [row["met"] for row in found["aims"]] == [False, True, True]


def test_distances_are_called_after_their_space(unchanged: tuple[dict[str, Any], Path]) -> None:
    found = unchanged[0]["distribution"]
    assert set(found) == {"frechet_sface", "kernel_sface", "frechet_dlib", "kernel_dlib"}
    for name in ("frechet_sface", "frechet_dlib"):
        assert found[name]["result_to_target"] == pytest.approx(0, abs=1e-5)
        assert found[name]["result_to_source"] == pytest.approx(found[name]["target_to_source"]) and (
            found[name]["result_to_source"] > 0.2
        )
        assert found[name]["frames"] == len(SCORED) and found[name]["dimensions"] == 128


def test_the_files_hold_the_same_figures(unchanged: tuple[dict[str, Any], Path]) -> None:
    found, folder = unchanged
    written = json.loads((folder / "a b" / "figures.json").read_text(encoding="utf-8"))
    columns = written.pop("per_frame")
    assert written == found
    assert columns["frame"] == SCORED
    assert columns["flicker_frame"] == [i + 1 for i in SCORED] and columns["jitter_frame"] == [
        i + 1 for i in SCORED[:3]
    ]
    assert columns["time_s"] == pytest.approx([i / 25 for i in SCORED], abs=1e-3)
    assert len({len(columns[n]) for n in ("source_cosine", "yaw_deg", "landmark_distance", "time_s")}) == 1
    page = (folder / "結果.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 2 and page.count("data:image/jpeg;base64,") == 4
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")  # nothing is loaded from elsewhere
    assert not list(folder.rglob("*.part"))


def test_a_result_that_shows_the_source(run: Callable[..., dict[str, Any]]) -> None:
    found = run("source", scorer="dlib")
    assert found["identity"]["share_nearer_source"] == 1 and found["identity"]["retrieval_rank1"] == 1
    assert found["identity"]["attained"] == pytest.approx(1, abs=0.1)
    assert found["identity"]["source_cosine"] > 0.9 > found["identity"]["target_cosine"]
    assert found["geometry"]["landmark_distance"]["median"] > 0.03  # it does not follow the target's face
    assert found["outside_face"]["psnr_db"]["median"] < 25  # nor keep its background
    assert found["temporal"]["flicker"]["target"] > 0.1
    assert found["distribution"] == {}


def test_noise_in_every_frame_is_flicker(
    run: Callable[..., dict[str, Any]], unchanged: tuple[dict[str, Any], Path]
) -> None:
    found = run("shaken")
    calm = unchanged[0]["temporal"]
    assert found["temporal"]["flicker"]["target"] == pytest.approx(calm["flicker"]["target"])
    assert found["temporal"]["flicker"]["ratio"] > 2 and found["temporal"]["warping_error"]["ratio"] > 3
    assert found["temporal"]["landmark_jitter"]["added"] > 0
    assert 0 < found["geometry"]["landmark_distance"]["median"] < 0.03
    assert found["aims"][2] == {
        "name": "flicker_ratio",
        "value": found["temporal"]["flicker"]["ratio"],
        "aim": "<= 1.2",
        "met": False,
    }


def test_self_reenactment_compares_pixels(
    run: Callable[..., dict[str, Any]], people: tuple[list[Image], list[Image]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Image, Image]] = []
    monkeypatch.setattr("lib_vitface.metrics.evaluate.Lpips", lambda: lambda a, b: seen.append((a, b)) or 0.25)
    found = run("shaken", self_reenactment=True, lpips=True, every=7)
    likeness = found["likeness"]
    assert likeness["face_lpips"]["median"] == 0.25 and len(seen) == found["frames"]["scored"]
    same = (seen[0][0] == seen[0][1]).all(axis=2)
    assert same[:8].all() and not same[120:136, 120:136].all(), "beyond the face nothing is compared"
    target = people[1][0]
    noise = np.clip(target + np.random.default_rng(0).normal(0, 12, target.shape), 0, 255).astype(np.uint8)
    # The crop is taken larger than the clip's face, which smooths the noise a little.
    assert likeness["face_psnr_db"]["median"] == pytest.approx(psnr(noise, target), abs=2.5)
    assert 0.3 < likeness["face_ssim"]["median"] < likeness["face_ms_ssim"]["median"] < 1
    assert "share_nearer_source" not in found["identity"] and "attained" not in found["identity"]
    assert [row["name"] for row in found["aims"]] == ["landmark_distance_median", "flicker_ratio"]
    assert found["mode"] == "self-reenactment"


def test_a_moved_face_is_measured_in_eye_distances(
    run: Callable[..., dict[str, Any]], people: tuple[list[Image], list[Image]]
) -> None:
    found = run("shifted", every=7)
    points = face_in(people[1][0]).points
    expected = 3 / np.linalg.norm(points[0] - points[1])
    assert found["geometry"]["landmark_distance"]["median"] == pytest.approx(expected, rel=0.15)
    assert found["geometry"]["pose_error_deg"]["median"] < 1


def test_a_part_of_the_target(
    run: Callable[..., dict[str, Any]], people: tuple[list[Image], list[Image]], save: Callable[..., Path]
) -> None:
    part = save("part", people[1][5:12])
    found = run("target", result=part, start_s=0.2, end_s=0.48, every=3)
    assert found["frames"]["paired"] == 7 and found["geometry"]["landmark_distance"]["p95"] == 0
    with pytest.raises(InputError, match=r"0\.28 s long.*start and end"):
        run("target", result=part)


def test_a_scaled_result_is_measured_at_the_size_of_the_target(
    run: Callable[..., dict[str, Any]], people: tuple[list[Image], list[Image]], save: Callable[..., Path]
) -> None:
    double = save("double", [cv2.resize(x, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_CUBIC) for x in people[1]])
    found = run("target", result=double, every=7)
    assert found["geometry"]["landmark_distance"]["median"] < 0.005
    cropped = save("cropped", [x[:, 40:] for x in people[1]])
    with pytest.raises(InputError, match="248x288 is not that of the target"):
        run("target", result=cropped)


def test_pictures_can_be_compared_too(
    run: Callable[..., dict[str, Any]], people: tuple[list[Image], list[Image]], tmp_path: Path
) -> None:
    paths = []
    for name, frames in zip(("source", "target"), people, strict=True):
        paths.append(tmp_path / f"{name}.png")
        cv2.imwrite(str(paths[-1]), cv2.cvtColor(frames[0], cv2.COLOR_RGB2BGR))
    found = run("target", target=paths[1], result=paths[0], report=tmp_path / "report.html")
    assert found["identity"]["share_nearer_source"] == 1 and found["temporal"]["flicker"]["ratio"] is None
    assert found["aims"][2]["met"] is None
    with pytest.raises(InputError, match="one is a picture and the other a video"):
        run("target", result=paths[0])


def test_the_source_may_be_clips_and_photos(clips: dict[str, Path]) -> None:
    def count(done: float, total: float, note: str = "") -> None:
        notes.add(note)

    notes: set[str] = set()
    options = EvaluateOptions(
        clips["source"], clips["target"], clips["source"], every=14, features=[], source_faces=3, scorer="sface"
    )
    found = evaluate(options, count)
    assert found["identity"]["source_faces"] == 3 and found["identity"]["share_nearer_source"] == 1
    assert notes == {"Looking for the source's face in source.mkv", "Measuring source faces", "Scoring frames"}


def test_what_shows_no_face_is_named(
    run: Callable[..., dict[str, Any]],
    clips: dict[str, Path],
    save: Callable[..., Path],
    people: tuple[list[Image], ...],
) -> None:
    empty = save("empty", [np.full((SIDE, SIDE, 3), 90, dtype=np.uint8)] * COUNT)
    with pytest.raises(NoFaceError, match=r"empty\.mkv: no face"):
        run("target", result=empty, every=7)
    with pytest.raises(NoFaceError, match=r"empty\.mkv: no face"):
        run("target", target=empty, result=empty, every=7)
    with pytest.raises(NoFaceError, match=r"empty\.mkv: no face"):
        evaluate(EvaluateOptions(empty, clips["target"], clips["target"], features=[], source_faces=2))
    half = save("half", [people[1][0]] * 7 + [np.full((SIDE, SIDE, 3), 90, dtype=np.uint8)] * 7)
    lost = run("target", target=save("still", [people[1][0]] * COUNT), result=half, every=7)["frames"]
    assert lost["scored"] == 1 and lost["face_lost_in_result"] == 1 and lost["share_face_found"] == 0.5
    none = run("target", target=half, result=half, every=7)
    assert none["frames"]["without_face_in_target"] == 1 and none["frames"]["share_face_found"] == 1
    assert none["outside_face"]["frames_without_face_psnr_db"]["median"] == 100


def test_files_that_cannot_be_used(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        run("target", result=tmp_path / "nowhere.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"text\.mp4"):
        run("target", target=tmp_path / "text.mp4")
    with pytest.raises(OutputError, match="is a folder"):
        run("target", json=tmp_path)
    with pytest.raises(OutputError, match="choose another folder"):
        run("target", report=tmp_path / "text.mp4" / "report.html")


def test_a_full_disk_is_said_in_a_sentence(tmp_path: Path) -> None:
    def full(path: Path) -> None:
        path.write_text("{")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match=r"r\.json: the disk is full"):
        _write(tmp_path / "r.json", full)
    assert not list(tmp_path.iterdir())


def test_stopping_leaves_no_files(clips: dict[str, Path], tmp_path: Path) -> None:
    def stop(done: float, total: float, note: str = "") -> None:
        if note == "Scoring frames" and done > 0:
            raise Cancelled("stopped")

    options = EvaluateOptions(
        clips["source"],
        clips["target"],
        clips["target"],
        every=14,
        features=[],
        source_faces=1,
        json=tmp_path / "a.json",
    )
    with pytest.raises(Cancelled):
        evaluate(options, stop)
    assert list(tmp_path.iterdir()) == []


def test_options_survive_json() -> None:
    options = build(EvaluateOptions, {"source": "a", "target": "b", "result": "c", "json": "d", "features": ["dlib"]})
    assert build(EvaluateOptions, json.loads(json.dumps(to_dict(options)))) == options
    assert options.json == Path("d") and options.report is None
    with pytest.raises(InputError, match="--scorer"):
        build(EvaluateOptions, {"source": "a", "target": "b", "result": "c", "scorer": "guess"})
