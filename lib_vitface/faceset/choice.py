"""From everything that was found to the faces that are kept: one person, no repeats, a wide spread."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib_vitface.errors import ConsentError, InputError, NoFaceError
from lib_vitface.faceset import cluster, coverage, finder, record, select
from lib_vitface.faceset.settings import FacesetOptions
from lib_vitface.faceset.writer import FacesetWriter
from lib_vitface.types import Floats

STRANGER, REPEAT, SURPLUS, THINNED = "stranger", "repeat", "surplus", "thinned"
UNLIKE = "unlike the consent record's person"
TURNED = "turned too far to tell whose it is"

_POOL_FACTOR, _LEAST_POOL = 4, 2000
_OVERFLOW = 1.5
_TYPICAL = 0.45  # a face this much above the threshold looks wholly like its person


@dataclass(frozen=True)
class Consenting:
    """Whose face may be kept: `look` [128] of the consent record, and the least cosine to it, which tells of faces that are turned by
    `most_yaw_deg` or less. Beyond, a face that is less alike goes under a reason of its own, and one that is more alike stays
    and counts for nothing: by such faces alone no set is anybody's."""

    look: Floats
    least: float
    most_yaw_deg: float


@dataclass(frozen=True)
class Pool:
    """Everything stored of the faces that can be chosen from, in order of id; all `[N, ...]`."""

    ids: NDArray[np.int64]
    seen: NDArray[np.float64]
    fingerprints: NDArray[np.uint64]
    pose: NDArray[np.float64]  # yaw, pitch
    worth: NDArray[np.float64]
    features: Floats
    embeddings: Floats

    @classmethod
    def load(cls, faceset: FacesetWriter, size: int) -> Pool:
        names = ("id", "seen", "fingerprint", "yaw_deg", "pitch_deg", "sharpness", "exposure", "occlusion", "face_px")
        column = faceset.columns(*names, kept=None, whole=True)
        pose = np.stack([column["yaw_deg"], column["pitch_deg"]], axis=1).astype(np.float64).reshape(-1, 2)
        sharpness, exposure, occlusion, face_px = (column[name] for name in names[5:])
        worth = select.worth(sharpness, exposure, occlusion, face_px, size)
        expression, light = faceset.array("expression", kept=None), faceset.array("light", kept=None)
        features = select.features(pose, expression, light) if len(pose) else np.zeros((0, 0), np.float32)
        return cls(
            column["id"].astype(np.int64),
            column["seen"].astype(np.float64),
            column["fingerprint"].astype(np.int64).view(np.uint64),
            pose,
            worth,
            features,
            faceset.embeddings(kept=None),
        )


def pool_size(options: FacesetOptions) -> int:
    """How many faces are stored at most before the choice; more are thinned out on the way."""
    return max(_POOL_FACTOR * options.max_faces, _LEAST_POOL)


def thin(faceset: FacesetWriter, options: FacesetOptions) -> bool:
    """Where the pool runs over, keep the best spread of every person found, in proportion to how often each was seen.

    What is left out stays in the count of sightings. Returns whether anything was done.
    """
    limit = pool_size(options)
    if faceset.stored() <= _OVERFLOW * limit:
        return False
    pool = Pool.load(faceset, options.size)
    labels = cluster.identities(pool.embeddings, pool.seen)
    mass = np.bincount(labels, weights=pool.seen)
    stay = np.zeros(len(pool.ids), dtype=bool)
    again: Counter[int] = Counter()
    for person, own in enumerate(cluster.members(labels)):
        quota = max(1, int(limit * mass[person] / mass.sum()))
        chosen = own[select.spread_out(pool.features[own], pool.worth[own], quota)]
        stay[chosen] = True
        again.update(_stand_ins(pool, np.setdiff1d(own, chosen), chosen))
    gone = pool.ids[~stay]
    unknown = [-1] * len(gone)
    faceset.decide(gone, unknown, [THINNED] * len(gone), {}, again=again, erase=(THINNED,))
    return True


def _stand_ins(pool: Pool, gone: NDArray[np.int64], chosen: NDArray[np.int64]) -> dict[int, int]:
    """Sightings of faces that go, credited to the most similar chosen one; by id."""
    from scipy.spatial import cKDTree

    total: Counter[int] = Counter()
    if len(gone):
        _, nearest = cKDTree(pool.features[chosen]).query(pool.features[gone])
        for one, other in zip(gone, chosen[nearest], strict=True):
            total[int(pool.ids[other])] += int(pool.seen[one])
    return dict(total)


def choose(
    faceset: FacesetWriter,
    options: FacesetOptions,
    reference: Floats | None,
    consenting: Consenting | None = None,
) -> None:
    """Decide on every stored face, note the result, erase strangers and repeats, draw the coverage picture.

    `reference` is an embedding of the wanted person, where a picture was named. A faceset that was finished before keeps
    its person. Faces unlike the `consenting` person are dropped, and everything where none is left. Raises ConsentError
    then, NoFaceError where nothing is stored, InputError where it is not clear who is meant.
    """
    pool = Pool.load(faceset, options.size)
    if not len(pool.ids):
        raise NoFaceError(_nothing(faceset, options))
    labels = _persons(faceset, pool, options)
    own = np.arange(len(pool.ids))
    if not options.keep_strangers:
        reference = _reference(faceset, options, reference)
        if reference is None and consenting is not None:
            own = np.flatnonzero(labels == _most_alike(pool, labels, consenting.look))
        else:
            own = np.flatnonzero(labels == cluster.wanted(pool.embeddings, labels, pool.seen, reference))
    own, unlike, turned, decided = _of(pool, own, consenting)
    if not decided:
        faceset.decide(pool.ids, labels, [UNLIKE] * len(pool.ids), {}, erase=(UNLIKE,))
        faceset.sweep()
        if not len(unlike):
            raise ConsentError(
                f"{options.input[0]}: shows faces only that are turned too far to tell whose they are; add footage from the front."
            )
        raise ConsentError(
            f"{options.input[0]}: shows somebody else than the consent record; use that person's own clips or the record of the "
            "person in them."
        )
    worth = pool.worth * likeness(pool.embeddings, labels)
    stands_for = _repeats(faceset, pool, worth, labels, own, options)
    first = own[stands_for == own]
    chosen = first[_chosen(pool.features, worth, labels, first, options.max_faces)]
    reasons = np.full(len(pool.ids), STRANGER, dtype=object)
    reasons[unlike] = UNLIKE
    reasons[turned] = TURNED
    reasons[own] = REPEAT
    reasons[first] = SURPLUS
    reasons[chosen] = record.KEPT
    again: Counter[int] = Counter()
    for one, other in zip(own, stands_for, strict=True):
        if one != other:
            again[int(pool.ids[other])] += int(pool.seen[one])
    spread = _noted_spread(faceset, pool.ids[np.sort(chosen)])
    if spread is None:
        spread = select.spread(pool.features[first], np.searchsorted(first, np.sort(chosen)), pool.pose[first])
    notes: dict[str, Any] = {"spread": spread}
    if not options.keep_strangers:
        notes["person"] = [float(v) for v in cluster.centre(pool.embeddings[chosen])]
    faceset.decide(pool.ids, labels, list(reasons), notes, again=again, erase=(STRANGER, REPEAT, UNLIKE, TURNED))
    faceset.sweep()
    faceset.note("hints", coverage.hints_of(faceset))
    faceset.note("pictures", [coverage.save(faceset).name])
    faceset.note("finished", True)


def _noted_spread(faceset: FacesetWriter, chosen: NDArray[np.int64]) -> dict[str, float] | None:
    """How well the chosen faces stand for all, where the same were chosen before and none was added: what was erased then would be
    missing from it now."""
    same = record.PENDING not in faceset.dropped() and np.array_equal(faceset.columns("id")["id"], chosen)
    return faceset.setting("spread") if same else None


def _repeats(
    faceset: FacesetWriter,
    pool: Pool,
    worth: NDArray[np.float64],
    labels: NDArray[np.int64],
    among: NDArray[np.int64],
    options: FacesetOptions,
) -> NDArray[np.int64]:
    """For each of the faces `among` the place of the better one it repeats, or its own. Person by person: landmarks are the
    largest of what is stored, and those of all would not fit into memory where there are very many."""
    stands_for = among.copy()
    for own in filter(len, cluster.members(labels[among])):
        at = among[own]
        landmarks = faceset.landmarks(ids=pool.ids[at])
        fresh = select.duplicates(landmarks, pool.fingerprints[at], worth[at], options.size, options.min_change)
        stands_for[own] = at[fresh]
    return stands_for


def _persons(faceset: FacesetWriter, pool: Pool, options: FacesetOptions) -> NDArray[np.int64]:
    """Identity number of every face: by its folder where everybody is kept and every input lies in a person's folder,
    else by its embedding."""
    names = {row["id"]: row["person"] for row in faceset.inputs()}
    if options.keep_strangers and names and all(names.values()):
        number = {name: i for i, name in enumerate(sorted(set(names.values())))}
        source = faceset.columns("input", kept=None, whole=True)["input"]
        by_folder = np.array([number[names[int(i)]] for i in source], dtype=np.int64)
        return cluster.by_frequency(by_folder, pool.seen)
    return cluster.identities(pool.embeddings, pool.seen)


def _most_alike(pool: Pool, labels: NDArray[np.int64], look: Floats) -> int:
    """The identity number whose mean is nearest to a look."""
    return int(np.argmax([cluster.centre(pool.embeddings[own]) @ look for own in cluster.members(labels)]))


def _of(
    pool: Pool, own: NDArray[np.int64], consenting: Consenting | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int]:
    """Places in `own` that are like the consenting person, those that are not, those that are not and are turned too far for that to
    tell, and how many of the first are not turned too far."""
    if consenting is None:
        return own, own[:0], own[:0], len(own)
    alike = pool.embeddings[own] @ consenting.look >= consenting.least
    told = np.abs(pool.pose[own, 0]) <= consenting.most_yaw_deg
    return own[alike], own[~alike & told], own[~alike & ~told], int((alike & told).sum())


def _reference(faceset: FacesetWriter, options: FacesetOptions, named: Floats | None) -> Floats | None:
    """The named picture's embedding, else that of the person the faceset was finished for."""
    noted = faceset.setting("person")
    if noted is None:
        return named
    before = np.array(noted, dtype=np.float32)
    if named is not None and float(named @ before) < cluster.SAME_PERSON:
        raise InputError(
            f"{options.person} shows somebody else than the faceset {faceset.path} holds; name another output folder, "
            "or build it anew with --exists overwrite."
        )
    return before


def likeness(embeddings: Floats, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """0.1..1: how much each face looks like its own person's mean `[N]`. What hides a face makes it unlike itself: in a clip
    with hands before the eyes the cosine falls from 0.82..0.92 to 0.65..0.70, where no hand is found as often as it is."""
    found = np.ones(len(labels))
    for own in cluster.members(labels):
        cosine = embeddings[own] @ cluster.centre(embeddings[own])
        found[own] = np.clip((cosine - cluster.SAME_PERSON) / _TYPICAL, 0.1, 1.0)
    return found


def _chosen(
    features: Floats,
    worth: NDArray[np.float64],
    labels: NDArray[np.int64],
    among: NDArray[np.int64],
    max_faces: int,
) -> NDArray[np.int64]:
    """Places in `among` of at most `max_faces` faces; where several persons stay, each gets an equal share."""
    persons = list(filter(len, cluster.members(labels[among])))
    counts = np.array([len(own) for own in persons])
    found = []
    for own, quota in zip(persons, shares(counts, max_faces), strict=True):
        at = among[own]
        found.append(own[select.spread_out(features[at], worth[at], int(quota))])
    return np.sort(np.concatenate(found))


def shares(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """`total` handed out one by one in turn, to nobody more than there is: `[10, 2, 10]` of 12 gives `[5, 2, 5]`."""
    given = np.zeros(len(counts), dtype=np.int64)
    left = min(int(total), int(counts.sum()))
    while left > 0:
        hungry = np.flatnonzero(given < counts)
        each = left // len(hungry)
        if each == 0:
            given[hungry[:left]] += 1
            break
        gift = np.minimum(each, counts[hungry] - given[hungry])
        given[hungry] += gift
        left -= int(gift.sum())
    return given


def _nothing(faceset: FacesetWriter, options: FacesetOptions) -> str:
    """The sentence for inputs without a usable face."""
    inputs = faceset.inputs()
    where = inputs[0]["path"] if len(inputs) == 1 else f"the {len(inputs)} inputs"
    dropped = faceset.dropped()
    if not dropped:
        unusable = next((row["note"] for row in inputs if row["note"]), "")
        tail = f" ({unusable})" if unusable else ""
        return f"No face was found in {where}{tail}; name clips or photos that show the person's face."
    remedy = {
        finder.SMALL: f"smaller than --min-face-px {options.min_face_px}",
        finder.BLURRED: f"more blurred than --min-sharpness {options.min_sharpness:g}",
        finder.COVERED: f"covered more than --max-occlusion {options.max_occlusion:g}",
    }
    parts = ", ".join(f"{number} {remedy.get(reason, reason)}" for reason, number in dropped.items())
    return f"No usable face in {where}: {parts}; lower the limit or name better pictures."
