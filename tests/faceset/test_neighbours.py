"""Clustering by nearest neighbours against average linkage of all pairs, and against who the made-up faces are of."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from lib_vitface.faceset import cluster, neighbours
from lib_vitface.types import Floats

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import faceset_scale

pytestmark = pytest.mark.skipif(not neighbours.available(), reason="faiss-cpu is not installed")
COUNT = 4000


@pytest.fixture(scope="module")
def looks() -> tuple[Floats, np.ndarray]:
    who = faceset_scale.made_up_persons(COUNT)
    return faceset_scale.made_up_looks(who, 0, COUNT).astype(np.float32), who


def test_it_agrees_with_average_linkage_of_all_pairs(looks: tuple[Floats, np.ndarray]) -> None:
    vectors = looks[0]
    found = neighbours.joined(vectors, cluster.SAME_PERSON, neighbours.parts_of(vectors))
    tree = linkage(np.maximum(pdist(vectors, "cosine"), 0), method="average")
    expected = fcluster(tree, 1 - cluster.SAME_PERSON, criterion="distance")
    assert faceset_scale.adjusted_rand_index(by_number(found), by_number(expected)) > 0.99


def test_many_faces_are_told_apart(looks: tuple[Floats, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, who = looks
    monkeypatch.setattr(cluster, "_MANY", COUNT)
    labels = cluster.identities(vectors)
    assert faceset_scale.adjusted_rand_index(labels, who) > 0.99
    assert np.bincount(labels)[0] == np.bincount(labels).max()
    np.testing.assert_array_equal(cluster.identities(vectors.copy()), labels)


def test_groups_no_two_of_which_are_alike(looks: tuple[Floats, np.ndarray]) -> None:
    """Where it ends, no two groups are alike on average, counted over all pairs; those within one are."""
    vectors = looks[0][:1500]
    found = neighbours.joined(vectors, 0.5, neighbours.parts_of(vectors))
    means = np.stack([vectors[own].mean(axis=0) for own in cluster.members(by_number(found))])
    between = means @ means.T
    np.fill_diagonal(between, 0)
    assert between.max() < 0.5
    assert np.median([(vectors[own] @ vectors[own].T).mean() for own in cluster.members(by_number(found))]) > 0.5


@pytest.mark.parametrize(
    "vectors", [np.eye(128, dtype=np.float32)[:1], np.repeat(np.eye(128, dtype=np.float32)[:2], 40, axis=0)]
)
def test_one_face_and_equal_faces(vectors: Floats) -> None:
    found = neighbours.joined(vectors, 0.4, neighbours.parts_of(vectors))
    assert len(np.unique(found)) == len(np.unique(vectors, axis=0))


def by_number(labels: np.ndarray) -> np.ndarray:
    return np.unique(labels, return_inverse=True)[1].ravel()


def test_the_measure_of_agreement() -> None:
    """By hand: 2 pairs agree of 6 and 3, of 15 in all, so (2 - 18 / 15) / (9 / 2 - 18 / 15)."""
    a = np.array([0, 0, 0, 1, 1, 1])
    assert faceset_scale.adjusted_rand_index(a, a[::-1].copy()) == 1
    assert faceset_scale.adjusted_rand_index(a, np.array([0, 0, 1, 1, 2, 2])) == pytest.approx(0.24242, abs=1e-5)
