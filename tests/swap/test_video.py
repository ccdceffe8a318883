"""Whole videos through the swap with a stand-in model: complete, in time, and the same after any kill."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tint import PlainDoor, Tint, options

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.errors import Cancelled, CheckpointError, InputError, NoFaceError
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.faces.parse import hull_mask
from lib_vitface.jobs import Claim, JobStore
from lib_vitface.provenance.watermark import SAMPLES
from lib_vitface.swap.analysis import load_arrays, save_arrays
from lib_vitface.swap.finish import Finisher
from lib_vitface.swap.picture import swap_face, swap_images, swap_input
from lib_vitface.swap.video import finished, identity, swap_video
from lib_vitface.types import Clip, SwappedFace

PROGRAM = Path(__file__).with_name("tint.py")
PLAIN = {"color": "none", "occlusion": False, "sharpen": 0, "start_s": 0.0, "end_s": 0.8}


def swap(folder: Path, **values: Any) -> dict[str, Any]:
    chosen = options(folder, **{"input": locate("sample_source"), **PLAIN, **values})
    return swap_video(chosen, Tint(), PlainDoor(), JobStore(folder / "work"))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 frames in one go."""
    folder = tmp_path_factory.mktemp("whole")
    result = swap(folder)
    assert (result["frames"], result["swapped_frames"], result["people"], result["resumed_chunks"]) == (24, 24, 1, 0)
    assert not list((folder / "work").rglob("*.npz"))  # nothing is left of the job's own files
    return folder / "out.mkv"


def test_every_frame_is_there_and_only_its_face_changed(whole: Path) -> None:
    analyse = Analyser(make_detector(), MeshLandmarker())
    before = list(islice(media.read_frames(locate("sample_source")), 24))
    after = list(media.read_frames(whole))
    assert [abs(a.time - b.time) <= 0.001 for a, b in zip(after, before, strict=True)] == [True] * 24
    for a, b in islice(zip(after, before, strict=True), 0, 24, 6):
        (face,) = analyse(b.image)
        assert face.landmarks is not None
        inside = hull_mask(face.landmarks, a.image.shape[:2], erode_px=15) > 0.99
        far = hull_mask(face.landmarks, a.image.shape[:2], erode_px=-40) == 0
        ratio = a.image[inside].astype(float).mean(axis=0) / b.image[inside].mean(axis=0)
        assert ratio[0] < 0.7 and ratio[1] > 1.05 and ratio[2] < 0.9  # the tint
        np.testing.assert_array_equal(a.image[far], b.image[far])


@pytest.mark.parametrize("dies_at", [3, 20, 70])  # in the first chunk, in a later one, and while swapping
def test_killed_and_resumed_gives_the_same_bytes(whole: Path, tmp_path: Path, dies_at: int) -> None:
    values = [f"{k}={v}" for k, v in {"input": locate("sample_source"), **PLAIN}.items()]
    dead = subprocess.run([sys.executable, PROGRAM, tmp_path, str(dies_at), *values], capture_output=True, text=True)
    assert dead.returncode == -9 and not (tmp_path / "out.mkv").exists()
    result = swap(tmp_path)
    assert (tmp_path / "out.mkv").read_bytes() == whole.read_bytes()
    assert result["frames"] == 24 and (result["resumed_chunks"] > 0) == (dies_at > 8)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, make_video: Callable[..., Path]) -> Path:
    """80 frames of noise, the first of them with a face: ten chunks."""
    draw = np.random.default_rng(0)
    face = next(iter(media.read_frames(locate("sample_source")))).image
    frames = [face] * 3 + [draw.integers(0, 255, face.shape, np.uint8) for _ in range(77)]
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return make_video(path, frames, 25, options={"crf": "30", "preset": "ultrafast"})


@pytest.mark.slow
@pytest.mark.parametrize("joined", [1, 4])
def test_a_long_video_killed_while_it_is_joined(long: Path, tmp_path: Path, joined: int) -> None:
    """Its chunks go one by one as they arrive in the output, and none is made again after a kill."""
    values = {"input": long, "color": "none", "occlusion": False, "sharpen": 0, "codec": "h264", "quality": 30}
    made = []
    for name in ("whole", "parts"):
        folder = tmp_path / name
        folder.mkdir()
        words = {**values, "output": folder / "out.mp4", "encode_speed": "fast"}
        if name == "parts":
            pairs = [f"{k}={v}" for k, v in {**words, "dies_at_joined": joined}.items()]
            dead = subprocess.run([sys.executable, PROGRAM, folder, "0", *pairs], capture_output=True, text=True)
            assert dead.returncode == -9, dead.stdout + dead.stderr
            (job,) = JobStore(folder / "work").list("swap")
            assert len(list(job.folder.glob("video-*"))) == 10 - joined + 1, "the last one was only noted"
            assert len(list(folder.glob(".*.part"))) == 1
        result = swap_video(options(folder, **words), Tint(), PlainDoor(), JobStore(folder / "work"))  # type: ignore[arg-type]
        made.append((folder / "out.mp4").read_bytes())
        assert result["resumed_chunks"] == (20 if name == "parts" else 0)
        assert sorted(p.name for p in folder.iterdir()) == ["model", "out.mp4", "work"]
    assert made[0] == made[1]


def test_stopping_keeps_what_was_done(whole: Path, tmp_path: Path) -> None:
    chosen = options(tmp_path, input=locate("sample_source"), **PLAIN)
    store = JobStore(tmp_path / "work")

    def stop(done: float, total: float, note: str = "") -> None:
        if note == "swapping" and done > 24 + 12:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        swap_video(chosen, Tint(), PlainDoor(), store, stop)  # type: ignore[arg-type]
    assert not chosen.output.exists()
    result = swap_video(chosen, Tint(), PlainDoor(), store)  # type: ignore[arg-type]
    assert result["resumed_chunks"] >= 3 and chosen.output.read_bytes() == whole.read_bytes()


def test_a_model_that_sees_neighbours_is_stopped_and_resumed_as_well(tmp_path: Path) -> None:
    """Its clips have frames before and after them, also where a resumed run begins."""
    made = []
    for name, until in (("whole", math.inf), ("parts", 24 + 12)):
        (tmp_path / name).mkdir()
        chosen = options(tmp_path / name, input=locate("sample_source"), **PLAIN)
        store = JobStore(tmp_path / name / "work")

        def stop(done: float, total: float, note: str = "", until: float = until) -> None:
            if note == "swapping" and done > until:
                raise Cancelled("enough")

        swapper = Tint(context=3)
        if until < math.inf:
            with pytest.raises(Cancelled):
                swap_video(chosen, swapper, PlainDoor(), store, stop)  # type: ignore[arg-type]
        swap_video(chosen, swapper, PlainDoor(), store)  # type: ignore[arg-type]
        assert max(swapper.clips) == swapper.clip_length + 2 * 3
        made.append(chosen.output.read_bytes())
    assert made[0] == made[1]


class Stepping(Tint):
    """Notes which thread does what; the network waits until another clip is being prepared beside it, and one was finished."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: dict[str, set[str]] = {"prepare": set(), "draw": set(), "finish": set()}
        self.prepared, self.beside = 0, 0

    def _note(self, name: str) -> None:
        self.threads[name].add(threading.current_thread().name)

    def prepare(self, clip: Clip) -> Clip:
        self._note("prepare")
        self.prepared += 1
        return clip

    def draw(self, prepared: Any) -> Any:
        self._note("draw")
        before = self.prepared
        for _ in range(200):
            if self.prepared > before or self.prepared == 6:
                break
            time.sleep(0.01)
        self.beside += self.prepared > before
        return super().draw(prepared)

    def finish(self, drawn: Any) -> list[SwappedFace]:
        self._note("finish")
        return super().finish(drawn)


def test_clips_are_prepared_and_finished_beside_the_network(whole: Path, tmp_path: Path) -> None:
    swapper = Stepping()
    chosen = options(tmp_path, **{"input": locate("sample_source"), **PLAIN})
    result = swap_video(chosen, swapper, PlainDoor(), JobStore(tmp_path / "work"))  # type: ignore[arg-type]
    assert swapper.threads["draw"] == {threading.current_thread().name}
    assert len(set.union(*swapper.threads.values())) == 3 and all(len(t) == 1 for t in swapper.threads.values())
    assert swapper.prepared == 6 and swapper.beside >= 1
    assert set(result["seconds"]["swap"]) == {"read", "prepare", "work", "finish", "write", "wall"}
    assert chosen.output.read_bytes() == whole.read_bytes(), "the same frames as ever"


class Weighing(PlainDoor):
    """Finds another strength each time it is asked, and notes with which one each segment is opened."""

    def __init__(self, found: float, opened: list[tuple[str, float]], asked: list[int], strength: float = 0.0) -> None:
        self.found, self.opened, self.asked, self._strength = found, opened, asked, strength

    def strength(self, frames: Sequence[np.ndarray]) -> float:
        self.asked.append(len({frame.tobytes() for frame in frames}))
        return self.found

    def of_strength(self, strength: float) -> Weighing:
        return Weighing(self.found, self.opened, self.asked, strength)

    def segment(self, path: Path, info: Any, settings: media.EncodeSettings) -> Any:
        self.opened.append((path.name, self._strength))
        return super().segment(path, info, settings)


def test_all_segments_have_the_strength_that_was_found_first(whole: Path, tmp_path: Path) -> None:
    """Also those that are written after a stop: it stands in the job's record."""
    chosen = options(tmp_path, input=locate("sample_source"), **PLAIN)
    store = JobStore(tmp_path / "work")
    opened: list[tuple[str, float]] = []
    asked: list[int] = []

    def stop(done: float, total: float, note: str = "") -> None:
        if note == "swapping" and done > 24 + 12:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        swap_video(chosen, Tint(), Weighing(0.9, opened, asked), store, stop)  # type: ignore[arg-type]
    swap_video(chosen, Tint(), Weighing(1.3, opened, asked), store)  # type: ignore[arg-type]
    assert asked == [SAMPLES], "once, by frames that differ"
    assert {strength for _, strength in opened} == {0.9} and {name for name, _ in opened} == {
        f"video-{k:05}.nut" for k in range(3)
    }
    assert chosen.output.read_bytes() == whole.read_bytes()


def test_what_is_finished_is_known_by_its_very_work(whole: Path, tmp_path: Path) -> None:
    """As `clone` asks that was killed before it noted its swap; copies of the record in the model's folder make no difference."""
    chosen, store = (
        options(tmp_path, input=locate("sample_source"), **{**PLAIN, "end_s": 0.2}),
        JobStore(tmp_path / "work"),
    )
    (chosen.model / "model.json").write_text("{}")
    assert finished(store, chosen) is None
    result = swap_video(chosen, Tint(), PlainDoor(), store)  # type: ignore[arg-type]
    (chosen.model / "consent.json").write_text("{}")
    assert finished(store, chosen) == result
    assert finished(store, replace(chosen, feather=9)) is None
    data = chosen.output.read_bytes()
    chosen.output.unlink()
    chosen.output.write_bytes(data)
    assert finished(store, chosen) is None, "written by somebody else"


def test_outputs_that_are_there_are_kept(tmp_path: Path) -> None:
    (tmp_path / "out.mkv").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"is there already.*--overwrite"):
        swap(tmp_path)
    assert (tmp_path / "out.mkv").read_bytes() == b"precious"
    clip = tmp_path / "in.mkv"
    clip.write_bytes(locate("sample_source").read_bytes())
    with pytest.raises(InputError, match="is the input itself"):
        swap(tmp_path, input=clip, output=clip, overwrite=True)


def test_without_a_face_there_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(NoFaceError, match="no face was found"):
        swap(tmp_path, input=locate("sample_no_face"), end_s=0.3)
    assert not (tmp_path / "out.mkv").exists()


def test_a_changed_input_is_another_job(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    before = identity(tmp_path / "a")
    assert identity(tmp_path / "a") == before
    (tmp_path / "a").write_bytes(b"12")
    assert identity(tmp_path / "a") != before
    with pytest.raises(InputError, match="gone"):
        identity(tmp_path / "gone")


@pytest.mark.parametrize("damage", [lambda d: d[:-200], lambda d: b"rubbish", lambda d: b""])
def test_damaged_files_of_a_job_are_named(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "x.npz"
    save_arrays(path, {"a": np.arange(1000.0)})
    np.testing.assert_array_equal(load_arrays(path)["a"], np.arange(1000.0))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"x\.npz: is damaged"):
        load_arrays(path)


# ------------------------------------------------------------------------------------------------------ pictures


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two pictures with a face, in a folder and below it, and one without."""
    folder = tmp_path / "in"
    for name, image in (
        ("b.png", next(islice(media.read_frames(locate("sample_source")), 1)).image),
        ("deep/a.jpg", next(islice(media.read_frames(locate("sample_target")), 1)).image),
        ("empty.png", np.full((90, 120, 3), 127, np.uint8)),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        media.write_image(folder / name, image)
    return folder


def swap_folder(folder: Path, source: Path, output: Path, **values: Any) -> dict[str, Any]:
    chosen = options(folder, input=source, output=output, codec="auto", **{"color": "none", **values})
    return swap_input(chosen, Tint(), PlainDoor(), JobStore(folder / "work"))  # type: ignore[arg-type]


def test_a_folder_keeps_its_names_and_tells_who_was_left_out(pictures: Path, tmp_path: Path) -> None:
    result = swap_folder(tmp_path, pictures, tmp_path / "out")
    assert result["pictures"] == 2 and result["without_face"] == [str(pictures / "empty.png")]
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")) == [
        "b.png",
        "deep/a.jpg",
    ]
    gap = np.abs(media.read_image(tmp_path / "out" / "b.png").astype(int) - media.read_image(pictures / "b.png"))
    assert gap.max() > 40 and (gap.max(axis=2) == 0).mean() > 0.6


@pytest.mark.parametrize("name", ["", "b.png"])
def test_pictures_killed_before_the_first_was_noted(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The picture lies there already: the same command must know it for its own."""
    real, output, noted = Claim.add_chunk, tmp_path / f"out{Path(name).suffix}", []

    def add_chunk(claim: Claim, stage: str, *given: Any, **named: Any) -> None:
        if stage == "picture":
            raise KeyboardInterrupt
        real(claim, stage, *given, **named)

    def again() -> dict[str, Any]:
        chosen = options(tmp_path, input=pictures / name, output=output, codec="auto", color="none")
        return swap_input(chosen, Tint(), PlainDoor(), JobStore(tmp_path / "work"), published=lambda: noted.append(1))  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Claim, "add_chunk", add_chunk)
        with pytest.raises(KeyboardInterrupt):
            again()
    assert output.exists() and not noted
    assert again()["pictures"] == (1 if name else 2) and noted == [1]
    with pytest.raises(InputError, match="is there already"):
        again()


def test_one_picture_without_a_face_is_an_error(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(NoFaceError, match=r"empty\.png"):
        swap_folder(tmp_path, pictures / "empty.png", tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()
    assert swap_folder(tmp_path, pictures / "b.png", tmp_path / "out.png")["pictures"] == 1


def test_the_person_named_by_a_picture_is_replaced(tmp_path: Path) -> None:
    first, second = (next(islice(media.read_frames(locate(n)), 1)).image for n in ("sample_source", "sample_target"))
    both = np.hstack([first[:, 120:480], second[:, 200:]])
    for name, image in (("both", both), ("first", first), ("second", second)):
        media.write_image(tmp_path / f"{name}.png", image)
    for person, side in (("first", np.s_[:, :360]), ("second", np.s_[:, 360:])):
        output = tmp_path / f"{person}-out.png"
        swap_folder(tmp_path, tmp_path / "both.png", output, face="picture", face_picture=tmp_path / f"{person}.png")
        changed = (media.read_image(output) != both).any(axis=2)
        assert changed[side].sum() > 0.95 * changed.sum() > 1000
    with pytest.raises(InputError, match="needs --face-picture"):
        swap_folder(tmp_path, tmp_path / "both.png", tmp_path / "o.png", face="picture")


def test_names_that_would_meet_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "a.bmp"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(InputError, match="the same name"):
        swap_images(
            options(tmp_path, input=folder, output=tmp_path / "out"), Tint(), PlainDoor(), JobStore(tmp_path / "w")
        )  # type: ignore[arg-type]


def test_a_face_turned_beyond_the_limit_is_left(tmp_path: Path) -> None:
    image = next(islice(media.read_frames(locate("sample_source")), 1)).image
    (face,) = Analyser(make_detector(), MeshLandmarker())(image)
    finisher = Finisher(options(tmp_path, input=tmp_path))
    assert swap_face(image, face, Tint(), finisher) is not None
    small = Finisher(options(tmp_path, input=tmp_path, min_face_px=400))
    assert swap_face(image, face, Tint(), small) is None
