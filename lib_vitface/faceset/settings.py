"""Options of the faceset task. Light on purpose: `--help` reads this and nothing else of the sub-package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib_vitface.options import option

_INPUT = "Input"
_PERSON = "Person"
_QUALITY = "Quality"
_OUTPUT = "Output"


@dataclass(frozen=True)
class FacesetOptions:
    """From clips, photos, folders and other tools' facesets to one faceset of one person."""

    input: list[Path] = option(
        help="Videos, photos, folders of them, or a faceset of DeepFaceLab or faceswap; all of one person.",
        group=_INPUT,
        kind="paths",
    )
    output: Path = option(help="Folder of the faceset; it is made when it is not there.", group=_OUTPUT, kind="folder")
    every: int = option(1, help="Look at every n-th frame of a video only.", group=_INPUT, low=1, high=10000)
    start_s: float | None = option(
        None, help="Leave out what comes before this time of each video.", group=_INPUT, low=0, unit="s"
    )
    end_s: float | None = option(
        None, help="Leave out what comes after this time of each video.", group=_INPUT, low=0, unit="s"
    )
    person: Path | None = option(
        None,
        help="A picture of the wanted person; needed when several people appear about equally often.",
        group=_PERSON,
        kind="file",
    )
    keep_strangers: bool = option(
        False,
        help="Keep everybody found, each with an own identity number, e.g. for a pretraining set of many people.",
        group=_PERSON,
        advanced=True,
    )
    consent: Path | None = option(
        None,
        help="Signed consent record of the person; its fingerprint is noted in the faceset.",
        group=_PERSON,
        kind="file",
    )
    min_face_px: int = option(
        64, help="Leave out faces narrower than this in the frame.", group=_QUALITY, low=16, high=4096, unit="px"
    )
    min_sharpness: float = option(
        0.3, help="Leave out faces more blurred than this (0 smeared, 1 crisp).", group=_QUALITY, low=0, high=1
    )
    max_occlusion: float = option(
        0.5, help="Leave out faces of which a larger share is covered.", group=_QUALITY, low=0, high=1
    )
    min_change: float = option(
        0.15,
        help="Leave out faces of which eyes, lips and outline moved less than this from one that is kept; 0 keeps every frame.",
        group=_QUALITY,
        low=0,
        high=10,
        unit="% of the crop's edge",
    )
    max_faces: int = option(
        1000,
        help="Choose at most this many, spread over pose, expression and light.",
        group=_QUALITY,
        low=1,
        high=10_000_000,
    )
    novel_views: int = option(
        0,
        help="Render at most this many views of the person at rest where poses are missing, from a volume fitted to the others; they "
        "are marked as synthetic. Takes minutes; not shown to help yet.",
        group=_QUALITY,
        low=0,
        high=200,
    )
    detector: str = option(
        "auto",
        help="Face detector: auto is yunet; blazeface sees near faces only; insightface and facexlib are packages of their own.",
        group=_QUALITY,
        choices=("auto", "yunet", "blazeface", "insightface", "facexlib"),
        advanced=True,
    )
    size: int = option(512, help="Edge length of the crops.", group=_OUTPUT, low=128, high=1024, unit="px")
    image_format: str = option(
        "jpg", help="Format of the crops; png is lossless.", group=_OUTPUT, choices=("jpg", "png")
    )
    quality: int = option(96, help="JPEG quality of the crops.", group=_OUTPUT, low=70, high=100, advanced=True)
    workers: int = option(
        1,
        help="Processes, here or on other machines, that share the pictures. Above 1 it needs the package ray.",
        group=_OUTPUT,
        low=1,
        high=256,
        advanced=True,
    )
    exists: str = option(
        "resume",
        help="When the output is a faceset already: resume it (also adds new inputs), overwrite it, or fail.",
        group=_OUTPUT,
        choices=("resume", "overwrite", "fail"),
    )
