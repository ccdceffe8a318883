"""Video and pictures in and out; the only part that touches a video library (PyAV).

Files in `settings` (what to ask an encoder), `container` (opening, errors, atomic writing), `color` (YUV and RGB), `reader`,
`writer`, `audio` (tracks carried over), `segments` and `room` (joining a resumable job's parts), `images`, `pipeline` (overlap).
"""

from lib_vitface.media.container import check_place, encoders, sweep
from lib_vitface.media.images import (
    folder_images,
    is_image,
    is_video,
    list_media,
    read_image,
    read_picture,
    write_image,
)
from lib_vitface.media.pipeline import overlap
from lib_vitface.media.reader import probe, read_frames
from lib_vitface.media.room import Place, bring_back
from lib_vitface.media.segments import join_segments
from lib_vitface.media.settings import EncoderPlan, EncodeSettings, plan_encoding, segment_settings
from lib_vitface.media.writer import FrameWriter

__all__ = [
    "EncodeSettings",
    "EncoderPlan",
    "FrameWriter",
    "Place",
    "bring_back",
    "check_place",
    "encoders",
    "folder_images",
    "is_image",
    "is_video",
    "join_segments",
    "list_media",
    "overlap",
    "plan_encoding",
    "probe",
    "read_frames",
    "read_image",
    "read_picture",
    "segment_settings",
    "sweep",
    "write_image",
]
