"""How two ways compare, from measurements taken in turn: pure.

Noise of a shared machine comes and goes within seconds, so each round measures everybody once and only what was
measured in the same round is compared. The ratio is the median of the rounds' ratios; its bounds are those of a
percentile bootstrap (Efron 1979): the median of many samples of rounds, drawn with replacement, of which 95 % lie
between them.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

DRAWS = 2000
TAIL = 0.025


@dataclass(frozen=True, slots=True)
class Ratio:
    """`middle` is the median; with 95 % confidence the true one lies between `low` and `high`."""

    middle: float
    low: float
    high: float


def paired(ours: Sequence[float], theirs: Sequence[float], *, seed: int = 1) -> Ratio:
    """Ratio of ours to theirs, round by round. Raises ValueError when there is no round, or not one for one.

    >>> paired([2.0, 4.2, 6.0], [1.0, 2.0, 3.0])
    Ratio(middle=2.0, low=2.0, high=2.1)
    """
    found = [one / other for one, other in zip(ours, theirs, strict=True)]
    if not found:
        raise ValueError("no rounds to compare")
    return bounds(found, seed=seed)


def bounds(values: Sequence[float], *, seed: int = 1) -> Ratio:
    """The median of the values and its bounds."""
    draw = random.Random(seed)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(DRAWS))
    tail = int(DRAWS * TAIL)
    return Ratio(statistics.median(values), medians[tail], medians[-1 - tail])
