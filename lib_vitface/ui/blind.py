"""Blind votes between two results: drawn by chance, kept as one JSON line each."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from lib_vitface.errors import InputError, OutputError
from lib_vitface.metrics.votes import win_rate
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
    names = [str(site.find(name, site.outputs, "result")) for name in (first, second)]
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


def counts(site: Site) -> dict[tuple[str, str], tuple[int, int, int]]:
    """Votes by pair of results: for the first, for the second, and of no difference."""
    try:
        lines = (site.workspace / FILE).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    found: dict[tuple[str, str], Counter[str]] = {}
    for line in lines:
        try:
            one = json.loads(line)
            first, second = sorted((str(one["left"]), str(one["right"])))
            winner = {"left": one["left"], "right": one["right"]}.get(one["vote"], "")
        except (ValueError, KeyError, TypeError):
            continue  # a line that was cut when the disk was full
        found.setdefault((first, second), Counter())[str(winner)] += 1
    return {pair: (votes[pair[0]], votes[pair[1]], votes[""]) for pair, votes in found.items()}


def tally(site: Site) -> str:
    """All votes so far, with the share of each pair's first result and the interval it lies in with 95 % confidence."""
    rows = []
    for (first, second), (wins, losses, ties) in sorted(counts(site).items()):
        share, low, high = win_rate(wins, losses)
        told = f"{share:.0%} ({low:.0%} to {high:.0%})" if wins + losses else "–"
        rows.append((first, second, wins, losses, ties, told, _verdict(low, high)))
    if not rows:
        return markup.message("No vote has been cast yet.")
    head = ("First", "Second", "First better", "Second better", "No difference", "First wins (95 %)", "So far")
    return markup.table(rows, head)


def _verdict(low: float, high: float) -> str:
    return "the first is better" if low > 0.5 else "the second is better" if high < 0.5 else "not decided"
