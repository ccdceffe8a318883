"""Tracking, choosing and steadying, on made-up faces with known answers and on real footage."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lib_vitface.assets import locate
from lib_vitface.errors import InputError, NoFaceError
from lib_vitface.faces import mesh
from lib_vitface.faces.analyse import Analyser
from lib_vitface.faces.detect import make_detector
from lib_vitface.faces.embed import make_embedder
from lib_vitface.faces.landmarks import MeshLandmarker
from lib_vitface.faces.track import (
    FaceChoice,
    Tracker,
    between,
    follow,
    landmark_motion,
    overlap,
    smooth_window,
    summarise,
)
from lib_vitface.types import Face, Floats, Image

LOOKS = np.linalg.qr(np.random.default_rng(5).normal(size=(128, 6)))[0].T.astype(np.float32)
"""Six people whose embeddings have cosine 0."""


def face_at(
    x: float, y: float, size: float = 100, person: int | None = None, noise: float = 0.0, seed: int = 0
) -> Face:
    """A face about (x, y); with `person`, an embedding at cosine about 1 / sqrt(1 + noise**2) to that person's."""
    h = size / 2
    look = None
    if person is not None:
        disturbance = np.random.default_rng(seed).normal(size=128)
        look = LOOKS[person] + noise * disturbance / np.linalg.norm(disturbance)
        look = (look / np.linalg.norm(look)).astype(np.float32)
    spots = np.array([[-0.2, -0.15], [0.2, -0.15], [0, 0.05], [-0.15, 0.25], [0.15, 0.25]]) * size + [x, y]
    box = np.array([x - h, y - h, x + h, y + h], dtype=np.float32)
    return Face(box=box, score=0.9, points=spots.astype(np.float32), embedding=look)


def clip(path: str, limit: int | None = None) -> Iterator[Image]:
    """RGB frames of a sample clip."""
    reader = cv2.VideoCapture(path)
    for _ in range(limit) if limit else itertools.count():
        good, picture = reader.read()
        if not good:
            return
        yield cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def smooth_landmarks(
    landmarks: NDArray[np.floating],
    times: NDArray[np.floating],
    visible: NDArray[np.bool_],
    motion: NDArray[np.floating] | None = None,
    *,
    radius: int = 8,
) -> Floats:
    """`smooth_window` over every frame of a track; arrays over its N frames, `motion` over its N - 1 steps."""
    if not len(landmarks):
        return np.zeros((0, mesh.POINT_COUNT, 3), dtype=np.float32)
    pad = ((radius, radius), (0, 0), (0, 0))
    points = np.pad(np.asarray(landmarks), pad)
    steps = None if motion is None else np.pad(np.asarray(motion), pad, constant_values=np.nan)
    moments = np.pad(np.asarray(times, dtype=np.float64), radius, mode="edge")
    seen = np.pad(np.asarray(visible, dtype=bool), radius)
    result = np.empty((len(landmarks), mesh.POINT_COUNT, 3), dtype=np.float32)
    for i in range(len(landmarks)):
        window = slice(i, i + 2 * radius + 1)
        moved = None if steps is None else steps[i : i + 2 * radius]
        result[i] = smooth_window(points[window], moments[window], seen[window], moved)
    return result


def test_overlap_is_intersection_over_union() -> None:
    a = np.array([0, 0, 10, 10])
    assert overlap(a, a) == 1
    assert overlap(a, np.array([5, 0, 15, 10])) == pytest.approx(50 / 150)
    assert overlap(a, np.array([20, 20, 30, 30])) == 0
    assert overlap(a, np.array([3, 3, 3, 9])) == 0


@pytest.mark.parametrize("with_looks", [True, False])
def test_two_people_side_by_side_keep_their_numbers(with_looks: bool) -> None:
    tracker = Tracker()
    for k in range(60):
        faces = [
            face_at(100 + 3 * k, 100, person=0 if with_looks else None, noise=0.6, seed=k),
            face_at(500 - 2 * k, 120, person=1 if with_looks else None, noise=0.6, seed=k + 99),
        ]
        order = [0, 1] if k % 2 else [1, 0]  # a detector does not keep an order
        found = tracker.update([faces[i] for i in order])
        assert [f.track for f in found] == [(1, 0)[i] for i in order]


def test_crossing_people_keep_their_numbers() -> None:
    """They swap sides; while one is hidden only the nearer one is seen."""
    tracker = Tracker()
    for k in range(81):
        left, right = 100 + 5 * k, 500 - 5 * k
        near = face_at(left, 100, person=0, noise=0.8, seed=k)
        far = face_at(right, 104, person=1, noise=0.8, seed=k + 500)
        hidden = abs(left - right) < 60
        found = tracker.update([near] if hidden else [far, near])
        if k == 0:
            names = {"far": found[0].track, "near": found[1].track}
        assert [f.track for f in found] == ([names["near"]] if hidden else [names["far"], names["near"]])


def test_somebody_who_returns_is_known_again_and_a_stranger_is_not() -> None:
    tracker = Tracker(memory=5)
    first = tracker.update([face_at(100, 100, person=0)])[0].track
    for _ in range(40):
        tracker.update([])
    assert tracker.update([face_at(400, 300, person=1)])[0].track != first
    assert tracker.update([face_at(300, 200, person=0, noise=0.9, seed=3)])[0].track == first


def test_a_cut_to_a_stranger_at_the_same_place_starts_a_track() -> None:
    tracker = Tracker()
    a = tracker.update([face_at(100, 100, person=0)])[0].track
    assert tracker.update([face_at(101, 100, person=1)])[0].track != a
    assert tracker.update([face_at(102, 100, person=0)])[0].track == a


def test_a_look_that_changes_slowly_stays_one_track() -> None:
    """A head that turns to profile ends with an embedding unlike the first one."""
    tracker = Tracker()
    numbers = set()
    for k in range(31):
        part = np.pi / 2 * k / 30
        look = (np.cos(part) * LOOKS[0] + np.sin(part) * LOOKS[1]).astype(np.float32)
        numbers |= {f.track for f in tracker.update([replace(face_at(100, 100), embedding=look)])}
    assert len(numbers) == 1


def test_a_half_hidden_return_is_recognised_once_clear() -> None:
    """A face that comes out from behind something is nobody at first; `follow` then corrects the frames it still holds."""

    def face(cosine: float) -> Face:
        look = cosine * LOOKS[0] + np.sqrt(1 - cosine**2) * LOOKS[3]
        return replace(face_at(400, 100), embedding=look.astype(np.float32))

    frames = [[face_at(100, 100, person=0)]] * 5 + [[]] * 40 + [[face(0.2)]] * 3 + [[face(0.6)]] * 4
    tracker = Tracker()
    numbers = [[f.track for f in tracker.update(faces)] for faces in frames]
    assert numbers[45:] == [[1]] * 3 + [[0]] * 4
    corrected = [[f.track for f in faces] for _, faces in follow(enumerate(frames), Tracker(), fill=8)]
    assert corrected == [[0]] * 5 + [[]] * 40 + [[0]] * 7


def test_memory_is_bounded() -> None:
    tracker = Tracker(memory=3, people=4)
    for k in range(200):
        look = np.random.default_rng(k).normal(size=128)
        tracker.update([replace(face_at(100, 100), embedding=(look / np.linalg.norm(look)).astype(np.float32))])
    assert len(tracker._persons) <= 5


def test_short_misses_are_filled_on_the_line_between() -> None:
    frames = [(k, [] if 3 <= k <= 5 else [face_at(100 + 4 * k, 100, person=0)]) for k in range(10)]
    result = dict(follow(iter(frames), fill=4))
    assert [len(faces) for faces in result.values()] == [1] * 10
    for k in (3, 4, 5):
        filled = result[k][0]
        np.testing.assert_allclose(filled.points, face_at(100 + 4 * k, 100).points, atol=1e-4)
        assert filled.track == result[0][0].track
        assert filled.score == pytest.approx(0.45)
        assert filled.presence == 0
        assert filled.embedding is None


def test_long_misses_stay_empty_and_frames_keep_their_order() -> None:
    frames = [(k, [] if 3 <= k <= 8 else [face_at(100, 100, person=0)]) for k in range(14)]
    result = list(follow(iter(frames), fill=5))
    assert [k for k, _ in result] == list(range(14))
    assert [len(faces) for _, faces in result] == [0 if 3 <= k <= 8 else 1 for k in range(14)]


def test_a_confirmation_may_better_or_reject_a_filled_face() -> None:
    frames = [(k, [] if k in (2, 3) else [face_at(100, 100)]) for k in range(6)]
    result = dict(follow(iter(frames), confirm=lambda k, f: replace(f, score=0.77) if k == 2 else None))
    assert [len(faces) for faces in result.values()] == [1, 1, 1, 0, 1, 1]
    assert result[2][0].score == 0.77


def test_follow_holds_back_few_frames() -> None:
    """Streaming: a frame leaves at most fill + 1 frames after it came."""
    taken = 0

    def frames() -> Iterator[tuple[int, list[Face]]]:
        nonlocal taken
        for k in range(100):
            taken = k
            yield k, [face_at(100, 100)] if k % 7 else []

    for k, _ in follow(frames(), fill=6):
        assert taken - k <= 7


def test_between_mixes_landmarks_and_pose() -> None:
    points = np.random.default_rng(0).normal(size=(2, 468, 3)).astype(np.float32)
    a, b = (replace(face_at(0, 0), landmarks=p) for p in points)
    np.testing.assert_allclose(between(a, b, 0.25).landmarks, 0.75 * points[0] + 0.25 * points[1], atol=1e-6)
    assert between(a, replace(b, landmarks=None), 0.5).landmarks is None


def test_choice_in_one_picture() -> None:
    people = [face_at(300, 50, 80, 0), face_at(100, 90, 120, 1), face_at(500, 70, 60, 2)]
    expected = {("largest", 0): 1, ("largest", 2): 2, ("left", 0): 1, ("left", 1): 0, ("right", 0): 2, ("top", 0): 0}
    for (by, index), answer in expected.items():
        assert FaceChoice(by, index).pick(people) is people[answer]
    assert FaceChoice("left", 3).pick(people) is None
    assert FaceChoice("bottom").pick(people) is people[1]
    assert FaceChoice("reference", reference=LOOKS[2]).pick(people) is people[2]
    assert FaceChoice("reference", reference=LOOKS[4]).pick(people) is None
    assert FaceChoice("track", 7).pick([replace(people[0], track=6), replace(people[1], track=7)]).track == 7


def test_choice_over_a_clip() -> None:
    """Who is there longest counts, not who is largest for a moment; one person may own several tracks."""
    passing = replace(face_at(50, 50, 150, 1), track=1)
    steady = replace(face_at(300, 60, 100, 0), track=0)
    again = replace(face_at(310, 60, 90, 0, noise=0.5), track=5)
    tracks = summarise([[steady, passing], [steady], [steady], [steady], [again]])
    assert [t.frames for t in tracks] == [4, 1, 1]
    assert FaceChoice("largest").pick_tracks(tracks) == {0}
    assert FaceChoice("left").pick_tracks(tracks) == {1}
    assert FaceChoice("reference", reference=LOOKS[0]).pick_tracks(tracks) == {0, 5}
    with pytest.raises(NoFaceError, match="reference"):
        FaceChoice("reference", reference=LOOKS[3]).pick_tracks(tracks)


def test_impossible_choices_are_refused() -> None:
    for settings in ({"by": "beauty"}, {"by": "reference"}, {"by": "left", "index": -1}):
        with pytest.raises(InputError):
            FaceChoice(**settings)


# ------------------------------------------------------------------------------------------------ steady landmarks

NOISE_CM = 0.015
"""Noise of the face mesh on the sample clips, per coordinate (from second differences)."""


def head_clip(count: int, *, blink: bool = False, drift_px: float = 0.0, scale: float = 16.0) -> NDArray[np.float64]:
    """True landmarks `[count, 468, 3]` px of a head that may blink and may move sideways at a constant jerky speed."""
    points = np.repeat(mesh.vertices()[None].astype(np.float64), count, axis=0)
    if blink:
        upper, lower = list(mesh.LEFT_EYE[1:8]), list(mesh.LEFT_EYE[9:])
        middle = points[0, upper + lower, 1].mean()
        for k, open_ in {count // 2 - 1: 0.5, count // 2: 0.1, count // 2 + 1: 0.5}.items():
            points[k, upper + lower, 1] = middle + open_ * (points[k, upper + lower, 1] - middle)
    points = points * [1, -1, -1] * scale + [200, 200, 0]
    shift = np.cumsum(np.where(np.arange(count) % 4 == 3, 0, drift_px))  # every fourth frame is a repeat
    points[:, :, 0] += shift[:, None]
    return points


def noisy(truth: NDArray[np.float64], scale: float = 16.0) -> Floats:
    """With the noise of a landmarker: half of it common to the whole face, half of each point."""
    rng = np.random.default_rng(1)
    common = rng.normal(size=(len(truth), 1, 3)) * NOISE_CM * scale
    return (truth + common + rng.normal(size=truth.shape) * NOISE_CM * scale).astype(np.float32)


def rms(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    return float(np.sqrt(np.mean((a[..., :2].astype(np.float64) - b[..., :2]) ** 2)))


def seconds(count: int) -> NDArray[np.float64]:
    return np.arange(count) / 30


def lid_gap(points: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.linalg.norm(points[:, 386, :2] - points[:, 374, :2], axis=1)


def test_a_still_head_is_steadied() -> None:
    truth = head_clip(40)
    seen = noisy(truth)
    steady = smooth_landmarks(seen, seconds(40), np.ones(40, bool))
    middle = slice(8, 32)
    assert rms(steady[middle], truth[middle]) < 0.5 * rms(seen[middle], truth[middle])
    jitter = [np.diff(x[middle], n=2, axis=0).std() for x in (seen, steady)]
    assert jitter[1] < 0.25 * jitter[0]


@pytest.mark.parametrize("with_motion", [True, False])
def test_a_blink_is_kept(with_motion: bool) -> None:
    """A three-frame blink keeps its depth and its moment; a plain Gaussian of the same span loses most of it."""
    truth = head_clip(41, blink=True)
    seen = noisy(truth)
    motion = np.zeros((40, 468, 2), np.float32) if with_motion else None
    steady = smooth_landmarks(seen, seconds(41), np.ones(41, bool), motion)
    gap, true_gap = lid_gap(steady), lid_gap(truth)
    assert gap.argmin() == 20
    kept = (np.median(gap) - gap[20]) / (np.median(true_gap) - true_gap[20])
    assert 0.9 < kept < 1.1
    plain = lid_gap(cv2.GaussianBlur(seen.reshape(41, -1), (1, 17), sigmaX=0.1, sigmaY=2.5).reshape(41, 468, 3))
    assert (np.median(plain) - plain[20]) / (np.median(true_gap) - true_gap[20]) < 0.6


def test_known_motion_lets_a_jerky_pan_be_steadied() -> None:
    """Footage with repeated frames moves in jerks; averaging over time alone would smear it."""
    truth = head_clip(40, drift_px=6.0)
    seen = noisy(truth)
    motion = np.diff(truth[:, :, :2], axis=0)
    middle = slice(8, 32)
    steady = smooth_landmarks(seen, seconds(40), np.ones(40, bool), motion)
    assert rms(steady[middle], truth[middle]) < 0.5 * rms(seen[middle], truth[middle])
    alone = smooth_landmarks(seen, seconds(40), np.ones(40, bool))
    assert rms(alone[middle], truth[middle]) < 1.2 * rms(seen[middle], truth[middle])  # not better, but not smeared


def test_unknown_motion_cuts_the_window() -> None:
    """Frames beyond a cut (motion unknown) have no say."""
    seen = noisy(head_clip(30))
    motion = np.zeros((29, 468, 2), np.float32)
    motion[14] = np.nan
    other = seen.copy()
    other[15:] += 40
    args = seconds(30), np.ones(30, bool), motion
    np.testing.assert_array_equal(smooth_landmarks(seen, *args)[:15], smooth_landmarks(other, *args)[:15])


def test_invisible_frames_are_left_and_have_no_say() -> None:
    seen = noisy(head_clip(30))
    visible = np.ones(30, bool)
    visible[[10, 11, 29]] = False
    spoilt = seen.copy()
    spoilt[~visible] = np.nan
    a, b = (smooth_landmarks(x, seconds(30), visible) for x in (seen, spoilt))
    np.testing.assert_array_equal(a[visible], b[visible])
    np.testing.assert_array_equal(a[~visible], seen[~visible])
    assert np.isnan(b[~visible]).all()


@pytest.mark.parametrize("with_motion", [True, False])
def test_chunks_equal_the_whole_clip_bit_for_bit(with_motion: bool) -> None:
    truth = head_clip(50, blink=True, drift_px=1.3)
    seen = noisy(truth)
    visible = np.random.default_rng(2).random(50) > 0.1
    motion = np.diff(truth[:, :, :2], axis=0).astype(np.float32) if with_motion else None
    whole = smooth_landmarks(seen, seconds(50), visible, motion)
    reach = 8
    for start, stop in ((0, 13), (13, 14), (14, 37), (37, 50)):
        low, high = max(0, start - reach), min(50, stop + reach)
        moved = None if motion is None else motion[low : high - 1]
        part = smooth_landmarks(seen[low:high], seconds(50)[low:high], visible[low:high], moved)
        np.testing.assert_array_equal(part[start - low : stop - low], whole[start:stop])
    moved = None if motion is None else motion[12:28]
    one = smooth_window(seen[12:29], seconds(50)[12:29], visible[12:29], moved)
    np.testing.assert_array_equal(one, whole[20])


def test_motion_of_a_shifted_picture_is_the_shift() -> None:
    picture, face = next(seen_faces(str(locate("sample_source")), 1))
    assert face.landmarks is not None
    for shift in ((2.5, -1.25), (0.0, 0.0)):
        matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
        moved = cv2.warpAffine(picture, matrix, picture.shape[1::-1], flags=cv2.INTER_CUBIC)
        guess = face.landmarks + np.random.default_rng(0).normal(size=(468, 3)).astype(np.float32) * 0.2
        guess[:, :2] += shift
        motion = landmark_motion(picture, moved, face.landmarks, guess)
        assert np.abs(np.median(motion, axis=0) - shift).max() < 0.05
        assert np.quantile(np.linalg.norm(motion - shift, axis=1), 0.9) < 0.15


def test_motion_between_unrelated_pictures_is_unknown() -> None:
    picture, face = next(seen_faces(str(locate("sample_source")), 1))
    noise = np.random.default_rng(0).integers(0, 256, picture.shape).astype(np.uint8)
    assert np.isnan(landmark_motion(picture, noise, face.landmarks, face.landmarks)).all()


def seen_faces(path: str, limit: int) -> Iterator[tuple[Image, Face]]:
    """Frames of a one-person clip and the face in them, with landmarks."""
    detector, landmarker = make_detector(), MeshLandmarker()
    for picture in clip(path, limit):
        yield picture, landmarker(picture, detector(picture)[0])


@pytest.mark.slow
def test_real_footage_jitters_less_against_its_own_pixels() -> None:
    """Alignment error that the pixels see, measured with dense optical flow."""
    frames = list(seen_faces(str(locate("sample_target")), 60))
    raw = np.stack([face.landmarks for _, face in frames])
    motion = np.stack(
        [landmark_motion(a, b, f.landmarks, g.landmarks) for (a, f), (b, g) in itertools.pairwise(frames)]
    )
    times = np.arange(60) * 1001 / 24000
    steady = smooth_landmarks(raw, times, np.ones(60, bool), motion)

    dense = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # another method than the one being tested
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture, _ in frames]
    flows = [dense.calc(a, b, None) for a, b in itertools.pairwise(grey)]

    def drift(landmarks: Floats) -> float:
        """Median distance between where a landmark goes and where the pixels under it go, px."""
        gaps = []
        for flow, a, b in zip(flows, landmarks, landmarks[1:], strict=False):
            there = cv2.remap(flow, a[None, :, 0].copy(), a[None, :, 1].copy(), cv2.INTER_LINEAR)[0]
            gaps.append(np.median(np.linalg.norm(b[:, :2] - a[:, :2] - there, axis=1)))
        return float(np.mean(gaps))

    before, after = drift(raw), drift(steady)
    print(f"landmarks against pixels: {before:.3f} px raw, {after:.3f} px steady")
    assert after < 0.7 * before  # the dense flow's own error is in both


@pytest.mark.slow
def test_real_people_crossing_are_not_mixed_up() -> None:
    """Heads of the two sample clips pass each other on one canvas; the nearer one hides the other."""
    people = [clip(str(locate(name))) for name in ("sample_source", "sample_target")]
    heads = [[cut_head(p) for p in itertools.islice(frames, 0, 60, 2)] for frames in people]
    analyse = Analyser(make_detector(), MeshLandmarker(), make_embedder("sface"))
    tracker, seen = Tracker(), {}
    count = len(heads[0])
    for k in range(count):
        canvas = np.full((260, 640, 3), 90, np.uint8)
        places = (40 + 400 * k // (count - 1), 440 - 400 * k // (count - 1))
        for who in (1, 0):
            canvas[30:230, places[who] : places[who] + 160] = heads[who][k]
        # as the tasks do it: what the landmarker does not take for a face (half of each head) never reaches the tracker
        for face in tracker.update(analyse(canvas)):
            middle = (face.box[0] + face.box[2]) / 2
            who = int(np.argmin([abs(middle - place - 80) for place in places]))
            if abs(places[0] - places[1]) > 80:
                seen.setdefault(who, []).append(face.track)
    assert len(seen[0]) >= 20 and len(seen[1]) >= 20
    first, second = (np.array(seen[who]) for who in (0, 1))
    print(f"tracks {np.unique(first, return_counts=True)} and {np.unique(second, return_counts=True)}")
    assert first[0] == first[-1] != second[0] == second[-1]
    assert np.mean(first == first[0]) > 0.9 and np.mean(second == second[0]) > 0.9
    assert not set(first) & set(second)


def cut_head(picture: Image) -> Image:
    """The head of a one-person picture, 200 x 160 px."""
    box = make_detector()(picture)[0].box
    middle, size = (box[:2] + box[2:]) / 2, float((box[3] - box[1]) * 1.5)
    low = np.clip(middle - [size * 0.4, size * 0.5], 0, None).astype(int)
    part = picture[low[1] : low[1] + int(size), low[0] : low[0] + int(size * 0.8)]
    return cv2.resize(part, (160, 200), interpolation=cv2.INTER_AREA)
