"""`python -m lib_vitface.training.follower OPTIONS`: a process that learns its part of each batch with the one that started it.

It saves nothing and reports nothing; consent was checked by the first process.
"""

from __future__ import annotations

import json
import signal
import sys
from contextlib import suppress

from lib_vitface.errors import ViTFaceError
from lib_vitface.options import build
from lib_vitface.training.settings import TrainOptions
from lib_vitface.training.trainer import train


def main() -> int:
    """Options come as one JSON object. The first process says when to stop; Ctrl-C reaches both and is its to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(ViTFaceError):  # the first process says what is wrong
        train(build(TrainOptions, json.loads(sys.argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
