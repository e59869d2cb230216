"""Networks: what the operator wrote, and what was drawn for it once."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NewType

NetworkId = NewType("NetworkId", str)
"""32 hex digits, drawn once; never changes, whatever the network is called."""

NetworkName = NewType("NetworkName", str)
"""`[a-z0-9]([-a-z0-9_]*[a-z0-9])?`, at most 63 characters."""

Vni = NewType("Vni", int)
"""VXLAN network identifier (RFC 7348, 5), 4096..2^24-1 here: small ones are other people's habit."""

GATEWAYS = IPv4Network("169.254.64.0/18")
"""Link-local gateways, one a network: two networks in one container must not share one."""

UNUSED_GATEWAYS = (IPv4Network("169.254.169.0/24"), IPv4Network("169.254.170.0/24"))
"""Clouds keep their metadata there. Outside GATEWAYS today; kept so that a wider range never reaches them."""

DNS_ADDRESS = IPv4Address("169.254.1.1")
"""Where every container finds the agent's resolver."""

LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class PortRange:
    """Destination ports `low` to `high` of tcp or udp. The protocol icmp has none, and stands for ICMPv6 as well."""

    protocol: str
    low: int = 0
    high: int = LAST_PORT

    def __str__(self) -> str:
        if self.protocol == "icmp":
            return "icmp"
        ports = str(self.low) if self.low == self.high else f"{self.low}-{self.high}"
        return f"{ports}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Allow:
    """One entry of a network's `allow`. `both_ways`: everything, both ways. Else this network's containers may open
    `ports` of those of `to` (None: every one), and get replies.
    """

    to: NetworkName
    ports: tuple[PortRange, ...] | None = None
    both_ways: bool = True


@dataclass(frozen=True, slots=True)
class Selector:
    """Containers of a network: those of an app, those whose app has all of the labels. Nothing given: every one.

    `network` None is the network that the rule belongs to.
    """

    app: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    network: NetworkName | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """What containers of `from_` may open of those of `to`. `ports` None: every one. `name` is unique in a network."""

    name: str
    from_: Selector
    to: Selector
    ports: tuple[PortRange, ...] | None = None


@dataclass(frozen=True, slots=True)
class HostService:
    """What containers may reach of their own host. `service`: api, metadata, or port, of which the other two are."""

    service: str
    protocol: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"{self.port}/{self.protocol}" if self.service == "port" else self.service


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """One entry of `dcos_overlay_network.overlays`, checked.

    `prefix` is the length of each agent's block of `subnet`. Of lists, absent and empty are two things where they are
    two: `rules` None is no walls inside, () lets nothing pass; `agents` None is every agent, () is none. `allow` and
    `host_services` mean nobody and nothing either way. `attach` is anyone or apps, `hosts` is allow or deny.
    """

    name: NetworkName
    subnet: IPv4Network | None = None
    prefix: int | None = None
    subnet6: IPv6Network | None = None
    prefix6: int | None = None
    enabled: bool = True
    allow: tuple[Allow, ...] = ()
    rules: tuple[Rule, ...] | None = None
    isolated: bool = False
    internal: bool = False
    attach: str = "anyone"
    agents: tuple[str, ...] | None = None
    hosts: str = "allow"
    host_services: tuple[HostService, ...] = ()

    @property
    def is_closed(self) -> bool:
        """Whether its own containers need a rule to reach each other."""
        return self.rules is not None or self.isolated

    def is_for(self, agent: str) -> bool:
        """Whether the agent of that name is to have a part of it."""
        chosen = self.agents is None or any(fnmatchcase(agent, pattern) for pattern in self.agents)
        return self.enabled and chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class VtepSpec:
    """Where each agent's VTEP gets its addresses from."""

    subnet: IPv4Network | None
    subnet6: IPv6Network | None = None
    mac_oui: bytes = b"\x70\xb3\xd5"
    mtu_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec:
    """What config.yaml says, whole."""

    enable: bool
    mtu_bytes: int
    vtep: VtepSpec
    networks: tuple[NetworkSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network that exists. `gateway_index` counts the addresses of GATEWAYS from 1."""

    id: NetworkId
    vni: Vni
    gateway_index: int
    spec: NetworkSpec

    @property
    def name(self) -> NetworkName:
        return self.spec.name

    @property
    def gateway(self) -> IPv4Address:
        return GATEWAYS[self.gateway_index]

    @property
    def versions(self) -> tuple[int, ...]:
        """Of IP: 4, 6 or both."""
        subnets = ((4, self.spec.subnet), (6, self.spec.subnet6))
        return tuple(version for version, subnet in subnets if subnet is not None)

    @property
    def gateway6(self) -> IPv6Address:
        return IPv6Address("fe80::") + self.gateway_index
