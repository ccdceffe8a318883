"""The diffusion pass over videos: few pictures are redrawn, nothing shimmers, and a killed job writes the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from grain import Grain, Melt
from tint import PlainDoor, Tint, options

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.errors import Cancelled
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.embed import cosine, make_embedder
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.jobs import JobStore
from lib_vitface.metrics import temporal
from lib_vitface.swap.denoise import Kept, Region
from lib_vitface.swap.steady import Counts, State, carried, fineness, key_frames, mixed
from lib_vitface.swap.video import swap_video
from lib_vitface.types import Face, Image

PROGRAM = Path(__file__).with_name("tint.py")
ROOT = Path(__file__).resolve().parents[2]
PLACES = [Path(os.environ.get("VITFACE_CLIPS", "nowhere")), *(up / "shared" / "clips" for up in ROOT.parents[:2])]
CLIPS = next((place for place in PLACES if place.is_dir()), PLACES[0])
PLAIN = {"color": "none", "occlusion": False, "start_s": 0.0, "end_s": 0.7}
DRAWN = {**PLAIN, "color_frames": 1, "denoise": 0.3, "denoise_size": 192, "denoise_likeness": 0, "denoise_drift": 100}


def swap(folder: Path, denoiser: Any = None, tick: Any = None, **values: Any) -> tuple[list[Image], dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    picked = options(folder, **{"input": locate("sample_source"), **DRAWN, **values})
    extra = {} if tick is None else {"tick": tick}
    result = swap_video(picked, Tint(), PlainDoor(), JobStore(folder / "work"), denoiser=denoiser, **extra)  # type: ignore[arg-type]
    return [frame.image for frame in media.read_frames(picked.output)], result


def test_key_frames_are_even_and_hold_both_ends() -> None:
    for length in range(1, 60):
        for every in (1, 2, 7, 8, 32):
            keys = key_frames(range(5, 5 + length), every)
            assert keys[0] == 5 and keys[-1] == 4 + length
            assert all(0 < b - a <= every for a, b in pairwise(keys))
            assert len(keys) == (1 if length == 1 else -(-(length - 1) // every) + 1)


def texture(seed: int = 0, size: int = 128) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(size, size, 3))
    fine = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return (10 * fine / fine.std()).astype(np.float32)


def test_what_was_added_moves_with_the_picture() -> None:
    ground = np.clip(128 + 4 * cv2.GaussianBlur(texture(1), (0, 0), 2.0), 0, 255)
    shift = np.float32([[1, 0, 3], [0, 1, -2]])
    moved = cv2.warpAffine(ground, shift, (128, 128), borderMode=cv2.BORDER_REFLECT).astype(np.uint8)
    added = texture(2)
    brought, visible = carried(added, ground.astype(np.uint8), moved)
    expected = cv2.warpAffine(added, shift, (128, 128))
    part = np.s_[20:-20, 20:-20]
    assert np.abs(brought - expected)[part].mean() < 0.12 * np.abs(added).mean() < np.abs(added - expected)[part].mean()
    assert visible[part].mean() > 0.95
    hidden = moved.copy()
    hidden[40:90, 40:90] = np.clip(128 + 4 * texture(7, 50), 0, 255)
    _, visible = carried(added, ground.astype(np.uint8), hidden)
    assert visible[48:82, 48:82].mean() < 0.6 < 0.9 < visible[:30].mean()


def test_a_mixture_keeps_its_contrast_and_takes_what_is_seen() -> None:
    one, other, whole = texture(1), texture(2), np.ones((128, 128), np.float32)
    for share in (0.0, 0.3, 0.5, 1.0):
        assert mixed(one, other, whole, whole, share, whole).std() == pytest.approx(one.std(), rel=0.03)
    np.testing.assert_allclose(mixed(one, one, whole, whole, 0.5, whole), one, atol=1e-3)
    left = (np.arange(128)[None, :] < 64).astype(np.float32).repeat(128, 0)
    np.testing.assert_allclose(
        mixed(one, other, left, 1 - left, 0.2, whole)[:, 64:], other[:, 64:], rtol=0.05, atol=0.1
    )
    assert not mixed(one, other, 0 * whole, 0 * whole, 0.5, whole).any(), "seen in neither: nothing is made up"


def test_a_blurred_frame_is_known() -> None:
    sharp = np.clip(128 + 2 * texture(3), 0, 255).astype(np.uint8)
    whole = np.ones((128, 128), np.float32)
    regions = [
        Region(i, whole, np.eye(2, 3), np.zeros((468, 3), np.float32), None) for i in (sharp, cv2.blur(sharp, (11, 11)))
    ]
    assert fineness(regions[1]) < 0.4 * fineness(regions[0])


def test_states_come_back_from_disk(tmp_path: Path) -> None:
    counts = Counts()
    counts.note(Kept(0.5, 0.0, 3.5), True)
    counts.note(Kept(0.0, 0.9, None), False)
    added = texture().astype(np.float16)
    State({7: added, 12: -added}, counts).save(tmp_path / "a.npz")
    back = State.load(tmp_path / "a.npz")
    assert [*back.added] == [7, 12] and back.counts == counts == Counts(1, 2, 2, 1, 0.0, 3.5)
    np.testing.assert_array_equal(back.added[12], -added)
    State({}, Counts()).save(tmp_path / "b.npz")
    assert State.load(tmp_path / "b.npz") == State({}, Counts())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Any], Grain]:
    folder, grain = tmp_path_factory.mktemp("whole"), Grain()
    _, result = swap(folder, grain)
    return (folder / "out.mkv").read_bytes(), result, grain


def test_the_pipeline_is_asked_for_key_frames_only(whole: tuple[bytes, dict[str, Any], Grain]) -> None:
    _, result, grain = whole
    assert result["frames"] == result["swapped_frames"] == 21
    assert len(grain.asked) == result["denoise"]["key_frames"] == 4, "frames 0, 7, 13 and 20"
    assert grain.steps == 4 * 12
    assert {asked.seed for asked in grain.asked} == {1}, "one noise for all"
    assert result["denoise"]["frames"] == 21 and result["denoise"]["held_back"] == 0


def test_strength_zero_is_the_swap_without_it(tmp_path: Path, whole: tuple[bytes, dict[str, Any], Grain]) -> None:
    _, plain = swap(tmp_path / "a", denoise=0)
    grain = Grain()
    _, zero = swap(tmp_path / "b", grain, denoise=0)
    assert (tmp_path / "a" / "out.mkv").read_bytes() == (tmp_path / "b" / "out.mkv").read_bytes() != whole[0]
    assert grain.asked == [] and "denoise" not in plain and "denoise" not in zero


@pytest.mark.parametrize("stop_at", [("swapping", 21 + 3), ("swapping", 21 + 20), ("joining", 0)])
def test_stopped_and_resumed_gives_the_same_bytes(
    whole: tuple[bytes, dict[str, Any], Grain], tmp_path: Path, stop_at: tuple[str, int]
) -> None:
    def stop(done: float, total: float, note: str = "") -> None:
        if note == stop_at[0] and done >= stop_at[1]:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        swap(tmp_path, Grain(), stop)
    grain = Grain()
    _, result = swap(tmp_path, grain)
    assert (tmp_path / "out.mkv").read_bytes() == whole[0]
    assert result["denoise"] == whole[1]["denoise"], "the report counts each frame once"
    # chunks begin at 0, 8 and 16, keys are 0, 7, 13 and 20: what was drawn before is not drawn again
    written = result["resumed_chunks"] - 3
    assert len(grain.asked) == {0: 4, 1: 1, 2: 0, 3: 0}[written]
    assert written == 3 or stop_at[0] == "swapping"


@pytest.mark.parametrize("stop_at", [None, 21 + 9, 21 + 17])
def test_key_frames_are_drawn_together(tmp_path: Path, stop_at: int | None) -> None:
    """The first alone, then two and two, from the last before them; also where the job was stopped between two of a pair."""

    def stop(done: float, total: float, note: str = "") -> None:
        if note == "swapping" and stop_at is not None and done >= stop_at:
            raise Cancelled("enough")

    values = {"denoise_every": 5, "denoise_batch": 2}
    grain = Grain()
    _, result = swap(tmp_path / "whole", grain, **values)
    assert result["denoise"]["key_frames"] == len(grain.asked) == 5, "frames 0, 5, 10, 15 and 20"
    assert grain.calls == 1 + 2, "5 and 10, 15 and 20; chunks begin at 8 and 16"
    assert result["denoise"]["frames"] == 21
    if stop_at is None:
        _, singly = swap(tmp_path / "singly", Grain(), denoise_every=5)
        pair = [(tmp_path / name / "out.mkv").read_bytes() for name in ("whole", "singly")]
        assert singly["denoise"]["key_frames"] == 5 and pair[0] != pair[1]
        return
    with pytest.raises(Cancelled):
        swap(tmp_path / "stopped", Grain(), stop, **values)
    _, resumed = swap(tmp_path / "stopped", Grain(), **values)
    assert (tmp_path / "stopped" / "out.mkv").read_bytes() == (tmp_path / "whole" / "out.mkv").read_bytes()
    assert resumed["denoise"] == result["denoise"] and resumed["resumed_chunks"] >= 3


def test_another_checkpoint_is_another_job(tmp_path: Path) -> None:
    def stop(done: float, total: float, note: str = "") -> None:
        if note == "swapping" and done >= 40:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        swap(tmp_path, Grain(), stop)
    other = Grain()
    other.name = "another"
    assert swap(tmp_path, other)[1]["resumed_chunks"] == 0


def flicker(target: list[Image], result: list[Image], faces: list[Face]) -> float:
    found = [
        temporal.face_flicker((target[k], target[k + 1]), (result[k], result[k + 1]), faces[k])
        for k in range(len(target) - 1)
    ]
    return float(np.mean([one.result.mean for one in found if one is not None]))


def footage(clip: Path) -> tuple[list[Image], list[Face]]:
    analyse = Analyser(make_detector(), MeshLandmarker())
    frames = [frame.image for frame in media.read_frames(clip, 0.0, 0.5)]
    return frames, [max(analyse(f), key=lambda face: float(face.box[2] - face.box[0])) for f in frames]


@pytest.mark.parametrize("name", ["sample", "d19.mp4"])
def test_carried_texture_flickers_far_less_than_independent(tmp_path: Path, name: str) -> None:
    """Warping error of Lai et al., as `evaluate` measures it."""
    clip = locate("sample_source") if name == "sample" else CLIPS / name
    if not clip.exists():
        pytest.skip(f"{clip} is not here")
    target, faces = footage(clip)
    alone, _ = swap(tmp_path / "alone", Grain(), input=clip, end_s=0.5, denoise_every=1, denoise_carry=0)
    steady, _ = swap(tmp_path / "steady", Grain(), input=clip, end_s=0.5)
    plain, _ = swap(tmp_path / "plain", denoise=0, input=clip, end_s=0.5)
    errors = [flicker(target, frames, faces) for frames in (alone, steady)]
    assert errors[1] <= 0.4 * errors[0]
    together, _ = swap(tmp_path / "together", Grain(), input=clip, end_s=0.5, denoise_batch=2)
    assert flicker(target, together, faces) <= 0.4 * errors[0]
    x0, y0, x1, y1 = (int(v) for v in faces[0].box)
    part = np.s_[y0 + 30 : y1 - 30, x0 + 30 : x1 - 30]
    grain = [[float((a.astype(float) - b)[part].std()) for a, b in zip(f, plain, strict=True)] for f in (alone, steady)]
    assert 0.8 < np.mean(grain[1]) / np.mean(grain[0]) < 1.3, "steady, not blurred away"
    assert min(grain[1]) > 0.75 * max(grain[1]), "and it does not pulse"


def test_the_guard_holds_in_every_frame(tmp_path: Path) -> None:
    values = {"denoise_likeness": 0.7, "denoise_drift": 100, "denoise_light": 1, "end_s": 0.35}
    plain, _ = swap(tmp_path / "plain", denoise=0, end_s=0.35)
    guarded, result = swap(tmp_path / "guarded", Melt(), **values)
    free, _ = swap(tmp_path / "free", Melt(), **{**values, "denoise_likeness": 0})
    analyse, embed = Analyser(make_detector(), MeshLandmarker()), make_embedder("sface")
    faces = [analyse(image)[0] for image in plain]
    alike = [
        [cosine(embed(a, f), embed(b, f)) for a, b, f in zip(plain, r, faces, strict=True)] for r in (guarded, free)
    ]
    assert min(alike[0]) >= 0.69, "chips are cut anew here"
    assert max(alike[1]) < 0.69
    counts = result["denoise"]
    assert counts["held_back"] == len(plain) and counts["left_out"] == 0
    assert counts["least_likeness"] >= 0.7
    amounts = [np.abs(a.astype(float) - b).sum() for a, b in zip(plain, guarded, strict=True)]
    assert max(amounts) < 3 * min(amounts), "it does not come and go"


def test_the_mark_is_found_after_it(tmp_path: Path) -> None:
    """Every frame of the encoded file, by the free reader."""
    from lib_vitface.provenance.publish import Publisher
    from lib_vitface.provenance.reading import read

    picked = options(tmp_path, input=locate("sample_source"), **{**DRAWN, "end_s": 0.4, "codec": "h264"})
    door = Publisher("0123456789abcdef" * 2, "feedc0de", bytes(range(32)))
    swap_video(picked, Tint(), door, JobStore(tmp_path / "work"), denoiser=Grain())  # type: ignore[arg-type]
    found = read(frame.image for frame in media.read_frames(picked.output))
    assert found.present and found.record_id == "01234567"


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    """Peak of a process of its own: three times the frames, but for the noise of an allocator."""
    peaks = []
    for name, end in (("short", "0.5"), ("long", "1.5")):
        (tmp_path / name).mkdir()
        values = [f"{k}={v}" for k, v in {**DRAWN, "input": locate("sample_source"), "end_s": end}.items()]
        done = subprocess.run([sys.executable, PROGRAM, tmp_path / name, "0", *values], capture_output=True, text=True)
        peaks.append(json.loads(done.stdout)["peak_kb"])
    assert peaks[1] < 1.1 * peaks[0]


def test_a_tiny_checkpoint_from_end_to_end(tmp_path: Path) -> None:
    """Through diffusers: the U-Net is called key frames times steps, and what it draws does not shimmer."""
    pytest.importorskip("diffusers", reason="diffusers is not installed (requirements-optional.txt)")
    sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
    import tiny_diffusion

    from lib_vitface.models.diffusion import DiffusersDenoiser

    tiny_diffusion.make(tmp_path)
    drawer, called = DiffusersDenoiser(tmp_path / "diffusers", device="cpu"), []
    drawer._pipeline.unet.register_forward_hook(lambda *_: called.append(1))
    values = {"denoise_steps": 3, "denoise": 0.5, "end_s": 0.5}
    target, faces = footage(locate("sample_source"))
    steady, result = swap(tmp_path / "steady", drawer, **values)
    assert len(called) == 3 * result["denoise"]["key_frames"] < 3 * result["frames"]
    alone, _ = swap(tmp_path / "alone", drawer, **values, denoise_every=1, denoise_carry=0)
    assert len(called) == 3 * (result["denoise"]["key_frames"] + result["frames"])
    plain, _ = swap(tmp_path / "plain", denoise=0, end_s=0.5)
    assert any((a != b).any() for a, b in zip(steady, plain, strict=True))
    errors = [flicker(target, frames, faces) for frames in (alone, steady)]
    assert errors[1] <= 0.8 * errors[0], "one noise for all frames makes independent ones much alike already"
