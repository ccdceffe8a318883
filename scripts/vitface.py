"""What the WebUI loads: the script classes it looks for in this file, and the callbacks."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:  # the WebUI has the folder on the path only while this file loads; later imports need it too
    sys.path.append(ROOT)

from lib_vitface.hosts.webui import ViTFacePictures, ViTFaceScript, register  # noqa: E402

register()

__all__ = ["ViTFacePictures", "ViTFaceScript"]
