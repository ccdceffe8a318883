"""Who is who: identity numbers from embeddings, and which of them is the wanted person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import InputError, NoFaceError
from lib_vitface.faceset import neighbours
from lib_vitface.types import Floats

SAME_PERSON = 0.363
"""Cosine of two SFace vectors from which on they are one person (OpenCV's own threshold for SFace). Measured on seven clips of
seven persons, frames five apart: same person 0.34..1.00 (mean 0.69..0.94 a clip), different persons -0.16..0.36 (means up to
0.23), so single pairs can err on either side and averages cannot."""

_TIGHT = 0.7  # faces this alike are one view of one person
_MOST_VIEWS = 4000  # pairwise distances of more would not fit into memory
_MANY = 50_000  # faces from which on neighbours are searched by a library, where it is installed
_AMBIGUOUS = 0.5  # a second person seen this share as often as the first could be the wanted one as well


@dataclass(frozen=True)
class Views:
    """Groups of nearly equal embeddings: their number per embedding `[N]`, unit means `[M, D]`, weights `[M]`."""

    labels: NDArray[np.int64]
    means: Floats
    weights: NDArray[np.float64]


def identities(embeddings: Floats, weights: NDArray[np.floating] | None = None) -> NDArray[np.int64]:
    """Identity number `[N]` of unit embeddings `[N, D]`; 0 is the most frequent person, counted by `weights` `[N]`.

    Embeddings are first gathered into tight views, one pass in order; the views are joined by average linkage, which does
    not chain two persons through one poor frame as single linkage does. From `_MANY` faces on this is approximate, see `_of_many`.
    """
    if not len(embeddings):
        return np.zeros(0, dtype=np.int64)
    weight = np.ones(len(embeddings)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(embeddings) >= _MANY and neighbours.available():
        return by_frequency(_of_many(embeddings, weight), weight)
    views = gather(embeddings, weight, _TIGHT)
    if len(views.means) == 1:
        joined = np.zeros(1, dtype=np.int64)
    elif len(views.means) <= _MOST_VIEWS:
        from scipy.cluster.hierarchy import fcluster, linkage
        from scipy.spatial.distance import pdist

        tree = linkage(np.maximum(pdist(views.means, "cosine"), 0), method="average")
        joined = fcluster(tree, 1 - SAME_PERSON, criterion="distance").astype(np.int64)
    else:
        joined = gather(views.means, views.weights, SAME_PERSON).labels
    return by_frequency(joined[views.labels], weight)


def _of_many(embeddings: Floats, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """As `identities`, in no order of persons: views are gathered in each part of space by itself, and joined by `neighbours`."""
    parts = neighbours.parts_of(embeddings)
    labels = np.zeros(len(embeddings), dtype=np.int64)
    means: list[Floats] = []
    count = 0
    for own in members(parts.assign(embeddings, 1).ravel()):
        views = gather(embeddings[own], weights[own], _TIGHT)
        labels[own] = count + views.labels
        means.append(views.means)
        count += len(views.means)
    return neighbours.joined(np.concatenate(means), SAME_PERSON, parts)[labels]


def gather(embeddings: Floats, weights: NDArray[np.float64], threshold: float) -> Views:
    """One pass of leader clustering (Hartigan 1975): each vector joins the nearest group whose mean is at least
    `threshold` alike, or founds one. Memory grows with the number of groups only."""
    sums = np.zeros((64, embeddings.shape[1]), dtype=np.float64)
    means = np.zeros((64, embeddings.shape[1]), dtype=np.float32)
    mass = np.zeros(64)
    labels = np.zeros(len(embeddings), dtype=np.int64)
    used = 0
    for i, vector in enumerate(embeddings):
        alike = means[:used] @ vector
        best = int(alike.argmax()) if used else -1
        if best < 0 or alike[best] < threshold:
            if used == len(means):
                sums, means = np.concatenate([sums, sums * 0]), np.concatenate([means, means * 0])
                mass = np.concatenate([mass, mass * 0])
            best, used = used, used + 1
        sums[best] += weights[i] * vector
        mass[best] += weights[i]
        means[best] = sums[best] / max(float(np.linalg.norm(sums[best])), 1e-12)
        labels[i] = best
    return Views(labels, means[:used], mass[:used])


def by_frequency(labels: NDArray[np.int64], weights: NDArray[np.floating]) -> NDArray[np.int64]:
    """The same grouping with 0 for the heaviest group; the earlier one first where two weigh alike."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    inverse = inverse.ravel()
    mass = np.bincount(inverse, weights=weights)
    order = np.lexsort((first, -mass))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    return rank[inverse]


def members(labels: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Where each number from 0 on stands in `labels` `[N]`, ascending; in one pass, however many numbers there are."""
    counts = np.bincount(labels)
    return np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])


def centre(embeddings: Floats) -> Floats:
    """Mean of embeddings at unit length."""
    mean = embeddings.mean(axis=0)
    return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)


def wanted(
    embeddings: Floats, labels: NDArray[np.int64], weights: NDArray[np.floating], reference: Floats | None = None
) -> int:
    """The identity number of the wanted person: the one a `reference` embedding belongs to, else the most frequent.

    Raises NoFaceError where the reference's person is not among them, InputError where no reference says which of two
    about equally frequent persons is meant.
    """
    if reference is not None:
        alike = np.array([float(centre(embeddings[own]) @ reference) for own in members(labels)])
        best = int(alike.argmax())
        if alike[best] < SAME_PERSON:
            raise NoFaceError(
                f"The person of the reference picture is in none of the inputs (likeness {alike[best]:.2f}, needed "
                f"{SAME_PERSON:.2f}); name other inputs or another picture with --person."
            )
        return best
    mass = np.bincount(labels, weights=weights)
    if len(mass) > 1 and mass[1] >= _AMBIGUOUS * mass[0]:
        shares = " and ".join(f"{100 * m / mass.sum():.0f} %" for m in mass[:2])
        raise InputError(
            f"The inputs show {len(mass)} people, two of them about equally often ({shares} of the faces); "
            "name a picture of the wanted one with --person, or keep everybody with --keep-strangers."
        )
    return 0
