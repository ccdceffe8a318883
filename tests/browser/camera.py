"""A camera that shows a file, and the browser that has it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("VITFACE_CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)
WIDTH, HEIGHT = 640, 480  # of the camera


def write_camera(path: Path, pictures: Sequence[np.ndarray] = (), fps: int = 10) -> None:
    """What the camera sees, over and over: a face of the sample clip, or pictures `[H, W, 3]`, as the raw video (YUV4MPEG2)
    that Chromium takes for one. A file that is open already is left to who reads it."""
    from small_clone import images

    shown = list(pictures) or images("sample_source", 1, (WIDTH, HEIGHT)) * 10
    height, width = shown[0].shape[:2]
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{fps}:1 Ip A1:1 C420jpeg\n".encode())
        for picture in shown:
            planes = cv2.cvtColor(picture, cv2.COLOR_RGB2YUV_I420)
            file.write(b"FRAME\n" + np.ascontiguousarray(planes).tobytes())
    temporary.replace(path)


def launched(chromium: Any, camera: Path) -> Any:
    """A browser with a camera before which a file is shown."""
    flags = ["--no-sandbox", "--disable-gpu", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    return chromium.launch(executable_path=CHROMIUM, args=[*flags, f"--use-file-for-fake-video-capture={camera}"])
