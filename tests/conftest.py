"""Small synthetic videos, made with PyAV alone so that the code under test has no part in them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import hypothesis
import numpy as np
import pytest

if TYPE_CHECKING:
    from small_clone import SmallClone

# Where a change is judged, the same examples every time; anywhere else new ones, which is how they find something.
hypothesis.settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--browser", action="store_true", help="Drive the page in a headless Chromium, too; takes long.")


MakeVideo = Callable[..., Path]
_SUFFIX_CODEC = {".webm": "libvpx-vp9", ".gif": "gif"}


def synthetic_frame(index: int, width: int, height: int) -> np.ndarray:
    """RGB uint8 `[height, width, 3]`: a smooth gradient that drifts, and a bar whose place tells the index."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red = 128 + 90 * np.sin((x + 3 * index) / 17)
    green = 128 + 90 * np.cos((y - 2 * index) / 23)
    blue = 40 + 170 * x / max(width - 1, 1)
    image = np.rint(np.dstack([red, green, blue])).astype(np.uint8)
    column = (index * 3) % max(width - 4, 1)
    image[: height // 4, column : column + 4] = (250, 250, 250)
    return image


def _write_sound(container: av.container.OutputContainer, stream: object, seconds: float, start_s: float) -> None:
    """A 440 Hz tone of the given length."""
    rate, size = stream.codec_context.sample_rate, 1024  # type: ignore[attr-defined]
    kind = stream.codec_context.format.name  # type: ignore[attr-defined]
    total = round(seconds * rate)
    size = stream.codec_context.frame_size or size  # type: ignore[attr-defined]
    for begin in range(0, total, size):
        count = min(size, total - begin)
        tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(begin, begin + count) / rate)
        if "flt" in kind:
            samples = np.stack([tone, tone]).astype(np.float32)
            samples = samples if kind.endswith("p") else samples.T.reshape(1, -1)
        else:
            samples = np.stack([tone, tone], 1).reshape(1, -1)
            samples = np.rint(samples * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format=kind, layout="stereo")
        frame.sample_rate = rate
        frame.time_base = Fraction(1, rate)
        frame.pts = begin + round(start_s * rate)
        container.mux(stream.encode(frame))  # type: ignore[attr-defined]
    container.mux(stream.encode(None))  # type: ignore[attr-defined]


def write_video(
    path: Path,
    frames: int | Sequence[np.ndarray] = 10,
    fps: Fraction | int = 25,
    *,
    size: tuple[int, int] = (64, 48),
    codec: str | None = None,
    pixel_format: str = "yuv420p",
    audio: str | None = None,
    audio_streams: int = 1,
    audio_start_s: float = 0.0,
    audio_seconds: float | None = None,
    times: Sequence[Fraction] | None = None,
    time_base: Fraction | None = None,
    tags: tuple[int, int, int, int] | None = None,
    rotation_deg: int = 0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    sample_aspect: Fraction | None = None,
) -> Path:
    """A video of `frames` (how many synthetic ones, or RGB/RGBA arrays; or ready `av.VideoFrame`s).

    `audio` names an audio encoder ("aac", "libopus", "pcm_s16le", ...); `times` gives presentation times in seconds (variable
    frame rate); `tags` are (range, matrix, primaries, transfer); `rotation_deg` is written into the display matrix of MP4/MOV files.
    """
    arrays = [synthetic_frame(i, *size) for i in range(frames)] if isinstance(frames, int) else list(frames)
    rate = Fraction(fps)
    tick = time_base or (1 / rate if times is None else Fraction(1, 90000))
    shown = [i / rate for i in range(len(arrays))] if times is None else list(times)
    first = arrays[0]
    width, height = (first.width, first.height) if isinstance(first, av.VideoFrame) else first.shape[1::-1]
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream = container.add_stream(
            codec or _SUFFIX_CODEC.get(path.suffix, "libx264"), rate=rate, options=options or {}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.time_base = tick
        stream.codec_context.thread_count = 1
        if tags is not None:
            context = stream.codec_context
            context.color_range, context.colorspace, context.color_primaries, context.color_trc = tags
        if sample_aspect is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect
        if pixel_format.startswith("yuva") and path.suffix in {".webm", ".mkv"}:
            stream.metadata["alpha_mode"] = "1"
        sounds = [container.add_stream(audio, rate=48000) for _ in range(audio_streams)] if audio else []
        for sound in sounds:
            sound.codec_context.layout = "stereo"
        for array, time in zip(arrays, shown, strict=True):
            frame = array
            if not isinstance(frame, av.VideoFrame):
                frame = av.VideoFrame.from_ndarray(
                    np.ascontiguousarray(array), format="rgba" if array.shape[2] == 4 else "rgb24"
                ).reformat(format=pixel_format)
            frame.pts, frame.time_base = round(time / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for sound in sounds:
            seconds = audio_seconds if audio_seconds is not None else float(shown[-1] + 1 / rate)
            _write_sound(container, sound, seconds, audio_start_s)
    if rotation_deg:
        _set_rotation(path, rotation_deg)
    return path


def _set_rotation(path: Path, clockwise_deg: int) -> None:
    """Writes the matrix of the first track header (ISO 14496-12, 8.3.2), as phones do."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4
    at += 40 if data[at] == 0 else 52  # version 0 or 1: what stands before the matrix
    one = 1 << 16
    sine, cosine = {90: (one, 0), 180: (0, -one), 270: (-one, 0)}[clockwise_deg]
    matrix = [cosine, sine, 0, -sine, cosine, 0, 0, 0, 1 << 30]
    data[at : at + 36] = np.array(matrix, ">i4").tobytes()
    path.write_bytes(bytes(data))


@pytest.fixture(autouse=True, scope="session")
def no_age_estimator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever lies in the home of who runs the tests: the people of the clips are refused or not by what a test puts there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib_vitface.faces.age.HOME", tmp_path_factory.mktemp("insightface"))
        yield


@pytest.fixture(scope="session")
def make_video() -> MakeVideo:
    """`make_video(path, frames, fps, audio=..., ...)`; see `write_video`."""
    return write_video


@pytest.fixture(scope="session")
def make_frame() -> Callable[[int, int, int], np.ndarray]:
    """`make_frame(index, width, height)`: the picture that `make_video` draws."""
    return synthetic_frame


@pytest.fixture(scope="session")
def clone_files(tmp_path_factory: pytest.TempPathFactory) -> SmallClone:
    """Clips, facesets and a tiny trained model; tests change copies only."""
    import small_clone  # late: most tests need no torch

    from lib_vitface.models import config as model_config

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(model_config.PRESETS, "cpu", small_clone.TINY)
        return small_clone.small_clone(tmp_path_factory.mktemp("clone files"), write_video)


@pytest.fixture(scope="session")
def detector_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of the swap detector, of weights by chance: what is done with scores can be tested without training."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from lib_vitface.models.detector import DetectorNet
    from lib_vitface.provenance.detector import FILE

    path = tmp_path_factory.mktemp("detector") / FILE
    with torch.random.fork_rng():
        torch.manual_seed(5)
        weights = DetectorNet().state_dict()
    calibration = {"scale": 1.5, "offset": -0.5, "real": [round(-3 + k / 50, 2) for k in range(200)]}
    save_file(weights, path, {"calibration": json.dumps(calibration), "facts": "{}"})
    return path


@pytest.fixture
def detector_here(detector_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`inspect` finds this file."""
    from lib_vitface.provenance import detector

    monkeypatch.setattr(detector, "models_folder", lambda: detector_file.parent)
    return detector_file
