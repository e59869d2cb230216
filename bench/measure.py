"""Measuring: every round runs every candidate once for each test, in an order drawn anew, client on one CPU and server
on another.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
NETBENCH = CHECKOUT / "build" / "bench" / "netbench"
PORT = 5001
TESTS = {
    "rr": ("TCP round trips", "/s"),
    "crr": ("TCP connections, one round trip each", "/s"),
    "udprr": ("UDP round trips", "/s"),
    "stream": ("one TCP stream", "Gbit/s"),
}
PLACES = {"cross": "two hosts", "same": "one host"}
"""Where client and server are."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Network namespaces of a client and a server, and the address that reaches the server."""

    client: Path
    server: Path
    address: str
    port: int = PORT


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way to connect containers. `pairs` has a pair for each of PLACES that it can serve. `beside` names the one of
    ours with the same kind of containers: Docker puts rules for its resolver into each of its own, and with them
    conntrack, which costs ten to fifteen hundredths; Podman and plain namespaces have none.
    """

    name: str
    title: str
    pairs: dict[str, Pair]
    beside: str = "ours"


@dataclass(frozen=True, slots=True)
class Sample:
    """What netbench prints."""

    rate: float
    mean: float
    p50: float
    p99: float
    busy: float
    steal: float
    retransmits: int


Results = dict[tuple[str, str, str], list[Sample]]
"""(test, place, candidate's name) -> one sample for each round."""


def cpus() -> tuple[int, int]:
    """One for clients, one for servers. On a machine with one CPU the same twice."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


@contextlib.contextmanager
def serving(namespaces: Sequence[Path]) -> Iterator[None]:
    """A server in each of the namespaces, ready."""
    with contextlib.ExitStack() as stack:
        for namespace in namespaces:
            command = [NETBENCH, "server", namespace, str(cpus()[1]), str(PORT)]
            server = subprocess.Popen(command, stdout=subprocess.PIPE)
            stack.callback(server.wait)
            stack.callback(server.kill)
            if server.stdout is None or server.stdout.readline() != b"ready\n":
                raise RuntimeError(f"no server in {namespace}")
        yield


def sample(pair: Pair, test: str, seconds: float) -> Sample:
    """One measurement. Raises RuntimeError with what netbench complains of."""
    command = [NETBENCH, test, pair.client, str(cpus()[0]), pair.address, str(pair.port), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{test} to {pair.address}: {done.stderr.strip()}")
    return Sample(**json.loads(done.stdout))


def measure(
    candidates: Sequence[Candidate], *, tests: Sequence[str], rounds: int, seconds: float, seed: int = 1
) -> Results:
    """All candidates in turn. A warm-up round is not counted. Needs `serving` around it."""
    order, results = random.Random(seed), defaultdict(list)
    for number in range(rounds + 1):
        for test, place in ((test, place) for test in tests for place in PLACES):
            present = [candidate for candidate in candidates if place in candidate.pairs]
            for candidate in order.sample(present, len(present)):
                found = sample(candidate.pairs[place], test, seconds if number else seconds / 4)
                if number:
                    results[test, place, candidate.name].append(found)
    return results
