"""The door: everything that goes through it is marked, and keeps what it came with."""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from marking import CONSENT, KEY

from lib_vitface import media
from lib_vitface.errors import InputError, OutputError
from lib_vitface.provenance.label import place
from lib_vitface.provenance.publish import Publisher
from lib_vitface.provenance.reading import read
from lib_vitface.types import Frame

PARTS, EACH = 3, 12
FRAMES = PARTS * EACH


def packets(path: Path, kind: str) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(container.streams.get({kind: 0})[0]) if p.size]


def source_frames(clip: Path) -> Iterator[Frame]:
    return itertools.islice(media.read_frames(clip), FRAMES)


def publish(
    publisher: Publisher, clip: Path, output: Path, settings: media.EncodeSettings, **more: object
) -> list[Path]:
    """The first frames of the clip in several segments, joined; returns the segments."""
    info = media.probe(clip)
    ready, suffix = media.segment_settings(settings, info, output)
    parts = [output.with_name(f"part{k}-{output.stem}{suffix}") for k in range(PARTS)]
    stream = source_frames(clip)
    for part in parts:
        with publisher.segment(part, info, ready) as sink:
            for frame in itertools.islice(stream, EACH):
                sink.write(frame)
    publisher.join(parts, output, source=clip, settings=settings, end_s=float(FRAMES / info.fps), **more)  # type: ignore[arg-type]
    return parts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("published")


@pytest.fixture(scope="module")
def parts(publisher: Publisher, clip: Path, folder: Path) -> list[Path]:
    return publish(publisher, clip, folder / "out.mp4", media.EncodeSettings(quality=23, preset="fast"))


@pytest.fixture(scope="module")
def joined(parts: list[Path], folder: Path) -> Path:
    return folder / "out.mp4"


def test_every_frame_of_a_segment_is_marked(publisher: Publisher, clip: Path, tmp_path: Path) -> None:
    """Seen without loss, so that each frame alone speaks for itself."""
    info = media.probe(clip)
    path = tmp_path / "part.mkv"
    with publisher.segment(path, info, media.EncodeSettings("ffv1")) as sink:
        for frame in source_frames(clip):
            sink.write(frame)
    shown = list(media.read_frames(path))
    assert len(shown) == FRAMES
    for frame in shown:
        reading = read([frame.image], KEY, search=False)
        assert (reading.record_id, reading.authentic) == (CONSENT[:8], True), f"frame {frame.index}"


def test_a_video_has_one_strength(
    publisher: Publisher, clip: Path, run_of_frames: list[np.ndarray], tmp_path: Path
) -> None:
    """Whatever is in the frames; and the door it was made from keeps its own."""
    info, plain = media.probe(clip), [np.full_like(run_of_frames[0], 90), *run_of_frames[:2]]
    gaps = []
    for door in (pickle.loads(pickle.dumps(publisher.of_strength(1.4))), publisher):  # as workers get it
        with door.segment(tmp_path / "part.mkv", info, media.EncodeSettings("ffv1")) as sink:
            for k, image in enumerate(plain):
                sink.write(Frame(k, Fraction(k, 24), image))
        shown = [f.image.astype(np.float64) for f in media.read_frames(tmp_path / "part.mkv")]
        gaps.append([np.std((a - b).mean(axis=2)) for a, b in zip(shown, plain, strict=True)])
    for rms, found in zip((1.4, 0.7), gaps, strict=True):
        assert found == pytest.approx([rms] * 3, rel=0.15)


def test_strength_is_found_on_what_is_written(publisher: Publisher, run_of_frames: list[np.ndarray]) -> None:
    """With the label on it, as the mark comes after."""
    label = place(run_of_frames[0].shape[:2])
    drawn = [label.draw(image) for image in run_of_frames[:3]]
    seen = []
    door = publisher.labelled(label)
    door._watermark = SimpleNamespace(strength=lambda frames: seen.extend(frames) or 0.9)  # type: ignore[assignment]
    assert door.strength(run_of_frames[:3]) == 0.9
    assert all(np.array_equal(a, b) for a, b in zip(seen, drawn, strict=True))


def test_what_was_marked_before_is_marked_anew(clip: Path, run_of_frames: list[np.ndarray], tmp_path: Path) -> None:
    other = Publisher("f" * 32, "m", KEY)
    info = media.probe(clip)
    with other.segment(tmp_path / "part.mkv", info, media.EncodeSettings("ffv1")) as sink:
        for k, image in enumerate(run_of_frames[:4]):
            sink.write(Frame(k, Fraction(k, 24), Publisher(CONSENT, "m", KEY).mark(image)))
    reading = read([f.image for f in media.read_frames(tmp_path / "part.mkv")], KEY, search=False)
    assert {reading.record_id, *reading.others} == {"ffffffff", CONSENT[:8]}


def test_the_mark_is_read_after_h264(joined: Path) -> None:
    images = [frame.image for frame in media.read_frames(joined)]
    assert len(images) == FRAMES
    for start in range(0, FRAMES, EACH):
        reading = read(images[start : start + EACH], KEY, search=False)
        assert (reading.present, reading.record_id, reading.authentic) == (True, CONSENT[:8], True)


def test_times_sound_and_colour_are_kept(joined: Path, clip: Path) -> None:
    before, after = media.probe(clip), media.probe(joined)
    for name in (
        "width",
        "height",
        "fps",
        "color_range",
        "color_space",
        "color_primaries",
        "color_transfer",
        "audio_codecs",
    ):
        assert getattr(after, name) == getattr(before, name), name
    assert [f.time for f in media.read_frames(joined)] == [f.time for f in source_frames(clip)]
    sound, whole = packets(joined, "audio"), packets(clip, "audio")
    assert len(sound) > 20 and sound == whole[: len(sound)]
    assert abs(after.duration - FRAMES / before.fps) <= 1 / before.fps


def test_all_sound_comes_along_without_a_trim(publisher: Publisher, make_video, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    source = make_video(tmp_path / "s.mp4", 10, audio="aac", audio_streams=2)
    info, settings = media.probe(source), media.EncodeSettings(preset="fast")
    with publisher.segment(
        tmp_path / "p.nut", info, media.segment_settings(settings, info, tmp_path / "o.mp4")[0]
    ) as sink:
        for frame in media.read_frames(source):
            sink.write(frame)
    publisher.join([tmp_path / "p.nut"], tmp_path / "o.mp4", source=source, settings=settings)
    assert packets(tmp_path / "o.mp4", "audio") == packets(source, "audio")
    assert media.probe(tmp_path / "o.mp4").audio_codecs == ("aac", "aac")


def test_the_comment_is_for_everybody(joined: Path) -> None:
    with av.open(str(joined)) as container:
        assert container.metadata["comment"].startswith("Synthetic: a face was put in by ViTFace")


def test_the_same_frames_give_the_same_bytes(
    publisher: Publisher, clip: Path, joined: Path, parts: list[Path], tmp_path: Path
) -> None:
    again = publish(publisher, clip, tmp_path / "out.mp4", media.EncodeSettings(quality=23, preset="fast"))
    assert (tmp_path / "out.mp4").read_bytes() == joined.read_bytes()
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in parts]
    for name in ("a.png", "b.png"):
        publisher.image(tmp_path / name, next(iter(source_frames(clip))).image)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_finish_sees_the_complete_file(publisher: Publisher, clip: Path, joined: Path, tmp_path: Path) -> None:
    seen = []
    publish(
        publisher, clip, tmp_path / "o.mp4", media.EncodeSettings(quality=23, preset="fast"),
        finish=lambda path: seen.append((path.read_bytes(), (tmp_path / "o.mp4").exists())),
    )  # fmt: skip
    assert seen == [(joined.read_bytes(), False)]


def test_an_error_leaves_nothing(publisher: Publisher, clip: Path, tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"o\.mp4: the disk is full; free some space"):
        publish(publisher, clip, tmp_path / "o.mp4", media.EncodeSettings(preset="fast"), finish=fail)
    assert [p.name for p in tmp_path.iterdir() if not p.name.startswith("part")] == []
    with (
        pytest.raises(RuntimeError),
        publisher.segment(tmp_path / "x.nut", media.probe(clip), media.EncodeSettings("h264", preset="fast")) as sink,
    ):
        sink.write(next(iter(source_frames(clip))))
        raise RuntimeError
    assert not (tmp_path / "x.nut").exists()


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_a_picture_keeps_its_opacity(
    publisher: Publisher, frames: list[np.ndarray], tmp_path: Path, suffix: str
) -> None:
    alpha = np.zeros(frames[0].shape[:2], np.uint8)
    alpha[40:300, 60:500] = np.arange(60, 500, dtype=np.uint16).astype(np.uint8)
    path = tmp_path / f"x{suffix}"
    publisher.image(path, frames[0], alpha=alpha, quality=100)
    image, opacity = media.read_picture(path)
    assert opacity is not None and np.array_equal(opacity, alpha)
    assert np.array_equal(image, publisher.mark(frames[0]))
    assert read([image], KEY, search=False).authentic


@pytest.mark.parametrize(("suffix", "quality"), [(".png", 95), (".jpg", 75), (".webp", 75)])
def test_pictures_are_marked(
    publisher: Publisher, frames: list[np.ndarray], tmp_path: Path, suffix: str, quality: int
) -> None:
    path = tmp_path / "new folder" / f"x{suffix}"
    path.parent.mkdir()
    publisher.image(path, frames[0], quality=quality)
    reading = read([media.read_image(path)], KEY, search=False)
    assert (reading.record_id, reading.authentic) == (CONSENT[:8], True)


def test_marking_again_changes_nothing(publisher: Publisher, frames: list[np.ndarray]) -> None:
    once = publisher.mark(frames[0])
    assert publisher.mark(once) is once


def test_bad_uses(publisher: Publisher, frames: list[np.ndarray], clip: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="record id"):
        Publisher("nobody", "m")
    with pytest.raises(InputError):
        publisher.image(tmp_path / "x.bmp", frames[0])
    with pytest.raises(InputError, match="Only RGB"):
        publisher.image(tmp_path / "x.png", frames[0][..., 0])
    with (
        pytest.raises(OutputError, match="no frame"),
        publisher.segment(tmp_path / "x.nut", media.probe(clip), media.EncodeSettings("h264")),
    ):
        pass
    with pytest.raises(InputError, match="no segments"):
        publisher.join([], tmp_path / "x.mp4", source=clip, settings=media.EncodeSettings())
    with (
        pytest.raises(InputError, match="but the video is"),
        publisher.segment(
            tmp_path / "x.nut", replace(media.probe(clip), width=320), media.EncodeSettings("h264")
        ) as sink,
    ):
        sink.write(Frame(0, Fraction(0), frames[0]))
    assert list(tmp_path.iterdir()) == []
