"""Whose face is kept under a consent record, by how alike it is and how far it is turned."""

from __future__ import annotations

import numpy as np

from lib_vitface.faceset import choice


def test_of_faces_turned_far_nothing_is_told() -> None:
    """Cosines by construction; the record looks along the first axis."""
    cosine = np.array([0.9, 0.2, 0.9, 0.2, 0.31])
    looks = np.stack([cosine, np.sqrt(1 - cosine**2)], axis=1).astype(np.float32)
    pose = np.array([[0, 0], [-10, 0], [-45, 0], [50, 0], [30, 0]], float)
    some = np.zeros(5)
    pool = choice.Pool(np.arange(5), some, some.astype(np.uint64), pose, some, looks, looks)
    person = choice.Consenting(np.array([1, 0], np.float32), 0.3, 30.0)
    own, unlike, turned, decided = choice._of(pool, np.arange(5), person)
    assert own.tolist() == [0, 2, 4] and unlike.tolist() == [1] and turned.tolist() == [3]
    assert decided == 2, "the one turned away is kept and counts for nothing"
    own, _, turned, decided = choice._of(pool, np.array([2, 3]), person)
    assert own.tolist() == [2] and decided == 0, "by it alone the set is nobody's"
    assert choice._of(pool, np.array([2, 3]), None)[3] == 2
