"""The pattern: the same everywhere, found at any shift, and a false alarm bound that holds."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from lib_vitface.provenance import carriers as pattern
from lib_vitface.provenance.code import Payload, decode, encode

TILE = pattern.TILE


def test_the_pattern_never_changes() -> None:
    """Marks that are out in the world are read with it."""
    known = pattern.carriers()
    places = np.stack([known.rows, known.columns]).astype("<i4")
    bits = np.concatenate([known.sync, known.data, known.bit]).astype("<i4")
    assert len(known.rows) == 1680
    assert hashlib.sha256(places.tobytes() + bits.tobytes()).hexdigest()[:16] == "8c6dd9606ba6c4d3"
    assert np.allclose(np.angle(known.phase[[0, 1, -1]]), [1.31558052, 0.89495296, -3.09996126])


def test_carriers_are_divided_among_finding_and_message() -> None:
    known = pattern.carriers()
    together = np.sort(np.concatenate([known.sync, known.data]))
    assert np.array_equal(together, np.arange(len(known.rows)))
    assert len(known.sync) == pytest.approx(0.25 * len(known.rows), rel=0.01)
    assert set(known.bit) == set(range(368)), "every bit is carried"
    assert np.allclose(np.abs(known.phase), 1)
    radius = np.hypot(known.rows, known.columns) / TILE
    assert radius.min() >= 0.08 and radius.max() <= 0.35


def test_a_tile_has_the_asked_phases() -> None:
    known, coded = pattern.carriers(), encode(Payload("0123abcd", 7))
    phases = pattern.signed(coded)
    tile = pattern.tile_of(phases)
    assert tile.shape == (TILE, TILE) and float(np.mean(tile * tile)) == pytest.approx(1, abs=1e-4)
    spectrum = np.fft.rfft2(tile)[known.rows, known.columns]
    assert np.allclose(spectrum / np.abs(spectrum), phases, atol=1e-4)


@pytest.mark.parametrize("shift", [(0, 0), (17, 80), (95, 1)])
def test_a_shifted_tile_is_found_and_read(shift: tuple[int, int]) -> None:
    payload = Payload("0123abcd", 7)
    tile = np.roll(pattern.tile_of(pattern.signed(encode(payload))), shift, (0, 1)).astype(np.float64)
    noise = np.random.default_rng(0).normal(0, 1, tile.shape)
    values = pattern.whitened(tile + noise)
    score, found = pattern.find(values)[0]
    assert found == shift and score > 8
    assert decode(pattern.soft_bits(values, found)) == payload


@pytest.mark.parametrize("shift", [(0.0, 0.0), (17.5, 80.0), (95.0, 1.5)])
def test_the_score_is_the_normalised_sum_over_the_known_carriers(shift: tuple[float, float]) -> None:
    """Coefficient by coefficient, those of frequency 0 across among them: the bound on chance holds for this sum only."""
    known = pattern.carriers()
    random = np.random.default_rng(4)
    values = random.normal(size=len(known.rows)) + 1j * random.normal(size=len(known.rows))
    values += 2 * known.phase * known.turn(shift)
    sum_, power = 0.0, 0.0
    for k in known.sync:
        angle = 2 * np.pi * (known.rows[k] * shift[0] + known.columns[k] * shift[1]) / TILE
        sum_ += (values[k] * np.conj(known.phase[k]) * np.exp(1j * angle)).real
        power += abs(values[k]) ** 2
    assert (known.columns[known.sync] == 0).any()
    score, found = pattern.find(values)[0]
    assert found == shift and score == pytest.approx(sum_ / np.sqrt(power / 2), rel=1e-9)
    assert pattern.reception(values, shift) == pytest.approx(sum_ / len(known.sync), rel=1e-9)


def test_turn_moves_the_tile() -> None:
    known = pattern.carriers()
    moved = pattern.tile_of(known.phase * known.turn((5, 11)))
    assert np.allclose(moved, np.roll(pattern.tile_of(known.phase), (5, 11), (0, 1)), atol=1e-4)


def test_fold_adds_up_all_tiles() -> None:
    picture = np.random.default_rng(0).normal(size=(100, 200)).astype(np.float32)
    folded = pattern.fold(picture)
    expected = np.zeros((TILE, TILE))
    for row in range(100):
        for column in range(200):
            expected[row % TILE, column % TILE] += picture[row, column]
    assert np.allclose(folded, expected)


def test_the_bound_of_false_alarms_holds() -> None:
    """Of scores of pictures without mark, no more exceed a limit than the bound says."""
    random = np.random.default_rng(4)
    best = [pattern.find(pattern.whitened(random.normal(size=(TILE, TILE))))[0][0] for _ in range(300)]
    for limit in (4.5, 5.0, 5.5):
        bound = pattern.false_alarm(limit, 1)
        assert np.mean(np.array(best) > limit) <= bound + 3 * np.sqrt(bound / 300)
    assert pattern.false_alarm(0, 1) == 1 and pattern.false_alarm(-5, 1) == 1
    assert pattern.false_alarm(9, 10) == pytest.approx(10 * pattern.false_alarm(9, 1))


def test_several_places_are_apart() -> None:
    values = pattern.whitened(np.random.default_rng(5).normal(size=(TILE, TILE)))
    found = pattern.find(values, 4)
    assert [s for s, _ in found] == sorted((s for s, _ in found), reverse=True)
    assert len({shift for _, shift in found}) == 4


def test_a_flat_tile_says_nothing() -> None:
    values = pattern.whitened(np.zeros((TILE, TILE)))
    assert np.isfinite(values).all() and pattern.find(values)[0][0] == 0
