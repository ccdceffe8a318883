"""The MediaPipe face mesh: canonical shape, triangles, and which points are which part of the face.

Indices are facts of the published topology (MediaPipe face mesh, Kartynnik et al. 2019, arXiv:1907.06724, Apache-2.0).
`RIGHT_...` and `LEFT_...` are the person's own sides: `RIGHT_EYE` is on the left of an unmirrored picture. Loops are closed
(the last point joins the first) and run clockwise as the viewer sees a frontal face.
"""

from __future__ import annotations

import json
import zipfile
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lib_vitface.assets import locate
from lib_vitface.errors import InputError
from lib_vitface.types import Floats

POINT_COUNT = 468

OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
"""Edge of the mesh, from the top of the forehead over the viewer's right temple to the chin and back up."""

RIGHT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
"""Lid edge: outer corner, upper lid, inner corner, lower lid."""
LEFT_EYE = (362, 398, 384, 385, 386, 387, 388, 466, 263, 249, 390, 373, 374, 380, 381, 382)
"""Lid edge: inner corner, upper lid, outer corner, lower lid."""

RIGHT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
LEFT_BROW = (336, 296, 334, 293, 300, 276, 283, 282, 295, 285)
BROWS = RIGHT_BROW + LEFT_BROW

LIPS_OUTER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
LIPS_INNER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)

NOSE_RIDGE = (168, 6, 197, 195, 5, 4, 1, 19, 94, 2)
"""Between the eyes down to where the nose meets the upper lip."""
NOSE_BASE = (64, 98, 97, 2, 326, 327, 294)
NOSE = (*NOSE_RIDGE, 97, 98, 64, 48, 115, 220, 45, 275, 440, 344, 278, 294, 327, 326)

NOSE_TIP = 1
CHIN = 152
FOREHEAD = 10
EYE_CORNERS = (33, 133, 362, 263)
"""Viewer's left to right: right eye outer and inner, left eye inner and outer."""
MOUTH_CORNERS = (61, 291)

STABLE = (
    *(10, 151, 9, 8, 168, 6, 197, 195, 5),
    *(109, 67, 103, 54, 21, 162, 127, 234, 338, 297, 332, 284, 251, 389, 356, 454),
    *(108, 69, 104, 68, 71, 139, 34, 227, 337, 299, 333, 298, 301, 368, 264, 447),
    *(33, 133, 263, 362, 130, 359, 243, 463, 122, 351, 193, 417, 143, 372, 116, 345),
)
"""Points that expressions hardly move: forehead, temples, eye corners, bridge of the nose."""


@lru_cache(maxsize=1)
def vertices() -> Floats:
    """Canonical face `[468, 3]` float32 in centimetres: x to the viewer's right, y up, z towards the viewer. Read-only.

    The file is a torch archive of one contiguous float32 tensor; its raw storage is read without importing torch.
    """
    path = locate("canonical_face")
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(n for n in archive.namelist() if n.endswith("/data/0"))
            values = np.frombuffer(archive.read(name), dtype="<f4")
    except (zipfile.BadZipFile, StopIteration) as error:
        raise InputError(f"{path} is not the canonical face mesh; delete it so that it is fetched again.") from error
    if values.size != POINT_COUNT * 3:
        raise InputError(f"{path} holds {values.size} numbers, not 468 x 3; delete it so that it is fetched again.")
    return values.reshape(POINT_COUNT, 3)


@lru_cache(maxsize=1)
def triangles() -> NDArray[np.int32]:
    """Triangles `[898, 3]` of the closed mesh (eyes and mouth are covered), facing outwards. Read-only."""
    path = locate("canonical_triangles")
    try:
        found = np.asarray(json.loads(path.read_text(encoding="utf-8"))["triangles"], dtype=np.int32)
    except (ValueError, KeyError) as error:
        raise InputError(f"{path} is not the face triangle list; delete it so that it is fetched again.") from error
    found.setflags(write=False)
    return found


@lru_cache(maxsize=1)
def mirror_order() -> NDArray[np.intp]:
    """Index `[468]` of the point on the other side of the face: `flipped = landmarks[mirror_order()]` after x -> width - 1 - x."""
    points = vertices()
    mirrored = points * np.array([-1, 1, 1], dtype=np.float32)
    gaps = ((mirrored[:, None] - points[None]) ** 2).sum(axis=2)
    order = gaps.argmin(axis=1)
    order.setflags(write=False)
    return order


def boundary(landmarks: Floats) -> Floats:
    """Outline of the mesh `[36, 2]` in order, for a hull polygon. `landmarks` is `[468, 2 or 3]`."""
    return landmarks[list(OVAL), :2]
