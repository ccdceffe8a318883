"""Single frames of footage and the people in them, as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from lib_vitface import media
from lib_vitface.errors import InputError
from lib_vitface.types import Face, Image

_GREEN = (64, 200, 120)
_MARGIN = 0.6


def frame_at(path: Path, share: float) -> Image:
    """The frame at a share 0..1 of a video or of a folder's pictures, or a picture itself."""
    if not path.exists():
        raise InputError(f"{path}: is not there.")
    if path.is_dir():
        files = media.list_media([path])
        path = files[min(int(share * len(files)), len(files) - 1)]
    if not media.is_video(path):
        return media.read_image(path)
    info = media.probe(path)
    last = max(float(info.duration) - 2 / float(info.fps or 25), 0.0)
    frame = next(iter(media.read_frames(path, min(share, 1.0) * last or None)), None)
    if frame is None:
        raise InputError(f"{path}: there is no frame at this moment.")
    return frame.image


def marked(image: Image, faces: Sequence[Face]) -> Image:
    """The picture with a numbered box about each face."""
    drawn = image.copy()
    width = max(2, max(image.shape[:2]) // 400)
    for number, face in enumerate(faces):
        x0, y0, x1, y1 = (round(float(v)) for v in face.box)
        cv2.rectangle(drawn, (x0, y0), (x1, y1), _GREEN, width, cv2.LINE_AA)
        place = (x0, max(y0 - 3 * width, 12 * width))
        cv2.putText(drawn, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, 0.45 * width, _GREEN, width, cv2.LINE_AA)
    return drawn


def face_at(faces: Sequence[Face], x: float, y: float) -> Face | None:
    """The smallest face whose box holds the point."""
    there = [f for f in faces if f.box[0] <= x <= f.box[2] and f.box[1] <= y <= f.box[3]]
    return min(there, key=lambda f: float((f.box[2] - f.box[0]) * (f.box[3] - f.box[1])), default=None)


def cut_out(image: Image, face: Face) -> Image:
    """The face with some of its surroundings."""
    box = face.box.astype(float)
    x_edge, y_edge = _MARGIN * (box[2] - box[0]), _MARGIN * (box[3] - box[1])
    left, top = max(int(box[0] - x_edge), 0), max(int(box[1] - y_edge), 0)
    return np.ascontiguousarray(image[top : int(box[3] + y_edge), left : int(box[2] + x_edge)])
