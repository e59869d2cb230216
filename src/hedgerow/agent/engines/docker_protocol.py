"""What dockerd's calls carry, as far as it means something here (libnetwork's remote drivers, Docker 20.10 to 29).

dockerd writes null for an empty mapping and leaves out what is false.
"""

from __future__ import annotations

import socket
from typing import Any

import msgspec
from msgspec import Struct

from hedgerow.model.published import PortRequest, request

GENERIC = "com.docker.network.generic"
GATEWAY = "com.docker.network.gateway"
INTERNAL = "com.docker.network.internal"
ENABLE_IPV6 = "com.docker.network.enable_ipv6"
PORTMAP = "com.docker.network.portmap"
ADDRESS_TYPE = "RequestAddressType"
ADDRESS_SPACE = "hedgerow"

CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"

_PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp", socket.IPPROTO_SCTP: "sctp"}

Answer = dict[str, Any]


class PoolRequest(Struct, rename="pascal"):
    pool: str = ""
    sub_pool: str = ""
    options: dict[str, str] | None = None
    v6: bool = False


class AddressRequest(Struct):
    pool: str = msgspec.field(name="PoolID")
    address: str = msgspec.field(name="Address", default="")
    options: dict[str, str] | None = msgspec.field(name="Options", default=None)


class AddressRelease(Struct, rename="pascal"):
    address: str


class IpamData(Struct, rename="pascal"):
    address_space: str = ""
    pool: str = ""


class NetworkCreation(Struct):
    options: dict[str, Any] | None = msgspec.field(name="Options", default=None)
    ipv4: list[IpamData] | None = msgspec.field(name="IPv4Data", default=None)
    ipv6: list[IpamData] | None = msgspec.field(name="IPv6Data", default=None)


class Interface(Struct):
    address: str = msgspec.field(name="Address", default="")
    address6: str = msgspec.field(name="AddressIPv6", default="")
    mac_address: str = msgspec.field(name="MacAddress", default="")


class EndpointCreation(Struct):
    endpoint: str = msgspec.field(name="EndpointID")
    interface: Interface = msgspec.field(name="Interface")
    options: dict[str, Any] | None = msgspec.field(name="Options", default=None)


class Binding(Struct):
    """One `-p`. `host_port` to `host_port_end` is the range to choose from, 0 leaves the choice to us."""

    protocol: int = msgspec.field(name="Proto", default=0)
    port: int = msgspec.field(name="Port", default=0)
    host_address: str | None = msgspec.field(name="HostIP", default=None)
    host_port: int = msgspec.field(name="HostPort", default=0)
    host_port_end: int = msgspec.field(name="HostPortEnd", default=0)


class EndpointOptions(Struct):
    bindings: list[Binding] | None = msgspec.field(name=PORTMAP, default=None)


class EndpointCall(Struct):
    """Join, ProgramExternalConnectivity, RevokeExternalConnectivity, Leave and DeleteEndpoint."""

    endpoint: str = msgspec.field(name="EndpointID")
    sandbox: str = msgspec.field(name="SandboxKey", default="")
    options: EndpointOptions | None = msgspec.field(name="Options", default=None)

    @property
    def published(self) -> list[PortRequest]:
        """Raises BadInput and Refused, as `model.published.request`."""
        return [
            request(
                _PROTOCOLS.get(row.protocol, f"number {row.protocol}"),
                row.port,
                row.host_port,
                row.host_port_end,
                row.host_address or "",
            )
            for row in (self.options and self.options.bindings) or []
        ]


CONSTANT: dict[str, Answer] = {
    "Plugin.Activate": {"Implements": ["NetworkDriver", "IpamDriver"]},
    # Local: each host gives its own addresses. Global connectivity: Swarm's names work on such a network.
    "NetworkDriver.GetCapabilities": {"Scope": "local", "ConnectivityScope": "global"},
    "IpamDriver.GetCapabilities": {"RequiresMACAddress": False, "RequiresRequestReplay": False},
    "IpamDriver.GetDefaultAddressSpaces": {
        "LocalDefaultAddressSpace": ADDRESS_SPACE,
        "GlobalDefaultAddressSpace": ADDRESS_SPACE,
    },
    "IpamDriver.ReleasePool": {},
    "NetworkDriver.DeleteNetwork": {},
    "NetworkDriver.EndpointOperInfo": {"Value": {}},
    "NetworkDriver.DiscoverNew": {},
    "NetworkDriver.DiscoverDelete": {},
}
"""Calls that are answered without looking at them: also with no controller and no network known yet."""
