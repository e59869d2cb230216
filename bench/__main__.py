"""Hedgerow beside the others, measured in turn: `make bench`. Needs root, and a machine that does little else.

    python -m bench [--rounds N] [--seconds S] [--tests rr,crr,udprr,stream] [--out build/bench.json]

Ours, Docker's bridge and Swarm's overlay are containers of a lab's own engines; bare, routed and flannel are built by
their steps. Each is compared with ours in the same kind of container. Writes one row for each comparison and each goal.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import attach, cluster, rivals
from bench.goals import ratio_rows, time_rows
from bench.measure import CHECKOUT, TESTS, Candidate, Results, measure, serving
from bench.report import disturbed, goal_lines, lines

NETWORK = "dcos-1"


def options_from(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Hedgerow beside the others, measured in turn.")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--seconds", type=float, default=0.25, help="of each measurement")
    parser.add_argument("--tests", default=",".join(TESTS), help=f"some of {','.join(TESTS)}")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "build" / "bench.json")
    options = parser.parse_args(words)
    options.tests = options.tests.split(",")
    return options


def main(words: Sequence[str]) -> int:
    options = options_from(words)
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(cluster.demonstrated())
        attached = attach.times(lab, NETWORK)
        others = [cluster.docker_bridge(lab), cluster.swarm(lab)]
        others += [stack.enter_context(build()) for build in (rivals.bare, rivals.routed, rivals.flannel)]
        ours = [cluster.ours(lab, NETWORK), cluster.ours_on_docker(lab, NETWORK)]
        results = compare([*ours, *others], options)
    times = {
        "P7": attached["ADD"],
        "P7.attach": attached["attach"],
        "P7.fsync": attached["fsync"],
        "P25.up": lab.record.took_s["all"],
        "P25.demo": lab.demo_s,
    }
    ratios = ratio_rows(ours, others, results)
    rows = [*ratios.values(), *time_rows(times)]
    options.out.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n")
    owner = options.out.parent.stat()
    os.chown(options.out, owner.st_uid, owner.st_gid)  # root runs this; the clone may be a user's
    print(*lines([*ours, *others], results, ratios), "", *goal_lines(rows), sep="\n")
    print(*disturbed(results), sep="\n", end="")
    print("\nattach, step by step (ms):", ", ".join(f"{step.strip()} {took:.2f}" for step, took in attached.items()))
    return 0


def compare(candidates: list[Candidate], options: argparse.Namespace) -> Results:
    servers = {pair.server for candidate in candidates for pair in candidate.pairs.values()}
    with serving(sorted(servers)):
        return measure(candidates, tests=options.tests, rounds=options.rounds, seconds=options.seconds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
