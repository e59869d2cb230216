"""What `/v1` answers, as OpenAPI describes it. Names on the outside are for people: agents and networks by name."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from pydantic import BaseModel, ConfigDict, Field


class Shape(BaseModel):
    model_config = ConfigDict(frozen=True)


class AgentBlock(Shape):
    agent: str
    block: IPv4Network | IPv6Network


class NetworkBlock(Shape):
    network: str
    block: IPv4Network | IPv6Network


class AllowShape(Shape):
    """One way. `ports` null: every one."""

    to: str
    ports: list[str] | None


class SelectorShape(Shape):
    """All null and empty: every container of the network."""

    app: str | None
    label: dict[str, str]
    network: str | None


class RuleShape(Shape):
    name: str
    from_: SelectorShape = Field(serialization_alias="from")
    to: SelectorShape
    ports: list[str] | None


class NetworkShape(Shape):
    """A name in `allow` is both ways. `rules` and `agents` null: there are none, which is not the empty list."""

    name: str
    id: str
    vni: int
    gateway: IPv4Address | None
    gateway6: IPv6Address | None
    subnet: IPv4Network | None
    prefix: int | None
    subnet6: IPv6Network | None
    prefix6: int | None
    enabled: bool
    internal: bool
    allow: list[str | AllowShape]
    isolated: bool
    rules: list[RuleShape] | None
    attach: str
    agents: list[str] | None
    hosts: str
    host_services: list[str]
    reaches: list[str]
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
    """`applied`: the newest revision that is all programmed there; `way` of the data path: wire or device; `addresses`
    of its host, none of whose services containers reach.
    """

    name: str
    id: str
    underlay: IPv4Address | IPv6Address
    addresses: list[IPv4Address | IPv6Address]
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


class PublishedShape(Shape):
    """A port of the endpoint's host. `bind` is the host's address, empty for every one of both families."""

    protocol: str
    bind: str
    host_port: int
    container_port: int


class EndpointShape(Shape):
    id: str
    agent: str
    network: str
    address: IPv4Address | None
    address6: IPv6Address | None
    mac: str
    engine: str
    container: str
    ifname: str
    name: str
    published: list[PublishedShape]


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


class SampleEnd(Shape):
    """`port` is 0 where the protocol has none. `name` is empty for an address that is no endpoint's."""

    address: IPv4Address | IPv6Address
    port: int
    name: str
    network: str
    agent: str


class Sample(Shape):
    """A dropped packet, or `packets` that were alike within a moment. `time_s` since the epoch, by the agent's clock;
    `network` is the sender's.
    """

    time_s: float
    agent: str
    network: str
    reason: str
    protocol: str
    source: SampleEnd
    destination: SampleEnd
    packets: int


class ChangedKey(Shape):
    network: str
    key: str


class AppliedConfig(Shape):
    """`revision`: the one that has it, older than the call when nothing changed."""

    revision: str
    changed: list[ChangedKey]
    warnings: list[str]


class CanShape(Shape):
    """`where`: the place in config.yaml that decides, as `db.rules[1]`; `rule` is empty when no rule opens it."""

    allowed: bool
    source: str
    destination: str
    protocol: str
    port: int | None
    rule: str
    reason: str
    where: str


class WhyEnd(Shape):
    """`called` as people know it."""

    called: str
    address: str
    network: str
    agent: str


class WhyStage(Shape):
    """`state`: ok, stop, or none for what lies behind the stop."""

    state: str
    where: str
    what: str


class WhyCause(Shape):
    """`line` is one of config.yaml, 0 where none has a part in it; `by_policy`: nothing is broken, it is refused."""

    place: str
    cause: str
    thing: str
    line: int
    change: str
    by_policy: bool


class WhyProbe(Shape):
    outcome: str
    error: str
    took_ms: float


class WhyStep(Shape):
    """What a program did with a packet of the probe; `back`: of its answer. `reason` is empty but for a drop."""

    agent: str
    program: str
    stage: str
    reason: str
    back: bool


class Why(Shape):
    """`cause` is null exactly when it works. `notes`: what looks wrong and stopped nothing. `trace`: what was seen of
    the probe, host by host.
    """

    revision: str
    works: bool
    port: str
    source: WhyEnd
    destination: WhyEnd
    stages: list[WhyStage]
    cause: WhyCause | None
    notes: list[str]
    probe: WhyProbe | None
    trace: list[WhyStep]


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
