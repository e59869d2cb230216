"""Networks: what the operator wrote, and what was drawn for it once."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """One entry of `dcos_overlay_network.overlays`, checked.

    `prefix` is the length of each agent's block of `subnet`. `allow` names the networks that may talk to this one, both
    ways; absent and empty both mean nobody.
    """

    name: NetworkName
    subnet: IPv4Network | None = None
    prefix: int | None = None
    subnet6: IPv6Network | None = None
    prefix6: int | None = None
    enabled: bool = True
    allow: tuple[NetworkName, ...] = ()
    internal: bool = False


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
    def gateway6(self) -> IPv6Address:
        return IPv6Address("fe80::") + self.gateway_index
