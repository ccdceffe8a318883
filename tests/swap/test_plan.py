"""Who is replaced, how strongly, in which clips; and frames in, frames out around chunk borders."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tint import Tint, options

from lib_vitface.errors import InputError, NoFaceError
from lib_vitface.faces import mesh
from lib_vitface.faces.landmarks import five_points
from lib_vitface.faces.parse import Hand
from lib_vitface.faces.track import SAME_PERSON
from lib_vitface.options import build
from lib_vitface.swap import color
from lib_vitface.swap.analysis import ChunkReader, Seen, load_seen, save_seen
from lib_vitface.swap.blend import MODES
from lib_vitface.swap.plan import Plan, bridged_hands, fade, limits, make_plan, read_plan, steady_irises
from lib_vitface.swap.settings import BLENDS, COLORS, SwapOptions
from lib_vitface.swap.stream import FrameStream
from lib_vitface.types import Face, Floats, Frame, Pose

LOOKS = np.linalg.qr(np.random.default_rng(1).normal(size=(128, 4)))[0].T.astype(np.float32)


def face_at(x: float, y: float, scale: float = 4.0, person: int | None = 0, yaw_deg: float = 0.0) -> Face:
    """The canonical face about (x, y), `scale` px per cm, turned by `yaw_deg`."""
    a = np.radians(-yaw_deg)
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    points = (mesh.vertices() * [1, -1, -1]) @ turn.T * scale + [x, y, 0]
    landmarks = points.astype(np.float32)
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    look = None if person is None else LOOKS[person]
    return Face(
        np.concatenate([low, high]), 0.9, five_points(landmarks), landmarks, 0.99, Pose(yaw_deg, 0.0, 0.0), look
    )


def seen(index: int, faces: list[Face], level: int = 100, known: bool = True) -> Seen:
    before = tuple(range(len(faces))) if known and index else (-1,) * len(faces)
    motion = np.zeros((len(faces), mesh.POINT_COUNT, 2), np.float32)
    return Seen(index / 25, np.full((18, 32), level, np.uint8), tuple(faces), before, motion)


def plan_of(
    tmp_path: Path, frames: list[Seen], chunk: int = 8, reference: np.ndarray | None = None, **values: object
) -> Plan:
    for number in range(0, len(frames), chunk):
        save_seen(tmp_path / f"analysis-{number // chunk:05}.npz", frames[number : number + chunk])
    chosen = options(tmp_path, input=tmp_path, chunk_frames=chunk, **values)
    return make_plan(tmp_path, len(frames), chosen, reference, lambda: None)


def test_names_in_the_light_settings_agree_with_the_code() -> None:
    assert COLORS == color.METHODS and BLENDS == MODES
    default = build(SwapOptions, {"model": "m", "input": "i", "output": "o"})
    assert default.likeness == SAME_PERSON


def test_analysis_comes_back_from_disk(tmp_path: Path) -> None:
    hand = Hand(np.random.default_rng(0).random((21, 2)).astype(np.float32), 0.75)
    a, b = replace(face_at(50, 60), iris=np.arange(4, dtype=np.float32).reshape(2, 2)), face_at(200, 60, person=None)
    motion = np.full((2, 468, 2), np.nan, np.float32)
    motion[0] = 0.25
    frames = [
        seen(0, []),
        Seen(0.04, np.zeros((18, 32), np.uint8), (a, b), (1, -1), motion, (hand,)),
        seen(2, [b]),
    ]
    save_seen(tmp_path / "x.npz", frames)
    back = load_seen(tmp_path / "x.npz")
    assert [len(one.faces) for one in back] == [0, 2, 1]
    assert back[1].before == (1, -1) and back[1].time_s == 0.04
    assert np.array_equal(back[1].motion, motion, equal_nan=True)
    assert back[1].hands[0].presence == 0.75 and np.array_equal(back[1].hands[0].points, hand.points)
    for one, other in zip(back[1].faces, (a, b), strict=True):
        assert np.array_equal(one.landmarks, other.landmarks) and np.array_equal(one.box, other.box)
        assert one.pose == other.pose and one.score == other.score and one.presence == other.presence
        assert (one.embedding is None) == (other.embedding is None)
    assert np.array_equal(back[1].faces[0].embedding, LOOKS[0])
    assert np.array_equal(back[1].faces[0].iris, a.iris) and np.isnan(back[1].faces[1].iris).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_fade_is_the_highest_slow_curve(data: st.DataObject) -> None:
    count, frames = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 9))
    good = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=count, max_size=count)))
    shot = np.sort(np.array(data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count)))).astype(np.int32)
    got = fade(good, shot, frames)
    # By definition: min over all frames of the same shot of their value plus the distance.
    index = np.arange(count)
    distance = np.where(shot[:, None] == shot[None], np.abs(index[:, None] - index[None]) / frames, np.inf)
    assert np.allclose(got, (good[None] + distance).min(axis=1))


def test_a_face_that_comes_and_goes_is_faded_but_not_at_a_cut(tmp_path: Path) -> None:
    """Frames 0-9 nobody, 10-29 the face, then a cut at once to another shot with the face, 30-39; 34-35 missed."""
    frames = [seen(i, [], 100) for i in range(10)]
    frames += [seen(i, [face_at(80 + i, 80)], 100, known=i > 10) for i in range(10, 30)]
    frames += [seen(i, [face_at(200, 90)] if i not in (34, 35) else [], 200, known=i > 30) for i in range(30, 40)]
    plan = plan_of(tmp_path, frames, fade_frames=4)
    assert np.allclose(plan.strength[:16], [0] * 10 + [0.25, 0.5, 0.75, 1, 1, 1])
    assert (plan.strength[16:] == 1).all()  # up to the cut, behind it, and over the short gap
    assert plan.shot[29] != plan.shot[30] and len(set(plan.shot)) == 2
    assert plan.runs() == [range(10, 30), range(30, 40)]
    assert plan.face(5) is None and plan.face(34) is not None
    clips = plan.clips(8)
    assert clips[:10].tolist() == [-1] * 10
    assert clips[10:].tolist() == [10] * 8 + [18] * 8 + [26] * 4 + [30] * 8 + [38] * 2
    again = read_plan(tmp_path, 8)
    assert np.array_equal(again.strength, plan.strength) and again.people == 1
    assert np.array_equal(again.face(20).landmarks, plan.face(20).landmarks)


def test_turning_away_fades_out_before_the_limit(tmp_path: Path) -> None:
    frames = [seen(i, [face_at(100, 100, yaw_deg=2.0 * i)]) for i in range(50)]
    plan = plan_of(tmp_path, frames, max_yaw_deg=60, smooth=0, fade_frames=2)
    assert (plan.strength[:25] == 1).all() and (plan.strength[30:] == 0).all()
    assert (np.diff(plan.strength[25:31]) < 0).all()  # frame 25 is at 50 degrees, where the fading begins
    assert np.abs(np.diff(plan.strength)).max() < 0.25
    small = plan_of(tmp_path, [seen(i, [face_at(100, 100, 1.5)]) for i in range(9)], min_face_px=40)
    assert small.strength.max() == 0 and small.runs() == []


def test_limits_fall_to_zero_exactly_at_the_limit() -> None:
    wanted = build(SwapOptions, {"model": "m", "input": "i", "output": "o", "max_yaw_deg": 60, "max_pitch_deg": 40})
    assert limits(wanted, 1.0, 0, 0, 100) == 1
    assert limits(wanted, 1.0, -59.9, 0, 100) == pytest.approx(0.01, abs=1e-6) and limits(wanted, 1.0, 60, 0, 100) == 0
    assert limits(wanted, 1.0, 0, -40, 100) == 0 and limits(wanted, 0.5, 0, 0, 100) == 0
    assert limits(wanted, 1.0, 0, 0, 23) == 0 and limits(wanted, 1.0, 0, 0, 24) == 1


def two_people() -> list[Seen]:
    """Person 0 small on the left, person 1 large on the right, person 2 in the middle for a moment only."""
    frames = []
    for i in range(20):
        people = [face_at(60, 60, 3, 0), face_at(300, 100, 6, 1)]
        frames.append(seen(i, [*people, face_at(180, 60, 4, 2)] if 5 <= i < 8 else people))
    return frames


@pytest.mark.parametrize(
    ("values", "x"),
    [
        ({"face": "largest"}, 300),
        ({"face": "leftmost"}, 60),
        ({"face": "rightmost"}, 300),
        ({"face": "index", "face_index": 2}, 300),
        ({"face": "index", "face_index": 1}, 180),
        ({"face": "picture"}, 60),
    ],
)
def test_the_wanted_person_is_chosen(tmp_path: Path, values: dict, x: float) -> None:
    reference = LOOKS[0] if values["face"] == "picture" else None
    plan = plan_of(tmp_path, two_people(), reference=reference, **values)
    assert plan.people == 3
    places = [plan.face(i).landmarks[:, 0].mean() for i in range(20) if plan.face(i) is not None]
    assert len(places) == (3 if x == 180 else 20)
    assert np.abs(np.array(places) - x).max() < 15


def test_nobody_there_and_not_the_wanted_one(tmp_path: Path) -> None:
    with pytest.raises(NoFaceError, match="no face was found"):
        plan_of(tmp_path, [seen(i, []) for i in range(9)])
    with pytest.raises(NoFaceError, match="fits the choice"):
        plan_of(tmp_path, two_people(), reference=LOOKS[3], face="picture")


def test_smoothing_never_reaches_into_another_shot(tmp_path: Path) -> None:
    chance = np.random.default_rng(3)

    def shaky(i: int, x: float, level: int) -> Seen:
        face = face_at(x, 100)
        noisy = (face.landmarks + chance.normal(0, 0.3, face.landmarks.shape)).astype(np.float32)
        return seen(
            i, [Face(face.box, 0.9, face.points, noisy, 0.99, face.pose, LOOKS[0])], level, known=i not in (0, 12)
        )

    first = [shaky(i, 100, 50) for i in range(12)]
    both = plan_of(tmp_path, first + [shaky(i, 180, 200) for i in range(12, 24)])
    alone_folder = tmp_path / "alone"
    alone_folder.mkdir()
    alone = plan_of(alone_folder, first)
    for i in range(12):
        assert np.array_equal(both.face(i).landmarks, alone.face(i).landmarks)
    raw = np.std([one.faces[0].landmarks[:, :2] for one in first], axis=0).mean()
    smooth = np.std([both.face(i).landmarks[:, :2] for i in range(12)], axis=0).mean()
    assert smooth < 0.7 * raw


def test_a_hand_missed_for_a_moment_is_bridged() -> None:
    def hand(x: float) -> Hand:
        grid = np.stack(np.meshgrid(np.arange(7), np.arange(3)), -1).reshape(21, 2) * 8.0
        return Hand((grid + np.array([x, 0])).astype(np.float32), 0.9)

    missed = bridged_hands([[hand(10)], [], [], [hand(16)], []], 1)
    assert len(missed) == 1 and abs(missed[0].points[0, 0] - 13) < 1e-4
    assert bridged_hands([[hand(10)], [], []], 1) == ()  # gone, not missed
    assert bridged_hands([[hand(10)], [], [hand(400)]], 1) == ()  # another hand
    assert len(bridged_hands([[hand(10)], [hand(12)], [hand(14)]], 1)) == 1


def moving_plan(tmp_path: Path, count: int = 43) -> Plan:
    frames = []
    for i in range(count):
        there = i < 13 or i > 17
        face = face_at(60 + i, 55 + 5 * np.sin(i / 5), 3.0)
        frames.append(seen(i, [face] if there else [], 60 if i < 30 else 190, known=i not in (0, 18, 30)))
    return plan_of(tmp_path, frames)


def pictures(count: int) -> list[Frame]:
    chance = np.random.default_rng(0)
    ground = chance.integers(30, 220, (110, 170, 3))
    return [
        Frame(
            i,
            Fraction(i, 25),
            np.clip(ground + 20 * np.sin(i / 3) + chance.normal(0, 4, ground.shape), 0, 255).astype(np.uint8),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("values", [{}, {"color_frames": 0, "motion_blur": 0.5}, {"color": "idt", "color_frames": 3}])
def test_beginning_anywhere_gives_the_same_frames(tmp_path: Path, values: dict) -> None:
    """The heart of exact resuming: whatever the first frame, every later frame comes out the same to the last bit."""
    plan, frames = moving_plan(tmp_path), pictures(43)
    wanted = options(tmp_path, input=tmp_path, **values)
    whole = FrameStream(wanted, Tint(4), plan, 43)
    assert whole.begin == 0
    full = [done for frame in frames for done in whole(frame)]
    assert [done.index for done in full] == list(range(43))
    changed = [not np.array_equal(a.image, b.image) for a, b in zip(full, frames, strict=True)]
    assert np.array_equal(changed, plan.strength > 0)
    for start in (3, 8, 15, 18, 24, 29, 30, 37, 42):
        part = FrameStream(wanted, Tint(4), plan, 43, start)
        assert part.begin <= start
        rest = [done for frame in frames[part.begin :] for done in part(frame)]
        assert [done.index for done in rest] == list(range(start, 43))
        assert all(np.array_equal(a.image, b.image) for a, b in zip(full[start:], rest, strict=True))


def test_few_frames_are_held_back_and_clips_are_as_said(tmp_path: Path) -> None:
    plan, tint = moving_plan(tmp_path), Tint(4)
    stream = FrameStream(options(tmp_path, input=tmp_path, color_frames=5), tint, plan, 43)
    late = []
    for frame in pictures(43):
        done = stream(frame)
        late += [frame.index - one.index for one in done]
    assert max(late) <= 5 + 4
    assert sum(tint.clips) == int((plan.strength > 0).sum()) and max(tint.clips) == 4


def test_face_by_picture_needs_the_picture(tmp_path: Path) -> None:
    from lib_vitface.swap.video import make_analyser, reference_look

    wanted = options(tmp_path, input=tmp_path, face="picture")
    with pytest.raises(InputError, match="--face-picture"):
        reference_look(wanted, make_analyser(wanted))


def test_chunk_reader_keeps_few_files(tmp_path: Path) -> None:
    loads: list[int] = []

    def load(path: Path) -> list[int]:
        loads.append(int(path.name))
        return [int(path.name) * 10 + k for k in range(10)]

    reader = ChunkReader(lambda n: Path(str(n)), load, 10, keep=2)
    assert list(reader.run(35)) == list(range(35)) and loads == [0, 1, 2, 3]
    assert reader[29] == 29 and loads == [0, 1, 2, 3]
    assert reader[0] == 0 and loads[-1] == 0


def irises_of(face: Face, across: float, down: float = 0.0) -> Floats:
    """Irises `across` and `down` widths of the eye from the middles of a frontal face's eyes."""
    assert face.landmarks is not None
    ends = face.landmarks[list(mesh.EYE_CORNERS), :2].reshape(2, 2, 2)
    along = ends[:, 1] - ends[:, 0]
    return (ends.mean(axis=1) + across * along + down * along[:, ::-1] * [-1, 1]).astype(np.float32)


def test_irises_are_steadied_where_they_tremble_not_where_they_glance() -> None:
    random = np.random.default_rng(0)
    faces = [face_at(100 + 2 * k, 100) for k in range(41)]
    wanted = np.where(np.arange(41) < 20, -0.1, 0.15)  # one quick glance
    noisy = wanted + random.normal(0, 0.015, 41)
    points = np.stack([face.landmarks for face in faces if face.landmarks is not None])
    irises = [irises_of(face, across) for face, across in zip(faces, noisy, strict=True)]
    error = {"raw": [], "steady": []}
    for k in range(8, 33):
        window = slice(k - 8, k + 9)
        found = steady_irises(points[window], irises[window], points[k])
        width = np.linalg.norm(points[k, 33, :2] - points[k, 133, :2])
        truth = irises_of(faces[k], wanted[k])
        error["steady"].append(np.abs(found - truth).max() / width)
        error["raw"].append(np.abs(irises[k] - truth).max() / width)
    assert np.mean(error["steady"]) < 0.65 * np.mean(error["raw"])
    assert max(error["steady"]) < 0.06, "the glance comes at once"


def test_an_iris_that_is_not_seen_is_not_made_up() -> None:
    face = face_at(100, 100)
    assert face.landmarks is not None
    points = np.stack([face.landmarks] * 5)
    some = irises_of(face, 0.1)
    some[1] = np.nan
    found = steady_irises(points, [some, None, some, irises_of(face, 0.1), None], points[2])
    assert found[0] == pytest.approx(some[0], abs=1e-3) and np.isnan(found[1]).all()
    assert np.isnan(steady_irises(points, [some, some, None, some, some], points[2])).all()


def test_the_plan_gives_each_face_its_irises(tmp_path: Path) -> None:
    faces = [face_at(100, 100) for _ in range(9)]
    frames = [seen(k, [replace(face, iris=irises_of(face, 0.1 + 0.01 * (-1) ** k))]) for k, face in enumerate(faces)]
    plan = plan_of(tmp_path, frames)
    middle = plan.face(4)
    assert middle is not None and middle.iris is not None
    truth = irises_of(faces[4], 0.1)
    jitter = np.abs(irises_of(faces[4], 0.11) - truth).max()
    assert np.abs(middle.iris - truth).max() < 0.4 * jitter
