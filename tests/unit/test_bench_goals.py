"""What the bench makes of what it measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.attach import from_log
from bench.goals import ratio_rows, time_rows
from bench.measure import Candidate, Results, Sample
from bench.report import disturbed

OURS, ROUTED = Candidate("ours", "Hedgerow", {}), Candidate("routed", "routed, no overlay", {})
LOG = """\
2026-11-25 INFO hedgerow.agent.attach: attached cni/bench-1/eth0 9.0.0.2 in 2.00 ms: wait 0.10, link 1.20
2026-11-25 INFO hedgerow.agent.engines.cni: ADD bench-1 eth0 3.0 ms
2026-11-25 INFO hedgerow.agent.attach: attached docker/aa/eth 9.0.0.9 in 9.00 ms: wait 9.00
2026-11-25 INFO hedgerow.agent.attach: attached cni/bench-2/eth0 9.0.0.3 in 4.00 ms: wait 0.30, link 1.80
2026-11-25 INFO hedgerow.agent.engines.cni: ADD bench-2 eth0 5.0 ms
"""


def runs(*rates: float) -> list[Sample]:
    return [Sample(rate=rate, mean=rate, p50=1, p99=1, busy=1, steal=0, retransmits=0) for rate in rates]


def test_a_goal_is_met_only_when_the_lower_bound_reaches_it() -> None:
    ours = [104.0, 103.0, 105.0, 96.0, 104.0, 97.0, 96.0]
    results: Results = {("rr", "cross", "ours"): runs(*ours), ("rr", "cross", "routed"): runs(*[100.0] * 7)}
    row = ratio_rows([OURS], [ROUTED], results)["rr", "cross", "routed"]
    assert (row.id, row.goal, row.ratio) == ("P1.routed", 1.0, 1.03)
    assert row.low == 0.96
    assert row.met is False


def test_a_comparison_without_a_goal_has_a_row_too() -> None:
    results: Results = {("rr", "same", "ours"): runs(50.0), ("rr", "same", "routed"): runs(40.0)}
    (row,) = ratio_rows([OURS], [ROUTED], results).values()
    assert (row.id, row.ratio, row.goal, row.met) == ("rr.same.routed", 1.25, None, None)


def test_a_time_may_be_as_long_as_its_goal() -> None:
    rows = {row.id: row.met for row in time_rows({"P7": 3.0, "P25.up": 10.1, "P7.fsync": 0.4})}
    assert rows == {"P7": True, "P25.up": False, "P7.fsync": None}


def test_the_agents_log_gives_the_median_of_each_step_of_our_own_calls() -> None:
    assert from_log(LOG) == {"ADD": 4.0, "attach": 3.0, "  wait": 0.2, "  link": 1.5}


def test_a_run_beside_others_at_work_says_so() -> None:
    quiet: Results = {("rr", "cross", "ours"): runs(40.0, 41.0)}
    beside: Results = {("rr", "cross", "ours"): [replace(run, p99=25) for run in runs(40.0, 41.0)]}
    assert list(disturbed(quiet)) == []
    assert "trust no bound" in "".join(disturbed(beside))


def test_netbench_is_looked_for_where_make_puts_it() -> None:
    makefile = (Path(__file__).parents[2] / "mk" / "bench.mk").read_text()
    assert "build/bench/netbench:" in makefile


def test_each_is_compared_with_ours_in_the_same_kind_of_container() -> None:
    docker, swarm = Candidate("ours.docker", "Hedgerow", {}), Candidate("swarm", "Swarm", {}, beside="ours.docker")
    results: Results = {
        ("rr", "cross", "ours"): runs(100.0),
        ("rr", "cross", "ours.docker"): runs(80.0),
        ("rr", "cross", "swarm"): runs(40.0),
    }
    assert ratio_rows([OURS, docker], [swarm], results)["rr", "cross", "swarm"].ratio == 2.0
