"""The first look at a video, with a detector that is told what to see."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib_vitface.errors import Cancelled, OutputError
from lib_vitface.faces import mesh
from lib_vitface.faces.landmarks import with_landmarks
from lib_vitface.swap.analysis import ChunkReader, Observer, Seen, load_arrays, save_arrays
from lib_vitface.types import Face, Floats, Frame, Image

BLANK = np.zeros((200, 400, 3), np.uint8)


def face_at(x: float, score: float = 0.9) -> Face:
    points = ((mesh.vertices() * [1, -1, -1]) * 5 + [x, 100, 0]).astype(np.float32)
    empty = Face(np.zeros(4, np.float32), score, np.zeros((5, 2), np.float32), presence=0.9)
    return with_landmarks(empty, points)


class Scene:
    """What is to be seen in each frame, and which faces were looked at for their identity."""

    def __init__(self, frames: list[list[float]]) -> None:
        self.frames, self.now, self.looked = frames, -1, []
        self.presence = 0.9
        self.observer = Observer(self._analyse, self._landmark, self._embed)

    def _analyse(self, _: Image) -> list[Face]:
        return [face_at(x) for x in self.frames[self.now]]

    def _landmark(self, _: Image, face: Face) -> Face:
        return replace(face, presence=self.presence)

    def _embed(self, _: Image, face: Face) -> Floats:
        self.looked.append((self.now, round(float(face.box[[0, 2]].mean()))))
        return np.ones(4, np.float32) / 2

    def run(self) -> list[Seen]:
        found = []
        for now in range(len(self.frames)):
            self.now = now
            found.append(self.observer(Frame(self.now, Fraction(self.now, 25), BLANK)))
        return found


def test_faces_are_linked_to_those_before_whatever_their_order() -> None:
    seen = Scene([[100, 300], [302, 101], [304], [303, 100]]).run()
    assert [one.before for one in seen[:2]] == [(-1, -1), (1, 0)]
    # the face at 101 is missed in frame 2 and followed by its landmarks, behind the found one
    assert len(seen[2].faces) == 2 and seen[2].before == (0, 1) and seen[2].faces[1].score == pytest.approx(0.9 * 0.9)
    assert seen[3].before == (0, 1) and [one.time_s for one in seen] == [0, 0.04, 0.08, 0.12]


def test_a_missed_face_is_believed_less_each_time_and_then_given_up() -> None:
    seen = Scene([[100]] + [[]] * 30).run()
    scores = [one.faces[0].score for one in seen if one.faces]
    np.testing.assert_allclose(scores, 0.9 * 0.9 ** np.arange(len(scores)))
    assert 10 < len(scores) < 20 and scores[-1] >= 0.2
    lost = Scene([[100], []])
    lost.presence = 0.3  # the landmarker sees nothing there
    assert lost.run()[1].faces == ()


def test_identity_is_looked_at_when_new_then_seldom_and_always_in_a_crowd() -> None:
    alone = Scene([[100]] * 25)
    found = alone.run()
    assert [now for now, _ in alone.looked] == [0, 12, 24]
    assert [one.faces[0].embedding is not None for one in found] == [k % 12 == 0 for k in range(25)]
    apart = Scene([[60, 340]] * 7)
    apart.run()
    assert sorted({now for now, _ in apart.looked}) == [0, 3, 6]
    crowd = Scene([[100, 200]] * 5)
    crowd.run()
    assert len(crowd.looked) == 10


def test_going_on_from_a_frame_gives_the_same() -> None:
    frames = [[100.0], [102.0], [], [105.0], [107.0]]
    whole = Scene(frames).run()
    again = Scene(frames)
    again.observer.go_on_from(BLANK, whole[2])
    for now in (3, 4):
        again.now = now
        one = again.observer(Frame(now, Fraction(now, 25), BLANK))
        assert one.before == whole[now].before
        np.testing.assert_array_equal(one.faces[0].landmarks, whole[now].faces[0].landmarks)
        np.testing.assert_array_equal(one.motion, whole[now].motion)


def test_chunks_are_read_once_and_few_are_kept() -> None:
    read = []

    def load(path: object) -> list[int]:
        read.append(path)
        return [10 * int(str(path)) + k for k in range(10)]

    reader = ChunkReader(lambda n: n, load, 10, keep=2)  # type: ignore[arg-type, return-value]
    assert list(reader.run(35)) == list(range(35)) and read == [0, 1, 2, 3]
    assert [reader[29], reader[31], reader[5]] == [29, 31, 5] and read == [0, 1, 2, 3, 0]


@pytest.mark.parametrize(
    ("met", "said", "words"),
    [(OSError(28, "full"), OutputError, r"x\.npz: the disk is full"), (Cancelled("enough"), Cancelled, "enough")],
)
def test_a_chunk_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, met: Exception, said: type[Exception], words: str
) -> None:
    """What was there stays, and nothing is left beside it, whatever stops the writing."""

    def half(file: Any, **_: Any) -> None:
        file.write(b"half")
        raise met

    save_arrays(tmp_path / "x.npz", {"a": np.arange(3)})
    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(said, match=words):
        save_arrays(tmp_path / "x.npz", {"a": np.arange(4)})
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]
    np.testing.assert_array_equal(load_arrays(tmp_path / "x.npz")["a"], np.arange(3))
