"""An agent's core without a kernel: attachments in memory, three networks, and a server around an app."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from hedgerow.addressing.pool import Pool
from hedgerow.agent.passes import Passes
from hedgerow.errors import Conflict, HedgerowError, NotFound, Refused
from hedgerow.model.agent import AgentId
from hedgerow.model.app import AppId, Engine, Instance, InstanceId, Launch
from hedgerow.model.endpoint import Address, Endpoint, EndpointKey, mac_of, of_each_family
from hedgerow.model.network import ClusterSpec, Network, NetworkId, NetworkName, NetworkSpec, Vni, VtepSpec
from hedgerow.model.published import PortRequest
from hedgerow.model.snapshot import Revision, Snapshot


def network(name: str, index: int, subnet: str = "", subnet6: str = "", *, internal: bool = False) -> Network:
    spec = NetworkSpec(
        name=NetworkName(name),
        subnet=IPv4Network(subnet) if subnet else None,
        prefix=24 if subnet else None,
        subnet6=IPv6Network(subnet6) if subnet6 else None,
        prefix6=112 if subnet6 else None,
        internal=internal,
    )
    return Network(id=NetworkId(f"{index:032x}"), vni=Vni(4096 + index), gateway_index=index, spec=spec)


DRAWN = 20001
"""The port that is drawn for whoever leaves it open."""

DCOS = network("dcos-1", 1, "9.0.0.0/8")
DEV = network("dev", 2, "10.64.0.0/12")
VAULT = network("vault", 3, "10.80.0.0/14", internal=True)
BOTH = network("both", 4, "10.96.0.0/14", "fd00:b::/64")
SIX = network("six", 5, subnet6="fd00:6::/64")
FOR_APPS = replace(DCOS, spec=replace(DCOS.spec, attach="apps"))
OWN = AgentId("a" * 32)


def snapshot(*networks: Network) -> Snapshot:
    cluster = ClusterSpec(enable=True, mtu_bytes=1420, vtep=VtepSpec(subnet=None), networks=())
    return Snapshot(revision=Revision(1, 1), own=OWN, cluster=cluster, networks={row.id: row for row in networks})


class FakeState:
    def __init__(self, *networks: Network, is_live: bool = True) -> None:
        self.snapshot: Snapshot | None = snapshot(*(networks or (DCOS, DEV, VAULT)))
        self.is_live = is_live
        self.generation = 1
        self.boot_id = "this boot"
        self._event = asyncio.Event()

    def set(self, *networks: Network, is_live: bool = True) -> None:
        self.snapshot, self.is_live = snapshot(*networks), is_live
        self.generation += 1
        self._event.set()
        self._event = asyncio.Event()

    async def changed(self, generation: int) -> int:
        while self.generation == generation:
            await self._event.wait()
        return self.generation


@dataclass
class FakeAttachments:
    """As the agent's: durable by itself, each call repeatable. `faults` names methods that fail, and how."""

    state: FakeState
    hangs: bool = False
    rows: dict[EndpointKey, Endpoint] = field(default_factory=dict)
    passing: dict[EndpointKey, tuple[str | None, str]] = field(default_factory=dict)
    faults: dict[str, Exception] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    renamed: asyncio.Event = field(default_factory=asyncio.Event)
    pools: dict[tuple[NetworkId, int], Pool] = field(default_factory=dict)
    assigned: dict[InstanceId, Instance] = field(default_factory=dict)

    def assign(self, name: str, network: Network) -> Instance:
        """An instance that the controller wants to run here."""
        launch = Launch(engine=Engine.DOCKER, network=network.name, image="busybox", command=None)
        instance = Instance(
            id=InstanceId(name), app=AppId("/web"), incarnation=1, agent=OWN, agent_incarnation=1, launch=launch
        )
        self.assigned[instance.id] = instance
        return instance

    @property
    def passes(self) -> Passes:
        return Passes(b"a private key", lambda: self.assigned)

    def _called(self, what: str, detail: object = "") -> None:
        self.calls.append(f"{what} {detail}".strip())
        if what in self.faults:
            raise self.faults[what]

    def network(self, name: str) -> Network:
        networks = self.state.snapshot.networks.values() if self.state.snapshot else []
        for row in networks:
            if row.name == name:
                return row
        raise NotFound(f"no network {name!r}", f"there are {', '.join(row.name for row in networks)}")

    async def reserve(self, network: Network, owner: str, address: Address | None, version: int = 4) -> Address:
        self._called("reserve", owner)
        subnet = network.spec.subnet if version == 4 else network.spec.subnet6
        assert subnet is not None
        block = ip_network((subnet.network_address, 24 if version == 4 else 112))
        pool = self.pools.setdefault((network.id, version), Pool(network.name, [block]))
        return pool.take(owner, address)

    def networks(self) -> list[Network]:
        return list(self.state.snapshot.networks.values()) if self.state.snapshot else []

    async def release(self, address: Address) -> None:
        for pool in self.pools.values():
            pool.give_back(address)

    async def release_owner(self, owner: str) -> None:
        for pool in self.pools.values():
            address = pool.address_of(owner)
            if address:
                pool.give_back(address)

    def reservations(self) -> list[tuple[str, Address]]:
        return [(owner, address) for pool in self.pools.values() for address, owner in pool._owners.items()]

    async def create(
        self, key: EndpointKey, network: Network, addresses: Collection[Address], mac: bytes | None, name: str = ""
    ) -> Endpoint:
        self._called("create", key)
        ip, ip6 = of_each_family(addresses)
        mac = mac or mac_of(next(iter(addresses)))
        endpoint = Endpoint(key=key, network=network.id, address=ip, address6=ip6, mac=mac, name=name)
        known = self.rows.setdefault(key, endpoint)
        if (known.network, known.addresses) != (network.id, endpoint.addresses):
            raise Conflict(f"{key} is there with {known.first_address}")
        return known

    async def attach(self, key: EndpointKey, netns: str | None, ifname: str, sandbox: str = "") -> Endpoint:
        self._called("attach", key)
        if self.hangs:
            await asyncio.Event().wait()
        self.rows[key] = replace(self.rows[key], link_index=7)
        self.passing[key] = (netns, ifname)
        return self.rows[key]

    async def rename(self, key: EndpointKey, name: str) -> None:
        if key in self.rows:
            self.rows[key] = replace(self.rows[key], name=name)
            self.renamed.set()

    async def publish(self, key: EndpointKey, requests: Sequence[PortRequest]) -> Endpoint:
        self._called("publish", key)
        if key not in self.rows:
            raise NotFound(f"no endpoint {key}")
        ports = tuple(each.at_port(each.low or DRAWN) for each in requests)
        self.rows[key] = replace(self.rows[key], published=ports)
        return self.rows[key]

    async def unpublish(self, key: EndpointKey) -> None:
        self._called("unpublish", key)
        if key in self.rows:
            self.rows[key] = replace(self.rows[key], published=())

    async def detach(self, key: EndpointKey) -> None:
        self._called("detach", key)
        self.passing.pop(key, None)

    async def delete(self, key: EndpointKey) -> None:
        self._called("delete", key)
        self.passing.pop(key, None)
        self.rows.pop(key, None)

    async def check(self, key: EndpointKey, netns: str, ifname: str) -> None:
        self._called("check", key)
        if self.passing.get(key) != (netns, ifname):
            raise Refused(f"no link of {key}")

    def endpoints(self) -> list[Endpoint]:
        return list(self.rows.values())

    @property
    def is_empty(self) -> bool:
        return not self.rows and not self.passing and not self.reservations()


NO_ROOM = HedgerowError("no room", "make some")


@contextlib.contextmanager
def served(app: ASGIApp, path: Path) -> Iterator[None]:
    """Like the agent: uvicorn with httptools on a socket that is held here."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(64)
    server = uvicorn.Server(uvicorn.Config(app, http="httptools", lifespan="off", log_level="error", access_log=False))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        path.unlink(missing_ok=True)


def post(app: ASGIApp, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    """One request without a server: status and body of the answer."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    rows = [(name.lower().replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    asyncio.run(app({**scope, "http_version": "1.1", "scheme": "http", "headers": rows}, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])
