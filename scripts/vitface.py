"""What the WebUI loads: the script classes it looks for in this file, and the callbacks."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:  # the WebUI has the folder on the path only while this file loads; later imports need it too
    sys.path.append(ROOT)

from lib_vitface.hosts.webui import ViTFacePictures, ViTFaceScript, register  # noqa: E402

# In a thread, whose stack is short: at each callback the WebUI reads the stack to see whose it is, and for each frame of the way here,
# which belongs to no module, it looks at every module there is. That took a third of a second.
with ThreadPoolExecutor(1) as _beside:
    _beside.submit(register).result()

__all__ = ["ViTFacePictures", "ViTFaceScript"]
