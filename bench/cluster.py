"""Containers of a lab's own engines: ours, Docker's bridge and Swarm's overlay, all on the same two nodes."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import CHECKOUT, PORT, Candidate, Pair
from hedgerow.lab import places
from hedgerow.lab.engines import ask
from hedgerow.lab.processes import supervisors
from hedgerow.lab.state import Record, require
from hedgerow.lab.topology import STATE

IMAGE = "busybox"
SWARM_PORT = 2377
ON_DOCKER = "ours.docker"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A lab that is up. `demo_s` is what it took until the demo had shown who reaches whom."""

    record: Record
    pids: dict[str, int]
    demo_s: float

    def docker(self, node: str, method: str, path: str, body: Any = None) -> Any:
        return ask(self.pids[node], "docker", method, path, body=body)

    def call(self, method: str, path: str) -> Any:
        """One call of the controller's API."""
        headers = {"Authorization": f"Bearer {self.record.token}"}
        asked = urllib.request.Request(self.record.api + path, method=method, headers=headers)
        with urllib.request.urlopen(asked) as answer:
            return json.load(answer)

    def container(self, node: str, network: str, ports: dict[str, Any] | None = None) -> tuple[Path, str]:
        """Starts one; returns its network namespace and its address on that network."""
        host = {"NetworkMode": network, "PortBindings": ports or {}}
        body = {
            "Image": IMAGE,
            "Cmd": ["sleep", "86400"],
            "HostConfig": host,
            "ExposedPorts": {p: {} for p in ports or {}},
        }
        made = self.docker(node, "POST", "/containers/create", body)["Id"]
        self.docker(node, "POST", f"/containers/{made}/start")
        seen = self.docker(node, "GET", f"/containers/{made}/json")
        return self._place(node, network, seen)

    def podman_container(self, node: str, network: str) -> tuple[Path, str]:
        name = f"bench-{secrets.token_hex(4)}"
        places.start(self.pids[node], "podman", name, network)
        return self._place(node, network, places.inspect(self.pids[node], "podman", name))

    def _place(self, node: str, network: str, seen: Any) -> tuple[Path, str]:
        namespace = Path(f"/proc/{self.pids[node]}/root/proc/{seen['State']['Pid']}/ns/net")
        return namespace, seen["NetworkSettings"]["Networks"][network]["IPAddress"]


@contextlib.contextmanager
def demonstrated() -> Iterator[Cluster]:
    """A lab of three nodes under a random name, brought up by what `make demo` runs, and gone at the end."""
    name = f"bench-{secrets.token_hex(3)}"
    hedgerow = [sys.executable, "-m", "hedgerow.cli.main", "lab"]
    began = time.monotonic()
    try:
        subprocess.run([*hedgerow, "demo", "--name", name], check=True, cwd=CHECKOUT)
        cluster = Cluster(require(name), supervisors(STATE / name), time.monotonic() - began)
        for app in cluster.call("GET", "/v2/apps")["apps"]:  # the example ends and is started again for ever
            cluster.call("DELETE", f"/v2/apps{app['id']}")
        yield cluster
    finally:
        subprocess.run([*hedgerow, "down", "--name", name], check=True, cwd=CHECKOUT)


def _pairs(start: Callable[[str], tuple[Path, str]]) -> dict[str, Pair]:
    """`start` starts a container on a node."""
    client, _ = start("n1")
    near, near_address = start("n1")
    far, far_address = start("n2")
    return {"same": Pair(client, near, near_address), "cross": Pair(client, far, far_address)}


def _ways(cluster: Cluster) -> str:
    """That packets take between the hosts."""
    return " and ".join(sorted({agent["way"] for agent in cluster.call("GET", "/v1/agents")["agents"]}))


def ours(cluster: Cluster, network: str) -> Candidate:
    """In Podman's containers: nothing but the interface is in their namespaces."""
    pairs = _pairs(lambda node: cluster.podman_container(node, network))
    return Candidate("ours", f"Hedgerow, Podman ({_ways(cluster)})", pairs)


def ours_on_docker(cluster: Cluster, network: str) -> Candidate:
    pairs = _pairs(lambda node: cluster.container(node, network))
    return Candidate(ON_DOCKER, f"Hedgerow, Docker ({_ways(cluster)})", pairs)


def docker_bridge(cluster: Cluster) -> Candidate:
    """Across hosts a published port: that is how Docker alone does it."""
    published = {f"{PORT}/{protocol}": [{"HostPort": str(PORT)}] for protocol in ("tcp", "udp")}
    client, _ = cluster.container("n1", "bridge")
    near, near_address = cluster.container("n1", "bridge")
    far, _ = cluster.container("n2", "bridge", published)
    host = cluster.record.members["n2"]
    pairs = {"same": Pair(client, near, near_address), "cross": Pair(client, far, host)}
    return Candidate("docker", "Docker's bridge, published port", pairs)


def swarm(cluster: Cluster) -> Candidate:
    """An attachable overlay network of a swarm of both nodes."""
    first, second = cluster.record.members["n1"], cluster.record.members["n2"]
    listen = {"ListenAddr": f"0.0.0.0:{SWARM_PORT}"}
    cluster.docker("n1", "POST", "/swarm/init", listen | {"AdvertiseAddr": first})
    token = cluster.docker("n1", "GET", "/swarm")["JoinTokens"]["Worker"]
    remote = {"AdvertiseAddr": second, "RemoteAddrs": [f"{first}:{SWARM_PORT}"], "JoinToken": token}
    cluster.docker("n2", "POST", "/swarm/join", listen | remote)
    network = {
        "Name": "bench-overlay",
        "Driver": "overlay",
        "Attachable": True,
        "IPAM": {"Config": [{"Subnet": "10.66.0.0/24"}]},
    }
    cluster.docker("n1", "POST", "/networks/create", network)
    pairs = _pairs(lambda node: cluster.container(node, "bench-overlay"))
    return Candidate("swarm", "Swarm's overlay", pairs, beside=ON_DOCKER)
