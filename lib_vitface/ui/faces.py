"""A faceset as a gallery shows it, and pictures a person gives through the page."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import OutputError
from lib_vitface.faceset import coverage
from lib_vitface.faceset.record import KEPT
from lib_vitface.faceset.select import PITCH_EDGES, YAW_EDGES, histogram
from lib_vitface.faceset.store import Faceset
from lib_vitface.faceset.writer import FacesetWriter, sole_right
from lib_vitface.types import Image
from lib_vitface.ui import markup
from lib_vitface.ui.site import Site

PAGE = 60
REMOVED = "removed by hand"
_THUMBNAIL_PX = 112
Numbers = dict[str, NDArray[Any]]
ORDERS: dict[str, Callable[[Numbers], NDArray[Any]]] = {
    "as found": lambda v: v["id"],
    "sharpest first": lambda v: -v["sharpness"],
    "most blurred first": lambda v: v["sharpness"],
    "most turned first": lambda v: -np.abs(v["yaw_deg"]),
    "frontal first": lambda v: np.abs(v["yaw_deg"]) + np.abs(v["pitch_deg"]),
    "left to right": lambda v: v["yaw_deg"],
    "looking up first": lambda v: -v["pitch_deg"],
    "least alike first": lambda v: v["likeness"],
    "most covered first": lambda v: -v["occlusion"],
    "largest first": lambda v: -v["face_px"],
}


@dataclass(frozen=True)
class Page:
    """What one page of a gallery shows: pictures with captions, their ids, how many pages there are, and what to say."""

    pictures: list[tuple[Image, str]]
    ids: list[int]
    pages: int
    said: str
    coverage: str


def look(folder: Path, order: str, only: str, share: float, page: int) -> Page:
    """One page of a faceset in an order; `only` is "kept", "removed" or "all", `share` percent of the order are shown."""
    kept = {"kept": True, "removed": False}.get(only)
    with Faceset.open(folder, unfinished=True) as faceset:
        names = ("id", "sharpness", "yaw_deg", "pitch_deg", "occlusion", "face_px", "kept")
        values: Numbers = dict(faceset.columns(*names, kept=kept, whole=True))
        values["likeness"] = _likeness(faceset, kept)
        chosen = np.argsort(ORDERS[order](values), kind="stable")
        chosen = chosen[: max(1, round(len(chosen) * share / 100))] if len(chosen) else chosen
        pages = max(1, -(-len(chosen) // PAGE))
        start = (min(max(page, 1), pages) - 1) * PAGE
        rows = chosen[start : start + PAGE]
        ids = [int(values["id"][row]) for row in rows]
        pictures = [
            (_thumbnail(faceset.image(record), bool(values["kept"][row])), _caption(values, row))
            for row, record in zip(rows, faceset.records(ids=ids), strict=True)
        ]
        said = (
            f"{len(chosen)} of {faceset.count()} faces; {len(faceset)} are kept. Below each: sharpness, yaw and pitch."
        )
        hints = coverage.hints_of(faceset)
        table = _pose_table(coverage.pose_of(faceset)) if len(faceset) else ""
    good = "Nothing is missing: views, mouth and eyes are all there."
    return Page(
        pictures,
        ids,
        pages,
        markup.message(said, "good"),
        table + (markup.messages(hints) or markup.message(good, "good")),
    )


def _likeness(faceset: Faceset, kept: bool | None) -> NDArray[Any]:
    """Cosine to the person of the kept faces."""
    vectors = faceset.embeddings(kept)
    return vectors @ faceset.mean_embedding() if len(vectors) and len(faceset) else np.zeros(len(vectors))


def _caption(values: Numbers, row: int) -> str:
    return f"{values['sharpness'][row]:.2f} · {values['yaw_deg'][row]:+.0f}°/{values['pitch_deg'][row]:+.0f}°"


def _thumbnail(image: Image, kept: bool) -> Image:
    """Small; a removed face is grey and struck through."""
    side = (_THUMBNAIL_PX, _THUMBNAIL_PX)
    small = np.ascontiguousarray(cv2.resize(image, side, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    if not kept:
        small = np.repeat(small.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
        cv2.line(small, (0, 0), side, (220, 40, 40), 3, cv2.LINE_AA)
    return small


def _pose_table(pose: NDArray[np.float64]) -> str:
    """How many kept faces there are by yaw and pitch, shaded."""
    counts = histogram(pose)
    most = max(int(counts.max()), 1)
    head = [f"{a:.0f}…{b:.0f}°" for a, b in itertools.pairwise(YAW_EDGES)]
    rows = []
    for row in reversed(range(len(counts))):
        cells = "".join(
            f'<td style="--share:{np.log1p(n) / np.log1p(most):.2f}"{"" if n else " class=vitface-none"}>{n}</td>'
            for n in counts[row]
        )
        rows.append(f"<tr><th>{PITCH_EDGES[row]:.0f}…{PITCH_EDGES[row + 1]:.0f}°</th>{cells}</tr>")
    top = "<tr><th>pitch \\ yaw</th>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"
    return (
        '<div class="vitface-scroll"><table class="vitface-table vitface-poses"><caption>Kept faces by direction; yaw to the right is '
        f"turned to your left, pitch upwards looks up</caption><thead>{top}</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def toggle(folder: Path, number: int) -> bool:
    """Removes a kept face or takes a removed one back; returns whether it is kept now."""
    with sole_right(folder), FacesetWriter.open(folder, unfinished=True) as faceset:
        record = next(iter(faceset.records(ids=[number])))
        reason = REMOVED if record.kept else KEPT
        faceset.decide([number], [record.cluster], [reason], {})
    return not record.kept


def keep_picture(site: Site, image: Image, name: str) -> Path:
    """A picture given through the page (a webcam shot, a face that was clicked), kept as PNG in the uploads."""
    done, data = cv2.imencode(".png", cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_RGB2BGR))
    raw = data.tobytes() if done else b""
    path = site.uploads / f"{name}-{hashlib.sha256(raw).hexdigest()[:12]}.png"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}); free some disk space.") from None
    return path
