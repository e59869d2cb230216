"""Agents are killed while containers come and go: no packet, no address and no container start is lost."""

from __future__ import annotations

import http.client
import json
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import Proof
from labkit import RunningLab, wait_for

from hedgerow.kernel.netns import open_socket

IN_ITS_START = 0.25
"""Share of kills that hit an agent on its way up. The others hit one that was ready, so that there is progress."""

STARTING_S, WORKING_S = 0.6, 0.8
"""How long at most a kill waits after the last one, or after the agent was ready."""

PROBES_A_KILL = 1000
LONGEST_RUN_S = 60


@dataclass(slots=True)
class Churn:
    """Containers started and removed all the time, by both engines on one node."""

    lab: RunningLab
    node: str
    ended: threading.Event = field(default_factory=threading.Event)
    runs: int = 0
    failures: list[str] = field(default_factory=list)

    def run(self, engine: str) -> None:
        words = [engine, "run", "--rm", "--network", "dev", "busybox", "echo", "fine"]
        while not self.ended.is_set():
            try:
                said = self.lab.run(self.node, *words, check=False, timeout_s=LONGEST_RUN_S)
            except subprocess.TimeoutExpired:
                said = f"not within {LONGEST_RUN_S} s"
            self.runs += 1
            if "fine" not in said.splitlines():
                self.failures.append(f"{self.node} {engine}: {said}")


@contextmanager
def churning(lab: RunningLab, nodes: list[str]) -> Iterator[list[Churn]]:
    churns = [Churn(lab, node) for node in nodes]
    threads = [threading.Thread(target=churn.run, args=(engine,)) for churn in churns for engine in lab.record.engines]
    for thread in threads:
        thread.start()
    try:
        yield churns
    finally:
        for churn in churns:
            churn.ended.set()
        for thread in threads:
            thread.join()


def ask(lab: RunningLab, node: str, path: str) -> str:
    """The agent's local HTTP; empty while it does not answer or is not well."""
    connection = http.client.HTTPConnection("127.0.0.1", timeout=10)
    with open_socket(f"/proc/{lab.pid(node)}/ns/net", socket.AF_INET, socket.SOCK_STREAM) as connection.sock:
        try:
            connection.sock.connect(("127.0.0.1", 9642))
            connection.request("GET", path)
            answer = connection.getresponse()
            said = answer.read().decode()
        except (OSError, http.client.HTTPException):
            return ""
        return said if answer.status == 200 else ""


def figure(lab: RunningLab, node: str, name: str) -> float:
    """One of the agent's metrics; -1 while it does not answer."""
    rows = ask(lab, node, "/metrics").splitlines()
    return next((float(row.split()[1]) for row in rows if row.startswith(f"{name} ")), -1)


def kill_at_a_random_moment(lab: RunningLab, node: str, chance: random.Random, starting: set[str]) -> None:
    """`starting` are the nodes whose agent was hit in its start the last time: twice in a row would only show how long
    engines wait for an agent that is not there.
    """
    pause = threading.Event()
    if node not in starting and chance.random() < IN_ITS_START:
        starting.add(node)
        pause.wait(chance.uniform(0, STARTING_S))
    else:
        starting.discard(node)
        wait_for(f"the agent on {node}", lambda: ask(lab, node, "/healthz"), 60)
        pause.wait(chance.uniform(0, WORKING_S))
    lab.kill(node, "agent")


def taken(lab: RunningLab, node: str) -> tuple[float, float]:
    return figure(lab, node, "hedgerow_endpoints"), figure(lab, node, "hedgerow_addresses_taken")


def links(lab: RunningLab, node: str) -> set[str]:
    """Host ends of containers."""
    rows = json.loads(lab.run(node, "ip", "-j", "link"))
    return {row["ifname"] for row in rows if row["ifname"].startswith("hr-")} - {"hr-host", "hr-peer"}


def test_kills_of_agents_lose_no_packet_and_no_address(lab: RunningLab, proof: Proof) -> None:
    kills = proof.count("agent-kills", small=8, full=100, seed=4)
    chance = random.Random(4)
    with lab.container("n1", "docker", "dev") as near, lab.container("n2", "podman", "dev") as far:
        before = {node: (taken(lab, node), links(lab, node)) for node in ("n1", "n2")}
        address = lab.address("n2", "podman", far, "dev")
        words = [
            lab.namespace("n1", "docker", near),
            lab.namespace("n2", "podman", far),
            address,
            kills * PROBES_A_KILL,
        ]
        traffic = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("traffic.py")), *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with traffic, churning(lab, ["n1", "n2"]) as churns:
            starting: set[str] = set()
            for _ in range(kills):
                kill_at_a_random_moment(lab, chance.choice(["n1", "n2"]), chance, starting)
            out, _ = traffic.communicate(timeout=kills * 10)
        result = json.loads(out)
        assert result.pop("sent") >= kills * PROBES_A_KILL
        assert result == {"lost": 0, "doubled": 0, "stream": True}
        assert [failure for churn in churns for failure in churn.failures] == []
        assert all(churn.runs for churn in churns)
        for node, (figures, names) in before.items():
            wait_for("no endpoint or address is left over", lambda: taken(lab, node) == figures, 60)  # noqa: B023
            wait_for("no link is left over", lambda: links(lab, node) == names)  # noqa: B023


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_a_container_started_while_the_agent_is_dead_gets_its_network_when_it_is_back(
    lab: RunningLab, engine: str
) -> None:
    said: list[str] = []
    words = [engine, "run", "--rm", "--network", "dev", "busybox", "ip", "-o", "addr"]
    thread = threading.Thread(target=lambda: said.append(lab.run("n3", *words)))
    with lab.without("n3", "agent"):
        thread.start()
        wait_for("its start", lambda: engine in lab.run("n3", "ps", "-eo", "args"))
    thread.join()
    assert " 10.64." in said[0]
