"""A large faceset is listed and sorted without its arrays being read, and a page of it without the rest."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from lib_vitface.faceset.store import Faceset

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import faceset_scale

COUNT = 20_000


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scale") / "faces"
    faceset_scale.write_made_up(folder, COUNT)
    return folder


def test_made_up_faces_are_read_as_real_ones(large: Path) -> None:
    with Faceset.open(large) as faceset:
        assert len(faceset) == COUNT == faceset.summary()["faces"]
        (one,) = faceset.records(ids=[COUNT])
        assert one.image == f"{COUNT:09d}.jpg" and one.landmarks.shape == (468, 3)
        assert np.linalg.norm(one.embedding) == pytest.approx(1, abs=1e-5)
        found = faceset.columns("id", "sharpness", "cluster")
        assert found["id"].tolist() == list(range(1, COUNT + 1)) and len(set(found["cluster"])) == 1000


def test_listing_and_paging_cost_a_part_of_reading_all(large: Path) -> None:
    """Ratios on one machine in one run; the arrays are 20 times the size of the rows that are listed."""
    found = {name: use["seconds"] for name, use in faceset_scale.measured(large).items()}
    assert found["sort all by identity and sharpness"] < 0.8 * found["all identity vectors"]
    assert found["page of 60 anywhere"] < 0.05 * found["all identity vectors"]
    assert found["open and count"] < 0.05 * found["all identity vectors"]
