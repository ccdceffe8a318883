"""Who is who among very many faces: average linkage over nearest neighbours, which the library faiss finds.

All pairs of a million faces are too many. Here each group asks for its nearest other group only, in a few parts of an inverted file
(Johnson, Douze and Jégou 2017, arXiv:1702.08734). Memory grows as the number of faces, time little faster.
"""

from __future__ import annotations

import importlib
from importlib import util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib_vitface.types import Floats

_PACKAGE = "faiss"
_PROBED = 16  # parts of the inverted file that are searched at first
_LEARNED_FROM = 64  # embeddings for each part, from which the parts' middles are learned
_PASSES = 8  # of k-means over them
_FIRST, _STEP = 0.9, 0.02  # the highest threshold of joining, and how far it falls at a time


def available() -> bool:
    """Whether faiss is installed."""
    return util.find_spec(_PACKAGE) is not None


def parts_of(vectors: Floats) -> Any:
    """Middles of parts of the space of unit vectors `[N, D]`, learned by k-means from a sample of them; as an index of faiss."""
    faiss = importlib.import_module(_PACKAGE)
    count = max(1, min(2 * int(np.sqrt(len(vectors))), len(vectors) // _LEARNED_FROM))
    means = faiss.Kmeans(
        vectors.shape[1],
        count,
        niter=_PASSES,
        seed=1,
        spherical=True,
        max_points_per_centroid=_LEARNED_FROM,
        min_points_per_centroid=1,
    )
    means.train(vectors)
    parts = faiss.IndexFlatIP(vectors.shape[1])
    parts.add(means.centroids)
    return parts


def joined(vectors: Floats, lowest: float, parts: Any) -> NDArray[np.int64]:
    """Group `[N]` of unit vectors `[N, D]`, by average linkage down to a mean cosine of `lowest`. Same input, same answer.

    In rounds: every group that is at least a threshold alike to its nearest one is joined with it; when none is, the threshold
    falls (Monath et al. 2021, Scalable Hierarchical Agglomerative Clustering, KDD). `parts` as `parts_of` makes them.
    """
    groups = _Groups(vectors, parts)
    for threshold in np.append(np.arange(_FIRST, lowest, -_STEP), lowest):
        while groups.join(float(threshold)):
            pass
    # The answers were approximate and some are old: what is still alike enough is found by asking all once more.
    while groups.ask_all() and groups.join(lowest):
        pass
    return groups.of


class _Groups:
    """Groups of vectors, each with its nearest other group. The mean cosine of two groups is the product of their mean vectors.

    `of` `[N]` says which group a vector is in; a group has the number of its first member.
    """

    def __init__(self, vectors: Floats, parts: Any) -> None:
        faiss = importlib.import_module(_PACKAGE)
        count, width = vectors.shape
        self.of = np.arange(count)
        self._sums, self._sizes = vectors.astype(np.float32), np.ones(count, dtype=np.float32)
        self._there = np.ones(count, dtype=bool)
        self._nearest, self._alike = np.full(count, -1), np.full(count, -np.inf, dtype=np.float32)
        self._parts = parts  # kept: the index does not own it
        self._index = faiss.IndexIVFFlat(parts, width, parts.ntotal, faiss.METRIC_INNER_PRODUCT)
        self._index.train(self._sums[:1])  # nothing is learned: the parts are there
        self._index.add_with_ids(self._sums, self.of)
        self._ask(self.of)

    def ask_all(self) -> bool:
        """Ask for every group's nearest one; False where there is one group only."""
        there = np.flatnonzero(self._there)
        self._ask(there)
        return len(there) > 1

    def _ask(self, groups: NDArray[np.int64]) -> None:
        # The fewer groups there are, the more parts can be searched in the same time.
        self._index.nprobe = int(min(self._parts.ntotal, _PROBED * len(self.of) / self._there.sum()))
        alike, found = self._index.search(self._sums[groups] / self._sizes[groups, None], 2)
        second = (found[:, 0] == groups).astype(np.int64)  # the nearest to a group is mostly itself
        rows = np.arange(len(groups))
        self._nearest[groups] = found[rows, second]
        self._alike[groups] = np.where(found[rows, second] < 0, -np.inf, alike[rows, second])

    def join(self, threshold: float) -> bool:
        """One round. Returns whether anything was joined."""
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import connected_components

        asking = np.flatnonzero(self._there & (self._alike >= threshold))
        if not len(asking):
            return False
        ends = np.stack([asking, self._nearest[asking]])
        nodes, places = np.unique(ends, return_inverse=True)
        places = places.reshape(2, -1)
        pairs = csr_matrix((np.ones(len(asking), np.int8), (places[0], places[1])), shape=(len(nodes), len(nodes)))
        number, component = connected_components(pairs, directed=False)
        first = np.full(number, len(self.of))
        np.minimum.at(first, component, nodes)
        gathering = csr_matrix((np.ones(len(nodes), np.float32), (component, np.arange(len(nodes)))))
        sums, sizes = gathering @ self._sums[nodes], gathering @ self._sizes[nodes]
        changed = np.zeros(len(self.of), dtype=bool)
        changed[nodes] = True
        self._there[nodes] = False
        self._there[first] = True
        self._sums[first], self._sizes[first] = sums, sizes
        goes_to = np.arange(len(self.of))
        goes_to[nodes] = first[component]
        self.of = goes_to[self.of]
        self._index.remove_ids(nodes)
        self._index.add_with_ids(sums / sizes[:, None], first)
        # What was joined is no nearer to others than its nearer half was, so only those who named a half have to ask again.
        self._ask(np.flatnonzero(self._there & (changed | changed[self._nearest])))
        return True
