"""Natural frames of the sample clip, keys, and a publisher."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from marking import CONSENT, KEY

from lib_vitface import media
from lib_vitface.assets import locate
from lib_vitface.provenance.publish import Publisher


@pytest.fixture(scope="session")
def clip() -> Path:
    """640 x 360 pixels, 24000/1001 frames a second, AAC sound, 472 frames."""
    return locate("sample_target")


@pytest.fixture(scope="session")
def frames(clip: Path) -> list[np.ndarray]:
    """Frames a second apart."""
    found = [frame.image for frame in itertools.islice(media.read_frames(clip), 0, None, 24)]
    assert len(found) >= 16
    return found


@pytest.fixture(scope="session")
def run_of_frames(clip: Path) -> list[np.ndarray]:
    """Frames that follow each other, as an encoder likes them."""
    return [frame.image for frame in itertools.islice(media.read_frames(clip, 4), 24)]


@pytest.fixture(scope="session")
def publisher() -> Publisher:
    return Publisher(CONSENT, "feedc0de", KEY)
