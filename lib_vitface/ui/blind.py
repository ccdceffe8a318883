"""Blind votes between two results: drawn by chance, kept as one JSON line each."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from lib_vitface.errors import InputError, OutputError
from lib_vitface.types import Image
from lib_vitface.ui import footage, markup
from lib_vitface.ui.site import Site

FILE = "votes.jsonl"


@dataclass(frozen=True)
class Pair:
    """Two pictures of the same moment; `key` says which result stands where."""

    left: Image
    right: Image
    key: dict[str, Any]


def draw(site: Site, first: str, second: str, chance: random.Random | None = None) -> Pair:
    """A random moment of two results, sides by chance. Raises `InputError`."""
    chance = chance or random.SystemRandom()
    if not first or not second:
        raise InputError("Name both results.")
    names = [str(site.resolve(name, site.outputs, "result")) for name in (first, second)]
    moment = chance.random()
    chance.shuffle(names)
    left, right = (footage.frame_at(site.resolve(name, site.outputs, "result"), moment) for name in names)
    return Pair(left, right, {"left": names[0], "right": names[1], "moment": moment})


def vote(site: Site, key: Any, choice: str) -> str:
    """Keeps a vote and tells which was which."""
    if not isinstance(key, dict):
        raise InputError("Draw a moment first.")
    line = {"time": time.time(), **key, "vote": choice}
    try:
        with (site.workspace / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise OutputError(f"{site.workspace / FILE}: the vote cannot be kept ({error.strerror}).") from None
    told = f"Left was {key['left']}, right was {key['right']}."
    return markup.message(told, "good") + tally(site)


def tally(site: Site) -> str:
    """All votes so far."""
    counts: Counter[tuple[str, str]] = Counter()
    try:
        lines = (site.workspace / FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        return markup.message("No vote has been cast yet.")
    for line in lines:
        try:
            one = json.loads(line)
            names = sorted((one["left"], one["right"]))
            winner = {"left": one["left"], "right": one["right"]}.get(one["vote"], "no difference")
            counts[(f"{names[0]} and {names[1]}", winner)] += 1
        except (ValueError, KeyError, TypeError):
            continue  # a line that was cut when the disk was full
    return markup.table(
        [(pair, winner, n) for (pair, winner), n in sorted(counts.items())], ("Results", "Better", "Votes")
    )
