"""Options of the consent and inspect tasks. Light on purpose: `--help` reads this and nothing else of the sub-package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lib_vitface.options import option

_RECORD = "Record"
_FILES = "Files"

STATEMENT = (
    "I am this person and an adult, or I have this adult's consent, and I agree that ViTFace learns this face and puts it into "
    "pictures and video that are marked as synthetic."
)
MATERIAL = (
    "The licence of this footage allows that ViTFace learns the face in it, which is that of an adult, for a demonstration that is "
    "marked as synthetic."
)


@dataclass(frozen=True)
class ConsentOptions:
    """A record says whose face it is, what was agreed to, when, and what the face looks like; it is signed with a local key."""

    record: Path = option(help="File of the record (JSON).", group=_FILES, kind="output")
    action: str = option(
        "show",
        help="write: make a new record; show: check and print one; revoke: take it back, and delete the facesets and models made "
        "with it in this workspace; challenge: draw prompts to be done before the camera, for --challenge.",
        group=_RECORD,
        choices=("write", "show", "revoke", "challenge"),
    )
    kind: str = option(
        "record",
        help="With write: record (a person agreed) or material (footage whose licence allows it, see --licence).",
        group=_RECORD,
        choices=("record", "material"),
    )
    who: str = option("", help="With write: name of the person.", group=_RECORD)
    adult: bool = option(
        False,
        help="With write: I state that the person is 18 or older. Without this no record is written.",
        group=_RECORD,
    )
    source: list[Path] = option(
        [],
        help="With write: clips, photos or folders that show the person; they are looked at, not copied.",
        group=_FILES,
        kind="paths",
    )
    statement: str = option(STATEMENT, help="With write: what the person agrees to.", group=_RECORD)
    licence: str = option("", help="With --kind material: the licence, and where it is stated.", group=_RECORD)
    uses: str = option(
        "all", help="With write: what may be made of the face.", group=_RECORD, choices=("all", "video", "pictures")
    )
    starts: str = option("", help="With write: first day it holds, as YYYY-MM-DD; empty: today.", group=_RECORD)
    expires: str = option("", help="With write: last day it holds, as YYYY-MM-DD; empty: until revoked.", group=_RECORD)
    person: Path | None = option(
        None,
        help="With write: a picture of the person, where several people are in the source.",
        group=_FILES,
        kind="file",
    )
    challenge: str = option(
        "",
        help="With write: number of the challenge that the source, one clip, answers; the reference is then taken from that clip, and "
        "the record says what was done in it.",
        group=_RECORD,
    )


@dataclass(frozen=True)
class InspectOptions:
    """Looks for the invisible mark in the pixels and for manifest and statement in the file, and scores faces."""

    input: list[Path] = option(help="Pictures, videos, or folders of them.", group=_FILES, kind="paths")
    frames: int = option(24, help="Frames of a video that are read.", group="Reading", low=1, high=10_000)
    search: bool = option(
        True, help="Also look for the mark in cropped, framed or zoomed copies (slower).", group="Reading"
    )
    detector: bool = option(
        True,
        help="Also score faces for traces of a swap, where the detector was trained; a hint, no proof (slower).",
        group="Reading",
    )
