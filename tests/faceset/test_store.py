"""The faceset on disk: what goes in comes out, other formats are refused, a million rows are no burden."""

from __future__ import annotations

import pickle
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faceset_maker import SIZE, make_record, noise_image, unit_vector

from lib_vitface.errors import CheckpointError, InputError, OutputError
from lib_vitface.faceset import record as rows
from lib_vitface.faceset import writer
from lib_vitface.faceset.record import Record
from lib_vitface.faceset.store import IMAGES, INDEX, Faceset
from lib_vitface.faceset.writer import FacesetWriter, Progress

Maker = Callable[..., FacesetWriter]
ROOT = Path(__file__).resolve().parents[2]


def assert_same(a: Record, b: Record) -> None:
    for name in Record.__dataclass_fields__:
        if name == "id":
            continue
        left, right = getattr(a, name), getattr(b, name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype and left.shape == right.shape, name
            np.testing.assert_array_equal(left, right, err_msg=name)
        else:
            assert left == right and type(left) is type(right), name


def test_records_come_back_as_they_went_in(make_faceset: Maker) -> None:
    made = make_faceset(5)
    made.close()
    found = list(Faceset.open(made.path).records())
    assert len(found) == 5
    for i, record in enumerate(found):
        original = make_record(i, kept=True, reason="", cluster=0)
        original = Record(**{**original.__dict__, "frame_to_crop": np.asarray(original.frame_to_crop)})
        assert_same(record, original)
        assert record.time == Fraction(i * 1001, 24000)
        assert record.landmarks.shape == (468, 3)


def test_fingerprint_of_all_64_bits(make_faceset: Maker) -> None:
    faceset = make_faceset(1, fingerprint=2**64 - 2)
    assert next(faceset.records()).fingerprint == 2**64 - 2


def test_kept_and_dropped_are_told_apart(make_faceset: Maker) -> None:
    faceset = make_faceset(6)
    ids = faceset.columns("id")["id"]
    reasons = ["", "", "stranger", "stranger", "surplus", ""]
    faceset.decide(ids, [0, 0, 1, 1, 0, 0], reasons, {"spread": {"gap": 1.0}})
    assert len(faceset) == 3 and faceset.count() == 6 and faceset.count(kept=False) == 3
    assert [r.frame for r in faceset.records()] == [0, 1, 5]
    assert [r.reason for r in faceset.records(kept=False)] == ["stranger", "stranger", "surplus"]
    assert [r.frame for r in faceset.records(kept=None)] == list(range(6))
    assert faceset.dropped() == {"stranger": 2, "surplus": 1}
    assert faceset.summary()["identities"] == 2
    assert faceset.setting("spread") == {"gap": 1.0}


def test_bulk_arrays_equal_the_records(make_faceset: Maker) -> None:
    faceset = make_faceset(7)
    records = list(faceset.records())
    np.testing.assert_array_equal(faceset.landmarks(), np.stack([r.landmarks for r in records]))
    np.testing.assert_array_equal(faceset.embeddings(), np.stack([r.embedding for r in records]))
    np.testing.assert_array_equal(faceset.array("light"), np.stack([r.light for r in records]))
    columns = faceset.columns("id", "yaw_deg", "sharpness")
    np.testing.assert_allclose(columns["yaw_deg"], [r.pose.yaw_deg for r in records])
    np.testing.assert_array_equal(columns["id"], [r.id for r in records])
    with pytest.raises(ValueError, match="no such column"):
        faceset.columns("reason; DROP TABLE faces")


def test_mean_embedding_is_the_unit_mean_of_the_kept(make_faceset: Maker) -> None:
    faceset = make_faceset(4)
    faceset.decide([4], [1], ["stranger"], {})
    mean = sum(unit_vector(i).astype(np.float64) for i in range(3))
    np.testing.assert_allclose(faceset.mean_embedding(), mean / np.linalg.norm(mean), atol=1e-6)
    faceset.decide([1, 2, 3], [0, 0, 0], ["surplus"] * 3, {})
    with pytest.raises(CheckpointError, match="holds no face"):
        faceset.mean_embedding()


def test_pictures_png_exact_and_jpeg_close(make_faceset: Maker) -> None:
    faceset = make_faceset(2, pictures=True)
    for record in faceset.records():
        np.testing.assert_array_equal(faceset.image(record), noise_image(record.frame))
    smooth = np.stack([np.add.outer(np.arange(SIZE), np.arange(SIZE)) // 2] * 3, axis=2).astype(np.uint8)
    smooth[..., 1] = 255 - smooth[..., 1]
    faceset.save_crop("a.jpg", smooth, 96)
    record = make_record(9, image="a.jpg")
    assert np.abs(faceset.image(record).astype(int) - smooth).mean() < 1.0
    assert not [p for p in (faceset.path / IMAGES).iterdir() if p.name.startswith(".")]


def test_missing_and_damaged_pictures_are_named(make_faceset: Maker) -> None:
    faceset = make_faceset(2, pictures=True)
    first, second = faceset.records()
    faceset.image_path(first).unlink()
    faceset.image_path(second).write_bytes(b"not a picture")
    with pytest.raises(CheckpointError, match=r"00000000\.png is missing"):
        faceset.image(first)
    with pytest.raises(CheckpointError, match=r"00000001\.png is damaged"):
        faceset.image(second)


def test_refuses_what_is_not_a_faceset(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a faceset"):
        Faceset.open(tmp_path)
    (tmp_path / INDEX).write_bytes(b"this is some text" * 100)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Faceset.open(tmp_path)
    (tmp_path / INDEX).unlink()
    with closing(sqlite3.connect(tmp_path / INDEX)) as other:
        other.execute("CREATE TABLE x (y)")
    with pytest.raises(CheckpointError, match="not the index of a faceset"):
        Faceset.open(tmp_path)


def test_refuses_another_version_with_a_sentence(make_faceset: Maker) -> None:
    faceset = make_faceset(1)
    faceset.close()
    with closing(sqlite3.connect(faceset.path / INDEX)) as index:
        index.execute("PRAGMA user_version = 7")
    with pytest.raises(CheckpointError, match="format 7 and this version reads format 1; build it again"):
        Faceset.open(faceset.path)


def test_refuses_an_unfinished_one_unless_asked(tmp_path: Path) -> None:
    FacesetWriter.create(tmp_path / "s").close()
    with pytest.raises(CheckpointError, match="unfinished"):
        Faceset.open(tmp_path / "s")
    assert Faceset.open(tmp_path / "s", unfinished=True).count() == 0
    with pytest.raises(OutputError, match="holds a faceset already"):
        FacesetWriter.create(tmp_path / "s")


def test_a_truncated_index_is_damaged_not_a_crash(make_faceset: Maker) -> None:
    faceset = make_faceset(50)
    faceset.close()
    data = (faceset.path / INDEX).read_bytes()
    (faceset.path / INDEX).write_bytes(data[: len(data) // 3])
    with pytest.raises(CheckpointError):
        list(Faceset.open(faceset.path).records())


def test_the_same_face_is_indexed_once(make_faceset: Maker) -> None:
    faceset = make_faceset(3)
    faceset.add(1, [make_record(1), make_record(3)], Progress(4, frames=1, found=1, drops={"blurred": 2}))
    faceset.add(1, [], Progress(5, frames=1, drops={"blurred": 1}, done=True, note="x"))
    assert [r.frame for r in faceset.records(kept=None)] == [0, 1, 2, 3]
    (source,) = faceset.inputs()
    assert (source["frames"], source["found"], source["next_frame"], source["done"], source["note"]) == (
        5,
        4,
        5,
        1,
        "x",
    )
    assert faceset.dropped() == {"blurred": 3, rows.PENDING: 1}


def test_sightings_add_up(make_faceset: Maker) -> None:
    faceset = make_faceset(2)
    faceset.decide([], [], [], {}, again={1: 3})
    faceset.add(1, [], Progress(2, again={(0, 0): 1, (1, 0): 5, (9, 9): 7}))
    assert faceset.columns("seen")["seen"].tolist() == [5, 6]


def test_erasing_leaves_the_row_but_no_biometrics_and_no_picture(make_faceset: Maker) -> None:
    faceset = make_faceset(3, pictures=True)
    faceset.decide([1, 2, 3], [0, 1, 0], ["", "stranger", "surplus"], {}, erase=("stranger",))
    assert faceset.sweep() == 1
    stranger = next(faceset.records(ids=[2]))
    assert stranger.embedding.size == 0 and stranger.landmarks.shape == (0, 3)
    assert stranger.image == "" and stranger.fingerprint == 0
    assert sorted(p.name for p in (faceset.path / IMAGES).iterdir()) == ["00000000.png", "00000002.png"]
    assert faceset.dropped() == {"stranger": 1, "surplus": 1}
    assert len(faceset.embeddings(kept=None)) == 2 == faceset.stored()
    assert faceset.columns("id", kept=None, whole=True)["id"].tolist() == [1, 3]
    assert [r.id for r in faceset.window(1, 5)] == [1, 3]


def test_the_window_is_the_last_faces_of_one_input(make_faceset: Maker) -> None:
    faceset = make_faceset(6)
    other = faceset.add_input("/other.mp4", "1")
    faceset.add(other, [make_record(50)], Progress(1))
    assert [r.frame for r in faceset.window(1, 3)] == [3, 4, 5]
    assert [r.frame for r in faceset.window(other, 3)] == [50]


def test_an_input_that_changed_loses_its_faces(make_faceset: Maker) -> None:
    faceset = make_faceset(2)
    other = faceset.add_input("/other.mp4", "1", "anna")
    faceset.add(other, [make_record(7)], Progress(8, frames=8, found=1, drops={"small": 2}, done=True))
    assert faceset.add_input("/other.mp4", "1") == other and faceset.count() == 3
    assert faceset.add_input("/other.mp4", "2") == other and faceset.count() == 2 == faceset.stored()
    row = faceset.inputs()[1]
    assert (row["next_frame"], row["done"], row["frames"], row["stamp"]) == (0, 0, 0, "2")
    assert faceset.dropped() == {}


def test_sweep_removes_only_what_the_index_does_not_know(make_faceset: Maker) -> None:
    faceset = make_faceset(2, pictures=True)
    for name in (".00000009.png.new", "00000009.png"):
        (faceset.path / IMAGES / name).write_bytes(b"left by a killed run")
    assert faceset.sweep() == 2
    assert sorted(p.name for p in (faceset.path / IMAGES).iterdir()) == ["00000000.png", "00000001.png"]


def test_a_failed_transaction_leaves_nothing(make_faceset: Maker) -> None:
    faceset = make_faceset(1)
    with pytest.raises(RuntimeError), faceset.transaction() as db:
        db.execute("UPDATE faces SET kept = 0")
        raise RuntimeError
    assert len(faceset) == 1


def test_pickled_into_a_worker_it_opens_its_own_connection(make_faceset: Maker) -> None:
    faceset = make_faceset(2)
    copy = pickle.loads(pickle.dumps(faceset))
    assert len(copy) == 2 and copy._connection is not faceset._connection


def test_a_read_only_folder_can_be_read(make_faceset: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    faceset = make_faceset(2, pictures=True)
    faceset.close()
    monkeypatch.setattr("lib_vitface.faceset.store.os.access", lambda *_: False)  # the tests may run as root
    reader = Faceset.open(faceset.path)
    assert len(list(reader.records())) == 2
    with pytest.raises(sqlite3.OperationalError):
        reader._db.execute("DELETE FROM faces")


def test_twenty_thousand_rows_list_fast(make_faceset: Maker) -> None:
    faceset = make_faceset(1)
    names = [c for c in rows.COLUMNS if c != "id"]
    copied = ", ".join(
        {"frame": "n.value", "kept": "n.value % 2", "sharpness": "n.value / 20000.0"}.get(c, c) for c in names
    )
    numbers = "WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 20000)"
    with faceset.transaction() as db:
        db.execute(f"{numbers} INSERT INTO faces ({', '.join(names)}) SELECT {copied} FROM faces, n WHERE faces.id = 1")
        rest = "matrix, landmarks, embedding, expression, light"
        db.execute(f"INSERT INTO arrays SELECT f.id, {rest} FROM faces f, arrays a WHERE f.id > 1")
    faceset.close()
    start = time.process_time()
    reader = Faceset.open(faceset.path)
    assert len(reader) == 10001 and reader.count() == 20001
    sharp = reader.columns("sharpness")["sharpness"]
    assert len(sharp) == 10001 and reader.summary()["faces"] == 10001
    assert time.process_time() - start < 1.0
    start = time.process_time()
    for record in reader.records():
        if record.frame > 100:
            break
    assert time.process_time() - start < 0.5, "the first records must not wait for the last"
    with faceset.transaction() as db:
        plan = db.execute("EXPLAIN QUERY PLAN SELECT COUNT(*) FROM faces f WHERE f.kept = 1").fetchall()
    assert "USING COVERING INDEX" in plan[0][3]


WRITE = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from pathlib import Path
from faceset_maker import make_record
from lib_vitface.faceset.writer import FacesetWriter, Progress
faceset = FacesetWriter.open(Path({path!r}), unfinished=True)
number = faceset.add_input({name!r}, "1")
for i in range(60):
    faceset.add(number, [make_record(i)], Progress(i + 1, frames=1, found=1))
"""


def test_two_processes_write_one_faceset(make_faceset: Maker) -> None:
    faceset = make_faceset(0)
    code = [
        WRITE.format(root=str(ROOT), tests=str(Path(__file__).parent), path=str(faceset.path), name=name)
        for name in ("/a.mp4", "/b.mp4")
    ]
    running = [subprocess.Popen([sys.executable, "-c", c], stderr=subprocess.PIPE) for c in code]
    while any(p.poll() is None for p in running):
        assert faceset.count() <= 120  # a third process reads meanwhile
        time.sleep(0.02)
    assert [p.stderr.read() for p in running if p.stderr] == [b"", b""]
    assert faceset.count() == 120 and len(faceset.landmarks(kept=None)) == 120
    assert [i["found"] for i in faceset.inputs()] == [0, 60, 60]
    with faceset.transaction() as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_only_one_process_builds(tmp_path: Path) -> None:
    code = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from lib_vitface.faceset.writer import sole_right\n"
        f"with sole_right(Path({str(tmp_path)!r})):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    with pytest.raises(OutputError, match="another run is building it"), writer.sole_right(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with writer.sole_right(tmp_path):
        pass


def test_an_output_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file.* cannot be written"), writer.sole_right(tmp_path / "file"):
        pass
    with pytest.raises(OutputError, match="cannot be written"):
        FacesetWriter.create(tmp_path / "file" / "set")


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("UPDATE faces SET time_num = 'x'", lambda f: list(f.records())),
        ("UPDATE faces SET time_den = 0", lambda f: list(f.records())),
        ("UPDATE arrays SET landmarks = x'0011'", lambda f: list(f.records())),
        ("UPDATE faces SET sharpness = 'x'", lambda f: f.columns("id", "sharpness")),
        ("UPDATE arrays SET embedding = 'x' WHERE id = 1", lambda f: f.embeddings()),
        ("UPDATE arrays SET embedding = x'00112233' WHERE id = 2", lambda f: f.embeddings()),
    ],
)
def test_values_of_another_kind_are_a_damaged_faceset(tmp_path: Path, change: str, read: Any) -> None:
    """SQLite keeps any value in any column; a damaged file may well be a sound database."""
    folder = tmp_path / "f"
    with FacesetWriter.create(folder, {}) as faceset:
        source = faceset.add_input("a.mp4", "1")
        faceset.add(source, [make_record(k, kept=True, reason="") for k in range(2)], Progress(2))
        faceset.note("finished", True)
    with sqlite3.connect(folder / INDEX) as database:
        database.execute(change)
    with (
        Faceset.open(folder) as opened,
        pytest.raises(CheckpointError, match=r"holds a damaged face .*build the faceset again"),
    ):
        read(opened)
