"""What a matrix is made of: on every node one container of each engine in each network, each with a web server.

A container of a network of both IP versions is two places, for each of its addresses is reached or refused by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
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
    """An address of a running container. `namespace` is its network namespace as the machine sees it."""

    node: str
    engine: str
    network: str
    address: IPv4Address | IPv6Address
    namespace: Path

    def __str__(self) -> str:
        version = "" if self.address.version == 4 else " IPv6"
        return f"{self.node} {self.engine} {self.network}{version}"


def name_of(network: str) -> str:
    return f"web-{network}"


def occupy(record: Record, networks: list[str]) -> list[Place]:
    """Starts what does not run yet. Raises HedgerowError with the engine's words when a container does not start."""
    pids = processes.supervisors(STATE / record.name)
    nodes = [name for name in record.members if name not in ("lan", "controller")]
    with ThreadPoolExecutor(len(nodes) * len(record.engines)) as pool:
        rows = [pool.submit(_occupy, pids[node], node, engine, networks) for node in nodes for engine in record.engines]
        found = [place for row in rows for place in row.result()]
    return sorted(found, key=_order(networks))


def _order(networks: list[str]) -> Callable[[Place], tuple[int, int, str, str]]:
    return lambda place: (networks.index(place.network), place.address.version, place.node, place.engine)


def _occupy(pid: int, node: str, engine: str, networks: list[str]) -> list[Place]:
    return [place for network in networks for place in _places(pid, node, engine, network)]


def _places(pid: int, node: str, engine: str, network: str) -> list[Place]:
    start(pid, engine, name_of(network), network)
    seen = inspect(pid, engine, name_of(network))
    namespace = Path(f"/proc/{pid}/root/proc/{seen['State']['Pid']}/ns/net")
    return [Place(node, engine, network, address, namespace) for address in addresses(seen, network)]


def addresses(seen: dict[str, Any], network: str) -> list[IPv4Address | IPv6Address]:
    """From what an engine shows of a container. A link-local one stands for none: Docker does not do without IPv4."""
    row = seen["NetworkSettings"]["Networks"][network]
    found = [ip_address(row[key]) for key in ("IPAddress", "GlobalIPv6Address") if row.get(key)]
    return [address for address in found if not address.is_link_local]


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
