"""A consent record by live capture, from asking for prompts to the signed record, on real pixels."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acting import DRAWN, acted, play
from small_clone import images, run

from lib_vitface import media
from lib_vitface.errors import ConsentError, InputError
from lib_vitface.options import build
from lib_vitface.provenance import audit
from lib_vitface.provenance import challenge as challenges
from lib_vitface.provenance import consent as records
from lib_vitface.provenance.challenge import Prompt
from lib_vitface.provenance.settings import ConsentOptions
from lib_vitface.tasks.records import consent
from lib_vitface.types import Host

PROMPTS = (Prompt("right"), Prompt("blink", "2"), Prompt("down"), Prompt("read", "31415"), Prompt("left"))


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """The sample clip's person does `PROMPTS`."""
    return play(images("sample_target", 1, (640, 480))[0], acted(PROMPTS, 12, **DRAWN))


@pytest.fixture
def clip(tmp_path: Path, make_video: Any, pictures: list[np.ndarray]) -> Path:
    return make_video(tmp_path / "recorded.mp4", pictures, 12, options={"crf": "18", "preset": "veryfast"})


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[Prompt, ...]], None]:
    """Sets what is drawn next."""

    def draw(prompts: tuple[Prompt, ...]) -> None:
        monkeypatch.setattr(challenges, "draw", lambda: prompts)

    return draw


def asked(record: Path, **more: object) -> ConsentOptions:
    return build(ConsentOptions, {"record": record, **more})


def answer(record: Path, number: str, clip: Path, **more: object) -> ConsentOptions:
    return asked(record, action="write", adult=True, who="Ann", challenge=number, source=[clip], **more)


def passes_time(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = time.time() + seconds
    monkeypatch.setattr(time, "time", lambda: now)


@pytest.mark.slow
def test_from_prompts_to_record(
    clip: Path, tmp_path: Path, drawn: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn(PROMPTS)
    space, record = tmp_path / "space", tmp_path / "ann.json"
    film = space / "uploads" / "film.mp4"
    film.parent.mkdir(parents=True)
    shutil.copy(clip, film)
    code, told, _ = run(capsys, space, "consent", "--action", "challenge", "--record", record)
    assert code == 0 and told["prompts"] == [p.text for p in PROMPTS] and not record.exists()
    assert told["prompts"][3] == "Read these digits aloud, one by one: 3 1 4 1 5"
    passes_time(monkeypatch, 60)
    write = ("consent", "--action", "write", "--adult", "--who", "Ann", "--challenge", told["challenge"])
    code, said, err = run(capsys, space, *write, "--record", record, "--source", film)
    assert code == 0, err
    assert said["state"] == "valid"
    proof = said["proof"]
    assert proof.startswith(
        f"live: challenge {told['challenge']} of {told['issued']}; 1. Turn your head to your own right"
    )
    assert proof.count(" s)") == 5 and "of reading only the mouth is seen" in proof
    _, shown, _ = run(capsys, space, "consent", "--record", record)
    assert shown["proof"] == proof
    values = json.loads(record.read_text(encoding="utf-8"))
    record.write_text(json.dumps({**values, "proof": proof.replace("right", "left")}), encoding="utf-8")
    with pytest.raises(ConsentError, match="changed after it was signed"):
        records.load_record(record)
    code, said, _ = run(capsys, space, *write, "--record", tmp_path / "again.json", "--source", clip)
    assert code == 4 and "was answered before" in said["error"]["message"]
    plain = asked(tmp_path / "plain.json", action="write", adult=True, who="Ann", source=[clip])
    assert consent(plain, Host(space))["proof"] == "clips"
    (live,), (clips,) = ([r for r in records.kept(space) if r.proof.startswith(k)] for k in ("live", "clips"))
    assert live.likeness(clips.reference) > 0.8, "it is the person of the clip"
    revoked = consent(asked(space / "consent" / f"{live.id}.json", action="revoke"), Host(space))
    assert [one["kind"] for one in revoked["deleted"]] == ["upload"] and not film.exists()


@pytest.mark.slow
def test_another_order_is_refused_and_uses_the_challenge_up(
    clip: Path, tmp_path: Path, drawn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn((PROMPTS[2], PROMPTS[0], *PROMPTS[3:], PROMPTS[1]))
    host, record = Host(tmp_path / "space"), tmp_path / "ann.json"
    number = consent(asked(record, action="challenge"), host)["challenge"]
    passes_time(monkeypatch, 60)
    with pytest.raises(ConsentError, match="keep the order"):
        consent(answer(record, number, clip), host)
    with pytest.raises(ConsentError, match="was answered before"):
        consent(answer(record, number, clip), host)
    assert not record.exists() and records.kept(host.workspace) == []


def test_what_is_refused_before_the_clip_is_looked_at(
    clip: Path, tmp_path: Path, drawn: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it uses the challenge up."""
    drawn(PROMPTS)
    host, record = Host(tmp_path / "space"), tmp_path / "ann.json"
    number = consent(asked(record, action="challenge"), host)["challenge"]
    with pytest.raises(ConsentError, match="film after the prompts were shown"):
        consent(answer(record, number, clip), host)
    passes_time(monkeypatch, 60)
    with pytest.raises(InputError, match="--who"):
        consent(asked(record, action="write", adult=True, challenge=number, source=[clip]), host)
    with pytest.raises(InputError, match="--expires"):
        consent(answer(record, number, clip, expires="2001-01-01"), host)
    with pytest.raises(InputError, match="--source: name one clip"):
        consent(asked(record, action="write", adult=True, who="A", challenge=number, source=[clip, clip]), host)
    with pytest.raises(InputError, match="--person: is for sources with several people"):
        consent(answer(record, number, clip, person=clip), host)
    photo = tmp_path / "photo.png"
    media.write_image(photo, images("sample_target", 1)[0])
    with pytest.raises(InputError, match="is no video"):
        consent(answer(record, number, photo), host)
    assert audit.entries(host.workspace, "challenge used") == []
    passes_time(monkeypatch, 400)
    with pytest.raises(ConsentError, match="ended 5 minutes after it was made"):
        consent(answer(record, number, clip), host)
    record.write_text("{}")
    with pytest.raises(InputError, match="is there already"):
        consent(asked(record, action="challenge"), host)
