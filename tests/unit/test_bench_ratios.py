"""How the bench compares: noise that hits a whole round must not count."""

from __future__ import annotations

import random

import pytest

from bench.ratios import bounds, paired


def test_a_round_that_was_slow_for_all_does_not_change_the_ratio() -> None:
    theirs = [100.0, 101.0, 12.0, 99.0, 30.0]
    found = paired([1.25 * rate for rate in theirs], theirs)
    assert (found.low, found.middle, found.high) == (1.25, 1.25, 1.25)


def test_the_bounds_hold_the_true_ratio_for_nineteen_of_twenty_noisy_runs() -> None:
    noise = random.Random(4)
    held = 0
    for run in range(60):
        theirs = [100 * noise.gauss(1, 0.05) for _ in range(21)]
        ours = [120 * noise.gauss(1, 0.05) for _ in range(21)]
        found = paired(ours, theirs, seed=run)
        held += found.low <= 1.2 <= found.high
    assert held >= 54


def test_one_round_far_off_does_not_move_the_middle() -> None:
    assert bounds([1.0, 1.01, 0.99, 1.0, 9.0]).middle == 1.0


def test_the_same_rounds_give_the_same_bounds() -> None:
    ours, theirs = [3.0, 4.0, 5.0, 4.5], [2.0, 2.0, 3.0, 2.5]
    assert paired(ours, theirs) == paired(ours, theirs)


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="no rounds"):
        paired([], [])
