"""Opening files safely, turning library errors into sentences, and writing beside before replacing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av

from lib_vitface.errors import InputError, OutputError
from lib_vitface.media.settings import CODECS, ENCODERS

FFmpegError = av.error.FFmpegError

# Demuxers of real footage only. FFmpeg also knows playlists and scripts (HLS, concat, DASH, ...) that open further
# files and addresses; a file from a stranger must not be able to do that whatever its name says.
_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif,avi,mpegts,mpeg,mpegvideo,flv,live_flv,ogg,asf,nut,mxf,ivf,yuv4mpegpipe,"
    "apng,dv,h264,hevc,av1,obu,m4v,rm,wtv,mp3,wav,w64,aac,ac3,flac,aiff,caf,amr"
)
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def encoder_names() -> set[str]:
    """Names of the encoder libraries of `settings.ENCODERS` that this build of PyAV has."""
    found = set()
    for names in ENCODERS.values():
        for name in names:
            with contextlib.suppress(ValueError):  # UnknownCodecError
                av.Codec(name, "w")
                found.add(name)
    return found


def encoders() -> dict[str, bool]:
    """Which codecs of `EncodeSettings` can be written here, for `doctor`."""
    there = encoder_names()
    return {codec: bool(there & set(ENCODERS[codec])) for codec in CODECS if codec != "auto"}


def check_readable(path: Path) -> None:
    """Raises `InputError` with the reason when a file is missing, empty, or may not be read."""
    try:
        if path.is_dir():
            next(path.iterdir(), None)
            return
        with path.open("rb") as file:
            if not file.read(1):
                raise InputError(f"{path}: the file is empty (zero bytes); copy or download it again.")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; check the name.") from None
    except PermissionError:
        raise InputError(f"{path}: it may not be read; change its permissions or copy it elsewhere.") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(f"{path}: it cannot be opened ({error}).") from None


def location(path: Path) -> str:
    """A path as the library wants it: with the protocol named, so that a colon in a name is not taken for one."""
    return "file:" + os.fspath(path.absolute())


def open_input(path: Path) -> Any:
    """An input container. Raises `InputError` for anything that is not a readable media file."""
    check_readable(path)
    try:
        return av.open(location(path), "r", options={"protocol_whitelist": "file", "format_whitelist": _DEMUXERS})
    except UnicodeEncodeError:
        raise InputError(f"{path!r}: the name is not valid Unicode; rename the file.") from None
    except (FFmpegError, OSError, ValueError) as error:
        raise InputError(_why_unreadable(path, error)) from None


def _why_unreadable(path: Path, error: Exception) -> str:
    """One sentence for a file that the demuxer refused."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp":
        return f"{path}: the video is cut off, its index (moov) is missing; copy or record it again. ({error})"
    return f"{path}: it is not a video that can be read; give an MP4, MOV, MKV, WebM, GIF or AVI file. ({error})"


def video_stream(container: Any, path: Path) -> Any:
    """The first moving-picture stream (cover pictures of music files are none). Raises `InputError` without one."""
    for stream in container.streams.video:
        flags = getattr(stream, "disposition", 0)
        if not int(getattr(flags, "value", flags)) & 0x400:  # AV_DISPOSITION_ATTACHED_PIC
            if stream.codec_context is None or not (stream.codec_context.pix_fmt or stream.codec_context.width):
                raise InputError(f"{path}: its picture cannot be decoded; convert it to H.264 first.")
            return stream
    what = "it holds sound but no picture" if container.streams.audio else "it holds no picture"
    raise InputError(f"{path}: {what}; give a video.")


def codec_name(stream: Any) -> str:
    """The codec's general name, e.g. `mp3` where the decoder is called `mp3float`."""
    codec = stream.codec_context.codec if stream.codec_context is not None else None
    name = str(getattr(codec, "canonical_name", None) or getattr(codec, "name", "unknown"))
    return {"mp3float": "mp3", "libdav1d": "av1", "libopus": "opus", "libvorbis": "vorbis"}.get(name, name)


def output_error(path: Path, error: BaseException) -> OutputError:
    """The sentence for an error met while writing `path`."""
    code = getattr(error, "errno", None)
    if code in _FULL:
        return OutputError(f"{path}: the disk is full; free some space or choose another place.")
    if code in _DENIED:
        return OutputError(f"{path}: it may not be written; choose another folder or change its permissions.")
    return OutputError(f"{path}: it cannot be written ({error}); choose another place.")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns library and system errors of the block into the `OutputError` sentence for `path`."""
    try:
        yield
    except (FFmpegError, OSError) as error:
        raise output_error(path, error) from error


def check_place(path: Path) -> None:
    """Raises `OutputError` where `path` can hardly be written: said before the work, not after it. Makes nothing."""
    place = path.absolute().parent
    try:
        while not place.exists():
            place = place.parent
        good = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    except OSError:
        good = False
    if not good:
        raise OutputError(f"{path}: it may not be written; choose another folder or change its permissions.")


def _stem(path: Path) -> str:
    """How the names of temporary files of `path` begin; of one length, whatever the name."""
    return f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}-"


def unfinished(path: Path) -> Path:
    """A new name next to `path` for what will become it; `sweep` knows it."""
    return path.absolute().parent / f"{_stem(path)}{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:12]}.part"


def _machine() -> str:
    """Tells apart the machines that share a folder."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]


def sweep(path: Path, *, dead_only: bool = False) -> None:
    """Removes temporary files that a killed process left beside `path`: all, for whoever has the sole right to write it, or those
    whose process on this machine is gone."""
    for left in path.absolute().parent.glob(f"{_stem(path)}*.part"):
        if dead_only and not _is_dead(left.name.split("-")[1:3]):
            continue
        with contextlib.suppress(OSError):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _is_dead(written_by: Sequence[str]) -> bool:
    """Whether a temporary file's process (machine, number) is known to be gone; not where another one has its number by now."""
    if os.name != "posix" or written_by[:1] != [_machine()] or not written_by[-1].isdigit():
        return False
    try:
        os.kill(int(written_by[-1]), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


@contextlib.contextmanager
def beside(
    path: Path, finish: Callable[[Path], None] | None = None, rescue: Callable[[], None] | None = None
) -> Iterator[Path]:
    """A temporary path next to `path` that takes its place when the block ends well, and is removed when it does not.

    `finish` is called with the complete temporary file before it is moved (for metadata that is added to finished files), `rescue`
    before one that failed is removed.
    Nothing but a complete file is ever seen under the final name; what killed processes left of it goes. Raises `OutputError`.
    """
    temporary = unfinished(path)
    with writing(path):
        temporary.parent.mkdir(parents=True, exist_ok=True)
    sweep(path, dead_only=True)
    try:
        yield temporary
        with writing(path):
            if finish is not None:
                finish(temporary)
            if temporary.is_dir():
                _replace_folder(temporary, path)
            else:
                with temporary.open("rb") as file:
                    os.fsync(file.fileno())
                temporary.replace(path)
    except BaseException:
        if rescue is not None:
            rescue()
        raise
    finally:
        with contextlib.suppress(OSError):
            if temporary.is_dir():
                shutil.rmtree(temporary)
            else:
                temporary.unlink(missing_ok=True)


def _replace_folder(temporary: Path, path: Path) -> None:
    """Moves a finished folder into place; only an empty folder may be there already."""
    if path.is_dir():
        if any(path.iterdir()):
            raise OutputError(f"{path}: the folder is not empty; name a new one.")
        path.rmdir()
    temporary.replace(path)
