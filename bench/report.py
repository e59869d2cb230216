"""What the bench prints: rates of everybody, then ours against each with its bounds, then the goals."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from bench.goals import Row
from bench.measure import PLACES, TESTS, Candidate, Results, Sample

DISTURBED = 10
"""Times the median, of the 99th percentile."""


def lines(
    candidates: Sequence[Candidate], results: Results, ratios: Mapping[tuple[str, str, str], Row]
) -> Iterator[str]:
    for test, (what, unit) in TESTS.items():
        for place, where in PLACES.items():
            present = [candidate for candidate in candidates if (test, place, candidate.name) in results]
            if present:
                yield f"\n{what}, {where} ({unit})"
            for candidate in present:
                key = (test, place, candidate.name)
                yield _line(candidate.title, results[key], ratios.get(key))


def _line(title: str, runs: Sequence[Sample], row: Row | None) -> str:
    """Median of the rounds: rate in the median slice and over all, time of one unit; ours against it."""
    rate, mean, p50, p99 = (
        statistics.median(values)
        for values in zip(*((run.rate, run.mean, run.p50, run.p99) for run in runs), strict=True)
    )
    ratio = f"  ours {row.ratio:.2f} ({row.low:.2f} to {row.high:.2f})" if row else ""
    return f"  {title:34} {rate:>10,.1f}  mean {mean:>10,.1f}  p50 {p50:>6.1f} us  p99 {p99:>7.1f} us{ratio}"


def goal_lines(rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        verdict = "" if row.met is None else "met" if row.met else "MISSED"
        if row.ratio is not None and row.goal is not None:
            bounds = f"{row.ratio:.2f} ({row.low:.2f} to {row.high:.2f})"
            yield f"{row.id:12} {row.what}, against {row.against}: {bounds}, at least {row.goal:g}: {verdict}"
        elif row.ratio is None:
            limit = "" if row.goal is None else f", at most {row.goal:g}: {verdict}"
            yield f"{row.id:12} {row.what}: {row.value:g} {row.unit}{limit}"


def disturbed(results: Results) -> Iterator[str]:
    """On a machine that does nothing else one round trip in a hundred takes three times the usual, not ten times: then
    somebody else had the CPU.
    """
    slowest = [run.p99 / run.p50 for (test, _, _), runs in results.items() if test == "rr" for run in runs]
    if slowest and statistics.median(slowest) > DISTURBED:
        yield "\nOthers were at work on this machine meanwhile: trust no bound of this run.\n"
