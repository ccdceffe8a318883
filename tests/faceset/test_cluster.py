"""Identities from embeddings."""

from __future__ import annotations

import numpy as np
import pytest
from faceset_maker import unit_vector

from lib_vitface.errors import InputError, NoFaceError
from lib_vitface.faceset import cluster, neighbours
from lib_vitface.types import Floats


def crowd(counts: list[int], spread: float = 0.6, seed: int = 0) -> tuple[Floats, np.ndarray]:
    """Embeddings of as many persons as `counts` says, mixed; cosines within a person about 1 / (1 + spread^2)."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(len(counts)), counts)
    rng.shuffle(who)
    base = np.stack([unit_vector(100 + i) for i in range(len(counts))])
    vectors = base[who] + spread * rng.normal(size=(len(who), 128)) / np.sqrt(128)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), who


@pytest.mark.parametrize("counts", [[30], [40, 25, 8], [5, 9, 60, 1, 20]])
def test_every_person_gets_one_number_most_frequent_first(counts: list[int]) -> None:
    vectors, who = crowd(counts)
    labels = cluster.identities(vectors)
    order = np.argsort(-np.array(counts), kind="stable")
    assert np.bincount(labels).tolist() == sorted(counts, reverse=True)
    for number, person in enumerate(order):
        assert set(labels[who == person]) == {number}


def test_weights_decide_who_is_most_frequent() -> None:
    vectors, who = crowd([20, 10])
    labels = cluster.identities(vectors, np.where(who == 1, 5.0, 1.0))
    assert set(labels[who == 1]) == {0} and set(labels[who == 0]) == {1}


def test_one_poor_frame_between_two_persons_does_not_join_them() -> None:
    vectors, who = crowd([30, 20], spread=0.4)
    between = unit_vector(100) + unit_vector(101)
    joined = np.concatenate([vectors, (between / np.linalg.norm(between))[None]]).astype(np.float32)
    labels = cluster.identities(joined)
    assert labels[:-1][who == 0].tolist() == [0] * 30 and labels[:-1][who == 1].tolist() == [1] * 20


def test_same_input_same_answer_and_nothing_for_nothing() -> None:
    vectors, _ = crowd([9, 9, 9])
    np.testing.assert_array_equal(cluster.identities(vectors), cluster.identities(vectors.copy()))
    assert cluster.identities(np.zeros((0, 128), np.float32)).shape == (0,)


def test_more_views_than_fit_a_distance_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_MOST_VIEWS", 3)
    vectors, who = crowd([12] * 8, spread=0.5)
    labels = cluster.identities(vectors)
    assert len(set(zip(labels.tolist(), who.tolist(), strict=True))) == 8


def test_gathering_keeps_exact_unit_means() -> None:
    vectors, _ = crowd([70, 40], spread=0.3)
    weights = np.linspace(1, 2, 110)
    views = cluster.gather(vectors, weights, 0.5)
    assert len(views.means) == 2
    for number in range(2):
        own = views.labels == number
        mean = (weights[own, None] * vectors[own]).sum(axis=0)
        np.testing.assert_allclose(views.means[number], mean / np.linalg.norm(mean), atol=1e-5)
        assert views.weights[number] == pytest.approx(weights[own].sum())


def test_the_wanted_person_is_the_most_frequent_one() -> None:
    vectors, _ = crowd([40, 12])
    labels = cluster.identities(vectors)
    assert cluster.wanted(vectors, labels, np.ones(52)) == 0


def test_two_about_equally_frequent_need_a_reference() -> None:
    vectors, who = crowd([20, 18])
    labels = cluster.identities(vectors)
    with pytest.raises(InputError, match=r"2 people, two of them about equally often \(53 % and 47 %.*--person"):
        cluster.wanted(vectors, labels, np.ones(38))
    assert cluster.wanted(vectors, labels, np.ones(38), unit_vector(101)) == labels[who == 1][0]
    assert cluster.wanted(vectors, labels, np.ones(38), unit_vector(100)) == labels[who == 0][0]


def test_a_reference_of_somebody_else_is_refused() -> None:
    vectors, _ = crowd([20, 18])
    with pytest.raises(NoFaceError, match=r"in none of the inputs \(likeness .*--person"):
        cluster.wanted(vectors, cluster.identities(vectors), np.ones(38), unit_vector(999))


def test_members_are_the_places_of_each_number() -> None:
    labels = np.array([2, 0, 2, 0, 4])
    assert [own.tolist() for own in cluster.members(labels)] == [[1, 3], [], [0, 2], [], [4]]


def test_nobody_needs_the_library_below_many_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "parts_of", lambda _: pytest.fail("the library was asked for few faces"))
    vectors, _ = crowd([9, 9])
    assert set(cluster.identities(vectors)) == {0, 1}


def test_many_faces_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_MANY", 10)
    monkeypatch.setattr(neighbours, "_PACKAGE", "a_package_that_is_not_there")
    vectors, who = crowd([30, 20])
    labels = cluster.identities(vectors)
    assert set(labels[who == 0]) == {0} and set(labels[who == 1]) == {1}
