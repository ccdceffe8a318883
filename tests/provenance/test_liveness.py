"""What a clip shows of what was asked: each action, in order, by one person, in one take; from numbers, and from real pixels."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acting import DRAWN, Actor, Moment, acted, analyser, play

from lib_vitface.errors import ConsentError, InputError, NoFaceError
from lib_vitface.faces import align, mesh
from lib_vitface.faces.embed import make_embedder
from lib_vitface.faces.landmarks import with_landmarks
from lib_vitface.provenance import liveness
from lib_vitface.provenance.challenge import HEADS, Challenge, Prompt, draw
from lib_vitface.provenance.liveness import Watched, check, events
from lib_vitface.types import Face, no_tick

FPS = 20
CLIP = Path("clip.mp4")
ASKED = (Prompt("left"), Prompt("blink", "2"), Prompt("up"), Prompt("read", "40817"), Prompt("right"))


def look(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=128)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def tracked(moments: Sequence[Moment], noise: int = 0, straight: tuple[float, float] = (-4.0, -9.0)) -> Watched:
    """What is seen of moments that are played by a perfect actor, who sits a little askew; `noise` seeds the landmarker's."""
    random = np.random.default_rng(noise)
    times = np.arange(len(moments)) / FPS
    yaw, pitch, shut, open_cm = np.array([(m.yaw, m.pitch, m.shut, m.open_cm) for m in moments]).T
    place = np.tile([320.0, 240.0, 200.0], (len(moments), 1)) + random.normal(0, 1, (len(moments), 3))
    shaken = [random.normal(0, s, len(moments)) for s in (0.5, 0.5, 0.008, 0.02)]
    numbers = np.arange(0, len(moments), 8)
    looks = np.stack([0.8 * look(1) + 0.6 * look(100 + k) for k in numbers])
    return Watched(
        times,
        yaw + straight[0] + shaken[0],
        pitch + straight[1] + shaken[1],
        0.31 - 0.2 * shut + shaken[2],
        0.1 + open_cm + shaken[3],
        place,
        looks / np.linalg.norm(looks, axis=1, keepdims=True),
        times[numbers],
    )


def done(prompts: Sequence[Prompt] = ASKED) -> Watched:
    return tracked(acted(prompts, FPS))


def refused(words: str, watched: Watched, prompts: Sequence[Prompt] = ASKED) -> None:
    with pytest.raises(ConsentError, match=words) as caught:
        check(prompts, watched, CLIP)
    text = str(caught.value)
    assert text.startswith("clip.mp4: ") and text.count(". ") == 0 and text.endswith("."), "one sentence"


# ---------------------------------------------------------------------------------------------------- from numbers


def test_what_was_asked_is_found_where_it_was_done() -> None:
    moments = acted(ASKED, FPS)
    answers = check(ASKED, tracked(moments), CLIP)
    assert [e.kind for e in answers] == ["left", "blink", "up", "read", "right"]
    assert [e.count for e in answers[1::2]] == [2, 5]
    turned = np.flatnonzero([m.yaw >= 20 for m in moments]) / FPS
    assert answers[0].start == pytest.approx(turned[0], abs=0.1)
    assert answers[0].end == pytest.approx(turned[-1], abs=0.1)
    assert all(a.end <= b.start for a, b in itertools.pairwise(answers))


@pytest.mark.parametrize("seed", range(40))
def test_any_challenge_can_be_answered(seed: int) -> None:
    prompts = draw()
    found = check(prompts, tracked(acted(prompts, FPS), noise=seed), CLIP)
    assert [e.kind for e in found] == [p.kind for p in prompts]


def test_no_challenge_is_answered_by_another_ones_clip() -> None:
    passed, different = 0, 0
    for seed in range(150):
        asked, other = draw(), draw()
        kinds = [[(p.kind, p.kind == "blink" and p.detail) for p in prompts] for prompts in (asked, other)]
        if kinds[0] == kinds[1]:
            continue
        different += 1
        try:
            check(asked, tracked(acted(other, FPS), noise=seed), CLIP)
            passed += 1
        except ConsentError:
            pass
    assert different > 100 and passed == 0


@pytest.mark.parametrize("left_out", range(5))
def test_a_missing_action(left_out: int) -> None:
    rest = [p for k, p in enumerate(ASKED) if k != left_out]
    words = "turn further" if ASKED[left_out].kind in HEADS else rf"\(prompt {left_out + 1}\) is not seen in its place"
    refused(words, done(rest))


def test_the_wrong_order() -> None:
    left, blink, up, read, right = ASKED
    refused(
        "moved up, left, right, and asked for was left, up, right; keep the order", done((up, blink, left, read, right))
    )
    refused(r"“Blink twice, quickly” \(prompt 2\) is not seen", done((left, up, blink, read, right)))
    refused(r"“Read these .*4 0 8 1 7” \(prompt 4\) is not seen", done((left, blink, read, up, right)))
    asked = (left, up, right, blink, read)
    check(asked, done(asked), CLIP)
    refused(r"\(prompt 5\) is not seen in its place", done((left, up, right, read, blink)), asked)


def test_more_than_was_asked_for() -> None:
    """A clip in which somebody does all there is answers nothing."""
    refused("asked for was only left, up, right; leave out the rest", done((*ASKED, Prompt("down"))))
    everything = [Prompt(kind) for kind in HEADS * 3] + [Prompt("blink", "2"), Prompt("read", "12345")]
    refused("leave out the rest", done(everything))


def test_blinks_are_counted() -> None:
    three = [replace(p, detail="3") if p.kind == "blink" else p for p in ASKED]
    check(three, done(three), CLIP)
    refused("that often, no more", done(three), ASKED)
    refused("that often, no more", done(ASKED), three)


def test_a_mirrored_clip_is_told_of() -> None:
    seen = done()
    refused("every turn is to the other side; left is your own left", replace(seen, yaw=-seen.yaw))


def test_a_photograph() -> None:
    refused("does not move, as a photograph would", tracked([Moment()] * 200))
    waved = tracked([Moment()] * 200)
    place = waved.place + 30 * np.sin(np.arange(200) / 9)[:, None] * [1, 1, 0]
    refused("does not move, as a photograph would", replace(waved, place=place))


def test_a_second_person() -> None:
    refused("somebody else is in the picture, too; be alone", replace(done(), others=2))
    check(ASKED, replace(done(), others=1), CLIP)  # a detector errs once in a while


def test_another_face_takes_over() -> None:
    seen = done()
    half = len(seen.looks) // 3
    looks = seen.looks.copy()
    looks[-half:] = [look(2)] * half
    at = seen.look_times[-half]
    refused(rf"from {at:.1f} s on it is another face", replace(seen, looks=looks))
    looks = seen.looks.copy()
    looks[5] = look(3)
    check(ASKED, replace(seen, looks=looks), CLIP)  # one blurred look is no other face


def test_a_cut() -> None:
    seen = done()
    place = seen.place.copy()
    place[100:, 0] += 150
    refused("jumps at 5.0 s; film it in one take", replace(seen, place=place))
    yaw = seen.yaw.copy()
    yaw[100:105] += 60
    refused("jumps at 5.0 s", replace(seen, yaw=yaw))


def test_a_long_pause_between_prompts() -> None:
    moments = acted(ASKED[:1], FPS) + [Moment()] * (16 * FPS) + acted(ASKED[1:], FPS)
    refused(r"\(prompt 2\) came 1\d s after the one before; go on within 15 s", tracked(moments))


def test_half_a_turn_and_a_twitch_are_none() -> None:
    weak = acted(ASKED, FPS, turn=13, nod=8)
    refused("the head moved nowhere", tracked(weak))
    twitch = [Moment()] * 30 + [Moment(yaw=30)] * 2 + [Moment()] * 60
    assert events(tracked(twitch)) == []


def test_a_swing_to_the_other_side_is_two_turns() -> None:
    way = 30 * np.sin(np.linspace(0, 2 * np.pi, 40))
    found = events(tracked([Moment()] * 40 + [Moment(yaw=float(y)) for y in way] + [Moment()] * 40))
    assert [e.kind for e in found] == ["left", "right"]


def test_an_unsteady_turn_is_one() -> None:
    held = [24, 26, 19, 17, 22, 25, 18, 23, 24, 25]
    found = events(tracked([Moment()] * 40 + [Moment(yaw=y) for y in held] + [Moment()] * 40))
    assert [e.kind for e in found] == ["left"]


def test_the_eye_ratio_is_that_of_the_paper() -> None:
    points = np.array([[0, 0], [1, 1.0], [2, 1.2], [3, 0], [2, -0.8], [1, -1]], float)
    assert liveness.eye_ratio(points) == pytest.approx((2.0 + 2.0) / (2 * 3))


# -------------------------------------------------------------------------------------------- left is the person's own


@pytest.mark.parametrize(("axis", "kind"), [("y", "left"), ("y", "right"), ("x", "up"), ("x", "down")])
def test_directions_by_geometry(axis: str, kind: str) -> None:
    """A head in a right-handed room, turned by a rotation written out here, before a camera without perspective.

    The person faces the camera along +z; +x is to the viewer's right, which is the person's left; +y is up.
    """
    points = mesh.vertices().astype(np.float64)
    angle = np.radians(25) * (1 if kind in ("left", "down") else -1)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) if axis == "y" else np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    room = points @ turn.T
    nose = room[mesh.NOSE_TIP] - room[list(mesh.EYE_CORNERS)].mean(axis=0)
    straight = points[mesh.NOSE_TIP] - points[list(mesh.EYE_CORNERS)].mean(axis=0)
    moved = nose - straight
    assert {"left": moved[0] > 1, "right": moved[0] < -1, "up": moved[1] > 0.5, "down": moved[1] < -0.5}[kind]
    seen = [_landmarks(points), _landmarks(room)]
    poses = [with_landmarks(Face(np.zeros(4), 1.0, np.zeros((5, 2))), points).pose for points in seen]
    times = np.arange(60) / FPS
    yaw, pitch = (np.where((times > 1) & (times < 2), poses[1][k], poses[0][k]) for k in (0, 1))
    still = tracked([Moment()] * 60)
    (event,) = events(replace(still, yaw=yaw, pitch=pitch))
    assert event.kind == kind


def _landmarks(room: np.ndarray) -> np.ndarray:
    """As a picture has them: y down, smaller z nearer."""
    return (room * [12, -12, -12] + [300, 200, 0]).astype(np.float32)


# ------------------------------------------------------------------------------------------------- from real pixels


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    from small_clone import images

    return images("sample_target", 1, (640, 480))[0]


@pytest.fixture
def filmed(picture: np.ndarray, tmp_path: Path, make_video: Any) -> Callable[..., Path]:
    """`filmed(moments)`: a clip of the sample clip's person who plays them."""

    def film(moments: Sequence[Moment], change: Callable[[list[np.ndarray]], list[np.ndarray]] = list) -> Path:
        frames = change(play(picture, moments))
        return make_video(tmp_path / "filmed.mp4", frames, 12, options={"crf": "18", "preset": "veryfast"})

    return film


def watched(path: Path) -> Watched:
    return liveness.watch(path, analyser(), make_embedder("sface"), no_tick)


def test_the_actor_turns_to_the_side_it_says(picture: np.ndarray) -> None:
    """By the pixels alone: to their own left, the nose moves to the viewer's right of the eyes; the mirror shows the opposite."""
    offsets = {}
    for yaw in (-38, 0, 38):
        drawn = Actor(picture)(Moment(yaw=yaw))
        for name, image in (("true", drawn), ("mirrored", np.ascontiguousarray(drawn[:, ::-1]))):
            (face,) = analyser().detector(image)
            offsets[name, yaw] = float(face.points[2, 0] - face.points[:2, 0].mean())
    assert offsets["true", -38] < offsets["true", 0] - 8 < offsets["true", 38] - 16
    assert offsets["mirrored", -38] > offsets["mirrored", 0] + 8 > offsets["mirrored", 38] + 16


@pytest.mark.slow
def test_a_clip_that_is_played(filmed: Callable[..., Path]) -> None:
    path = filmed(acted(ASKED, 12, **DRAWN))
    seen = watched(path)
    answers = check(ASKED, seen, path)
    assert [e.kind for e in answers] == [p.kind for p in ASKED]
    own = make_embedder("sface")
    from small_clone import images

    (image,) = images("sample_target", 1, (640, 480))
    (face,) = analyser()(image)
    assert float(own(image, face) @ liveness.reference(seen)) > 0.8
    said = liveness.told(Challenge("ab" * 8, 1_800_000_000, ASKED), answers, path)
    assert "live: challenge abababababababab of 2027-01-15T08:00:00Z; 1. Turn your head to your own left" in said
    assert "4 0 8 1 7 (" in said
    for other in [draw() for _ in range(20)]:
        if [p.kind for p in other] != [p.kind for p in ASKED]:
            with pytest.raises(ConsentError):
                check(other, seen, path)


@pytest.mark.slow
def test_a_clip_that_is_mirrored(filmed: Callable[..., Path]) -> None:
    asked = (Prompt("left"), Prompt("blink", "2"))
    moments = acted(asked, 12, **DRAWN)
    path = filmed(moments)
    assert [e.kind for e in check(asked, watched(path), path)] == ["left", "blink"]
    path = filmed(moments, lambda frames: [np.ascontiguousarray(f[:, ::-1]) for f in frames])
    with pytest.raises(ConsentError, match="every turn is to the other side"):
        check(asked, watched(path), path)


@pytest.mark.slow
def test_a_clip_of_a_photograph_and_one_of_two_people(filmed: Callable[..., Path]) -> None:
    path = filmed([Moment()] * 60)
    with pytest.raises(ConsentError, match="does not move"):
        check(ASKED, watched(path), path)

    def beside(frames: list[np.ndarray]) -> list[np.ndarray]:
        return [np.concatenate([f[:, 260:], frames[0][:, 260:]], axis=1) for f in frames]

    path = filmed(acted(ASKED[:2], 12, **DRAWN), beside)
    with pytest.raises(ConsentError, match="somebody else is in the picture"):
        check(ASKED, watched(path), path)


@pytest.mark.slow
def test_a_clip_cut_together_of_two_people(filmed: Callable[..., Path]) -> None:
    """The second half by the person of another clip, at the same place and size."""
    from small_clone import images

    (other,) = images("sample_source", 1, (640, 480))
    (face,) = analyser()(other)

    def half(frames: list[np.ndarray]) -> list[np.ndarray]:
        (own,) = analyser()(frames[0])
        matrix = align.similarity_matrix(face.points, own.points)
        import cv2

        strange = cv2.warpAffine(other, matrix, (640, 480), borderMode=cv2.BORDER_REPLICATE)
        return frames[: len(frames) // 2] + [strange] * (len(frames) - len(frames) // 2)

    path = filmed(acted(ASKED, 12, **DRAWN), half)
    with pytest.raises(ConsentError, match=r"is another face|jumps at"):
        check(ASKED, watched(path), path)


def test_what_cannot_be_looked_at(tmp_path: Path, make_video: Any, picture: np.ndarray) -> None:
    make_video(tmp_path / "short.mp4", 20, 10)
    with pytest.raises(ConsentError, match=r"short.mp4: lasts 2.0 s, and what is asked for takes 4 to 60 s"):
        watched(tmp_path / "short.mp4")
    make_video(tmp_path / "long.mp4", 70, 1)
    with pytest.raises(ConsentError, match=r"lasts 70\.0 s"):
        watched(tmp_path / "long.mp4")
    make_video(tmp_path / "empty.mp4", 50, 10)
    with pytest.raises(NoFaceError, match="no face was found that stays"):
        watched(tmp_path / "empty.mp4")
    make_video(tmp_path / "slow.mp4", [picture] * 12, 2)
    with pytest.raises(ConsentError, match="too few frames for blinks"):
        watched(tmp_path / "slow.mp4")
    gone = [picture] * 30 + [np.zeros_like(picture)] * 15 + [picture] * 10
    make_video(tmp_path / "gone.mp4", gone, 12)
    with pytest.raises(NoFaceError, match=r"from 2.\d s on no face is seen"):
        watched(tmp_path / "gone.mp4")
    for path in (tmp_path, tmp_path / "none.mp4"):
        with pytest.raises(InputError, match="is no video"):
            watched(path)
