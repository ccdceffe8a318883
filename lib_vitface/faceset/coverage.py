"""Which views of the person are there and which are missing: a picture of it, and sentences saying what to film."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from lib_vitface.faceset.quality import EXPRESSION, LIGHT
from lib_vitface.faceset.select import PITCH_EDGES, YAW_EDGES, histogram
from lib_vitface.media.container import beside, writing
from lib_vitface.types import Floats, Image

if TYPE_CHECKING:
    from lib_vitface.faceset.store import Faceset

FILE = "coverage.png"
_ENOUGH = 5
_SIDE_DEG, _PROFILE_DEG, _TILT_DEG = 20.0, 45.0, 12.0
_MOUTH_OPEN, _SMILE, _EYES_SHUT = 0.25, 0.12, 0.19
_DIM, _BRIGHT = 0.2, 0.75
_THUMBNAIL_PX = 72


def hints(pose: NDArray[np.floating], expression: Floats, light: Floats) -> list[str]:
    """What is missing, a sentence each with what to do about it; empty when nothing is.

    `pose` [N, 2 or 3] degrees, `expression` [N, 7], `light` [N, 4]. "Your left" is the person's own: the viewer's right in an
    unmirrored picture.
    """
    yaw, pitch = pose[:, 0], pose[:, 1]
    found = []
    if _few(np.abs(yaw) < _SIDE_DEG):
        found.append("No frontal view: film yourself looking straight into the camera.")
    for side, sign in (("left", 1), ("right", -1)):
        if _few(sign * yaw > _SIDE_DEG):
            found.append(f"No view turned to the {side}: film yourself turning your head slowly to your {side}.")
        elif _few(sign * yaw > _PROFILE_DEG):
            found.append(f"No {side} profile: film yourself turning on to your {side} until one eye is hidden.")
    if _few(pitch > _TILT_DEG):
        found.append("No view from below: film yourself lifting your chin.")
    if _few(pitch < -_TILT_DEG):
        found.append("No view from above: film yourself lowering your chin.")
    values = dict(zip(EXPRESSION, expression.T, strict=True))
    if _few(values["mouth_open"] > _MOUTH_OPEN):
        found.append("No open mouth: film yourself saying a long 'ah' and talking.")
    if _few(values["smile"] > _SMILE):
        found.append("No smile: film yourself smiling, with and without showing teeth.")
    if _few(np.minimum(values["eye_right"], values["eye_left"]) < _EYES_SHUT):
        found.append("No closed eyes: film yourself with your eyes shut for a second.")
    level = dict(zip(LIGHT, light.T, strict=True))["level"]
    if len(level) and float(np.median(level)) < _DIM:
        found.append("The face is dim in most pictures: film again with more light in front of you.")
    if len(level) and float(np.median(level)) > _BRIGHT:
        found.append("The face is too bright in most pictures: film again with softer light.")
    return found


def _few(there: NDArray[np.bool_]) -> bool:
    return int(there.sum()) < _ENOUGH


def hints_of(faceset: Faceset) -> list[str]:
    """`hints` over the kept faces; what was only rendered is still to be filmed."""
    pose = pose_of(faceset)
    if not len(pose):
        return ["The faceset is empty: name inputs that show the person."]
    return hints(pose, faceset.array("expression", novel=False), faceset.array("light", novel=False))


def pose_of(faceset: Faceset, kept: bool | None = True) -> NDArray[np.float64]:
    """Yaw and pitch `[N, 2]` of the faces in order of id, without those that were rendered."""
    columns = faceset.columns("yaw_deg", "pitch_deg", kept=kept, novel=False)
    return np.stack([columns["yaw_deg"], columns["pitch_deg"]], axis=1).astype(np.float64)


def picture(faceset: Faceset) -> Image:
    """RGB picture: number of faces and the sharpest example per yaw x pitch cell, and the hints below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pose = pose_of(faceset)
    counts = histogram(pose)
    figure = Figure(figsize=(10, 7.2), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, 0.31, 0.88, 0.63))
    axes.imshow(
        np.log1p(counts), cmap="Blues", origin="lower", aspect="auto", vmin=0, vmax=max(np.log1p(counts).max(), 1)
    )
    axes.set_xticks(np.arange(len(YAW_EDGES)) - 0.5, [f"{e:.0f}" for e in YAW_EDGES])
    axes.set_yticks(np.arange(len(PITCH_EDGES)) - 0.5, [f"{e:.0f}" for e in PITCH_EDGES])
    axes.set_xlabel("yaw (degrees): < 0 turned to your right, > 0 turned to your left")
    axes.set_ylabel("pitch (degrees): > 0 looks up")
    axes.set_title(f"{len(pose)} faces by pose")
    for (row, column), example in _examples(faceset, pose).items():
        _place(axes, example, column, row)
    for row, column in np.ndindex(*counts.shape):
        text = str(counts[row, column]) if counts[row, column] else "none"
        colour = "black" if counts[row, column] else "tab:red"
        back = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.0}
        axes.text(column, row - 0.45, text, ha="center", va="bottom", fontsize=8, color=colour, bbox=back)
    lines = hints_of(faceset) or ["Nothing is missing."]
    figure.text(0.03, 0.225, "\n".join(lines), fontsize=9, va="top")
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _examples(faceset: Faceset, pose: NDArray[np.float64]) -> dict[tuple[int, int], Image]:
    """The sharpest crop of each occupied cell, shrunk; keys are (pitch row, yaw column)."""
    columns = faceset.columns("id", "sharpness", novel=False)
    row = np.clip(np.digitize(pose[:, 1], PITCH_EDGES) - 1, 0, len(PITCH_EDGES) - 2)
    column = np.clip(np.digitize(pose[:, 0], YAW_EDGES) - 1, 0, len(YAW_EDGES) - 2)
    best: dict[tuple[int, int], int] = {}
    for i in np.argsort(columns["sharpness"], kind="stable"):
        best[int(row[i]), int(column[i])] = int(columns["id"][i])
    best = dict(sorted(best.items()))  # pictures that overlap lie on each other alike, whichever face was found first
    found = {}
    for cell, record in zip(best, faceset.records(ids=list(best.values())), strict=True):
        side = (_THUMBNAIL_PX, _THUMBNAIL_PX)
        found[cell] = np.asarray(cv2.resize(faceset.image(record), side, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return found


def _place(axes: object, image: Image, column: float, row: float) -> None:
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    box = AnnotationBbox(OffsetImage(image, zoom=0.68), (column, row + 0.1), frameon=False)
    axes.add_artist(box)  # type: ignore[attr-defined]


def save(faceset: Faceset) -> Path:
    """Draw the picture into the faceset's folder as `coverage.png`. Raises OutputError where it cannot be written."""
    target = faceset.path / FILE
    _, data = cv2.imencode(".png", cv2.cvtColor(picture(faceset), cv2.COLOR_RGB2BGR))
    with beside(target) as temporary, writing(target):
        temporary.write_bytes(data.tobytes())
    return target
