"""What to ask an encoder, as a plain value: codec, options, pixel format and container.

Nothing here touches a video library, so every decision can be tested without encoding anything.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from lib_vitface.errors import InputError, MissingDependencyError
from lib_vitface.types import VideoInfo

CODECS = ("auto", "h264", "h265", "vp9", "av1", "prores", "ffv1", "gif", "images")
PRESETS = ("fast", "medium", "slow")

# The libraries that can write a codec, the preferred one first.
ENCODERS: dict[str, tuple[str, ...]] = {
    "h264": ("libx264",),
    "h265": ("libx265",),
    "vp9": ("libvpx-vp9",),
    "av1": ("libsvtav1", "libaom-av1"),
    "prores": ("prores_ks",),
    "ffv1": ("ffv1",),
    "gif": ("gif",),
    "images": ("png",),
}

# Suffix -> the muxer's name and what may go in; the first is the choice of "auto". A path without a suffix is a folder.
CONTAINERS: dict[str, tuple[str, tuple[str, ...]]] = {
    ".mp4": ("mp4", ("h264", "h265", "av1", "vp9")),
    ".m4v": ("mp4", ("h264", "h265")),
    ".mov": ("mov", ("h264", "h265", "prores")),
    ".mkv": ("matroska", ("h264", "h265", "vp9", "av1", "prores", "ffv1")),
    ".webm": ("webm", ("vp9", "av1")),
    ".gif": ("gif", ("gif",)),
    "": ("images", ("images",)),
}
# Segments: NUT keeps any time base exactly and has no edit lists; it cannot hold ProRes nor the alpha of VP9.
SEGMENT_SUFFIX = ".nut"
SEGMENT_MUXERS = {SEGMENT_SUFFIX: "nut", ".segment.mov": "mov", ".segment.mkv": "matroska"}

DEFAULT_QUALITY = {"h264": 16, "h265": 18, "vp9": 24, "av1": 26}
QUALITY_TOP = {"h264": 51, "h265": 51, "vp9": 63, "av1": 63}
ALPHA_CODECS = ("vp9", "prores", "ffv1", "gif", "images")


@dataclass(frozen=True)
class EncodeSettings:
    """How a result is encoded.

    `codec` one of `CODECS`; "auto" takes what suits the output's suffix. `quality` is the codec's constant rate factor
    (0 best; h264/h265 0..51, vp9/av1 0..63); None takes a visually near-lossless value; prores, ffv1, gif and images have
    none. `preset` trades time against size. `pixel_format` overrides the choice of `pixel_format_for`. `threads` is a fixed
    number, not "as many as there are", because some encoders give other bytes with another number of threads and a
    resumed job must give the same ones.
    """

    codec: str = "auto"
    quality: int | None = None
    preset: str = "medium"
    pixel_format: str | None = None
    threads: int = 4


@dataclass(frozen=True)
class EncoderPlan:
    """Everything that is asked of the libraries for one output."""

    codec: str
    encoder: str
    options: dict[str, str]
    pixel_format: str
    muxer: str
    keeps_alpha: bool
    threads: int
    tag: str | None = None  # four-character code where the muxer's own choice does not play everywhere


def is_folder_output(path: Path) -> bool:
    """A path without a known suffix that is a folder, or has no suffix at all, means a folder of numbered PNG files."""
    return path.suffix == "" or (path.suffix.lower() not in CONTAINERS and path.is_dir())


def _container(output: Path) -> tuple[str, tuple[str, ...]]:
    """Muxer and allowed codecs of an output path, or an `InputError` naming what is known."""
    for suffix, muxer in SEGMENT_MUXERS.items():
        if output.name.endswith(suffix):
            return muxer, tuple(ENCODERS)
    suffix = "" if is_folder_output(output) else output.suffix.lower()
    if suffix not in CONTAINERS:
        known = ", ".join(s for s in CONTAINERS if s)
        raise InputError(f"{output}: {suffix!r} cannot be written; end the name with one of {known}, or name a folder.")
    return CONTAINERS[suffix]


def resolve(settings: EncodeSettings, info: VideoInfo, output: Path) -> EncodeSettings:
    """The same settings with "auto" and empty values filled in for this output; checks all of them.

    Raises `InputError` when codec and container do not go together or a value is out of range.
    """
    _, allowed = _container(output)
    if settings.codec not in CODECS:
        raise InputError(f"{settings.codec!r} is not a known codec; take one of {', '.join(CODECS)}.")
    if settings.preset not in PRESETS:
        raise InputError(f"{settings.preset!r} is not a known preset; take one of {', '.join(PRESETS)}.")
    if not 1 <= settings.threads <= 64:
        raise InputError(f"{settings.threads} encoder threads are outside 1 to 64.")
    codec = settings.codec
    if codec == "auto":
        codec = "prores" if info.has_alpha and output.suffix.lower() == ".mov" else allowed[0]
    if codec not in allowed:
        raise InputError(
            f"{output}: a {output.suffix or 'folder'} output cannot hold {codec}; "
            f"take {' or '.join(allowed)}, or another ending."
        )
    quality = settings.quality
    if codec in QUALITY_TOP:
        quality = DEFAULT_QUALITY[codec] if quality is None else quality
        if not 0 <= quality <= QUALITY_TOP[codec]:
            raise InputError(f"Quality {quality} is outside 0 to {QUALITY_TOP[codec]} of {codec}.")
    elif quality is not None:
        raise InputError(f"{codec} has no quality setting; leave it out.")
    pixel_format = settings.pixel_format or pixel_format_for(codec, info)
    return replace(settings, codec=codec, quality=quality, pixel_format=pixel_format)


def pixel_format_for(codec: str, info: VideoInfo) -> str:
    """The pixel format that keeps the size exactly and plays most widely.

    H.264 and H.265 in 4:2:0 need even sizes; an odd size is kept by going to 4:4:4 instead of padding or cropping. Pictures are
    8 bit inside the program; a 10-bit source is written in 10 bits again by H.265 and AV1, so that no second rounding is added.
    """
    deep = "10le" if info.bit_depth > 8 else ""
    if codec in {"h264", "h265"}:
        odd = info.width % 2 or info.height % 2
        return ("yuv444p" if odd else "yuv420p") + (deep if codec == "h265" else "")
    if codec == "av1":
        return "yuv420p" + deep
    if codec == "vp9":
        return "yuva420p" if info.has_alpha else "yuv420p"
    if codec == "prores":
        return "yuva444p10le" if info.has_alpha else "yuv422p10le"
    if codec == "ffv1":
        return "bgra" if info.has_alpha else "bgr0"
    return "pal8" if codec == "gif" else ("rgba" if info.has_alpha else "rgb24")


def plan_encoding(
    settings: EncodeSettings, info: VideoInfo, output: Path, available: Collection[str] | None = None
) -> EncoderPlan:
    """The encoder, its options and the container for an output; `available` names the encoder libraries that are there.

    Raises `InputError` for what does not go together, `MissingDependencyError` when no library can write the codec.
    """
    ready = resolve(settings, info, output)
    muxer, _ = _container(output)
    names = ENCODERS[ready.codec]
    found = [name for name in names if available is None or name in available]
    if not found:
        raise MissingDependencyError(
            f"No encoder for {ready.codec} ({' or '.join(names)}) is in this build of PyAV; "
            "install the wheel from PyPI (pip install av) or choose another codec."
        )
    pixel_format = str(ready.pixel_format)
    alpha = ready.codec in ALPHA_CODECS and info.has_alpha and (ready.codec == "gif" or _has_alpha(pixel_format))
    return EncoderPlan(
        codec=ready.codec,
        encoder=found[0],
        options=_options(found[0], ready, alpha),
        pixel_format=pixel_format,
        muxer=muxer,
        keeps_alpha=alpha,
        threads=ready.threads,
        tag="hvc1" if ready.codec == "h265" and muxer in {"mp4", "mov"} else None,  # the only one QuickTime plays
    )


def segment_settings(settings: EncodeSettings, info: VideoInfo, output: Path) -> tuple[EncodeSettings, str]:
    """Settings and file suffix for the segments of a resumable job whose final file is `output`.

    Segments hold the final codec and are joined without encoding again, except for GIF and image folders: their segments
    are lossless FFV1, and the final file is made from them when they are joined.
    """
    ready = resolve(settings, info, output)
    if ready.codec in {"gif", "images"}:
        return EncodeSettings("ffv1", None, ready.preset, None, ready.threads), SEGMENT_SUFFIX
    if ready.codec == "prores":
        return ready, ".segment.mov"
    if ready.codec == "vp9" and _has_alpha(str(ready.pixel_format)):
        return ready, ".segment.mkv"
    return ready, SEGMENT_SUFFIX


def _has_alpha(pixel_format: str) -> bool:
    return pixel_format.startswith(("yuva", "gbrap")) or pixel_format in {"rgba", "bgra", "argb", "abgr"}


def _options(encoder: str, settings: EncodeSettings, alpha: bool) -> dict[str, str]:
    """Private options of an encoder. All are chosen so that the same frames give the same bytes."""
    speed = PRESETS.index(settings.preset)
    crf = {} if settings.quality is None else {"crf": str(settings.quality)}
    threads = str(settings.threads)
    if encoder == "libx264":
        # stitchable: headers do not depend on the content, so that segments share them. mbtree=0: with it, motion that leaves
        # a small picture makes x264 decide by memory it never wrote, so that the same frames give other bytes now and then.
        # trellis=0: it drops faint texture in one frame and keeps it in the next, which is most of what an encoder adds in flicker.
        return {
            **crf,
            "preset": ("veryfast", "medium", "slow")[speed],
            "x264-params": "stitchable=1:mbtree=0:trellis=0",
        }
    if encoder == "libx265":
        params = f"log-level=error:open-gop=0:pools={threads}:frame-threads=2"
        return {**crf, "preset": ("veryfast", "medium", "slow")[speed], "x265-params": params}
    if encoder == "libvpx-vp9":
        options = {**crf, "deadline": "good", "cpu-used": "531"[speed], "row-mt": "1"}
        return {**options, "auto-alt-ref": "0"} if alpha else options  # libvpx refuses alternate references with alpha
    if encoder == "libsvtav1":
        return {**crf, "preset": ("10", "8", "5")[speed], "svtav1-params": f"lp={threads}"}
    if encoder == "libaom-av1":
        return {**crf, "cpu-used": "864"[speed], "row-mt": "1"}
    if encoder == "prores_ks":
        return {"profile": "4444" if "444" in str(settings.pixel_format) else "hq", "vendor": "apl0"}
    if encoder == "ffv1":
        return {"level": "3", "slices": "4", "slicecrc": "1"}
    return {}
