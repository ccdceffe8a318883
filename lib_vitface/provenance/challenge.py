"""What a person is asked to do before the camera: drawn by chance, signed by the workspace, answered once and soon.

Such a request is only worth something while nobody could know it beforehand (challenge and response); so it is drawn from the
system's random source, holds for minutes, and the first clip that answers it, whether well or badly, uses it up.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import secrets
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib_vitface.errors import ConsentError
from lib_vitface.media.container import beside, writing
from lib_vitface.provenance import audit
from lib_vitface.provenance.keys import Keys, is_signed

LIFE_S = 300
"""How long after it was made a challenge may be answered."""
HEADS = ("left", "right", "up", "down")
"""Movements of the head; left and right are the person's own."""
MOST_AN_HOUR = 20
"""How many are made in an hour: nobody asks again and again until the prompts are those of a clip that is there already."""
TURNS = 3
"""How many movements of the head are asked for."""
BLINKS = (2, 3)
DIGITS = 5
WORDS = {
    "left": "Turn your head to your own left, then look straight again",
    "right": "Turn your head to your own right, then look straight again",
    "up": "Raise your chin and look up, then look straight again",
    "down": "Lower your chin and look down, then look straight again",
    "blink 2": "Blink twice, quickly",
    "blink 3": "Blink three times, quickly",
    "read": "Read these digits aloud, one by one",
}
_FORMAT = "vitface-challenge"
_FOLDER = "challenges"
_MADE, _USED = "challenge made", "challenge used"
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Prompt:
    """One thing to do: `kind` is one of `HEADS`, "blink" (then `detail` is how often) or "read" (`detail` is the digits)."""

    kind: str
    detail: str = ""

    @property
    def words(self) -> str:
        """The sentence of `WORDS`, without the digits."""
        return WORDS[f"blink {self.detail}" if self.kind == "blink" else self.kind]

    @property
    def text(self) -> str:
        return f"{self.words}: {' '.join(self.detail)}" if self.kind == "read" else self.words


@dataclass(frozen=True)
class Challenge:
    """`issued` is in whole seconds since 1970 (UTC), by the clock of the machine it was made on."""

    id: str
    issued: int
    prompts: tuple[Prompt, ...]

    @property
    def issued_text(self) -> str:
        return _utc(self.issued)

    @property
    def ends_text(self) -> str:
        return _utc(self.issued + LIFE_S)


def _utc(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def draw() -> tuple[Prompt, ...]:
    """Three movements of the head, none the same as the one before, and among them one blinking and one reading.

    1440 orders are equally likely (4 * 3 * 3 movements, 5 * 4 places, 2 counts of blinks); the digits are not checked.
    """
    heads: list[str] = []
    while len(heads) < TURNS:
        heads.append(secrets.choice([kind for kind in HEADS if kind not in heads[-1:]]))
    digits = "".join(str(secrets.randbelow(10)) for _ in range(DIGITS))
    prompts = [Prompt(kind) for kind in heads]
    for other in (Prompt("blink", str(secrets.choice(BLINKS))), Prompt("read", digits)):
        prompts.insert(secrets.randbelow(len(prompts) + 1), other)
    return tuple(prompts)


def issue(workspace: Path, keys: Keys) -> Challenge:
    """A new challenge, signed, kept in the workspace and noted in its audit log. Those that have ended go.

    Raises `ConsentError` where too many were asked for, `OutputError` where it cannot be written.
    """
    hour_ago = _utc(int(time.time()) - 3600)[:-1]  # as the log writes it, but for the zone
    if sum(str(one["time"]) > hour_ago for one in audit.entries(workspace, _MADE)) >= MOST_AN_HOUR:
        raise ConsentError(
            f"{MOST_AN_HOUR} challenges were asked for within an hour, the most there are; ask again later."
        )
    made = Challenge(secrets.token_hex(8), int(time.time()), draw())
    body = {"format": _FORMAT, **asdict(made), "public_key": keys.public}
    path = _path(workspace, made.id)
    with beside(path) as temporary, writing(path):
        for old in path.parent.iterdir():  # what a killed process left as well
            with contextlib.suppress(FileNotFoundError):
                if time.time() - old.stat().st_mtime > LIFE_S:
                    old.unlink()
        temporary.write_text(json.dumps({**body, "signature": keys.sign(_bytes(body))}), encoding="utf-8")
    audit.note(workspace, _MADE, challenge=made.id)
    return made


def use_up(workspace: Path, keys: Keys, given: str, length_s: float) -> Challenge:
    """The challenge of an id, for this one time, to be answered by a clip of `length_s` seconds.

    Raises `ConsentError` where this workspace has made none of this id, it was used before, was changed, is too old, or
    younger than the clip is long. What was used stands in the audit log, so a copy of the file put back does not help.
    """
    if not _ID.fullmatch(given):
        raise ConsentError(
            f"--challenge: {given[:40]!r} is no challenge; ask for one with `consent --action challenge`."
        )
    if any(one.get("challenge") == given for one in audit.entries(workspace, _USED)):
        raise ConsentError(f"--challenge: {given} was answered before; ask for a new one and film it.")
    path = _path(workspace, given)
    found = _read(path, keys)
    age = time.time() - found.issued
    if age < -1:
        raise ConsentError(
            f"--challenge: {given} is of a later time than the clock's; set the clock, and ask for a new one."
        )
    if age > LIFE_S:
        raise ConsentError(
            f"--challenge: {given} ended {LIFE_S // 60} minutes after it was made; ask for a new one and answer it sooner."
        )
    if length_s > age + 1:  # issued in whole seconds
        raise ConsentError(
            f"--challenge: {given} is {age:.0f} s old and the clip lasts {length_s:.0f} s; film after the prompts were shown."
        )
    try:
        path.unlink()  # of two that try at once, one succeeds
    except OSError:
        raise ConsentError(f"--challenge: {given} was answered before; ask for a new one and film it.") from None
    audit.note(workspace, _USED, challenge=given)
    return found


def _path(workspace: Path, challenge_id: str) -> Path:
    return workspace / "consent" / _FOLDER / f"{challenge_id}.json"


def _bytes(body: dict[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True).encode()


def _read(path: Path, keys: Keys) -> Challenge:
    """Raises `ConsentError` where the file is missing, damaged, or not as this workspace signed it."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        signature = str(body.pop("signature"))
        prompts = tuple(Prompt(str(one["kind"]), str(one["detail"])) for one in body["prompts"])
        found = Challenge(str(body["id"]), int(body["issued"]), prompts)
    except FileNotFoundError:
        raise ConsentError(
            f"--challenge: this workspace has none that is called {path.stem}; ask for a new one, and answer it here."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConsentError(f"{path}: the challenge cannot be read ({error}); ask for a new one.") from None
    if found.id != path.stem or not is_signed(keys.public, _bytes(body), signature):
        raise ConsentError(f"{path}: the challenge was changed after it was made; ask for a new one.")
    return found
