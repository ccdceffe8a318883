"""The even sample of source faces."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from lib_vitface.metrics import source
from lib_vitface.types import Face, Floats, Image, no_tick


def stream(count: int) -> Iterator[tuple[Image, Floats]]:
    for number in range(count):
        yield np.full((1, 1, 3), number % 256, dtype=np.uint8), np.full((468, 3), number, dtype=np.float32)


@pytest.mark.parametrize(
    ("count", "limit"), [(0, 5), (1, 5), (5, 5), (6, 5), (9, 5), (10, 5), (11, 5), (999, 7), (1000, 150)]
)
def test_sample_is_even_and_as_large_as_allowed(count: int, limit: int) -> None:
    numbers = [int(points[0, 0]) for _, points in source.even_sample(stream(count), limit)]
    assert len(numbers) == min(count, limit) and numbers == sorted(set(numbers))
    if count > limit:
        gaps = np.diff([*numbers, count])
        assert numbers[0] == 0 and gaps.max() <= 2 * gaps.min() + count / limit


def test_measured_faces_carry_what_was_asked(frontal_face: Face) -> None:
    assert frontal_face.landmarks is not None

    def look(image: Image, face: Face) -> Floats:
        return np.array([image.mean(), face.points[0, 0]], dtype=np.float32)

    image = np.full((400, 400, 3), 7, dtype=np.uint8)
    found = source.measure_source([(image, frontal_face.landmarks)] * 3, 2, look, {"space": look}, no_tick)
    assert len(found) == 2
    np.testing.assert_allclose(found[0].embedding, [7, frontal_face.points[0, 0]])
    np.testing.assert_allclose(found[0].features["space"], found[0].embedding)
    assert found[0].thumbnail.shape == (192, 192, 3) and abs(found[0].pose.yaw_deg) < 1e-3
