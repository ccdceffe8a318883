"""The interval of a share of votes against another computation of the same, and against its own promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from lib_vitface.metrics.votes import win_rate


@pytest.mark.parametrize(("wins", "losses"), [(1, 0), (0, 3), (7, 2), (50, 50), (998, 2)])
def test_it_is_wilsons(wins: int, losses: int) -> None:
    share, low, high = win_rate(wins, losses)
    wanted = stats.binomtest(wins, wins + losses).proportion_ci(0.95, method="wilson")
    assert share == wins / (wins + losses)
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_it_holds_the_truth_as_often_as_it_says() -> None:
    chance = np.random.default_rng(0)
    for truth in (0.5, 0.7, 0.9):
        wins = chance.binomial(40, truth, 2000)
        held = [low <= truth <= high for low, high in (win_rate(int(w), 40 - int(w))[1:] for w in wins)]
        assert 0.92 < np.mean(held) < 0.98


def test_without_votes_nothing_is_known() -> None:
    assert win_rate(0, 0) == (0.5, 0.0, 1.0)
