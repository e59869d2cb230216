"""What a matrix is made of: on every node one container of each engine in each network, each with a web server."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from hedgerow.errors import HedgerowError

from . import processes
from .engines import API, ask
from .state import Record
from .topology import STATE

IMAGE = "nginx"
PORT = 80


@dataclass(frozen=True, slots=True)
class Place:
    """A running container. `namespace` is its network namespace as the machine sees it."""

    node: str
    engine: str
    network: str
    address: IPv4Address
    namespace: Path

    def __str__(self) -> str:
        return f"{self.node} {self.engine} {self.network}"


def name_of(network: str) -> str:
    return f"web-{network}"


def occupy(record: Record, networks: list[str]) -> list[Place]:
    """Starts what does not run yet. Raises HedgerowError with the engine's words when a container does not start."""
    pids = processes.supervisors(STATE / record.name)
    nodes = [name for name in record.members if name not in ("lan", "controller")]
    with ThreadPoolExecutor(len(nodes) * len(record.engines)) as pool:
        rows = [pool.submit(_occupy, pids[node], node, engine, networks) for node in nodes for engine in record.engines]
        found = [place for row in rows for place in row.result()]
    return sorted(found, key=lambda place: (networks.index(place.network), place.node, place.engine))


def _occupy(pid: int, node: str, engine: str, networks: list[str]) -> list[Place]:
    return [_place(pid, node, engine, network) for network in networks]


def _place(pid: int, node: str, engine: str, network: str) -> Place:
    start(pid, engine, name_of(network), network)
    seen = inspect(pid, engine, name_of(network))
    address = IPv4Address(seen["NetworkSettings"]["Networks"][network]["IPAddress"])
    namespace = Path(f"/proc/{pid}/root/proc/{seen['State']['Pid']}/ns/net")
    return Place(node, engine, network, address, namespace)


def start(pid: int, engine: str, name: str, network: str) -> None:
    """A container of that name, running; one that is there is taken as it is."""
    if engine == "docker":
        base, body = "/containers", {"Image": IMAGE, "HostConfig": {"NetworkMode": network}}
        create = f"{base}/create?name={name}"
    else:
        base = f"{API}/containers"
        body = {"name": name, "image": f"localhost/{IMAGE}", "netns": {"nsmode": "bridge"}, "networks": {network: {}}}
        create = f"{base}/create"
    try:
        inspect(pid, engine, name)
    except HedgerowError:
        ask(pid, engine, "POST", create, body=body)
    ask(pid, engine, "POST", f"{base}/{name}/start")


def inspect(pid: int, engine: str, name: str) -> dict[str, Any]:
    base = "/containers" if engine == "docker" else f"{API}/containers"
    seen: dict[str, Any] = ask(pid, engine, "GET", f"{base}/{name}/json")
    return seen


def remove(pid: int, engine: str, name: str) -> None:
    base = "/containers" if engine == "docker" else f"{API}/containers"
    ask(pid, engine, "DELETE", f"{base}/{name}?force=true")
