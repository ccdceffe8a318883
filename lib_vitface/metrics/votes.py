"""Votes between two results, as a share with the interval in which it is likely to lie."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054
"""Standard deviations on either side that hold 95 % of a normal distribution."""


def win_rate(wins: int, losses: int, z: float = Z_95) -> tuple[float, float, float]:
    """Share of wins among decided votes, and the lower and upper end of its score interval (Wilson 1927), all 0..1.

    Votes that see no difference say nothing of who wins and are left out by the caller. Without any vote: 0.5, 0, 1.
    """
    votes = wins + losses
    if votes == 0:
        return 0.5, 0.0, 1.0
    share = wins / votes
    middle = (share + z * z / (2 * votes)) / (1 + z * z / votes)
    half = z / (1 + z * z / votes) * math.sqrt(share * (1 - share) / votes + z * z / (4 * votes * votes))
    return share, max(0.0, middle - half), min(1.0, middle + half)
