"""What the bench promises, and the rows that it writes: pure.

A goal on a ratio is met when the ratio's lower bound reaches it; a goal on a time when the time is not longer.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from bench.measure import PLACES, TESTS, Candidate, Results
from bench.ratios import paired

RATIOS = {
    # (test, place, against): (id, least lower bound)
    ("rr", "cross", "routed"): ("P1.routed", 1.0),
    ("rr", "cross", "swarm"): ("P1.swarm", 1.15),
    ("rr", "cross", "flannel"): ("P1.flannel", 1.35),
    ("rr", "same", "bare"): ("P2", 0.92),
    ("stream", "cross", "routed"): ("P3.routed", 0.80),
    ("udprr", "cross", "routed"): ("P4.udp", 1.0),
    ("crr", "cross", "routed"): ("P4.crr", 0.95),
}
TIMES = {
    # id: (what, unit, longest)
    "P7": ("CNI ADD, the agent's side whole, median", "ms", 3.0),
    "P7.attach": ("of that, link, program, rows and the container's inside", "ms", None),
    "P7.fsync": ("one durable SQLite commit on the same file system, as each ADD has", "ms", None),
    "P25.up": ("hedgerow lab up, three nodes", "s", 10.0),
    "P25.demo": ("make demo, from installed to the matrix", "s", 60.0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of bench.json. `ratio`, `low` and `high` compare `value` with the rate of `against`."""

    id: str
    what: str
    value: float
    unit: str
    against: str | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    goal: float | None = None
    met: bool | None = None

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def ratio_rows(
    ours: Sequence[Candidate], rivals: Sequence[Candidate], results: Results
) -> dict[tuple[str, str, str], Row]:
    """Ours beside everybody, by test, place and the other's name, wherever both were measured."""
    own = {candidate.name: candidate for candidate in ours}
    every = ((test, place, rival) for test in TESTS for place in PLACES for rival in rivals)
    return {
        (test, place, rival.name): _ratio_row(test, place, own[rival.beside], rival, results)
        for test, place, rival in every
        if (test, place, rival.name) in results
    }


def _ratio_row(test: str, place: str, ours: Candidate, rival: Candidate, results: Results) -> Row:
    what, unit = TESTS[test]
    rates, theirs = ([found.rate for found in results[test, place, who.name]] for who in (ours, rival))
    ratio = paired(rates, theirs)
    name, goal = RATIOS.get((test, place, rival.name), (f"{test}.{place}.{rival.name}", None))
    return Row(
        id=name,
        what=f"{what}, {PLACES[place]}, {ours.title}",
        value=round(statistics.median(rates), 3),
        unit=unit,
        against=rival.title,
        ratio=round(ratio.middle, 3),
        low=round(ratio.low, 3),
        high=round(ratio.high, 3),
        goal=goal,
        met=None if goal is None else ratio.low >= goal,
    )


def time_rows(times: Mapping[str, float]) -> Iterator[Row]:
    for name, (what, unit, goal) in TIMES.items():
        if name in times:
            value = round(times[name], 3)
            yield Row(
                id=name, what=what, value=value, unit=unit, goal=goal, met=None if goal is None else value <= goal
            )
