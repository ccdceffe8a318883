"""The road in the browser: look through a faceset, take a picture, choose the person, try, swap, stop, go on, check, compare."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from driving import choose, click_picture, open_camera, open_tab, pictures_of, type_into, unfold, wait_for, wait_text
from PIL import Image

from lib_vitface import media
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.faceset.store import Faceset


def face_of(image: np.ndarray) -> Any:
    """The one face of a picture."""
    (found,) = Analyser(make_detector("auto"), MeshLandmarker())(image)
    return found


def test_from_footage_to_a_model(page: Any, workspace: Path) -> None:
    """Dataset and Train: a faceset of the film, and two steps with it, whose loss and picture are shown."""
    open_tab(page, "Dataset")
    type_into(page, "vitface-faceset-input", "film.mp4")
    unfold(page, "vitface-faceset-group-output")
    choose(page, "vitface-faceset-output", "film")
    page.locator("#vitface-faceset-start").click()
    wait_text(page, "vitface-faceset-progress", "done", 240)
    with Faceset.open(workspace / "facesets" / "film") as faceset:
        assert len(faceset) > 0
    open_tab(page, "Train")
    for name, text in (("source", "source"), ("target", "film"), ("model", "fresh")):
        choose(page, f"vitface-train-{name}", text)
    page.locator("#vitface-train-estimate").click()
    wait_text(page, "vitface-train-estimate-said", "million parameters", 120)
    for group, name, text in (("duration", "steps", "2"), ("saving", "preview-steps", "1")):
        unfold(page, f"vitface-train-group-{group}")
        type_into(page, f"vitface-train-{name}", text)
    page.locator("#vitface-train-start").click()
    wait_text(page, "vitface-train-progress", "done", 600)
    assert (workspace / "models" / "fresh" / "model.json").is_file()
    wait_for(page, lambda: page.locator("#vitface-train-loss svg").count(), 30)
    wait_for(page, lambda: page.locator("#vitface-train-preview img").count(), 30)


def test_faces_are_removed_and_taken_back(page: Any, workspace: Path) -> None:
    def kept() -> int:
        with Faceset.open(workspace / "facesets" / "source") as faceset:
            return len(faceset)

    before = kept()
    open_tab(page, "Dataset")
    choose(page, "vitface-gallery-name", "source")
    page.locator("#vitface-gallery-show").click()
    wait_text(page, "vitface-gallery-said", f"{before} are kept")
    assert page.locator("#vitface-gallery-coverage td").count() > 10
    faces = "#vitface-gallery .grid-container button"
    page.locator(faces).nth(1).click()
    wait_text(page, "vitface-gallery-said", f"{before - 1} are kept")
    assert kept() == before - 1
    page.locator("#vitface-gallery-which label", has_text="removed").click()
    wait_for(page, lambda: page.locator(faces).count() == 1)
    page.locator(faces).first.click()
    wait_text(page, "vitface-gallery-said", f"{before} are kept")
    assert kept() == before


def test_the_camera_gives_a_picture(page: Any, workspace: Path) -> None:
    open_tab(page, "Dataset")
    unfold(page, "vitface-faceset-camera")
    camera = page.locator("#vitface-faceset-webcam")
    open_camera(page, camera, "vitface-faceset-camera-open")
    wait_for(page, lambda: camera.locator("video").evaluate("video => video.readyState >= 2 && video.videoWidth > 0"))
    page.wait_for_timeout(1000)
    shutter = camera.locator("[aria-label='capture photo']:visible")
    (shutter if shutter.count() else camera.locator("button:visible")).last.click()
    wait_for(page, lambda: camera.locator("img:visible").count())
    page.locator("#vitface-faceset-webcam-add").click()
    box = page.locator("#vitface-faceset-input textarea").first
    path = Path(wait_for(page, box.input_value))
    assert path.parent == workspace / "uploads"
    assert face_of(np.asarray(Image.open(path).convert("RGB"))).score > 0.5, "the person before the camera"


def test_choose_try_swap_and_check(page: Any, workspace: Path, outputs: Path) -> None:
    earlier = {*outputs.glob("swap-*.mp4")}
    frame = next(iter(media.read_frames(workspace / "uploads" / "film.mp4"))).image
    box = face_of(frame).box
    middle = float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2
    open_tab(page, "Swap")
    choose(page, "vitface-swap-model", "model")
    type_into(page, "vitface-swap-input", "film.mp4")
    page.locator("#vitface-moment-show").click()
    wait_text(page, "vitface-moment-said", "One face")
    click_picture(page, "vitface-moment-frame", 3, 3)
    wait_text(page, "vitface-moment-said", "no face at this place")
    click_picture(page, "vitface-moment-frame", *middle)
    wait_text(page, "vitface-moment-said", "This person is replaced")
    page.locator("#vitface-moment-try").click()
    wait_for(page, lambda: page.locator(".vitface-slider img").count() == 2, 120)
    before, after = pictures_of(page, ".vitface-slider img")
    changed = np.abs(before.astype(int) - after).mean(axis=2)
    inside = changed[int(box[1]) : int(box[3]), int(box[0]) : int(box[2])].mean()
    assert inside > 3 * changed[: int(box[1]), : int(box[0])].mean(), "the face, not the wall"
    unfold(page, "vitface-swap-group-video")
    type_into(page, "vitface-swap-end-s", "0.3")
    page.locator("#vitface-swap-start").click()
    wait_text(page, "vitface-swap-progress", "done", 180)
    video = page.locator("#vitface-swap-video video")
    wait_for(page, lambda: video.count() and video.first.evaluate("video => video.readyState >= 1 && video.duration"))
    (made,) = {*outputs.glob("swap-*.mp4")} - earlier
    open_tab(page, "Check")
    type_into(page, "vitface-inspect-input", str(made))
    page.locator("#vitface-inspect-run").click()
    wait_text(page, "vitface-inspect-result", "marked as synthetic", 120)
    assert page.locator("#vitface-inspect-plot path").count() == 1


def start_swap(page: Any, given: str, output: str) -> None:
    open_tab(page, "Swap")
    choose(page, "vitface-swap-model", "model")
    type_into(page, "vitface-swap-input", given)
    type_into(page, "vitface-swap-output", output)
    page.locator("#vitface-swap-start").click()


def test_a_folder_of_pictures_is_shown(page: Any, workspace: Path, outputs: Path) -> None:
    """Each swapped picture in a gallery, enlarged by a click; the one without a face is told of."""
    album = workspace / "uploads" / "album"
    frames = [frame.image for frame in itertools.islice(media.read_frames(workspace / "uploads" / "film.mp4"), 2)]
    for name, image in (("one", frames[0]), ("two", frames[1]), ("wall", np.full_like(frames[0], 90))):
        media.write_image(album / f"{name}.png", image)
    start_swap(page, "album", "swapped album")
    wait_text(page, "vitface-swap-progress", "done", 180)
    said = wait_text(page, "vitface-swap-pictures-said", "Pictures in")
    assert str(outputs / "swapped album") in said and ": 2." in said and "not found: 1." in said
    shown = "#vitface-swap-pictures .grid-container img"
    wait_for(page, lambda: page.locator(shown).count() == 2)
    wait_for(page, lambda: page.eval_on_selector_all(shown, "all => all.every(i => i.complete && i.naturalWidth)"))
    for name, picture in zip(("one", "two"), pictures_of(page, shown), strict=True):
        written = media.read_image(outputs / "swapped album" / f"{name}.png")
        assert np.array_equal(picture, written), "the file itself"
    page.locator("#vitface-swap-pictures .grid-container button").last.click()
    wait_for(page, lambda: page.locator("#vitface-swap-pictures .preview img").count())


def test_a_job_is_stopped_and_gone_on_with(page: Any, outputs: Path) -> None:
    start_swap(page, "film.mp4", "whole.mp4")
    wait_text(page, "vitface-swap-progress", "waiting", 20)
    page.locator("#vitface-swap-stop").click()
    wait_text(page, "vitface-swap-progress", "stopped", 60)
    page.locator("#vitface-swap-go-on").click()
    wait_text(page, "vitface-swap-progress", "done", 180)
    assert (outputs / "whole.mp4").is_file()
    unfold(page, "vitface-queue")
    assert "done" in wait_text(page, "vitface-queue-table", "swap")


def test_two_results_are_compared_blindly(page: Any, workspace: Path, outputs: Path) -> None:
    """After the others: two films, one vote, and which was which."""
    for name in ("one.mp4", "two.mp4"):
        (outputs / name).write_bytes((workspace / "uploads" / "film.mp4").read_bytes())
    open_tab(page, "Evaluate")
    unfold(page, "vitface-blind")
    page.locator("#vitface-blind-vote-left").click()
    wait_text(page, "vitface-blind-said", "Draw a moment first")
    type_into(page, "vitface-blind-one", "one.mp4")
    type_into(page, "vitface-blind-two", "two.mp4")
    page.locator("#vitface-blind-draw").click()
    wait_for(page, lambda: page.locator("#vitface-blind-left img, #vitface-blind-right img").count() == 2)
    page.locator("#vitface-blind-vote-right").click()
    said = wait_text(page, "vitface-blind-said", "right was")
    assert "one.mp4" in said
    assert "two.mp4" in said
    assert len((workspace / "votes.jsonl").read_text().splitlines()) == 1
