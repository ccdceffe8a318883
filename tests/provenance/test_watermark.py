"""The mark in natural pictures: not to be seen, read again after what happens to pictures, never seen where there is none."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from marking import CONSENT, KEY
from PIL import Image as Pictures

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.errors import InputError
from lib_vitface.provenance import carriers
from lib_vitface.provenance.reading import ALPHA, Reading, canvas_size, grey, normalised, read
from lib_vitface.provenance.watermark import FRAME, FRAME_MOST, FRAME_SSIM, SAMPLES, SSIM, Likeness, Watermark

Frames = list[np.ndarray]


@pytest.fixture(scope="module")
def watermark() -> Watermark:
    return Watermark(CONSENT, KEY)


@pytest.fixture(scope="module")
def marked(watermark: Watermark, frames: Frames) -> Frames:
    return [watermark.embed(frame) for frame in frames]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(np.float64) - b) ** 2)))


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    data = io.BytesIO()
    Pictures.fromarray(image).save(data, "JPEG", quality=quality, subsampling=2)
    return np.array(Pictures.open(data))


def is_ours(reading: Reading) -> bool:
    return (reading.present, reading.record_id, reading.authentic) == (True, CONSENT[:8], True)


def encoded(images: Frames, path: Path, codec: str, crf: int, size: tuple[int, int] | None = None) -> Frames:
    """Through an encoder and back, by PyAV alone."""
    height, width = images[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(24), options={"crf": str(crf), "preset": "medium"})
        stream.width, stream.height = size or (width, height)
        stream.pix_fmt = "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_it_is_not_seen(frames: Frames, marked: Frames) -> None:
    assert all(m.shape == f.shape and m.dtype == np.uint8 for m, f in zip(marked, frames, strict=True))
    assert min(psnr(m, f) for m, f in zip(marked, frames, strict=True)) >= 40
    assert max(int(np.abs(m.astype(int) - f).max()) for m, f in zip(marked, frames, strict=True)) <= 16


def test_a_still_keeps_its_likeness_whatever_it_shows(frames: Frames, watermark: Watermark) -> None:
    """Texture takes more of the mark than smooth places do; both stay as like as is promised, by scikit-image's measure."""
    from skimage import data
    from skimage.metrics import structural_similarity

    smooth, rough = cv2.GaussianBlur(frames[0], (0, 0), 3), np.repeat(data.grass()[..., None], 3, axis=2)
    added = {}
    for name, image in {"frame": frames[0], "smooth": smooth, "rough": rough, "drawn": data.chelsea()}.items():
        marked = watermark.embed(image)
        assert structural_similarity(image, marked, channel_axis=2) >= SSIM, name
        assert psnr(marked, image) >= 40, name
        added[name] = float(np.std(marked.astype(np.float64) - image))
    assert added["rough"] > 1.5 * added["smooth"]
    assert structural_similarity(frames[0], watermark.embed(frames[0]), channel_axis=2) < 0.99, (
        "what is allowed is used"
    )


def test_likeness_is_that_of_scikit_image(frames: Frames) -> None:
    from skimage.metrics import structural_similarity

    likeness = Likeness(frames[2])
    for change in (lambda i: jpeg(i, 30), lambda i: np.clip(i * 0.9 + 5, 0, 255).astype(np.uint8)):
        other = change(frames[2])
        assert likeness(other) == pytest.approx(structural_similarity(frames[2], other, channel_axis=2), abs=2e-3)
    assert likeness(frames[2]) == pytest.approx(1)


@pytest.fixture(scope="module")
def soft() -> Frames:
    """Soft footage in low light, whose mark H.265 at CRF 28 takes away at `FRAME`."""
    return [frame.image for frame in itertools.islice(media.read_frames(locate("sample_source")), 60)]


def test_soft_footage_is_marked_more_strongly(soft: Frames, watermark: Watermark) -> None:
    from skimage.metrics import structural_similarity

    some = soft[:: len(soft) // SAMPLES][:SAMPLES]
    strength = watermark.strength(some)
    assert FRAME < strength <= FRAME_MOST and strength == watermark.strength(some)
    sharp = [frame.image for frame in itertools.islice(media.read_frames(locate("sample_no_face")), SAMPLES)]
    assert watermark.strength(sharp) == FRAME, "sharp footage keeps it as it is, and stays as steady"
    marked = watermark.embed(soft[3], strength)
    assert psnr(marked, soft[3]) >= 40 and structural_similarity(soft[3], marked, channel_axis=2) >= SSIM


def test_soft_video_after_h265(soft: Frames, watermark: Watermark, tmp_path: Path) -> None:
    strength = watermark.strength(soft[:: len(soft) // SAMPLES][:SAMPLES])
    for rms, there in ((strength, True), (FRAME, False)):
        shown = encoded([watermark.embed(f, rms) for f in soft], tmp_path / "v.mp4", "libx265", 28)
        assert is_ours(read(shown[::3], KEY, search=False)) is there


def test_a_video_is_marked_no_more_strongly_than_likeness_allows(soft: Frames, watermark: Watermark) -> None:
    black, smooth = np.zeros_like(soft[0]), [cv2.GaussianBlur(image, (0, 0), 6) for image in soft[::10]]
    assert watermark.strength([black] * SAMPLES) == FRAME
    assert watermark.strength([]) == FRAME
    strength = watermark.strength(smooth)
    assert strength == FRAME or np.mean([Likeness(f)(watermark.embed(f, strength)) for f in smooth]) >= FRAME_SSIM
    assert watermark.strength([black, *soft[::10]]) > FRAME, "a film may begin with black"


def test_a_frame_of_a_video_gets_the_asked_strength(frames: Frames, watermark: Watermark) -> None:
    for rms in (FRAME, 2 * FRAME):
        gap = watermark.embed(frames[0], rms).astype(np.float64) - frames[0]
        # Rounding to whole grey levels adds a twelfth to the variance.
        assert np.std(gap) == pytest.approx(np.sqrt(rms**2 + 1 / 12), rel=0.1)


def test_a_picture_marked_by_the_first_version_is_read() -> None:
    """A drawn picture, marked when every still had the same strength, and stored as JPEG."""
    reading = read([media.read_image(Path(__file__).with_name("marked_by_0.1.0.jpg"))], KEY, search=False)
    assert is_ours(reading)


def test_it_is_read_again(marked: Frames, watermark: Watermark) -> None:
    for image in marked:
        reading = watermark.read([image])
        assert is_ours(reading) and reading.version == 1
        assert (reading.turn, reading.share, reading.frames_used, reading.others) == ("none", 1.0, 1, ())
        assert reading.false_alarm < 1e-10 and reading.confidence == pytest.approx(1)


def test_the_same_picture_gives_the_same_pixels(frames: Frames, marked: Frames) -> None:
    assert np.array_equal(Watermark(CONSENT, KEY).embed(frames[0]), marked[0])


def test_the_input_is_not_changed(frames: Frames, watermark: Watermark) -> None:
    before = frames[0].copy()
    watermark.embed(frames[0])
    watermark.ensure(frames[0])
    assert np.array_equal(frames[0], before)


@pytest.mark.parametrize(
    "change",
    [
        lambda i: jpeg(i, 75),
        lambda i: cv2.resize(i, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
        lambda i: cv2.resize(i, None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC),
        lambda i: np.clip(i * 0.8 + 20, 0, 255).astype(np.uint8),
        lambda i: cv2.GaussianBlur(i, (0, 0), 0.7),
        lambda i: np.ascontiguousarray(i[:, ::-1]),
        lambda i: np.ascontiguousarray(np.rot90(i)),
        lambda i: np.clip(i + np.random.default_rng(0).normal(0, 4, i.shape), 0, 255).astype(np.uint8),
    ],
    ids=["jpeg 75", "half", "enlarged", "levels", "blur", "mirrored", "turned", "noise"],
)
def test_single_pictures_after_a_change(
    marked: Frames, watermark: Watermark, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    readings = [read([change(image)], KEY, search=False) for image in marked]
    assert all(r.present for r in readings)
    assert np.mean([is_ours(r) for r in readings]) >= 0.9


@pytest.mark.parametrize("number", [0, 9])
def test_a_cropped_picture_is_read_by_search(marked: Frames, number: int) -> None:
    image = marked[number]
    part = image[:, 100:500]  # columns
    assert is_ours(read([part], KEY, search=False))
    part = image[30:330, 100:500]
    reading = read([part], KEY)
    assert is_ours(reading) and reading.share == pytest.approx(300 / 360, abs=0.01)


@pytest.mark.parametrize(
    ("codec", "crf", "size"), [("libx264", 23, None), ("libx264", 30, None), ("libx264", 23, (320, 180))]
)
def test_video_after_an_encoder(
    run_of_frames: Frames, watermark: Watermark, tmp_path: Path, codec: str, crf: int, size: tuple[int, int] | None
) -> None:
    shown = encoded([watermark.embed(f) for f in run_of_frames], tmp_path / "v.mp4", codec, crf, size)
    assert is_ours(read(shown, KEY, search=False))
    if crf == 23 and size is None:
        assert np.mean([read([f], KEY, search=False).present for f in shown]) >= 0.9, "single frames of it too"


def test_one_frame_among_many_is_enough(run_of_frames: Frames, watermark: Watermark) -> None:
    """As after an encoder that kept the mark in its whole frame only: two marked frames among two dozen, drowned in their sum."""
    rest = run_of_frames[2:]
    shown = [watermark.embed(f, 2 * FRAME) for f in run_of_frames[:2]] + rest
    reading = read(shown, KEY, search=False)
    assert is_ours(reading) and reading.frames_used == len(shown)
    whole = sum(normalised(grey(image))[0] for image in shown)
    assert carriers.find(carriers.whitened(carriers.fold(whole)))[0][0] < reading.score, "their sum says less"
    assert not read(rest, KEY, search=False).present


def test_no_false_alarm_on_some_hundred_frames() -> None:
    """Different frames of three clips, each read alone in all turns, and some with the full search."""
    seen = 0
    for name in ("sample_target", "sample_source", "sample_no_face"):
        for frame in media.read_frames(locate(name)):
            if frame.index % 3 == 0:
                reading = read([frame.image], KEY, search=frame.index % 300 == 0)
                assert not reading.present and reading.record_id is None and reading.authentic is None
                assert reading.false_alarm > ALPHA
                seen += 1
    assert seen > 200


PLAIN = {
    "black": np.zeros((120, 160, 3), np.uint8),
    "white": np.full((120, 160, 3), 255, np.uint8),
    "stripes": np.tile(np.uint8([[[0, 0, 0], [255, 255, 255]]]), (96, 96, 1)),
    "ramp": np.tile(np.linspace(0, 255, 400, dtype=np.uint8)[None, :, None], (300, 1, 3)),
}
NOISE = np.random.default_rng(0).integers(0, 256, (192, 192, 3)).astype(np.uint8)


@pytest.mark.parametrize("image", [*PLAIN.values(), NOISE], ids=[*PLAIN, "noise"])
@pytest.mark.filterwarnings("error")
def test_no_false_alarm_on_strange_pictures(image: np.ndarray) -> None:
    assert not read([image]).present


@pytest.mark.parametrize("image", PLAIN.values(), ids=PLAIN)
@pytest.mark.filterwarnings("error")
def test_plain_pictures_bear_a_mark(image: np.ndarray, watermark: Watermark) -> None:
    marked = watermark.embed(image)
    assert psnr(marked, image) >= 38
    assert read([marked], KEY, search=False).present


def test_two_records_in_one_picture(frames: Frames, watermark: Watermark) -> None:
    """Two people in one video: both marks are told."""
    other = Watermark("fedcba98" + "0" * 24, KEY)
    both = [other.embed(watermark.embed(frame)) for frame in frames[:6]]
    assert min(psnr(b, f) for b, f in zip(both, frames, strict=False)) >= 38
    reading = read(both, KEY, search=False)
    assert reading.authentic
    assert {reading.record_id, *reading.others} == {CONSENT[:8], "fedcba98"}


def test_only_the_key_makes_it_genuine(frames: Frames, marked: Frames) -> None:
    assert read([marked[0]], None, search=False).authentic is None
    assert read([marked[0]], b"other", search=False).authentic is False
    copied = Watermark(CONSENT, b"other").embed(frames[0])
    assert read([copied], KEY, search=False).authentic is False
    assert read([Watermark(CONSENT).embed(frames[0])], KEY, search=False).authentic is False


def test_ensure_marks_once(frames: Frames, marked: Frames, watermark: Watermark) -> None:
    assert watermark.ensure(marked[0]) is marked[0]
    assert np.array_equal(watermark.ensure(frames[0]), marked[0])
    stranger = Watermark("fedcba98" + "0" * 24, KEY)
    assert not np.array_equal(stranger.ensure(marked[0]), marked[0]), (
        "another record's mark is no reason to leave ours out"
    )


@pytest.mark.parametrize("size", [(1, 1), (8, 300), (96, 96), (33, 57), (1440, 1080)])
def test_any_size_is_taken(frames: Frames, watermark: Watermark, size: tuple[int, int]) -> None:
    image = cv2.resize(frames[3], (size[1], size[0]), interpolation=cv2.INTER_AREA)
    out = watermark.embed(image)
    assert out.shape == image.shape
    if min(size) >= 96:
        assert is_ours(read([out], KEY, search=False))


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((10, 10), np.uint8), np.zeros((10, 10, 4), np.uint8), np.zeros((10, 10, 3), np.float32), np.zeros(5, np.uint8),
        np.zeros((0, 10, 3), np.uint8), np.zeros((10, 10, 3), np.uint16),
    ],
    ids=["grey", "alpha", "float", "one dimension", "empty", "16 bit"],
)  # fmt: skip
def test_other_arrays_are_refused(watermark: Watermark, bad: np.ndarray) -> None:
    for use in (watermark.embed, watermark.ensure, watermark.seen, lambda image: watermark.read([image])):
        with pytest.raises(InputError, match="Only RGB pictures of 8 bits"):
            use(bad)


def test_nothing_to_read_and_mixed_sizes(frames: Frames) -> None:
    with pytest.raises(InputError, match="no picture"):
        read([])
    with pytest.raises(InputError, match="one size"):
        read([frames[0], frames[0][:100]], search=False)


def test_a_bad_id_is_refused() -> None:
    with pytest.raises(InputError, match="no record id"):
        Watermark("山田花子")


def test_working_size() -> None:
    assert canvas_size(360, 640) == (192, 341)
    assert canvas_size(640, 360) == (341, 192)
    assert canvas_size(10, 100_000) == (1, 4096)
    image = np.zeros((360, 640, 3), np.uint8)
    image[..., 1] = 100
    assert grey(image).shape == (192, 341) and grey(image).mean() == pytest.approx(58.7, abs=0.5)
