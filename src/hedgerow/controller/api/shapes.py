"""What `/v1` answers, as OpenAPI describes it. Names on the outside are for people: agents and networks by name."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    model_config = ConfigDict(frozen=True)


class AgentBlock(Shape):
    agent: str
    block: IPv4Network | IPv6Network


class NetworkBlock(Shape):
    network: str
    block: IPv4Network | IPv6Network


class NetworkShape(Shape):
    name: str
    id: str
    vni: int
    gateway: IPv4Address
    subnet: IPv4Network | None
    prefix: int | None
    subnet6: IPv6Network | None
    prefix6: int | None
    enabled: bool
    internal: bool
    allow: list[str]
    prefixes: list[AgentBlock]
    endpoints: int


class Networks(Shape):
    revision: str
    networks: list[NetworkShape]


class VtepShape(Shape):
    ip: IPv4Address | None
    mac: str
    ip6: IPv6Address | None


class Fault(Shape):
    row: str
    reason: str
    since_s: float


class AgentShape(Shape):
    """`applied`: the newest revision that is all programmed there; `way` of the data path: wire or device."""

    name: str
    id: str
    underlay: IPv4Address
    incarnation: int
    connected: bool
    applied: str | None
    way: str
    vtep: VtepShape
    prefixes: list[NetworkBlock]
    faults: list[Fault]
    endpoints: int


class Agents(Shape):
    revision: str
    agents: list[AgentShape]


class EndpointShape(Shape):
    id: str
    agent: str
    network: str
    address: IPv4Address
    mac: str
    engine: str
    container: str
    ifname: str
    name: str


class Endpoints(Shape):
    revision: str
    endpoints: list[EndpointShape]


class Drop(Shape):
    agent: str
    network: str
    reason: str
    packets: int
    bytes: int


class Drops(Shape):
    """`silent` are agents that did not answer: what they dropped is not among `drops`."""

    revision: str
    drops: list[Drop]
    silent: list[str]


class Trouble(Shape):
    subject: str
    message: str
    next: str


class Status(Shape):
    revision: str
    ok: bool
    agents: int
    connected: int
    networks: int
    endpoints: int
    troubles: list[Trouble]


class Told(Shape):
    """Every answer with a status of 400 or more."""

    message: str
    cure: str
